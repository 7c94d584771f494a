package units

import (
	"errors"
)

func networkKind() *kind {
	return &kind{ext: ".network", section: "Network", suffix: "-network",
		rules: []rule{
			{"Driver", "--driver", one}, {"IPAMDriver", "--ipam-driver", one}, {"Internal", "--internal", given}, {"IPv6", "--ipv6", given},
			{"Options", "--opt", words}, {"Label", "--label", words},
		},
		byHand: []string{"NetworkName", "NetworkDeleteOnStop", "InterfaceName", "Subnet", "Gateway", "IPRange"},
		refused: map[string]string{
			"DNS":                  "containers forward to the servers of this machine; give others with DNS= of a .container",
			"DisableDNS":           "a network of kist's always answers names",
			"ContainersConfModule": noModules,
		},
		convert: (*maker).network,
	}
}

func (m *maker) network() error {
	m.arg("network", "create", "--ignore")
	if err := m.flags(); err != nil {
		return err
	}
	if v := m.key("InterfaceName"); v != "" {
		m.arg("--opt", "com.docker.network.bridge.name="+v)
	}
	subnets := m.all("Network", "Subnet")
	for _, key := range [][2]string{{"Gateway", "--gateway"}, {"IPRange", "--ip-range"}} {
		list := m.all("Network", key[0])
		if len(list) > len(subnets) {
			return errors.New(key[0] + "= needs a Subnet= for each")
		}
		for _, v := range list {
			m.arg(key[1], v)
		}
	}
	for _, v := range subnets {
		m.arg("--subnet", v)
	}
	if err := m.ownArgs(m.resource); err != nil {
		return err
	}
	m.oneshot(true)
	remove, _, err := m.boolean("Network", "NetworkDeleteOnStop")
	if remove {
		m.command("ExecStopPost", "network", "rm", m.resource)
	}
	return err
}

func volumeKind() *kind {
	return &kind{ext: ".volume", section: "Volume", suffix: "-volume",
		rules: []rule{
			{"Driver", "--driver", one}, {"User", "--uid", one}, {"Group", "--gid", one}, {"Label", "--label", words},
		},
		byHand: []string{"VolumeName", "Device", "Type", "Options", "Copy"},
		refused: map[string]string{
			"Image":                "kist has no volumes of the driver image; a .container mounts one with Mount=type=image,source=…,target=…",
			"ContainersConfModule": noModules,
		},
		convert: (*maker).volume,
	}
}

func (m *maker) volume() error {
	m.arg("volume", "create", "--ignore")
	if err := m.flags(); err != nil {
		return err
	}
	device := m.key("Device")
	for _, x := range [][2]string{{"Type", "type="}, {"Options", "o="}} {
		switch v := m.key(x[0]); {
		case v != "" && device == "":
			return errors.New(x[0] + "= needs Device= too")
		case v != "":
			m.arg("--opt", x[1]+v)
		}
	}
	if device != "" {
		m.arg("--opt", "device="+device)
	}
	if m.key("Type") == "bind" {
		m.out.add("Unit", "RequiresMountsFor", device)
	}
	if fill, set, err := m.boolean("Volume", "Copy"); err != nil || set && !fill {
		return errors.Join(err, errors.New("Copy=no is for the mount to say: Volume=NAME.volume:/path:nocopy"))
	}
	if err := m.ownArgs(m.resource); err != nil {
		return err
	}
	m.oneshot(true)
	return nil
}
