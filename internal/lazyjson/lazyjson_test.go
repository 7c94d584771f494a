package lazyjson_test

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/internal/lazyjson"
)

type inner struct {
	A int    `json:"a"`
	B string `json:",omitempty"`
}

type named string

type weight struct {
	Inner  inner `json:"inner,omitzero"`
	Number *uint16
}

// everything has a field of each kind that the package treats in a way of its own.
type everything struct {
	inner
	Weight weight            `json:"weight"`
	Plain  string            `json:"plain"`
	Named  named             `json:"named,omitempty"`
	Bool   bool              `json:"bool"`
	Small  int8              `json:"small"`
	Count  uint32            `json:"count,omitempty"`
	Float  float64           `json:"float"`
	Bytes  []byte            `json:"bytes"`
	List   []inner           `json:"list"`
	Arr    [2]int            `json:"arr"`
	Map    map[string]inner  `json:"map,omitempty"`
	Keys   map[named][]named `json:"keys"`
	Nums   map[int]string    `json:"nums"`
	Ptr    *inner            `json:"ptr,omitempty"`
	Any    any               `json:"any"`
	Raw    json.RawMessage   `json:"raw,omitempty"`
	When   time.Time         `json:"when,omitzero"`
	Wait   time.Duration     `json:"wait"`
	Addr   netip.Addr        `json:"addr"`
	Addrs  []netip.Prefix    `json:"addrs"`
	Texts  []string          `json:"texts"`
	Hidden string            `json:"-"`
	secret string
	Dash   string `json:"-,"`
	Quoted int    `json:"quoted,string"`
}

// twice has a name twice, which encoding/json's rules settle.
type twice struct {
	inner
	Name  string `json:"a"`
	Other *twice
}

func values() []any {
	n := uint16(7)
	full := everything{
		inner: inner{1, "b"}, Weight: weight{inner{2, ""}, &n}, Plain: "x<y & \"é\n", Named: "n", Bool: true, Small: -3,
		Count: 9, Float: 1e30, Bytes: []byte("hey"), List: []inner{{A: 5}, {}}, Arr: [2]int{1, 2},
		Map:  map[string]inner{"z": {1, ""}, "a\u2028": {2, "x"}, "": {}},
		Keys: map[named][]named{"k": {"1"}, "j": nil}, Nums: map[int]string{2: "two", 1: "one"},
		Ptr: &inner{3, "c"}, Any: map[string]any{"k": []any{1.5, nil, "s"}}, Raw: json.RawMessage(`{"x": [1, 2]}`),
		When: time.Unix(1, 2).UTC(), Wait: time.Second, Addr: netip.MustParseAddr("::1"),
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Hidden: "h", secret: "s", Dash: "d", Quoted: 4,
		Texts: []string{"plain", "", "<é>", "\x00"},
	}
	return []any{
		full, &full, everything{}, []everything{full}, map[string]any{"e": full}, twice{Name: "n", Other: &twice{}},
		nil, "s", 3, []string(nil), []string{}, map[string]string(nil), (*inner)(nil), [0]int{}, true,
		specs.Spec{Version: "1", Process: &specs.Process{Args: []string{"a"}}, Linux: &specs.Linux{
			Resources: &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{{Weight: &n}}}},
		}},
	}
}

func TestMarshalIsEncodingJSONs(t *testing.T) {
	for _, v := range values() {
		got, err := lazyjson.Marshal(v)
		want, werr := json.Marshal(v)
		if string(got) != string(want) || (err == nil) != (werr == nil) {
			t.Errorf("Marshal(%T) = %v\n%s\nwant %v\n%s", v, err, got, werr, want)
		}
	}
	if _, err := lazyjson.Marshal(struct{ F func() }{}); err == nil {
		t.Error("Marshal of a function succeeds")
	}
}

func TestUnmarshalIsEncodingJSONs(t *testing.T) {
	for _, v := range values() {
		data, _ := json.MarshalIndent(v, "", "\t")
		same(t, data)
	}
	for _, s := range []string{
		``, `{`, `null`, `{}`, ` { } `, `[]`, `{"A":1,"a":2,"b":"x","B":"y"}`, `{"PLAIN":"up","plain":"\u00e9\ud83d\ude00\ud800"}`,
		`{"list":null,"map":null,"ptr":null,"plain":null,"small":null}`, `{"list":[],"map":{},"ptr":{}}`, `{"small":300}`, `{"small":1.5}`,
		`{"count":-1}`, `{"plain":5}`, `{"list":{}}`, `{"map":[1]}`, `{"list":[{"a":1},{"a":2},null]}`, `{"arr":[1,2,3]}`, `{"arr":[1]}`,
		`{"bytes":"aGV5"}`, `{"bytes":[1,2]}`, `{"nope":{"x":[{}, "]}", 1e5, "\"\\"]},"small":1}`, `{"quoted":"8"}`, `{"float":1e400}`,
		`{"when":"never"}`, `{"addr":"1.2.3.4","addrs":["::/0"]}`, `{"any":{"a":[1,{"b":null}]}}`, `{"bool":1}`, `{"bool":true}x`,
		`{"weight":{"inner":{"a":4},"Number":12}}`, `{"texts":["a","\\n",null]}`, `{"texts":[]}`, `{"texts":[1]}`, `{"texts":null}`, `{"texts":["a",["b"]]}`, `{"keys":{"a":["b"]},"nums":{"3":"c"}}`, `{"small":01}`, "{\"plain\":\"\xff\"}",
	} {
		same(t, []byte(s))
	}
}

// same compares with encoding/json, and what both leave where they agree.
func same(t *testing.T, data []byte) {
	t.Helper()
	for _, mk := range []func() any{
		func() any { return new(everything) }, func() any { return new(twice) }, func() any { return new([]inner) },
		func() any { return new(specs.Spec) }, func() any { return new(map[string]weight) }, func() any { return new(any) },
	} {
		got, want := mk(), mk()
		err, werr := lazyjson.Unmarshal(data, got), json.Unmarshal(data, want)
		if (err == nil) != (werr == nil) || err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("Unmarshal(%q) into %T\n= %v\n%+v\nwant %v\n%+v", data, got, err, got, werr, want)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, v := range values() {
		data, _ := json.Marshal(v)
		f.Add(data)
	}
	f.Fuzz(same)
}

func TestUnmarshalWantsAPointer(t *testing.T) {
	if lazyjson.Unmarshal([]byte("{}"), inner{}) == nil || lazyjson.Unmarshal([]byte("{}"), (*inner)(nil)) == nil {
		t.Error("Unmarshal into no pointer succeeds")
	}
}
