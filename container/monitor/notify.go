package monitor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Notify says how a service manager learns that the container is ready; see
// sd_notify(3). The zero value is: not at all.
type Notify struct {
	// Who tells it: NotifyContainer, NotifyMonitor or NotifyHealthy.
	Who string `json:"who,omitempty"`
	// Socket is the manager's: a path, or @NAME for an abstract one.
	Socket string `json:"socket,omitempty"`
}

// Who may tell a service manager.
const (
	// NotifyContainer: the program, over a socket that the monitor passes on.
	NotifyContainer = "container"
	// NotifyMonitor: the monitor, once the program runs.
	NotifyMonitor = "conmon"
	// NotifyHealthy: the monitor, once the health check succeeds.
	NotifyHealthy = "healthy"
)

// NotifyDir is the directory below RunDir of the socket, NotifySocket, that the
// program sends to.
const (
	NotifyDir    = "notify"
	NotifySocket = "notify.sock"
)

// ready tells the manager, whose main process is this one from then on.
func (n Notify) ready() {
	n.send(fmt.Sprintf("MAINPID=%d\nREADY=1", os.Getpid()))
}

func (n Notify) send(text string) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.Socket, Net: "unixgram"})
	if err != nil {
		return // the manager has gone
	}
	defer conn.Close()
	conn.Write([]byte(text))
}

// listenNotify makes the program's socket, where it is to have one.
func (m *monitor) listenNotify() error {
	if m.Notify.Who != NotifyContainer {
		return nil
	}
	dir, err := openDir(filepath.Join(m.RunDir, NotifyDir))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), NotifySocket)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return err
	}
	m.notify = conn
	go m.passOn()
	return os.Chmod(name, 0o777) // whoever the program runs as
}

// passOn gives the manager what a program may say of itself. Which process is
// the main one, and descriptors to keep, are not among it.
func (m *monitor) passOn() {
	const most = 4096
	buf := make([]byte, most)
	for {
		n, err := m.notify.Read(buf)
		if err != nil {
			return
		}
		var pass []string
		for _, line := range strings.Split(string(buf[:n]), "\n") {
			key, value, _ := strings.Cut(line, "=")
			switch key {
			case "READY":
				if value == "1" {
					m.Notify.ready()
				}
			case "STATUS", "STOPPING", "RELOADING", "WATCHDOG", "EXTEND_TIMEOUT_USEC", "ERRNO", "MONOTONIC_USEC":
				pass = append(pass, line)
			}
		}
		if len(pass) > 0 {
			m.Notify.send(strings.Join(pass, "\n"))
		}
	}
}

// announce tells the manager that the program runs.
func (m *monitor) announce() {
	if m.Notify.Who == NotifyMonitor {
		m.Notify.ready()
	}
}
