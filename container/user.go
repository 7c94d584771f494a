package container

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/rootless"
	"github.com/kist-containers/kist/internal/sys"
)

// Bounds of what is read of an image's passwd and group files.
const (
	mostPasswd     = 16 << 20 // bytes
	mostPasswdLine = 64 << 10
	highestID      = 1<<32 - 2
)

// account is a line of /etc/passwd.
type account struct {
	name     string
	uid, gid uint32
	home     string
}

// resolveUser turns USER[:GROUP] and --group-add into ids by the container's own
// passwd and group files, which are looked up with root as "/". Groups are those
// of the image's user and those added, never the caller's.
func resolveUser(root *os.File, user string, add []string) (specs.User, string, error) {
	name, group, hasGroup := strings.Cut(user, ":")
	acct, err := findAccount(root, name)
	if err != nil {
		return specs.User{}, "", err
	}
	u := specs.User{UID: acct.uid, GID: acct.gid}
	groups, err := readGroups(root)
	if err != nil {
		return u, "", err
	}
	if hasGroup && group != "" {
		if u.GID, err = groups.find(group); err != nil {
			return u, "", err
		}
	} else if acct.name != "" {
		u.AdditionalGids = groups.of(acct.name)
	}
	for _, g := range add {
		gid, err := groups.find(g)
		if err != nil {
			return u, "", err
		}
		u.AdditionalGids = append(u.AdditionalGids, gid)
	}
	// docker: the primary group is among the supplementary ones.
	if !slices.Contains(u.AdditionalGids, u.GID) {
		u.AdditionalGids = append([]uint32{u.GID}, u.AdditionalGids...)
	}
	return u, acct.home, nil
}

// user is resolveUser where the kernel may deny supplementary groups: a user
// namespace that maps one id has no others to give; see user_namespaces(7).
func (e *Engine) user(root *os.File, user string, add []string) (specs.User, string, error) {
	u, home, err := resolveUser(root, user, add)
	if err != nil || !e.Rootless || !rootless.DeniesGroups() {
		return u, home, err
	}
	if len(add) > 0 {
		return u, home, fmt.Errorf("--group-add needs subordinate group ids: give this user some in /etc/subgid")
	}
	u.AdditionalGids = nil
	return u, home, nil
}

// number reads an id made of digits: such a user is a number, never a name.
func number(s string) (uint32, bool, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > highestID {
		return 0, true, fmt.Errorf("id %s is not in 0-%d", s, uint64(highestID))
	}
	return uint32(n), true, nil
}

func findAccount(root *os.File, name string) (account, error) {
	if name == "" {
		name = "0"
	}
	id, isNumber, err := number(name)
	if err != nil {
		return account{}, fmt.Errorf("user %s: %w", name, err)
	}
	found := account{uid: id, home: "/"}
	ok := isNumber
	err = eachLine(root, "/etc/passwd", func(fields []string) bool {
		if len(fields) < 6 {
			return true
		}
		uid, errU := strconv.ParseUint(fields[2], 10, 32)
		gid, errG := strconv.ParseUint(fields[3], 10, 32)
		if errU != nil || errG != nil || isNumber && uint32(uid) != id || !isNumber && fields[0] != name {
			return true
		}
		found, ok = account{fields[0], uint32(uid), uint32(gid), fields[5]}, true
		return false
	})
	if err != nil {
		return found, err
	}
	if !ok {
		return found, fmt.Errorf("user %s: no such user in the image's /etc/passwd", name)
	}
	if found.home == "" {
		found.home = "/"
	}
	return found, nil
}

type groupList []struct {
	name    string
	gid     uint32
	members []string
}

func readGroups(root *os.File) (groupList, error) {
	var list groupList
	err := eachLine(root, "/etc/group", func(fields []string) bool {
		if len(fields) < 3 {
			return true
		}
		gid, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			return true
		}
		var members []string
		if len(fields) > 3 {
			members = strings.Split(fields[3], ",")
		}
		list = append(list, struct {
			name    string
			gid     uint32
			members []string
		}{fields[0], uint32(gid), members})
		return true
	})
	return list, err
}

func (l groupList) find(name string) (uint32, error) {
	id, isNumber, err := number(name)
	if err != nil || isNumber {
		return id, err
	}
	for _, g := range l {
		if g.name == name {
			return g.gid, nil
		}
	}
	return 0, fmt.Errorf("group %s: no such group in the image's /etc/group", name)
}

func (l groupList) of(user string) []uint32 {
	var gids []uint32
	for _, g := range l {
		if slices.Contains(g.members, user) {
			gids = append(gids, g.gid)
		}
	}
	return gids
}

// eachLine calls f with the fields of each line of a small file of the image
// until it returns false. A file that is not there has no lines.
func eachLine(root *os.File, path string, f func(fields []string) bool) error {
	file, err := openImageFile(root, path)
	if file == nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(io.LimitReader(file, mostPasswd))
	lines.Buffer(make([]byte, 4096), mostPasswdLine)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if !f(strings.Split(line, ":")) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the image's %s: %w", path, err)
	}
	return nil
}

// openImageFile opens a regular file of the image: nil when it is not there.
func openImageFile(root *os.File, path string) (*os.File, error) {
	file, err := sys.OpenRegular(root, path)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil, nil
	case errors.Is(err, sys.ErrNotRegular):
		return nil, fmt.Errorf("the image's %s is not a regular file", path)
	case err != nil:
		return nil, fmt.Errorf("read the image's %s: %w", path, err)
	}
	return file, nil
}
