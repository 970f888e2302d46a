package activities

import (
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// undisturbed is the model of a training that nothing interrupted.
func (p *tiny) undisturbed() artifact.Blob {
	p.t.Helper()
	other := newTiny(p.t)
	ref, err := other.Run(p.t.Context(), other.training(other.upToBatches(), nil))
	if err != nil {
		p.t.Fatal(err)
	}
	return other.output(ref, "model.safetensors")
}

// saved is what a training's checkpoint pointer says.
func (p *tiny) saved(call Call) savedState {
	p.t.Helper()
	r, _, err := p.tap.Get(p.t.Context(), "pointers/"+PointerName(call.Key)+".json")
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Close()
	var pointer artifact.Pointer
	if err := json.NewDecoder(r).Decode(&pointer); err != nil {
		p.t.Fatal(err)
	}
	var s savedState
	if err := json.Unmarshal(pointer.Value, &s); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// atStep calls f before each write of the call's pointer for as long as the pointer is at that step.
func (p *tiny) atStep(call Call, step int, f func() error) {
	key := "pointers/" + PointerName(call.Key) + ".json"
	p.tap.on(func(put string) error {
		if put != key {
			return nil
		}
		if _, err := p.tap.Head(p.t.Context(), key); err != nil || p.saved(call).Step != step {
			return nil
		}
		return f()
	})
}

func TestATrainingKilledBetweenSaveAndPointerGoesOnFromTheOneBefore(t *testing.T) {
	p := newTiny(t)
	call := p.training(p.upToBatches(), nil)
	p.atStep(call, 2, func() error { return errors.New("killed") })
	if _, err := p.Run(t.Context(), call); err == nil {
		t.Fatal("the first attempt was not killed")
	}
	if s := p.saved(call); s.Step != 2 {
		t.Fatalf("the pointer is at step %d, want that of the first checkpoint, 2", s.Step)
	}
	from := -1
	p.tap.on(func(key string) error {
		if strings.HasPrefix(key, "pointers/") && from < 0 {
			from = p.saved(call).Step
		}
		return nil
	})
	ref, err := p.Run(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.output(ref, "model.safetensors"), p.undisturbed(); got != want {
		t.Errorf("the model is %s, an undisturbed one %s", got.Digest, want.Digest)
	}
	var attempts []Attempt
	if err := p.Store.ReadJSON(t.Context(), p.output(ref, "attempts.json"), &attempts); err != nil {
		t.Fatal(err)
	}
	if len(attempts) != 2 || attempts[0].From != 0 || attempts[1].From != 2 || attempts[1].Epoch <= attempts[0].Epoch {
		t.Errorf("attempts %+v", attempts)
	}
	if from != 2 {
		t.Errorf("the second attempt began at step %d", from)
	}
	if !slices.ContainsFunc(p.manifest(ref).Notes, func(n string) bool { return strings.Contains(n, "step 2") }) {
		t.Errorf("notes %q", p.manifest(ref).Notes)
	}
}

func TestAnOlderAttemptIsRefused(t *testing.T) {
	p := newTiny(t)
	call := p.training(p.upToBatches(), nil)
	p.atStep(call, 2, func() error {
		p.tap.on(nil)
		_, err := p.Store.AcquirePointer(t.Context(), PointerName(call.Key), "a newer attempt")
		return err
	})
	_, err := p.Run(t.Context(), call)
	wantType(t, err, Fenced, "a newer attempt")
	if s := p.saved(call); s.Step != 2 {
		t.Errorf("the older attempt moved the pointer to step %d", s.Step)
	}
	if _, err := p.Store.FindManifest(t.Context(), "checkpoint", call.Key); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("the older attempt left a manifest: %v", err)
	}
}

func TestADivergedTrainingKeepsItsLastGoodCheckpoint(t *testing.T) {
	p := newTiny(t)
	call := p.training(p.upToBatches(), func(t *datasets.TrainParams) {
		t.LearningRate, t.Clip, t.Schedule, t.CheckpointEvery = 1e18, -1, "constant", 1
	})
	_, err := p.Run(t.Context(), call)
	wantType(t, err, Diverged, "step")
	s := p.saved(call)
	if s.Step < 1 {
		t.Fatalf("the pointer is at step %d", s.Step)
	}
	for _, b := range []artifact.Blob{s.Tensors, s.Record} {
		if err := p.Store.CheckBlob(t.Context(), b); err != nil {
			t.Error(err)
		}
	}
}

func TestACorruptCheckpointIsNotTrainedOn(t *testing.T) {
	p := newTiny(t)
	call := p.training(p.upToBatches(), nil)
	p.atStep(call, 2, func() error { return errors.New("killed") })
	if _, err := p.Run(t.Context(), call); err == nil {
		t.Fatal("the first attempt was not killed")
	}
	p.tap.on(nil)
	p.corrupt(p.saved(call).Tensors)
	_, err := p.Run(t.Context(), call)
	wantType(t, err, CorruptArtifact)
}

// asActivity runs a call as a worker does.
func (p *tiny) asActivity(call Call, stop chan struct{}) (artifact.Ref, error) {
	p.t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetTestTimeout(30 * time.Second)
	env.SetWorkerStopChannel(stop)
	env.RegisterActivityWithOptions(p.Run, activity.RegisterOptions{Name: call.Stage})
	var ref artifact.Ref
	v, err := env.ExecuteActivity(call.Stage, call)
	if err == nil {
		err = v.Get(&ref)
	}
	return ref, err
}

func TestAStoppedWorkerSavesAndHandsOver(t *testing.T) {
	p := newTiny(t)
	// A state is saved beside the next step: with one a step, the loop is at most one step ahead.
	call := p.training(p.upToBatches(), func(t *datasets.TrainParams) { t.CheckpointEvery = 1 })
	stop := make(chan struct{})
	p.atStep(call, 1, func() error {
		select {
		case <-stop:
		default:
			close(stop)
			time.Sleep(50 * time.Millisecond)
		}
		return nil
	})
	_, err := p.asActivity(call, stop)
	wantType(t, err, Handover, "another worker goes on from there")
	handedOver := p.saved(call).Step
	if handedOver < 2 || handedOver > 5 {
		t.Fatalf("the pointer is at step %d of 6", handedOver)
	}
	p.tap.on(nil)
	ref, err := p.asActivity(call, make(chan struct{}))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.output(ref, "model.safetensors"), p.undisturbed(); got != want {
		t.Errorf("the model is %s, an undisturbed one %s", got.Digest, want.Digest)
	}
	m := p.manifest(ref)
	if m.Workflow.ID == "" {
		t.Error("the manifest does not name its workflow")
	}
}

func TestAStoppedWorkerHandsPredictionsOver(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	call := p.call("predictions", datasets.PredictionsStageParams{Template: "longalign", MaxLength: 1024}, map[string]artifact.Ref{"checkpoint": m.base, "instructions": m.instructions})
	stop := make(chan struct{})
	close(stop)
	_, err := p.asActivity(call, stop)
	wantType(t, err, Handover)
}

func TestAPlanThatDisagreesWithTheTrainerIsRefused(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	// A plan whose report claims one more trained token than its sequences have.
	batches := p.manifest(m.batches)
	var report BatchesReport
	if err := p.Store.ReadJSON(t.Context(), p.output(m.batches, "report.json"), &report); err != nil {
		t.Fatal(err)
	}
	report.Ledger.Trained++
	report.Ledger.Input++
	report.Ledger.Computed++
	blob, err := p.Store.PutJSON(t.Context(), report)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := artifact.NewManifest(artifact.Action{Stage: "batches", StageVersion: 1, Params: map[string]string{"forged": "yes"}})
	if err != nil {
		t.Fatal(err)
	}
	forged.Outputs = slices.Clone(batches.Outputs)
	for i := range forged.Outputs {
		if forged.Outputs[i].Name == "report.json" {
			forged.Outputs[i].Blob = blob
		}
	}
	forged, err = p.Store.PutManifest(t.Context(), forged)
	if err != nil {
		t.Fatal(err)
	}
	m.batches = forged.Ref()
	_, err = p.Run(t.Context(), p.training(m, nil))
	wantType(t, err, BadData, "the trainer computed")
}
