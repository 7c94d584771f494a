package container

import (
	"slices"
	"testing"
)

func TestPortsColumnJoinsNeighbours(t *testing.T) {
	for _, x := range []struct {
		want string
		list []shownPort
	}{
		{"", nil},
		{"80/tcp", []shownPort{{container: 80, proto: "tcp"}}},
		{"90-92/tcp, 95/udp", []shownPort{{container: 92, proto: "tcp"}, {container: 90, proto: "tcp"}, {container: 95, proto: "udp"}, {container: 91, proto: "tcp"}}},
		{"80/tcp, 82/tcp", []shownPort{{container: 80, proto: "tcp"}, {container: 82, proto: "tcp"}}},
		{"0.0.0.0:81-82->81-82/tcp, [::]:81-82->81-82/tcp", []shownPort{
			{"0.0.0.0", 81, 81, "tcp"}, {"::", 81, 81, "tcp"}, {"0.0.0.0", 82, 82, "tcp"}, {"::", 82, 82, "tcp"},
		}},
		{"70/tcp, 0.0.0.0:18085->80/tcp, 0.0.0.0:18086->81/tcp", []shownPort{
			{"0.0.0.0", 18085, 80, "tcp"}, {"0.0.0.0", 18086, 81, "tcp"}, {container: 70, proto: "tcp"},
		}},
	} {
		if got := portsColumn(x.list); got != x.want {
			t.Errorf("portsColumn(%v) = %q, want %q", x.list, got, x.want)
		}
	}
}

func TestExposePorts(t *testing.T) {
	got, err := exposePorts([]string{"80-82", "53/udp"})
	if want := []string{"80/tcp", "81/tcp", "82/tcp", "53/udp"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("exposePorts = %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"", "0", "70000", "90-80", "80/icmp", "8080:80", "http"} {
		if got, err := exposePorts([]string{bad}); err == nil {
			t.Errorf("exposePorts(%q) = %v, want an error", bad, got)
		}
	}
}
