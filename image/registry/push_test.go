package registry

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestBrokenUploadBeginsAgain breaks the connection amid an upload.
func TestBrokenUploadBeginsAgain(t *testing.T) {
	reg := inner()
	var begun, broken int
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			begun++
		case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/") && broken < 2:
			broken++
			io.CopyN(io.Discard, r.Body, 100_000)
			panic(http.ErrAbortHandler)
		}
		reg.ServeHTTP(w, r)
	}))
	defer s.Close()
	r := open(t, &Config{}, host(s), "a")
	var sent int64
	data := bytes.Repeat([]byte("x"), 1<<20)
	d := put(t, r, data, PutOptions{Sent: func(n int64) { sent += n }})
	if begun != 3 || sent != d.Size {
		t.Errorf("begun %d times, %d bytes counted; want 3 and %d", begun, sent, d.Size)
	}
	if got := get(t, r, d); got != string(data) {
		t.Error("content differs")
	}
}

func TestMountAsksForBothRepositories(t *testing.T) {
	reg := inner()
	d := descriptor([]byte("x"))
	cancelled := 0
	s, scopes := tokenServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch q := r.URL.Query(); {
		case r.Method == http.MethodDelete:
			cancelled++
			w.WriteHeader(http.StatusNoContent)
		case q.Get("mount") == d.Digest.String() && q.Get("from") == "from":
			w.WriteHeader(http.StatusCreated)
		default:
			reg.ServeHTTP(w, r)
		}
	}), "", "")
	to := open(t, &Config{}, host(s), "to")
	if ok, err := to.Mount(ctx, d, "from"); err != nil || !ok {
		t.Fatalf("mount: %v, %v", ok, err)
	}
	if last := (*scopes)[len(*scopes)-1]; last != "repository:to:pull,push repository:from:pull" {
		t.Errorf("scope = %q", last)
	}
	if how, err := to.PutBlob(ctx, d, nil, PutOptions{From: "from"}); err != nil || how != Mounted {
		t.Errorf("put: %v, %v", how, err)
	}
	if ok, err := to.Mount(ctx, descriptor([]byte("nowhere")), "from"); err != nil || ok || cancelled != 1 {
		t.Errorf("mount of what is not there: %v, %v", ok, err)
	}
}

func TestExpiredTokenIsRenewed(t *testing.T) {
	valid := ""
	n := 0
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			n++
			valid = strings.Repeat("t", n)
			io.WriteString(w, `{"access_token":"`+valid+`","expires_in":60}`)
		case r.Header.Get("Authorization") != "Bearer "+valid || valid == "":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			io.WriteString(w, `{"tags":["a"]}`)
		}
	}))
	defer s.Close()
	r := open(t, &Config{}, host(s), "a")
	for range 2 {
		if _, err := r.Tags(ctx); err != nil {
			t.Fatal(err)
		}
		valid = "another" // the registry forgets the token
	}
	if n != 2 {
		t.Errorf("%d tokens were asked for, want 2", n)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for in, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "soon": 0} {
		if got := retryAfter(in, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", in, got, want)
		}
	}
	err := &Error{Status: http.StatusTooManyRequests, Host: "r", retryAfter: 3 * time.Second}
	if pause, again := Retry(err, 0); !again || pause != 3*time.Second || !strings.Contains(err.Error(), "rate limit") {
		t.Errorf("Retry = %v, %v: %v", pause, again, err)
	}
}
