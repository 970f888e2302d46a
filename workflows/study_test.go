package workflows_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu/devices"
	"github.com/longalign/longalign-go/testenv"
	"github.com/longalign/longalign-go/workflows"
)

// smallStudy is the least that goes through every stage.
const smallStudy = `name: small
documents:
  sources: [{name: packages, path: %s, format: go}]
  held_out: 0.4
  near_duplicates: -1
  seed: 3
tokenizer: {vocab_size: 300}
tokens: {max_length: 768}
model: {hidden_size: 16, intermediate_size: 24, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 768}
batches: {method: packing, batch_size: 1, epochs: 2}
train: {learning_rate: 1e-2, checkpoint_every: 2, device: host}
predictions: {max_new_tokens: 2, generate: 1, max_instances: 2, device: host}
study:
  seeds: [1]
  methods:
    - {name: packing}
    - {name: naive, set: {batches.method: naive}}
tables: {kind: demo}
`

// cluster is a Temporal namespace with a store and an in-process worker for all queues.
type cluster struct {
	t        *testing.T
	temporal client.Client
	// namespace is Temporal's.
	namespace string
	store     *artifact.Store
	docs      string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("needs servers")
	}
	store, err := artifact.Open(t.Context(), "file://"+filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	temporal, namespace := testenv.Namespace(t, testenv.Shared(t), workflows.SearchAttributes)
	c := &cluster{t: t, temporal: temporal, namespace: namespace, store: store, docs: filepath.Join(t.TempDir(), "corpus")}
	writeCorpus(t, c.docs)
	return c
}

// work starts a worker; stop ends it as SIGTERM does.
func (c *cluster) work(change func(*activities.Activities)) (stop func()) {
	c.t.Helper()
	a := &activities.Activities{Store: c.store, OpenDevice: devices.Open, Scratch: c.t.TempDir(), Temporal: c.temporal}
	if change != nil {
		change(a)
	}
	var workers []worker.Worker
	for _, q := range workflows.Queues {
		w := worker.New(c.temporal, q, worker.Options{WorkerStopTimeout: 10 * time.Second, DisableRegistrationAliasing: true, DeadlockDetectionTimeout: 10 * time.Second, DisableWorkflowWorker: q != workflows.QueueControl,
			DefaultHeartbeatThrottleInterval: 100 * time.Millisecond, MaxHeartbeatThrottleInterval: 100 * time.Millisecond})
		workflows.Register(w, q, a)
		if err := w.Start(); err != nil {
			c.t.Fatal(err)
		}
		workers = append(workers, w)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		done := make(chan struct{})
		for _, w := range workers {
			go func() { w.Stop(); done <- struct{}{} }()
		}
		for range workers {
			<-done
		}
	}
	c.t.Cleanup(stop)
	return stop
}

func (c *cluster) spec(sets ...string) workflows.Spec {
	c.t.Helper()
	spec, err := workflows.ParseSpec("small.yaml", fmt.Appendf(nil, smallStudy, c.docs), sets)
	if err != nil {
		c.t.Fatal(err)
	}
	return spec
}

func (c *cluster) start(spec workflows.Spec) client.WorkflowRun {
	c.t.Helper()
	id, err := spec.WorkflowID()
	if err != nil {
		c.t.Fatal(err)
	}
	run, err := c.temporal.ExecuteWorkflow(c.t.Context(), client.StartWorkflowOptions{
		ID: id, TaskQueue: workflows.QueueControl, TypedSearchAttributes: spec.SearchAttributes(), StaticSummary: spec.Summary(),
	}, workflows.StudyName, workflows.StudyInput{Spec: spec})
	if err != nil {
		c.t.Fatal(err)
	}
	return run
}

// finish runs a study to its end and returns its record.
func (c *cluster) finish(spec workflows.Spec) (workflows.StudyResult, *artifact.RunRecord, error) {
	c.t.Helper()
	run := c.start(spec)
	ctx, cancel := context.WithTimeout(c.t.Context(), 90*time.Second)
	defer cancel()
	var result workflows.StudyResult
	runErr := run.Get(ctx, &result)
	record, err := c.store.Run(c.t.Context(), run.GetID())
	if err != nil {
		c.t.Fatalf("there is no run record: %v (the run ended by %v)", err, runErr)
	}
	return result, record, runErr
}

// step is how far the run's training is by its heartbeats.
func (c *cluster) step(run client.WorkflowRun) int64 {
	v, err := c.temporal.QueryWorkflow(c.t.Context(), run.GetID(), run.GetRunID(), workflows.ProgressQuery)
	if err != nil {
		return 0
	}
	var p workflows.RunProgress
	if err := v.Get(&p); err != nil {
		c.t.Fatal(err)
	}
	for _, r := range p.Running {
		if r.Stage != "checkpoint" || r.WorkflowID == "" {
			continue
		}
		d, err := c.temporal.DescribeWorkflowExecution(c.t.Context(), r.WorkflowID, "")
		if err != nil {
			continue
		}
		for _, a := range d.GetPendingActivities() {
			var at activities.Progress
			if err := converter.GetDefaultDataConverter().FromPayloads(a.GetHeartbeatDetails(), &at); err == nil && at.Unit == "step" {
				return at.Done
			}
		}
	}
	return 0
}

