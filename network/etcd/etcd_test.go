package etcd

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kist-containers/kist/network/etcd/etcdtest"
)

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// server starts a server that asks its clients for certificates.
func server(t *testing.T, cert, key string) string {
	t.Helper()
	path, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("needs etcd (Debian: etcd-server)")
	}
	at, peer := fmt.Sprintf("https://127.0.0.1:%d", freePort(t)), fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	cmd := exec.Command(path, "--data-dir", filepath.Join(t.TempDir(), "etcd"), "--logger=zap", "--log-outputs=/dev/null",
		"--listen-client-urls", at, "--advertise-client-urls", at, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer,
		"--cert-file", cert, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", cert)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return at
}

func TestServerWithCertificates(t *testing.T) {
	cert, key := etcdtest.Certificate(t, net.IPv4(127, 0, 0, 1))
	at := server(t, cert, key)
	c, err := Open(Config{URL: at, CAFile: cert, CertFile: cert, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err = c.List(ctx, "/"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	lease, err := c.Grant(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if alive, err := c.Renew(ctx, lease); !alive || err != nil {
		t.Errorf("a new lease: %v, %v", alive, err)
	}
	for i, want := range []bool{true, false} {
		if ok, err := c.Create(ctx, "/a/x", "one", lease); ok != want || err != nil {
			t.Errorf("create %d: %v, %v", i, ok, err)
		}
	}
	if err := c.Put(ctx, "/a/y\x00", "two", ""); err != nil {
		t.Error(err)
	}
	c.Put(ctx, "/b", "outside", "")
	if list, err := c.List(ctx, "/a/"); err != nil || len(list) != 2 || list["x"] != "one" {
		t.Errorf("list %q, %v", list, err)
	}
	if err := c.Revoke(ctx, lease); err != nil {
		t.Error(err)
	}
	if alive, err := c.Renew(ctx, lease); alive {
		t.Errorf("a revoked lease: %v, %v", alive, err)
	}
	if err := c.Delete(ctx, "/a/y\x00"); err != nil {
		t.Error(err)
	}
	if list, err := c.List(ctx, "/a/"); err != nil || len(list) != 0 {
		t.Errorf("list %q, %v; want nothing", list, err)
	}
	for what, conf := range map[string]Config{"a stranger's server": {URL: at, CertFile: cert, Key: key}, "no certificate of the client": {URL: at, CAFile: cert}} {
		stranger, err := Open(conf)
		if err == nil {
			_, err = stranger.List(ctx, "/")
		}
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestStrangeServer(t *testing.T) {
	reply := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, reply) }))
	defer s.Close()
	c, err := Open(Config{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	for _, reply = range []string{"", "[]", `{"kvs":[{"key":7}]}`, strings.Repeat("[", 1000)} {
		if _, err := c.List(context.Background(), "/"); err == nil {
			t.Errorf("%.20q taken as a list", reply)
		}
	}
	reply = "{}"
	if lease, err := c.Grant(context.Background(), time.Minute); err == nil {
		t.Errorf("lease %q of an empty reply", lease)
	}
	if alive, _ := c.Renew(context.Background(), "1"); alive {
		t.Error("an empty reply renewed a lease")
	}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []Config{{}, {URL: "localhost:2379"}, {URL: "ftp://h"}, {URL: "http://h", CAFile: "/nonexistent"}, {URL: "http://h", CertFile: "/nonexistent", Key: "/nonexistent"}} {
		if _, err := Open(c); err == nil {
			t.Errorf("%+v: opened", c)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"kvs":[{"key":"L2EveA==","value":"b25l"}],"ID":"7","succeeded":true}`))
	f.Add([]byte(`{"result":{"TTL":"0"}}`))
	f.Fuzz(func(t *testing.T, reply []byte) {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(reply) }))
		defer srv.Close()
		c, err := Open(Config{URL: srv.URL})
		if err != nil {
			t.Fatal(err)
		}
		defer c.http.CloseIdleConnections()
		ctx := context.Background()
		if lease, err := c.Grant(ctx, time.Minute); err == nil && lease == "" {
			t.Errorf("%q is a lease without a name", reply)
		}
		c.Renew(ctx, "7")
		c.Create(ctx, "/a/x", "one", "7")
		list, err := c.List(ctx, "/a/")
		for key := range list {
			if err != nil || strings.HasPrefix(key, "/a/") && !strings.Contains(string(reply), "kvs") {
				t.Errorf("%q lists %q", reply, key)
			}
		}
	})
}
