package container

import (
	"cmp"
	"fmt"
	"io/fs"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// psRow is a row as docker's templates know it.
type psRow struct {
	Command, CreatedAt, ID, Image, Labels, LocalVolumes, Mounts, Names, Networks string
	Ports, RunningFor, Size, State, Status                                       string
	labels                                                                       map[string]string
	created                                                                      time.Time
	bytes                                                                        int64
}

// Label is the value of one label, for {{.Label "key"}}.
func (r psRow) Label(key string) string { return r.labels[key] }

var psTable = ui.Table{
	Headers: map[string]string{
		"ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "RunningFor": "CREATED", "CreatedAt": "CREATED AT",
		"Status": "STATUS", "State": "STATE", "Ports": "PORTS", "Names": "NAMES", "Size": "SIZE", "Labels": "LABELS",
		"Mounts": "MOUNTS", "Networks": "NETWORKS", "LocalVolumes": "LOCAL VOLUMES",
	},
	Default: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
	Quiet:   "{{.ID}}",
}

func (e *Engine) row(l listed, now time.Time, long, size bool) psRow {
	r := psRow{
		ID: l.ID, Image: l.Image, Command: strconv.Quote(commandText(l.Args())),
		CreatedAt: l.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), RunningFor: ui.Duration(now.Sub(l.Created)) + " ago",
		Names: l.Name, State: l.Word, Status: l.Status.Text(now), labels: l.Labels, Networks: networkNames(l.Config),
		created: l.Created,
	}
	if !long {
		r.ID = shortID(l.ID)
		r.Command = strconv.Quote(ui.Ellipsis(commandText(l.Args()), 18))
	}
	var pairs []string
	for k, v := range l.Labels {
		pairs = append(pairs, k+"="+v)
	}
	sort.Strings(pairs)
	r.Labels = strings.Join(pairs, ",")
	var mounts []string
	local := 0
	for _, m := range l.Mounts {
		name := m.Source
		if m.Type == "volume" {
			local++
		}
		if !long {
			name = ui.Ellipsis(name, 15)
		}
		mounts = append(mounts, name)
	}
	r.Mounts, r.LocalVolumes = strings.Join(mounts, ","), strconv.Itoa(local)
	if l.Busy() {
		r.Ports = portsColumn(e.shownPorts(l.Config))
	}
	if size {
		r.bytes = treeSize(e.dataDir(l.ID, upperDir))
		r.Size = e.sizeText(l.Config, r.bytes)
	}
	return r
}

// commandText is docker's way to show a command: an argument with a blank in it
// stands in quotes.
func commandText(args []string) string {
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = a
		if i > 0 && strings.Contains(a, " ") {
			shown[i] = "'" + a + "'"
		}
	}
	return strings.Join(shown, " ")
}

func networkNames(c *Config) string {
	if len(c.Network.Networks) == 0 {
		return c.Network.Mode
	}
	var names []string
	for _, n := range c.Network.Networks {
		names = append(names, n.Network)
	}
	return strings.Join(names, ",")
}

// sizeText is docker's SIZE: what the container wrote, and with its image.
func (e *Engine) sizeText(c *Config, written int64) string {
	total := written
	if img, err := e.Images.Resolve(c.ImageID); err == nil {
		total += img.Size
	}
	return fmt.Sprintf("%s (virtual %s)", ui.Size(written), ui.Size(total))
}

// treeSize adds up the sizes of the files below dir.
func treeSize(dir string) (size int64) {
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				size += info.Size()
			}
		}
		return nil
	})
	return size
}

// compare orders two rows by the key of --sort.
func (r psRow) compare(o psRow, key string) int {
	switch key {
	case "command":
		return cmp.Compare(r.Command, o.Command)
	case "id":
		return cmp.Compare(r.ID, o.ID)
	case "image":
		return cmp.Compare(r.Image, o.Image)
	case "names":
		return cmp.Compare(r.Names, o.Names)
	case "size":
		return cmp.Compare(r.bytes, o.bytes)
	case "status":
		return cmp.Compare(r.Status, o.Status)
	}
	return r.created.Compare(o.created) // created, runningfor
}
