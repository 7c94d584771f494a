package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/ui"
)

// RunlabelCmd is `kist container runlabel`.
type RunlabelCmd struct {
	image.RegistryFlags
	Display bool     `help:"Print the command and run nothing."`
	Name    string   `short:"n" help:"Name of the container, for $NAME (that of the image)." placeholder:"NAME"`
	Quiet   bool     `short:"q" help:"Do not print the command."`
	Replace bool     `help:"Remove a container of that name first."`
	Yes     bool     `short:"y" help:"Do not ask whether to run it."`
	Label   string   `arg:"" help:"Label."`
	Image   string   `arg:"" help:"Image."`
	Args    []string `arg:"" optional:"" passthrough:"" help:"Arguments after the command."`
}

func (*RunlabelCmd) Help() string {
	return `  kist container runlabel --display install IMAGE     what the label says
  kist container runlabel -n web run IMAGE            and do it, after a question`
}

// HandlesSignals says that signals are for the command.
func (c *RunlabelCmd) HandlesSignals() {}

// Run runs the command in the label. It asks, because an image's author decides
// what of this host the command gives away.
func (c *RunlabelCmd) Run(ctx context.Context, e *Engine, out *ui.Output) error {
	argv, name, err := c.command(ctx, e, out)
	if err != nil {
		return ui.WithCode(failedCode, fmt.Errorf("runlabel %s %s: %w", c.Label, c.Image, err))
	}
	line := ui.Escape("command: kist " + strings.Join(argv, " "))
	if c.Display {
		out.Print(line)
		return nil
	}
	if !c.Quiet {
		out.Notef("%s", line)
	}
	if !c.Yes && !out.Confirm("The image "+c.Image+" wants this command to run on this host.") {
		return ui.Exit(1)
	}
	if c.Replace {
		if err := e.replace(ctx, name); err != nil {
			return fmt.Errorf("runlabel %s %s: %w", c.Label, c.Image, err)
		}
	}
	return c.exec(ctx, e, argv, name, out)
}

// exec runs kist with the same roots.
func (c *RunlabelCmd) exec(ctx context.Context, e *Engine, argv []string, name string, out *ui.Output) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", argv...)
	cmd.Args[0] = "kist"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = out.In, out.Out, out.Err
	cmd.Env = append(os.Environ(), "KIST_ROOT="+e.Roots.Data, "KIST_RUNROOT="+e.Roots.Run, "KIST_CGROUP_PARENT="+e.CgroupParent,
		"NAME="+name, "IMAGE="+c.Image)
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return ui.Exit(exit.ExitCode())
	}
	return err
}

// command reads the label and returns kist's arguments and the container's name.
func (c *RunlabelCmd) command(ctx context.Context, e *Engine, out *ui.Output) (argv []string, name string, err error) {
	progress := out.Progress()
	defer progress.Close()
	img, err := e.Images.Ensure(ctx, c.Image, "missing", image.PullOptions{Progress: progress, Registry: c.Config()})
	if err != nil {
		return nil, "", err
	}
	text := img.Config.Config.Labels[c.Label]
	if text == "" {
		return nil, "", ui.Hint(errors.New("the image has no such label"), "kist image inspect -f '{{json .Config.Labels}}' %s", c.Image)
	}
	name = c.Name
	if name == "" {
		name, _, _ = strings.Cut(path.Base(c.Image), ":")
		name, _, _ = strings.Cut(name, "@")
	}
	argv, err = labelWords(text, name, c.Image)
	return append(argv, c.Args...), name, err
}

// labelWords reads a label's command line, which must be one of docker's, podman's
// or kist's, and returns its arguments.
func labelWords(text, name, ref string) ([]string, error) {
	words, err := shell.NewLex('\\').ProcessWords(text, shell.EnvsFromSlice([]string{"NAME=" + name, "IMAGE=" + ref}))
	if err != nil {
		return nil, err
	}
	if len(words) == 0 || !slices.Contains([]string{"docker", "podman", "kist"}, path.Base(words[0])) {
		return nil, fmt.Errorf("its command is none of docker's, podman's or kist's: %s", text)
	}
	for i, w := range words {
		switch w {
		case "NAME":
			words[i] = name
		case "IMAGE":
			words[i] = ref
		}
	}
	return words[1:], nil
}
