package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu/train"
	"github.com/longalign/longalign-go/reports"
)

// tablesStage gathers what the stored manifests of a study say. Output: study.json, of which reports makes
// every table and figure.
var tablesStage = stage{name: "tables", version: 6, describe: describeParams[TablesParams], outside: ratingsFile, run: runTables}

// TablesParams are what the tables stage is called with.
type TablesParams struct {
	reports.Params
	Name        string         `json:"name"`
	Title       string         `json:"title,omitempty"`
	Description string         `json:"description,omitempty"`
	Methods     []TablesMethod `json:"methods,omitempty"`
	Cells       []TablesCell   `json:"cells"`
	Buckets     []int          `json:"buckets"`
	// Missing says which cells failed, and why.
	Missing map[string]string `json:"missing,omitempty"`
}

// TablesMethod names a method for people.
type TablesMethod = reports.Method

// TablesCell is one cell whose results are among the inputs, as "scores/<name>" and so on.
type TablesCell struct {
	Name   string        `json:"name"`
	Method string        `json:"method"`
	Seed   uint64        `json:"seed"`
	Model  string        `json:"model,omitempty"`
	Loss   datasets.Loss `json:"loss"`
	// NoDocuments says that the cell was trained on conversations alone: it has no documents, no instructions and nothing held out.
	NoDocuments bool `json:"no_documents,omitempty"`
}

// Defaults returns p with unset fields filled in.
func (p TablesParams) Defaults() TablesParams {
	p.Params = p.Params.Defaults()
	return p
}

// studyFile is the output that reports are made from. It holds measured seconds, so it is volatile.
const studyFile = "study.json"

func runTables(ctx context.Context, j *job) error {
	p, err := decodeParams[TablesParams](j.call.Params)
	if err != nil {
		return err
	}
	if err := j.keepRatings(ctx, p.Ratings); err != nil {
		return err
	}
	s, err := j.study(ctx, p, func(err error) error { return err })
	if err != nil {
		return err
	}
	j.count("cells", int64(len(s.Cells)))
	j.count("missing", int64(len(s.Missing)))
	return j.putMeasured(ctx, studyFile, s)
}

