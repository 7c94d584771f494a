package volume

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kist-containers/kist/internal/state"
)

// TestMain lets the test binary be the other processes of the tests.
func TestMain(m *testing.M) {
	switch os.Getenv("KIST_TEST_ROLE") {
	case "plugin":
		servePlugin(os.Getenv("KIST_TEST_DIR"))
	case "fill":
		fillAgain(os.Getenv("KIST_TEST_DIR"))
	default:
		os.Exit(m.Run())
	}
}

func helper(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "KIST_TEST_ROLE="+role, "KIST_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

func newStore(t *testing.T) *Store {
	t.Helper()
	dir := t.TempDir()
	return Open(state.Roots{Data: filepath.Join(dir, "data"), Run: filepath.Join(dir, "run")}, Options{})
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// servePlugin is a small volume plugin: its volumes are directories below dir.
// Every call is noted in dir/calls.
func servePlugin(dir string) {
	l, err := net.Listen("unix", filepath.Join(dir, "toy.sock"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req struct {
			Name string
			Opts map[string]string
		}
		json.NewDecoder(r.Body).Decode(&req)
		method := strings.TrimPrefix(r.URL.Path, "/")
		if f, err := os.OpenFile(filepath.Join(dir, "calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			fmt.Fprintln(f, method, req.Name)
			f.Close()
		}
		home := filepath.Join(dir, "vol-"+req.Name)
		answer := map[string]any{"Err": ""}
		switch {
		case method == "Plugin.Activate":
			answer = map[string]any{"Implements": []string{"VolumeDriver"}}
		case method == "VolumeDriver.Create" && req.Opts["fail"] != "":
			answer["Err"] = "told to fail: " + req.Opts["fail"]
		case method == "VolumeDriver.Create":
			os.Mkdir(home, 0o755)
		case method == "VolumeDriver.Mount":
			answer["Mountpoint"] = home
		case method == "VolumeDriver.List":
			list := []map[string]string{{"Name": "../evil"}}
			homes, _ := filepath.Glob(filepath.Join(dir, "vol-*"))
			for _, h := range homes {
				list = append(list, map[string]string{"Name": strings.TrimPrefix(filepath.Base(h), "vol-")})
			}
			answer["Volumes"] = list
		case method == "VolumeDriver.Remove":
			os.RemoveAll(home)
		}
		json.NewEncoder(w).Encode(answer)
	}))
}

// fillAgain makes and fills volumes without end, to be killed at any moment.
func fillAgain(dir string) {
	s := Open(state.Roots{Data: filepath.Join(dir, "data"), Run: filepath.Join(dir, "run")}, Options{})
	root, err := os.Open(filepath.Join(dir, "image"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx := context.Background()
	for n := 0; ; n++ {
		name := fmt.Sprintf("vol%d", n%8)
		v, err := s.Ensure(ctx, Volume{Name: name})
		if err == nil {
			err = s.CopyUp(ctx, name, v.Path, root, "/tree")
		}
		if err == nil && n%3 == 2 {
			err = s.Remove(ctx, name)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			time.Sleep(time.Second)
		}
	}
}
