package units

import (
	"slices"
	"strings"
	"testing"
)

func TestParseUnit(t *testing.T) {
	f, err := ParseUnit("x", []byte("# c\n[Unit]\nA = 1 \n; c\nA=2\\\n# in between\n  3\nB=yes\n\n[Service]\nA=\n[Unit]\nC=x=y\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.all("Unit", "A"); !slices.Equal(got, []string{"1", "2 3"}) {
		t.Errorf("A = %q", got)
	}
	if got := f.last("Unit", "C"); got != "x=y" {
		t.Errorf("C = %q", got)
	}
	if v, given, err := f.boolean("Unit", "B"); !v || !given || err != nil {
		t.Errorf("B = %v, %v, %v", v, given, err)
	}
	if got, want := f.Text(), "[Unit]\nA=1\nA=2 3\nB=yes\nC=x=y\n\n[Service]\nA=\n"; got != want {
		t.Errorf("Text() = %q, want %q", got, want)
	}
	for _, bad := range []string{"A=1", "[Unit\nA=1", "[Unit]\nword", "[Unit]\n=1", "[]\n", "[Unit]\nA=\x00"} {
		if _, err := ParseUnit("x", []byte(bad)); err == nil {
			t.Errorf("ParseUnit(%q) = nil error", bad)
		}
	}
}

func TestAllIsResetByAnEmptyValue(t *testing.T) {
	f, _ := ParseUnit("x", []byte("[C]\nA=1\nA=\nA=2\n"))
	if got := f.all("C", "A"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("A = %q", got)
	}
}

func TestSplitWords(t *testing.T) {
	for s, want := range map[string][]string{
		`a  b`: {"a", "b"}, `"a b" 'c "d"'e`: {"a b", `c "d"e`}, `a\x20b \t`: {"a b", "\t"}, `""`: {""}, `\101`: {"A"},
		`%i $x`: {"%i", "$x"}, `\d`: {`\d`}, `\u00e4`: {"ä"}, "": nil,
	} {
		got, err := SplitWords(s)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("SplitWords(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
	for _, bad := range []string{`"a`, `a\`, `\x0`, `\x00`, `\777`, `\xzz`} {
		if got, err := SplitWords(bad); err == nil {
			t.Errorf("SplitWords(%q) = %q, want an error", bad, got)
		}
	}
}

func FuzzUnit(f *testing.F) {
	f.Add("[Container]\nImage=x\\\n y\nExec=sh -c \"a \\x41\"\n")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseUnit("x", []byte(s))
		if err == nil {
			again, err := ParseUnit("x", []byte(u.Text()))
			if err != nil || again.Text() != u.Text() {
				t.Errorf("Text of %q does not parse to itself: %v\n%s\n%s", s, err, u.Text(), again.Text())
			}
		}
		words, err := SplitWords(s)
		if err != nil {
			return
		}
		back, err := SplitWords(commandLine(words))
		if err != nil || !slices.Equal(words, back) {
			t.Errorf("%q is %q, which reads back as %q, %v", s, words, back, err)
		}
		if strings.ContainsAny(commandLine(words), "\n\x00") {
			t.Errorf("%q breaks the line", commandLine(words))
		}
	})
}
