package ui

import (
	"fmt"
	"slices"
	"strings"
)

// Filters are the values of repeated --filter key=value flags: an object passes
// when, for each key, one of the values matches.
type Filters map[string][]string

// ParseFilters reads docker's filters and refuses a key that is not allowed.
func ParseFilters(args []string, allowed ...string) (Filters, error) {
	f := Filters{}
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, fmt.Errorf("--filter %s: want key=value", arg)
		}
		key = strings.ToLower(strings.TrimSpace(key))
		if !slices.Contains(allowed, key) {
			return nil, fmt.Errorf("--filter %s: no such key (there are %s)", arg, strings.Join(allowed, ", "))
		}
		f[key] = append(f[key], strings.TrimSpace(value))
	}
	return f, nil
}

// Match reports whether key has no filter or one of its values matches.
func (f Filters) Match(key string, match func(value string) bool) bool {
	values, ok := f[key]
	return !ok || slices.ContainsFunc(values, match)
}

// MatchLabels is the rule of label=K and label=K=V: all of them must hold.
func (f Filters) MatchLabels(key string, labels map[string]string) bool {
	for _, want := range f[key] {
		if !hasLabel(labels, want) {
			return false
		}
	}
	return true
}

// ExcludeLabels is the rule of label!=K and label!=K=V, whose key ParseFilters
// reads as "label!": none of them may hold.
func (f Filters) ExcludeLabels(key string, labels map[string]string) bool {
	return !slices.ContainsFunc(f[key], func(not string) bool { return hasLabel(labels, not) })
}

func hasLabel(labels map[string]string, want string) bool {
	k, v, withValue := strings.Cut(want, "=")
	got, ok := labels[k]
	return ok && (!withValue || got == v)
}