// model is the digest of a cell's trained weights.
func (c *cluster) model(record *artifact.RunRecord, cell string) artifact.Blob {
	c.t.Helper()
	for _, call := range record.Stages {
		if call.Cell == cell && call.Role == "tuned" {
			m, err := c.store.Manifest(c.t.Context(), call.Ref)
			if err != nil {
				c.t.Fatal(err)
			}
			out, _ := m.Output("model.safetensors")
			return out.Blob
		}
	}
	c.t.Fatalf("cell %s has no trained model", cell)
	return artifact.Blob{}
}

func TestAStudyGoesThroughAllStagesAndIsReused(t *testing.T) {
	c := newCluster(t)
	c.work(nil)
	spec := c.spec()
	result, record, err := c.finish(spec)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Failed) > 0 || record.Status != artifact.Completed || record.Tables == nil || *record.Tables != result.Tables {
		t.Fatalf("result %+v, record %+v", result, record)
	}
	study, err := activities.ReadStudy(t.Context(), c.store, result.Tables, record)
	if err != nil {
		t.Fatal(err)
	}
	if len(study.Cells) != 2 || study.Cells[0].Timing == nil || len(study.Cells[0].LossShare) == 0 || len(study.Cells[0].Curve) == 0 || study.Data == nil {
		t.Errorf("the tables' data lack something: %+v", study.Cells)
	}
	// Everything that is in the store is in the record: nothing was made that nobody uses.
	listed := map[artifact.Ref]bool{}
	for _, call := range record.Stages {
		listed[call.Ref] = true
		if call.Reused {
			t.Errorf("%s of a first run counts as reused", call.Ref)
		}
	}
	stored := 0
	for ref, m := range c.store.Manifests(t.Context(), "") {
		stored++
		if m.Err != nil || !listed[ref] {
			t.Errorf("%s is not in the record: %v", ref, m.Err)
		}
	}
	if stored != len(listed) || stored != 14 { // documents tokenizer instructions tokens base, 2 × (batches tuned predictions scores), tables
		t.Errorf("%d results are stored, %d listed", stored, len(listed))
	}

	began := time.Now()
	_, again, err := c.finish(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the second run took %v", time.Since(began).Round(time.Millisecond))
	if again.RunID == record.RunID || again.ID != record.ID {
		t.Errorf("the second run is %s %s", again.ID, again.RunID)
	}
	for _, call := range again.Stages {
		if !call.Reused {
			t.Errorf("%s was made again", call.Ref)
		}
	}
	if diff := cmp.Diff(record.Refs(), again.Refs()); len(again.Refs()) != len(record.Refs()) {
		t.Errorf("the second run lists other results:\n%s", diff)
	}

	// A third run that differs in training takes over what comes before it.
	_, other, err := c.finish(c.spec("train.learning_rate=2e-2"))
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]int{}
	seen := map[artifact.Ref]bool{}
	for _, call := range other.Stages {
		if !call.Reused && !seen[call.Ref] {
			seen[call.Ref] = true
			made[call.Stage]++
		}
	}
	if diff := cmp.Diff(map[string]int{"checkpoint": 2, "predictions": 2, "scores": 2, "tables": 1}, made); diff != "" {
		t.Errorf("made for another learning rate:\n%s", diff)
	}
}

func TestAWorkerStoppedInTrainingHandsOver(t *testing.T) {
	whole := newCluster(t)
	whole.work(nil)
	// Long enough to be stopped in the middle.
	sets := []string{"study.methods=[{name: packing}]", "batches.epochs=40", "train.checkpoint_every=5"}
	_, record, err := whole.finish(whole.spec(sets...))
	if err != nil {
		t.Fatal(err)
	}
	want := whole.model(record, "packing/seed=1")

	c := newCluster(t)
	c.docs = whole.docs
	stop := c.work(nil)
	run := c.start(c.spec(sets...))
	for saved := false; !saved; time.Sleep(5 * time.Millisecond) {
		for p, err := range c.store.Pointers(t.Context(), "checkpoint/") {
			if err != nil {
				t.Fatal(err)
			}
			var state struct{ Step int }
			saved = json.Unmarshal(p.Value, &state) == nil && state.Step >= 5
		}
		if t.Context().Err() != nil {
			t.Fatal("no checkpoint was saved")
		}
	}
	stop()
	c.work(nil)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	if err := run.Get(ctx, nil); err != nil {
		t.Fatal(err)
	}
	record, err = c.store.Run(t.Context(), run.GetID())
	if err != nil {
		t.Fatal(err)
	}
	if got := c.model(record, "packing/seed=1"); got != want {
		t.Errorf("the model is %s, undisturbed it is %s", got.Digest, want.Digest)
	}
	i := slices.IndexFunc(record.Stages, func(s artifact.StageCall) bool { return s.Role == "tuned" })
	m, err := c.store.Manifest(t.Context(), record.Stages[i].Ref)
	if err != nil {
		t.Fatal(err)
	}
	var attempts []activities.Attempt
	out, _ := m.Output("attempts.json")
	if err := c.store.ReadJSON(t.Context(), out.Blob, &attempts); err != nil {
		t.Fatal(err)
	}
	if len(attempts) != 2 || attempts[1].From == 0 || attempts[1].Recomputed != 0 {
		t.Errorf("the training was taken up as %+v; a handover recomputes nothing", attempts)
	}
}

