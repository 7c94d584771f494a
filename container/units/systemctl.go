package units

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// A manager is systemd's for the machine or for the caller.
type manager struct{ user bool }

// runs reports whether systemd runs this machine.
func (manager) runs() bool { return exists("/run/systemd/system") }

// do runs systemctl and returns what it prints.
func (m manager) do(ctx context.Context, args ...string) (string, error) {
	if m.user {
		args = append([]string{"--user"}, args...)
	}
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	var errText bytes.Buffer
	cmd.Stderr = &errText
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0")
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	line, _, _ := strings.Cut(strings.TrimSpace(errText.String()), "\n")
	if errors.Is(err, exec.ErrNotFound) || !m.runs() {
		return "", ui.Hint(fmt.Errorf("systemctl %s: systemd does not run here", strings.Join(args, " ")), "where it runs: systemctl %s", strings.Join(args, " "))
	}
	return string(out), fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, line)
}

// reload makes systemd read its units, and so run the generators, again. Where it
// does not run there is nothing to tell.
func (m manager) reload(ctx context.Context) error {
	if !m.runs() {
		return nil
	}
	_, err := m.do(ctx, "daemon-reload")
	return err
}
