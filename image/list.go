package image

import (
	"slices"
	"time"
)

// A Summary is one image as listings show it.
type Summary struct {
	ID          string
	Names       []Reference
	RepoDigests []Reference
	// Digest is the manifest's.
	Digest  string
	Created time.Time
	Size    int64
	// Index says that it is a list of manifests rather than an image.
	Index bool
}

// List returns all images, newest first. It reads index.json and nothing else.
func (s *Store) List() ([]Summary, error) {
	entries, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	var list []Summary
	at := map[string]int{}
	for _, e := range entries {
		key := e.id()
		if key == "" {
			key = e.Digest.String()
		}
		i, ok := at[key]
		if !ok {
			i = len(list)
			at[key] = i
			list = append(list, Summary{
				ID: key, Digest: e.Digest.String(), Created: e.created(), Size: e.size(), Index: e.MediaType.IsIndex(),
			})
		}
		if r := e.ref(); r.Tag != "" {
			list[i].Names = append(list[i].Names, r)
		}
		if r, err := ParseReference(e.repoDigest()); err == nil && !slices.Contains(list[i].RepoDigests, r) {
			list[i].RepoDigests = append(list[i].RepoDigests, r)
		}
	}
	slices.SortStableFunc(list, func(a, b Summary) int { return b.Created.Compare(a.Created) })
	return list, nil
}

// named are the images that a command line names: with all, every one.
func (s *Store) named(names []string, all bool) ([]string, error) {
	if !all {
		return names, nil
	}
	list, err := s.List()
	for _, img := range list {
		names = append(names, img.ID)
	}
	return names, err
}
