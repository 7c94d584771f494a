package container

import (
	"errors"
	"fmt"
	"slices"

	"github.com/kist-containers/kist/internal/ui"
)

// refusedFlags exist elsewhere and cannot do here what they promise.
type refusedFlags struct {
	UseApiSocket  bool     `name:"use-api-socket" hidden:""`
	Pod           string   `hidden:""`
	PodIdFile     string   `name:"pod-id-file" hidden:""`
	InitCtr       string   `name:"init-ctr" hidden:""`
	DecryptionKey []string `hidden:"" sep:"none"`
	RdtClass      string   `hidden:""`
	IntelRdt      string   `name:"intel-rdt" hidden:""`
	Permissive    bool     `hidden:""`
	Isolation     string   `hidden:""`
	Link          []string `hidden:"" sep:"none"`
	// DisableContentTrust does nothing: docker dropped the trust it disables.
	DisableContentTrust bool `hidden:"" negatable:""`
}

// refused says why, and what to do instead.
func (f *createFlags) refused(*Config) error {
	for _, x := range []struct {
		given     bool
		flag, why string
	}{
		{f.RdtClass+f.IntelRdt != "", "--rdt-class", "kist does not manage Intel's cache and memory bandwidth classes"},
		{len(f.DecryptionKey) > 0, "--decryption-key", "kist does not decrypt images; pull it with skopeo copy --decryption-key, then kist load"},
		{slices.Contains(f.GroupAdd, "keep-groups"), "--group-add keep-groups", "a container never gets the caller's groups; name them"},
		{f.Permissive, "--permissive", "kist makes no SELinux policy; --security-opt label=disable leaves it out"},
		{f.Isolation != "" && f.Isolation != "default", "--isolation", "only Windows has it"},
	} {
		if x.given {
			return fmt.Errorf("%s: %s", x.flag, x.why)
		}
	}
	switch {
	case f.UseApiSocket:
		return ui.Hint(errors.New("--use-api-socket: there is no daemon whose socket a container could have"),
			"kist system service unix:///run/kist.sock, then -v /run/kist.sock:/var/run/docker.sock")
	case f.Pod+f.PodIdFile+f.InitCtr != "":
		return ui.Hint(errors.New("--pod: kist has no pods; containers can share the namespaces of one"),
			"kist run --network container:NAME --ipc container:NAME --pid container:NAME")
	case len(f.Link) > 0:
		return ui.Hint(errors.New("--link: kist has no links; containers on one network find each other by name"),
			"kist network create NET, then --network NET for both")
	}
	return nil
}
