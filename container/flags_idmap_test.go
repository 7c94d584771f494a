package container

import (
	"slices"
	"testing"
)

func TestBreakIntoCutsBothSides(t *testing.T) {
	for _, x := range []struct {
		list []IDMap
		in   IDMap
		want []IDMap
	}{
		{nil, IDMap{0, 5, 1}, []IDMap{{0, 5, 1}}},
		{[]IDMap{{0, 0, 100}}, IDMap{10, 10, 1}, []IDMap{{0, 0, 10}, {10, 10, 1}, {11, 11, 89}}},
		{[]IDMap{{0, 0, 100}}, IDMap{10, 50, 1}, []IDMap{{0, 0, 10}, {10, 50, 1}, {11, 11, 39}, {51, 51, 49}}},
		{[]IDMap{{0, 0, 100}}, IDMap{500, 0, 1}, []IDMap{{1, 1, 99}, {500, 0, 1}}},
		{[]IDMap{{0, 0, 10}}, IDMap{0, 0, 10}, []IDMap{{0, 0, 10}}},
		{[]IDMap{{0, 0, 1<<32 - 1}}, IDMap{5, 7, 2}, []IDMap{{0, 0, 5}, {5, 7, 2}, {9, 9, 1<<32 - 10}}},
	} {
		if got := breakInto(x.list, x.in); !slices.Equal(got, x.want) {
			t.Errorf("breakInto(%v, %v) = %v, want %v", x.list, x.in, got, x.want)
		}
	}
}

func TestParseIDWish(t *testing.T) {
	for in, want := range map[string]idWish{
		"0:100:10":     {IDMap: IDMap{0, 100, 10}},
		"5:6":          {IDMap: IDMap{5, 6, 1}},
		"+5:@1000:2":   {IDMap: IDMap{5, 1000, 2}, adds: true, real: true},
		"g+102000:@20": {IDMap: IDMap{102000, 20, 1}, adds: true, real: true, gids: true},
		"ug1:2:3":      {IDMap: IDMap{1, 2, 3}, uids: true, gids: true},
	} {
		if got, err := parseIDWish(in); err != nil || got != want {
			t.Errorf("parseIDWish(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "1", "@1:2:3", "1:@", "1:2:0", "x1:2:3", "1:2:3:4"} {
		if got, err := parseIDWish(bad); err == nil {
			t.Errorf("parseIDWish(%q) = %+v, want an error", bad, got)
		}
	}
}
