package units

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kist-containers/kist/internal/state"
)

// The generators' names: systemd runs what it finds by them in its directories of
// generators; see systemd.generator(7).
const (
	SystemGenerator = "kist-system-generator"
	UserGenerator   = "kist-user-generator"
)

// dirsVariable replaces the directories of quadlet files.
const dirsVariable = "QUADLET_UNIT_DIRS"

// A place is where quadlet files are looked for, and for whom.
type place struct {
	User   bool
	UID    int
	Getenv func(string) string
}

// dirs are the directories, those that win first. Podman's are among them where
// podman does not look after them itself.
func (p place) dirs() []string {
	if list := p.Getenv(dirsVariable); list != "" {
		return filepath.SplitList(list)
	}
	var dirs []string
	for _, name := range []string{"kist", "containers"} {
		if name == "containers" && podmanGenerates() {
			continue
		}
		if !p.User {
			dirs = append(dirs, "/run/"+name+"/systemd", "/etc/"+name+"/systemd", "/usr/share/"+name+"/systemd")
			continue
		}
		config := cmp.Or(p.Getenv("XDG_CONFIG_HOME"), filepath.Join(p.Getenv("HOME"), ".config"))
		dirs = append(dirs, filepath.Join(config, name, "systemd"), fmt.Sprintf("/etc/%s/systemd/users/%d", name, p.UID), "/etc/"+name+"/systemd/users")
	}
	return dirs
}

func podmanGenerates() bool {
	for _, dir := range []string{"/usr/lib/systemd", "/usr/local/lib/systemd", "/etc/systemd"} {
		if exists(dir + "/system-generators/podman-system-generator") {
			return true
		}
	}
	return false
}

// installDir is where a user's own quadlet files go.
func (p place) installDir() string {
	dirs := p.dirs()
	if !p.User && len(dirs) > 1 {
		return dirs[1] // the first is gone after a reboot
	}
	return dirs[0]
}

// load reads all quadlet files. Of two of a name the first directory's is taken.
// Errors are one for each file that cannot be used.
func (p place) load() (map[string]*unit, []error) {
	found := map[string]*unit{}
	var errs []error
	for _, dir := range p.dirs() {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				if !errors.Is(err, fs.ErrNotExist) {
					errs = append(errs, err)
				}
			case d.IsDir():
				// Users' files are not root's, and a NAME.container.d belongs to its file.
				if path != dir && (!p.User && path == filepath.Join(dir, "users") || strings.HasSuffix(path, ".d")) {
					return fs.SkipDir
				}
			case isQuadlet(path) && found[d.Name()] == nil:
				u, err := p.read(path)
				if err != nil {
					errs = append(errs, err)
				} else {
					found[d.Name()] = u
				}
			}
			return nil
		})
	}
	return found, errs
}

func isQuadlet(path string) bool {
	ext := filepath.Ext(path)
	return noKind[ext] != "" || slices.ContainsFunc(kinds(), func(k *kind) bool { return k.ext == ext })
}

// read reads a quadlet file and what is beside it in NAME.d/*.conf.
func (p place) read(path string) (*unit, error) {
	f, err := readUnit(path)
	if err != nil {
		return nil, err
	}
	for _, part := range p.parts(filepath.Base(path)) {
		more, err := readUnit(part)
		if err != nil {
			return nil, err
		}
		for _, s := range more.Sections {
			to := f.section(s.Name)
			to.Entries = append(to.Entries, s.Entries...)
		}
	}
	return newUnit(f)
}

func readUnit(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > mostUnit {
		return nil, fmt.Errorf("%s: no file of at most %d bytes", path, mostUnit)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseUnit(path, data)
}

// parts are the drop-ins of a file: of its kind, of each prefix of its name that
// ends with a hyphen, and its own, each name once; see systemd.unit(5).
func (p place) parts(name string) []string {
	ext := filepath.Ext(name)
	base := strings.TrimSuffix(name, ext)
	kinds := []string{ext[1:] + ".d"}
	for i, c := range base {
		if c == '-' && i < len(base)-1 {
			kinds = append(kinds, base[:i+1]+ext+".d")
		}
	}
	kinds = append(kinds, name+".d")
	byName := map[string]string{}
	for _, sub := range kinds {
		for _, dir := range slices.Backward(p.dirs()) {
			files, _ := filepath.Glob(filepath.Join(dir, sub, "*.conf"))
			for _, f := range files {
				byName[filepath.Base(f)] = f
			}
		}
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		list = append(list, byName[name])
	}
	return list
}

// service converts one of all units.
func (p place) service(u *unit, all map[string]*unit) (*File, []string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	uid := p.UID
	if !p.User {
		uid = 0
	}
	m := &maker{unit: u, kist: []string{self}, user: p.User, units: all, dataRoot: state.DefaultRoots(uid, p.Getenv).Data}
	f, err := m.make()
	if err != nil {
		err = fmt.Errorf("%s: %w", u.Path, err)
	}
	return f, m.warnings, err
}

// Generate writes the services of all quadlet files into dir, with the links that
// their [Install] sections ask for. What cannot be used is left out, an error for
// each.
func (p place) generate(dir string) error {
	all, errs := p.load()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		u := all[name]
		f, warnings, err := p.service(u, all)
		for _, w := range warnings {
			fmt.Fprintf(os.Stderr, "kist: warning: %s: %s\n", u.Path, w)
		}
		if err == nil {
			err = install(dir, u.service, f)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// install writes a service and its links.
func install(dir, service string, f *File) error {
	name := service + ".service"
	if name != filepath.Base(name) {
		return fmt.Errorf("%s: ServiceName= is no name of a service", f.Path)
	}
	text := "# made by " + SystemGenerator + "\n" + f.Text()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		return err
	}
	target := "../" + name
	if base, _, template := strings.Cut(service, "@"); template && strings.HasSuffix(service, "@") {
		// Of a template only an instance can be wanted.
		instance := f.last("Install", "DefaultInstance")
		if instance == "" {
			return nil
		}
		name = base + "@" + instance + ".service"
	}
	var errs []error
	for key, sub := range map[string]string{"WantedBy": "wants", "RequiredBy": "requires", "UpheldBy": "upholds"} {
		for _, by := range f.all("Install", key) {
			for _, unit := range strings.Fields(by) {
				errs = append(errs, link(target, filepath.Join(dir, filepath.Base(unit)+"."+sub, name)))
			}
		}
	}
	for _, aliases := range f.all("Install", "Alias") {
		for _, alias := range strings.Fields(aliases) {
			errs = append(errs, link(strings.TrimPrefix(target, "../"), filepath.Join(dir, filepath.Base(alias))))
		}
	}
	return errors.Join(errs...)
}

func link(target, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	err := os.Symlink(target, path)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
