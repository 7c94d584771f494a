package rootless

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
)

// A span maps size ids from inside to outside the namespace.
type span struct{ inside, outside, size uint32 }

// mapIDs gives the namespace of pid its ids: root inside is the user outside,
// and 1… are the user's subordinate ids, when newuidmap and newgidmap and the
// ranges in /etc/subuid and /etc/subgid are there. Otherwise the user's own id
// is the only one. See user_namespaces(7), newuidmap(1).
func mapIDs(pid, uid int) error {
	name := ""
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		name = u.Username
	}
	uids, errU := subordinate("/etc/subuid", name, uid)
	gids, errG := subordinate("/etc/subgid", name, uid)
	if errU == nil && errG == nil && len(uids) > 0 && len(gids) > 0 {
		errTool := errors.Join(
			idTool("newuidmap", pid, uids, uint32(uid)),
			idTool("newgidmap", pid, gids, uint32(os.Getgid())))
		if !errors.Is(errTool, exec.ErrNotFound) {
			return errTool
		}
	}
	return mapSelf(pid, uid)
}

func idTool(tool string, pid int, subordinate []span, self uint32) error {
	path, err := exec.LookPath(tool)
	if err != nil {
		return fmt.Errorf("%s: %w", tool, exec.ErrNotFound)
	}
	args := []string{strconv.Itoa(pid)}
	for _, s := range append([]span{{0, self, 1}}, subordinate...) {
		for _, n := range []uint32{s.inside, s.outside, s.size} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", tool, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// mapSelf maps the one id that needs nobody's leave. The kernel wants setgroups
// denied first; see user_namespaces(7).
func mapSelf(pid, uid int) error {
	for _, f := range []struct{ name, text string }{
		{"setgroups", "deny"},
		{"uid_map", fmt.Sprintf("0 %d 1", uid)},
		{"gid_map", fmt.Sprintf("0 %d 1", os.Getgid())},
	} {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, f.name), []byte(f.text), 0); err != nil {
			return fmt.Errorf("map the user's id: %w", err)
		}
	}
	return nil
}

// subordinate reads the user's ranges of /etc/subuid or /etc/subgid, laid out
// from 1 upwards inside. See subuid(5).
func subordinate(file, name string, uid int) ([]span, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var spans []span
	next := uint32(1)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		start, size, ok := parseRange(lines.Text(), name, uid)
		if !ok {
			continue
		}
		spans = append(spans, span{next, start, size})
		next += size
	}
	return spans, nil
}

// parseRange reads NAME-OR-UID:START:SIZE and reports whether it is this user's.
func parseRange(line, name string, uid int) (start, size uint32, ok bool) {
	fields := strings.Split(strings.TrimSpace(line), ":")
	if len(fields) != 3 || fields[0] == "" || fields[0] != name && fields[0] != strconv.Itoa(uid) {
		return 0, 0, false
	}
	a, errA := strconv.ParseUint(fields[1], 10, 32)
	b, errB := strconv.ParseUint(fields[2], 10, 32)
	if errA != nil || errB != nil || b == 0 || a+b > 1<<32-1 {
		return 0, 0, false
	}
	return uint32(a), uint32(b), true
}
