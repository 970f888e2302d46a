package reports

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// hostile holds text as people, file names and other programs may write it, in every place of a table that takes text.
func hostile() *Table {
	labels := []string{
		`50 % of $5 & #1_{a}^b ~ \today \end{table}`, `[an argument?]`, `*starred`, `a -- b --- c "quoted" 'single' ` + "`back`",
		"数据 and données, Größe, ñ, ø, ß, č", "ᵃ superscript, ½, ∑ ∂ ℓ ⟨x⟩ ≥ ≤ ≠ ± × → …", "émigré 🙂\u200d\u0301 \x00\x07", "tab\tand\nnewline", "?` !` << >> ,, fi ff",
		"a label that is far too long to stand beside ten columns of numbers without help", `C:\Users\new\table`, "100%",
	}
	t := &Table{
		Name: "hostile", Title: `Every # sign % of & TeX \ { } ~ ^ _ $ 表`, Caption: "A caption with 100 % of everything: " + strings.Join(labels, "; "),
		Columns:   []Column{{Name: "Name_of #1", Text: true}, {Name: "50 % & more", Unit: "nats/token^2", Group: "a group & its_name", Decimals: 2, Better: Higher}, {Name: "[x]", Group: "a group & its_name", Decimals: 1, Marks: []string{"odd"}}},
		Footnotes: []Footnote{{"odd", `a note on \cmd, 5 % of it, 注`}, {"multi\nline", "two\n\nparagraphs"}},
		Marks:     []string{"multi\nline"},
	}
	published := 3.25
	for i, l := range labels {
		t.Rows = append(t.Rows, Row{Section: fmt.Sprintf("part %d of [&%%]", i/4), Minor: i%3 == 1, Cells: []Cell{Label(l),
			{Value: float64(i) - 3, N: 5, Wanted: 10, Incomplete: i%2 == 0, Low: float64(i) - 4, High: float64(i) - 2, Published: &published, Best: i == 3, Failed: i % 2},
			{Value: 1234567, Marks: []string{"odd"}}}})
	}
	return t
}

// tall is a table with more rows than a page holds.
func tall() *Table {
	t := &Table{Name: "tall", Title: "Tall", Columns: []Column{{Name: "Row", Text: true}, {Name: "value"}}}
	for i := range 120 {
		t.Rows = append(t.Rows, Row{Cells: []Cell{Label(fmt.Sprint("row ", i)), Number(float64(i))}})
	}
	return t
}

func TestLaTeXTablesCompileAndFitThePage(t *testing.T) {
	pdflatex, err := exec.LookPath("pdflatex")
	if err != nil {
		t.Skip("no pdflatex here; the golden files are compared all the same")
	}
	tables := append(DemoTables(demoStudy()), PaperTables(paperStudy())...)
	tables = append(tables, hostile(), tall())
	tables = append(tables, Compare(demoStudy(), changedStudy()).Tables()...)
	body, err := Render(LaTeX, tables...)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if keep := os.Getenv("LATEX_DIR"); keep != "" {
		dir = keep
	}
	page := "\\documentclass{article}\n\\usepackage{booktabs,graphicx,array}\n\\begin{document}\n" + strings.ReplaceAll(string(body), "\n\\end{table}\n", "\n\\end{table}\n\\clearpage\n") + "\\end{document}\n"
	if err := os.WriteFile(filepath.Join(dir, "tables.tex"), []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, pdflatex, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "tables.tex")
	cmd.Dir, cmd.WaitDelay = dir, time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), ".sty' not found") {
			t.Skip("this LaTeX lacks booktabs or graphicx")
		}
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-3000):])
	}
	for _, bad := range regexp.MustCompile(`(?m)^(Overfull \\hbox|LaTeX Warning: Float too large|Missing character|! ).*`).FindAll(out, -1) {
		t.Errorf("%s", bad)
	}
	for _, name := range tables {
		if !strings.Contains(string(body), `\label{tab:`+name.Name+"}") {
			t.Errorf("table %s has no label", name.Name)
		}
	}
}

func TestLaTeXTextSaysWhatItSaid(t *testing.T) {
	for in, want := range map[string]string{
		`50 % & 5_a`:             `50 \% \& 5\_a`,
		`say "so", ("and so")`:   "say ``so'', (``and so'')",
		"--seed":                 "-{}-seed",
		"A – B — C":              "A -- B --- C",
		"Größe ≥ 3 µs":           `Größe $\geq$ 3 $\mu$s`,
		"数据":                     `\ifdefined\Umathchar 数据\else U+6570 U+636E\fi{}`,
		`\input{/etc/passwd}`:    `\textbackslash{}input\{/etc/passwd\}`,
		"a\u00a0b\u202fc":        `a~b\,c`,
		"x\x00y":                 "x?y",
		"Table 3. Training, 5 %": `Table 3. Training, 5 \%`,
	} {
		if got := latexText(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got, want := latexTitle("Table 3. Training methods"), "Training methods (the paper's Table 3)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestATallLaTeXTableGoesOnInPartsOfOneNumber(t *testing.T) {
	table := tall()
	table.Marks = []string{NoteTiny}
	for i := range table.Rows {
		table.Rows[i].Section = fmt.Sprint("section ", i/15)
	}
	b, err := Render(LaTeX, table)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(b), `\begin{table}`)[1:]
	if len(parts) < 3 || strings.Count(string(b), `\addtocounter{table}{-1}`) != len(parts)-1 {
		t.Fatalf("%d parts:\n%s", len(parts), b)
	}
	row := 0
	for i, part := range parts {
		if want := fmt.Sprintf("(part %d of %d)", i+1, len(parts)); !strings.Contains(part, want) {
			t.Errorf("part %d does not say %q", i+1, want)
		}
		if !strings.Contains(part, `\midrule`+"\n"+fmt.Sprintf(`\multicolumn{2}{l}{\textit{section %d}}`, row/15)) {
			t.Errorf("part %d does not begin with its section's name", i+1)
		}
		rows := strings.Count(part, "{}row ")
		if rows > latexLines || row%15 != 0 {
			t.Errorf("part %d has %d rows from row %d: a section of 15 goes over two parts, or a part over its page", i+1, rows, row)
		}
		for range rows {
			if !strings.Contains(part, fmt.Sprintf("{}row %d &", row)) {
				t.Errorf("row %d is not in part %d, in its order", row, i+1)
			}
			row++
		}
		if got, want := strings.Contains(part, "footnotesize"), i == len(parts)-1; got != want {
			t.Errorf("part %d has notes: %t", i+1, got)
		}
	}
	if row != len(table.Rows) {
		t.Errorf("%d of %d rows", row, len(table.Rows))
	}
}
