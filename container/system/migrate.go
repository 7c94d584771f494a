package system

import (
	"errors"

	"github.com/kist-containers/kist/internal/ui"
)

// MigrateCmd is podman's `system migrate` and `system renumber`, which bring a
// database and its locks up to date. kist has neither: each file says its version,
// and a container's lock is named after it.
type MigrateCmd struct {
	MigrateDB  bool   `name:"migrate-db" hidden:""`
	NewRuntime string `hidden:""`
}

// Run has nothing to do.
func (c *MigrateCmd) Run() error {
	if c.NewRuntime != "" {
		return ui.Hint(errors.New("system migrate --new-runtime: a container keeps the runtime that it was made with"),
			"kist create --runtime %s --replace --name NAME …", c.NewRuntime)
	}
	return nil
}
