package build

import (
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// proxyNames are the arguments that a RUN sees without an ARG, and that change
// neither the cache key nor the history.
func proxyNames() []string {
	return []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy",
		"NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"}
}

// A variable is a name with its value.
type variable struct{ Name, Value string }

// A scope is what $NAME means at one point of a stage: ENV beats ARG.
type scope struct {
	env  []string // the image's environment, NAME=value, in order
	args []variable
	// declared are all names of ARG, also those without a value; names those of
	// the stage and its parents, in order.
	declared map[string]bool
	names    []string
}

func newScope(env []string) *scope {
	return &scope{env: slices.Clone(env), declared: map[string]bool{}}
}

// inherit is what a stage starts with that is built on this one's: its ARGs too.
func (s *scope) inherit() *scope {
	return &scope{env: slices.Clone(s.env), args: slices.Clone(s.args), declared: maps.Clone(s.declared), names: slices.Clone(s.names)}
}

// stageArgs are the ARGs so far as the history of a RUN has them.
func (s *scope) stageArgs() []variable {
	all := make([]variable, len(s.names))
	for i, name := range s.names {
		value, _ := s.Get(name)
		all[i] = variable{name, value}
	}
	return all
}

// Get is shell.EnvGetter.
func (s *scope) Get(name string) (string, bool) {
	for _, kv := range s.env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v, true
		}
	}
	for _, a := range s.args {
		if a.Name == name {
			return a.Value, true
		}
	}
	return "", false
}

// Keys is shell.EnvGetter.
func (s *scope) Keys() []string {
	var keys []string
	for _, kv := range s.env {
		k, _, _ := strings.Cut(kv, "=")
		keys = append(keys, k)
	}
	for _, a := range s.args {
		keys = append(keys, a.Name)
	}
	return keys
}

// setEnv is ENV name=value: a name keeps its place.
func (s *scope) setEnv(name, value string) {
	for i, kv := range s.env {
		if k, _, _ := strings.Cut(kv, "="); k == name {
			s.env[i] = name + "=" + value
			return
		}
	}
	s.env = append(s.env, name+"="+value)
}

func (s *scope) setArg(name, value string) {
	s.declared[name] = true
	for i, a := range s.args {
		if a.Name == name {
			s.args[i].Value = value
			return
		}
	}
	s.args = append(s.args, variable{name, value})
}

// visibleArgs are the arguments that no ENV hides.
func (s *scope) visibleArgs() []variable {
	var visible []variable
	for _, a := range s.args {
		hidden := slices.ContainsFunc(s.env, func(kv string) bool { return strings.HasPrefix(kv, a.Name+"=") })
		if !hidden {
			visible = append(visible, a)
		}
	}
	return visible
}

// declare evaluates an ARG instruction, whose words are expanded already.
// given are --build-arg values, global the values of ARG before FROM.
func (s *scope) declare(c *instructions.ArgCommand, given map[string]string, global func(string) (string, bool)) {
	for _, a := range c.Args {
		s.declared[a.Key] = true
		if !slices.Contains(s.names, a.Key) {
			s.names = append(s.names, a.Key)
		}
		value, ok := given[a.Key]
		if !ok && a.Value != nil {
			value, ok = *a.Value, true
		}
		if !ok && global != nil {
			value, ok = global(a.Key)
		}
		if ok {
			s.setArg(a.Key, value)
		}
	}
}

// expander expands words in the scope. unmatched is told of names that mean
// nothing there; it may be nil.
func (s *scope) expander(escape rune, unmatched func(name string)) instructions.SingleWordExpander {
	return s.expandWith(shell.NewLex(escape), unmatched)
}

// rawExpander expands variables and leaves quotes and escapes alone, for
// heredocs.
func (s *scope) rawExpander(escape rune, unmatched func(name string)) instructions.SingleWordExpander {
	lex := shell.NewLex(escape)
	lex.SkipProcessQuotes = true
	return s.expandWith(lex, unmatched)
}

func (s *scope) expandWith(lex *shell.Lex, unmatched func(name string)) instructions.SingleWordExpander {
	return func(word string) (string, error) {
		r, err := lex.ProcessWordWithMatches(word, s)
		if err != nil {
			return "", err
		}
		if unmatched != nil {
			for _, name := range slices.Sorted(maps.Keys(r.Unmatched)) {
				unmatched(name)
			}
		}
		return r.Result, nil
	}
}
