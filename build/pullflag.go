package build

import (
	"fmt"

	"github.com/alecthomas/kong"
)

// pullFlag is --pull: alone it means always, with = it takes a policy.
type pullFlag string

// IsBool lets the flag stand alone. See kong.BoolMapper.
func (*pullFlag) IsBool() bool { return true }

// Decode reads the policy.
func (p *pullFlag) Decode(ctx *kong.DecodeContext) error {
	*p = "always"
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		return nil
	}
	switch v := fmt.Sprint(ctx.Scan.Pop().Value); v {
	case "true", "always":
	case "false", "missing", "ifmissing":
		*p = "missing"
	case "never", "newer":
		*p = pullFlag(v)
	default:
		return fmt.Errorf("want always, missing or never, not %q", v)
	}
	return nil
}
