package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kist-containers/kist/network/etcd"
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

func TestOverlayWithStore(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("needs busybox, for ping")
	}
	m1, m2 := newManager(t), newManager(t)
	host2 := cable(t)
	at := "http://192.0.2.1:" + etcdServer(t)
	c, err := etcd.Open(etcd.Config{URL: at})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	eventually(t, "the store answers", func() bool { _, err := c.List(ctx, "/"); return err == nil })

	create := func(m *Manager, self string) error {
		return m.Create(ctx, &Network{Name: "over", Driver: "overlay", Subnet: "10.66.0.0/24",
			Options: map[string]string{optStore: at, optVNI: "77", optAdvertise: self}})
	}
	if err := errors.Join(create(m1, "192.0.2.1"), inNamespace(host2, func() error { return create(m2, "192.0.2.2") })); err != nil {
		t.Fatal(err)
	}
	one, run := sandbox(t, m1, "a", "over")
	cfg := SandboxConfig{ID: strings.Repeat("b", 64), Name: "bob", Mode: "over", Dir: t.TempDir()}
	var two *Sandbox
	err = inNamespace(host2, func() (err error) {
		two, err = m2.Setup(ctx, cfg)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if one.Endpoints[0].Address == two.Endpoints[0].Address {
		t.Fatalf("both hosts gave %s", one.Endpoints[0].Address)
	}
	// What the elected monitors do, one round at a time.
	round := func() {
		t.Helper()
		if err := errors.Join(m1.syncStore(ctx, "over"), inNamespace(host2, func() error { return m2.syncStore(ctx, "over") })); err != nil {
			t.Error(err)
		}
	}
	round()
	addr, _, _ := strings.Cut(two.Endpoints[0].Address, "/")
	if err := run("busybox", "ping", "-c1", "-W5", addr); err != nil {
		t.Errorf("across: %v", err)
	}
	names := func(m *Manager) string {
		files, _ := filepath.Glob(filepath.Join(m.endpointDir("over"), "*.json"))
		return fmt.Sprint(len(files))
	}
	if names(m1) != "2" || names(m2) != "2" {
		t.Errorf("names of %s and %s endpoints, want 2 each", names(m1), names(m2))
	}

	// The second host dies: what it put there ends with its lease.
	eventually(t, "a dead host is forgotten", func() bool {
		m1.syncStore(ctx, "over")
		return names(m1) == "1"
	})
	// It returns.
	round()
	round()
	if names(m1) != "2" {
		t.Error("a host that returned is not known")
	}
	err = inNamespace(host2, func() error { return errors.Join(m2.Teardown(ctx, cfg.ID), m2.Remove(ctx, "over")) })
	if err := errors.Join(err, m1.syncStore(ctx, "over")); err != nil {
		t.Error(err)
	}
	if names(m1) != "1" {
		t.Error("the names of a container that left stay")
	}
	if err := errors.Join(m1.Teardown(ctx, one.ID), m1.Remove(ctx, "over")); err != nil {
		t.Error(err)
	}
	if left, err := c.List(ctx, "/kist/"); err != nil || len(left) != 0 {
		t.Errorf("the store still has %v, %v", left, err)
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
