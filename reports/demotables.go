package reports

import (
	"fmt"
	"slices"
)

// Tables returns the tables of s, by its kind: what was expected, the results, the cost
// and the data. A part that was not measured prints as such; nothing is left out silently.
func Tables(s *Study) []*Table {
	if s.Kind == KindPaper {
		return PaperTables(s)
	}
	return DemoTables(s)
}

// DemoTables are the tables of a study of training methods on one data set.
func DemoTables(s *Study) []*Table {
	var out []*Table
	if len(s.Expected) > 0 {
		out = append(out, ExpectationTable(s))
	}
	out = append(out, MethodTable(s), TaskTable(s), LossShareTable(s), CostTable(s))
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

// differenceNote explains intervals of differences.
const differenceNote = "difference"

func differenceFootnote() Footnote {
	return Footnote{differenceNote, "difference from the baseline on the same samples and seeds; its interval is the wider of the paired bootstrap " +
		"over samples and the t interval over seeds; fewer than " + fmt.Sprint(MinPairs) + " samples have no interval and decide nothing"}
}

// scoreColumn is a column of a table of scores: a metric, or its difference from the baseline.
type scoreColumn struct {
	Column
	metric     Metric
	difference bool
}

// scoreTable fills a table of scores: a row a method with the mean over its seeds, then
// a minor row for each seed, and marks the best values that the paired test supports.
func (s *Study) scoreTable(t *Table, columns []scoreColumn) *Table {
	t.Columns = []Column{{Name: "Method", Text: true}}
	for _, c := range columns {
		t.Columns = append(t.Columns, c.Column)
	}
	t.Marks = union(t.Marks, s.Marks)
	t.Footnotes = append(t.Footnotes, s.Footnotes...)
	t.Footnotes = append(t.Footnotes, differenceFootnote())
	major, byMethod := map[string]int{}, map[string][]CellData{}
	for _, m := range s.methods() {
		cells := s.of(m.Name)
		byMethod[m.Name] = cells
		major[m.Name] = len(t.Rows)
		t.Rows = append(t.Rows, s.scoreRow(m.Name, s.rowLabel(m, cells), cells, columns, false))
		if len(cells) < 2 {
			continue
		}
		for _, c := range cells {
			t.Rows = append(t.Rows, s.scoreRow(m.Name, fmt.Sprintf("seed %d", c.Seed), []CellData{c}, columns, true))
		}
	}
	for j, c := range columns {
		if !c.difference {
			s.markBest(t, j+1, c.metric, major, byMethod)
		}
	}
	return t
}

// seeds returns how many seeds the study's methods should have: the most that one has.
func (s *Study) seeds() int {
	most := 0
	for _, m := range s.methods() {
		most = max(most, len(s.of(m.Name)))
	}
	return most
}

// rowLabel names a method, and says so when some of its seeds have no result.
func (s *Study) rowLabel(m Method, cells []CellData) string {
	if n := s.seeds(); len(cells) < n {
		return fmt.Sprintf("%s (%d of %d seeds)", m.label(), len(cells), n)
	}
	return m.label()
}

func (s *Study) scoreRow(method, label string, cells []CellData, columns []scoreColumn, minor bool) Row {
	r := Row{Minor: minor, Cells: []Cell{Label(label)}}
	if minor { // the method's row has the intervals; a seed is one draw
		quick := *s
		quick.Resamples = 1
		s = &quick
	}
	for _, c := range columns {
		switch {
		case !c.difference:
			cell := s.cell(c.metric, cells)
			if minor {
				cell.Low, cell.High = 0, 0
			}
			r.Cells = append(r.Cells, cell)
		case method == s.baseline():
			r.Cells = append(r.Cells, Blank())
		default:
			d := s.contrast(c.metric, cells, s.of(s.baseline()))
			if d.Unpaired != "" {
				r.Cells = append(r.Cells, Unmeasured())
				continue
			}
			cell := Cell{Value: d.Diff, N: d.N, Low: d.Low, High: d.High}
			if minor {
				cell.Low, cell.High = 0, 0
			}
			for i := range cells {
				cell.Sources = union(cell.Sources, cells[i].Scores[c.metric.Name].Sources)
			}
			r.Cells = append(r.Cells, cell)
		}
	}
	return r
}

// markBest marks the best of rows, by method or label, in column j if it differs from
// every other one in the paired test. An incomplete cell can neither win nor be beaten:
// then none is marked, and a method that lacks seeds cannot win. Equal values differ from nothing, so the order of rows is no matter.
func (s *Study) markBest(t *Table, j int, m Metric, rows map[string]int, cells map[string][]CellData) {
	better := t.Columns[j].Better
	if better == Neither || len(rows) < 2 {
		return
	}
	var best *Cell
	winner := ""
	for name, i := range rows {
		c := &t.Rows[i].Cells[j]
		if !c.HasValue() || c.Incomplete {
			return
		}
		if best == nil || better == Higher && c.Value > best.Value || better == Lower && c.Value < best.Value {
			best, winner = c, name
		}
	}
	for name := range rows {
		if len(cells[name]) > len(cells[winner]) {
			return
		}
		if name == winner {
			continue
		}
		d := s.contrast(m, cells[winner], cells[name])
		if !d.Differs() || (d.Diff > 0) != (better == Higher) {
			return
		}
	}
	best.Best = true
}

// MethodTable is the demo's main table: the held-out loss of each method as mean over
// sequences and by answer length, its paired difference from the baseline, and every seed.
func MethodTable(s *Study) *Table {
	loss := metricColumn(Metric{Name: MetricLoss})
	column := func(name, group string, m Metric, difference bool) scoreColumn {
		c := loss
		c.Name, c.Group = name, group
		c.Unit = ""
		if difference {
			c.Better, c.Signed, c.Marks = Neither, true, []string{differenceNote}
		}
		return scoreColumn{c, m, difference}
	}
	all := Metric{Name: MetricLoss}
	columns := []scoreColumn{column("all", "held-out loss", all, false), column("vs "+s.label(s.baseline()), "held-out loss", all, true)}
	for _, b := range s.buckets() {
		columns = append(columns, column(b.String(), "by answer length (tokens)", Metric{MetricLoss, &b}, false))
	}
	if s.baseline() == "" {
		columns = slices.Delete(columns, 1, 2)
	}
	return s.scoreTable(&Table{
		Name:  "method",
		Title: "Held-out loss by training method",
		Caption: "Cross-entropy of held-out answers in nats a token: the mean over a sequence's answer tokens, then over sequences, so that every answer counts alike. " +
			"A method's row averages its seeds and adds up their failed samples; ± is over sequences.",
	}, columns)
}

// TaskTable shows what the trained models do: the needle test as change in
// log-probability, exact match and F1 of generated answers, even where they are near zero.
func TaskTable(s *Study) *Table {
	var columns []scoreColumn
	for _, name := range []string{MetricNeedle, MetricExact, MetricF1} {
		m := Metric{Name: name}
		columns = append(columns, scoreColumn{metricColumn(m), m, false})
		if name == MetricNeedle && s.baseline() != "" {
			d := metricColumn(m)
			d.Name, d.Better, d.Signed, d.Marks = "vs "+s.label(s.baseline()), Neither, true, []string{differenceNote}
			columns = append(columns, scoreColumn{d, m, true})
		}
	}
	return s.scoreTable(&Table{
		Name:    "tasks",
		Title:   "Tasks by training method",
		Caption: "Needle gain: log-probability of the answer with the needle in the context minus without it; 0 means that the context is not used. Exact match and F1 are of greedily generated answers.",
	}, columns)
}

// countedData returns a cell for each of the study's data, told apart by how many sequences and target tokens there are.
func (s *Study) countedData() []*CellData {
	var out []*CellData
	for i := range s.Cells {
		c := &s.Cells[i]
		same := func(o *CellData) bool {
			return slices.EqualFunc(o.LossShare, c.LossShare, func(a, b Share) bool {
				return a.Bucket == b.Bucket && a.Sequences == b.Sequences && a.Targets == b.Targets
			})
		}
		if len(c.LossShare) > 0 && !slices.ContainsFunc(out, same) {
			out = append(out, c)
		}
	}
	return out
}

// LossShareTable shows which part of the training loss answers of each length have, per
// method. It is counted from the plan: the sum of the loss coefficients of their tokens.
func LossShareTable(s *Study) *Table {
	t := &Table{
		Name:      "loss-share",
		Title:     "Share of the training loss by answer length",
		Caption:   "Sum of the loss coefficients of the answers' tokens over all steps. The first two rows say how many sequences and target tokens there are: a loss that counts sequences alike follows the first, one that counts tokens alike the second.",
		Columns:   []Column{{Name: "Method", Text: true}},
		Marks:     union([]string{NoteExact}, s.Marks),
		Footnotes: slices.Clone(s.Footnotes),
	}
	var buckets []Bucket
	for _, c := range s.Cells {
		for _, sh := range c.LossShare {
			if !slices.Contains(buckets, sh.Bucket) {
				buckets = append(buckets, sh.Bucket)
			}
		}
	}
	if len(buckets) == 0 {
		buckets = s.buckets()
	}
	for _, b := range buckets {
		t.Columns = append(t.Columns, Column{Name: b.String(), Group: "answers of … tokens", Unit: "%", Decimals: 1})
	}
	shareOf := func(c *CellData, b Bucket) *Share {
		for i := range c.LossShare {
			if c.LossShare[i].Bucket == b {
				return &c.LossShare[i]
			}
		}
		return nil
	}
	counted := s.countedData()
	for _, c := range counted {
		var sequences, targets float64
		for _, sh := range c.LossShare {
			sequences += float64(sh.Sequences)
			targets += float64(sh.Targets)
		}
		of := ""
		if len(counted) > 1 {
			of = ", " + s.label(c.Method)
		}
		a, b := Row{Cells: []Cell{Label("of the sequences" + of)}}, Row{Cells: []Cell{Label("of the target tokens" + of)}}
		for _, bucket := range buckets {
			sh := shareOf(c, bucket)
			if sh == nil || sequences == 0 || targets == 0 {
				a.Cells, b.Cells = append(a.Cells, Unmeasured()), append(b.Cells, Unmeasured())
				continue
			}
			a.Cells = append(a.Cells, Cell{Value: 100 * float64(sh.Sequences) / sequences, Sources: c.ShareSources})
			b.Cells = append(b.Cells, Cell{Value: 100 * float64(sh.Targets) / targets, Sources: c.ShareSources})
		}
		t.Rows = append(t.Rows, a, b)
	}
	row := func(label string, cells []CellData, minor bool) {
		r := Row{Section: "of the loss", Minor: minor, Cells: []Cell{Label(label)}}
		for _, b := range buckets {
			var sum float64
			n := 0
			var sources []string
			for i := range cells {
				if sh := shareOf(&cells[i], b); sh != nil {
					sum += sh.Share
					n++
					sources = union(sources, cells[i].ShareSources)
				}
			}
			if n == 0 {
				r.Cells = append(r.Cells, Unmeasured())
				continue
			}
			r.Cells = append(r.Cells, Cell{Value: 100 * sum / float64(n), Sources: sources})
		}
		t.Rows = append(t.Rows, r)
	}
	for _, m := range s.methods() {
		cells := s.of(m.Name)
		row(s.rowLabel(m, cells), cells, false)
		if len(cells) > 1 {
			for _, c := range cells {
				row(fmt.Sprintf("seed %d", c.Seed), []CellData{c}, true)
			}
		}
	}
	return t
}

// CostTable says what each method's training cost: counts, which are exact, times, which
// were measured, and waiting on several devices, which is simulated.
func CostTable(s *Study) *Table {
	devices := 0
	for _, c := range s.Cells {
		if c.Timing != nil && c.Timing.Simulated != nil {
			devices = max(devices, c.Timing.Simulated.Devices)
		}
	}
	simulated := "simulated on several devices"
	if devices > 0 {
		simulated = fmt.Sprintf("on %d devices", devices)
	}
	exact, measured, sim := []string{NoteExact}, []string{NoteMeasured}, []string{NoteSimulated}
	t := &Table{
		Name:    "cost",
		Title:   "Cost of training by method",
		Caption: "Padded tokens are what the device computes. Idle is the share of the devices' time spent waiting for the slowest one at the end of each step.",
		Columns: []Column{
			{Name: "Method", Text: true},
			{Name: "steps", Group: "from the plan", Marks: exact},
			{Name: "sequences a step", Group: "from the plan", Decimals: 1, Marks: exact},
			{Name: "s.d.", Group: "from the plan", Decimals: 1, Marks: exact},
			{Name: "real tokens", Group: "from the plan", Marks: exact},
			{Name: "padded tokens", Group: "from the plan", Marks: exact},
			{Name: "real", Unit: "%", Group: "from the plan", Decimals: 1, Marks: exact},
			{Name: "time", Unit: "s", Group: "on this machine", Decimals: 1, Marks: measured},
			{Name: "real tokens/s", Group: "on this machine", Marks: measured},
			{Name: "idle", Unit: "%", Group: simulated, Decimals: 1, Marks: sim},
			{Name: "time", Unit: "s", Group: simulated, Decimals: 1, Marks: sim},
		},
		Marks:     slices.Clone(s.Marks),
		Footnotes: slices.Clone(s.Footnotes),
	}
	row := func(label string, cells []CellData, minor bool) {
		r := Row{Minor: minor, Cells: []Cell{Label(label)}}
		for _, of := range []func(*Timing) (float64, bool){
			func(t *Timing) (float64, bool) { return float64(t.Steps), t.Steps > 0 },
			func(t *Timing) (float64, bool) { return t.SequencesPerStepMean, t.Steps > 0 },
			func(t *Timing) (float64, bool) { return t.SequencesPerStepSD, t.Steps > 0 },
			func(t *Timing) (float64, bool) { return float64(t.RealTokens), t.RealTokens > 0 },
			func(t *Timing) (float64, bool) { return float64(t.PaddedTokens), t.PaddedTokens > 0 },
			func(t *Timing) (float64, bool) {
				return 100 * float64(t.RealTokens) / float64(max(1, t.PaddedTokens)), t.PaddedTokens > 0
			},
			func(t *Timing) (float64, bool) { return t.Seconds, t.Seconds > 0 },
			func(t *Timing) (float64, bool) { return t.TokensPerSecond, t.TokensPerSecond > 0 },
			func(t *Timing) (float64, bool) {
				if t.Simulated == nil {
					return 0, false
				}
				return 100 * t.Simulated.Idle, true
			},
			func(t *Timing) (float64, bool) {
				if t.Simulated == nil {
					return 0, false
				}
				return t.Simulated.Seconds, true
			},
		} {
			r.Cells = append(r.Cells, timingCell(cells, of))
		}
		t.Rows = append(t.Rows, r)
	}
	for _, m := range s.methods() {
		cells := s.of(m.Name)
		row(s.rowLabel(m, cells), cells, false)
		if len(cells) > 1 {
			for _, c := range cells {
				row(fmt.Sprintf("seed %d", c.Seed), []CellData{c}, true)
			}
		}
	}
	return t
}

// timingCell is the mean over seeds of one number, incomplete if a seed lacks it.
func timingCell(cells []CellData, of func(*Timing) (float64, bool)) Cell {
	var c Cell
	sum, n := 0.0, 0
	for i := range cells {
		if cells[i].Timing == nil {
			continue
		}
		if v, ok := of(cells[i].Timing); ok {
			sum += v
			n++
			c.Sources = union(c.Sources, cells[i].TimingSources)
		}
	}
	if n == 0 {
		return Unmeasured()
	}
	c.Value = sum / float64(n)
	if n < len(cells) {
		c.Incomplete, c.N, c.Wanted = true, n, len(cells)
	}
	return c
}
