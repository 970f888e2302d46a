package activities

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu/train"
)

// watched is the training of m with a held-out loss every two steps.
func (p *tiny) watched(m made) Call {
	tp := trainParams
	tp.EvalEvery = 2
	return p.call("checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveSFT, Train: &tp, Template: "plain", MaxLength: 1024},
		map[string]artifact.Ref{"base": m.base, "tokenizer": m.tokenizer, "tokens": m.tokens, "batches": m.batches, "held_out": m.instructions})
}

// metrics are those of a training, a line a step.
func (p *tiny) metrics(ref artifact.Ref) (all []train.Metrics) {
	p.t.Helper()
	data, err := p.Store.ReadBlob(p.t.Context(), p.output(ref, "metrics.jsonl"))
	if err != nil {
		p.t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(data)); d.More(); {
		var m train.Metrics
		if err := d.Decode(&m); err != nil {
			p.t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

func TestTheHeldOutLossDuringTrainingIsThatOfThePredictionsAndChangesNoWeight(t *testing.T) {
	p := newTiny(t)
	m := p.upToBatches()
	ref, err := p.Run(t.Context(), p.watched(m))
	if err != nil {
		t.Fatal(err)
	}
	plain := p.make("checkpoint", datasets.CheckpointParams{Objective: datasets.ObjectiveSFT, Train: &trainParams},
		map[string]artifact.Ref{"base": m.base, "tokenizer": m.tokenizer, "tokens": m.tokens, "batches": m.batches})
	if a, b := p.output(ref, "model.safetensors").Digest, p.output(plain, "model.safetensors").Digest; a != b {
		t.Errorf("watched, the model is %s, else %s", a, b)
	}
	all := p.metrics(ref)
	for i, mt := range all {
		if want := (i+1)%2 == 0 || i == len(all)-1; (mt.EvalLoss != nil) != want {
			t.Errorf("step %d: held-out loss %v, want one: %v", i, mt.EvalLoss, want)
		}
	}
	predictions := p.make("predictions", datasets.PredictionsStageParams{PredictionsParams: datasets.PredictionsParams{Device: "host"}, Template: "plain", MaxLength: 1024},
		map[string]artifact.Ref{"checkpoint": ref, "instructions": m.instructions})
	var sum, n float64
	for _, line := range bytes.Split(bytes.TrimSpace(p.bytes(predictions, "predictions.jsonl")), []byte("\n")) {
		var made datasets.Prediction
		if err := json.Unmarshal(line, &made); err != nil {
			t.Fatal(err)
		}
		sum, n = sum+made.NLL/float64(made.Targets), n+1
	}
	last := all[len(all)-1].EvalLoss
	if n == 0 || last == nil || math.Abs(*last-sum/n) > 1e-6 {
		t.Errorf("the last held-out loss is %v, the predictions' over %v answers %v", last, n, sum/n)
	}
}

func TestAKilledTrainingHasTheHeldOutLossesOfAnUndisturbedOne(t *testing.T) {
	p := newTiny(t)
	undisturbed, err := p.Run(t.Context(), p.watched(p.upToBatches()))
	if err != nil {
		t.Fatal(err)
	}
	want := p.metrics(undisturbed)
	p = newTiny(t)
	call := p.watched(p.upToBatches())
	p.atStep(call, 2, func() error { return errors.New("killed") })
	if _, err = p.Run(t.Context(), call); err == nil {
		t.Fatal("the first attempt was not killed")
	}
	p.tap.on(nil)
	ref, err := p.Run(t.Context(), call)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, p.metrics(ref)); diff != "" {
		t.Errorf("metrics (-undisturbed +resumed):\n%s", diff)
	}
}

func (p *tiny) bytes(ref artifact.Ref, name string) []byte {
	p.t.Helper()
	data, err := p.Store.ReadBlob(p.t.Context(), p.output(ref, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return data
}
