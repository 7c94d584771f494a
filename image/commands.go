package image

import "github.com/kist-containers/kist/internal/ui"

// Group is the heading of these commands in kist --help.
const Group = "Images"

// Cmds are the subcommands of `kist image` that work on the store.
type Cmds struct {
	Ls      ListCmd    `cmd:"" aliases:"list" help:"List images"`
	Pull    PullCmd    `cmd:"" help:"Download an image from its registry"`
	Push    PushCmd    `cmd:"" help:"Upload an image to a registry"`
	Load    LoadCmd    `cmd:"" help:"Take in images from an archive"`
	Save    SaveCmd    `cmd:"" help:"Write images to an archive"`
	Import  ImportCmd  `cmd:"" help:"Make an image of a root file system's archive"`
	Rm      RmCmd      `cmd:"" aliases:"remove" help:"Remove images"`
	Tag     TagCmd     `cmd:"" help:"Give an image another name"`
	Untag   UntagCmd   `cmd:"" help:"Take names away from an image"`
	History HistoryCmd `cmd:"" help:"Show how an image was made"`
	Diff    DiffCmd    `cmd:"" help:"List what an image's last layer changed, or another image"`
	Inspect InspectCmd `cmd:"" help:"Describe images as JSON"`
	Tree    TreeCmd    `cmd:"" help:"Show layers and the images that share them"`
	Prune   PruneCmd   `cmd:"" help:"Remove unused images"`
	Exists  ExistsCmd  `cmd:"" help:"Tell by the exit status whether an image is there"`
	Mount   MountCmd   `cmd:"" help:"Mount images read-only and print where"`
	Unmount UnmountCmd `cmd:"" aliases:"umount" help:"Unmount images"`
	Copy    CopyCmd    `cmd:"" aliases:"cp" help:"Copy an image between registries, archives and directories"`
	Scp     ScpCmd     `cmd:"" help:"Send an image to another host or fetch it, by ssh"`
	Search  SearchCmd  `cmd:"" help:"Search a registry"`
}

// Commands returns the commands of this package, but for the group `image`: its
// build is another package's, which therefore has the group.
func Commands() []ui.Command {
	return []ui.Command{
		{Name: "images", Group: Group, Help: "List images", New: func() any { return new(ListCmd) }},
		{Name: "pull", Group: Group, Help: "Download an image from its registry", New: func() any { return new(PullCmd) }},
		{Name: "push", Group: Group, Help: "Upload an image to a registry", New: func() any { return new(PushCmd) }},
		{Name: "load", Group: Group, Help: "Take in images from an archive", New: func() any { return new(LoadCmd) }},
		{Name: "save", Group: Group, Help: "Write images to an archive", New: func() any { return new(SaveCmd) }},
		{Name: "import", Group: Group, Help: "Make an image of a root file system's archive", New: func() any { return new(ImportCmd) }},
		{Name: "rmi", Group: Group, Help: "Remove images", New: func() any { return new(RmCmd) }},
		{Name: "tag", Group: Group, Help: "Give an image another name", New: func() any { return new(TagCmd) }},
		{Name: "untag", Group: Group, Help: "Take names away from an image", New: func() any { return new(UntagCmd) }},
		{Name: "history", Group: Group, Help: "Show how an image was made", New: func() any { return new(HistoryCmd) }},
		{Name: "search", Group: Group, Help: "Search a registry", New: func() any { return new(SearchCmd) }},
		{Name: "login", Group: Group, Help: "Log in to a registry", New: func() any { return new(LoginCmd) }},
		{Name: "logout", Group: Group, Help: "Forget a registry's credentials", New: func() any { return new(LogoutCmd) }},
		{Name: "manifest", Group: Group, Help: "Manage lists of images for several platforms", New: func() any { return new(ManifestCmds) }},
	}
}
