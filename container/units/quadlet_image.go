package units

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

func imageKind() *kind {
	const retry = "kist pull tries once; let systemd try again: Restart=on-failure in [Service]"
	return &kind{ext: ".image", section: "Image", suffix: "-image",
		rules: []rule{
			{"Arch", "--arch", one}, {"OS", "--os", one}, {"Variant", "--variant", one}, {"AuthFile", "--authfile", one}, {"CertDir", "--cert-dir", one},
			{"Creds", "--creds", one}, {"Policy", "--policy", one}, {"AllTags", "--all-tags", boolean}, {"TLSVerify", "--tls-verify", boolean},
		},
		byHand: []string{"Image", "ImageTag"},
		refused: map[string]string{
			"DecryptionKey": "kist does not decrypt images", "Retry": retry, "RetryDelay": retry, "ContainersConfModule": noModules,
		},
		convert: (*maker).image,
	}
}

func (m *maker) image() error {
	if m.key("Image") == "" {
		return errors.New("Image= is needed")
	}
	m.arg("image", "pull")
	if err := m.flags(); err != nil {
		return err
	}
	if err := m.ownArgs(m.key("Image")); err != nil {
		return err
	}
	m.oneshot(true)
	return nil
}

func buildKind() *kind {
	return &kind{ext: ".build", section: "Build", suffix: "-build",
		rules: []rule{
			{"ImageTag", "--tag", each}, {"Arch", "--arch", one}, {"Variant", "--variant", one}, {"AuthFile", "--authfile", one},
			{"Target", "--target", one}, {"TLSVerify", "--tls-verify", boolean}, {"Environment", "--env", words}, {"Label", "--label", words},
			{"Annotation", "--annotation", words}, {"Secret", "--secret", words},
			{"DNS", "--dns", each}, {"DNSOption", "--dns-option", each}, {"DNSSearch", "--dns-search", each}, {"GroupAdd", "--group-add", each},
			{"Retry", "--retry", one}, {"RetryDelay", "--retry-delay", one}, {"Volume", "--volume", each},
		},
		byHand:  []string{"File", "SetWorkingDirectory", "Network", "Pull", "ForceRM"},
		refused: map[string]string{"ContainersConfModule": noModules},
		convert: (*maker).build,
	}
}

func (m *maker) build() error {
	if m.resource == "" {
		return errors.New("ImageTag= is needed")
	}
	m.arg("build")
	if v := m.key("Pull"); v != "" && v != "missing" && v != "false" {
		if v != "always" && v != "newer" && v != "true" {
			return fmt.Errorf("Pull=%s: want always, newer or missing", v)
		}
		m.arg("--pull")
	}
	for _, part := range []func() error{m.flags, m.networks} {
		if err := part(); err != nil {
			return err
		}
	}
	context, err := m.context()
	if err != nil {
		return err
	}
	if file := m.key("File"); file != "" {
		if !filepath.IsAbs(file) && !isURL(file) && !isURL(context) {
			file = filepath.Join(context, file)
			if m.key("SetWorkingDirectory") == "file" {
				file = m.absolute(m.key("File"))
			}
		}
		m.arg("--file", file)
	}
	if err := m.ownArgs(context); err != nil {
		return err
	}
	m.oneshot(false)
	return nil
}

// context is the directory or address that is built from.
func (m *maker) context() (string, error) {
	file := m.key("File")
	switch dir := m.key("SetWorkingDirectory"); {
	case dir == "unit":
		return filepath.Dir(m.Path), nil
	case dir == "file" && file == "":
		return "", errors.New("SetWorkingDirectory=file needs File= too")
	case dir == "file":
		return filepath.Dir(m.absolute(file)), nil
	case isURL(dir):
		return dir, nil
	case dir != "":
		return m.absolute(dir), nil
	}
	switch dir := m.last("Service", "WorkingDirectory"); {
	case dir != "":
		return dir, nil
	case file == "":
		return "", errors.New("one of SetWorkingDirectory= and File= is needed")
	case isURL(file):
		return file, nil
	case !filepath.IsAbs(file):
		return "", fmt.Errorf("File=%s: a relative path needs SetWorkingDirectory= too", file)
	}
	return filepath.Dir(file), nil
}

func isURL(s string) bool {
	return strings.Contains(s, "://") || strings.HasPrefix(s, "github.com/") || strings.HasPrefix(s, "git@")
}
