package image

import (
	"fmt"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/ui"
)

// A Step is one line of an image's history.
type Step struct {
	// ID is the image's for the newest step and "" for all others, which have no
	// image of their own.
	ID        string
	Created   time.Time
	CreatedBy string
	Comment   string
	// Size is the layer's, 0 for a step that made none.
	Size int64
	Tags []string
}

// History lists how img was made, newest first.
func (s *Store) History(img *Image) []Step {
	var steps []Step
	next := 0
	for _, h := range img.Config.History {
		step := Step{Created: h.Created.Time, CreatedBy: h.CreatedBy, Comment: h.Comment}
		if !h.EmptyLayer && next < len(img.Layers) {
			if rec, err := s.layerRecord(img.Layers[next].ChainID); err == nil {
				step.Size = rec.Size
			}
			next++
		}
		steps = append([]Step{step}, steps...)
	}
	// Layers that the history does not tell of are shown all the same.
	for ; next < len(img.Layers); next++ {
		rec, _ := s.layerRecord(img.Layers[next].ChainID)
		steps = append([]Step{{Created: img.Created, Size: rec.Size}}, steps...)
	}
	if len(steps) > 0 {
		steps[0].ID, steps[0].Tags = img.ID, img.Names
	}
	return steps
}

// HistoryCmd is `kist history`.
type HistoryCmd struct {
	Format   string `help:"table, json or a template." placeholder:"FORMAT"`
	Human    bool   `short:"H" default:"true" negatable:"" help:"Readable sizes and times."`
	NoTrunc  bool   `help:"Show everything in full."`
	Quiet    bool   `short:"q" help:"Print only IDs."`
	Platform string `help:"The image of a list for this platform." placeholder:"PLATFORM"`
	Image    string `arg:"" help:"Name or ID."`
}

type historyRow struct{ Comment, CreatedAt, CreatedBy, CreatedSince, ID, Size string }

// Run prints the steps.
func (c *HistoryCmd) Run(s *Store, out *ui.Output) error {
	img, err := s.ResolvePlatform(c.Image, c.Platform)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	var rows []any
	for _, st := range s.History(img) {
		rows = append(rows, c.row(st))
	}
	return ui.Table{
		Headers: map[string]string{
			"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY",
			"Size": "SIZE", "Comment": "COMMENT",
		},
		Default: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
		Quiet:   "{{.ID}}",
	}.Write(out.Out, c.Format, c.Quiet, rows)
}

func (c *HistoryCmd) row(st Step) historyRow {
	row := historyRow{
		ID: "<missing>", CreatedBy: strings.ReplaceAll(st.CreatedBy, "\t", " "), Comment: st.Comment,
		CreatedAt: st.Created.Local().Format(time.RFC3339), CreatedSince: ui.Ago(st.Created), Size: ui.Size(st.Size),
	}
	if st.ID != "" {
		row.ID = st.ID
		if !c.NoTrunc {
			row.ID = short(st.ID)
		}
	}
	if !c.NoTrunc {
		row.CreatedBy = ui.Ellipsis(row.CreatedBy, 45)
		row.Comment = ui.Ellipsis(row.Comment, 45)
	}
	if !c.Human {
		row.Size = itoa(st.Size)
		row.CreatedSince = row.CreatedAt
	}
	row.CreatedBy, row.Comment = ui.Escape(row.CreatedBy), ui.Escape(row.Comment)
	return row
}
