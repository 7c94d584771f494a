package build

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/kist-containers/kist/internal/sys"
)

// An identity is who owns files or runs a command.
type identity struct {
	uid, gid int
	// groups are the supplementary groups of a user that was looked up.
	groups []int
	home   string
	known  bool // there is an entry in passwd
}

// maxAccounts bounds what is read of an image's passwd and group.
const maxAccounts = 4 << 20

// lookup finds user[:group] in the root file system. A string of digits is a
// number, never a name. Without a group, a user with an entry has its primary
// one; bare is the group of a number without entry. No user is number 0.
func lookup(root *os.File, spec string, bare func(uid int) int) (identity, error) {
	user, group, withGroup := strings.Cut(spec, ":")
	user = cmpOr(user, "0")
	var id identity
	accounts, err := readAccounts(root, "/etc/passwd")
	if err != nil {
		return id, err
	}
	name, err := id.user(user, accounts)
	if err != nil {
		return id, err
	}
	if !id.known {
		id.gid = bare(id.uid)
	}
	groups, err := readAccounts(root, "/etc/group")
	if err != nil {
		return id, err
	}
	if withGroup && group != "" {
		id.gid, err = groupID(group, groups)
		return id, err
	}
	for _, g := range groups {
		if n, ok := number(field(g, 2)); ok && name != "" && contains(field(g, 3), name) {
			id.groups = append(id.groups, n)
		}
	}
	return id, nil
}

// user fills in the user's entry and returns its name, "" without an entry.
func (id *identity) user(user string, accounts [][]string) (string, error) {
	n, isNumber := number(user)
	if !isNumber && allDigits(user) {
		return "", fmt.Errorf("user %s: not in 0-4294967294", user)
	}
	for _, a := range accounts {
		uid, ok := number(field(a, 2))
		gid, ok2 := number(field(a, 3))
		if ok && ok2 && (isNumber && uid == n || !isNumber && a[0] == user) {
			id.uid, id.gid, id.home, id.known = uid, gid, field(a, 5), true
			return a[0], nil
		}
	}
	if !isNumber && user != "root" {
		return "", fmt.Errorf("user %s: not in the image's /etc/passwd", user)
	}
	id.uid = n
	return "", nil
}

// join adds groups of the image, by name or number.
func (id *identity) join(root *os.File, names []string) error {
	if len(names) == 0 {
		return nil
	}
	groups, err := readAccounts(root, "/etc/group")
	for _, name := range names {
		gid, err := groupID(name, groups)
		if err != nil {
			return err
		}
		id.groups = append(id.groups, gid)
	}
	return err
}

func groupID(group string, groups [][]string) (int, error) {
	if n, ok := number(group); ok {
		return n, nil
	}
	for _, g := range groups {
		if n, ok := number(field(g, 2)); ok && g[0] == group {
			return n, nil
		}
	}
	if group == "root" {
		return 0, nil
	}
	return 0, fmt.Errorf("group %s: not in the image's /etc/group", group)
}

func contains(list, name string) bool {
	for n := range strings.SplitSeq(list, ",") {
		if n == name {
			return true
		}
	}
	return false
}

func field(fields []string, i int) string {
	if i < len(fields) {
		return fields[i]
	}
	return ""
}

// maxID is the greatest uid: the one after it means "unchanged".
const maxID = 1<<32 - 2

func number(s string) (int, bool) {
	if !allDigits(s) {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return int(n), err == nil && n <= maxID
}

func allDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// readAccounts reads a file of colon-separated lines in root: a regular one
// only, so that neither a FIFO nor a device holds the build up. A missing file
// is empty.
func readAccounts(root *os.File, path string) ([][]string, error) {
	f, err := sys.OpenRegular(root, path)
	if notFound(err) || errors.Is(err, sys.ErrNotRegular) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var entries [][]string
	lines := bufio.NewScanner(io.LimitReader(f, maxAccounts))
	for lines.Scan() {
		if fields := strings.Split(lines.Text(), ":"); len(fields) >= 3 {
			entries = append(entries, fields)
		}
	}
	return entries, nil // a line too long for the scanner ends the list
}
