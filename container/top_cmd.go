package container

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

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
		return fmt.Errorf("top %s: %w", c.Argv[0], endedMeanwhile(err))
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
	text, err := exec.Command(ps, args...).Output()
	if err != nil {
		return fmt.Errorf("top: ps %s: %s", strings.Join(args, " "), psComplaint(err))
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	titles := strings.Fields(lines[0])
	column := slices.Index(titles, "PID")
	if column < 0 {
		return fmt.Errorf("top: ps %s shows no PID column", strings.Join(args, " "))
	}
	table := tabwriter.NewWriter(out.Out, 20, 1, 3, ' ', 0) // docker's columns
	fmt.Fprintln(table, strings.Join(titles, "\t"))
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if column >= len(f) {
			continue
		}
		if pid, err := strconv.Atoi(f[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Fprintln(table, psRowOf(f, len(titles)))
		}
	}
	return table.Flush()
}

// psRowOf are the words of a line in so many columns; the last one, a command,
// has all the rest.
func psRowOf(words []string, columns int) string {
	if last := columns - 1; len(words) > last {
		words = append(words[:last:last], strings.Join(words[last:], " "))
	}
	for i, w := range words {
		words[i] = ui.Escape(w)
	}
	return strings.Join(words, "\t")
}

// psComplaint is the first line of what ps said, without its page of usage.
func psComplaint(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if line, _, _ := strings.Cut(string(exit.Stderr), "\n"); line != "" {
			return strings.TrimPrefix(line, "error: ")
		}
	}
	return err.Error()
}
