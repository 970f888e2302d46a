package reports

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// Comparison sets study B against study A.
type Comparison struct {
	// A and B are the studies' IDs.
	A, B string
	// Cells compare what both measured, a method's metric at a time.
	Cells []CellComparison
	// Changes are the parameters, inputs and code that differ.
	Changes []Change
	// Problems say what could not be compared.
	Problems []string
}

// CellComparison is one method's metric in both studies.
type CellComparison struct {
	Method, Model, Dataset string
	Metric                 Metric
	A, B                   Cell
	// Contrast is B minus A on common seeds and samples.
	Contrast Contrast
	Outcome  Outcome
}

// Outcome says how a cell of B compares with that of A.
type Outcome string

// Outcomes of comparing cells.
const (
	Same         Outcome = "same"         // equal in every common sample
	Differs      Outcome = "differs"      // the interval of the difference excludes 0
	Noise        Outcome = "within noise" // the interval includes 0
	OnlyA        Outcome = "only in A"
	OnlyB        Outcome = "only in B"
	Incomparable Outcome = "no common samples"
	OtherSeeds   Outcome = "no common seeds"        // of what is counted for each seed
	NoSamples    Outcome = "known without samples"  // imported: nothing to pair
	InNeither    Outcome = "not measured in either" // or nothing but failed samples
	Undecided    Outcome = "too few samples"        // fewer than MinPairs
)

// Change is one difference in what two studies were made from.
type Change struct {
	// Where is "specification", "code" or a stage with how many of its results differ.
	Where string
	// Path is dotted: "train.learning_rate".
	Path string
	// A and B are JSON values, "" where there is none.
	A, B string
}

// Compare compares b with a cell by cell, and what they were made from.
func Compare(a, b *Study) *Comparison {
	c := &Comparison{A: a.ID, B: b.ID}
	type place struct{ method, model, dataset string }
	var places []place
	cells := func(s *Study, p place) []CellData {
		return slices.DeleteFunc(s.of(p.method), func(d CellData) bool { return d.Model != p.model || d.Dataset != p.dataset })
	}
	for _, s := range []*Study{a, b} {
		for _, d := range s.Cells {
			if p := (place{d.Method, d.Model, d.Dataset}); !slices.Contains(places, p) {
				places = append(places, p)
			}
		}
	}
	common, asked := 0, 0
	if len(a.Cells) == 0 || len(b.Cells) == 0 {
		places = nil
	}
	for _, p := range places {
		as, bs := cells(a, p), cells(b, p)
		for _, m := range metricsOf(a, append(slices.Clone(as), bs...)) {
			cell := CellComparison{Method: p.method, Model: p.model, Dataset: p.dataset, Metric: m, A: a.metricCell(m, as), B: b.metricCell(m, bs)}
			if !cell.A.HasValue() && cell.A.Failed == 0 && !cell.B.HasValue() && cell.B.Failed == 0 {
				continue // such as a length that no answer has
			}
			_, exact := exactOf(m, slices.Concat(as, bs))
			if exact || sameQuestions(a, b, m, as, bs) {
				cell.Contrast = contrast(m, bs, as, a.Seed, a.Resamples)
			} else {
				cell.Contrast.Unpaired = "the samples answer other questions"
				asked++
			}
			if cell.Outcome = outcome(cell); cell.Outcome == Incomparable && exact {
				cell.Outcome = OtherSeeds
			} else if cell.Outcome == Incomparable && (!hasSamples(m, as) || !hasSamples(m, bs)) {
				cell.Outcome = NoSamples
			}
			if cell.Contrast.Unpaired == "" {
				common++
			}
			c.Cells = append(c.Cells, cell)
		}
	}
	switch {
	case len(a.Cells) == 0 || len(b.Cells) == 0:
		c.Problems = append(c.Problems, "one of the runs has no finished cell; there is nothing to compare")
	case common == 0:
		c.Problems = append(c.Problems, "the runs have no samples in common: no method was trained with the same seed and scored on the same samples by both; only their means are printed")
	}
	if asked > 0 {
		c.Problems = append(c.Problems, fmt.Sprintf("%d of the values answer other questions (the held-out instructions or benchmark questions differ, or are not known), "+
			"so their samples are no pairs whatever their numbers: only means are printed", asked))
	}
	c.Changes = changes(a, b)
	return c
}

