package runtime

import (
	"encoding/json"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/internal/state"
)

// linuxSpec is a Spec as JSON, its parts for other platforms left out:
// encoding/json learns the types of all fields before it encodes or decodes the
// first, and these, which are never there, take as long as all those that are.
type linuxSpec struct {
	*specs.Spec
	Solaris *struct{} `json:"solaris,omitempty"`
	Windows *struct{} `json:"windows,omitempty"`
	VM      *struct{} `json:"vm,omitempty"`
	ZOS     *struct{} `json:"zos,omitempty"`
	FreeBSD *struct{} `json:"freebsd,omitempty"`
}

// ReadSpec reads a config.json.
func ReadSpec(file string) (*specs.Spec, error) {
	s := linuxSpec{Spec: new(specs.Spec)}
	return s.Spec, state.ReadJSON(file, &s)
}

// WriteSpec writes a config.json.
func WriteSpec(file string, spec *specs.Spec) error {
	data, err := json.Marshal(linuxSpec{Spec: spec})
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}
