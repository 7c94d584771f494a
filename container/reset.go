package container

import (
	"context"
	"errors"
	"fmt"
)

// RemoveAll kills and removes every container, with its anonymous volumes.
func (e *Engine) RemoveAll(ctx context.Context) error {
	list, err := e.all()
	if err != nil {
		return err
	}
	var errs []error
	rm := RmCmd{Force: true, Volumes: true}
	for _, c := range list {
		if err := rm.remove(ctx, e, c.ID); err != nil && !errors.Is(err, errSkip) {
			errs = append(errs, fmt.Errorf("rm %s: %w", c.Name, err))
		}
	}
	_, err = e.Check(ctx, true)
	return errors.Join(append(errs, err)...)
}
