package activities

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	tokenset "github.com/longalign/longalign-go/datasets/tokens"
)

// CellTrace leads from one cell of a run to the documents, and from the documents to what was measured.
type CellTrace struct {
	Cell string `json:"cell"`
	// Chain are the results the cell rests on, in the order data flowed.
	Chain []TraceStage `json:"chain"`
	// Documents are those that the cell's model was trained or tested on.
	Documents []DocumentTrace `json:"documents"`
	// Problems say what could not be followed.
	Problems []string `json:"problems,omitempty"`
}

// TraceStage is one result of a chain.
type TraceStage struct {
	Stage  string                  `json:"stage"`
	Role   string                  `json:"role,omitempty"`
	Ref    artifact.Ref            `json:"ref"`
	Inputs map[string]artifact.Ref `json:"inputs,omitempty"`
	Counts map[string]int64        `json:"counts,omitempty"`
}

// DocumentTrace is what became of one document in one cell.
type DocumentTrace struct {
	Document string         `json:"document"`
	Split    datasets.Split `json:"split,omitempty"`
	// PretrainSteps are the optimizer steps of pre-training that read a part of it, counted from 0.
	PretrainSteps []int           `json:"pretrain_steps,omitempty"`
	Instances     []InstanceTrace `json:"instances,omitempty"`
	made          []*InstanceTrace
}

// InstanceTrace is what became of one instruction about a document.
type InstanceTrace struct {
	ID   int               `json:"id"`
	Task datasets.TaskType `json:"task,omitempty"`
	// Steps are the optimizer steps that trained on it, counted from 0 over all epochs.
	Steps []int `json:"steps,omitempty"`
	// Scores by metric, of a held-out one. Failed and truncated samples say so.
	Scores    map[string]float64 `json:"scores,omitempty"`
	Failed    bool               `json:"failed,omitempty"`
	Truncated bool               `json:"truncated,omitempty"`
}