// study gathers the study from the stage's inputs. An input that cannot be used is told to problem; when that returns nil, the
// rest is gathered all the same.
func (j *job) study(ctx context.Context, p TablesParams, problem func(error) error) (*reports.Study, error) {
	s := &reports.Study{
		Name: p.Name, Kind: p.Kind, Title: p.Title, Description: p.Description, Methods: p.Methods, Baseline: p.Baseline,
		Seed: p.Seed, Resamples: p.Resamples, Marks: p.Marks, Expected: p.Expected, Missing: p.Missing, Buckets: buckets(p.Buckets),
	}
	for i, d := range j.dataOf(p) {
		summary, err := j.dataSummary(ctx, d)
		switch {
		case err != nil:
			if err := problem(fmt.Errorf("data: %w", err)); err != nil {
				return nil, err
			}
		case i == 0:
			s.Data = summary
		default:
			s.OtherData = append(s.OtherData, *summary)
		}
	}
	for i, c := range p.Cells {
		cell, err := j.cellData(ctx, p, c, s.Buckets)
		if err != nil {
			if err := problem(fmt.Errorf("cell %s: %w", c.Name, err)); err != nil {
				return nil, err
			}
		}
		if err == nil || cell.Scores != nil {
			s.Cells = append(s.Cells, cell)
		}
		j.report(ctx, Progress{Done: int64(i + 1), Total: int64(len(p.Cells)), Unit: "cell"})
	}
	var err error
	if s.Ratings, err = j.readRatings(ctx, p.Ratings); err != nil {
		if err := problem(fmt.Errorf("ratings: %w", err)); err != nil {
			return nil, err
		}
	}
	if s.Stages, err = j.lineage(ctx, p); err != nil {
		if err := problem(fmt.Errorf("provenance: %w", err)); err != nil {
			return nil, err
		}
	}
	if s.Charges, err = j.charges(ctx, s.Stages); err != nil {
		if err := problem(fmt.Errorf("what it took: %w", err)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// ReadStudy reads the study of a tables manifest, with the run's dates when the run is known. What the store has lost is named
// in the study's problems: when the study itself is gone, it is gathered again from what is left.
func ReadStudy(ctx context.Context, store *artifact.Store, tables artifact.Ref, run *artifact.RunRecord) (*reports.Study, error) {
	m, err := store.Current(ctx, tables)
	if err != nil {
		return nil, err
	}
	out, ok := m.Output(studyFile)
	if !ok {
		return nil, fmt.Errorf("%s holds no %s; it was made by another version of longalign: run the study again", tables, studyFile)
	}
	s := &reports.Study{}
	own, call := newOwnResults(store, run), Call{Stage: m.Stage, Params: m.Params, Inputs: m.Inputs}
	if err := store.ReadJSON(ctx, out.Blob, s); err != nil {
		lost := fmt.Errorf("%s of %s: %w", studyFile, m.Ref(), err)
		if s, err = gatherStudy(ctx, store, call, own, m.Outputs, lost); err != nil {
			return nil, err
		}
	} else if own.differ(ctx, s.Stages) {
		// Another run's equal results led to the same tables. What cannot be gathered of this run's is told of that one's.
		if mine, err := gatherStudy(ctx, store, call, own, m.Outputs, nil); err == nil && len(mine.Problems) == 0 {
			s = mine
		} else if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	s.Stages = append(s.Stages, reports.StageUse{Manifest: own.manifest(ctx, m, "")})
	recorded(ctx, store, s, run)
	return s, nil
}

// GatherStudy makes the study of a run whose tables cannot be read at all, from what they were made from, as far as the store has it. call
// is the one that made them.
func GatherStudy(ctx context.Context, store *artifact.Store, call Call, run *artifact.RunRecord, lost error) (*reports.Study, error) {
	s, err := gatherStudy(ctx, store, call, newOwnResults(store, run), nil, lost)
	if err != nil {
		return nil, err
	}
	recorded(ctx, store, s, run)
	return s, nil
}

// recorded adds what the run's record says to a study.
func recorded(ctx context.Context, store *artifact.Store, s *reports.Study, run *artifact.RunRecord) {
	if run == nil {
		return
	}
	s.ID, s.Started, s.Finished, s.Status, s.Code, s.Spec = run.ID, run.Started, run.Finished, run.Status, run.Code, run.Spec
	s.Problems = append(s.Problems, recordProblems(ctx, store, s, run)...)
	// A result may have been made for one cell of the run and then be found by the others.
	made, reused, roles := map[artifact.Ref]bool{}, map[artifact.Ref]bool{}, map[artifact.Ref]string{}
	for _, call := range run.Stages {
		roles[call.Ref] = call.Role
		made[call.Ref] = made[call.Ref] || !call.Reused
		reused[call.Ref] = reused[call.Ref] || call.Reused
	}
	for i, use := range s.Stages {
		ref := use.Manifest.Ref()
		s.Stages[i].Reused = reused[ref] && !made[ref]
		s.Stages[i].Role = roles[ref]
	}
}

// gatherStudy makes a study from the inputs of a call for tables, as far as they can be read: of one whose own output is lost, or, with
// lost nil, of a run's own results. kept are the outputs of tables that can still be read, nil without.
func gatherStudy(ctx context.Context, store *artifact.Store, call Call, own *ownResults, kept []artifact.Output, lost error) (*reports.Study, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if len(kept) > 0 { // of a manifest, whose parameters lack the path
		call.Params = withRatingsPath(call.Params, ratingsOutput)
	}
	p, err := decodeParams[TablesParams](call.Params)
	if err == nil {
		call, err = own.tables(ctx, call)
	}
	if err != nil {
		return nil, errors.Join(lost, err)
	}
	dir, err := os.MkdirTemp("", "longalign-study-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	j := &job{a: &Activities{Store: store, Scratch: dir}, call: call, dir: dir, own: own, manifest: &artifact.Manifest{Counts: map[string]int64{}, Outputs: kept}}
	var problems []string
	if lost != nil {
		problems = append(problems, fmt.Sprintf("%v; the report is made from what its tables were made from", lost))
	}
	s, err := j.study(ctx, p, func(err error) error {
		problems = append(problems, err.Error())
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	s.Problems = problems
	return s, nil
}

// recordProblems says which results of a run the store no longer has, and which the run's record does not know of.
func recordProblems(ctx context.Context, store *artifact.Store, s *reports.Study, run *artifact.RunRecord) []string {
	var problems []string
	listed := map[string]bool{}
	for _, ref := range run.Refs() {
		listed[ref.Stage+ref.Key] = true
		if _, err := store.Current(ctx, ref); err != nil {
			problems = append(problems, fmt.Sprintf("%s, which the run used: %v", ref, err))
		}
	}
	for _, use := range s.Stages {
		if ref := use.Manifest.Ref(); !listed[ref.Stage+ref.Key] {
			problems = append(problems, fmt.Sprintf("the run's record does not list %s, from which its numbers were made", ref))
		}
	}
	return problems
}

// buckets turns the lengths at which ranges begin into ranges.
func buckets(begins []int) []reports.Bucket {
	from, out := 1, []reports.Bucket{}
	for _, b := range begins {
		if b > from {
			out = append(out, reports.Bucket{From: from, To: b - 1})
		}
		from = b
	}
	return append(out, reports.Bucket{From: from})
}

// cellData gathers one cell's scores, loss shares, cost and learning curve.
func (j *job) cellData(ctx context.Context, p TablesParams, c TablesCell, ranges []reports.Bucket) (reports.CellData, error) {
	d := reports.CellData{Method: c.Method, Seed: int(c.Seed), Model: c.Model, Dataset: p.datasetOf(c.Method)}
	scores, batches, checkpoint := "scores/"+c.Name, "batches/"+c.Name, "checkpoint/"+c.Name
	made := Scores{Metrics: map[string]reports.ScoreSet{}}
	if !c.NoDocuments {
		if err := j.readJSON(ctx, scores, "scores.json", &made); err != nil {
			return d, err
		}
	}
	d.Scores = made.Metrics
	for name, set := range d.Scores {
		set.Sources = []string{reports.Source(j.call.Inputs[scores])}
		d.Scores[name] = set
	}
	if err := j.benchmarks(ctx, c, &d); err != nil {
		return d, err
	}
	plans, report, err := j.plans(ctx, batches)
	if err != nil {
		return d, err
	}
	tokens := j.dataRole("tokens", c.Name)
	set, err := j.sequenceIndex(ctx, tokens)
	if err != nil {
		return d, err
	}
	if d.LossShare, err = lossShares(plans, c.Loss, set.Targets(), set.Weights(), ranges); err != nil {
		return d, err
	}
	d.ShareSources = []string{reports.Source(j.call.Inputs[batches]), reports.Source(j.call.Inputs[tokens])}
	if d.Timing, err = j.timing(ctx, checkpoint, plans, report, p.Devices); err != nil {
		return d, err
	}
	d.TimingSources = []string{reports.Source(j.call.Inputs[checkpoint]), reports.Source(j.call.Inputs[batches])}
	d.Curve, err = j.curve(ctx, checkpoint)
	d.CurveSources = []string{reports.Source(j.call.Inputs[checkpoint])}
	return d, err
}

// lossShares is each answer-length range's share of the loss over all epochs, exact from the plans.
func lossShares(plans []datasets.Plan, loss datasets.Loss, targets []int, weights []float64, ranges []reports.Bucket) ([]reports.Share, error) {
	var ends []int
	for _, r := range ranges[:len(ranges)-1] {
		ends = append(ends, r.To)
	}
	out := make([]reports.Share, len(ranges))
	for _, plan := range plans {
		shares, err := plan.LossShares(loss, targets, weights, ends)
		if err != nil {
			return nil, err
		}
		for i, s := range shares {
			out[i].Bucket = ranges[i]
			out[i].Sequences += s.Sequences
			out[i].Targets += s.Targets
			out[i].Share += s.Share / float64(len(plans))
		}
	}
	return out, nil
}

// timing is what a training cost: counted from its plan, measured where it ran, and simulated on several devices.
func (j *job) timing(ctx context.Context, role string, plans []datasets.Plan, report BatchesReport, devices int) (*reports.Timing, error) {
	var measured Timings
	if err := j.readJSON(ctx, role, "timings.json", &measured); err != nil {
		return nil, err
	}
	t := &reports.Timing{
		Steps: report.Steps, RealTokens: report.Ledger.Computed - report.Ledger.Padding, PaddedTokens: report.Ledger.Computed, TargetTokens: report.Ledger.Trained,
		Seconds: measured.Seconds, Device: measured.Device,
	}
	for _, e := range report.Epochs {
		t.Sequences += e.Sequences
		t.SequencesPerStepMean += e.SequencesPerStepMean / float64(len(report.Epochs))
		t.SequencesPerStepSD += e.SequencesPerStepSD / float64(len(report.Epochs))
	}
	if t.Seconds > 0 {
		t.TokensPerSecond = float64(t.RealTokens) / t.Seconds
	}
	sim, err := idle(plans, measured.MicroBatches, devices)
	if err != nil {
		return nil, err
	}
	t.Simulated = &sim
	return t, nil
}

// idle simulates the steps of all epochs on several devices, from the measured seconds of each micro-batch.
func idle(plans []datasets.Plan, steps [][]float64, devices int) (reports.Simulation, error) {
	sim := reports.Simulation{Devices: devices}
	var busy float64
	for _, plan := range plans {
		var seconds []float64
		for _, step := range steps[:min(plan.Steps(), len(steps))] {
			seconds = append(seconds, step...)
		}
		steps = steps[min(plan.Steps(), len(steps)):]
		one, err := datasets.SimulateIdle(plan, seconds, devices)
		if err != nil {
			return sim, err
		}
		sim.Seconds += one.Seconds
		busy += one.BusySeconds
	}
	if sim.Seconds > 0 {
		sim.Idle = 1 - busy/(float64(devices)*sim.Seconds)
	}
	return sim, nil
}

// curve is the loss of each step.
func (j *job) curve(ctx context.Context, role string) ([]reports.CurvePoint, error) {
	blob, err := j.inputBlob(ctx, role, "metrics.jsonl")
	if err != nil {
		return nil, err
	}
	data, err := j.a.Store.ReadBlob(ctx, blob)
	if err != nil {
		return nil, err
	}
	var points []reports.CurvePoint
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		var m train.Metrics
		err := d.Decode(&m)
		if errors.Is(err, io.EOF) {
			return points, nil
		}
		if err != nil {
			return nil, fmt.Errorf("metrics.jsonl, line %d: %w", len(points)+1, err)
		}
		points = append(points, reports.CurvePoint{Step: m.Step, Loss: m.Loss, HeldOut: m.EvalLoss})
	}
}

// lineage lists every manifest the study rests on, with the cells that used it.
func (j *job) lineage(ctx context.Context, p TablesParams) ([]reports.StageUse, error) {
	cells := map[artifact.Ref]map[string]bool{}
	manifests := map[artifact.Ref]*artifact.Manifest{}
	var walk func(ref artifact.Ref, cell string) error
	walk = func(ref artifact.Ref, cell string) error {
		if cells[ref] == nil {
			cells[ref] = map[string]bool{}
			m, err := j.a.Store.Manifest(ctx, ref)
			if err != nil { // unless a repair has made it again
				if m, err = j.a.Store.Current(ctx, ref); err != nil {
					return err
				}
			}
			manifests[ref] = j.own.manifest(ctx, m, cell)
		} else if cell == "" || cells[ref][cell] {
			return nil
		}
		if cell != "" {
			cells[ref][cell] = true
		}
		for _, in := range j.own.inputs(ctx, manifests[ref], cell) {
			if err := walk(in, cell); err != nil {
				return err
			}
		}
		return nil
	}
	for _, c := range p.Cells {
		for _, role := range j.cellRoles(c) {
			if err := walk(j.call.Inputs[role], c.Name); err != nil {
				return nil, err
			}
		}
	}
	order := map[string]int{}
	for i, s := range Stages {
		order[s] = i
	}
	var uses []reports.StageUse
	for ref, m := range manifests {
		use := reports.StageUse{Manifest: m}
		if len(cells[ref]) < len(p.Cells) {
			use.Cells = slices.Sorted(maps.Keys(cells[ref]))
		}
		uses = append(uses, use)
	}
	slices.SortFunc(uses, func(a, b reports.StageUse) int {
		if d := order[a.Manifest.Stage] - order[b.Manifest.Stage]; d != 0 {
			return d
		}
		return slices.Compare([]string{fmt.Sprint(a.Cells), a.Manifest.Key}, []string{fmt.Sprint(b.Cells), b.Manifest.Key})
	})
	return uses, nil
}
