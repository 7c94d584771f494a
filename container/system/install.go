package system

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/container/units"
	"github.com/kist-containers/kist/internal/ui"
)

// InstallCmd is `kist system install`.
type InstallCmd struct {
	Print bool `help:"Print the units and install nothing."`
}

func (*InstallCmd) Help() string {
	return `  kist system install                                 restore at boot, quadlet files, updates
  systemctl enable --now kist-auto-update.timer       and look for new images every day`
}

const restoreUnit = "kist-restore.service"

// unitFiles are what is installed: %[1]s is the program, %[2]s and %[3]s the
// roots, %[4]s the target.
var unitFiles = [...]struct{ name, text string }{
	{restoreUnit, `# Brings back, after a boot, the containers whose restart policy says so.
[Unit]
Description=Restore kist containers
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
KillMode=process
ExecStart=%[1]s --root %[2]s --runroot %[3]s system restore

[Install]
WantedBy=%[4]s
`},
	{"kist-auto-update.service", `# Restarts the units whose containers ask for newer images.
[Unit]
Description=Update the images of kist containers
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=%[1]s --root %[2]s --runroot %[3]s auto-update
`},
	{"kist-auto-update.timer", `[Unit]
Description=Update the images of kist containers every day

[Timer]
OnCalendar=daily
RandomizedDelaySec=900
Persistent=true

[Install]
WantedBy=timers.target
`},
}

// Run writes the units and lets systemd know of them.
func (c *InstallCmd) Run(e *container.Engine, out *ui.Output) error {
	if err := c.install(e, out); err != nil {
		return fmt.Errorf("system install: %w", err)
	}
	return nil
}

func (c *InstallCmd) install(e *container.Engine, out *ui.Output) error {
	unix.Umask(0o022) // users' service managers read it too
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, target, user := "/etc/systemd/system", "multi-user.target", []string(nil)
	if e.Rootless {
		config, err := os.UserConfigDir()
		if err != nil {
			return err
		}
		dir, target, user = filepath.Join(config, "systemd/user"), "default.target", []string{"--user"}
	}
	for _, f := range unitFiles {
		text := f.text
		if f.name != unitFiles[2].name {
			text = fmt.Sprintf(f.text, self, e.Roots.Data, e.Roots.Run, target)
		}
		path := filepath.Join(dir, f.name)
		if c.Print {
			out.Printf("# %s\n%s\n", path, text)
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
		out.Print(path)
	}
	if c.Print {
		return nil
	}
	if err := linkGenerators(self, e.Rootless, out); err != nil {
		return err
	}
	return enable(user, out)
}

// userGenerators is where users' service managers look.
const userGenerators = "/etc/systemd/user-generators"

// linkGenerators lets systemd make services of quadlet files. Only root can, for
// all users at once.
func linkGenerators(self string, rootless bool, out *ui.Output) error {
	if rootless {
		if _, err := os.Lstat(filepath.Join(userGenerators, units.UserGenerator)); err == nil {
			return nil
		}
		out.Warn("quadlet files of users need root's kist system install, once")
		return nil
	}
	for dir, name := range map[string]string{"/etc/systemd/system-generators": units.SystemGenerator, userGenerators: units.UserGenerator} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Symlink(self, path); err != nil {
			return err
		}
		out.Print(path)
	}
	return nil
}

func enable(user []string, out *ui.Output) error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		out.Warn("systemd does not run here: enable %s where it does", restoreUnit)
		return nil
	}
	cmd := exec.Command("systemctl", append(user, "enable", restoreUnit)...)
	cmd.Stderr = out.Err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("systemctl enable %s: %w", restoreUnit, err)
	}
	return nil
}
