package container

import (
	"fmt"
	"os"
	"slices"

	"github.com/kist-containers/kist/container/monitor"
)

// notifyInside is where a program finds the socket to say that it is ready.
const notifyInside = "/run/notify"

// parseNotify reads --sdnotify.
func parseNotify(who string) (string, error) {
	if !slices.Contains([]string{"", "ignore", monitor.NotifyContainer, monitor.NotifyMonitor, monitor.NotifyHealthy}, who) {
		return "", fmt.Errorf("--sdnotify %s: want container, conmon, healthy or ignore", who)
	}
	return who, nil
}

// notify is how the service manager that started this command, if one did, is
// told that the container is ready.
func (c *Config) notify() monitor.Notify {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" || c.Notify == "" || c.Notify == "ignore" {
		return monitor.Notify{}
	}
	return monitor.Notify{Who: c.Notify, Socket: socket}
}

// notifyDir gives the program a socket of its own.
func (m *specMaker) notifyDir() error {
	if m.c.notify().Who != monitor.NotifyContainer {
		return nil
	}
	dir := m.e.runDir(m.c.ID, monitor.NotifyDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	m.mounts = append(m.mounts, bindFile(dir, notifyInside))
	m.env = append(m.env, "NOTIFY_SOCKET="+notifyInside+"/"+monitor.NotifySocket)
	return os.Chmod(dir, 0o755) // the mode above is cut by the umask
}
