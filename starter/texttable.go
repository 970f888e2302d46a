package main

import (
	"io"
	"slices"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// textTable prints aligned columns without lines, for lists.
type textTable struct {
	t *tablewriter.Table
}

func newTextTable(w io.Writer, header ...string) *textTable {
	t := tablewriter.NewTable(w,
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Borders:  tw.BorderNone,
			Settings: tw.Settings{Separators: tw.SeparatorsNone, Lines: tw.LinesNone},
		})),
		tablewriter.WithHeaderAlignment(tw.AlignLeft),
		tablewriter.WithRowAlignment(tw.AlignLeft),
		tablewriter.WithHeaderAutoFormat(tw.Off),
		tablewriter.WithPadding(tw.Padding{Right: "  "}),
	)
	t.Header(header)
	return &textTable{t: t}
}

func (t *textTable) row(cells ...string) { _ = t.t.Append(cells) } // fails only for values that are no strings

func (t *textTable) flush() error { return t.t.Render() }

func newestFirst(runs []*artifact.RunRecord) {
	slices.SortFunc(runs, func(a, b *artifact.RunRecord) int { return b.Started.Compare(a.Started) })
}
