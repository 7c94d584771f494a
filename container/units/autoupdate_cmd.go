package units

import (
	"context"
	"fmt"

	"github.com/kist-containers/kist/container"
	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/ui"
)

// AutoUpdateCmd is `kist auto-update`.
type AutoUpdateCmd struct {
	Authfile  string `help:"File with credentials, instead of docker's and containers' own." placeholder:"FILE"`
	TLSVerify bool   `name:"tls-verify" default:"true" negatable:"" help:"Require HTTPS with a valid certificate."`
	DryRun    bool   `help:"Only say what would be updated."`
	Rollback  bool   `negatable:"" default:"true" help:"Where the restart of a unit fails, restart it with the image it had."`
	Format    string `help:"table, table TEMPLATE, json, or a Go template." placeholder:"FORMAT"`
}

func (*AutoUpdateCmd) Help() string {
	return `  kist auto-update --dry-run                          what has a newer image
  AutoUpdate=registry                                 in a .container file: ask the registry
  kist run --label io.containers.autoupdate=local …   in a unit: an image made here
  systemctl enable --now kist-auto-update.timer       every day; see kist system install`
}

// updateRow is a row as podman's templates know it.
type updateRow struct{ Unit, Container, ContainerName, ContainerID, Image, Policy, Updated string }

// Run updates what asks for it and prints what became of each.
func (c *AutoUpdateCmd) Run(ctx context.Context, e *container.Engine, s *image.Store, out *ui.Output) error {
	flags := image.RegistryFlags{Authfile: c.Authfile, TLSVerify: c.TLSVerify}
	progress := out.Progress()
	u := &updater{images: s, systemd: manager{e.Rootless}, dry: c.DryRun, rollback: c.Rollback,
		pull: image.PullOptions{Progress: progress, Registry: flags.Config()}}
	list, errs := tasks(e)
	errs = append(errs, u.run(ctx, list)...)
	progress.Close()
	rows := []any{}
	for _, t := range list {
		id := t.ID[:12]
		rows = append(rows, updateRow{t.unit, id + " (" + t.Name + ")", t.Name, t.ID, t.Image, t.policy, t.updated})
	}
	table := ui.Table{
		Headers: map[string]string{"Unit": "UNIT", "Container": "CONTAINER", "ContainerName": "CONTAINER NAME", "ContainerID": "CONTAINER ID",
			"Image": "IMAGE", "Policy": "POLICY", "Updated": "UPDATED"},
		Default: "{{.Unit}}\t{{.Container}}\t{{.Image}}\t{{.Policy}}\t{{.Updated}}",
	}
	errs = append(errs, table.Write(out.Out, c.Format, false, rows))
	return report(out, "auto-update", errs)
}

// report tells of all errors but the last, which it returns.
func report(out *ui.Output, verb string, errs []error) error {
	var last error
	for _, err := range errs {
		if err == nil {
			continue
		}
		if last != nil {
			out.Notef("%s", ui.ErrorText(last))
		}
		last = fmt.Errorf("%s: %w", verb, err)
	}
	return last
}
