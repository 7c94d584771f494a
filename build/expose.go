package build

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// parseExpose reads [[IP:]HOST:]PORT[-PORT][/PROTOCOL]; docker keeps the
// container's port only.
func parseExpose(word string) ([]string, error) {
	ports, proto, ok := strings.Cut(word, "/")
	if !ok {
		proto = "tcp"
	}
	proto = strings.ToLower(proto)
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return nil, fmt.Errorf("EXPOSE %s: protocol %q is not tcp, udp or sctp", word, proto)
	}
	ports = ports[strings.LastIndexByte(ports, ':')+1:]
	first, last, isRange := strings.Cut(ports, "-")
	low, err := parsePort(first)
	high := low
	if err == nil && isRange {
		high, err = parsePort(last)
	}
	if err != nil {
		return nil, fmt.Errorf("EXPOSE %s: %w", word, err)
	}
	if high < low {
		return nil, fmt.Errorf("EXPOSE %s: the range ends before it begins", word)
	}
	var list []string
	for p := low; p <= high; p++ {
		list = append(list, fmt.Sprintf("%d/%s", p, proto))
	}
	return list, nil
}

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q is not in 1-65535", s)
	}
	return int(n), nil
}

// checkSignal accepts a number or a name with or without SIG, and real-time
// signals such as RTMIN+3.
func checkSignal(s string) error {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= 64 {
		return nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if unix.SignalNum("SIG"+name) != 0 || strings.HasPrefix(name, "RTMIN") || strings.HasPrefix(name, "RTMAX") {
		return nil
	}
	return fmt.Errorf("STOPSIGNAL %s: no such signal", s)
}
