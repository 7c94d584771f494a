package units

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/ui"
)

// Words for what became of a container.
const (
	updatedYes  = "true"
	updatedNo   = "false"
	pending     = "pending" // with --dry-run
	rolledBack  = "rolled back"
	notUpdated  = "failed"
	policyLocal = "local"
)

// A task is a container that asks for updates.
type task struct {
	*container.Config
	unit, policy string
	// oldImage is the ID of the image that its name meant before.
	oldImage string
	updated  string
}

// policyOf is a container's wish, "" for none.
func policyOf(c *container.Config) (string, error) {
	switch v := c.Labels[updateLabel]; v {
	case "", "disabled":
		return "", nil
	case "registry", "image":
		return "registry", nil
	case policyLocal:
		return policyLocal, nil
	default:
		return "", fmt.Errorf("its label %s=%s: want registry, local or disabled", updateLabel, v)
	}
}

// tasks are the running containers that ask for updates. One that cannot have
// them is an error.
func tasks(e *container.Engine) (list []*task, errs []error) {
	all, err := e.All()
	if err != nil {
		return nil, []error{err}
	}
	for _, c := range slices.Backward(all) {
		policy, err := policyOf(c)
		unit := c.Labels[container.UnitLabel]
		if unit == "" {
			unit = c.Labels[container.PodmanUnitLabel]
		}
		switch {
		case err == nil && policy == "" || !e.Status(c.ID).Busy():
			continue
		case err != nil:
		case c.ImageID == "":
			err = errors.New("it has no image")
		case unit == "":
			err = ui.Hint(errors.New("it runs in no systemd unit, and only a unit knows how to make it again"), "kist generate systemd --new --files --name %s", c.Name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
			continue
		}
		list = append(list, &task{Config: c, unit: unit, policy: policy, updated: updatedNo})
	}
	return list, errs
}

// An updater goes through the tasks.
type updater struct {
	images   *image.Store
	systemd  manager
	dry      bool
	rollback bool
	pull     image.PullOptions
}

// look finds out whether a newer image is there, and pulls it unless dry.
func (u *updater) look(ctx context.Context, t *task) (newer bool, err error) {
	if old, err := u.images.Resolve(t.Image); err == nil {
		t.oldImage = old.ID
	}
	switch {
	case t.policy == policyLocal:
		return t.oldImage != "" && t.oldImage != t.ImageID, nil
	case u.dry:
		current, err := u.images.Current(ctx, t.Image, u.pull)
		return !current || t.oldImage != t.ImageID, err
	}
	img, err := u.images.Pull(ctx, t.Image, u.pull)
	return err == nil && img.ID != t.ImageID, err
}

// run updates all tasks, unit by unit.
func (u *updater) run(ctx context.Context, list []*task) (errs []error) {
	var units []string
	stale := map[string][]*task{}
	for _, t := range list {
		newer, err := u.look(ctx, t)
		switch {
		case err != nil:
			t.updated = notUpdated
			errs = append(errs, fmt.Errorf("%s: %w", t.Name, err))
		case newer && u.dry:
			t.updated = pending
		case newer:
			if stale[t.unit] == nil {
				units = append(units, t.unit)
			}
			stale[t.unit] = append(stale[t.unit], t)
		}
	}
	for _, unit := range units {
		word, err := u.restart(ctx, unit, stale[unit])
		for _, t := range stale[unit] {
			t.updated = word
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// restart restarts a unit; where that fails, with the images it had.
func (u *updater) restart(ctx context.Context, unit string, list []*task) (word string, err error) {
	_, err = u.systemd.do(ctx, "restart", "--", unit)
	if err == nil {
		return updatedYes, nil
	}
	if !u.rollback || !u.systemd.runs() {
		return notUpdated, fmt.Errorf("%s: %w", unit, err)
	}
	for _, t := range list {
		if tagErr := u.images.Tag(ctx, t.ImageID, t.Image); tagErr != nil {
			return notUpdated, errors.Join(fmt.Errorf("%s: %w", unit, err), tagErr)
		}
	}
	if _, again := u.systemd.do(ctx, "restart", "--", unit); again != nil {
		return notUpdated, errors.Join(fmt.Errorf("%s: %w", unit, err), again)
	}
	return rolledBack, fmt.Errorf("%s: runs its earlier image again: %w", unit, err)
}
