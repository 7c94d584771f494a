package rootless

import "testing"

func TestParseRange(t *testing.T) {
	for _, line := range []string{"ann:100000:65536", "1000:100000:65536", " ann:100000:65536 "} {
		if start, size, ok := parseRange(line, "ann", 1000); !ok || start != 100000 || size != 65536 {
			t.Errorf("parseRange(%q) = %d, %d, %v", line, start, size, ok)
		}
	}
	for _, line := range []string{
		"", "bob:1:2", "ann:1", "ann:x:1", "ann:1:0", "ann:4294967295:2", ":1:1", "ann:-1:5", // not ours, short, no numbers, empty, past the end
	} {
		if _, _, ok := parseRange(line, "ann", 1000); ok {
			t.Errorf("parseRange(%q) is taken", line)
		}
	}
}

func TestMaps(t *testing.T) {
	const table = "         0       1000          1\n         1     100000      65536\n"
	for id, want := range map[uint32]bool{0: true, 1: true, 5: true, 65536: true, 65537: false} {
		if got := maps(table, id); got != want {
			t.Errorf("maps %d: %v, want %v", id, got, want)
		}
	}
	if maps("", 0) || maps("0 1000 1\n", 5) {
		t.Error("an id that is in no line is mapped")
	}
}
