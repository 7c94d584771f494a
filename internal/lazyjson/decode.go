package lazyjson

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

// Unmarshal is json.Unmarshal. After an error v may hold other parts of data than
// it would there.
func Unmarshal(data []byte, v any) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() || !json.Valid(data) {
		return json.Unmarshal(data, v) // it words the error
	}
	d := decoder{codec: decodings.Get().(*codec), data: data}
	defer decodings.Put(d.codec)
	return d.value(rv.Elem(), d.of(rv.Type().Elem()))
}

// A decoder reads what is known to be valid.
type decoder struct {
	*codec
	data []byte
	at   int
}

// value decodes the next value into v, which can be set.
func (d *decoder) value(v reflect.Value, s *shape) error {
	d.space()
	c := d.data[d.at]
	switch {
	case s.own:
	case c == 'n':
		return d.null(v)
	case s.kind == reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(s.t.Elem()))
		}
		return d.value(v.Elem(), d.elem(s))
	case c == '{' && s.kind == reflect.Struct:
		return d.object(v, s)
	case c == '{' && s.kind == reflect.Map:
		return d.table(v, s)
	case c == '[' && s.kind == reflect.Slice && d.elem(s).kind != reflect.Uint8:
		return d.list(v, s)
	case c == '"' && s.kind == reflect.String:
		return d.string(v)
	case c != '"' && c != '{' && c != '[':
		return d.word(v, s.kind)
	}
	return d.hand(v)
}

func (d *decoder) string(v reflect.Value) error {
	begin := d.at
	if raw := d.skip(); plainText(raw[1 : len(raw)-1]) {
		v.SetString(string(raw[1 : len(raw)-1]))
		return nil
	}
	d.at = begin
	return d.hand(v)
}

// word decodes a number or a truth.
func (d *decoder) word(v reflect.Value, kind reflect.Kind) error {
	begin := d.at
	raw := d.skip()
	switch kind {
	case reflect.Bool:
		if raw[0] == 't' || raw[0] == 'f' {
			v.SetBool(raw[0] == 't')
			return nil
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil && !v.OverflowInt(n) {
			v.SetInt(n)
			return nil
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if n, err := strconv.ParseUint(string(raw), 10, 64); err == nil && !v.OverflowUint(n) {
			v.SetUint(n)
			return nil
		}
	}
	d.at = begin
	return d.hand(v)
}

func (d *decoder) null(v reflect.Value) error {
	d.skip()
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
		v.SetZero()
	}
	return nil
}

// hand lets encoding/json do it.
func (d *decoder) hand(v reflect.Value) error {
	return json.Unmarshal(d.skip(), v.Addr().Interface())
}

func (d *decoder) object(v reflect.Value, s *shape) error {
	for d.more('}') {
		key, err := d.key()
		if err != nil {
			return err
		}
		f := s.find(key)
		if f == nil {
			d.skip()
			continue
		}
		fv := v.FieldByIndex(f.index)
		if err := d.value(fv, d.field(f, fv.Type())); err != nil {
			return err
		}
	}
	return nil
}

// find prefers the field with the very name; nil if there is none.
func (s *shape) find(key []byte) *field {
	for i := range s.fields {
		if s.fields[i].name == string(key) { // which allocates nothing
			return &s.fields[i]
		}
	}
	for i := range s.fields {
		if strings.EqualFold(s.fields[i].name, string(key)) {
			return &s.fields[i]
		}
	}
	return nil
}

func (d *decoder) table(v reflect.Value, s *shape) error {
	key := s.t.Key()
	if key.Kind() != reflect.String || d.of(key).own {
		return d.hand(v)
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(s.t))
	}
	for d.more('}') {
		k, err := d.key()
		if err != nil {
			return err
		}
		elem := reflect.New(s.t.Elem()).Elem()
		if err := d.value(elem, d.elem(s)); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(string(k)).Convert(key), elem)
	}
	return nil
}

func (d *decoder) list(v reflect.Value, s *shape) error {
	if s.t == stringList {
		list, err := d.strings()
		v.Set(reflect.ValueOf(list))
		return err
	}
	v.Set(reflect.MakeSlice(s.t, 0, 4))
	for n := 0; d.more(']'); n++ {
		v.Grow(1)
		v.SetLen(n + 1)
		elem := v.Index(n)
		elem.SetZero()
		if err := d.value(elem, d.elem(s)); err != nil {
			return err
		}
	}
	return nil
}

// stringList is most of what lists there are: a seccomp profile is four hundred names.
var stringList = reflect.TypeFor[[]string]()

func (d *decoder) strings() ([]string, error) {
	list := []string{}
	for d.more(']') {
		raw := d.skip()
		if inner := raw[1:max(1, len(raw)-1)]; raw[0] == '"' && plainText(inner) {
			list = append(list, string(inner))
			continue
		}
		list = append(list, "")
		if err := json.Unmarshal(raw, &list[len(list)-1]); err != nil {
			return list, err
		}
	}
	return list, nil
}

// more steps over '{', '[' or ',' to the next element, or over the end.
func (d *decoder) more(end byte) bool {
	d.space()
	if d.data[d.at] == end {
		d.at++
		return false
	}
	d.at++
	d.space()
	if d.data[d.at] == end { // of an empty one
		d.at++
		return false
	}
	return true
}

// key is part of the data where it is plain.
func (d *decoder) key() (key []byte, err error) {
	raw := d.skip()
	if key = raw[1 : len(raw)-1]; !plainText(key) {
		var text string
		err = json.Unmarshal(raw, &text)
		key = []byte(text)
	}
	d.space()
	d.at++ // the colon
	return key, err
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func (d *decoder) space() {
	for isSpace(d.data[d.at]) {
		d.at++
	}
}

// skip steps over the next value and returns it.
func (d *decoder) skip() []byte {
	d.space()
	begin := d.at
	for depth := 0; ; {
		switch c := d.data[d.at]; {
		case c == '"':
			d.skipString()
		case c == '{', c == '[':
			depth++
			d.at++
		case c == '}', c == ']':
			depth--
			d.at++
		case c == ',', c == ':', isSpace(c):
			d.at++
		default:
			d.skipWord()
		}
		if depth == 0 {
			return d.data[begin:d.at]
		}
	}
}

func (d *decoder) skipString() {
	for d.at++; d.data[d.at] != '"'; d.at++ {
		if d.data[d.at] == '\\' {
			d.at++
		}
	}
	d.at++
}

func (d *decoder) skipWord() {
	for d.at < len(d.data) {
		if c := d.data[d.at]; c == ',' || c == ']' || c == '}' || isSpace(c) {
			return
		}
		d.at++
	}
}