// exactOf tells whether a metric is one number for a cell, which needs no samples to be compared.
func exactOf(m Metric, cells []CellData) (float64, bool) {
	for i := range cells {
		if v, ok := m.exact(&cells[i]); ok {
			return v, true
		}
	}
	return 0, false
}

// hasSamples tells whether any of the cells' scores are known sample by sample.
func hasSamples(m Metric, cells []CellData) bool {
	return slices.ContainsFunc(cells, func(c CellData) bool { return len(c.Scores[m.Name].Samples) > 0 })
}

// sameQuestions tells whether two studies' samples of a metric answer the same questions. Samples are numbered within a set of
// questions, so that equal numbers mean nothing between different sets.
func sameQuestions(a, b *Study, m Metric, as, bs []CellData) bool {
	qa, knownA := a.questions(m, as, "instructions", "questions")
	qb, knownB := b.questions(m, bs, "instructions", "questions")
	if !knownA || !knownB {
		// What was lost may still be known to be the same: the very scores of the other study.
		return slices.Equal(sourcesOf(m, as), sourcesOf(m, bs)) && len(sourcesOf(m, as)) > 0
	}
	return slices.Equal(qa, qb)
}

func sourcesOf(m Metric, cells []CellData) []string {
	var all []string
	for i := range cells {
		all = union(all, cells[i].Scores[m.Name].Sources)
	}
	slices.Sort(all)
	return all
}

// sameHeldOut tells whether the samples of two of the study's methods may be paired. Held-out instructions are numbered within a set of
// them, and methods that differ in documents or instructions have different sets. Benchmarks' samples have names of their own.
func (s *Study) sameHeldOut(m Metric, as, bs []CellData) bool {
	qa, knownA := s.questions(m, as, "instructions")
	qb, knownB := s.questions(m, bs, "instructions")
	return !knownA || !knownB || slices.Equal(qa, qb)
}

// questions returns digests of what the cells' samples were asked in results of some stages, in order; known is false where a result on the way is not
// among the study's. Scores from files have none: their samples have the names that the files give them.
func (s *Study) questions(m Metric, cells []CellData, stages ...string) (digests []string, known bool) {
	known = true
	find := func(is func(*artifact.Manifest) bool) *artifact.Manifest {
		for _, u := range s.Stages {
			if u.Manifest != nil && is(u.Manifest) {
				return u.Manifest
			}
		}
		known = false
		return nil
	}
	var walk func(of *artifact.Manifest)
	walk = func(of *artifact.Manifest) {
		if of == nil {
			return
		}
		for _, role := range slices.Sorted(maps.Keys(of.Inputs)) {
			ref := of.Inputs[role]
			switch {
			case slices.Contains(stages, ref.Stage):
				if q := find(func(m *artifact.Manifest) bool { return m.Stage == ref.Stage && m.Key == ref.Key }); q != nil {
					digests = union(digests, []string{asked(q)})
				}
			case ref.Stage == "predictions" || ref.Stage == "judgments":
				walk(find(func(m *artifact.Manifest) bool { return m.Stage == ref.Stage && m.Key == ref.Key }))
			}
		}
	}
	for _, source := range sourcesOf(m, cells) {
		// A repaired result has another generation and is the same.
		name := func(s string) string { return s[:max(0, strings.LastIndex(s, "/"))] }
		if name(source) != "" {
			walk(find(func(m *artifact.Manifest) bool { return name(Source(m.Ref())) == name(source) }))
		}
	}
	slices.Sort(digests)
	return digests, known
}

// asked is the digest of what a result asks: of instructions the held-out ones alone, since those for training are asked of nobody.
func asked(m *artifact.Manifest) string {
	for _, o := range m.Outputs {
		if strings.HasPrefix(o.Name, "held-out.") {
			return o.Blob.Digest
		}
	}
	return m.Digest()
}

