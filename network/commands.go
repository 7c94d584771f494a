package network

import "github.com/kist-containers/kist/internal/ui"

// Commands returns the commands of networks.
func Commands() []ui.Command { return nil }
