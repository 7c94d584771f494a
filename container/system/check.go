package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/ui"
)

// CheckCmd is `kist system check`.
type CheckCmd struct {
	Repair bool `short:"r" help:"Heal what can be healed."`
	Quick  bool `short:"q" help:"Leave the images out, whose blobs take time."`
}

// Run looks for what crashes left wrong.
func (c *CheckCmd) Run(ctx context.Context, e *container.Engine, s *image.Store, out *ui.Output) error {
	found, err := e.Check(ctx, c.Repair)
	if !c.Quick {
		more, errImages := s.Check(ctx, c.Repair)
		found, err = append(found, more...), errors.Join(err, errImages)
	}
	for _, line := range found {
		out.Print(ui.Escape(line))
	}
	switch {
	case err != nil:
		return fmt.Errorf("system check: %w", err)
	case len(found) == 0 || c.Repair:
		return nil
	}
	out.Notef("hint: kist system check --repair")
	return ui.Exit(1)
}

// RestoreCmd is `kist system restore`.
type RestoreCmd struct{}

// Run starts what comes back after a boot.
func (c *RestoreCmd) Run(ctx context.Context, e *container.Engine, out *ui.Output) error {
	started, err := e.Restore(ctx)
	for _, name := range started {
		out.Print(name)
	}
	if err != nil {
		return fmt.Errorf("system restore: %w", err)
	}
	return nil
}

// InstallCmd is `kist system install`.
type InstallCmd struct {
	Print bool `help:"Print the unit and install nothing."`
}

const unitName = "kist-restore.service"

const unit = `# Brings back, after a boot, the containers whose restart policy says so.
[Unit]
Description=Restore kist containers
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
KillMode=none
ExecStart=%s --root %s --runroot %s system restore

[Install]
WantedBy=%s
`

// Run writes the unit and lets systemd know of it.
func (c *InstallCmd) Run(e *container.Engine, out *ui.Output) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, target, user := "/etc/systemd/system", "multi-user.target", []string(nil)
	if e.Rootless {
		config, err := os.UserConfigDir()
		if err != nil {
			return fmt.Errorf("system install: %w", err)
		}
		dir, target, user = filepath.Join(config, "systemd/user"), "default.target", []string{"--user"}
	}
	text := fmt.Sprintf(unit, self, e.Roots.Data, e.Roots.Run, target)
	if c.Print {
		out.Printf("%s", text)
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("system install: %w", err)
	}
	path := filepath.Join(dir, unitName)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("system install: %w", err)
	}
	out.Print(path)
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		out.Warn("systemd does not run here: enable %s where it does", unitName)
		return nil
	}
	cmd := exec.Command("systemctl", append(user, "enable", unitName)...)
	cmd.Stderr = out.Err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("system install: systemctl enable %s: %w", unitName, err)
	}
	return nil
}
