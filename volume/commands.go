package volume

import "github.com/kist-containers/kist/internal/ui"

// Commands returns the commands of this package.
func Commands() []ui.Command { return nil }
