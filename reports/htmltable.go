package reports

import (
	"bytes"
	"embed"
	"html/template"
	"strings"
)

// tableView is what the HTML templates print of a Table.
type tableView struct {
	Name, Title, Caption string
	// Dense tables have many columns.
	Dense      bool
	TitleMarks []noteLink
	Groups     []span
	Columns    []columnView
	Sections   []sectionView
	Legend     string
	Notes      []note
}

type columnView struct {
	Name, Unit string
	Text       bool
	Marks      []noteLink
}

// sectionView is a run of rows under one heading.
type sectionView struct {
	Name string
	Rows []rowView
}

type rowView struct {
	Minor bool
	Cells []cellView
}

type cellView struct {
	Text, Best    bool
	Main, Spread  string
	Count         string
	Published     string
	Detail        string // what a pointer over the cell shows
	Source        string // anchor of the first source
	Marks         []noteLink
	Missing, Head bool
}

// noteLink is a footnote letter and the anchor of its text.
type noteLink struct{ Letter, Anchor string }

// view prepares t for a template. anchor maps the sources of a cell to the anchor of their
// provenance, "" if there is none.
func (t *Table) view(anchor func(sources []string) string) tableView {
	notes := newNoteSet(t)
	links := func(marks []string) []noteLink {
		var out []noteLink
		for _, l := range notes.letters(marks) {
			out = append(out, noteLink{l, "note-" + t.Name + "-" + l})
		}
		return out
	}
	v := tableView{Name: t.Name, Title: t.Title, Caption: t.Caption, TitleMarks: links(t.Marks), Dense: len(t.Columns) > 8,
		Groups: t.groups(), Legend: strings.Join(t.legend(), " "), Notes: notes.notes()}
	for _, c := range t.Columns {
		v.Columns = append(v.Columns, columnView{c.Name, c.Unit, c.Text, links(c.Marks)})
	}
	for i, r := range t.Rows {
		if i == 0 || r.Section != t.Rows[i-1].Section {
			v.Sections = append(v.Sections, sectionView{Name: r.Section})
		}
		row := rowView{Minor: r.Minor}
		for j, c := range r.Cells {
			p := c.parts(t.Columns[j])
			cell := cellView{Text: t.Columns[j].Text, Best: c.Best, Count: p.count, Published: p.published,
				Missing: c.Text == "" && !c.HasValue(), Head: j == 0, Marks: links(notes.cellMarks(c)),
				Detail: c.detail(t.Columns[j])}
			cell.Main, cell.Spread, _ = strings.Cut(p.main, " ± ")
			if c.HasValue() {
				cell.Source = anchor(c.Sources)
			}
			if j == 0 {
				cell.Marks = append(cell.Marks, links(r.Marks)...)
			}
			row.Cells = append(row.Cells, cell)
		}
		s := &v.Sections[len(v.Sections)-1]
		s.Rows = append(s.Rows, row)
	}
	return v
}

// detail says everything about a number in words.
func (c Cell) detail(col Column) string {
	if !c.HasValue() {
		return ""
	}
	var out []string
	col = col.of(c)
	if c.HasInterval() {
		out = append(out, "95 % interval "+col.formatNumber(c.Low)+" to "+col.formatNumber(c.High))
	}
	if c.N > 0 {
		s := "n = " + count(c.N)
		if c.Wanted > c.N {
			s += " of " + count(c.Wanted)
		}
		out = append(out, s)
	}
	if s := countsText(c); s != "" {
		out = append(out, s)
	}
	if len(c.Sources) > 0 {
		out = append(out, "from "+strings.Join(c.Sources[:min(3, len(c.Sources))], ", "))
		if more := len(c.Sources) - 3; more > 0 {
			out[len(out)-1] += " and " + count(more) + " more"
		}
	}
	return strings.Join(out, "; ")
}

// RenderPage makes an HTML page of tables alone, in the style of [RenderReport]: title stands above them, the problems with what could
// not be read first, and command is what prints the page again.
func RenderPage(title, command string, problems []string, tables ...*Table) ([]byte, error) {
	v := struct {
		Title, Command string
		Problems       []string
		Tables         []tableView
	}{title, command, problems, nil}
	for _, t := range tables {
		if err := t.Validate(); err != nil {
			return nil, err
		}
		v.Tables = append(v.Tables, t.view(func([]string) string { return "" }))
	}
	var buf bytes.Buffer
	err := pages.ExecuteTemplate(&buf, "tables", v)
	return buf.Bytes(), err
}

// renderHTMLTable prints t as an HTML fragment for another page; [RenderReport] and [RenderPage] make whole ones.
func renderHTMLTable(buf *bytes.Buffer, t *Table) error {
	return pages.ExecuteTemplate(buf, "table", t.view(func([]string) string { return "" }))
}

//go:embed html
var templates embed.FS

var pages = template.Must(template.New("").ParseFS(templates, "html/*.html"))
