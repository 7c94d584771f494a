package network

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// etcdServer starts a server of this test's own at 192.0.2.1.
func etcdServer(t *testing.T, args ...string) (port string) {
	t.Helper()
	path, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("needs etcd (Debian: etcd-server)")
	}
	scheme := "http"
	if len(args) > 0 {
		scheme = "https"
	}
	if err := setUp("lo"); err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 2)
	at := scheme + "://192.0.2.1:" + ports[0]
	cmd := exec.Command(path, append([]string{"--data-dir", filepath.Join(t.TempDir(), "etcd"), "--listen-client-urls", at, "--advertise-client-urls", at,
		"--listen-peer-urls", "http://127.0.0.1:" + ports[1], "--unsafe-no-fsync", "--logger=zap", "--log-outputs=/dev/null"}, args...)...)
	if version, _ := exec.Command(path, "--version").Output(); !strings.Contains(string(version), " 3.5") {
		cmd.Args = remove(cmd.Args, "--unsafe-no-fsync") // since 3.5
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return ports[0]
}

func remove(list []string, w string) (out []string) {
	for _, x := range list {
		if x != w {
			out = append(out, x)
		}
	}
	return out
}

func freePorts(t *testing.T, n int) (ports []string) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	}
	return ports
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("not within a minute: " + what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestOneMonitorOfAHostKeepsTheStore(t *testing.T) {
	m := newManager(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan bool)
	go func() { m.keep(ctx, "x"); ended <- true }()
	eventually(t, "the first has the lock", func() bool { return locked(m) })
	ctx2, cancel2 := context.WithCancel(context.Background())
	go func() { m.keep(ctx2, "x"); ended <- true }()
	cancel()
	<-ended
	eventually(t, "the second took over", func() bool { return locked(m) })
	cancel2()
	<-ended
}

func locked(m *Manager) bool {
	l, err := m.tryKeeper("x")
	if err == nil {
		l.Unlock()
	}
	return err != nil
}

func TestBadStores(t *testing.T) {
	m := newManager(t)
	for want, o := range map[string]map[string]string{
		"want http://":           {optStore: "etcd", optVNI: "5"},
		"--opt advertise":        {optStore: "http://127.0.0.1:2379", optVNI: "5"},
		"not an IP address":      {optStore: "http://192.0.2.9:2379", optVNI: "5", optAdvertise: "me"},
		"no such file or direct": {optStore: "https://192.0.2.9:2379", optVNI: "5", "store.cacert": "/nonexistent"},
	} {
		err := m.Create(context.Background(), &Network{Name: "x", Driver: "overlay", Subnet: "10.66.0.0/24", Options: o})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", o, err, want)
		}
	}
}
