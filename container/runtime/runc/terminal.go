package runc

import (
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/kist-containers/kist/container/runtime"
	"github.com/kist-containers/kist/internal/ui"
)

// relay joins the program's terminal, if this process holds it, with this
// process's own. restore ends it once all output has been copied.
func relay(p *runtime.Process, out *ui.Output) (restore func(), err error) {
	console := p.Console()
	if console == nil {
		return func() {}, nil
	}
	back := func() {}
	if fd := int(out.In.Fd()); term.IsTerminal(fd) {
		old, err := term.MakeRaw(fd)
		if err != nil {
			return nil, err
		}
		back = func() { term.Restore(fd, old) }
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	resized <- unix.SIGWINCH
	go func() {
		for range resized {
			if size, err := unix.IoctlGetWinsize(int(out.In.Fd()), unix.TIOCGWINSZ); err == nil {
				unix.IoctlSetWinsize(int(console.Fd()), unix.TIOCSWINSZ, size)
			}
		}
	}()
	go io.Copy(console, out.In)
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		io.Copy(out.Out, console) // ends with EIO when the last slave is closed
	}()
	return sync.OnceFunc(func() {
		<-copied
		signal.Stop(resized)
		close(resized)
		back()
	}), nil
}
