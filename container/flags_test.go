package container

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container/runtime"
)

// words are cases of a parser: each good one with how its result prints, each
// bad one with a word of the error.
func checkWords[T any](t *testing.T, name string, parse func(string) (T, error), good map[string]T, bad map[string]string) {
	t.Helper()
	for text, want := range good {
		if got, err := parse(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s(%q) = %+v, %v, want %+v", name, text, got, err, want)
		}
	}
	for text, why := range bad {
		if got, err := parse(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s(%q) = %+v, %v, want an error with %q", name, text, got, err, why)
		}
	}
}

func TestParseFlags(t *testing.T) {
	checkWords(t, "parseUlimit", parseUlimit,
		map[string]Ulimit{"nofile=1:2": {"nofile", 1, 2}, "core=-1": {"core", -1, -1}, "host": {Name: "host"}},
		map[string]string{"nofile": "want NAME=", "nofile=2:1": "soft limit must be less", "nosuch=1": "invalid ulimit type", "": "want NAME="})
	checkWords(t, "parseSignal", parseSignal,
		map[string]unix.Signal{"TERM": 15, "SIGKILL": 9, "usr1": 10, "RTMIN+3": 37, "SIGRTMAX-1": 63, "64": 64},
		map[string]string{"0": "no such", "65": "no such", "RTMIN+40": "no such", "": "no such", "TERMINATE": "no such", "-9": "no such"})
	checkWords(t, "ParseDevice", ParseDevice,
		map[string]Device{"/dev/a": {"/dev/a", "/dev/a", "rwm"}, "/dev/a:r": {"/dev/a", "/dev/a", "r"}, "/dev/a:/b:wm": {"/dev/a", "/b", "wm"}},
		map[string]string{"dev/a": "want HOST", "/dev/a:/b:x": "want HOST", "/dev/a:b": "want HOST", "/dev/a:/b:": "want HOST", "a:b:c:d": "want HOST"})
	checkWords(t, "parseSecret", parseSecret,
		map[string]SecretUse{
			"k":                                {Name: "k", Target: "/run/secrets/k", Mode: 0o444},
			"k,target=x/y,uid=1,gid=2,mode=4":  {Name: "k", Target: "/run/secrets/x/y", UID: 1, GID: 2, Mode: 4},
			"k,target=../../etc/x":             {Name: "k", Target: "/run/secrets/etc/x", Mode: 0o444},
			"k,type=mount,target=/etc/../root": {Name: "k", Target: "/root", Mode: 0o444},
			"k,type=env,target=KEY":            {Name: "k", Env: "KEY"},
		},
		map[string]string{"": "name first", "../k": "name first", "k,type=x": "mount or env", "k,mode=9": "want a number", "k,mode=1777": "0777",
			"k,type=env,target=A=B": "variable", "k,type=env,uid=1": "type=mount", "k,uid=-1": "want a number", "k,x=1": "want type="})
	checkWords(t, "runtime.Capability", runtime.Capability,
		map[string]string{"chown": "CAP_CHOWN", "CAP_sys_admin": "CAP_SYS_ADMIN", "all": "ALL"},
		map[string]string{"CAP_CAP_CHOWN": "no such", "": "no such", "NET": "no such"})
	checkWords(t, "findRuntime", findRuntime, map[string]string{"": "", "kist": ""}, map[string]string{"no/such": "no such program", "nosuchruntime": "no such program"})
	checkWords(t, "timeZone", timeZone, map[string]string{"": ""}, map[string]string{"../../../etc/passwd": "time zone", "Asia": "time zone", "No/Where": "time zone"})
}

func TestImageEnv(t *testing.T) {
	image := []string{"PATH=/bin", "A=1", "B=2"}
	for _, x := range []struct {
		flags envFlags
		want  []string
	}{
		{envFlags{}, image},
		{envFlags{Unsetenv: []string{"A", "NONE"}}, []string{"PATH=/bin", "B=2"}},
		{envFlags{UnsetenvAll: true}, nil},
		{envFlags{EnvMerge: []string{"PATH=$PATH:/opt", "C=${B}x${NONE}"}}, []string{"PATH=/bin:/opt", "A=1", "B=2", "C=2x"}},
	} {
		if got := x.flags.imageEnv(image); !slices.Equal(got, x.want) {
			t.Errorf("%+v gives %q, want %q", x.flags, got, x.want)
		}
	}
	if image[1] != "A=1" {
		t.Error("the image's own variables were changed")
	}
}

