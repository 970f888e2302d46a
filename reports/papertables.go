package reports

import (
	"slices"
	"strings"

	"github.com/longalign/longalign-go/reports/paper"
)

// PaperTables are Tables 1 to 4 of the paper, the leaderboard table and, if any were run, the benchmarks by dataset, with the
// published values beside ours, and what the study was made from and took. A table without ratings, rows or scores of ours prints the
// published values beside "–".
func PaperTables(s *Study) []*Table {
	var out []*Table
	if len(s.Expected) > 0 {
		out = append(out, ExpectationTable(s))
	}
	if s.Ratings != nil {
		t, err := JudgeTable(s.Ratings, s.Seed, s.Resamples)
		if err != nil { // the rest of the report is made all the same
			t = &Table{Name: "judge", Title: "Table 1. Agreement of judges with people", Caption: "Not computed: " + err.Error()}
		}
		out = append(out, t)
	}
	out = append(out,
		s.paperTable("data", "Table 2. Training data", paper.Table2(), func(r paper.Row) string { return r.Dataset }),
		s.paperTable("training", "Table 3. Training methods", paper.Table3(), func(r paper.Row) string { return r.Method }),
		s.paperTable("scaling", "Table 4. Scaling to 13B", paper.Table4(), func(r paper.Row) string { return r.Method }),
		LeaderboardTable(s),
	)
	if s.hasBenchmarks() {
		out = append(out, BenchmarkTable(s))
	}
	if s.Data != nil {
		if t := DocumentTable(s); len(t.Rows) > 0 {
			out = append(out, t)
		}
		out = append(out, InstanceTable(s))
	}
	if len(s.Charges) > 0 {
		out = append(out, SpendingTable(s))
	}
	return out
}

// paperMetrics describes the columns of Tables 2 to 4.
func paperMetrics(n int) []Column {
	var out []Column
	for i, name := range paper.Metrics()[:n] {
		c := Column{Name: name, Unit: "%", Decimals: 1, Better: Higher, Group: "general tasks"}
		if i < len(paper.LongMetrics()) {
			c.Group = "long tasks"
		}
		if name == paper.LongBenchChat || name == paper.MTBench {
			c.Unit, c.Decimals = "1–10", 2
		}
		out = append(out, c)
	}
	return out
}

// ratingsMap says how ratings of LongBench's answers become percentages.
const ratingsMap = "Judged answers to LongBench: ratings from 1 to 3, of summaries from 1 to 5, mapped linearly, the lowest to 0 and the highest to 100."

// hasScores tells whether any cell has one of the metrics.
func (s *Study) hasScores(metrics ...string) bool {
	return slices.ContainsFunc(s.Cells, func(c CellData) bool {
		return slices.ContainsFunc(metrics, func(m string) bool { _, ok := c.Scores[m]; return ok })
	})
}

// paperTable has the published rows, with our scores where the study has the same model,
// data set and method, and below them the rows that only the study has.
func (s *Study) paperTable(name, title string, rows []paper.Row, label func(paper.Row) string) *Table {
	width := len(rows[0].Scores)
	t := &Table{
		Name: name, Title: title,
		Columns:   append([]Column{{Name: "Training", Text: true}}, paperMetrics(width)...),
		Marks:     slices.Clone(s.Marks),
		Footnotes: slices.Clone(s.Footnotes),
	}
	if name == "training" {
		t.Caption = "Published rows of ChatGLM3 with naive and sorted batching were trained on data cut to 56k tokens."
	}
	if s.hasScores(paper.SingleDocQA, paper.MultiDocQA, paper.Summary) {
		t.Caption = strings.TrimSpace(t.Caption + " " + ratingsMap + " How the paper maps them it does not state.")
	}
	used := map[string]bool{}
	sections := map[string]map[string]int{}
	add := func(section string, r paper.Row, text string, cells []CellData) {
		row := Row{Section: section, Cells: []Cell{Label(text)}}
		for _, c := range t.Columns[1:] {
			cell := s.cell(Metric{Name: c.Name}, cells)
			if v, ok := r.Score(c.Name); ok {
				cell.Published = &v
			}
			row.Cells = append(row.Cells, cell)
		}
		if sections[section] == nil {
			sections[section] = map[string]int{}
		}
		sections[section][text] = len(t.Rows)
		t.Rows = append(t.Rows, row)
	}
	groups := map[string]map[string][]CellData{}
	for _, r := range rows {
		cells := s.matching(r)
		for _, c := range cells {
			used[cellKey(c)] = true
		}
		text := label(r)
		if groups[r.Model] == nil {
			groups[r.Model] = map[string][]CellData{}
		}
		groups[r.Model][text] = cells
		add(r.Model, r, text, cells)
	}
	for _, m := range s.methods() {
		byPlace := map[string][]CellData{}
		var places []string
		for _, c := range s.of(m.Name) {
			place := c.Model + " · " + c.Dataset
			if used[cellKey(c)] || !hasPaperScores(c) || !s.ownRow(name, m, c) {
				continue
			}
			if byPlace[place] == nil {
				places = append(places, place)
			}
			byPlace[place] = append(byPlace[place], c)
		}
		for _, place := range places {
			if groups["ours alone"] == nil {
				groups["ours alone"] = map[string][]CellData{}
			}
			text := m.label() + " · " + place
			groups["ours alone"][text] = byPlace[place]
			add("ours alone", paper.Row{}, text, byPlace[place])
		}
	}
	for section, byLabel := range groups {
		for j := 1; j < len(t.Columns); j++ {
			s.markBest(t, j, Metric{Name: t.Columns[j].Name}, sections[section], byLabel)
		}
	}
	return t
}

