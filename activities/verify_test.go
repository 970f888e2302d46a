package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// finishedRun makes a run of one cell from documents to tables, with predictions that no model had to make.
func (p *tiny) finishedRun() (*artifact.RunRecord, map[string]artifact.Ref) {
	p.t.Helper()
	ctx := p.t.Context()
	m := p.upToBatches()
	tuned, err := p.Run(ctx, p.training(m, nil))
	if err != nil {
		p.t.Fatal(err)
	}
	predictions := p.make("predictions", datasets.PredictionsStageParams{Template: "longalign", MaxLength: 1024, PredictionsParams: datasets.PredictionsParams{Device: "host"}},
		map[string]artifact.Ref{"checkpoint": tuned, "instructions": m.instructions})
	scores := p.make("scores", datasets.ScoresParams{}, map[string]artifact.Ref{"predictions": predictions})
	cell := TablesCell{Name: "packing/seed=1", Method: "packing", Seed: 1, Loss: datasets.LossLongAlign}
	tables := p.make("tables", TablesParams{Params: reports.Params{Kind: reports.KindDemo}, Name: "tiny", Cells: []TablesCell{cell}, Buckets: []int{8, 32}}, map[string]artifact.Ref{
		"documents": m.documents, "instructions": m.instructions, "tokens": m.tokens,
		"batches/" + cell.Name: m.batches, "checkpoint/" + cell.Name: tuned, "scores/" + cell.Name: scores,
	})
	refs := map[string]artifact.Ref{"documents": m.documents, "tokenizer": m.tokenizer, "instructions": m.instructions, "tokens/instructions": m.tokens,
		"batches/instructions": m.batches, "checkpoint/base": m.base, "checkpoint/tuned": tuned, "predictions": predictions, "scores": scores}
	run := &artifact.RunRecord{ID: "tiny-run", Kind: "experiment", Status: artifact.Completed, Cells: []string{cell.Name}, Tables: &tables,
		Spec: mustMarshal(map[string]any{"documents": p.documentsParams(), "tokenizer": tokenizerParams})}
	for _, name := range []string{"documents", "tokenizer", "instructions", "tokens/instructions", "batches/instructions", "checkpoint/base", "checkpoint/tuned", "predictions", "scores"} {
		stage, role, _ := strings.Cut(name, "/")
		run.Stages = append(run.Stages, artifact.StageCall{Cell: cell.Name, Role: role, Stage: stage, Ref: refs[name]})
	}
	if err := p.Store.PutRun(ctx, run); err != nil {
		p.t.Fatal(err)
	}
	refs["tables"] = tables
	return run, refs
}