// An image asks for no volume in place of what is the kernel's, which carries the
// masks, and for no check that keeps the host busy.
func TestImageConfigIsBounded(t *testing.T) {
	c := &Config{}
	c.imageVolumes(map[string]struct{}{"/proc": {}, "/proc/sys/net": {}, "/sys": {}, "/sys/../proc": {}, "/dev": {}, "/dev/pts/": {},
		"/": {}, "../x": {}, "": {}, "/etc:/x": {}, "/data": {}}, "")
	if len(c.Mounts) != 1 || c.Mounts[0].Target != "/data" {
		t.Errorf("volumes = %+v, want /data alone", c.Mounts)
	}
	img := &v1.Config{Cmd: []string{"x"}, Labels: map[string]string{UnitLabel: "reboot.target", PodmanUnitLabel: "-Hevil", "other": "1"}}
	c = &Config{Labels: map[string]string{UnitLabel: "web.service"}}
	if err := c.fromImage(img, &source{}); err != nil || !maps.Equal(c.Labels, map[string]string{UnitLabel: "web.service", "other": "1"}) {
		t.Errorf("labels = %v, %v; want the unit that the command line names", c.Labels, err)
	}
	for given, want := range map[time.Duration]time.Duration{-5: 0, 0: 0, 1: leastInterval, time.Minute: time.Minute} {
		c := &Config{}
		c.imageHealth(&v1.HealthConfig{Test: []string{"CMD", "true"}, Interval: given, Timeout: -1, StartPeriod: -1, Retries: -1})
		if h := c.Health; h.Interval != want || h.Timeout != 0 || h.StartPeriod != 0 || h.Retries != 0 {
			t.Errorf("interval %v gives %+v, want %v", given, h, want)
		}
	}
}

// FuzzEnvFile reads what --env-file may name: an error, or variables that a
// process can have.
func FuzzEnvFile(f *testing.F) {
	f.Add("A=1\n# note\nHOME\n  B=x=y\n")
	f.Add("\ufeffA=1\r\nA b=2")
	name := filepath.Join(f.TempDir(), "env")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := readPairs(name)
		if err != nil {
			return
		}
		for _, e := range list {
			key, _, ok := strings.Cut(e, "=")
			if !ok || key == "" || strings.ContainsAny(e, "\n\x00") {
				t.Errorf("%q gives the variable %q", text, e)
			}
		}
	})
}

// FuzzCDI applies what a vendor's file may say: an error, or edits that keep to
// absolute paths and to variables that a process can have.
func FuzzCDI(f *testing.F) {
	f.Add([]byte(`{"cdiVersion":"0.6.0","kind":"a.com/b","devices":[{"name":"0","containerEdits":{"env":["A=1"],"deviceNodes":[{"path":"/dev/x","hostPath":"/dev/null"}]}}]}`))
	f.Add([]byte("cdiVersion: 0.5.0\nkind: a/b\ndevices: [{name: x, containerEdits: {mounts: [{hostPath: /a, containerPath: b}], hooks: [{hookName: poststop, path: /x}]}}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseCDI(data)
		if err != nil {
			return
		}
		for _, d := range s.Devices {
			m := &specMaker{e: New(Options{}), c: &Config{}}
			out := scratchSpec()
			if m.edit(out, &d.Edits) != nil {
				continue
			}
			for _, x := range out.Mounts {
				if !filepath.IsAbs(x.Destination) {
					t.Errorf("%q mounts on %q", data, x.Destination)
				}
			}
			for _, x := range out.Linux.Devices {
				if !filepath.IsAbs(x.Path) {
					t.Errorf("%q makes %q", data, x.Path)
				}
			}
			for _, e := range out.Process.Env {
				if !strings.Contains(e, "=") || strings.ContainsRune(e, 0) {
					t.Errorf("%q sets %q", data, e)
				}
			}
		}
	})
}

// FuzzUser resolves users by account files of an image's making.
func FuzzUser(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/sh\n", "root:x:0:\nwheel:x:10:root,me\n", "root:wheel")
	f.Add("me:x:4294967296:-1::\n", "::::", "4294967295")
	f.Add("a:b", "c", "0x0:+1")
	dir := f.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o700); err != nil {
		f.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, passwd, group, user string) {
		os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte(passwd), 0o600)
		os.WriteFile(filepath.Join(dir, "etc/group"), []byte(group), 0o600)
		u, _, err := resolveUser(root, user, nil)
		name, _, _ := strings.Cut(user, ":")
		if id, isNumber, bad := number(name); err == nil && isNumber && (bad != nil || u.UID != id) {
			t.Errorf("-u %q with %q is %d", user, passwd, u.UID)
		}
	})
}
