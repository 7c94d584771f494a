package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/moby/buildkit/util/wildcard"
)

// A sourcePolicy says which images, URLs and repositories a Dockerfile may read,
// and what is read instead: BuildKit's, see its docs/build-repro.md. Of ALLOW and
// DENY the last rule that matches counts; what a CONVERT gives is judged anew.
type sourcePolicy struct {
	Version int          `json:"version"`
	Rules   []policyRule `json:"rules"`
}

type policyRule struct {
	Action   string `json:"action"`
	Selector struct {
		Identifier  string            `json:"identifier"`
		MatchType   string            `json:"matchType"`
		Constraints []json.RawMessage `json:"constraints"`
	} `json:"selector"`
	Updates *struct {
		Identifier string            `json:"identifier"`
		Attrs      map[string]string `json:"attrs"`
	} `json:"updates"`

	expr *regexp.Regexp
	wild *wildcard.Wildcard
}

// readPolicy reads --source-policy-file, or the file that
// EXPERIMENTAL_BUILDKIT_SOURCE_POLICY names; nil when there is none.
func readPolicy(file string) (*sourcePolicy, error) {
	if file = cmpOr(file, os.Getenv("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY")); file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p := new(sourcePolicy)
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for i := range p.Rules {
		if err := p.Rules[i].compile(); err != nil {
			return nil, fmt.Errorf("%s: rule %d: %w", file, i+1, err)
		}
	}
	return p, nil
}

// compile checks a rule: one that is not understood must not be passed over.
func (r *policyRule) compile() (err error) {
	r.Action = cmpOr(strings.ToUpper(r.Action), "ALLOW")
	if len(r.Selector.Constraints) > 0 {
		return errors.New("kist knows no constraints")
	}
	switch r.Action {
	case "ALLOW", "DENY":
	case "CONVERT":
		if r.Updates == nil {
			return errors.New("CONVERT wants updates")
		}
		for k := range r.Updates.Attrs {
			if k != httpChecksum {
				return fmt.Errorf("attribute %q: kist knows %s only", k, httpChecksum)
			}
		}
	default:
		return fmt.Errorf("action %q is not ALLOW, DENY or CONVERT", r.Action)
	}
	switch strings.ToUpper(r.Selector.MatchType) {
	case "", "WILDCARD":
		r.wild, err = wildcard.New(r.Selector.Identifier)
	case "REGEX":
		r.expr, err = regexp.Compile(r.Selector.Identifier)
	case "EXACT":
	default:
		err = fmt.Errorf("matchType %q is not WILDCARD, EXACT or REGEX", r.Selector.MatchType)
	}
	return err
}

// httpChecksum is the attribute by which a rule pins what a URL gives.
const httpChecksum = "http.checksum"

// convert returns what the rule makes of id, and whether it matches.
func (r *policyRule) convert(id string) (string, bool, error) {
	to := ""
	if r.Updates != nil {
		to = r.Updates.Identifier
	}
	switch {
	case r.wild != nil:
		m := r.wild.Match(id)
		if m == nil || to == "" {
			return cmpOr(to, id), m != nil, nil
		}
		to, err := m.Format(to)
		return to, true, err
	case r.expr != nil:
		at := r.expr.FindStringSubmatchIndex(id)
		if at == nil || to == "" {
			return cmpOr(to, id), at != nil, nil
		}
		return string(r.expr.ExpandString(nil, to, id, at)), true, nil
	}
	return cmpOr(to, id), r.Selector.Identifier == id, nil
}

// maxConversions bounds rules that convert in a circle.
const maxConversions = 20

// judge returns what is to be read for id, with the digest that it must have, ""
// for any. A nil policy allows all.
func (p *sourcePolicy) judge(id string) (to, checksum string, err error) {
	if p == nil {
		return id, "", nil
	}
	for range maxConversions {
		next, sum, err := p.once(id)
		if err != nil || next == id {
			return next, cmpOr(sum, checksum), err
		}
		id, checksum = next, cmpOr(sum, checksum)
	}
	return "", "", fmt.Errorf("%s: the source policy converts it without end", id)
}

func (p *sourcePolicy) once(id string) (to, checksum string, err error) {
	denied := false
	for i := range p.Rules {
		r := &p.Rules[i]
		to, matches, err := r.convert(id)
		switch {
		case err != nil:
			return "", "", fmt.Errorf("source policy: rule %d: %w", i+1, err)
		case !matches:
		case r.Action == "CONVERT" && to != id:
			return to, r.Updates.Attrs[httpChecksum], nil
		case r.Action == "CONVERT":
			checksum = cmpOr(r.Updates.Attrs[httpChecksum], checksum)
		default:
			denied = r.Action == "DENY"
		}
	}
	if denied {
		return "", "", fmt.Errorf("%s: denied by the source policy", id)
	}
	return id, checksum, nil
}