func TestBadInputFailsTheRunByItsType(t *testing.T) {
	c := newCluster(t)
	c.work(nil)
	empty := t.TempDir()
	garbled := t.TempDir()
	if err := os.WriteFile(filepath.Join(garbled, "bad.txt"), []byte("caf\xe9 \xff\xfe\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	secret := t.TempDir()
	if err := os.WriteFile(filepath.Join(secret, "secret.txt"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(secret, "secret.txt"), 0); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		sets  []string
		kind  string
		words string
	}{
		"documents that are not there":    {[]string{"documents.sources.0.path=" + empty + "/none"}, activities.BadData, "none"},
		"a corpus without documents":      {[]string{"documents.sources.0.path=" + empty}, activities.BadData, "documents"},
		"a file of an unknown encoding":   {[]string{"documents.sources.0.path=" + garbled, "documents.sources.0.format=text"}, activities.BadData, "bad.txt"},
		"a file that cannot be read":      {[]string{"documents.sources.0.path=" + secret, "documents.sources.0.format=text"}, activities.BadData, "secret.txt"},
		"max_length below every sequence": {[]string{"tokens.max_length=4"}, activities.BadData, "max_length"},
		"a device that is not known":      {[]string{"train.device=abacus"}, activities.BadConfig, "abacus"},
		"a template that is not known":    {[]string{"tokens.template=tango"}, activities.BadConfig, "tango"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(name, "cannot be read") && os.Getuid() == 0 {
				t.Skip("root reads everything")
			}
			_, record, err := c.finish(c.spec(tt.sets...))
			var app *temporal.ApplicationError
			if !errors.As(err, &app) || app.Type() != tt.kind || !strings.Contains(app.Message(), tt.words) {
				t.Errorf("the run ended by %v, want %s about %q", err, tt.kind, tt.words)
			}
			if record.Status != artifact.Failed || record.Error == nil || record.Error.Type != tt.kind || !strings.Contains(record.Error.Message, tt.words) {
				t.Errorf("the record says %s, %+v", record.Status, record.Error)
			}
			if strings.Count(fmt.Sprint(record.Error), "activity error") > 0 {
				t.Errorf("the record tells of Temporal instead of the cause: %v", record.Error)
			}
		})
	}
}

func TestACancelledTrainingSavesAndIsRecorded(t *testing.T) {
	c := newCluster(t)
	c.work(nil)
	// Some seconds of training, and no checkpoint on the way.
	run := c.start(c.spec("study.methods=[{name: packing}]", "batches.epochs=300", "train.checkpoint_every=100000"))
	for c.step(run) < 3 {
		if t.Context().Err() != nil {
			t.Fatal("it never trained")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := c.temporal.CancelWorkflow(t.Context(), run.GetID(), ""); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := run.Get(ctx, nil); !temporal.IsCanceledError(err) {
		t.Fatalf("the run ended by %v", err)
	}
	record, err := c.store.Run(t.Context(), run.GetID())
	if err != nil || record.Status != artifact.Cancelled || len(record.Stages) == 0 {
		t.Fatalf("record %+v, %v", record, err)
	}
	steps := 0
	for p, err := range c.store.Pointers(t.Context(), "checkpoint/") {
		if err != nil {
			t.Fatal(err)
		}
		var state struct{ Step int }
		if err := json.Unmarshal(p.Value, &state); err != nil {
			t.Fatal(err)
		}
		steps = max(steps, state.Step)
	}
	if steps == 0 {
		t.Error("the cancelled training saved nothing")
	}
}

// writeCorpus writes ten Go packages with documented functions, always the same.
func writeCorpus(t *testing.T, dir string) {
	t.Helper()
	nouns := []string{"queue", "river", "clock", "garden", "ladder", "market", "window", "signal", "harbor", "engine"}
	for i, noun := range nouns {
		text := fmt.Sprintf("// Package %[1]s keeps a %[1]s.\npackage %[1]s\n\n// Open makes the %[1]s number %[2]d ready, and returns how many of the %[3]s are left.\nfunc Open(%[1]s int) int {\n\treturn %[1]s + %[2]d\n}\n",
			noun, i, nouns[(i+1)%10])
		path := filepath.Join(dir, noun, noun+".go")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
