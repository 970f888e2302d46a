package reports

import (
	"fmt"
	"slices"
)

const keptSection = "kept"

// DocumentTable says which documents were kept, how many of them for testing alone, and why others were not.
func DocumentTable(s *Study) *Table {
	d := s.Data
	t := &Table{
		Name:  "documents",
		Title: "Documents",
		Columns: []Column{
			{Name: "Source or reason", Text: true},
			{Name: "documents"},
			{Name: "held out"},
			{Name: "tokens"},
		},
		Marks:     slices.Clone(d.Marks),
		Footnotes: slices.Clone(s.Footnotes),
	}
	for _, part := range []struct {
		name   string
		counts []Count
	}{{keptSection, d.Documents}, {"dropped", d.Dropped}} {
		total := Count{Name: "all " + part.name}
		for _, c := range part.counts {
			t.Rows = append(t.Rows, countRow(part.name, c, d.Sources))
			total.N += c.N
			total.Tokens += c.Tokens
			total.HeldOut += c.HeldOut
		}
		if len(part.counts) != 1 {
			t.Rows = append(t.Rows, countRow(part.name, total, d.Sources))
		}
	}
	return t
}

func countRow(section string, c Count, sources []string) Row {
	tokens := Blank()
	if c.Tokens > 0 {
		tokens = Cell{Value: float64(c.Tokens), Sources: sources}
	}
	heldOut := Blank()
	if section == keptSection {
		heldOut = Cell{Value: float64(c.HeldOut), Sources: sources}
	}
	return Row{Section: section, Cells: []Cell{Label(c.Name), {Value: float64(c.N), Sources: sources}, heldOut, tokens}}
}

// InstanceTable says how many instances there are of each task, and how long the
// training answers are.
func InstanceTable(s *Study) *Table {
	d := s.Data
	t := &Table{
		Name:  "instances",
		Title: "Instances by task and by answer length",
		Columns: []Column{
			{Name: "Task or answer length", Text: true},
			{Name: "training"},
			{Name: "held out"},
			{Name: "median answer", Unit: "tokens"},
		},
		Marks:     slices.Clone(d.Marks),
		Footnotes: slices.Clone(s.Footnotes),
	}
	number := func(v int) Cell { return Cell{Value: float64(v), Sources: d.Sources} }
	total := TaskCount{}
	for _, c := range d.Instances {
		median := Blank()
		if c.MedianAnswer > 0 {
			median = number(c.MedianAnswer)
		}
		t.Rows = append(t.Rows, Row{Section: "tasks", Cells: []Cell{Label(c.Task), number(c.Train), number(c.HeldOut), median}})
		total.Train += c.Train
		total.HeldOut += c.HeldOut
	}
	all := Blank()
	lengths := slices.Sorted(slices.Values(d.AnswerLengths))
	if len(lengths) > 0 {
		all = number(lengths[(len(lengths)-1)/2])
	}
	t.Rows = append(t.Rows, Row{Section: "tasks", Cells: []Cell{Label("all tasks"), number(total.Train), number(total.HeldOut), all}})
	if len(lengths) == 0 {
		return t
	}
	for _, b := range s.buckets() {
		n := 0
		var inside []int
		for _, l := range lengths {
			if b.Contains(l) {
				n++
				inside = append(inside, l)
			}
		}
		median := Blank()
		if n > 0 {
			median = number(inside[(n-1)/2])
		}
		t.Rows = append(t.Rows, Row{Section: "drawn for training, by answer length", Cells: []Cell{Label(b.String() + " tokens"), number(n), Blank(), median}})
	}
	return t
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
