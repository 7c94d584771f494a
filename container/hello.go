package container

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// HelloRole is how the hello image's only file, this binary, is called there.
const HelloRole = "/kist"

// HelloMain prints what a container sees, so that a first run shows that all
// parts work.
func HelloMain() int {
	host, _ := os.Hostname()
	fmt.Printf("Hello from kist!\n\nThis program is alone in a container, and what it sees is:\n\n")
	row := func(name, format string, a ...any) { fmt.Printf("  %-12s %s\n", name, fmt.Sprintf(format, a...)) }
	row("process", "%d (its own pid namespace)", os.Getpid())
	row("host name", "%s", host)
	row("user", "%d:%d", os.Getuid(), os.Getgid())
	row("namespaces", "%s", ownNamespaces())
	row("memory", "%s", limit("memory/memory.limit_in_bytes", "memory.max"))
	row("processes", "%s", limit("pids/pids.max", "pids.max"))
	row("addresses", "%s", addresses())
	row("root", "%s", listing("/"))
	fmt.Printf("\nThe image is kist itself: nothing was downloaded. To go on:\n\n  kist run --rm -it --rootfs /:O bash    a shell in a throwaway copy of this machine\n  kist run --rm -it debian bash          a shell in an image from docker.io\n")
	return 0
}

func ownNamespaces() string {
	var list []string
	for _, n := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		if link, err := os.Readlink("/proc/self/ns/" + n); err == nil {
			list = append(list, link)
		}
	}
	return strings.Join(list, " ")
}

// limit reads a limit of the container's cgroup, v1 or v2.
func limit(v1, v2 string) string {
	for _, f := range []string{v2, v1} {
		data, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", f))
		if err != nil {
			continue
		}
		if text := strings.TrimSpace(string(data)); text != "max" && len(text) < 19 {
			return text
		}
		return "no limit"
	}
	return "not known"
}

func addresses() string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return err.Error()
	}
	var list []string
	for _, a := range addrs {
		list = append(list, a.String())
	}
	return strings.Join(list, " ")
}

func listing(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err.Error()
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}
