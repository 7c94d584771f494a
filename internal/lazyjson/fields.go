// Package lazyjson is encoding/json for a process that meets a type once.
//
// encoding/json learns a type with all that is below it, before it encodes or
// decodes the first value: for an OCI specification half a millisecond, twice in
// each start of a container. This package looks at the types that a value really
// has, and hands on to encoding/json whatever is not plain: the results are the
// same, errors included.
package lazyjson

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// A shape is what is known of a type.
type shape struct {
	t    reflect.Type
	kind reflect.Kind
	// own says that the type has methods of its own for JSON, or that this package
	// cannot do it: a name twice, an option that changes how a value is written.
	own bool
	// elem is that of a pointer, slice, array or map, once it was needed.
	elem   *shape
	fields []field // of a struct
}

// A field is one of a struct as JSON has it.
type field struct {
	name      string
	index     []int
	shape     *shape // once it was needed
	omitEmpty bool
	omitZero  bool
}

// A codec is what is known of types. It is one call's at a time; what it learned is
// there for the next.
type codec struct {
	marshaler, textual reflect.Type
	shapes             map[reflect.Type]*shape
}

var (
	encodings = sync.Pool{New: func() any {
		return &codec{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler](), map[reflect.Type]*shape{}}
	}}
	decodings = sync.Pool{New: func() any {
		return &codec{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](), map[reflect.Type]*shape{}}
	}}
)

func (c *codec) of(t reflect.Type) *shape {
	if s := c.shapes[t]; s != nil {
		return s
	}
	s := &shape{t: t, kind: t.Kind(), own: c.hasOwn(t)}
	c.shapes[t] = s
	if s.kind == reflect.Struct && !s.own {
		s.fields = make([]field, 0, t.NumField())
		s.add(t, nil)
	}
	return s
}

// hasOwn reports whether t or a pointer to it has methods for JSON: one that only
// the pointer has counts for values that can be addressed, which encoding/json
// settles.
func (c *codec) hasOwn(t reflect.Type) bool {
	if t.PkgPath() == "" && t.Kind() != reflect.Struct && t.Kind() != reflect.Pointer {
		return false // predeclared, or without a name: no methods
	}
	p := reflect.PointerTo(t)
	return p.Implements(c.marshaler) || p.Implements(c.textual) || t.Kind() == reflect.Interface && (t.Implements(c.marshaler) || t.Implements(c.textual))
}

func (c *codec) elem(s *shape) *shape {
	if s.elem == nil {
		s.elem = c.of(s.t.Elem())
	}
	return s.elem
}

func (c *codec) field(f *field, t reflect.Type) *shape {
	if f.shape == nil {
		f.shape = c.of(t)
	}
	return f.shape
}

// add takes the fields of t, which is at index in the struct, in their order.
func (s *shape) add(t reflect.Type, index []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		if tag == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		at := append(index[:len(index):len(index)], i)
		if f.Anonymous && name == "" {
			s.embed(f.Type, at)
			continue
		}
		if name == "" {
			name = f.Name
		}
		s.check(name, options)
		s.fields = append(s.fields, field{
			name: name, index: at,
			omitEmpty: has(options, "omitempty"), omitZero: has(options, "omitzero"),
		})
	}
}

// embed takes the fields of an embedded struct as the outer one's own.
func (s *shape) embed(t reflect.Type, at []int) {
	if t.Kind() != reflect.Struct {
		s.own = true // a pointer may be nil, another type has the name of itself
		return
	}
	s.add(t, at)
}

func (s *shape) check(name, options string) {
	same := func(f field) bool { return len(f.name) == len(name) && strings.EqualFold(f.name, name) }
	if has(options, "string") || !plainText(name) || slices.ContainsFunc(s.fields, same) {
		s.own = true
	}
}

func has(options, option string) bool {
	for options != "" {
		var o string
		if o, options, _ = strings.Cut(options, ","); o == option {
			return true
		}
	}
	return false
}

// plainText reports whether a string is the same in JSON, between quotes.
func plainText[S string | []byte](s S) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}
