package nameserver

import (
	"bufio"
	"bytes"
	"net/netip"
	"os"
	"strings"
	"sync"
)

// hostServers are those of a resolv.conf, read again when it changes: a laptop
// that moves takes its containers along. A stub of the host's, 127.0.0.53, is
// asked itself, since it knows which server is for which name.
type hostServers struct {
	path string

	mu    sync.Mutex
	stamp stamp
	read  bool
	list  []netip.Addr
}

func (h *hostServers) current() []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := stampOf(h.path); !h.read || s != h.stamp {
		h.stamp, h.read = keep(s), true
		data, _ := os.ReadFile(h.path) // none: no servers
		h.list = parseServers(data)
	}
	return h.list
}

// parseServers are the nameserver lines that name an address, perhaps with a zone
// (fe80::1%eth0); see resolv.conf(5).
func parseServers(data []byte) (list []netip.Addr) {
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) < 2 || w[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(w[1]); err == nil {
			list = append(list, a)
		}
	}
	return list
}
