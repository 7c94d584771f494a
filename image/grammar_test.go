package image

import (
	"regexp"
	"strings"
	"testing"
)

// grammars are the same rules as the specification writes them.
func grammars() map[string]struct {
	valid func(string) bool
	rule  *regexp.Regexp
} {
	part := `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
	label := `[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?`
	return map[string]struct {
		valid func(string) bool
		rule  *regexp.Regexp
	}{
		"path": {validPath, regexp.MustCompile(`^` + part + `(?:/` + part + `)*$`)},
		"host": {validHost, regexp.MustCompile(`^(?:` + label + `(?:\.` + label + `)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$`)},
		"tag":  {validTag, regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)},
	}
}

var grammarSeeds = []string{
	"", "a", "A", "a/b", "a//b", "/a", "a/", "a.b", "a..b", "a_b", "a__b", "a___b", "a-b", "a---b", "a-_b", "a.-b", "-a", "a-", "a_", ".a",
	"docker.io", "localhost:5000", "a:1", "a:", "a:123456", "a:x", "[::1]", "[::1]:5000", "[]", "[::g]", "[::1", "::1]", "a.-b", "A.b-c:1",
	"a:1:2", "[::1]:", "[::1]x", "x[::1]", "v1", "_x", "V1.0-rc_2", "1", "a b", "a\n", "é", "a.", ".", "[:]:1", "[A:f]", "a]", "[a@]", "[`]",
	strings.Repeat("a", 128), strings.Repeat("a", 129),
}

func TestGrammarIsTheSpecifications(t *testing.T) {
	for _, s := range grammarSeeds {
		sameGrammar(t, s)
	}
}

func sameGrammar(t *testing.T, s string) {
	t.Helper()
	for name, g := range grammars() {
		if got, want := g.valid(s), g.rule.MatchString(s); got != want {
			t.Errorf("%s %q: %v, want %v", name, s, got, want)
		}
	}
}

func FuzzGrammar(f *testing.F) {
	for _, s := range grammarSeeds {
		f.Add(s)
	}
	f.Fuzz(sameGrammar)
}
