package activities

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// TableCell names a printed value of a report.
type TableCell struct {
	Table  string `json:"table"`
	Row    string `json:"row"` // its section and its label
	Column string `json:"column"`
	// Printed is the value as the table prints it.
	Printed string   `json:"printed"`
	Sources []string `json:"sources"`
}

// TableCells lists the values of a study's tables that are computed from artifacts.
func TableCells(s *reports.Study) []TableCell {
	var out []TableCell
	for _, t := range reports.Tables(s) {
		major := ""
		for _, r := range t.Rows {
			label := r.Cells[0].Text
			if r.Minor {
				label = joined(", ", major, label)
			} else {
				major = label
			}
			for j, c := range r.Cells {
				if len(c.Sources) == 0 || j >= len(t.Columns) {
					continue
				}
				out = append(out, TableCell{Table: t.Name, Row: joined(": ", r.Section, label), Column: joined(": ", t.Columns[j].Group, t.Columns[j].Name), Printed: printed(c), Sources: c.Sources})
			}
		}
	}
	return out
}

func joined(by string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return strings.TrimSpace(s) == "" }), by)
}

// Foundation is what a table's value rests on: the results it was computed from and all that they were made from.
type Foundation struct {
	TableCell
	// Chain are those results in the order data flowed.
	Chain []TraceStage `json:"chain"`
	// Documents counts those of the documents stages in the chain, by split.
	Documents map[datasets.Split]int `json:"documents,omitempty"`
	Problems  []string               `json:"problems,omitempty"`
}

// Rest follows a value of a run's tables down to the documents.
func (a *Activities) Rest(ctx context.Context, run *artifact.RunRecord, cell TableCell) (*Foundation, error) {
	f, own := &Foundation{TableCell: cell}, newOwnResults(a.Store, run)
	seen, shown := map[string]bool{}, map[string]bool{}
	var visit func(ref artifact.Ref, of string) error // as a cell of the run used it
	visit = func(ref artifact.Ref, of string) error {
		if seen[fmt.Sprint(ref, of)] {
			return nil
		}
		seen[fmt.Sprint(ref, of)] = true
		m, err := a.Store.Current(ctx, ref)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if p := fmt.Sprintf("%s: %v", ref, err); !slices.Contains(f.Problems, p) {
				f.Problems = append(f.Problems, p)
			}
			return nil
		}
		inputs := own.inputs(ctx, m, of)
		if name := fmt.Sprint(m.Ref(), inputs); !shown[name] {
			shown[name] = true
			f.Chain = append(f.Chain, TraceStage{Stage: m.Stage, Ref: m.Ref(), Inputs: inputs, Counts: m.Counts})
		}
		if m.Stage == "documents" && !shown[m.Key] {
			shown[m.Key] = true
			if f.Documents == nil {
				f.Documents = map[datasets.Split]int{}
			}
			held := int(m.Counts["held_out"])
			f.Documents[datasets.SplitTrain] += int(m.Counts["documents"]) - held
			f.Documents[datasets.SplitHeldOut] += held
		}
		for _, role := range slices.Sorted(maps.Keys(inputs)) {
			if err := visit(inputs[role], of); err != nil {
				return err
			}
		}
		return nil
	}
	for _, source := range cell.Sources {
		ref, err := a.findRef(ctx, source)
		if err != nil {
			f.Problems = append(f.Problems, err.Error())
			continue
		}
		for _, of := range own.users(ref) {
			if err := visit(ref, of); err != nil {
				return nil, err
			}
		}
	}
	slices.SortStableFunc(f.Chain, func(x, y TraceStage) int { return slices.Index(Stages, x.Stage) - slices.Index(Stages, y.Stage) })
	return f, nil
}

// findRef turns a Ref as it is printed, its key cut short, back into one.
func (a *Activities) findRef(ctx context.Context, source string) (artifact.Ref, error) {
	stage, rest, _ := strings.Cut(source, "/")
	key, generation, _ := strings.Cut(rest, "/")
	for ref, r := range a.Store.Manifests(ctx, stage) {
		if ref == (artifact.Ref{}) && r.Err != nil {
			return ref, r.Err
		}
		if strings.HasPrefix(ref.Key, key) && fmt.Sprint(ref.Generation) == generation {
			return ref, nil
		}
	}
	return artifact.Ref{}, fmt.Errorf("result %s: %w", source, artifact.ErrNotFound)
}

// LeadsTo lists the values of the study's tables that a document bears on, by what became of it in each cell of the run: the
// counts and shares that it is in, and everything that a model says that was trained on it.
func LeadsTo(run *artifact.RunRecord, s *reports.Study, traces []CellTrace) []TableCell {
	touched := map[string]bool{}
	for _, t := range traces {
		if len(t.Documents) > 0 {
			t.touch(touched)
		}
	}
	var out []TableCell
	for _, c := range TableCells(s) {
		if slices.ContainsFunc(c.Sources, func(source string) bool { return touched[source] }) {
			out = append(out, c)
		}
	}
	return out
}

