package container

import (
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/ui"
	"github.com/kist-containers/kist/volume"
)

const (
	groupContainer = "Containers"
	groupSystem    = "System"
)

// Commands returns the commands of containers.
func Commands() []ui.Command {
	c := func(name, help string, n func() any, aliases ...string) ui.Command {
		return ui.Command{Name: name, Aliases: aliases, Help: help, Group: groupContainer, New: n}
	}
	return []ui.Command{
		c("run", "Create and run a new container from an image", func() any { return newRunCmd() }),
		c("create", "Create a new container", func() any { return new(CreateCmd) }),
		c("start", "Start one or more stopped containers", func() any { return new(StartCmd) }),
		c("init", "Prepare containers up to the point where start lets them go", func() any { return new(InitCmd) }),
		c("stop", "Stop one or more running containers", func() any { return new(StopCmd) }),
		c("restart", "Restart one or more containers", func() any { return new(RestartCmd) }),
		c("kill", "Send a signal to one or more running containers", func() any { return new(KillCmd) }),
		c("rm", "Remove one or more containers", func() any { return new(RmCmd) }),
		c("ps", "List containers", func() any { return new(PsCmd) }),
		c("inspect", "Show all that is known of containers and images", func() any { return new(InspectCmd) }),
		c("logs", "Show the output of a container", func() any { return new(LogsCmd) }),
		c("exec", "Run a program in a running container", func() any { return new(ExecCmd) }),
		c("attach", "Connect to the streams of a running container", func() any { return new(AttachCmd) }),
		c("wait", "Wait for containers to stop, then print their exit codes", func() any { return new(WaitCmd) }),
		c("cp", "Copy files between a container and this host", func() any { return new(CpCmd) }),
		c("diff", "List what changed in a container's files", func() any { return new(DiffCmd) }),
		c("export", "Write a container's files as a tar archive", func() any { return new(ExportCmd) }),
		c("commit", "Make an image of a container's changes", func() any { return new(CommitCmd) }),
		c("rename", "Give a container another name", func() any { return new(RenameCmd) }),
		c("update", "Change limits and restart policy of containers", func() any { return new(UpdateCmd) }),
		c("pause", "Stop all processes of containers from running", func() any { return new(PauseCmd) }),
		c("unpause", "Let the processes of paused containers run", func() any { return new(UnpauseCmd) }),
		c("mount", "Show the files of containers on this host", func() any { return new(MountCmd) }),
		c("unmount", "Undo mount", func() any { return new(UnmountCmd) }, "umount"),
		c("port", "List the published ports of a container", func() any { return new(PortCmd) }),
		c("top", "List the processes of a container", func() any { return new(TopCmd) }),
		c("stats", "Show what containers use, live", func() any { return new(StatsCmd) }),
		{Name: "events", Help: "Show what happens, as it happens", Group: groupSystem, New: func() any { return new(EventsCmd) }},
		{Name: "secret", Help: "Manage secrets", Group: groupContainer, New: func() any { return new(SecretCmds) }},
		c("healthcheck", "Run health checks", func() any { return new(HealthCmds) }),
		c("container", "Manage containers", func() any { return new(Cmds) }),
	}
}

// Cmds is `kist container`.
type Cmds struct {
	Run     RunCmd     `cmd:"" help:"Create and run a new container from an image."`
	Create  CreateCmd  `cmd:"" help:"Create a new container."`
	Start   StartCmd   `cmd:"" help:"Start stopped containers."`
	Init    InitCmd    `cmd:"" help:"Prepare containers up to the point where start lets them go."`
	Stop    StopCmd    `cmd:"" help:"Stop running containers."`
	Restart RestartCmd `cmd:"" help:"Restart containers."`
	Kill    KillCmd    `cmd:"" help:"Send a signal to running containers."`
	Rm      RmCmd      `cmd:"" aliases:"remove" help:"Remove containers."`
	Ls      PsCmd      `cmd:"" aliases:"ps,list" help:"List containers."`
	Inspect InspectCmd `cmd:"" help:"Show all that is known of containers."`
	Logs    LogsCmd    `cmd:"" help:"Show the output of a container."`
	Exec    ExecCmd    `cmd:"" help:"Run a program in a running container."`
	Attach  AttachCmd  `cmd:"" help:"Connect to the streams of a running container."`
	Wait    WaitCmd    `cmd:"" help:"Wait for containers to stop."`
	Cp      CpCmd      `cmd:"" help:"Copy files between a container and this host."`
	Diff    DiffCmd    `cmd:"" help:"List what changed in a container's files."`
	Export  ExportCmd  `cmd:"" help:"Write a container's files as a tar archive."`
	Commit  CommitCmd  `cmd:"" help:"Make an image of a container's changes."`
	Rename  RenameCmd  `cmd:"" help:"Give a container another name."`
	Update  UpdateCmd  `cmd:"" help:"Change limits and restart policy of containers."`
	Pause   PauseCmd   `cmd:"" help:"Stop all processes of containers from running."`
	Unpause UnpauseCmd `cmd:"" help:"Let the processes of paused containers run."`
	Port    PortCmd    `cmd:"" help:"List the published ports of a container."`
	Top     TopCmd     `cmd:"" help:"List the processes of a container."`
	Stats   StatsCmd   `cmd:"" help:"Show what containers use, live."`
	Mount   MountCmd   `cmd:"" help:"Show the files of containers on this host."`
	Unmount UnmountCmd `cmd:"" aliases:"umount" help:"Undo mount."`

	Prune      PruneCmd      `cmd:"" help:"Remove all containers that do not run."`
	Exists     ExistsCmd     `cmd:"" help:"Exit 0 if there is such a container, else 1."`
	Clone      CloneCmd      `cmd:"" help:"Make a container like another one."`
	Runlabel   RunlabelCmd   `cmd:"" help:"Run the command that an image has in a label."`
	Cleanup    CleanupCmd    `cmd:"" help:"Undo what runs of stopped containers left."`
	Checkpoint CheckpointCmd `cmd:"" hidden:"" passthrough:""`
	Restore    CheckpointCmd `cmd:"" hidden:"" passthrough:""`
}

// ImageUses tells the image store who needs what.
func (e *Engine) ImageUses() ([]image.Use, error) {
	list, err := e.all()
	if err != nil {
		return nil, err
	}
	var uses []image.Use
	for _, c := range list {
		if c.ImageID != "" {
			uses = append(uses, image.Use{Holder: c.holderText(), ImageID: c.ImageID, Running: e.Status(c.ID).Busy()})
		}
		for _, m := range c.Mounts {
			if m.ImageID != "" {
				uses = append(uses, image.Use{Holder: c.holderText(), ImageID: m.ImageID, Running: e.Status(c.ID).Busy()})
			}
		}
	}
	return uses, nil
}

// VolumeUses tells the volume store who needs what.
func (e *Engine) VolumeUses() ([]volume.Use, error) {
	list, err := e.all()
	if err != nil {
		return nil, err
	}
	var uses []volume.Use
	for _, c := range list {
		for _, m := range c.Mounts {
			if m.Type == volume.TypeVolume {
				uses = append(uses, volume.Use{Holder: c.holderText(), Volume: m.Source})
			}
		}
	}
	return uses, nil
}

func (c *Config) holderText() string { return "container " + c.Name + " (" + shortID(c.ID) + ")" }
