package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kist-containers/kist/internal/ui"
)

// Inspected is an image as docker's inspect shows it.
type Inspected struct {
	ID            string `json:"Id"`
	RepoTags      []string
	RepoDigests   []string
	Parent        string
	Comment       string
	Created       string
	DockerVersion string
	Author        string
	Config        json.RawMessage
	Architecture  string
	Variant       string `json:",omitempty"`
	Os            string
	OsVersion     string `json:",omitempty"`
	Size          int64
	GraphDriver   InspectedDriver
	RootFS        InspectedRoot
	Metadata      struct{ LastTagTime time.Time }
	Descriptor    v1.Descriptor `json:"Descriptor"`
}

// InspectedDriver says where the layers are, in the form of docker's overlay2.
type InspectedDriver struct {
	Data map[string]string
	Name string
}

// InspectedRoot lists the diffIDs.
type InspectedRoot struct {
	Type   string
	Layers []string
}

// Inspect returns docker's description of img.
func (i *Image) Inspect() Inspected {
	in := Inspected{
		ID: i.ID, RepoTags: nonNil(i.Names), RepoDigests: nonNil(i.RepoDigests),
		DockerVersion: i.Config.DockerVersion, Author: i.Config.Author,
		Config: i.rawSection("config"), Architecture: i.Config.Architecture, Variant: i.Config.Variant,
		Os: i.Config.OS, OsVersion: i.Config.OSVersion, Size: i.Size,
		GraphDriver: i.graphDriver(), RootFS: InspectedRoot{Type: "layers"}, Descriptor: i.Manifest,
	}
	in.Descriptor.Annotations = nil
	if !i.Created.IsZero() {
		in.Created = i.Created.UTC().Format(time.RFC3339Nano)
	}
	if n := len(i.Config.History); n > 0 {
		in.Comment = i.Config.History[n-1].Comment
	}
	for _, l := range i.Layers {
		in.RootFS.Layers = append(in.RootFS.Layers, l.DiffID)
	}
	return in
}

// rawSection is a part of the configuration as it came, so that inspect shows
// fields that v1.ConfigFile does not have.
func (i *Image) rawSection(key string) json.RawMessage {
	var doc map[string]json.RawMessage
	if json.Unmarshal(i.RawConfig, &doc) != nil || len(doc[key]) == 0 {
		return json.RawMessage("{}")
	}
	return unescape(doc[key])
}

// unescape undoes what encoding/json does to <, > and & for the sake of browsers,
// in a document that is shown to a person.
func unescape(doc json.RawMessage) json.RawMessage {
	var out []byte
	for i := 0; i < len(doc); i++ {
		if doc[i] != '\\' {
			out = append(out, doc[i])
			continue
		}
		escape := string(doc[i:min(i+6, len(doc))])
		if c := map[string]byte{`\u003c`: '<', `\u003e`: '>', `\u0026`: '&'}[escape]; c != 0 {
			out = append(out, c)
			i += len(escape) - 1
			continue
		}
		out = append(out, doc[i:min(i+2, len(doc))]...)
		i++
	}
	return out
}

func (i *Image) graphDriver() InspectedDriver {
	d := InspectedDriver{Name: "overlay2", Data: map[string]string{}}
	lower := ""
	for n, dir := range i.LowerDirs() {
		switch {
		case n == 0:
			d.Data["UpperDir"] = dir
		case lower == "":
			lower = dir
		default:
			lower += ":" + dir
		}
	}
	if lower != "" {
		d.Data["LowerDir"] = lower
	}
	return d
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// InspectCmd is `kist image inspect`.
type InspectCmd struct {
	Format   string   `short:"f" help:"Template or json." placeholder:"TEMPLATE"`
	Platform string   `help:"The image of a list for this platform." placeholder:"PLATFORM"`
	Image    []string `arg:"" help:"Name or ID."`
}

// Run prints all images that are there, then the errors for the others.
func (c *InspectCmd) Run(s *Store, out *ui.Output) error {
	var objects []any
	var errs []error
	for _, name := range c.Image {
		img, err := s.ResolvePlatform(name, c.Platform)
		if err != nil {
			errs = append(errs, fmt.Errorf("inspect: %w", err))
			continue
		}
		objects = append(objects, img.Inspect())
	}
	if len(objects) == 0 && c.Format != "" {
		return errors.Join(errs...)
	}
	errs = append(errs, ui.Inspect(out.Out, c.Format, objects))
	return errors.Join(errs...)
}
