package volume

import "github.com/kist-containers/kist/internal/ui"

// Cmds are the subcommands of `kist volume`.
type Cmds struct {
	Create  CreateCmd  `cmd:"" help:"Make a volume."`
	Ls      ListCmd    `cmd:"" aliases:"list" help:"List volumes."`
	Inspect InspectCmd `cmd:"" help:"Describe volumes as JSON."`
	Rm      RmCmd      `cmd:"" aliases:"remove" help:"Remove volumes and all in them."`
	Prune   PruneCmd   `cmd:"" help:"Remove volumes that no container uses."`
	Import  ImportCmd  `cmd:"" help:"Unpack a tar archive into a volume."`
	Export  ExportCmd  `cmd:"" help:"Write what is in a volume as a tar archive."`
	Exists  ExistsCmd  `cmd:"" help:"Tell by the exit status whether a volume is there."`
	Reload  ReloadCmd  `cmd:"" help:"Learn from plugins which volumes they have."`
	Mount   MountCmd   `cmd:"" help:"Mount volumes on this host and print where."`
	Unmount UnmountCmd `cmd:"" aliases:"umount" help:"Undo mount."`
}

// Commands returns the commands of this package.
func Commands() []ui.Command {
	return []ui.Command{
		{Name: "volume", Group: "Volumes", Help: "Manage volumes.", New: func() any { return new(Cmds) }},
	}
}
