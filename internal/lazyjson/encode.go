package lazyjson

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
)

// Marshal is json.Marshal.
func Marshal(v any) ([]byte, error) {
	if v == nil {
		return json.Marshal(v)
	}
	e := encoder{codec: encodings.Get().(*codec), out: make([]byte, 0, 512)}
	defer encodings.Put(e.codec)
	rv := reflect.ValueOf(v)
	err := e.value(rv, e.of(rv.Type()))
	return e.out, err
}

type encoder struct {
	*codec
	out []byte
}

func (e *encoder) value(v reflect.Value, s *shape) error {
	if s.own {
		return e.hand(v)
	}
	switch s.kind {
	case reflect.Bool:
		e.out = strconv.AppendBool(e.out, v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.out = strconv.AppendInt(e.out, v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		e.out = strconv.AppendUint(e.out, v.Uint(), 10)
	case reflect.String:
		return e.text(v.String())
	case reflect.Pointer, reflect.Interface:
		return e.pointed(v, s)
	case reflect.Struct:
		return e.object(v, s)
	case reflect.Map:
		return e.table(v, s)
	case reflect.Slice, reflect.Array:
		return e.list(v, s)
	default:
		return e.hand(v)
	}
	return nil
}

// hand lets encoding/json do it.
func (e *encoder) hand(v reflect.Value) error {
	// Of what can be addressed, the methods of the pointer count too.
	if v.CanAddr() {
		v = v.Addr()
	}
	data, err := json.Marshal(v.Interface())
	e.out = append(e.out, data...)
	return err
}

func (e *encoder) pointed(v reflect.Value, s *shape) error {
	switch {
	case v.IsNil():
		e.out = append(e.out, "null"...)
		return nil
	case s.kind == reflect.Interface:
		v = v.Elem()
		return e.value(v, e.of(v.Type()))
	}
	return e.value(v.Elem(), e.elem(s))
}

func (e *encoder) text(s string) error {
	if plainText(s) {
		e.out = append(append(append(e.out, '"'), s...), '"')
		return nil
	}
	data, err := json.Marshal(s)
	e.out = append(e.out, data...)
	return err
}

func (e *encoder) object(v reflect.Value, s *shape) error {
	e.out = append(e.out, '{')
	first := true
	for i := range s.fields {
		f := &s.fields[i]
		fv := v.FieldByIndex(f.index)
		if f.omitEmpty && isEmpty(fv) || f.omitZero && isZero(fv) {
			continue
		}
		e.next(&first)
		e.out = append(append(append(e.out, '"'), f.name...), `":`...)
		if err := e.value(fv, e.field(f, fv.Type())); err != nil {
			return err
		}
	}
	e.out = append(e.out, '}')
	return nil
}

func (e *encoder) next(first *bool) {
	if !*first {
		e.out = append(e.out, ',')
	}
	*first = false
}

func (e *encoder) table(v reflect.Value, s *shape) error {
	if key := s.t.Key(); v.IsNil() || key.Kind() != reflect.String || e.of(key).own {
		return e.hand(v)
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(a.String(), b.String()) })
	e.out = append(e.out, '{')
	first := true
	for _, k := range keys {
		e.next(&first)
		if err := e.text(k.String()); err != nil {
			return err
		}
		e.out = append(e.out, ':')
		if err := e.value(v.MapIndex(k), e.elem(s)); err != nil {
			return err
		}
	}
	e.out = append(e.out, '}')
	return nil
}

func (e *encoder) list(v reflect.Value, s *shape) error {
	elem := e.elem(s)
	// A slice of bytes is one of base64.
	if s.kind == reflect.Slice && (v.IsNil() || elem.kind == reflect.Uint8) {
		return e.hand(v)
	}
	e.out = append(e.out, '[')
	first := true
	if s.t == stringList {
		for _, text := range v.Interface().([]string) {
			e.next(&first)
			if err := e.text(text); err != nil {
				return err
			}
		}
		e.out = append(e.out, ']')
		return nil
	}
	for i := range v.Len() {
		e.next(&first)
		if err := e.value(v.Index(i), elem); err != nil {
			return err
		}
	}
	e.out = append(e.out, ']')
	return nil
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// isZero is by the method of the type, if it has one.
func isZero(v reflect.Value) bool {
	type zero interface{ IsZero() bool }
	isPointer := v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface
	if v.CanAddr() && !isPointer {
		if z, ok := v.Addr().Interface().(zero); ok {
			return z.IsZero()
		}
	}
	if z, ok := v.Interface().(zero); ok && !(isPointer && v.IsNil()) {
		return z.IsZero()
	}
	return v.IsZero()
}
