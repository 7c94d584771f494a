package container

import (
	"errors"
	"fmt"

	"github.com/kist-containers/kist/internal/ui"
)

// each does f to every named container, prints the name of each that it worked
// for and tells of each that it did not.
func each(e *Engine, out *ui.Output, verb string, names []string, f func(c *Config) error) error {
	var errs []error
	for _, name := range names {
		c, err := e.Lookup(name)
		if err == nil {
			err = f(c)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", verb, name, err))
			continue
		}
		out.Print(name)
	}
	return together(out, errs)
}

// together tells of all errors but the last, which the caller returns.
func together(out *ui.Output, errs []error) error {
	for i, err := range errs {
		if i == len(errs)-1 {
			return err
		}
		out.Notef("%s", ui.ErrorText(err))
	}
	return nil
}

// errSkip says that there was nothing to do, and no failure either.
var errSkip = errors.New("nothing to do")

// atOnce does f to all names at the same time and prints those that worked, in
// their order.
func atOnce(out *ui.Output, names []string, f func(name string) error) error {
	results := make([]chan error, len(names))
	slots := make(chan struct{}, 16)
	for i, name := range names {
		results[i] = make(chan error, 1)
		go func() {
			slots <- struct{}{}
			results[i] <- f(name)
			<-slots
		}()
	}
	var errs []error
	for i, name := range names {
		switch err := <-results[i]; {
		case err == nil:
			out.Print(name)
		case !errors.Is(err, errSkip):
			errs = append(errs, err)
		}
	}
	return together(out, errs)
}