func (p *tiny) verify(run *artifact.RunRecord, o VerifyOptions) *Verification {
	p.t.Helper()
	v, err := p.Verify(p.t.Context(), run, o)
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

func (p *tiny) study(run *artifact.RunRecord) *reports.Study {
	p.t.Helper()
	s, err := ReadStudy(p.t.Context(), p.Store, *run.Tables, run)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func TestASoundRunIsVerifiedAtBothLevels(t *testing.T) {
	p := newTiny(t)
	run, _ := p.finishedRun()
	if v := p.verify(run, VerifyOptions{}); !v.Good() || len(v.Findings) > 0 || v.Blobs == 0 {
		t.Errorf("bytes: %+v", v)
	}
	v := p.verify(run, VerifyOptions{Derived: true})
	if !v.Good() || len(v.Findings) > 0 {
		t.Errorf("derived: %+v", v.Findings)
	}
	// Documents, tokenizer, instructions, tokens, batches, the imported model, scores, tables.
	if v.Recomputed != 8 || len(v.Unchecked) != 2 {
		t.Errorf("%d recomputed, not checked: %+v; a training and its predictions alone cost something", v.Recomputed, v.Unchecked)
	}
}

func TestDamagedResultsAreMadeAgainAsNewGenerations(t *testing.T) {
	p := newTiny(t)
	run, refs := p.finishedRun()
	before := p.study(run)
	damaged := map[string]string{"documents": "documents.jsonl.zst", "tokenizer": "tokenizer.json", "instructions": trainFile, "tokens/instructions": "tokens.bin",
		"batches/instructions": "plan-0.jsonl", "scores": "scores.json", "tables": studyFile}
	for name, output := range damaged {
		p.corrupt(p.output(refs[name], output))
	}
	// The model directories hold the tokenizer's files as well: the same blobs.
	found := len(damaged) + 2
	v := p.verify(run, VerifyOptions{})
	if v.Good() || len(v.Findings) != found {
		t.Fatalf("found %+v", v.Findings)
	}
	v = p.verify(run, VerifyOptions{Repair: true})
	if !v.Good() {
		t.Fatalf("not repaired: %+v", v.Findings)
	}
	for _, f := range v.Findings {
		if f.Repaired.Generation != 2 || f.Repaired.Key != f.Ref.Key {
			t.Errorf("%s was repaired by %s; want the next generation of the same result", f.Ref, f.Repaired)
		}
	}
	if v := p.verify(run, VerifyOptions{}); !v.Good() || len(v.Findings) != found {
		t.Errorf("after the repair: %+v", v.Findings)
	}
	if v := p.verify(run, VerifyOptions{Derived: true}); !v.Good() {
		t.Errorf("derived, after the repair: %+v", v.Findings)
	}
	after := p.study(run)
	if diff := cmp.Diff(before.Cells, after.Cells); diff != "" || len(after.Problems) > 0 {
		t.Errorf("the report changed: %v\n%s", after.Problems, diff)
	}
}

func TestARepairTrainsOnlyWhenAskedTo(t *testing.T) {
	p := newTiny(t)
	run, refs := p.finishedRun()
	p.corrupt(p.output(refs["checkpoint/tuned"], "model.safetensors"))
	v := p.verify(run, VerifyOptions{Repair: true})
	if v.Good() || !strings.Contains(v.Findings[0].Repair, "a training") || !strings.Contains(v.Findings[0].Repair, "--costly") {
		t.Fatalf("%+v", v.Findings)
	}
	if v = p.verify(run, VerifyOptions{Repair: true, Costly: true}); !v.Good() {
		t.Errorf("%+v", v.Findings)
	}
}

// forge stores another result under the name of a stage's, as a run with defective code would have.
func (p *tiny) forge(ref artifact.Ref, output string, change func(raw []byte) any) {
	p.t.Helper()
	ctx := p.t.Context()
	m := p.manifest(ref)
	raw, err := p.Store.ReadBlob(ctx, p.output(ref, output))
	if err != nil {
		p.t.Fatal(err)
	}
	next := m.NextGeneration()
	next.Inputs = m.Inputs
	for _, o := range m.Outputs {
		if o.Name == output {
			if o.Blob, err = p.Store.PutJSON(ctx, change(raw)); err != nil {
				p.t.Fatal(err)
			}
		}
		next.Outputs = append(next.Outputs, o)
	}
	if _, err := p.Store.PutManifest(ctx, next); err != nil {
		p.t.Fatal(err)
	}
}

func TestDerivedValuesThatDoNotFollowAreNamed(t *testing.T) {
	p := newTiny(t)
	run, refs := p.finishedRun()
	var sample string
	p.forge(refs["scores"], "scores.json", func(raw []byte) any {
		var s Scores
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatal(err)
		}
		sample = s.Metrics[reports.MetricLoss].Samples[1].ID
		s.Metrics[reports.MetricLoss].Samples[1].Value += 0.5
		return s
	})
	p.forge(refs["tables"], studyFile, func(raw []byte) any {
		var s reports.Study
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatal(err)
		}
		s.Cells[0].LossShare[0].Share = 0.75
		return s
	})
	for i, call := range run.Stages {
		if call.Stage == "scores" {
			run.Stages[i].Ref.Generation = 2
		}
	}
	run.Tables.Generation = 2
	v := p.verify(run, VerifyOptions{Derived: true})
	if len(v.Findings) != 2 {
		t.Fatalf("%+v", v.Findings)
	}
	if d := v.Findings[0].Differences; len(d) != 1 || !strings.Contains(d[0], "loss of sample "+sample) {
		t.Errorf("scores: %q", d)
	}
	d := strings.Join(v.Findings[1].Differences, "\n")
	for _, want := range []string{"cell packing/seed=1: loss_share[0].share: stored 0.75", "table loss-share"} {
		if !strings.Contains(d, want) {
			t.Errorf("tables: want %q in\n%s", want, d)
		}
	}
}

