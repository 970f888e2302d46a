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

// latexTall is how many lines surely fit a page at full size; longer tables may be scaled to its height.
const latexTall = 40

// renderLaTeX prints t as a float for the packages booktabs, graphicx and array. A table that is wider than the text, or higher than the page, is scaled down to it.
func renderLaTeX(buf *bytes.Buffer, t *Table) {
	notes := newNoteSet(t)
	prose := 0
	for j := range t.Columns {
		if t.prose(j) {
			prose++
		}
	}
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
	fmt.Fprintf(buf, "%% needs \\usepackage{booktabs,graphicx,array}\n\\begin{table}\n\\centering\n\\caption{%s%s}\n\\label{tab:%s}\n\\smallskip\n",
		latexTitle(t.Title), latexSup(notes.letters(t.Marks)), t.Name)
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
	section := ""
	for i, r := range t.Rows {
		if r.Section != "" && r.Section != section {
			if i > 0 {
				body.WriteString("\\midrule\n")
			}
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
	if strings.Count(body.String(), "\n") > latexTall {
		tabular = "\\resizebox*{!}{\\ifdim\\totalheight>.7\\textheight .7\\textheight\\else\\totalheight\\fi}{%\n" + tabular + "}"
	}
	buf.WriteString(tabular + "\n")
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
	buf.WriteString("\\end{table}\n")
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
