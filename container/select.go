package container

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// choice are the flags by which a command finds its containers, beside their
// names.
type choice struct {
	Cidfile []string `sep:"none" help:"Read the ID of a container from a file." placeholder:"FILE"`
	Filter  []string `short:"f" sep:"none" help:"Choose those that match, as kist ps does." placeholder:"KEY=VALUE"`
}

// latestFlag is podman's -l of commands whose -l docker has no use for.
type latestFlag struct {
	Latest bool `short:"l" help:"Choose the container that was created last."`
}

// filterKeys are those of kist ps.
var filterKeys = [...]string{"name", "id", "status", "label", "label!", "ancestor", "exited", "health", "network", "volume",
	"before", "since", "publish", "expose", "is-task", "until", "restart-policy", "should-start-on-boot", "command"}

// choose returns the containers that a command is for: those named, those of the
// ID files, the latest, or with all or filters those that match.
func (e *Engine) choose(named []string, all, latest bool, c choice, match func(Status) bool) ([]string, error) {
	for _, f := range c.Cidfile {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("--cidfile: %w", err)
		}
		id, _, _ := strings.Cut(string(data), "\n")
		named = append(named, strings.TrimSpace(id))
	}
	switch {
	case all && latest:
		return nil, errors.New("--all and --latest contradict each other")
	case (all || latest || len(c.Filter) > 0) && len(named) > 0:
		return nil, errors.New("names and --all, --latest or --filter contradict each other")
	case latest:
		return e.latest()
	case !all && len(c.Filter) == 0:
		if len(named) == 0 {
			return nil, errors.New("no container is given")
		}
		return named, nil
	}
	filters, err := ui.ParseFilters(c.Filter, filterKeys[:]...)
	if err != nil {
		return nil, err
	}
	list, err := e.list(filters, true)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, l := range list {
		if match == nil || match(l.Status) {
			ids = append(ids, shortID(l.ID))
		}
	}
	return ids, nil
}

// latest names the container that was created last.
func (e *Engine) latest() ([]string, error) {
	list, err := e.all()
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errors.New("there is no container")
	}
	return []string{shortID(list[0].ID)}, nil
}

// one is choose for a command that takes one container.
func (e *Engine) one(name string, latest bool) (*Config, error) {
	var named []string
	if name != "" {
		named = []string{name}
	}
	names, err := e.choose(named, false, latest, choice{}, nil)
	if err != nil {
		return nil, err
	}
	return e.Lookup(names[0])
}