// ownRow reports whether a cell without a published row belongs into the table: into
// Table 3 if no other table has it, into Table 2 if it was trained as its rows were.
func (s *Study) ownRow(table string, m Method, c CellData) bool {
	published := slices.ContainsFunc(slices.Concat(paper.Table2(), paper.Table3(), paper.Table4()), func(r paper.Row) bool {
		return m.Published == r.Method && c.Model == r.Model && c.Dataset == r.Dataset
	})
	switch table {
	case "data":
		return !published && m.Published == paper.Weighting
	case "training":
		return !published
	}
	return false
}

func cellKey(c CellData) string {
	return c.Method + "\x00" + c.Model + "\x00" + c.Dataset
}

// hasPaperScores reports whether c has a score that Tables 2 to 4 have a column for.
func hasPaperScores(c CellData) bool {
	return slices.ContainsFunc(paper.Metrics(), func(m string) bool { _, ok := c.Scores[m]; return ok })
}

// matching returns the study's cells of the published row's model, data set and method.
func (s *Study) matching(r paper.Row) []CellData {
	var out []CellData
	for _, m := range s.methods() {
		if m.Published != r.Method {
			continue
		}
		for _, c := range s.of(m.Name) {
			if c.Model == r.Model && c.Dataset == r.Dataset {
				out = append(out, c)
			}
		}
	}
	return out
}

// subEMDefinition says what ours is; longbench.SubEM computes it.
const subEMDefinition = "SubEM: 100 if a gold answer is contained in the answer given, both in lower case and without punctuation, articles and repeated spaces " +
	"(SQuAD's normalisation, arXiv 1606.05250; containment as in arXiv 2212.10511), else 0. F1 Score: the best word F1 with a gold answer, normalised alike. " +
	"En.QA is asked with a prompt in our words."

// LeaderboardTable has the rows of the third-party page about the paper and our scores
// under the same names ("MuSiQue F1 Score"), a column for each of our models.
func LeaderboardTable(s *Study) *Table {
	t := &Table{
		Name:  "leaderboard",
		Title: "Leaderboard",
		Caption: "Published values are from a third-party page about the paper that does not state its models and definitions; " +
			"the difference is printed for orientation only. " + subEMDefinition,
		Columns:   []Column{{Name: "Benchmark", Text: true}, {Name: "Metric", Text: true}},
		Marks:     slices.Clone(s.Marks),
		Footnotes: slices.Clone(s.Footnotes),
	}
	type group struct {
		label string
		cells []CellData
	}
	var groups []group
	for _, m := range s.methods() {
		for _, c := range s.of(m.Name) {
			label := m.label()
			if c.Model != "" {
				label += " · " + c.Model
			}
			i := slices.IndexFunc(groups, func(g group) bool { return g.label == label })
			if i < 0 {
				i = len(groups)
				groups = append(groups, group{label: label})
			}
			groups[i].cells = append(groups[i].cells, c)
		}
	}
	groups = slices.DeleteFunc(groups, func(g group) bool {
		return !slices.ContainsFunc(g.cells, func(c CellData) bool {
			return slices.ContainsFunc(paper.Leaderboard(), func(r paper.LeaderboardRow) bool { _, ok := c.Scores[r.Key()]; return ok })
		})
	})
	if len(groups) == 0 {
		groups = []group{{label: "ours"}}
	}
	for _, g := range groups {
		t.Columns = append(t.Columns, Column{Name: g.label, Unit: "%", Decimals: 2})
	}
	for _, r := range paper.Leaderboard() {
		row := Row{Cells: []Cell{Label(r.Benchmark), Label(r.Metric)}}
		for _, g := range groups {
			c := s.cell(Metric{Name: r.Key()}, g.cells)
			v := r.Value
			c.Published = &v
			row.Cells = append(row.Cells, c)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}
