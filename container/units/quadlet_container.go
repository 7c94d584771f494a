package units

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kist-containers/kist/container"
)

// updateLabel asks for updates of the image; see AutoUpdateCmd.
const updateLabel = "io.containers.autoupdate"

const noModules = "kist reads no containers.conf; give flags with PodmanArgs= or GlobalArgs="

func containerKind() *kind {
	return &kind{ext: ".container", section: "Container",
		rules: []rule{
			{"LogDriver", "--log-driver", one}, {"LogOpt", "--log-opt", words}, {"Timezone", "--tz", one}, {"PidsLimit", "--pids-limit", one},
			{"ShmSize", "--shm-size", one}, {"Entrypoint", "--entrypoint", one}, {"WorkingDir", "--workdir", one},
			{"IP", "--ip", one}, {"IP6", "--ip6", one}, {"HostName", "--hostname", one}, {"StopSignal", "--stop-signal", one},
			{"StopTimeout", "--stop-timeout", one}, {"Pull", "--pull", one}, {"Memory", "--memory", one}, {"Retry", "--retry", one},
			{"RetryDelay", "--retry-delay", one}, {"NetworkAlias", "--network-alias", each}, {"Ulimit", "--ulimit", each},
			{"DNS", "--dns", each}, {"DNSOption", "--dns-option", each}, {"DNSSearch", "--dns-search", each},
			{"GroupAdd", "--group-add", each}, {"AddHost", "--add-host", each}, {"Tmpfs", "--tmpfs", each},
			{"RunInit", "--init", boolean}, {"EnvironmentHost", "--env-host", given}, {"HttpProxy", "--http-proxy", boolean},
			{"ReadOnly", "--read-only", boolean}, {"ReadOnlyTmpfs", "--read-only-tmpfs", boolean},
			{"DropCapability", "--cap-drop", words}, {"AddCapability", "--cap-add", words}, {"Sysctl", "--sysctl", words},
			{"UserNS", "--userns", one}, {"UIDMap", "--uidmap", words}, {"GIDMap", "--gidmap", words},
			{"ExposeHostPort", "--expose", each}, {"PublishPort", "--publish", each}, {"Secret", "--secret", words},
			{"Environment", "--env", words}, {"Label", "--label", words}, {"Annotation", "--annotation", words},
			{"HealthCmd", "--health-cmd", one}, {"HealthInterval", "--health-interval", one}, {"HealthOnFailure", "--health-on-failure", one},
			{"HealthLogDestination", "--health-log-destination", one}, {"HealthMaxLogCount", "--health-max-log-count", one},
			{"HealthMaxLogSize", "--health-max-log-size", one}, {"HealthRetries", "--health-retries", one},
			{"HealthStartPeriod", "--health-start-period", one}, {"HealthTimeout", "--health-timeout", one},
			{"HealthStartupCmd", "--health-startup-cmd", one}, {"HealthStartupInterval", "--health-startup-interval", one},
			{"HealthStartupRetries", "--health-startup-retries", one}, {"HealthStartupSuccess", "--health-startup-success", one},
			{"HealthStartupTimeout", "--health-startup-timeout", one},
		},
		byHand: []string{"Image", "Rootfs", "ContainerName", "Exec", "Notify", "User", "Group", "Network", "Volume", "Mount", "EnvironmentFile",
			"AddDevice", "AutoUpdate", "Mask", "Unmask", "NoNewPrivileges", "SeccompProfile", "SecurityLabelDisable", "SecurityLabelNested",
			"SecurityLabelType", "SecurityLabelFileType", "SecurityLabelLevel", "ReloadCmd", "ReloadSignal", "CgroupsMode"},
		refused: map[string]string{
			"Pod": noKind[".pod"], "StartWithPod": noKind[".pod"], "ContainersConfModule": noModules,
			"SubUIDMap": "give the ids with UIDMap= and GIDMap=", "SubGIDMap": "give the ids with UIDMap= and GIDMap=",
		},
		convert: (*maker).container,
	}
}

// containerName is the container's name, in which systemd's specifiers may stand.
func (u *unit) containerName() string {
	switch name := u.last("Container", "ContainerName"); {
	case name != "":
		return name
	case strings.Contains(u.name, "@"):
		return "systemd-%p_%i"
	}
	return "systemd-%N"
}

