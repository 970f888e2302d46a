package reports

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// latexSigns maps characters that TeX reads as commands, and signs that pdfLaTeX's usual fonts lack, to commands that every LaTeX knows.
var latexSigns = map[rune]string{
	'\\': `\textbackslash{}`, '&': `\&`, '%': `\%`, '$': `\$`, '#': `\#`, '_': `\_`, '{': `\{`, '}': `\}`,
	'~': `\textasciitilde{}`, '^': `\textasciicircum{}`, '`': `\textasciigrave{}`, '<': `\textless{}`, '>': `\textgreater{}`, '|': `\textbar{}`,
	'\n': " ", '\r': " ", '\t': " ", '\u00a0': "~", '\u202f': `\,`, '\u2009': `\,`,
	'−': `$-$`, '±': `$\pm$`, '×': `$\times$`, '÷': `$\div$`, '≥': `$\geq$`, '≤': `$\leq$`, '≠': `$\neq$`, '≈': `$\approx$`, '∞': `$\infty$`, '·': `$\cdot$`, '√': `$\surd$`,
	'→': `$\rightarrow$`, '←': `$\leftarrow$`, '↑': `$\uparrow$`, '↓': `$\downarrow$`, '…': `\dots{}`, '–': `--`, '—': `---`, '•': `\textbullet{}`,
	'α': `$\alpha$`, 'β': `$\beta$`, 'γ': `$\gamma$`, 'δ': `$\delta$`, 'Δ': `$\Delta$`, 'ε': `$\varepsilon$`, 'θ': `$\theta$`, 'λ': `$\lambda$`, 'μ': `$\mu$`, 'µ': `$\mu$`,
	'π': `$\pi$`, 'ρ': `$\rho$`, 'σ': `$\sigma$`, 'Σ': `$\Sigma$`, '∑': `$\Sigma$`, 'τ': `$\tau$`, 'φ': `$\phi$`, 'χ': `$\chi$`, 'ω': `$\omega$`,
	'²': `$^2$`, '³': `$^3$`, '¹': `$^1$`,
}

// latexText keeps text from being read as TeX. Characters beyond European alphabets are kept for engines that know them
// (XeLaTeX, LuaLaTeX, given a font that has them) and spelled as code points for pdfLaTeX, which would stop at them.
func latexText(s string) string {
	var b strings.Builder
	var beyond []rune
	flush := func() {
		if len(beyond) == 0 {
			return
		}
		var codes []string
		for _, r := range beyond {
			codes = append(codes, fmt.Sprintf("U+%04X", r))
		}
		fmt.Fprintf(&b, `\ifdefined\Umathchar %s\else %s\fi{}`, string(beyond), strings.Join(codes, " "))
		beyond = beyond[:0]
	}
	before := ' '
	for _, r := range s {
		sign, known := latexSigns[r]
		switch {
		case known:
		case r == '"' && strings.ContainsRune(" ([{", before):
			sign, known = "``", true
		case r == '"':
			sign, known = "''", true
		case r == '-' && before == '-':
			sign, known = "{}-", true // two hyphens are not a dash
		case r < ' ' || r == unicode.ReplacementChar:
			sign, known = "?", true
		case r <= '~', unicode.Is(unicode.Latin, r) && r < 0x180, strings.ContainsRune("‘’“”«»¡¿§¶©®°€†‡", r):
			sign, known = string(r), true
		}
		before = r
		if !known {
			beyond = append(beyond, r)
			continue
		}
		flush()
		b.WriteString(sign)
	}
	flush()
	return b.String()
}

// latexTall is how many lines of rows surely fit a page at full size with heads and notes; longer tables may be scaled to its height. Rows
// of more than latexLines, which that would make hard to read, are divided.
const (
	latexTall  = 32
	latexLines = 44
)

// renderLaTeX prints t as a float for the packages booktabs, graphicx and array. A table that is wider than the text, or higher than the
// page, is scaled down to it. One of many rows goes on in further floats of the same number; the notes stand below the last.
func renderLaTeX(buf *bytes.Buffer, t *Table) {
	notes := newNoteSet(t)
	buf.WriteString("% needs \\usepackage{booktabs,graphicx,array}\n")
	ends := latexParts(t)
	from := 0
	for i, to := range ends {
		title, label := latexTitle(t.Title), "tab:"+t.Name
		if len(ends) > 1 {
			title += fmt.Sprintf(" (part %d of %d)", i+1, len(ends))
		}
		if i > 0 {
			label += fmt.Sprintf("-%d", i+1)
			buf.WriteString("\n\\addtocounter{table}{-1}\n")
		}
		fmt.Fprintf(buf, "\\begin{table}\n\\centering\n\\caption{%s%s}\n\\label{%s}\n\\smallskip\n", title, latexSup(notes.letters(t.Marks)), label)
		latexTabular(buf, t, t.Rows[from:to], notes)
		if i == len(ends)-1 {
			latexNotes(buf, t, notes)
		}
		buf.WriteString("\\end{table}\n")
		from = to
	}
}

