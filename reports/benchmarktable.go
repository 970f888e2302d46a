package reports

import (
	"maps"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets/longbench"
	"github.com/longalign/longalign-go/reports/paper"
)

// Suffixes of benchmark metrics, which are named "longbench:qasper:corrected".
const (
	correctedSuffix = ":corrected"
	judgedSuffix    = ":judged"
)

// benchmarkSections are the parts of the benchmark table in order, by the prefix of their metrics.
var benchmarkSections = []struct{ prefix, title string }{
	{"headline:", "The paper's columns"},
	{"longbench:", "LongBench, %"},
	{"longbench-e:", "LongBench-E, %"},
	{"longbench-chat:", "LongBench-Chat, 1–10"},
	{"mt-bench:", "MT-Bench, 1–10"},
	{"needle:", "Needle in a haystack"},
	{"", "Leaderboard datasets, %"},
}

// The order of what has no place among LongBench's datasets.
var (
	mtBenchOrder     = []string{"writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities", "turn 1", "turn 2"}
	leaderboardOrder = []string{"MFQA en", "En.QA", "NarrativeQA", "2WikiMQA", "MuSiQue", "Average Overall"}
)

// BenchmarkTable has every dataset of the benchmarks that the study ran, and their averages: a column a method, and its difference
// from the baseline on the same samples.
func BenchmarkTable(s *Study) *Table {
	t := &Table{
		Name: "benchmarks", Title: "Benchmarks by dataset",
		Caption: "LongBench's scores as its own scorer gives them; corrected ones, without that scorer's defects, stand below where they differ. " +
			"In averages every dataset counts alike.",
		Columns: []Column{{Name: "Dataset", Text: true}},
		Marks:   slices.Clone(s.Marks), Footnotes: append(slices.Clone(s.Footnotes), differenceFootnote()),
	}
	if s.hasScores(paper.SingleDocQA, paper.MultiDocQA, paper.Summary) {
		t.Caption += " " + ratingsMap
	}
	methods, baseline := s.methods(), s.baseline()
	for _, m := range methods {
		t.Columns = append(t.Columns, Column{Name: m.label(), Decimals: 2, Better: Higher})
	}
	for _, m := range methods {
		if baseline != "" && m.Name != baseline {
			t.Columns = append(t.Columns, Column{Name: m.label(), Group: "difference from " + s.label(baseline), Decimals: 2, Signed: true, Marks: []string{differenceNote}})
		}
	}
	metrics := s.benchmarkMetrics()
	for _, section := range benchmarkSections {
		for _, name := range metrics[section.prefix] {
			t.Rows = append(t.Rows, s.benchmarkRow(section.title, strings.TrimPrefix(name, section.prefix), name))
		}
	}
	return t
}

// benchmarkMetrics are the study's benchmark metrics by section, in the benchmarks' order.
func (s *Study) benchmarkMetrics() map[string][]string {
	all := map[string]bool{}
	for _, c := range s.Cells {
		for name := range c.Scores {
			all[name] = true
		}
	}
	rank := map[string]int{}
	for i, d := range longbench.Datasets(longbench.LongBench) {
		rank[d.Name] = i + 1
		rank[string(d.Category)] = 1000 + i
	}
	rank[string(longbench.English)], rank[string(longbench.Chinese)], rank["overall"] = 2000, 2001, 2002
	for i, name := range mtBenchOrder {
		rank[name] = i + 1
	}
	place := func(name string) int {
		if _, part, ok := strings.Cut(name, ":"); ok {
			part, _, _ = strings.Cut(part, ":")
			return rank[part]
		}
		return slices.IndexFunc(leaderboardOrder, func(dataset string) bool { return strings.HasPrefix(name, dataset) })
	}
	out := map[string][]string{}
	for _, name := range []string{paper.LongBenchChat, paper.SingleDocQA, paper.MultiDocQA, paper.Summary, paper.MTBench} {
		if all[name] { // the other tables have them too, without differences
			out["headline:"] = append(out["headline:"], name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if strings.HasSuffix(name, correctedSuffix) && s.sameScores(name, strings.TrimSuffix(name, correctedSuffix)) {
			continue
		}
		for _, section := range benchmarkSections {
			if section.prefix == "" && (!strings.HasSuffix(name, " SubEM") && !strings.HasSuffix(name, " F1 Score")) {
				continue
			}
			if strings.HasPrefix(name, section.prefix) {
				out[section.prefix] = append(out[section.prefix], name)
				break
			}
		}
	}
	for _, names := range out {
		slices.SortStableFunc(names, func(a, b string) int { return place(a) - place(b) })
	}
	return out
}

// sameScores tells whether two metrics have the same samples in all cells.
func (s *Study) sameScores(a, b string) bool {
	return !slices.ContainsFunc(s.Cells, func(c CellData) bool { return !slices.Equal(c.Scores[a].Samples, c.Scores[b].Samples) })
}

func (s *Study) benchmarkRow(section, label, metric string) Row {
	row := Row{Section: section}
	for _, suffix := range []string{correctedSuffix, judgedSuffix} {
		if name, ok := strings.CutSuffix(label, suffix); ok {
			row.Minor, label = true, name+", "+suffix[1:]
		}
	}
	row.Cells = []Cell{Label(strings.ReplaceAll(label, ":", ", "))}
	m := Metric{Name: metric}
	for _, method := range s.methods() {
		row.Cells = append(row.Cells, s.cell(m, s.of(method.Name)))
	}
	baseline := s.baseline()
	for _, method := range s.methods() {
		if baseline == "" || method.Name == baseline {
			continue
		}
		d := s.contrast(m, s.of(method.Name), s.of(baseline))
		if d.Unpaired != "" {
			row.Cells = append(row.Cells, Unmeasured())
			continue
		}
		row.Cells = append(row.Cells, Cell{Value: d.Diff, Low: d.Low, High: d.High, N: d.N, Sources: union(row.Cells[1].Sources, nil)})
	}
	return row
}

// hasBenchmarks tells whether BenchmarkTable has a row.
func (s *Study) hasBenchmarks() bool { return len(s.benchmarkMetrics()) > 0 }
