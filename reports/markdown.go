package reports

import (
	"bytes"
	"fmt"
	"strings"
)

// markdownEscape keeps cell text from being read as Markdown or HTML.
var markdownEscape = strings.NewReplacer(`\`, `\\`, "|", `\|`, "*", `\*`, "_", `\_`, "`", "\\`",
	"<", "&lt;", ">", "&gt;", "[", `\[`, "]", `\]`, "\n", " ")

// renderMarkdown prints t as a GitHub-flavoured Markdown table: bold marks the best
// value, raised letters lead to the footnotes below the table.
func renderMarkdown(buf *bytes.Buffer, t *Table) {
	notes := newNoteSet(t)
	fmt.Fprintf(buf, "### %s%s\n\n", markdownEscape.Replace(t.Title), sup(notes.letters(t.Marks)))
	for _, c := range t.Columns {
		name := markdownEscape.Replace(c.header())
		if c.Group != "" {
			name = markdownEscape.Replace(c.Group) + "<br>" + name
		}
		fmt.Fprintf(buf, "| %s%s ", name, sup(notes.letters(c.Marks)))
	}
	buf.WriteString("|\n")
	for _, c := range t.Columns {
		if c.Text {
			buf.WriteString("|:---")
		} else {
			buf.WriteString("|---:")
		}
	}
	buf.WriteString("|\n")
	section := ""
	for _, r := range t.Rows {
		if r.Section != "" && r.Section != section {
			fmt.Fprintf(buf, "| **%s** %s|\n", markdownEscape.Replace(r.Section), strings.Repeat("| ", len(t.Columns)-1))
		}
		section = r.Section
		for j, c := range r.Cells {
			s := c.markdown(t.Columns[j], notes)
			if j == 0 {
				if r.Minor {
					s = "&emsp;" + s
				}
				s += sup(notes.letters(r.Marks))
			}
			fmt.Fprintf(buf, "| %s ", s)
		}
		buf.WriteString("|\n")
	}
	buf.WriteByte('\n')
	if t.Caption != "" {
		fmt.Fprintf(buf, "%s\n\n", markdownEscape.Replace(t.Caption))
	}
	if l := t.legend(); len(l) > 0 {
		fmt.Fprintf(buf, "%s\n\n", markdownEscape.Replace(strings.Join(l, " ")))
	}
	for _, n := range notes.notes() {
		fmt.Fprintf(buf, "- %s\n", strings.TrimSpace(sup(splitLetters(n.Letter))+" "+markdownEscape.Replace(n.Text)))
	}
}

// sup raises footnote letters in Markdown.
func sup(letters []string) string {
	if len(letters) == 0 {
		return ""
	}
	return "<sup>" + strings.Join(letters, ",") + "</sup>"
}

func (c Cell) markdown(col Column, notes *noteSet) string {
	p := c.parts(col)
	s := markdownEscape.Replace(p.main)
	if c.Best {
		s = "**" + s + "**"
	}
	s += sup(notes.letters(notes.cellMarks(c)))
	if p.count != "" {
		s += " (" + p.count + ")"
	}
	if p.published != "" {
		s += "<br>pub " + p.published
	}
	return s
}
