package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// Run shows the container's processes as ps of the host sees them, as docker
// does: the container's own ps, if it has one, is never run.
func (c *TopCmd) Run(e *Engine, out *ui.Output) error {
	if c.Latest {
		names, err := e.latest()
		if err != nil {
			return fmt.Errorf("top: %w", err)
		}
		c.Argv = append(names, c.Argv...)
	}
	if len(c.Argv) == 0 {
		return errors.New("top: a container is needed")
	}
	ct, err := e.running("top", c.Argv[0])
	if err != nil {
		return err
	}
	pids, err := e.runtime().Pids(ct.ID)
	if err != nil {
		return fmt.Errorf("top %s: %w", c.Argv[0], err)
	}
	e.event(ct, "top", nil)
	args := c.Argv[1:]
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	ps, err := exec.LookPath("ps")
	if err != nil {
		return fmt.Errorf("top: %w (package procps)", err)
	}
	cmd := exec.Command(ps, args...)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("top: ps %s: %w", strings.Join(args, " "), err)
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return fmt.Errorf("top: ps %s shows no PID column", strings.Join(args, " "))
	}
	out.Print(lines[0])
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if column >= len(f) {
			continue
		}
		if pid, err := strconv.Atoi(f[column]); err == nil && slices.Contains(pids, pid) {
			out.Print(ui.Escape(line))
		}
	}
	return nil
}
