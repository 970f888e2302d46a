package reports

import (
	"fmt"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets/longbench"
)

// Footnote is a remark that cells, rows, columns or tables refer to by ID.
type Footnote struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

// IDs of the standard footnotes, which every table may use.
const (
	NoteTiny       = "tiny"
	NoteSynthetic  = "synthetic"
	NoteSimulated  = "simulated"
	NoteOffline    = "offline-judged"
	NoteUnmeasured = "unmeasured"
	NoteIncomplete = "incomplete"
	NoteMeasured   = "measured"
	NoteExact      = "exact"
	NoteImported   = "imported"
	NoteSubset     = "subset"
	NoteUndated    = "undated-judge"
	NoteMoved      = "judge-moved"
	NoteOwnPrompt  = "own-prompt"
	NoteShots      = "other-shots"
)

// StandardFootnotes returns the footnotes that need no definition in a table.
func StandardFootnotes() []Footnote {
	return []Footnote{
		{NoteTiny, "tiny: a model or a data set far below the size the method is meant for; it shows the mechanism, not the paper's quality"},
		{NoteSynthetic, "synthetic: questions and answers were made by rules, not by people or by a language model"},
		{NoteSimulated, "simulated: computed from measured times, not measured on such a machine"},
		{NoteOffline, "offline-judged: scored by rules in place of a language model as judge"},
		{NoteUnmeasured, "–: not measured"},
		{NoteIncomplete, "incomplete: some samples are missing; the value is not final"},
		{NoteMeasured, "measured on the machine named under provenance; it differs from run to run"},
		{NoteExact, "exact: counted from the plan, no sampling"},
		{NoteImported, "imported: computed by another program, taken over as it is"},
		{NoteSubset, "subset: of the benchmark's first samples only; not comparable with published values"},
		{NoteUndated, "undated judge: the judging model's name has no date, so that it may change and the value not be repeated; not a final value"},
		{NoteMoved, "judge moved: the judge rates fixed answers differently than when it was first asked; not comparable with earlier values"},
		{NoteOwnPrompt, "own prompt: judged with a prompt in our words, not the benchmark's"},
		{NoteShots, "other shots: not with the leaderboard's number of solved examples"},
	}
}

// answeredPrefix begins the IDs of footnotes that say who answered in place of a cell's model: what follows is the name.
const answeredPrefix = "answered by "

// answeredNote is the mark of scores of answers that were not the cell's model's.
func answeredNote(by string) []string {
	if by == "" {
		return nil
	}
	return []string{answeredPrefix + by}
}

// toldBeside are the marks of a cell that a figure showing it repeats: who answered, who judged, and what else keeps the value from
// standing beside others.
func toldBeside(c Cell) []string {
	if !c.HasValue() {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Marks), func(id string) bool {
		switch id {
		case NoteOffline, NoteSubset, NoteUndated, NoteMoved, NoteOwnPrompt, NoteImported:
			return false
		}
		return !strings.HasPrefix(id, answeredPrefix)
	})
}

func defineAnswered(defs map[string]string, marks []string) {
	for _, id := range marks {
		if by, ok := strings.CutPrefix(id, answeredPrefix); ok {
			defs[id] = fmt.Sprintf("answered by %s, an endpoint's model: the trained model did not answer, so that the value says nothing of its training", by)
		}
	}
}

// definitions maps footnote IDs to their texts; the table's own win. Scores of LongBench may be marked with what was corrected.
func (t *Table) definitions() map[string]string {
	defs := map[string]string{}
	for _, c := range longbench.Corrections() {
		defs[string(c)] = "corrected: " + c.Explain()
	}
	for _, f := range StandardFootnotes() {
		defs[f.ID] = f.Text
	}
	defineAnswered(defs, t.Marks)
	for _, r := range t.Rows {
		for _, c := range r.Cells {
			defineAnswered(defs, c.Marks)
		}
	}
	for _, f := range t.Footnotes {
		defs[f.ID] = f.Text
	}
	return defs
}

// noteSet numbers the footnotes of one table in the order in which a reader meets them.
type noteSet struct {
	defs  map[string]string
	order []string
}

// note is one printed footnote: its letter and its text.
type note struct{ Letter, ID, Text string }

// newNoteSet walks t as it is read: title, columns, rows.
func newNoteSet(t *Table) *noteSet {
	n := &noteSet{defs: t.definitions()}
	n.use(t.Marks)
	for _, c := range t.Columns {
		n.use(c.Marks)
	}
	for _, r := range t.Rows {
		n.use(r.Marks)
		for _, c := range r.Cells {
			n.use(n.cellMarks(c))
		}
	}
	return n
}

// cellMarks returns the marks of c and those that its counts call for. A cell that is
// plainly "–" needs no letter: its note is printed once for the table.
func (n *noteSet) cellMarks(c Cell) []string {
	marks := slices.Clone(c.Marks)
	if text := countsText(c); text != "" {
		n.defs[text] = text
		marks = append(marks, text)
	}
	if c.Incomplete && c.N > 0 && !slices.Contains(marks, NoteIncomplete) {
		marks = append(marks, NoteIncomplete)
	}
	if c.Incomplete && c.N == 0 && len(marks) == 0 {
		marks = append(marks, NoteUnmeasured)
	}
	return marks
}

// countsText says how many samples failed or were cut, "" if none.
func countsText(c Cell) string {
	var out []string
	if c.Failed > 0 {
		out = append(out, fmt.Sprintf("failed: %d, left out rather than counted as zero", c.Failed))
	}
	if c.Truncated > 0 {
		out = append(out, fmt.Sprintf("truncated: %d", c.Truncated))
	}
	return strings.Join(out, "; ")
}

func (n *noteSet) use(marks []string) {
	for _, id := range marks {
		if !slices.Contains(n.order, id) {
			n.order = append(n.order, id)
		}
	}
}

// letters returns the printed letters of marks. "–" explains itself through the table's
// legend, so NoteUnmeasured has none.
func (n *noteSet) letters(marks []string) []string {
	var out []string
	for _, id := range marks {
		if l := n.letter(id); l != "" && !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	slices.Sort(out)
	return out
}

func (n *noteSet) letter(id string) string {
	i := 0
	for _, o := range n.order {
		if o == NoteUnmeasured {
			if id == o {
				return ""
			}
			continue
		}
		if o == id {
			return letterOf(i)
		}
		i++
	}
	return ""
}

// letterOf counts a, b, … z, aa, ab, …
func letterOf(i int) string {
	s := ""
	for i++; i > 0; i = (i - 1) / 26 {
		s = string(rune('a'+(i-1)%26)) + s
	}
	return s
}

// notes lists the footnotes in order; the unmeasured one, without a letter, comes last.
func (n *noteSet) notes() []note {
	var out []note
	last := ""
	for _, id := range n.order {
		if id == NoteUnmeasured {
			last = n.defs[id]
			continue
		}
		out = append(out, note{n.letter(id), id, n.defs[id]})
	}
	if last != "" {
		out = append(out, note{"", NoteUnmeasured, last})
	}
	return out
}