// metricsOf lists the metrics that any of the cells has: scores by name, the loss also by
// answer length, then the exact and measured ones.
func metricsOf(s *Study, cells []CellData) []Metric {
	names := map[string]bool{}
	var buckets []Bucket
	timing, simulated := false, false
	for _, c := range cells {
		for name := range c.Scores {
			names[name] = true
		}
		for _, sh := range c.LossShare {
			if !slices.Contains(buckets, sh.Bucket) {
				buckets = append(buckets, sh.Bucket)
			}
		}
		timing = timing || c.Timing != nil
		simulated = simulated || c.Timing != nil && c.Timing.Simulated != nil
	}
	var out []Metric
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out = append(out, Metric{Name: name})
		if name == MetricLoss {
			for _, b := range s.buckets() {
				out = append(out, Metric{name, &b})
			}
		}
	}
	for _, b := range buckets {
		out = append(out, Metric{metricShare, &b})
	}
	if timing {
		for _, name := range []string{"steps", "real_tokens", "padded_tokens", "seconds"} {
			out = append(out, Metric{Name: name})
		}
	}
	if simulated {
		out = append(out, Metric{Name: "idle"})
	}
	return out
}

// metricCell is the table cell of any metric: a score's, or the mean over seeds of an
// exact one.
func (s *Study) metricCell(m Metric, cells []CellData) Cell {
	sum, n := 0.0, 0
	for i := range cells {
		if v, ok := m.exact(&cells[i]); ok {
			sum += v
			n++
		}
	}
	if n > 0 {
		return Number(sum / float64(n))
	}
	return s.cell(m, cells)
}

func outcome(c CellComparison) Outcome {
	switch d := c.Contrast; {
	case !c.A.HasValue() && !c.B.HasValue():
		return InNeither
	case !c.A.HasValue():
		return OnlyB
	case !c.B.HasValue():
		return OnlyA
	case d.Unpaired != "":
		return Incomparable
	case d.Identical:
		return Same
	case d.Few:
		return Undecided
	case c.Metric.measured() && len(d.PerSeed) < 2:
		return Noise
	case d.Differs():
		return Differs
	}
	return Noise
}

// changes lists what differs in the specifications, the code, and the stages' actions. That an input is another result follows from
// what differs in making that, and which cells the tables are made of from the specification; it is told only where nothing else is.
func changes(a, b *Study) []Change {
	out := diffs("specification", a.Spec, b.Spec)
	if ca, cb := codeText(a.Code), codeText(b.Code); ca != cb {
		out = append(out, Change{"code", "revision", ca, cb})
	}
	inA, inB := a.byPlace(), b.byPlace()
	made := map[string]bool{"": true} // digests of results of either
	for _, s := range []*Study{a, b} {
		for _, u := range s.Stages {
			if u.Manifest != nil {
				made[u.Manifest.Digest()] = true
			}
		}
	}
	var follows []Change
	for _, w := range a.works() {
		var of, differ int
		var found []Change
		for _, at := range slices.SortedFunc(maps.Keys(inA), func(x, y resultPlace) int { return strings.Compare(x.cell, y.cell) }) {
			ma, mb := inA[at], inB[at]
			if at.work != w || mb == nil {
				continue
			}
			of++
			if ma.Key == mb.Key {
				continue
			}
			differ++
			for _, d := range diffs("", ma.ActionKeyInput, mb.ActionKeyInput) {
				if !slices.Contains(found, d) {
					found = append(found, d)
				}
			}
		}
		for _, d := range found {
			d.Where = fmt.Sprintf("%s, %d of %d", w, differ, of)
			if strings.HasPrefix(d.Path, "inputs.") && made[strings.Trim(d.A, `"`)] && made[strings.Trim(d.B, `"`)] || w.stage == "tables" && strings.HasPrefix(d.Path, "params.cells[") {
				follows = append(follows, d)
			} else {
				out = append(out, d)
			}
		}
	}
	if len(out) == 0 {
		return follows
	}
	return out
}

// work is a stage and what its result is to a cell, where a cell asks a stage more than once.
type work struct{ stage, role string }

func (w work) String() string {
	if w.role == "" {
		return w.stage
	}
	return w.stage + " (" + w.role + ")"
}

// resultPlace is where a result stands in a study; cell is "" for one that all cells use.
type resultPlace struct {
	work
	cell string
}

// works lists the kinds of results, in the order data flowed.
func (s *Study) works() []work {
	var out []work
	for _, u := range s.Stages {
		if u.Manifest != nil && !slices.Contains(out, work{u.Manifest.Stage, u.Role}) {
			out = append(out, work{u.Manifest.Stage, u.Role})
		}
	}
	return out
}

