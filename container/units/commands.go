package units

import "github.com/kist-containers/kist/internal/ui"

// Commands returns the commands around systemd.
func Commands() []ui.Command {
	c := func(name, help string, n func() any) ui.Command {
		return ui.Command{Name: name, Help: help, Group: "systemd", New: n}
	}
	return []ui.Command{
		c("quadlet", "Manage unit files that describe containers", func() any { return new(QuadletCmds) }),
		c("generate", "Write a systemd unit for a container", func() any { return new(GenerateCmds) }),
		c("auto-update", "Restart units whose image has changed", func() any { return new(AutoUpdateCmd) }),
	}
}

// QuadletCmds is `kist quadlet`.
type QuadletCmds struct {
	Install QuadletInstallCmd `cmd:"" help:"Copy quadlet files into place."`
	List    QuadletListCmd    `cmd:"" aliases:"ls" help:"List the quadlet files that are there."`
	Print   QuadletPrintCmd   `cmd:"" help:"Print a quadlet file, or the service that it makes."`
	Rm      QuadletRmCmd      `cmd:"" help:"Remove quadlet files."`
}
