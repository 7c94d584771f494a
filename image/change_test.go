package image

import (
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestSplitQuotedReadsBackslashes(t *testing.T) {
	for in, want := range map[string][]string{
		`a=1 b="two words"`:     {"a=1", "b=two words"},
		`a="say \"hi\""`:        {`a=say "hi"`},
		`a="C:\\dir\n"`:         {`a=C:\dir\n`},
		`a=one\ word b='\"x'`:   {"a=one word", `b=\"x`},
		`a="it's" b='say "hi"'`: {"a=it's", `b=say "hi"`},
		`a="" b`:                {"a=", "b"},
		`a=ä`:                   {"a=ä"},
	} {
		if got, err := splitQuoted(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("splitQuoted(%s) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{`a="x`, `a='x`, `a="x\"`} {
		if got, err := splitQuoted(bad); err == nil {
			t.Errorf("splitQuoted(%s) = %q, want an error", bad, got)
		}
	}
}

func TestApplyChangesKeepsQuotesOfLabels(t *testing.T) {
	c := &v1.Config{}
	if err := ApplyChanges(c, []string{`LABEL a="say \"hi\"" b=2`}); err != nil {
		t.Fatal(err)
	}
	if c.Labels["a"] != `say "hi"` || c.Labels["b"] != "2" {
		t.Errorf("labels are %v", c.Labels)
	}
}