// Trace follows a run both ways for the cells and documents that are wanted; nil wants all. A document is wanted by its
// whole name or, when that has a "#", also by what stands before it.
func (a *Activities) Trace(ctx context.Context, run *artifact.RunRecord, wantCell, wantDocument func(string) bool) ([]CellTrace, error) {
	dir, err := os.MkdirTemp(a.Scratch, "lineage-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var out []CellTrace
	for _, cell := range run.Cells {
		if wantCell != nil && !wantCell(cell) {
			continue
		}
		t := &tracer{CellTrace: CellTrace{Cell: cell}, want: wantDocument, documents: map[string]*DocumentTrace{}, instances: map[int]*InstanceTrace{}}
		t.job = &job{a: a, dir: dir, own: newOwnResults(a.Store, run), call: Call{Inputs: map[string]artifact.Ref{}}, manifest: &artifact.Manifest{Counts: map[string]int64{}}}
		t.follow(ctx, run)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		out = append(out, t.CellTrace)
	}
	return out, nil
}

// tracer follows one cell. The inputs of its job are the cell's results by stage and role.
type tracer struct {
	CellTrace
	*job
	want      func(string) bool
	documents map[string]*DocumentTrace
	instances map[int]*InstanceTrace
}

func (t *tracer) follow(ctx context.Context, run *artifact.RunRecord) {
	for _, call := range run.Stages {
		if call.Cell != t.Cell || call.Ref.Generation == 0 {
			continue
		}
		t.call.Inputs[strings.TrimSuffix(call.Stage+"/"+call.Role, "/")] = call.Ref
		stage := TraceStage{Stage: call.Stage, Role: call.Role, Ref: call.Ref}
		if m, err := t.a.Store.Current(ctx, call.Ref); err != nil {
			t.problem("%s: %v", call.Ref, err)
		} else {
			stage.Inputs, stage.Counts = t.own.inputs(ctx, m, t.Cell), m.Counts
		}
		t.Chain = append(t.Chain, stage)
	}
	slices.SortStableFunc(t.Chain, func(x, y TraceStage) int {
		return slices.Index(Stages, x.Stage) - slices.Index(Stages, y.Stage)
	})
	for _, step := range []struct {
		name   string
		needs  []string
		follow func(context.Context) error
	}{
		{"documents", []string{"documents"}, t.readDocuments},
		{"pre-training", []string{"documents", "tokens/pretrain", "batches/pretrain"}, t.pretraining},
		{"instructions", []string{"instructions"}, t.readInstances},
		{"training", []string{"instructions", "tokens/instructions", "batches/instructions"}, t.training},
		{"scores", []string{"scores"}, t.scored},
	} {
		if slices.ContainsFunc(step.needs, func(role string) bool { return !t.hasInput(role) }) {
			continue
		}
		if err := step.follow(ctx); err != nil {
			t.problem("%s: %v", step.name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.documents)) {
		d := t.documents[name]
		for _, i := range d.made {
			d.Instances = append(d.Instances, *i)
		}
		t.Documents = append(t.Documents, *d)
	}
}

func (t *tracer) problem(format string, args ...any) {
	t.Problems = append(t.Problems, fmt.Sprintf(format, args...))
}

func (t *tracer) wanted(document string) bool {
	if t.want == nil || t.want(document) {
		return true
	}
	file, _, isPart := strings.Cut(document, "#")
	return isPart && t.want(file)
}

// as calls f with a result under the role name that the stages themselves use.
func (t *tracer) as(role, of string, f func() error) error {
	before, had := t.call.Inputs[role]
	t.call.Inputs[role] = t.call.Inputs[of]
	err := f()
	if delete(t.call.Inputs, role); had {
		t.call.Inputs[role] = before
	}
	return err
}

func (t *tracer) readDocuments(ctx context.Context) error {
	for d, err := range t.job.documents(ctx) {
		if err != nil {
			return err
		}
		if t.wanted(d.ID) {
			t.documents[d.ID] = &DocumentTrace{Document: d.ID, Split: d.Split}
		}
	}
	return nil
}

// pretraining follows documents into the steps of pre-training: the tokens stage took them in an order drawn by seed.
func (t *tracer) pretraining(ctx context.Context) error {
	var names []string
	for d, err := range t.job.documents(ctx) {
		if err != nil {
			return err
		}
		if d.Split == datasets.SplitTrain {
			names = append(names, d.ID)
		}
	}
	datasets.Shuffle(pretrainOrder(), names)
	return t.steps(ctx, "tokens/pretrain", "batches/pretrain", func(number, step int) {
		if number < len(names) {
			if d := t.documents[names[number]]; d != nil && !slices.Contains(d.PretrainSteps, step) {
				d.PretrainSteps = append(d.PretrainSteps, step)
			}
		}
	})
}

func (t *tracer) readInstances(ctx context.Context) error {
	var problems []error
	for _, file := range []string{trainFile, heldOutFile} {
		for i, err := range t.job.instances(ctx, "instructions", file) {
			if err != nil {
				problems = append(problems, err)
				break
			}
			if i.Meta == nil || t.documents[i.Meta.Document] == nil {
				continue
			}
			made := &InstanceTrace{ID: i.Meta.ID, Task: i.Meta.Task}
			t.instances[i.Meta.ID] = made
			d := t.documents[i.Meta.Document]
			d.made = append(d.made, made)
		}
	}
	return errors.Join(problems...)
}

// training follows instructions into the optimizer steps: sequences are numbered as the tokens stage read the drawn ones.
func (t *tracer) training(ctx context.Context) error {
	m, err := t.input(ctx, "tokens/instructions")
	if err != nil {
		return err
	}
	p, err := recordedParams[datasets.TokensStageParams](m.Params)
	if err != nil {
		return err
	}
	drawn, err := t.drawnInstructions(ctx, p.TokensParams, m.Counts)
	if err != nil {
		return err
	}
	var ids []int
	n := 0
	for i, err := range t.job.instances(ctx, "instructions", trainFile) {
		if err != nil {
			return err
		}
		if drawn == nil || drawn[n] {
			id := -1
			if i.Meta != nil {
				id = i.Meta.ID
			}
			ids = append(ids, id)
		}
		n++
	}
	return t.steps(ctx, "tokens/instructions", "batches/instructions", func(number, step int) {
		if number < len(ids) {
			if i := t.instances[ids[number]]; i != nil && !slices.Contains(i.Steps, step) {
				i.Steps = append(i.Steps, step)
			}
		}
	})
}

// steps calls visit with the number that the tokens stage gave a sequence's origin, and each step that the sequence is in.
func (t *tracer) steps(ctx context.Context, tokens, batches string, visit func(number, step int)) error {
	var set *tokenset.Set
	err := t.as("tokens", tokens, func() (err error) {
		set, err = t.sequenceIndex(ctx, "tokens")
		return err
	})
	if err != nil {
		return err
	}
	plans, _, err := t.plans(ctx, batches)
	if err != nil {
		return err
	}
	first := 0
	for _, plan := range plans {
		for step := range plan.Steps() {
			from, to := plan.MicroBatches(step)
			for m := from; m < to; m++ {
				for _, id := range plan.MicroBatch(m) {
					shard, at, err := set.At(int(id))
					if err != nil {
						return err
					}
					visit(shard.Instance(at), first+step)
				}
			}
		}
		first += plan.Steps()
	}
	return nil
}

func (t *tracer) scored(ctx context.Context) error {
	var s Scores
	if err := t.readJSON(ctx, "scores", "scores.json", &s); err != nil {
		return err
	}
	for metric, set := range s.Metrics {
		for _, sample := range set.Samples {
			var id int
			if _, err := fmt.Sscan(sample.ID, &id); err != nil {
				continue // scored elsewhere: no instance of this run
			}
			i := t.instances[id]
			if i == nil {
				continue
			}
			i.Truncated = i.Truncated || sample.Truncated
			if sample.Failed {
				i.Failed = true
				continue
			}
			if i.Scores == nil {
				i.Scores = map[string]float64{}
			}
			i.Scores[metric] = sample.Value
		}
	}
	return nil
}

// Uses are the results that were made from one, directly, and the cells of runs that used it.
type Uses struct {
	Ref    artifact.Ref            `json:"ref"`
	Inputs map[string]artifact.Ref `json:"inputs,omitempty"`
	By     []artifact.Ref          `json:"by,omitempty"`
	Runs   map[string][]string     `json:"runs,omitempty"` // cells by run
}

// UsesOf finds what a result was made from and what was made from it. name is a Ref as it is printed: its key may be cut short.
func UsesOf(ctx context.Context, store *artifact.Store, name string) (*Uses, error) {
	parts := strings.Split(name, "/")
	if len(parts) < 2 {
		return nil, fmt.Errorf("%q names no result; write stage/key or stage/key/generation, as explain prints them", name)
	}
	var found []artifact.Ref
	u := &Uses{Runs: map[string][]string{}}
	users := map[artifact.Ref][]artifact.Ref{}
	for ref, r := range store.Manifests(ctx, "") {
		if r.Err != nil {
			if ref == (artifact.Ref{}) {
				return nil, r.Err
			}
			continue
		}
		if ref.Stage == parts[0] && strings.HasPrefix(ref.Key, parts[1]) && (len(parts) < 3 || fmt.Sprint(ref.Generation) == parts[2]) {
			found = append(found, ref)
			u.Ref, u.Inputs = ref, r.Manifest.Inputs
		}
		for _, in := range r.Manifest.Inputs {
			users[in] = append(users[in], ref)
		}
	}
	switch {
	case len(found) == 0:
		return nil, fmt.Errorf("result %s: %w", name, artifact.ErrNotFound)
	case slices.ContainsFunc(found, func(r artifact.Ref) bool { return r.Key != u.Ref.Key }):
		return nil, fmt.Errorf("%q names several results; write more of the key", name)
	}
	for ref, by := range users {
		if ref.Stage == u.Ref.Stage && ref.Key == u.Ref.Key {
			u.By = append(u.By, by...)
		}
	}
	slices.SortFunc(u.By, func(x, y artifact.Ref) int { return strings.Compare(x.String(), y.String()) })
	u.By = slices.Compact(u.By)
	for run, err := range store.Runs(ctx) {
		if err != nil {
			continue
		}
		for _, call := range run.Stages {
			if call.Ref.Stage == u.Ref.Stage && call.Ref.Key == u.Ref.Key && !slices.Contains(u.Runs[run.ID], call.Cell) {
				u.Runs[run.ID] = append(u.Runs[run.ID], call.Cell)
			}
		}
	}
	return u, nil
}
