// Package system is what concerns all domains at once: how much they take, what
// can go, whether they are whole, and what comes back after a boot. It stands above
// them, and only main imports it.
package system

import (
	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/internal/ui"
)

const group = "System"

// Commands returns the commands of the whole system.
func Commands() []ui.Command {
	return []ui.Command{
		{Name: "system", Group: group, Help: "Look at, clean and check everything", New: func() any { return new(Cmds) }},
		{Name: "info", Group: group, Help: "Show facts about kist and this machine", New: func() any { return new(InfoCmd) }},
		{Name: "unshare", Group: group, Help: "Run a program in your user namespace", New: func() any { return new(UnshareCmd) }},
	}
}

// Cmds is `kist system`.
type Cmds struct {
	Df       DfCmd               `cmd:"" help:"Show what is taken on disk."`
	Info     InfoCmd             `cmd:"" help:"Show facts about kist and this machine."`
	Events   container.EventsCmd `cmd:"" help:"Show what happens, as it happens."`
	Prune    PruneCmd            `cmd:"" help:"Remove what nothing uses."`
	Reset    ResetCmd            `cmd:"" help:"Remove everything that there is."`
	Check    CheckCmd            `cmd:"" help:"Look for what crashes left; exit 1 if there is something."`
	Migrate  MigrateCmd          `cmd:"" hidden:"" help:"Nothing to do here: see MigrateCmd."`
	Renumber MigrateCmd          `cmd:"" hidden:"" help:"Nothing to do here: see MigrateCmd."`
	Restore  RestoreCmd          `cmd:"" help:"Start what a reboot ended, as the restart policies say."`
	Install  InstallCmd          `cmd:"" help:"Let systemd restore containers at boot."`
}