func TestScoresOfPredictionsThatWereReplacedAreNamed(t *testing.T) {
	p := newTiny(t)
	run, refs := p.finishedRun()
	m := p.manifest(refs["predictions"])
	raw, err := p.Store.ReadBlob(t.Context(), p.output(m.Ref(), "predictions.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	raw = regexp.MustCompile(`"nll":[0-9.]+`).ReplaceAll(raw, []byte(`"nll":0.125`))
	blob, err := p.Store.PutBytes(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("actions/predictions/%s/1.json", m.Key)
	if err := p.tap.Backend.Delete(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	m.Outputs[slices.IndexFunc(m.Outputs, func(o artifact.Output) bool { return o.Name == "predictions.jsonl" })].Blob = blob
	if _, err := p.Store.PutManifest(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if v := p.verify(run, VerifyOptions{}); len(v.Findings) != 1 || v.Findings[0].Ref != refs["scores"] {
		t.Errorf("%+v", v.Findings)
	}
	for _, repair := range []bool{false, true} {
		v := p.verify(run, VerifyOptions{Derived: true, Repair: repair})
		if len(v.Findings) != 1 || v.Good() || v.Findings[0].Ref != refs["scores"] || !strings.Contains(v.Findings[0].Problem, "it was made from predictions sha256:") {
			t.Fatalf("%+v", v.Findings)
		}
		if d := strings.Join(v.Findings[0].Differences, "\n"); !strings.Contains(d, "loss of sample ") {
			t.Errorf("%q", d)
		}
		if want := "delete " + path; !strings.Contains(v.Findings[0].Repair, want) {
			t.Errorf("the advice is %q, want %q", v.Findings[0].Repair, want)
		}
	}
}

func TestAReportIsMadeOfWhatIsLeft(t *testing.T) {
	p := newTiny(t)
	run, refs := p.finishedRun()
	for name, tt := range map[string]struct {
		break_ func() (mend func())
		want   []string
		cells  int
	}{
		"a corrupt study is gathered again": {func() func() {
			b := p.output(refs["tables"], studyFile)
			p.corrupt(b)
			return func() { p.corrupt(b) }
		}, []string{studyFile, "corrupt"}, 1},
		"without its scores, a cell is missing and said to be": {func() func() {
			a, b := p.output(refs["tables"], studyFile), p.output(refs["scores"], "scores.json")
			p.corrupt(a)
			p.corrupt(b)
			return func() { p.corrupt(a); p.corrupt(b) }
		}, []string{"cell packing/seed=1"}, 0},
		"a record that lacks a stage": {func() func() {
			all := run.Stages
			run.Stages = slices.DeleteFunc(slices.Clone(all), func(c artifact.StageCall) bool { return c.Stage == "tokens" })
			return func() { run.Stages = all }
		}, []string{"does not list tokens/"}, 1},
		"a record of a result that is gone": {func() func() {
			all := run.Stages
			gone := artifact.Ref{Stage: "batches", Key: strings.Repeat("7", 64), Generation: 1}
			run.Stages = append(slices.Clone(all), artifact.StageCall{Stage: "batches", Ref: gone})
			return func() { run.Stages = all }
		}, []string{"batches/777777777777/1, which the run used", "not found"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			mend := tt.break_()
			defer mend()
			s := p.study(run)
			problems := strings.Join(s.Problems, "\n")
			for _, want := range tt.want {
				if !strings.Contains(problems, want) {
					t.Errorf("want %q among the problems:\n%s", want, problems)
				}
			}
			if len(s.Cells) != tt.cells || s.Data == nil {
				t.Errorf("%d cells, want %d; data %v", len(s.Cells), tt.cells, s.Data != nil)
			}
			if _, err := reports.RenderReport(s); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAResultWithADamagedManifestIsMadeAnewBesideIt(t *testing.T) {
	p := newTiny(t)
	run, refs := p.finishedRun()
	path := fmt.Sprintf("actions/batches/%s/1.json", refs["batches/instructions"].Key)
	if _, err := p.tap.Backend.Put(t.Context(), path, strings.NewReader("{}"), 2, artifact.Condition{}); err != nil {
		t.Fatal(err)
	}
	if v := p.verify(run, VerifyOptions{}); v.Good() {
		t.Errorf("%+v", v.Findings)
	}
	again := p.make("batches", batchesParams, map[string]artifact.Ref{"tokens": refs["tokens/instructions"]})
	if again.Key != refs["batches/instructions"].Key || again.Generation != 2 {
		t.Errorf("made again as %s", again)
	}
	if v := p.verify(run, VerifyOptions{}); !v.Good() {
		t.Errorf("%+v", v.Findings)
	}
	if s := p.study(run); len(s.Problems) > 0 {
		t.Errorf("%q", s.Problems)
	}
}

func TestADamagedManifestIsRepairedFromTheTablesCopy(t *testing.T) {
	p := newTiny(t)
	run, refs := p.finishedRun()
	path := fmt.Sprintf("actions/batches/%s/1.json", refs["batches/instructions"].Key)
	if _, err := p.tap.Backend.Put(t.Context(), path, strings.NewReader("{}"), 2, artifact.Condition{}); err != nil {
		t.Fatal(err)
	}
	if v := p.verify(run, VerifyOptions{Derived: true}); v.Good() || !strings.Contains(v.Findings[0].Repair, "--repair puts it in its place") {
		t.Errorf("%+v", v.Findings)
	}
	if v := p.verify(run, VerifyOptions{Derived: true, Repair: true}); !v.Good() || len(v.Findings) != 1 || !strings.Contains(v.Findings[0].Repair, "another copy of its manifest") {
		t.Errorf("%+v", v.Findings)
	}
	if v := p.verify(run, VerifyOptions{}); !v.Good() {
		t.Errorf("%+v", v.Findings)
	}
}

func TestLineageLeadsBothWays(t *testing.T) {
	p := newTiny(t)
	run, refs := p.finishedRun()
	all, err := p.Trace(t.Context(), run, nil, nil)
	if err != nil || len(all) != 1 || len(all[0].Problems) > 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	trained, scored := 0, 0
	for _, d := range all[0].Documents {
		for _, i := range d.Instances {
			switch {
			case len(i.Steps) > 0 && d.Split == datasets.SplitTrain:
				trained++
				if len(i.Steps) != 3 { // once in each of three epochs
					t.Errorf("instruction %d was trained on in steps %v", i.ID, i.Steps)
				}
			case len(i.Scores) > 0 && d.Split == datasets.SplitHeldOut:
				scored++
			default:
				t.Errorf("%s (%s): %+v was neither trained on nor scored", d.Document, d.Split, i)
			}
		}
	}
	if want := int(p.manifest(refs["tokens/instructions"]).Counts["sequences"]); trained != want || scored == 0 {
		t.Errorf("%d instructions trained on, want %d; %d scored", trained, want, scored)
	}
	one := all[0].Documents[0].Document
	file, _, _ := strings.Cut(one, "#")
	some, err := p.Trace(t.Context(), run, nil, func(name string) bool { return name == file })
	if err != nil || len(some[0].Documents) == 0 || len(some[0].Documents) == len(all[0].Documents) {
		t.Errorf("of %s: %+v, %v", file, some, err)
	}
	u, err := UsesOf(t.Context(), p.Store, "tokens/"+refs["tokens/instructions"].Key[:10])
	if err != nil || len(u.By) < 2 || len(u.Runs["tiny-run"]) != 1 || u.Inputs["instructions"] != refs["instructions"] {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := UsesOf(t.Context(), p.Store, "tokens/ffff"); err == nil {
		t.Error("a result that is not there was found")
	}
}

func TestExplanationsNameTheFieldThatDiffered(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	other := batchesParams
	other.Seed = 2
	seed := p.make("batches", other, map[string]artifact.Ref{"tokens": m.tokens})
	run := &artifact.RunRecord{ID: "r", Stages: []artifact.StageCall{
		{Cell: "a", Stage: "tokens", Ref: m.tokens, Reused: true},
		{Cell: "a", Stage: "batches", Ref: seed}, {Cell: "b", Stage: "batches", Ref: seed},
		{Cell: "a", Stage: "scores"},
	}}
	got, err := Explain(t.Context(), p.Store, run)
	if err != nil || len(got) != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	if !got[0].Hit || got[0].Nearest != nil {
		t.Errorf("a hit needs no reason: %+v", got[0])
	}
	e := got[1]
	if e.Hit || len(e.Cells) != 2 || e.Nearest == nil || *e.Nearest != m.batches || len(e.Differs) != 1 || e.Differs[0].Path != "params.seed" {
		t.Errorf("%+v", e)
	}
	if got[2].Problem == "" {
		t.Errorf("a stage without a result: %+v", got[2])
	}
}

func TestResultsOfOtherBenchmarksExplainNothing(t *testing.T) {
	p := newTiny(t)
	files := write(t, smallLongBench())
	ask := func(set ...string) artifact.Ref {
		return p.make("questions", datasets.QuestionsParams{Benchmark: datasets.BenchmarkLongBench, Path: files, Datasets: set}, nil)
	}
	enqa := p.make("questions", datasets.QuestionsParams{Benchmark: datasets.BenchmarkEnQA,
		Path: write(t, map[string]string{"longbook_qa_eng.jsonl": `{"id":3,"context":"The clock is slow.","input":"What is slow?","answer":["the clock"]}` + "\n"})}, nil)
	first := ask("qasper")
	run := &artifact.RunRecord{ID: "r", Stages: []artifact.StageCall{{Cell: "a", Stage: "questions", Ref: first}, {Cell: "a", Stage: "questions", Ref: ask("qasper", "trec")}}}
	got, err := Explain(t.Context(), p.Store, run)
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[0].Nearest != nil || len(got[0].Because) > 0 {
		t.Errorf("LongBench's questions are compared with %s, En.QA's are %s: %v", got[0].Nearest, enqa, got[0].Because)
	}
	if got[1].Nearest == nil || *got[1].Nearest != first {
		t.Errorf("those of more datasets: %+v", got[1])
	}
}

func TestARehearsalForecastsWhatCostsAndTriesTheRest(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	objects := countObjects(t, p.Store)
	r := p.rehearse(t)
	call := p.training(m, nil)
	found, err := r.Resolve(t.Context(), call)
	if err != nil || found.Hit {
		t.Fatalf("%+v, %v", found, err)
	}
	call.Key = found.Key
	imagined, err := r.Make(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	f := r.Foreseen()[0].Forecast
	if want := int(p.manifest(m.batches).Counts["steps"]); f.Steps != want || f.Tokens == 0 || f.Memory == nil || f.Memory.Total == 0 || f.Seconds == 0 || f.StateBytes == 0 {
		t.Errorf("%+v, want %d steps", f, want)
	}
	next := Call{Stage: "predictions", Params: json.RawMessage(`{"template":"longalign","max_length":1024}`), Inputs: map[string]artifact.Ref{"checkpoint": imagined, "instructions": m.instructions}}
	if found, err := r.Resolve(t.Context(), next); err != nil || found.Hit || found.Key == "" {
		t.Errorf("what builds on an imagined result: %+v, %v", found, err)
	}
	other := Call{Stage: "batches", Params: json.RawMessage(`{"batch_size":2}`), Inputs: map[string]artifact.Ref{"tokens": m.tokens}}
	found, err = r.Resolve(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	other.Key = found.Key
	if _, err := r.Make(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if last := r.Foreseen()[len(r.Foreseen())-1]; !last.Tried || last.Forecast.DiskBytes == 0 {
		t.Errorf("%+v", last)
	}
	if now := countObjects(t, p.Store); now != objects {
		t.Errorf("the rehearsal left %d objects in the store", now-objects)
	}
}

// The model's sizes leave gaps between its tensors, which are no parameters.
func TestAForecastGoesByAnEarlierTrainingOfSuchAModel(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	device, err := p.DescribeDevice(t.Context(), "auto")
	if err != nil {
		t.Fatal(err)
	}
	earlier := p.training(m, nil)
	earlier.Class = device.Class
	found, err := p.Resolve(t.Context(), earlier)
	if err != nil {
		t.Fatal(err)
	}
	earlier.Key = found.Key
	if _, err := p.Run(t.Context(), earlier); err != nil {
		t.Fatal(err)
	}
	r := p.rehearse(t)
	call := p.training(m, func(t *datasets.TrainParams) { t.LearningRate *= 2 })
	if _, err := r.Make(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	if f := r.Foreseen()[0].Forecast; !strings.HasPrefix(f.Speed[strings.Index(f.Speed, "tokens/s"):], "tokens/s, as the training of") || f.Seconds <= 0 {
		t.Errorf("%+v", f)
	}
}

func countObjects(t *testing.T, s *artifact.Store) int {
	t.Helper()
	n := 0
	for _, err := range s.Backend().List(context.Background(), "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}
