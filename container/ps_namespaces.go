package container

import (
	"fmt"
	"os"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// namespacesRow is a row of ps --ns: the numbers of a container's namespaces, as
// in /proc/PID/ns; see namespaces(7).
type namespacesRow struct {
	ID, Names                               string
	PID                                     int
	Cgroup, IPC, Mnt, Net, PIDNS, User, UTS string
}

func namespaceTable(noHeading bool) ui.Table {
	return ui.Table{
		Headers: map[string]string{
			"ID": "CONTAINER ID", "Names": "NAMES", "PID": "PID", "Cgroup": "CGROUPNS", "IPC": "IPC", "Mnt": "MNT",
			"Net": "NET", "PIDNS": "PIDNS", "User": "USERNS", "UTS": "UTS",
		},
		Default:   "{{.ID}}\t{{.Names}}\t{{.PID}}\t{{.Cgroup}}\t{{.IPC}}\t{{.Mnt}}\t{{.Net}}\t{{.PIDNS}}\t{{.User}}\t{{.UTS}}",
		Quiet:     "{{.ID}}",
		NoHeading: noHeading,
	}
}

func namespaceRows(list []listed, long bool) []any {
	rows := make([]any, len(list))
	for i, l := range list {
		r := namespacesRow{ID: l.ID, Names: l.Name}
		if !long {
			r.ID = shortID(l.ID)
		}
		if l.Live() {
			r.PID = l.Pid
			for file, to := range map[string]*string{
				"cgroup": &r.Cgroup, "ipc": &r.IPC, "mnt": &r.Mnt, "net": &r.Net, "pid": &r.PIDNS, "user": &r.User, "uts": &r.UTS,
			} {
				*to = namespaceNumber(l.Pid, file)
			}
		}
		rows[i] = r
	}
	return rows
}

// namespaceNumber is the N of "net:[N]", or "" where it cannot be read.
func namespaceNumber(pid int, file string) string {
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, file))
	if err != nil {
		return ""
	}
	_, number, _ := strings.Cut(link, ":")
	return strings.Trim(number, "[]")
}
