package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func policyOf(t *testing.T, rules string) (*sourcePolicy, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.json")
	must(t, os.WriteFile(file, []byte(`{"version":1,"rules":[`+rules+`]}`), 0o600))
	return readPolicy(file)
}

func TestSourcePolicy(t *testing.T) {
	const old, new = "docker-image://docker.io/library/a:1", "docker-image://docker.io/library/a:2"
	deny := func(what string) string { return `{"action":"DENY","selector":{"identifier":"` + what + `"}}` }
	allow := func(what string) string {
		return `{"action":"ALLOW","selector":{"identifier":"` + what + `","matchType":"EXACT"}}`
	}
	convert := func(kind, from, to string) string {
		return `{"action":"CONVERT","selector":{"identifier":"` + from + `","matchType":"` + kind + `"},"updates":{"identifier":"` + to + `"}}`
	}
	for _, c := range []struct{ name, rules, want, err string }{
		{"no rule", "", old, ""},
		{"denied", deny("docker-image://*"), "", "denied by the source policy"},
		{"other", deny("https://*"), old, ""},
		{"the last one counts", deny("*") + "," + allow(old), old, ""},
		{"the last one counts, denied", allow(old) + "," + deny("*"), "", "denied"},
		{"exact", convert("EXACT", old, new), new, ""},
		{"wildcard", convert("WILDCARD", "docker-image://docker.io/library/*:1", "docker-image://docker.io/library/${1}:2"), new, ""},
		{"regex", convert("REGEX", "^(.*):1$", "${1}:2"), new, ""},
		{"converted, then denied", convert("EXACT", old, new) + "," + deny(new), "", "a:2: denied"},
		{"a circle", convert("EXACT", old, new) + "," + convert("EXACT", new, old), "", "without end"},
	} {
		p, err := policyOf(t, c.rules)
		must(t, err)
		got, _, err := p.judge(old)
		if got != c.want || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v, want %q, %q", c.name, got, err, c.want, c.err)
		}
	}
	for rules, want := range map[string]string{
		`{"action":"BLOCK","selector":{"identifier":"*"}}`:                                           `rule 1: action "BLOCK"`,
		`{"action":"DENY","selector":{"identifier":"(","matchType":"REGEX"}}`:                        "rule 1: error parsing regexp",
		`{"action":"DENY","selector":{"identifier":"*","constraints":[{}]}}`:                         "no constraints",
		`{"action":"CONVERT","selector":{"identifier":"*"}}`:                                         "wants updates",
		`{"action":"CONVERT","selector":{"identifier":"*"},"updates":{"attrs":{"git.fullurl":"x"}}}`: "git.fullurl",
		`{"action":"DENY","selector":{"identifier":"*","matchType":"GLOB"}}`:                         `matchType "GLOB"`,
		`{"action":"DENY","selector":{"identifier":"*"}`:                                             "unexpected end|invalid character",
	} {
		_, err := policyOf(t, rules)
		found := false
		for w := range strings.SplitSeq(want, "|") {
			found = found || err != nil && strings.Contains(err.Error(), w)
		}
		if !found {
			t.Errorf("%s: %v, want %s", rules, err, want)
		}
	}
}

func TestSourcePolicyInBuilds(t *testing.T) {
	k := newKit(t)
	var err error
	k.req.policy, err = policyOf(t, `{"action":"DENY","selector":{"identifier":"*"}},{"action":"ALLOW","selector":{"identifier":"docker-image://docker.io/library/base:latest"}},
		{"action":"CONVERT","selector":{"identifier":"docker-image://docker.io/library/old:*"},"updates":{"identifier":"docker-image://docker.io/library/base:latest"}}`)
	must(t, err)
	k.dockerfile("FROM old:1\nRUN true\n")
	for text, want := range map[string]string{
		"FROM other\n":                             "Dockerfile:1: docker-image://docker.io/library/other:latest: denied",
		"FROM base\nCOPY --from=other / /x\n":      "Dockerfile:2: docker-image://docker.io/library/other:latest: denied",
		"FROM base\nADD https://a.invalid/b /x\n":  "Dockerfile:2: https://a.invalid/b: denied",
		"FROM base\nADD https://a.invalid/b.git /": "Dockerfile:2: git://a.invalid/b.git#HEAD: denied",
	} {
		k.file("Dockerfile", text)
		if _, _, err := k.try(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
