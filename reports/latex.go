package reports

import (
	"bytes"
	"fmt"
	"strings"
)

// latexEscape keeps text from being read as TeX, and maps our signs to commands that
// pdfLaTeX knows without more packages.
var latexEscape = strings.NewReplacer(`\`, `\textbackslash{}`, "&", `\&`, "%", `\%`, "$", `\$`, "#", `\#`,
	"_", `\_`, "{", `\{`, "}", `\}`, "~", `\textasciitilde{}`, "^", `\textasciicircum{}`,
	"<", `\textless{}`, ">", `\textgreater{}`, "|", `\textbar{}`, "\u00a0", "~", "\u2212", `$-$`, "±", `$\pm$`, "–", `--`, "≥", `$\geq$`, "≤", `$\leq$`, "×", `$\times$`, "Σ", `$\Sigma$`,
	"Δ", `$\Delta$`, "τ", `$\tau$`, "→", `$\rightarrow$`, "…", `\dots{}`, "\n", " ")

// renderLaTeX prints t as a table float for the booktabs package.
func renderLaTeX(buf *bytes.Buffer, t *Table) {
	notes := newNoteSet(t)
	var spec strings.Builder
	for j, c := range t.Columns {
		switch {
		case c.Text && t.prose(j):
			spec.WriteString("p{6cm}")
		case c.Text:
			spec.WriteByte('l')
		default:
			spec.WriteByte('r')
		}
	}
	fmt.Fprintf(buf, "%% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n\\caption{%s%s}\n\\label{tab:%s}\n",
		latexEscape.Replace(t.Title), latexSup(notes.letters(t.Marks)), t.Name)
	fmt.Fprintf(buf, "\\begin{tabular}{%s}\n\\toprule\n", spec.String())
	if groups := t.groups(); groups != nil {
		var heads, rules []string
		for _, g := range groups {
			if g.Name == "" {
				heads = append(heads, "")
				continue
			}
			heads = append(heads, fmt.Sprintf(`\multicolumn{%d}{c}{%s}`, g.Width, latexEscape.Replace(g.Name)))
			rules = append(rules, fmt.Sprintf(`\cmidrule(lr){%d-%d}`, g.First+1, g.First+g.Width))
		}
		fmt.Fprintf(buf, "%s \\\\\n%s\n", strings.Join(heads, " & "), strings.Join(rules, " "))
	}
	var names []string
	for _, c := range t.Columns {
		names = append(names, latexEscape.Replace(c.header())+latexSup(notes.letters(c.Marks)))
	}
	fmt.Fprintf(buf, "%s \\\\\n\\midrule\n", strings.Join(names, " & "))
	section := ""
	for i, r := range t.Rows {
		if r.Section != "" && r.Section != section {
			if i > 0 {
				buf.WriteString("\\midrule\n")
			}
			fmt.Fprintf(buf, "\\multicolumn{%d}{l}{\\textit{%s}} \\\\\n", len(t.Columns), latexEscape.Replace(r.Section))
		}
		section = r.Section
		cells := make([]string, len(r.Cells))
		for j, c := range r.Cells {
			cells[j] = c.latex(t.Columns[j], notes)
			if j == 0 {
				if r.Minor {
					cells[j] = `\quad ` + cells[j]
				}
				cells[j] += latexSup(notes.letters(r.Marks))
			}
		}
		fmt.Fprintf(buf, "%s \\\\\n", strings.Join(cells, " & "))
	}
	buf.WriteString("\\bottomrule\n\\end{tabular}\n")
	var below []string
	if t.Caption != "" {
		below = append(below, latexEscape.Replace(t.Caption))
	}
	for _, l := range t.legend() {
		below = append(below, latexEscape.Replace(l))
	}
	for _, n := range notes.notes() {
		below = append(below, strings.TrimSpace(latexSup(splitLetters(n.Letter))+" "+latexEscape.Replace(n.Text)))
	}
	if len(below) > 0 {
		fmt.Fprintf(buf, "\\par\\smallskip\n{\\footnotesize\n%s\\par}\n", strings.Join(below, "\\par\n"))
	}
	buf.WriteString("\\end{table}\n")
}

func latexSup(letters []string) string {
	if len(letters) == 0 {
		return ""
	}
	return `\textsuperscript{` + strings.Join(letters, ",") + "}"
}

func (c Cell) latex(col Column, notes *noteSet) string {
	p := c.parts(col)
	s := latexEscape.Replace(p.main)
	if c.Best {
		s = `\textbf{` + s + "}"
	}
	s += latexSup(notes.letters(notes.cellMarks(c)))
	if p.count != "" {
		s += " (" + p.count + ")"
	}
	if p.published != "" {
		s += ` {\scriptsize pub ` + latexEscape.Replace(p.published) + "}"
	}
	return s
}
