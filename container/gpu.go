package container

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// parseGPUs checks --gpus: all, a number, or docker's key=value list.
func parseGPUs(s string) error {
	_, _, _, err := splitGPUs(s)
	return err
}

func splitGPUs(s string) (driver string, count int, ids []string, err error) {
	count = -1
	if s == "all" {
		return "", -1, nil, nil
	}
	if n, err := strconv.Atoi(s); err == nil && n >= 0 {
		return "", n, nil, nil
	}
	last := ""
	for _, part := range strings.Split(strings.ReplaceAll(s, `"`, ""), ",") {
		key, value, ok := strings.Cut(part, "=")
		if !ok && last == "device" {
			ids = append(ids, part) // device=0,1
			continue
		}
		switch last = key; {
		case !ok && key == "all":
		case key == "driver" && ok:
			driver = value
		case key == "device" && ok:
			ids = append(ids, value)
		case key == "count" && ok:
			if value != "all" {
				if count, err = strconv.Atoi(value); err != nil || count < 0 {
					return "", 0, nil, fmt.Errorf("--gpus %s: count is a number or all", s)
				}
			}
		case key == "capabilities" && ok, key == "options" && ok:
		default:
			return "", 0, nil, fmt.Errorf("--gpus %s: want all, a number, or driver=, count=, device=", s)
		}
	}
	return driver, count, ids, nil
}

// gpuNames turns --gpus into names of CDI devices.
func gpuNames(all []*cdiSpec, wish string) ([]string, error) {
	driver, count, ids, err := splitGPUs(wish)
	if err != nil {
		return nil, err
	}
	var have []string
	for _, s := range all {
		vendor, class, _ := strings.Cut(s.Kind, "/")
		if class != "gpu" || driver != "" && !strings.HasPrefix(vendor, driver) {
			continue
		}
		for _, d := range s.Devices {
			have = append(have, s.Kind+"="+d.Name)
		}
	}
	var names []string
	for _, id := range ids {
		i := slices.IndexFunc(have, func(n string) bool { return strings.HasSuffix(n, "="+id) })
		if i < 0 {
			return nil, fmt.Errorf("device %s: no CDI file describes it", id)
		}
		names = append(names, have[i])
	}
	if len(ids) > 0 {
		return names, nil
	}
	if i := slices.IndexFunc(have, func(n string) bool { return strings.HasSuffix(n, "=all") }); count < 0 && i >= 0 {
		return have[i : i+1], nil
	}
	have = slices.DeleteFunc(have, func(n string) bool {
		_, id, _ := strings.Cut(n, "=")
		_, err := strconv.Atoi(id)
		return err != nil
	})
	sort.Slice(have, func(i, j int) bool { return gpuIndex(have[i]) < gpuIndex(have[j]) })
	switch {
	case len(have) == 0:
		return nil, errors.New("no CDI file describes a GPU (nvidia-ctk cdi generate makes one)")
	case count > len(have):
		return nil, fmt.Errorf("this host has %d", len(have))
	case count >= 0:
		have = have[:count]
	}
	return have, nil
}

func gpuIndex(name string) int {
	_, id, _ := strings.Cut(name, "=")
	n, _ := strconv.Atoi(id)
	return n
}
