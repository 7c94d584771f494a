package runtime

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// specSeeds are what strangers write: the usual, and what is missing, null, twice
// or of another kind.
var specSeeds = [...]string{
	`{}`, `null`, `{"ociVersion":"1.2.0","linux":null,"process":null,"root":null}`,
	`{"root":{"path":"rootfs"},"linux":{"namespaces":[{"type":"mount"},{"type":"mount"}]}}`,
	`{"root":{"path":"r"},"process":{"args":[""],"cwd":"/","rlimits":[{}],"capabilities":{"bounding":["CAP_X"]}},"linux":{"namespaces":[{"type":"mount"}]}}`,
	`{"root":{"path":"r"},"process":{"args":["a\u0000b"],"cwd":"/"},"linux":{"namespaces":[{"type":"mount"}]}}`,
	`{"root":{"path":"r"},"process":{"args":["a"],"cwd":"/","user":{"uid":4294967295,"additionalGids":[1,2],"umask":4294967295},"execCPUAffinity":{"initial":"0-9999","final":"-"}},"linux":{"namespaces":[{"type":"mount"},{"type":"user"}],"uidMappings":[{"containerID":0,"hostID":4294967295,"size":4294967295}]}}`,
	`{"root":{"path":"r"},"hostname":"h","mounts":[null,{"destination":"/proc","type":"proc","options":["r","rro","ridmap",""]}],"linux":{"namespaces":[{"type":"mount"},{"type":"uts"}]}}`,
	`{"root":{"path":"r"},"linux":{"namespaces":[{"type":"mount"},{"type":"network"}],"sysctl":{"net/../kernel/x":"1","":"","net.ipv4.ip_forward":"1"},"cgroupsPath":"/../../..","resources":{"devices":[null,{"type":"","access":"q"},{"type":"zz","major":-5}],"memory":{"limit":-2,"swappiness":18446744073709551615},"cpu":{"cpus":"x","shares":1,"burst":1},"pids":{},"blockIO":{"weightDevice":[null],"throttleReadBpsDevice":[null]},"hugepageLimits":[null],"rdma":{"a":{}},"network":{"priorities":[null]},"unified":{"../x":"1"}}}}`,
	`{"root":{"path":"r"},"hooks":{"poststart":[{}],"poststop":[null]},"linux":{"namespaces":[{"type":"mount"}],"devices":[null],"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[null]},"maskedPaths":["",".."],"timeOffsets":{"x":{}}}}`,
}

// FuzzSpec goes through all that happens to a config.json before the first system
// call is made for it: an error, or a plan, and soon.
func FuzzSpec(f *testing.F) {
	for _, s := range specSeeds {
		f.Add([]byte(s))
	}
	example, err := json.Marshal(ExampleSpec(false))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "config.json")
		must(t, os.WriteFile(file, data, 0o600))
		begun := time.Now()
		if spec, err := ReadSpec(file); err == nil && validate(spec) == nil {
			plan(t, spec)
		}
		if d := time.Since(begun); d > 10*time.Second {
			t.Errorf("%d bytes take %v", len(data), d)
		}
	})
}

// plan is what Create and Exec do to a valid spec, without doing it.
func plan(t *testing.T, spec *specs.Spec) {
	r := &Runtime{Root: t.TempDir()}
	rec := &record{Version: 1, ID: "x", Rootfs: absolute("/b", spec.Root.Path), Hooks: laterHooks(spec.Hooks)}
	r.byThread(spec, CreateOptions{})
	newFlags(spec)
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if p, err := planOf(m.Options); err == nil {
			procFlags(p)
		}
		isBind(m)
		source(m)
		describe(m)
	}
	idMap(spec.Linux.UIDMappings)
	if r.planCgroup(rec, spec, new(group)) != nil {
		return
	}
	if _, err := json.Marshal(newSetup(spec, rec, CreateOptions{})); err != nil {
		t.Errorf("a valid spec cannot be sent on: %v", err)
	}
	if _, err := newEntry(spec, rec); err != nil || spec.Process == nil {
		return
	}
	e := &execution{joinOrder: joinOrder{Record: rec, Process: spec.Process, Seccomp: spec.Linux.Seccomp}}
	for _, part := range []func() error{e.compile, e.affinity, e.limits, e.identity} {
		if part() != nil {
			return
		}
	}
	e.confine()
	if len(lookup(spec.Process)) == 0 {
		t.Errorf("nothing to execute for %q", spec.Process.Args)
	}
}
