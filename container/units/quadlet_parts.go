package units

import (
	"fmt"
	"path/filepath"
	"strings"
)

// networks names networks, also those of .network files and of .container files,
// whose network it joins.
func (m *maker) networks() error {
	for _, v := range m.all(m.kind.section, "Network") {
		name, options, hasOptions := strings.Cut(v, ":")
		ext := filepath.Ext(name)
		if ext == ".network" || ext == ".container" {
			resource, err := m.needs(name)
			switch {
			case err != nil:
				return fmt.Errorf("Network=%s: %w", v, err)
			case ext == ".container" && hasOptions:
				return fmt.Errorf("Network=%s: a container's network takes no options", v)
			case ext == ".container":
				v = "container:" + resource
			case hasOptions:
				v = resource + ":" + options
			default:
				v = resource
			}
		}
		m.arg("--network", v)
	}
	return nil
}

// volumes names volumes, also those of .volume files.
func (m *maker) volumes() error {
	for _, v := range m.all(m.kind.section, "Volume") {
		source, rest, both := strings.Cut(v, ":")
		if !both {
			m.arg("--volume", v)
			continue
		}
		source, err := m.storage(source)
		if err != nil {
			return fmt.Errorf("Volume=%s: %w", v, err)
		}
		m.arg("--volume", source+":"+rest)
	}
	return nil
}

// storage is the source of a mount: a path, a volume, or what another file makes.
func (m *maker) storage(source string) (string, error) {
	if strings.HasPrefix(source, ".") {
		source = m.absolute(source)
	}
	switch ext := filepath.Ext(source); {
	case strings.HasPrefix(source, "/"):
		m.out.add("Unit", "RequiresMountsFor", source)
	case ext == ".volume", ext == ".image", ext == ".build":
		return m.needs(source)
	}
	return source, nil
}

// mounts follows the sources of --mount.
func (m *maker) mounts() error {
	list, err := m.words(m.kind.section, "Mount")
	if err != nil {
		return err
	}
	for _, v := range list {
		fields := strings.Split(v, ",")
		for i, f := range fields {
			key, source, ok := strings.Cut(f, "=")
			if !ok || key != "source" && key != "src" {
				continue
			}
			if source, err = m.storage(source); err != nil {
				return fmt.Errorf("Mount=%s: %w", v, err)
			}
			fields[i] = "source=" + source
		}
		m.arg("--mount", strings.Join(fields, ","))
	}
	return nil
}

// security turns the keys of --security-opt.
func (m *maker) security() error {
	for _, x := range [][2]string{{"NoNewPrivileges", "no-new-privileges"}, {"SecurityLabelDisable", "label=disable"}, {"SecurityLabelNested", "label=nested"}} {
		yes, _, err := m.boolean("Container", x[0])
		if err != nil {
			return err
		}
		if yes {
			m.arg("--security-opt", x[1])
		}
	}
	for _, x := range [][2]string{{"SecurityLabelType", "label=type:"}, {"SecurityLabelFileType", "label=filetype:"}, {"SecurityLabelLevel", "label=level:"}, {"SeccompProfile", "seccomp="}} {
		if v := m.key(x[0]); v != "" {
			m.arg("--security-opt", x[1]+v)
		}
	}
	for _, x := range [][2]string{{"Mask", "mask="}, {"Unmask", "unmask="}} {
		list, err := m.words("Container", x[0])
		if err != nil {
			return err
		}
		for _, v := range list {
			m.arg("--security-opt", x[1]+v)
		}
	}
	return nil
}

// devices adds devices; one with a hyphen before it only where it is there.
func (m *maker) devices() error {
	list, err := m.words("Container", "AddDevice")
	for _, v := range list {
		device, optional := strings.CutPrefix(v, "-")
		path, _, _ := strings.Cut(device, ":")
		if !optional || exists(path) {
			m.arg("--device", device)
		}
	}
	return err
}
