package cli

import (
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// A draft of a command has those of its fields that one command line uses. kong
// takes some 10 µs to understand a flag, and `run` has close to 200 of them: the
// draft is understood in their stead, and what was parsed into it is copied. A
// command line that does not parse is parsed again by the whole grammar, which
// then words the error.
type draft struct {
	whole  reflect.Value // the command's own structure
	part   reflect.Value // the structure that stands for it
	fields []reflect.StructField
	// origins are where the fields are in whole.
	origins [][]int
	// sub is the selected one of a group's commands, or nil.
	sub *draft
	// subField is its field of part.
	subField int
}

// newDraft returns nil for a command that has to be taken whole.
func newDraft(command any, args []string) *draft {
	d := &draft{whole: reflect.ValueOf(command).Elem()}
	if !d.make(read(args)) {
		return nil
	}
	return d
}

// typed is what a command line names, rather more than less.
type typed struct {
	words  []string // what may be a command
	flags  map[string]bool
	shorts string
}

func read(args []string) typed {
	u := typed{flags: map[string]bool{}}
	for _, arg := range args {
		long, isLong := strings.CutPrefix(arg, "--")
		switch {
		case isLong:
			name, _, _ := strings.Cut(long, "=")
			u.flags[plain(name)] = true
			u.flags[plain(strings.TrimPrefix(name, "no-"))] = true
		case strings.HasPrefix(arg, "-"):
			u.shorts += arg[1:]
		default:
			u.words = append(u.words, arg)
		}
	}
	return u
}

// plain makes a flag's name and its field's name comparable.
func plain(name string) string { return strings.ToLower(strings.ReplaceAll(name, "-", "")) }

// make chooses the fields. words[0] is the command itself.
func (d *draft) make(u typed) bool {
	if d.whole.Kind() != reflect.Struct || u.flags["help"] || !d.choose(d.whole.Type(), nil, u) {
		return false
	}
	if d.sub == nil && hasCommands(d.whole.Type()) {
		return false
	}
	d.allot(reflect.New(reflect.StructOf(d.fields)).Elem())
	return true
}

// allot tells the draft, and those below it, where its fields are.
func (d *draft) allot(part reflect.Value) {
	if d.part = part; d.sub != nil {
		d.sub.allot(part.Field(d.subField))
	}
}

func (d *draft) choose(t reflect.Type, at []int, u typed) bool {
	for i := range t.NumField() {
		f := t.Field(i)
		index := append(slices.Clone(at), i)
		_, embedded := f.Tag.Lookup("embed")
		_, command := f.Tag.Lookup("cmd")
		switch {
		case embedded || f.Anonymous:
			if f.Type.Kind() != reflect.Struct || f.Tag.Get("prefix") != "" || !d.choose(f.Type, index, u) {
				return false
			}
			continue
		case !f.IsExported():
			continue
		case command:
			if len(u.words) < 2 || !named(f, u.words[1]) {
				continue
			}
			d.sub = &draft{whole: d.whole.FieldByIndex(index)}
			if !d.sub.make(typed{u.words[1:], u.flags, u.shorts}) {
				return false
			}
			d.subField, f.Type = len(d.fields), d.sub.part.Type()
		case !u.has(f):
			continue
		}
		if slices.ContainsFunc(d.fields, func(x reflect.StructField) bool { return x.Name == f.Name }) {
			return false // Go would hide one of them
		}
		d.fields = append(d.fields, reflect.StructField{Name: f.Name, Type: f.Type, Tag: f.Tag})
		d.origins = append(d.origins, index)
	}
	return true
}

func hasCommands(t reflect.Type) bool {
	for i := range t.NumField() {
		if _, command := t.Field(i).Tag.Lookup("cmd"); command {
			return true
		}
	}
	return false
}

// named reports whether a group's field is the command that word says.
func named(f reflect.StructField, word string) bool {
	name := f.Tag.Get("name")
	if name == "" {
		name = f.Name
	}
	return word != "" && slices.Contains(append(strings.Split(f.Tag.Get("aliases"), ","), strings.ToLower(name)), word)
}

// always are the tags of fields that matter whatever was typed.
var always = [...]string{"arg", "default", "env", "required", "negatable", "kong"}

// has reports whether f is an argument, or a flag that was typed or that kong
// gives a value.
func (u *typed) has(f reflect.StructField) bool {
	for _, tag := range always {
		if _, ok := f.Tag.Lookup(tag); ok {
			return true
		}
	}
	names := append(strings.Split(f.Tag.Get("aliases"), ","), f.Tag.Get("name"), f.Name)
	if slices.ContainsFunc(names, func(n string) bool { return n != "" && u.flags[plain(n)] }) {
		return true
	}
	short := f.Tag.Get("short")
	return short != "" && strings.Contains(u.shorts, short)
}

// settle copies what was parsed and puts the command itself in the place of its
// draft: node is kong's of the innermost. It reports whether the command finds
// the whole valid.
func (d *draft) settle(node *kong.Node) bool {
	chain := []*draft{d}
	for d.sub != nil {
		d = d.sub
		chain = append(chain, d)
	}
	for _, d := range slices.Backward(chain) {
		for i, at := range d.origins {
			if to, from := d.whole.FieldByIndex(at), d.part.Field(i); to.Type() == from.Type() {
				to.Set(from)
			}
		}
		node.Target = d.whole
		node = node.Parent
	}
	v, checks := d.whole.Addr().Interface().(interface{ Validate() error })
	return !checks || v.Validate() == nil
}
