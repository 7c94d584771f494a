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