// touch marks the results of a cell that its traced documents bear on.
func (t *CellTrace) touch(touched map[string]bool) {
	var pretrained, instructed, trained, scored bool
	for _, d := range t.Documents {
		pretrained = pretrained || len(d.PretrainSteps) > 0
		for _, i := range d.Instances {
			instructed = true
			trained = trained || len(i.Steps) > 0
			scored = scored || len(i.Scores) > 0 || i.Failed
		}
	}
	marked := map[artifact.Ref]bool{}
	for _, c := range t.Chain { // in the order data flowed, so that what follows finds its inputs marked
		follows := false // from a model or an answer that the document bears on
		for _, in := range c.Inputs {
			follows = follows || marked[in] && slices.Contains([]string{"checkpoint", "predictions", "judgments"}, in.Stage)
		}
		switch {
		case c.Stage == "documents",
			c.Stage == "instructions" && instructed,
			(c.Stage == "tokens" || c.Stage == "batches") && (c.Role == "pretrain" && pretrained || c.Role != "pretrain" && trained),
			c.Stage == "checkpoint" && (c.Role == "base" && pretrained || c.Role != "base" && (trained || follows)),
			(c.Stage == "predictions" || c.Stage == "judgments" || c.Stage == "scores") && (follows || scored && c.Role == ""):
			marked[c.Ref] = true
			touched[reports.Source(c.Ref)] = true
		}
	}
}

// SampleTrace is what became of one sample of a benchmark in one cell.
type SampleTrace struct {
	Benchmark string       `json:"benchmark"`
	ID        string       `json:"id"`
	Dataset   string       `json:"dataset,omitempty"`
	Scores    artifact.Ref `json:"scores"`
	// Asked are the turns of the question, cut short; Answered those of the answer.
	Asked     []string            `json:"asked,omitempty"`
	Answered  []string            `json:"answered,omitempty"`
	Judgments []datasets.Judgment `json:"judgments,omitempty"`
	Values    map[string]float64  `json:"values,omitempty"` // by metric
	Failed    string              `json:"failed,omitempty"`
	Truncated bool                `json:"truncated,omitempty"`
	// Inputs are the results that the sample went through, by role.
	Inputs map[string]artifact.Ref `json:"inputs,omitempty"`
}

// Samples follows a benchmark's sample through the cells that are wanted: question, answer, judgments, scores. The ID may lack its
// benchmark's or dataset's name ("qasper/"); one of several benchmarks is followed in all of them.
func (a *Activities) Samples(ctx context.Context, run *artifact.RunRecord, wantCell func(string) bool, id string) (map[string][]SampleTrace, []string, error) {
	out := map[string][]SampleTrace{}
	var problems []string
	own := newOwnResults(a.Store, run)
	for _, call := range run.Stages {
		if call.Stage != "scores" || call.Role == "" || call.Ref.Generation == 0 || wantCell != nil && !wantCell(call.Cell) {
			continue
		}
		t, err := a.sample(ctx, call, own, id)
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case err != nil:
			problems = append(problems, fmt.Sprintf("%s, %s: %v", call.Cell, call.Role, err))
		}
		if t != nil {
			out[call.Cell] = append(out[call.Cell], *t)
		}
	}
	return out, problems, nil
}

// sample follows one sample through one benchmark of one cell; nil where the benchmark has none of that ID.
func (a *Activities) sample(ctx context.Context, call artifact.StageCall, own *ownResults, id string) (*SampleTrace, error) {
	m, err := a.Store.Current(ctx, call.Ref)
	if err != nil {
		return nil, err
	}
	var scores Scores
	if err := readOutput(ctx, a.Store, m, "scores.json", &scores); err != nil {
		return nil, err
	}
	t := &SampleTrace{Benchmark: call.Role, ID: id, Scores: call.Ref, Values: map[string]float64{}, Inputs: own.inputs(ctx, m, call.Cell)}
	found := false
	for metric, set := range scores.Metrics {
		for _, s := range set.Samples {
			base, turn, _ := strings.Cut(s.ID, "/turn-")
			if base != id && !strings.HasSuffix(base, "/"+id) {
				continue
			}
			found, t.ID = true, base
			if t.Truncated = t.Truncated || s.Truncated; s.Failed {
				t.Failed = "the sample has no score"
				continue
			}
			t.Values[joined(", turn ", metric, turn)] = s.Value
		}
	}
	if !found {
		return nil, nil
	}
	id = t.ID
	j := &job{a: a, call: Call{Inputs: m.Inputs}, manifest: &artifact.Manifest{Counts: map[string]int64{}}}
	if j.hasInput("questions") {
		for q, err := range lines[datasets.Question](ctx, j, "questions", questionsFile) {
			if err != nil {
				return t, err
			}
			if q.ID == id {
				t.Dataset, t.Asked = q.Dataset, shortened(q.Turns)
			}
		}
	}
	if j.hasInput("predictions") {
		answers, err := j.readAnswers(ctx)
		if err != nil {
			return t, err
		}
		if made, ok := answers[id]; ok {
			t.Answered = shortened(made.Texts)
			if made.Failed != "" {
				t.Failed = made.Failed
			}
		}
	}
	if j.hasInput("judgments") {
		for rated, err := range lines[datasets.Judgment](ctx, j, "judgments", judgmentsFile) {
			if err != nil {
				return t, err
			}
			if rated.ID == id {
				t.Judgments = append(t.Judgments, rated)
			}
		}
	}
	return t, nil
}

// shown is how much of a text a trace shows from its begin and from its end.
const shown = 400

func shortened(texts []string) []string {
	var out []string
	for _, s := range texts {
		if r := []rune(s); len(r) > 2*shown {
			s = fmt.Sprintf("%s … %d characters … %s", string(r[:shown]), len(r)-2*shown, string(r[len(r)-shown:]))
		}
		out = append(out, s)
	}
	return out
}
