package image

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ApplyChanges applies Dockerfile instructions to a configuration, as docker's
// --change of commit and import does: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK
// NONE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR.
func ApplyChanges(c *v1.Config, changes []string) error {
	for _, line := range changes {
		if err := applyChange(c, line); err != nil {
			return fmt.Errorf("--change %q: %w", line, err)
		}
	}
	return nil
}

func applyChange(c *v1.Config, line string) error {
	word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	rest = strings.TrimSpace(rest)
	// podman also writes KEY=VALUE.
	if key, value, ok := strings.Cut(word, "="); ok && !strings.ContainsAny(key, " ") {
		word, rest = key, strings.TrimSpace(value+" "+rest)
	}
	if rest == "" {
		return fmt.Errorf("no value")
	}
	switch strings.ToUpper(word) {
	case "CMD":
		c.Cmd = command(rest)
	case "ENTRYPOINT":
		c.Entrypoint = command(rest)
	case "ENV":
		return eachPair(rest, func(k, v string) { c.Env = setEnv(c.Env, k, v) })
	case "LABEL":
		return eachPair(rest, func(k, v string) { c.Labels = set(c.Labels, k, v) })
	case "EXPOSE":
		for p := range strings.FieldsSeq(rest) {
			if !strings.Contains(p, "/") {
				p += "/tcp"
			}
			c.ExposedPorts = set(c.ExposedPorts, p, struct{}{})
		}
	case "VOLUME":
		for _, v := range list(rest) {
			c.Volumes = set(c.Volumes, v, struct{}{})
		}
	case "HEALTHCHECK":
		if !strings.EqualFold(rest, "NONE") {
			return fmt.Errorf("only HEALTHCHECK NONE")
		}
		c.Healthcheck = &v1.HealthConfig{Test: []string{"NONE"}}
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "USER":
		c.User = rest
	case "WORKDIR":
		c.WorkingDir = rest
	default:
		return fmt.Errorf("no such instruction: %s", word)
	}
	return nil
}

func set[V any](m map[string]V, k string, v V) map[string]V {
	if m == nil {
		m = map[string]V{}
	}
	m[k] = v
	return m
}

// command is the JSON form, or the shell form.
func command(s string) []string {
	var list []string
	if json.Unmarshal([]byte(s), &list) == nil {
		return list
	}
	return []string{"/bin/sh", "-c", s}
}

// list is the JSON form, or words.
func list(s string) []string {
	var l []string
	if json.Unmarshal([]byte(s), &l) == nil {
		return l
	}
	return strings.Fields(s)
}

func setEnv(env []string, k, v string) []string {
	for i, e := range env {
		if strings.HasPrefix(e, k+"=") {
			env[i] = k + "=" + v
			return env
		}
	}
	return append(env, k+"="+v)
}

// eachPair reads `K=V K2="V 2"`, or the old form `K V`.
func eachPair(s string, do func(k, v string)) error {
	words, err := splitQuoted(s)
	if err != nil {
		return err
	}
	if !strings.Contains(words[0], "=") {
		k, v, _ := strings.Cut(s, " ")
		do(k, strings.TrimSpace(v))
		return nil
	}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return fmt.Errorf("%q is not KEY=VALUE", w)
		}
		do(k, v)
	}
	return nil
}

// splitQuoted splits at spaces outside quotes and drops the quotes. As in a
// Dockerfile a backslash takes the next character as it is; between double quotes
// that is a quote or a backslash, and between single quotes nothing.
func splitQuoted(s string) ([]string, error) {
	var words []string
	var b strings.Builder
	var quote byte
	started := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && (quote == 0 || quote == '"' && strings.IndexByte(`"\$`, s[i+1]) >= 0):
			i++
			b.WriteByte(s[i])
			started = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, started = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if started {
				words = append(words, b.String())
			}
			b.Reset()
			started = false
		default:
			b.WriteByte(c)
			started = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("unclosed quote")
	}
	if started {
		words = append(words, b.String())
	}
	return words, nil
}

// now is the time written into new images: whole seconds, UTC.
func now() v1.Time { return v1.Time{Time: time.Now().UTC().Truncate(time.Second)} }
