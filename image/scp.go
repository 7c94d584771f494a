package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// ScpCmd is `kist image scp`: podman's, to and from any host with ssh that has
// kist, podman or docker.
type ScpCmd struct {
	Quiet  bool   `short:"q" help:"Show no progress."`
	Source string `arg:"" help:"IMAGE to send, or [USER@]HOST::IMAGE to fetch."`
	Dest   string `arg:"" optional:"" help:"[USER@]HOST:: to send to."`
}

// Run moves the image through ssh.
func (c *ScpCmd) Run(ctx context.Context, s *Store, out *ui.Output) error {
	from, name, fetch := strings.Cut(c.Source, "::")
	to, rename, send := strings.Cut(c.Dest, "::")
	var err error
	switch {
	case fetch && c.Dest == "":
		err = c.fetch(ctx, s, out, from, name)
	case !fetch && send && rename == "":
		err = c.send(ctx, s, out, to, c.Source)
	case rename != "":
		err = errors.New("an image keeps its name; kist tag gives it another")
	default:
		err = ui.Hint(errors.New("one side is this machine, the other HOST::"), "kist image scp IMAGE USER@HOST::")
	}
	if err != nil {
		return fmt.Errorf("image scp %s: %w", c.Source, err)
	}
	return nil
}

// overSSH runs the first engine that host has. The reference grammar leaves
// nothing in args that a shell would understand.
func overSSH(ctx context.Context, out *ui.Output, host, args string) (*exec.Cmd, error) {
	if host == "" || strings.HasPrefix(host, "-") {
		return nil, fmt.Errorf("%q is not a host", host)
	}
	script := `for t in kist podman docker; do command -v $t >/dev/null && exec $t ` + args +
		`; done; echo "neither kist, podman nor docker is there" >&2; exit 127`
	cmd := exec.CommandContext(ctx, "ssh", "--", host, "exec sh -c '"+script+"'")
	cmd.Stderr = out.Err
	return cmd, nil
}

func (c *ScpCmd) send(ctx context.Context, s *Store, out *ui.Output, host, name string) error {
	if _, err := s.Resolve(name); err != nil {
		return err
	}
	cmd, err := overSSH(ctx, out, host, "load")
	if err != nil {
		return err
	}
	if !c.Quiet {
		cmd.Stdout = out.Out
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	saved := s.Save(ctx, in, []string{name}, SaveOptions{Format: DockerArchive})
	in.Close()
	// What the other side says is the reason for a pipe that broke.
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("load on %s: %w", ui.Escape(host), err)
	}
	return saved
}

func (c *ScpCmd) fetch(ctx context.Context, s *Store, out *ui.Output, host, name string) error {
	if _, err := ParseReference(name); err != nil {
		return err
	}
	cmd, err := overSSH(ctx, out, host, "save "+name)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout = w
	err = cmd.Start()
	w.Close()
	if err != nil {
		return errors.Join(err, r.Close())
	}
	// Load closes its end, so that an archive refused ends the other side.
	load := LoadCmd{Quiet: c.Quiet}
	loaded := load.Run(ctx, s, &ui.Output{In: r, Out: out.Out, Err: out.Err})
	io.Copy(io.Discard, r)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("save on %s: %w", ui.Escape(host), err)
	}
	return loaded
}