// latexParts returns where the parts of a table's rows end: of one part where they fit a page. A part ends with a section where that
// leaves it at least half full.
func latexParts(t *Table) []int {
	var ends []int
	height, section, above := 0, 0, 0 // the part's height, where its last section begins, and the height above that
	for i, r := range t.Rows {
		h := t.latexHeight(r)
		if i == 0 || r.Section != t.Rows[i-1].Section {
			section, above = i, height
			if r.Section != "" {
				h++
			}
		}
		if height > 0 && height+h > latexLines {
			if above > latexLines/2 {
				ends, height = append(ends, section), height-above
			} else {
				ends, height = append(ends, i), 0
			}
			above = 0
		}
		height += h
	}
	return append(ends, len(t.Rows))
}

// latexHeight is about how many lines a row takes.
func (t *Table) latexHeight(r Row) int {
	prose := t.proseColumns()
	lines, counts, published := 1, 0, 0
	for j, c := range r.Cells {
		p := c.parts(t.Columns[j])
		switch {
		case t.prose(j):
			lines = max(lines, 1+len([]rune(p.main))*prose/latexProse)
		case t.Columns[j].Text && len([]rune(p.main)) > latexLabel:
			lines = max(lines, len(wrapWords(p.main, latexLabel)))
		}
		if p.count != "" {
			counts = 1
		}
		if p.published != "" {
			published = 1
		}
	}
	return lines + counts + published
}

// latexProse is about how many characters stand side by side in a table's columns of prose together.
const latexProse = 70

// proseColumns counts a table's columns of prose.
func (t *Table) proseColumns() int {
	n := 0
	for j := range t.Columns {
		if t.prose(j) {
			n++
		}
	}
	return n
}

// latexTabular prints some of a table's rows below its heads.
func latexTabular(buf *bytes.Buffer, t *Table, rows []Row, notes *noteSet) {
	prose := t.proseColumns()
	var spec strings.Builder
	for j, c := range t.Columns {
		switch {
		case c.Text && t.prose(j):
			fmt.Fprintf(&spec, `>{\raggedright\arraybackslash}p{%.2f\linewidth}`, min(0.55, 0.84/float64(prose)))
		case c.Text:
			spec.WriteByte('l')
		default:
			spec.WriteByte('r')
		}
	}
	body := &bytes.Buffer{}
	fmt.Fprintf(body, "\\begin{tabular}{%s}\n\\toprule\n", spec.String())
	if groups := t.groups(); groups != nil {
		var heads, rules []string
		for _, g := range groups {
			if g.Name == "" {
				heads = append(heads, "")
				continue
			}
			heads = append(heads, fmt.Sprintf(`\multicolumn{%d}{c}{%s}`, g.Width, latexStack("c", wrapWords(g.Name, 14*g.Width))))
			rules = append(rules, fmt.Sprintf(`\cmidrule(lr){%d-%d}`, g.First+1, g.First+g.Width))
		}
		fmt.Fprintf(body, "%s \\\\\n%s\n", strings.Join(heads, " & "), strings.Join(rules, " "))
	}
	var names []string
	for _, c := range t.Columns {
		if c.Text {
			names = append(names, latexText(c.header())+latexSup(notes.letters(c.Marks)))
			continue
		}
		lines := wrapWords(c.Name, 12)
		if c.Unit != "" {
			lines = append(lines, "("+c.Unit+")")
		}
		names = append(names, latexStack("r", lines)+latexSup(notes.letters(c.Marks)))
	}
	fmt.Fprintf(body, "%s \\\\\n\\midrule\n", strings.Join(names, " & "))
	section, height := "", 0
	for i, r := range rows {
		height += t.latexHeight(r)
		if r.Section != "" && r.Section != section {
			if i > 0 {
				body.WriteString("\\midrule\n")
			}
			height++
			fmt.Fprintf(body, "\\multicolumn{%d}{l}{\\textit{%s}} \\\\\n", len(t.Columns), latexText(r.Section))
		}
		section = r.Section
		cells, counts, published := make([]string, len(r.Cells)), make([]string, len(r.Cells)), make([]string, len(r.Cells))
		var below [][]string // what is said of the row's values in small rows of their own
		for j, c := range r.Cells {
			p := c.parts(t.Columns[j])
			cells[j] = c.latex(p, t.Columns[j].Text && !t.prose(j), notes)
			if j == 0 {
				if r.Minor {
					cells[j] = `\quad ` + cells[j]
				}
				cells[j] += latexSup(notes.letters(r.Marks))
			}
			counts[j], published[j] = latexSmall(p.count), latexSmall(p.published)
		}
		for _, small := range []struct {
			label string
			cells []string
		}{{"samples so far", counts}, {"published", published}} {
			if slices.ContainsFunc(small.cells, func(s string) bool { return s != "" }) {
				small.cells[0] = `\quad` + latexSmall(small.label)
				below = append(below, small.cells)
			}
		}
		// A row must not begin with what the line break before it would take for its argument.
		fmt.Fprintf(body, "{}%s \\\\\n", strings.Join(cells, " & "))
		for _, small := range below {
			fmt.Fprintf(body, "%s \\\\\n", strings.Join(small, " & "))
		}
	}
	body.WriteString("\\bottomrule\n\\end{tabular}")
	tabular := "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n" + body.String() + "}"
	if height > latexTall {
		tabular = "\\resizebox*{!}{\\ifdim\\totalheight>.7\\textheight .7\\textheight\\else\\totalheight\\fi}{%\n" + tabular + "}"
	}
	buf.WriteString(tabular + "\n")
}

