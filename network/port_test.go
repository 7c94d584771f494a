package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kist-containers/kist/internal/state"
)

// claims is a manager that asks the kernel about no port of protocol sctp.
func claims(t testing.TB) *Manager {
	dir := t.TempDir()
	return Open(state.Roots{Data: filepath.Join(dir, "data"), Run: filepath.Join(dir, "run")}, Options{})
}

func sctp(ip string, port uint16) PortBinding {
	return PortBinding{HostIP: ip, HostPort: port, ContainerPort: 80, Proto: "sctp"}
}

func TestPortsOfOthersAndOfOneselfAreTaken(t *testing.T) {
	m := claims(t)
	owner, other := &Sandbox{ID: "owner"}, &Sandbox{ID: "other"}
	if err := errors.Join(m.record(owner), m.record(other)); err != nil {
		t.Fatal(err)
	}
	had := []PortBinding{sctp("", 100), sctp("10.0.0.1", 101), sctp("0.0.0.0", 102), sctp("::", 103), sctp("10.0.0.1", 1000)}
	if _, err := m.claimPorts(context.Background(), owner, had); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		wanted []PortBinding
		free   bool
	}{
		{[]PortBinding{sctp("", 100)}, false},
		{[]PortBinding{sctp("10.0.0.1", 100)}, false}, // all addresses are taken
		{[]PortBinding{sctp("", 101)}, false},         // of all addresses one is taken
		{[]PortBinding{sctp("10.0.0.2", 101)}, true},
		{[]PortBinding{sctp("10.0.0.2", 102)}, false},
		{[]PortBinding{sctp("fd00::2", 102)}, true}, // the other family
		{[]PortBinding{sctp("fd00::2", 103)}, false},
		{[]PortBinding{sctp("10.0.0.2", 103)}, true},
		{[]PortBinding{sctp("", 10)}, true}, // not a part of 100 or 1000
		{[]PortBinding{sctp("", 200), sctp("10.0.0.2", 200)}, false},
		{[]PortBinding{sctp("10.0.0.1", 200), sctp("10.0.0.2", 200)}, true},
		{[]PortBinding{sctp("", 200), sctp("", 200)}, false},
	} {
		got, err := m.claimPorts(context.Background(), other, c.wanted)
		if c.free != (err == nil) || err != nil && !errors.Is(err, errPortTaken) {
			t.Errorf("%v: %v, want free %v", c.wanted, err, c.free)
		}
		if err == nil {
			m.freePorts(got)
		}
		if left, _ := os.ReadDir(m.portDir()); len(left) != len(had) {
			t.Fatalf("%v: %d claims are left, want the owner's %d", c.wanted, len(left), len(had))
		}
	}
	if err := os.Remove(m.sandboxFile("owner")); err != nil { // killed
		t.Fatal(err)
	}
	if _, err := m.claimPorts(context.Background(), other, []PortBinding{sctp("", 100), sctp("", 101)}); err != nil {
		t.Errorf("ports of a sandbox that is gone: %v", err)
	}
}

func BenchmarkClaimPorts(b *testing.B) {
	for _, n := range []int{100, 1000, 4000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := claims(b)
			list, err := ParsePort(fmt.Sprintf("20000-%d:20000-%[1]d/sctp", 20000+n-1))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				got, err := m.claimPorts(context.Background(), &Sandbox{ID: strings.Repeat("a", 64)}, list)
				if err != nil {
					b.Fatal(err)
				}
				m.freePorts(got)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/port")
		})
	}
}

// The rules of so many ports are planned and noted.
func BenchmarkPortRules(b *testing.B) {
	for _, n := range []int{100, 1000, 4000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := Endpoint{Address: "10.75.0.2/24", Bridge: "br9", Default: true}
			var blocks []block
			for port := range n {
				blocks = append(blocks, block{rules: e.portRules(false, PublishedPort{PortBinding{HostPort: uint16(port), ContainerPort: uint16(port), Proto: "tcp"}})})
			}
			b.ReportAllocs()
			for b.Loop() {
				have := present{}
				for _, plan := range []func(script){
					func(s script) { s.addMissing(have, blocks...) },
					func(s script) { s.remove(have, blocks...) },
				} {
					s := script{}
					plan(s)
					for table, lines := range s {
						have.change(table, lines.String())
					}
				}
				if len(have["nat"]) > 0 {
					b.Fatal("rules are left")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/port")
		})
	}
}
