package build

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kist-containers/kist/internal/ui"
)

// What --provenance records: min leaves out values that may be confidential,
// as BuildKit's does.
const (
	provenanceMin = "min"
	provenanceMax = "max"
)

// parseProvenance reads --provenance: a boolean, or mode=min|max and keys of
// BuildKit's. It returns the mode, "" for none, and the builder's ID.
func parseProvenance(s string) (mode, builder string, err error) {
	switch s {
	case "", "false":
		return "", "", nil
	case "true":
		return provenanceMin, "", nil
	}
	mode = provenanceMin
	for kv := range strings.SplitSeq(s, ",") {
		k, v, _ := strings.Cut(kv, "=")
		switch {
		case k == "type" && v == "provenance", k == "version" && v == "v1", k == "disabled" && v == "false":
		case k == "disabled" && v == "true":
			return "", "", nil
		case k == "mode" && (v == provenanceMin || v == provenanceMax):
			mode = v
		case k == "builder-id" && v != "":
			builder = v
		default:
			return "", "", fmt.Errorf("--provenance %s: %q: want true, false, mode=min or mode=max, builder-id=URI, version=v1", s, kv)
		}
	}
	return mode, builder, nil
}

// attestations reads --provenance, --sbom and --attest.
func (c *Cmd) attestations(r *Request) error {
	wanted := c.Provenance
	for _, a := range c.Attest {
		switch {
		case strings.HasPrefix(a, "type=provenance"):
			wanted = a
		case !strings.Contains(a, "disabled=true"):
			return noSBOM("--attest " + a)
		}
	}
	if c.Sbom != "" && c.Sbom != "false" {
		return noSBOM("--sbom " + c.Sbom)
	}
	var err error
	if r.Provenance, r.BuilderID, err = parseProvenance(wanted); err != nil || r.Provenance == "" {
		return err
	}
	tagged := len(c.Tag) > 0 || slices.ContainsFunc(c.Output, func(o string) bool { return strings.Contains(","+o, ",name=") })
	if !tagged {
		return ui.Hint(errors.New("--provenance: the attestation lies in an index, and an index wants a name"), "kist build -t NAME --provenance …")
	}
	return nil
}

func noSBOM(flag string) error {
	return ui.Hint(fmt.Errorf("%s: kist runs no scanner, which would be a foreign image with the build's files", flag), "scan the result: kist save -o image.tar NAME")
}
