package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const rtRuntime = "cpu.rt_runtime_us"

// allowRealtime lets the groups above a cgroup v1 of the cpu controller hand on
// so many microseconds of real-time scheduling: a group may give its children no
// more than it has, and a new one has none. See sched-rt-group in the kernel's
// documentation.
func allowRealtime(path string, usec int64) error {
	if dir := filepath.Dir(path); strings.HasPrefix(dir, cgroupRoot+"/cpu") {
		above, err := readInt(filepath.Join(filepath.Dir(dir), rtRuntime))
		if errors.Is(err, os.ErrNotExist) {
			return nil // dir is the root of the hierarchy
		}
		if err != nil {
			return err
		}
		need, err := realtimeOfChildren(dir)
		if err != nil {
			return err
		}
		need += usec
		have, err := readInt(filepath.Join(dir, rtRuntime))
		if err != nil || have >= need {
			return err
		}
		if above < need {
			// The group above comes first.
			if err := allowRealtime(dir, need-have); err != nil {
				return err
			}
		}
		return os.WriteFile(filepath.Join(dir, rtRuntime), strconv.AppendInt(nil, need, 10), 0)
	}
	return nil
}

func realtimeOfChildren(dir string) (sum int64, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", rtRuntime))
	for _, f := range files {
		n, err := readInt(f)
		if err == nil {
			sum += n
		}
	}
	return sum, err
}

func readInt(file string) (int64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
}
