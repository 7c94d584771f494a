package network

import (
	"context"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// follow does this host's part of all networks of a sandbox that want one, also of
// those that it joins later, until ctx ends or the sandbox is gone. tell is told
// how the sandbox is now.
func (m *Manager) follow(ctx context.Context, id string, tell func(*Sandbox)) {
	kept := map[string]context.CancelFunc{}
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		changed, err := watch(ctx, m.sandboxFile(id))
		if err != nil {
			return
		}
		s, err := m.Sandbox(id)
		if err != nil {
			return
		}
		tell(s)
		for network, stop := range kept {
			if s.endpoint(network) == nil {
				stop()
				delete(kept, network)
			}
		}
		for _, e := range s.Endpoints {
			if do := m.duty(id, e.Network); do != nil && kept[e.Network] == nil {
				c, stop := context.WithCancel(ctx)
				kept[e.Network] = stop
				running.Go(func() { do(c) })
			}
		}
		if !changed() {
			return
		}
	}
}

// duty is what a monitor does for its container in a network; nil for most.
func (m *Manager) duty(id, network string) func(context.Context) {
	if network == DefaultBridge {
		return nil // without a look at its file, for most containers have no other
	}
	n, err := m.readNetwork(network)
	switch {
	case err != nil:
		return nil
	case n.stored():
		return func(ctx context.Context) { m.keep(ctx, network) }
	case n.listSealed():
		return m.keepSealed
	case n.IPAM == "dhcp":
		return func(ctx context.Context) { m.keepLease(ctx, id, network) }
	}
	return nil
}

// watch returns what waits until the file that is there now is replaced or removed,
// and says false once ctx ends. See inotify(7).
func watch(ctx context.Context, path string) (changed func() bool, err error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	// A rename over the file takes its last link: IN_ATTRIB, though others have it open.
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_ATTRIB|unix.IN_DELETE_SELF|unix.IN_MODIFY); err != nil {
		f.Close()
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	return func() bool {
		defer f.Close()
		stop := context.AfterFunc(ctx, func() { f.Close() })
		defer stop()
		_, err := f.Read(make([]byte, 4096))
		return err == nil
	}, nil
}