// latexNotes prints what stands below a table.
func latexNotes(buf *bytes.Buffer, t *Table, notes *noteSet) {
	var below []string
	if t.Caption != "" {
		below = append(below, latexText(t.Caption))
	}
	for _, l := range t.legend() {
		switch l {
		case publishedLegend:
			l = "Below each value, the published one and, in parentheses, ours minus it."
		case bestLegend:
			l = "Bold: best value, marked where the paired test against every other row supports it."
		}
		below = append(below, latexText(l))
	}
	for _, n := range notes.notes() {
		below = append(below, strings.TrimSpace(latexSup(splitLetters(n.Letter))+" "+latexText(n.Text)))
	}
	if len(below) > 0 {
		fmt.Fprintf(buf, "\\par\\smallskip\n\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright\n%s\n\\end{minipage}\n", strings.Join(below, "\\par\n"))
	}
}

// latexStack prints lines above each other in one cell.
func latexStack(align string, lines []string) string {
	escaped := make([]string, len(lines))
	for i, l := range lines {
		escaped[i] = latexText(l)
	}
	if len(lines) < 2 {
		return strings.Join(escaped, "")
	}
	return `\shortstack[` + align + `]{{}` + strings.Join(escaped, `\\{}`) + "}"
}

// wrapWords breaks text into lines of at most width characters, words left whole.
func wrapWords(s string, width int) []string {
	var lines []string
	for _, word := range strings.Fields(s) {
		if n := len(lines); n > 0 && len([]rune(lines[n-1]))+1+len([]rune(word)) <= width {
			lines[n-1] += " " + word
			continue
		}
		lines = append(lines, word)
	}
	return lines
}

func latexSup(letters []string) string {
	if len(letters) == 0 {
		return ""
	}
	return `\textsuperscript{` + strings.Join(letters, ",") + "}"
}

// latexLabel is the width at which a label is broken into lines, so that one long name does not shrink a whole table.
const latexLabel = 28

// latex prints the cell itself; label says that it stands in a column of names.
func (c Cell) latex(p parts, label bool, notes *noteSet) string {
	s := latexText(p.main)
	if label && len([]rune(p.main)) > latexLabel {
		s = latexStack("l", wrapWords(p.main, latexLabel))
	}
	if c.Best {
		s = `\textbf{` + s + "}"
	}
	return s + latexSup(notes.letters(notes.cellMarks(c)))
}

func latexSmall(s string) string {
	if s == "" {
		return ""
	}
	return `{\scriptsize ` + latexText(s) + "}"
}

var tableNumber = regexp.MustCompile(`^Table (\d+)\. `)

// latexTitle leaves the counting of tables to LaTeX: a number in a title is the paper's.
func latexTitle(title string) string {
	number := tableNumber.FindStringSubmatch(title)
	if number == nil {
		return latexText(title)
	}
	return latexText(title[len(number[0]):] + " (the paper's Table " + number[1] + ")")
}
