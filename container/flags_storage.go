package container

import (
	"errors"
	"fmt"
	"strings"

	units "github.com/docker/go-units"
)

// storageOptions reads --storage-opt: size= is the only one that overlay has.
func (f *createFlags) storageOptions(c *Config) error {
	for _, o := range f.StorageOpt {
		key, value, _ := strings.Cut(o, "=")
		if key != "size" {
			return fmt.Errorf("--storage-opt %s: want size=, overlay has no other option", o)
		}
		n, err := units.RAMInBytes(value)
		if err != nil || n <= 0 {
			return fmt.Errorf("--storage-opt %s: want a size such as 10G", o)
		}
		c.LayerSize = n
	}
	if c.LayerSize > 0 && f.Rootfs {
		return errors.New("--storage-opt and --rootfs contradict each other: there is no writable layer")
	}
	return nil
}
