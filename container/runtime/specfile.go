package runtime

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/kist-containers/kist/internal/lazyjson"
	"github.com/kist-containers/kist/internal/state"
)

// ReadSpec reads a config.json.
func ReadSpec(file string) (*specs.Spec, error) {
	s := new(specs.Spec)
	return s, state.ReadJSON(file, s)
}

// WriteSpec writes a config.json.
func WriteSpec(file string, spec *specs.Spec) error {
	data, err := lazyjson.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}
