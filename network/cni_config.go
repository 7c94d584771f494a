package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
)

// maxCNI bounds a configuration.
const maxCNI = 1 << 20

// readCNI reads a configuration of one plugin or of a chain. It becomes a chain
// with a name: the network's where it says none.
func readCNI(file, name string) (json.RawMessage, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCNI+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxCNI {
		return nil, fmt.Errorf("larger than %d bytes", maxCNI)
	}
	return chainOf(data, name)
}

// chainOf is the configuration as a chain of plugins that libcni takes.
func chainOf(data []byte, name string) (json.RawMessage, error) {
	var c map[string]any
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	if c == nil {
		return nil, errors.New("not a JSON object")
	}
	if c["name"] == nil {
		c["name"] = name
	}
	if _, chain := c["plugins"]; !chain {
		c = map[string]any{"cniVersion": c["cniVersion"], "name": c["name"], "plugins": []any{c}}
	}
	if c["cniVersion"] == nil {
		c["cniVersion"] = "0.2.0" // CNI: a configuration without one
	}
	data, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	list, err := libcni.NetworkConfFromBytes(data)
	if err != nil {
		return nil, err
	}
	if err := utils.ValidateNetworkName(list.Name); err != nil {
		return nil, fmt.Errorf("name %q: %s", list.Name, err.Msg)
	}
	return data, nil
}
