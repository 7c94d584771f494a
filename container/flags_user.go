package container

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kist-containers/kist/volume"
)

// accountFlags are podman's on /etc/passwd and /etc/group. docker leaves both
// files alone, and so does kist without any of these.
type accountFlags struct {
	Hostuser    []string `sep:"none" help:"Add an account of this machine to /etc/passwd." placeholder:"USER"`
	Passwd      *bool    `help:"Add a line for the user to /etc/passwd and /etc/group, if they lack one."`
	PasswdEntry string   `help:"The line to add: $$USERNAME:*:$$UID:$$GID:$$NAME:$$HOME:/bin/sh" placeholder:"TEMPLATE"`
	GroupEntry  string   `help:"The line to add to /etc/group: $$GROUPNAME:x:$$GID:" placeholder:"TEMPLATE"`
}

// Accounts are what the container's account files get beside the image's.
type Accounts struct {
	// Hosts are whole lines of the host's /etc/passwd.
	Hosts []string `json:"hosts,omitempty"`
	// User adds the container's own user and group by the templates, "" for
	// podman's.
	User bool `json:"user,omitempty"`
	// Caller is the line of the host's /etc/passwd of the user that --userns keep-id
	// keeps.
	Caller string `json:"caller,omitempty"`
	Entry  string `json:"entry,omitempty"`
	Group  string `json:"group,omitempty"`
}

func (f *createFlags) accounts(c *Config) error {
	a := &c.Accounts
	for _, name := range f.Hostuser {
		line, err := hostAccount(name)
		if err != nil {
			return fmt.Errorf("--hostuser %s: %w", name, err)
		}
		a.Hosts = append(a.Hosts, line)
		c.becomeHostUser(strings.Split(line, ":"))
	}
	a.Entry, a.Group = f.PasswdEntry, f.GroupEntry
	given := a.Entry+a.Group != ""
	if given && f.Passwd != nil && !*f.Passwd {
		return errors.New("--passwd=false and --passwd-entry or --group-entry contradict each other")
	}
	if strings.ContainsAny(a.Entry+a.Group, "\n\x00") {
		return errors.New("--passwd-entry, --group-entry: want one line")
	}
	keeps := f.Userns == "keep-id" || strings.HasPrefix(f.Userns, "keep-id:")
	a.User = given || f.Passwd != nil && *f.Passwd || keeps && f.Passwd == nil
	return nil
}

// becomeHostUser resolves -u when it names an account that is being added.
func (c *Config) becomeHostUser(fields []string) {
	name, group, _ := strings.Cut(c.User, ":")
	if name != fields[0] {
		return
	}
	setDefault(&group, fields[3])
	c.User = fields[2] + ":" + group
	c.Env = mergeEnv([]string{"HOME=" + fields[5]}, c.Env)
}

// hostAccount is the line of the host's /etc/passwd of a name or a number.
func hostAccount(name string) (string, error) {
	data, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) >= 7 && (f[0] == name || f[2] == name) {
			return strings.Join(f, ":"), nil
		}
	}
	return "", errors.New("this machine has no such account")
}

// accountFiles shows /etc/passwd and /etc/group with the added lines.
func (m *specMaker) accountFiles() error {
	a := &m.c.Accounts
	if !a.User && len(a.Hosts) == 0 {
		return nil
	}
	passwd, group := strings.Join(a.Hosts, "\n"), ""
	if a.User {
		user, _, err := m.e.user(m.root, m.c.User, m.c.GroupAdd)
		if err != nil {
			return err
		}
		name, title, home := m.ownAccount()
		known := func(path string, id uint32) bool {
			found := false
			eachLine(m.root, path, func(f []string) bool {
				found = len(f) > 2 && f[2] == strconv.Itoa(int(id))
				return !found
			})
			return found
		}
		words := strings.NewReplacer("$USERNAME", name, "$UID", strconv.Itoa(int(user.UID)), "$GID", strconv.Itoa(int(user.GID)),
			"$NAME", title, "$HOME", home, "$GROUPNAME", strconv.Itoa(int(user.GID)))
		if !known("/etc/passwd", user.UID) {
			passwd = strings.TrimPrefix(passwd+"\n"+words.Replace(cmp.Or(a.Entry, "$USERNAME:*:$UID:$GID:$NAME:$HOME:/bin/sh")), "\n")
		}
		if !known("/etc/group", user.GID) {
			group = words.Replace(cmp.Or(a.Group, "$GROUPNAME:x:$GID:"))
		}
	}
	for path, lines := range map[string]string{"/etc/passwd": passwd, "/etc/group": group} {
		if lines == "" {
			continue
		}
		if err := m.appended(path, lines); err != nil {
			return err
		}
	}
	return nil
}

// ownAccount is what podman's line for the container's user says of it: the caller's
// own name, and home if the container has it, where the caller was kept.
func (m *specMaker) ownAccount() (name, title, home string) {
	name, _, _ = strings.Cut(m.c.User, ":")
	title, home = "container user", filepath.Join("/", m.c.WorkingDir)
	f := strings.Split(m.c.Accounts.Caller, ":")
	if len(f) < 7 {
		return name, title, home
	}
	isHome := func(w volume.Mount) bool { return w.Target == f[5] || strings.HasPrefix(f[5], w.Target+"/") }
	if slices.ContainsFunc(m.c.Mounts, isHome) {
		home = f[5]
	}
	return f[0], f[4], home
}

// appended shows a file of the image with lines behind it.
func (m *specMaker) appended(path, lines string) error {
	data, err := imageFile(m.root, path)
	if err != nil {
		return err
	}
	if len(data) > 0 && !bytes.HasSuffix(data, []byte("\n")) {
		data = append(data, '\n')
	}
	return m.ownFile(path, append(data, lines+"\n"...))
}

// ownFile shows data at path of the container.
func (m *specMaker) ownFile(path string, data []byte) error {
	file := m.e.runDir(m.c.ID, filepath.Base(path))
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return err
	}
	m.files[path] = file
	return os.Chmod(file, 0o644) // the mode above is cut by the umask
}

// imageFile reads a small regular file of the image; one that is not there is empty.
func imageFile(root *os.File, path string) ([]byte, error) {
	file, err := openImageFile(root, path)
	if file == nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, mostPasswd))
}
