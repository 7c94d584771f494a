package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/sys"
)

// Where a host keeps its own zone and all zones; see tzfile(5).
const (
	localTime = "/etc/localtime"
	zoneInfo  = "/usr/share/zoneinfo"
)

// timeZone checks --tz and returns it as it is stored: local, or the zone.
func timeZone(zone string) (string, error) {
	if zone == "" {
		return "", nil
	}
	_, err := readZone(zone)
	return zone, err
}

// readZone reads the rules of a zone, or of this machine's for local.
func readZone(zone string) ([]byte, error) {
	file, err := openZone(zone)
	if err != nil {
		return nil, fmt.Errorf("--tz %s: this machine has no such time zone", zone)
	}
	defer file.Close()
	const most = 1 << 20
	data, err := io.ReadAll(io.LimitReader(file, most))
	if err != nil {
		return nil, fmt.Errorf("--tz %s: not a time zone: %w", zone, errors.Unwrap(err))
	}
	if len(data) < 4 || string(data[:4]) != "TZif" {
		return nil, fmt.Errorf("--tz %s: not a time zone", zone)
	}
	return data, nil
}

func openZone(zone string) (*os.File, error) {
	if zone == "local" {
		return os.Open(localTime)
	}
	root, err := os.Open(zoneInfo)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return sys.OpenInRoot(root, filepath.Clean("/"+zone), unix.O_RDONLY|unix.O_NONBLOCK, 0)
}

// zoneFile shows the zone as /etc/localtime.
func (m *specMaker) zoneFile() error {
	if m.c.TimeZone == "" {
		return nil
	}
	data, err := readZone(m.c.TimeZone)
	if err != nil {
		return err
	}
	return m.ownFile(localTime, data)
}
