package reports

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// superscripts are the letters a to z as small raised ones; Unicode has no raised q.
var superscripts = []rune("ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖ\u146bʳˢᵗᵘᵛʷˣʸᶻ")

func superscript(letters []string) string {
	var b strings.Builder
	for i, l := range letters {
		if i > 0 {
			b.WriteRune('˒')
		}
		for _, r := range l {
			b.WriteRune(superscripts[r-'a'])
		}
	}
	return b.String()
}

// renderText prints t for a terminal: "*" marks the best value, raised letters lead to
// the footnotes below the table.
func renderText(buf *bytes.Buffer, t *Table) error {
	notes := newNoteSet(t)
	fmt.Fprintf(buf, "%s%s\n", t.Title, superscript(notes.letters(t.Marks)))

	var grid bytes.Buffer
	aligns := make([]tw.Align, len(t.Columns))
	header := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		aligns[i] = tw.AlignRight
		if c.Text {
			aligns[i] = tw.AlignLeft
		}
		header[i] = c.Name + superscript(notes.letters(c.Marks))
		if c.Unit != "" {
			header[i] += "\n(" + c.Unit + ")"
		}
	}
	for _, g := range t.groups() {
		for i := g.First; i < g.First+g.Width; i++ {
			name := ""
			if i == g.First {
				name = g.Name
			}
			header[i] = name + "\n" + header[i]
		}
	}
	table := tablewriter.NewTable(&grid,
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Symbols: tw.NewSymbols(tw.StyleLight),
			Borders: tw.Border{Left: tw.Off, Right: tw.Off, Top: tw.On, Bottom: tw.On},
			Settings: tw.Settings{
				Separators: tw.Separators{BetweenColumns: tw.Off, BetweenRows: tw.Off, ShowHeader: tw.On},
				Lines:      tw.Lines{ShowHeaderLine: tw.On, ShowTop: tw.On, ShowBottom: tw.On},
			},
		})),
		tablewriter.WithHeaderAutoFormat(tw.Off),
		tablewriter.WithHeaderAutoWrap(tw.WrapNone),
		tablewriter.WithRowAutoWrap(tw.WrapNone),
		tablewriter.WithHeaderAlignmentConfig(tw.CellAlignment{PerColumn: aligns}),
		tablewriter.WithRowAlignmentConfig(tw.CellAlignment{PerColumn: aligns}),
		tablewriter.WithTrimSpace(tw.Off),
	)
	table.Header(header)
	section := ""
	for _, r := range t.Rows {
		if r.Section != "" && r.Section != section {
			line := make([]string, len(t.Columns))
			line[0] = "── " + r.Section
			if err := table.Append(line); err != nil {
				return err
			}
		}
		section = r.Section
		line := make([]string, len(t.Columns))
		for j, c := range r.Cells {
			line[j] = c.text(t.Columns[j], notes)
			if j == 0 {
				if r.Minor {
					line[j] = "  " + line[j]
				}
				line[j] += superscript(notes.letters(r.Marks))
			}
		}
		if err := table.Append(line); err != nil {
			return err
		}
	}
	if err := table.Render(); err != nil {
		return err
	}
	for line := range strings.Lines(grid.String()) { // padding at line ends only makes noise in files
		buf.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	if t.Caption != "" {
		writeWrapped(buf, t.Caption, "")
	}
	for _, l := range t.textLegend() {
		writeWrapped(buf, l, "")
	}
	for _, n := range notes.notes() {
		writeWrapped(buf, strings.TrimSpace(superscript(splitLetters(n.Letter))+" "+n.Text), "  ")
	}
	return nil
}

func splitLetters(l string) []string {
	if l == "" {
		return nil
	}
	return []string{l}
}

func (t *Table) textLegend() []string {
	l := t.legend()
	for i := range l {
		l[i] = strings.Replace(l[i], "Best values are marked", "* best value, marked", 1)
	}
	return l
}

// text prints c on one line, with the published value on a second.
func (c Cell) text(col Column, notes *noteSet) string {
	p := c.parts(col)
	s := p.main
	if col.Text {
		var wrapped bytes.Buffer
		wrapAt(&wrapped, s, "", proseWidth)
		s = strings.TrimSuffix(wrapped.String(), "\n")
	}
	if c.Best {
		s += "*"
	}
	s += superscript(notes.letters(notes.cellMarks(c)))
	if p.count != "" {
		s += " (" + p.count + ")"
	}
	if p.published != "" {
		s += "\npub " + p.published
	}
	return s
}

// Captions and footnotes are read, so they wrap; tables are scanned. Prose in a cell
// wraps early, labels stay whole.
const (
	textWidth  = 100
	proseWidth = 56
)

// prose reports whether column j holds sentences rather than labels.
func (t *Table) prose(j int) bool {
	for _, r := range t.Rows {
		if t.Columns[j].Text && len([]rune(r.Cells[j].Text)) > proseWidth {
			return true
		}
	}
	return false
}

// writeWrapped writes s in lines of at most textWidth runes, later ones indented.
func writeWrapped(buf *bytes.Buffer, s, indent string) { wrapAt(buf, s, indent, textWidth) }

func wrapAt(buf *bytes.Buffer, s, indent string, width int) {
	n := 0
	for i, w := range strings.Fields(s) {
		l := len([]rune(w))
		switch {
		case i == 0:
		case n+1+l > width:
			buf.WriteString("\n" + indent)
			n = len(indent)
		default:
			buf.WriteByte(' ')
			n++
		}
		buf.WriteString(w)
		n += l
	}
	buf.WriteByte('\n')
}
