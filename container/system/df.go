package system

import (
	"errors"
	"fmt"
	"time"

	"github.com/kist-containers/kist/build"
	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/volume"
)

// DfCmd is `kist system df`.
type DfCmd struct {
	Format  string `help:"Format by a template, table or json." placeholder:"TEMPLATE"`
	Verbose bool   `short:"v" help:"Show each object."`
}

// dfRow is a row as docker's templates know it.
type dfRow struct{ Type, TotalCount, Active, Size, Reclaimable string }

var dfTable = ui.Table{
	Headers: map[string]string{"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"},
	Default: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
}

// kind is one kind of objects summed up; sizes in bytes.
type kind struct {
	name              string
	total, active     int
	size, reclaimable int64
}

func (k kind) row() dfRow {
	r := dfRow{k.name, fmt.Sprint(k.total), fmt.Sprint(k.active), ui.Size(k.size), ui.Size(k.reclaimable)}
	if k.size > 0 {
		r.Reclaimable += fmt.Sprintf(" (%d%%)", k.reclaimable*100/k.size)
	}
	return r
}

// Run shows what images, containers, volumes and the build cache take.
func (c *DfCmd) Run(e *container.Engine, s *image.Store, v *volume.Store, b *build.Builder, out *ui.Output) error {
	if c.Verbose && c.Format != "" {
		return errors.New("system df: --verbose and --format contradict each other")
	}
	d, err := measure(e, s, v, b)
	if err != nil {
		return fmt.Errorf("system df: %w", err)
	}
	if c.Verbose {
		return d.details(out)
	}
	var rows []any
	for _, k := range d.kinds() {
		rows = append(rows, k.row())
	}
	return dfTable.Write(out.Out, c.Format, false, rows)
}

// usage is what all objects take.
type usage struct {
	containers []container.Usage
	images     image.Usage
	list       []image.Summary
	volumes    []volume.Entry
	sizes      map[string]int64 // of volumes
	cache      []build.Record
}

func measure(e *container.Engine, s *image.Store, v *volume.Store, b *build.Builder) (d usage, err error) {
	d.sizes = map[string]int64{}
	if d.containers, err = e.Usage(); err != nil {
		return d, err
	}
	if d.images, err = s.Usage(); err != nil {
		return d, err
	}
	if d.list, err = s.List(); err != nil {
		return d, err
	}
	if d.volumes, err = v.Filter(nil); err != nil {
		return d, err
	}
	for _, x := range d.volumes {
		// One that a driver cannot measure counts as nothing.
		d.sizes[x.Name], _ = v.Usage(x.Volume)
	}
	d.cache, err = b.Records()
	return d, err
}

func (d *usage) kinds() []kind {
	images := kind{name: "Images", total: d.images.Images, size: d.images.Disk}
	used := map[string]bool{}
	containers := kind{name: "Containers", total: len(d.containers)}
	for _, c := range d.containers {
		used[c.ImageID] = true
		containers.size += c.Size
		if c.Busy {
			containers.active++
		} else {
			containers.reclaimable += c.Size
		}
	}
	inUse := int64(0)
	for id, u := range d.images.PerImage {
		if used[id] {
			images.active++
			inUse += u.Unique
		}
	}
	volumes := kind{name: "Local Volumes", total: len(d.volumes)}
	for _, v := range d.volumes {
		volumes.size += d.sizes[v.Name]
		if len(v.Holders) > 0 {
			volumes.active++
		} else {
			volumes.reclaimable += d.sizes[v.Name]
		}
	}
	cache := kind{name: "Build Cache", total: len(d.cache)}
	counted := map[string]bool{}
	for _, r := range d.cache {
		switch n, unowned := d.images.Unowned[r.ChainID]; {
		case r.Kind == "mount":
			cache.size += r.Size
		case unowned && !counted[r.ChainID]:
			// What images have too is theirs.
			counted[r.ChainID] = true
			cache.size += n
			images.size -= n
		}
	}
	cache.reclaimable = cache.size
	// docker: all but what only images in use have.
	images.reclaimable = images.size - inUse
	return []kind{images, containers, volumes, cache}
}

// details lists each object, as docker's -v does.
func (d *usage) details(out *ui.Output) error {
	out.Print("Images space usage:\n")
	images := ui.Table{Headers: map[string]string{"ID": "IMAGE ID", "Name": "IMAGE", "Shared": "SHARED SIZE", "Unique": "UNIQUE SIZE", "Size": "SIZE", "Containers": "CONTAINERS"},
		Default: "{{.Name}}\t{{.ID}}\t{{.Size}}\t{{.Shared}}\t{{.Unique}}\t{{.Containers}}"}
	var rows []any
	for id, u := range d.images.PerImage {
		n := 0
		for _, c := range d.containers {
			if c.ImageID == id {
				n++
			}
		}
		rows = append(rows, map[string]string{"ID": short(id), "Name": d.nameOf(id), "Size": ui.Size(u.Size), "Shared": ui.Size(u.Shared), "Unique": ui.Size(u.Unique), "Containers": fmt.Sprint(n)})
	}
	if err := images.Write(out.Out, "", false, rows); err != nil {
		return err
	}
	out.Print("\nContainers space usage:\n")
	containers := ui.Table{Headers: map[string]string{"ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "Volumes": "LOCAL VOLUMES", "Size": "SIZE", "Created": "CREATED", "Status": "STATUS", "Names": "NAMES"},
		Default: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.Volumes}}\t{{.Size}}\t{{.Created}}\t{{.Status}}\t{{.Names}}"}
	rows = nil
	for _, c := range d.containers {
		rows = append(rows, map[string]string{"ID": short(c.ID), "Image": c.Image, "Command": c.Command, "Volumes": fmt.Sprint(c.Volumes),
			"Size": ui.Size(c.Size), "Created": ui.Duration(time.Since(c.Created)) + " ago", "Status": c.Status, "Names": c.Names})
	}
	if err := containers.Write(out.Out, "", false, rows); err != nil {
		return err
	}
	out.Print("\nLocal Volumes space usage:\n")
	volumes := ui.Table{Headers: map[string]string{"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}, Default: "{{.Name}}\t{{.Links}}\t{{.Size}}"}
	rows = nil
	for _, v := range d.volumes {
		rows = append(rows, map[string]string{"Name": v.Name, "Links": fmt.Sprint(len(v.Holders)), "Size": ui.Size(d.sizes[v.Name])})
	}
	if err := volumes.Write(out.Out, "", false, rows); err != nil {
		return err
	}
	k := d.kinds()[3]
	out.Printf("\nBuild cache usage: %s\n", ui.Size(k.size))
	return nil
}

func (d *usage) nameOf(id string) string {
	for _, i := range d.list {
		if i.ID == id && len(i.Names) > 0 {
			return i.Names[0].Familiar()
		}
	}
	return "<none>"
}

// short is what listings show of an ID.
func short(id string) string {
	if len(id) > 7 && id[:7] == "sha256:" {
		id = id[7:]
	}
	return id[:min(12, len(id))]
}
