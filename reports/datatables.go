package reports

import (
	"fmt"
	"slices"
)

const keptSection = "kept"

// DocumentTable says which documents were kept, how many of them for testing alone, and why others were not.
func DocumentTable(s *Study) *Table {
	t := &Table{
		Name:  "documents",
		Title: "Documents",
		Columns: []Column{
			{Name: "Source or reason", Text: true},
			{Name: "documents"},
			{Name: "held out"},
			{Name: "tokens"},
		},
		Footnotes: slices.Clone(s.Footnotes),
	}
	for _, d := range s.ofDocuments() {
		if len(d.Documents)+len(d.Dropped) == 0 {
			continue // trained on conversations alone
		}
		t.Marks = union(t.Marks, d.Marks)
		t.Rows = append(t.Rows, d.documentRows(keptSection, d.Documents)...)
		t.Rows = append(t.Rows, d.documentRows("dropped", d.Dropped)...)
	}
	return t
}

// ofDocuments are the study's data that differ in their documents: instructions may differ where documents do not.
func (s *Study) ofDocuments() []DataSummary {
	var out []DataSummary
	for _, d := range s.data() {
		i := slices.IndexFunc(out, func(o DataSummary) bool {
			return slices.Equal(o.Documents, d.Documents) && slices.Equal(o.Dropped, d.Dropped)
		})
		if i < 0 {
			out = append(out, *d)
			continue
		}
		out[i].Name += ", " + d.Name
	}
	if len(out) == 1 {
		out[0].Name = ""
	}
	return out
}

func (d *DataSummary) documentRows(part string, counts []Count) []Row {
	var rows []Row
	total := Count{Name: "all " + part}
	for _, c := range counts {
		rows = append(rows, d.documentRow(part, c))
		total.N += c.N
		total.Tokens += c.Tokens
		total.HeldOut += c.HeldOut
	}
	if len(counts) != 1 {
		rows = append(rows, d.documentRow(part, total))
	}
	return rows
}

func (d *DataSummary) documentRow(part string, c Count) Row {
	tokens := Blank()
	if c.Tokens > 0 {
		tokens = Cell{Value: float64(c.Tokens), Sources: d.Sources}
	}
	heldOut := Blank()
	if part == keptSection {
		heldOut = Cell{Value: float64(c.HeldOut), Sources: d.Sources}
	}
	return Row{Section: d.of(part), Cells: []Cell{Label(c.Name), {Value: float64(c.N), Sources: d.Sources}, heldOut, tokens}}
}

// InstanceTable says how many instances there are of each task, and how long the
// training answers are.
func InstanceTable(s *Study) *Table {
	t := &Table{
		Name:  "instances",
		Title: "Instances by task and by answer length",
		Columns: []Column{
			{Name: "Task or answer length", Text: true},
			{Name: "training"},
			{Name: "held out"},
			{Name: "median answer", Unit: "tokens"},
		},
		Footnotes: slices.Clone(s.Footnotes),
	}
	for _, d := range s.data() {
		t.Marks = union(t.Marks, d.Marks)
		t.Rows = append(t.Rows, d.instanceRows(s.buckets())...)
	}
	return t
}

func (d *DataSummary) instanceRows(buckets []Bucket) []Row {
	var rows []Row
	tasks := d.of("tasks")
	number := func(v int) Cell { return Cell{Value: float64(v), Sources: d.Sources} }
	total := TaskCount{}
	for _, c := range d.Instances {
		median := Blank()
		if c.MedianAnswer > 0 {
			median = number(c.MedianAnswer)
		}
		rows = append(rows, Row{Section: tasks, Cells: []Cell{Label(c.Task), number(c.Train), number(c.HeldOut), median}})
		total.Train += c.Train
		total.HeldOut += c.HeldOut
	}
	all := Blank()
	lengths := slices.Sorted(slices.Values(d.AnswerLengths))
	if len(lengths) > 0 {
		all = number(lengths[(len(lengths)-1)/2])
	}
	if len(d.Instances) > 0 {
		rows = append(rows, Row{Section: tasks, Cells: []Cell{Label("all tasks"), number(total.Train), number(total.HeldOut), all}})
	}
	for _, c := range d.GivenUp {
		rows = append(rows, Row{Section: d.of("given up, held out included"), Cells: []Cell{Label(c.Name), number(c.N), Blank(), Blank()}})
	}
	for _, c := range d.Drawn {
		rows = append(rows, Row{Section: d.of("drawn for training, by source"), Cells: []Cell{Label(c.Name), number(c.N), Blank(), Blank()}})
	}
	for _, c := range d.LeftOut {
		rows = append(rows, Row{Section: d.of("not trained on, by reason"), Cells: []Cell{Label(c.Name), number(c.N), Blank(), Blank()}})
	}
	if d.CutOff > 0 {
		rows = append(rows, Row{Section: d.of("trained on in part"), Cells: []Cell{Label("answer cut off in part"), number(d.CutOff), Blank(), Blank()}})
	}
	if len(lengths) == 0 {
		return rows
	}
	for _, b := range buckets {
		var inside []int
		for _, l := range lengths {
			if b.Contains(l) {
				inside = append(inside, l)
			}
		}
		median := Blank()
		if n := len(inside); n > 0 {
			median = number(inside[(n-1)/2])
		}
		rows = append(rows, Row{Section: d.of("trained on, by answer length"), Cells: []Cell{Label(b.String() + " tokens"), number(len(inside)), Blank(), median}})
	}
	return rows
}

// ExpectationTable sets what was expected before the run against what came out.
func ExpectationTable(s *Study) *Table {
	t := &Table{
		Name:  "expected",
		Title: "Expected and observed",
		Caption: "The expectations were written down before the run. \"held\" and \"not held\" need an interval that excludes 0 on the expected or the opposite side; " +
			"an expected equality is held when no difference was found. With fewer than " + fmt.Sprint(MinPairs) + " samples, or while a seed or samples are missing, there is no verdict.",
		Columns: []Column{
			{Name: "Expected before the run", Text: true},
			{Name: "Observed", Text: true},
			{Name: "Verdict", Text: true},
		},
		Marks:     slices.Clone(s.Marks),
		Footnotes: slices.Clone(s.Footnotes),
	}
	for _, o := range Observe(s) {
		t.Rows = append(t.Rows, Row{Cells: []Cell{Label(o.Claim), Label(o.Observed), Label(string(o.Verdict))}})
	}
	return t
}