func (m *maker) container() error {
	image, rootfs := m.key("Image"), m.key("Rootfs")
	if (image == "") == (rootfs == "") {
		return errors.New("one of Image= and Rootfs= is needed")
	}
	if err := m.imageOf(&image); err != nil {
		return err
	}
	name := m.containerName()
	m.arg("run", "--name", name, "--replace", "--rm")
	if m.key("LogDriver") == "" {
		// What the service prints is looked for where its other words are.
		m.arg("--log-driver", "journald")
	}
	for _, part := range []func() error{
		m.flags, m.serviceType, m.runsAs, m.networks, m.volumes, m.mounts, m.security, m.devices,
		func() error { return m.reload(name) },
	} {
		if err := part(); err != nil {
			return err
		}
	}
	if v := m.key("AutoUpdate"); v != "" {
		m.arg("--label", updateLabel+"="+v)
	}
	program, err := m.lastWords("Exec")
	if err != nil {
		return err
	}
	if rootfs != "" {
		image = rootfs
		m.arg("--rootfs")
	}
	if err := m.ownArgs(append([]string{image}, program...)...); err != nil {
		return err
	}
	m.command("ExecStart", m.args...)
	m.command("ExecStop", "rm", "-v", "-f", "-i", name)
	// When the monitor itself was killed, systemd runs only this.
	m.out.add("Service", "ExecStopPost", "-"+commandLine(append(m.kist, "rm", "-v", "-f", "-i", name)))
	return nil
}

// lastWords are the words of a key's last value.
func (m *maker) lastWords(key string) ([]string, error) {
	list, err := SplitWords(m.key(key))
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w", key, m.key(key), err)
	}
	return list, nil
}

// imageOf follows the name of an .image or .build file.
func (m *maker) imageOf(image *string) (err error) {
	if strings.HasSuffix(*image, ".image") || strings.HasSuffix(*image, ".build") {
		*image, err = m.needs(*image)
	}
	return err
}

// serviceType says how systemd learns that the container runs, and how it ends.
func (m *maker) serviceType() error {
	m.out.add("Service", "Environment", container.UnitLabel+"=%n")
	switch mode := m.last("Service", "KillMode"); mode {
	case "":
		m.out.add("Service", "KillMode", "mixed")
	case "mixed", "control-group":
	default:
		return fmt.Errorf("KillMode=%s: want mixed or control-group", mode)
	}
	switch t := m.last("Service", "Type"); t {
	case "oneshot":
		return nil
	case "", "notify":
	default:
		return fmt.Errorf("Type=%s: want notify or oneshot", t)
	}
	m.out.setDefault("Service", "Type", "notify")
	m.out.add("Service", "NotifyAccess", "all")
	who := "conmon"
	if strings.EqualFold(m.key("Notify"), "healthy") {
		who = "healthy"
	} else if yes, _, err := m.boolean("Container", "Notify"); err != nil {
		return fmt.Errorf("%w nor healthy", err)
	} else if yes {
		who = "container"
	}
	m.arg("--sdnotify", who, "-d")
	return nil
}

func (m *maker) runsAs() error {
	user, group := m.key("User"), m.key("Group")
	switch {
	case user == "" && group != "":
		return errors.New("Group= needs User= too")
	case group != "":
		user += ":" + group
	}
	if user != "" {
		m.arg("--user", user)
	}
	files, err := m.words("Container", "EnvironmentFile")
	for _, f := range files {
		m.arg("--env-file", m.absolute(f))
	}
	switch mode := m.key("CgroupsMode"); mode {
	case "":
	case "split":
		m.warnings = append(m.warnings, "CgroupsMode=split: kist does not divide the service's cgroup")
	default:
		m.arg("--cgroups", mode)
	}
	return err
}

// reload lets systemctl reload do what the file says.
func (m *maker) reload(name string) error {
	command, err := m.lastWords("ReloadCmd")
	signal := m.key("ReloadSignal")
	switch {
	case err != nil:
		return err
	case len(command) > 0 && signal != "":
		return errors.New("ReloadCmd= and ReloadSignal= contradict each other")
	case len(command) > 0:
		m.command("ExecReload", append([]string{"exec", name}, command...)...)
	case signal != "":
		m.command("ExecReload", "kill", "--signal", signal, name)
	}
	return nil
}
