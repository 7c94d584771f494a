package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kist-containers/kist/internal/state"
)

// Check returns a line for each sandbox whose owner is gone, and with it the
// directory that Setup wrote the sandbox's files to. repair undoes
// them, and removes temporary files.
func (m *Manager) Check(ctx context.Context, repair bool) ([]string, error) {
	sandboxes, err := m.sandboxes()
	if err != nil {
		return nil, err
	}
	var found []string
	var errs []error
	for _, s := range sandboxes {
		if _, err := os.Stat(s.Dir); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		found = append(found, fmt.Sprintf("sandbox %s of %s: nobody has it", s.ID[:min(12, len(s.ID))], s.Name))
		if repair {
			errs = append(errs, m.Teardown(ctx, s.ID))
		}
	}
	for _, dir := range []string{filepath.Join(m.roots.Data, "network"), filepath.Join(m.roots.Run, "network")} {
		files, err := state.Sweep(dir, repair)
		found, errs = append(found, files...), append(errs, err)
	}
	return found, errors.Join(errs...)
}
