package container

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"go.yaml.in/yaml/v3"
)

// Devices of vendors are described by files of the Container Device Interface,
// JSON or YAML; see SPEC.md of github.com/cncf-tags/container-device-interface.
// A device's name is VENDOR/CLASS=NAME.

// cdiDirs are where the files are; a later directory goes before an earlier one.
var cdiDirs = [...]string{"/etc/cdi", "/var/run/cdi"}

// mostCDI bounds a file.
const mostCDI = 4 << 20

type cdiSpec struct {
	Version string   `yaml:"cdiVersion"`
	Kind    string   `yaml:"kind"`
	Devices []device `yaml:"devices"`
	Edits   cdiEdits `yaml:"containerEdits"`
	file    string
	dir     int
}

type device struct {
	Name  string   `yaml:"name"`
	Edits cdiEdits `yaml:"containerEdits"`
}

// cdiEdits are what a device changes of a container.
type cdiEdits struct {
	Env         []string  `yaml:"env"`
	DeviceNodes []cdiNode `yaml:"deviceNodes"`
	NetDevices  []any     `yaml:"netDevices"`
	Hooks       []cdiHook `yaml:"hooks"`
	Mounts      []struct {
		HostPath      string   `yaml:"hostPath"`
		ContainerPath string   `yaml:"containerPath"`
		Type          string   `yaml:"type"`
		Options       []string `yaml:"options"`
	} `yaml:"mounts"`
	IntelRdt       any      `yaml:"intelRdt"`
	AdditionalGIDs []uint32 `yaml:"additionalGids"`
}

type cdiNode struct {
	Path        string       `yaml:"path"`
	HostPath    string       `yaml:"hostPath"`
	Type        string       `yaml:"type"`
	Major       int64        `yaml:"major"`
	Minor       int64        `yaml:"minor"`
	FileMode    *os.FileMode `yaml:"fileMode"`
	Permissions string       `yaml:"permissions"`
	UID         *uint32      `yaml:"uid"`
	GID         *uint32      `yaml:"gid"`
}

type cdiHook struct {
	Name    string   `yaml:"hookName"`
	Path    string   `yaml:"path"`
	Args    []string `yaml:"args"`
	Env     []string `yaml:"env"`
	Timeout *int     `yaml:"timeout"`
}

// isCDI reports whether --device names a device of CDI rather than a node.
func isCDI(s string) bool {
	kind, name, ok := strings.Cut(s, "=")
	vendor, class, ok2 := strings.Cut(kind, "/")
	return ok && ok2 && vendor != "" && class != "" && name != "" && !strings.ContainsAny(kind, ": \t") && strings.Count(kind, "/") == 1
}

// parseCDI reads one file. JSON is YAML.
func parseCDI(data []byte) (*cdiSpec, error) {
	s := new(cdiSpec)
	if err := yaml.Unmarshal(data, s); err != nil {
		return nil, err
	}
	vendor, class, ok := strings.Cut(s.Kind, "/")
	switch {
	case s.Version == "":
		return nil, errors.New("cdiVersion is missing")
	case !ok || vendor == "" || class == "":
		return nil, fmt.Errorf("kind %q: want VENDOR/CLASS", s.Kind)
	}
	for _, d := range s.Devices {
		if d.Name == "" {
			return nil, errors.New("a device has no name")
		}
	}
	return s, nil
}

// readCDI reads all files of the directories. One that cannot be read is told of
// only when nothing else has the device.
func readCDI(dirs []string) (all []*cdiSpec, broken error) {
	for i, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			broken = errors.Join(broken, err)
		}
		for _, entry := range entries {
			if ext := filepath.Ext(entry.Name()); ext != ".json" && ext != ".yaml" && ext != ".yml" {
				continue
			}
			file := filepath.Join(dir, entry.Name())
			s, err := readCDIFile(file)
			if err != nil {
				broken = errors.Join(broken, fmt.Errorf("%s: %w", file, err))
				continue
			}
			s.file, s.dir = file, i
			all = append(all, s)
		}
	}
	return all, broken
}

func readCDIFile(name string) (*cdiSpec, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, mostCDI+1))
	if err != nil {
		return nil, err
	}
	if len(data) > mostCDI {
		return nil, fmt.Errorf("more than %d bytes", mostCDI)
	}
	return parseCDI(data)
}

// find returns the file and the entry that describe a device.
func findCDI(all []*cdiSpec, name string) (*cdiSpec, *device, error) {
	kind, dev, _ := strings.Cut(name, "=")
	var spec *cdiSpec
	var found *device
	for _, s := range all {
		if s.Kind != kind {
			continue
		}
		for i := range s.Devices {
			if s.Devices[i].Name != dev {
				continue
			}
			if found != nil && s.dir == spec.dir {
				return nil, nil, fmt.Errorf("%s and %s both describe it", spec.file, s.file)
			}
			spec, found = s, &s.Devices[i]
		}
	}
	if found == nil {
		return nil, nil, fs.ErrNotExist
	}
	return spec, found, nil
}