func (s *Study) byPlace() map[resultPlace]*artifact.Manifest {
	out := map[resultPlace]*artifact.Manifest{}
	for _, u := range s.Stages {
		if u.Manifest == nil {
			continue
		}
		cells := u.Cells
		if len(cells) == 0 {
			cells = []string{""}
		}
		for _, cell := range cells {
			out[resultPlace{work{u.Manifest.Stage, u.Role}, cell}] = u.Manifest
		}
	}
	return out
}

func diffs(where string, a, b json.RawMessage) []Change {
	if len(a) == 0 && len(b) == 0 {
		return nil
	}
	var out []Change
	for _, d := range artifact.Diff(a, b) {
		path := d.Path
		if path == "" {
			path = "all of it"
		}
		out = append(out, Change{where, path, string(d.Old), string(d.New)})
	}
	return out
}

// caption says how to read the results, and what could not be compared.
func (c *Comparison) caption() string {
	said := "B − A is on common seeds and samples, so it may differ from the difference of the columns."
	for _, p := range c.Problems {
		said += " " + strings.ToUpper(p[:1]) + p[1:] + "."
	}
	return said
}

// Tables prints the comparison: what differs in the results, then in what they were made from.
func (c *Comparison) Tables() []*Table {
	results := &Table{
		Name:    "compare",
		Title:   fmt.Sprintf("%s (B) against %s (A)", c.B, c.A),
		Caption: c.caption(),
		Columns: []Column{
			{Name: "Metric", Text: true},
			{Name: "A", Decimals: 3}, {Name: "B", Decimals: 3}, {Name: "B − A", Decimals: 3, Signed: true, Marks: []string{differenceNote}},
			{Name: "Outcome", Text: true},
		},
		Footnotes: []Footnote{{differenceNote, "the interval is the wider of the paired bootstrap over samples and the t interval over seeds"}},
	}
	for _, x := range c.Cells {
		section := x.Method
		for _, s := range []string{x.Model, x.Dataset} {
			if s != "" {
				section += " · " + s
			}
		}
		scale := metricScale(x.Metric)
		delta := Unmeasured()
		if d := x.Contrast; d.Unpaired == "" {
			delta = Cell{Value: scale * d.Diff, Low: scale * d.Low, High: scale * d.High, N: d.N, Sources: union(x.A.Sources, x.B.Sources)}
			if d.Exact {
				delta.N = 0
			}
		}
		col := metricColumn(x.Metric)
		label := col.Name
		if unit := strings.ReplaceAll(col.Unit, "points", "%"); unit != "" {
			label += " (" + unit + ")"
		}
		results.Rows = append(results.Rows, Row{Section: section, Cells: []Cell{
			Label(label), x.A.scaled(scale, col.Decimals), x.B.scaled(scale, col.Decimals), delta.scaled(1, col.Decimals), Label(string(x.Outcome))}})
	}
	made := &Table{
		Name:    "changes",
		Title:   "What they were made from",
		Columns: []Column{{Name: "Where", Text: true}, {Name: "What", Text: true}, {Name: "A", Text: true}, {Name: "B", Text: true}},
	}
	for _, d := range c.Changes {
		made.Rows = append(made.Rows, Row{Cells: []Cell{Label(d.Where), Label(d.Path), orNone(shortDigests(d.A)), orNone(shortDigests(d.B))}})
	}
	if len(c.Changes) == 0 {
		made.Caption = "Parameters, inputs and code are the same."
	}
	return []*Table{results, made}
}

// scaled is c in another unit, printed with its metric's digits.
func (c Cell) scaled(f float64, decimals int) Cell {
	c.Value, c.Low, c.High, c.Decimals = c.Value*f, c.Low*f, c.High*f, &decimals
	return c
}

var wholeDigest = regexp.MustCompile(`(sha256:[0-9a-f]{12})[0-9a-f]{52}`)

// shortDigests keeps the first digits of digests, as names of results do.
func shortDigests(s string) string { return wholeDigest.ReplaceAllString(s, "$1") }

func orNone(s string) Cell {
	if s == "" {
		return Label("–")
	}
	return Label(s)
}
