package build

import (
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/volume"
)

// An Isolation says what RUN steps have more or less than docker's default
// isolation. It is part of their keys; the zero value changes nothing.
type Isolation struct {
	CapAdd, CapDrop []string `json:",omitempty"`
	// Devices are --device, Volumes the host's directories and files.
	Devices []string       `json:",omitempty"`
	Volumes []volume.Mount `json:",omitempty"`
	// Groups are further groups of the user, by name or number.
	Groups []string `json:",omitempty"`
	// DNS, Search and DNSOptions stand for those of resolv.conf where given.
	DNS, Search, DNSOptions []string `json:",omitempty"`
	// HostIPC, HostUTS and HostCgroups share the host's namespaces.
	HostIPC, HostUTS, HostCgroups bool `json:",omitempty"`
	// NoHosts and NoHostname leave the image's own files.
	NoHosts, NoHostname bool `json:",omitempty"`
}

// resolv is base with what --dns and its kin say instead.
func (i *Isolation) resolv(base string) string {
	if len(i.DNS)+len(i.Search)+len(i.DNSOptions) == 0 {
		return base
	}
	var b strings.Builder
	for line := range strings.Lines(base) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "nameserver" && i.DNS != nil || (word == "search" || word == "domain") && i.Search != nil || word == "options" && i.DNSOptions != nil {
			continue
		}
		b.WriteString(line)
	}
	for _, d := range i.DNS {
		b.WriteString("nameserver " + d + "\n")
	}
	if i.Search != nil {
		b.WriteString("search " + strings.Join(i.Search, " ") + "\n")
	}
	if i.DNSOptions != nil {
		b.WriteString("options " + strings.Join(i.DNSOptions, " ") + "\n")
	}
	return b.String()
}

// devices gives the step the host's devices.
func (i *Isolation) devices(spec *specs.Spec, rootless bool) error {
	for _, flag := range i.Devices {
		d, err := container.ParseDevice(flag)
		if err == nil {
			err = container.AddDevice(spec, d, rootless)
		}
		if err != nil {
			return fmt.Errorf("--device %s: %w", flag, err)
		}
	}
	return nil
}

// mounts are those of -v.
func (i *Isolation) mounts() []*runMount {
	var all []*runMount
	for _, v := range i.Volumes {
		st, err := os.Stat(v.Source)
		all = append(all, &runMount{kind: "volume", target: v.Target, host: v.Source, readOnly: v.ReadOnly, isFile: err == nil && !st.IsDir()})
	}
	return all
}

// files are the mount points of what kist writes for the step.
func (i *Isolation) files() []string {
	files := []string{"etc/resolv.conf"}
	if !i.NoHosts {
		files = append(files, "etc/hosts")
	}
	if !i.NoHostname {
		files = append(files, "etc/hostname")
	}
	return files
}