// cdi makes what the container's CDI devices change, those of each file once.
func (m *specMaker) cdi(s *specs.Spec) error {
	sec := &m.c.Security
	if len(sec.CDI)+len(sec.GPUs) == 0 {
		return nil
	}
	dirs := sec.CDIDirs
	if len(dirs) == 0 {
		dirs = cdiDirs[:]
	}
	all, broken := readCDI(dirs)
	names := slices.Clone(sec.CDI)
	for _, g := range sec.GPUs {
		list, err := gpuNames(all, g)
		if err != nil {
			return errors.Join(fmt.Errorf("--gpus %s: %w", g, err), broken)
		}
		names = append(names, list...)
	}
	seen := map[*cdiSpec]bool{}
	for _, name := range names {
		file, dev, err := findCDI(all, name)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("no file in %s describes it", strings.Join(dirs, " or "))
			if broken != nil {
				err = fmt.Errorf("%w (%w)", err, broken)
			}
		}
		if err != nil {
			return fmt.Errorf("--device %s: %w", name, err)
		}
		edits := []*cdiEdits{&dev.Edits}
		if !seen[file] {
			edits = append([]*cdiEdits{&file.Edits}, edits...)
		}
		seen[file] = true
		for _, e := range edits {
			if err := m.edit(s, e); err != nil {
				return fmt.Errorf("--device %s: %s: %w", name, file.file, err)
			}
		}
	}
	return nil
}

func (m *specMaker) edit(s *specs.Spec, e *cdiEdits) error {
	if len(e.NetDevices) > 0 || e.IntelRdt != nil {
		return errors.New("netDevices and intelRdt are not supported")
	}
	for _, v := range e.Env {
		if key, _, ok := strings.Cut(v, "="); !ok || key == "" || strings.ContainsRune(v, 0) {
			return fmt.Errorf("variable %q: want KEY=VALUE", v)
		}
	}
	s.Process.Env = mergeEnv(s.Process.Env, e.Env)
	s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, e.AdditionalGIDs...)
	for _, n := range e.DeviceNodes {
		if err := m.cdiNode(s, n); err != nil {
			return err
		}
	}
	for _, x := range e.Mounts {
		if !filepath.IsAbs(x.ContainerPath) || !filepath.IsAbs(x.HostPath) && x.Type != "tmpfs" {
			return fmt.Errorf("mount %q on %q: want absolute paths", x.HostPath, x.ContainerPath)
		}
		o := specs.Mount{Source: x.HostPath, Destination: x.ContainerPath, Type: x.Type, Options: x.Options}
		if o.Type == "" || o.Type == "bind" {
			o.Type = "bind"
			if !slices.Contains(o.Options, "rbind") {
				o.Options = append([]string{"bind"}, o.Options...)
			}
		}
		s.Mounts = append(s.Mounts, o)
	}
	return addHooks(s, e.Hooks)
}

func (m *specMaker) cdiNode(s *specs.Spec, n cdiNode) error {
	if n.HostPath == "" {
		n.HostPath = n.Path
	}
	if !filepath.IsAbs(n.Path) || !filepath.IsAbs(n.HostPath) {
		return fmt.Errorf("device node %q: want an absolute path", n.Path)
	}
	if n.Permissions == "" {
		n.Permissions = "rwm"
	}
	if !validPermissions(n.Permissions) {
		return fmt.Errorf("device node %s: permissions %q", n.Path, n.Permissions)
	}
	if err := addNode(s, n.HostPath, n.Path, n.Permissions, m.ownIDs()); err != nil {
		return fmt.Errorf("device node %s: %w", n.HostPath, err)
	}
	if len(s.Linux.Devices) > 0 {
		d := &s.Linux.Devices[len(s.Linux.Devices)-1]
		if d.Path == n.Path {
			if n.FileMode != nil {
				d.FileMode = n.FileMode
			}
			if n.UID != nil {
				d.UID = n.UID
			}
			if n.GID != nil {
				d.GID = n.GID
			}
		}
	}
	return nil
}

func addHooks(s *specs.Spec, hooks []cdiHook) error {
	for _, h := range hooks {
		if s.Hooks == nil {
			s.Hooks = &specs.Hooks{}
		}
		list, ok := map[string]*[]specs.Hook{
			"prestart": &s.Hooks.Prestart, "createRuntime": &s.Hooks.CreateRuntime, "createContainer": &s.Hooks.CreateContainer,
			"startContainer": &s.Hooks.StartContainer, "poststart": &s.Hooks.Poststart, "poststop": &s.Hooks.Poststop,
		}[h.Name]
		if !ok || !filepath.IsAbs(h.Path) {
			return fmt.Errorf("hook %q %q: no such hook, or no absolute path", h.Name, h.Path)
		}
		*list = append(*list, specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout})
	}
	return nil
}
