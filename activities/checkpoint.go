package activities

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
)

// checkpointStage imports, pre-trains or tunes a model. Outputs: a Hugging Face directory (config.json,
// model.safetensors, tokenizer files), metrics.jsonl, and measured: timings.json, attempts.json,
// parity.json (the loss-parity certificate of the first step).
var checkpointStage = stage{name: "checkpoint", version: 3, describe: describeCheckpoint, outside: modelFiles, run: runCheckpoint}

func decodeCheckpoint(raw json.RawMessage) (datasets.CheckpointParams, error) {
	p, err := decodeParams[datasets.CheckpointParams](raw)
	if err != nil {
		return p, err
	}
	if p.Model != nil {
		m := p.Model.Defaults()
		if err := m.Validate(); err != nil {
			return p, badConfig("model.%w", err)
		}
		p.Model = &m
	}
	if p.Train != nil {
		t := p.Train.Defaults()
		if err := t.Validate(); err != nil {
			return p, badConfig("train.%w", err)
		}
		p.Train = &t
	}
	if p.Train == nil && p.Objective != datasets.ObjectiveImport {
		return p, badConfig("objective %s needs training parameters", p.Objective)
	}
	return p, nil
}

func describeCheckpoint(raw json.RawMessage) (json.RawMessage, error) {
	p, err := decodeCheckpoint(raw)
	if err != nil {
		return nil, err
	}
	return meaning(p)
}

// modelFiles hashes the model that is read from a directory of the worker.
func modelFiles(_ context.Context, _ *Activities, raw json.RawMessage) (map[string]string, error) {
	p, err := decodeCheckpoint(raw)
	if err != nil || p.Model == nil || p.Model.Path == "" {
		return nil, err
	}
	names, err := llama.Files(p.Model.Path)
	if err != nil {
		return nil, badData("%w", err)
	}
	return fileDigests(p.Model.Path, names)
}

func runCheckpoint(ctx context.Context, j *job) error {
	p, err := decodeCheckpoint(j.call.Params)
	if err != nil {
		return err
	}
	device, precision := "auto", "f32"
	if p.Train != nil {
		device, precision = p.Train.Device, p.Train.Precision
	}
	dev, err := j.a.device(ctx, device, j.call.Class)
	if err != nil {
		return err
	}
	defer dev.Close()
	info := dev.Info()
	if info.Kind == "cuda" {
		j.manifest.Platform.GPU, j.manifest.Platform.Driver = info.Name, info.Driver
	}
	dtype, err := train.ParseDType(precision)
	if err != nil {
		return badConfig("train.precision: %w", err)
	}
	model, err := j.startModel(ctx, p, dev, dtype)
	if err != nil {
		return err
	}
	defer model.Close()
	j.count("parameters", int64(model.NumParams()))
	if p.Train != nil {
		if err := j.train(ctx, p, model); err != nil {
			return err
		}
	}
	out := filepath.Join(j.dir, "model")
	if err := model.Save(out); err != nil {
		return err
	}
	return j.putDirectory(ctx, out)
}

// startModel is the model before training: the input "base", a directory's, or one with random weights. A base's
// tokenizer files are kept; a new model takes the tokenizer's.
func (j *job) startModel(ctx context.Context, p datasets.CheckpointParams, dev gpu.Device, dtype gpu.DType) (*llama.Model, error) {
	if j.hasInput("base") {
		dir, err := j.fetch(ctx, "base")
		if err != nil {
			return nil, err
		}
		return llama.Load(dir, dev, dtype)
	}
	if p.Model == nil {
		return nil, badConfig("there is no model to start from")
	}
	if p.Model.Path != "" {
		m, err := llama.Load(p.Model.Path, dev, dtype, llama.WithRopeThetaScale(p.Model.RopeThetaScale, p.Model.MaxPositionEmbeddings))
		if err != nil {
			return nil, badData("model %s: %w", p.Model.Path, err)
		}
		return m, nil
	}
	tok, err := j.tokenizer(ctx, "tokenizer")
	if err != nil {
		return nil, err
	}
	files, err := j.tokenizerFiles(ctx, "tokenizer")
	if err != nil {
		return nil, err
	}
	cfg, err := newShape(p.Model, tok)
	if err != nil {
		return nil, err
	}
	m, err := llama.New(cfg, dev, dtype, p.Model.InitSeed)
	if err != nil {
		return nil, err
	}
	m.CarryFiles(files)
	return m, nil
}

// putDirectory stores the files of a directory as outputs.
func (j *job) putDirectory(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := j.putFile(ctx, e.Name(), "application/octet-stream", filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// train takes the planned steps, from the last checkpoint on.
func (j *job) train(ctx context.Context, p datasets.CheckpointParams, model *llama.Model) error {
	set, closeSet, err := j.sequences(ctx, "tokens")
	if err != nil {
		return err
	}
	defer closeSet()
	plans, report, err := j.plans(ctx, "batches")
	if err != nil {
		return err
	}
	options, load := trainOptions(p, report.Steps), largestLoad(plans, set)
	held, err := j.heldOut(ctx, p, model.Config())
	if err != nil {
		return err
	}
	for _, pack := range held {
		load.Tokens, load.Longest = max(load.Tokens, len(pack.InputIDs)), max(load.Longest, len(pack.InputIDs))
	}
	if err := checkContext(model.Config(), load.Longest); err != nil {
		return err
	}
	trainer, plan, err := train.Fit(model, options, load)
	if err != nil {
		return trainingError(err)
	}
	defer trainer.Close()
	j.note("memory: %s", plan)
	trainer.SetInputs(map[string]string{"action": j.call.Key})
	saved, err := j.acquire(ctx, trainer)
	if err != nil {
		return err
	}
	if len(saved.state.Attempts) == 1 {
		saved.state.ForecastSeconds = j.a.expectedSeconds(ctx, j.call.Class, int64(model.NumParams()), report.Ledger.Computed)
	}
	// A worker that is stopped ends the loop after the step in hand; the state is saved before Run returns.
	loop, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case <-j.stopping(ctx):
			stop(errStopping)
		case <-loop.Done():
		}
	}()
	err = trainer.Run(loop, planSource(plans, set), train.LoopOptions{
		CheckpointEvery: p.Train.CheckpointEvery,
		EvalEvery:       p.Train.EvalEvery,
		Held:            held,
		OnParity:        func(c train.Certificate) error { return saved.certify(ctx, c) },
		// The save must outlive the cancellation that caused it.
		Checkpoint:   func(s *train.State) error { return saved.save(context.WithoutCancel(ctx), j, s) },
		OnMicroBatch: func() { j.moves.Add(1) }, // a step, or a held-out loss, that takes long is no standstill
		OnStep: func(m train.Metrics) error {
			j.report(ctx, Progress{Done: int64(m.Step + 1), Total: int64(options.Steps), Unit: "step", Loss: m.Loss, Rate: m.TokensPerSecond})
			j.beat(ctx)
			return nil
		},
	})
	var diverged *train.DivergedError
	switch {
	case errors.As(err, &diverged):
		return &problem{Diverged, err}
	case err != nil && errors.Is(context.Cause(loop), errStopping) && !errors.As(err, new(*train.CheckpointError)):
		return handover("stopped after step %d of %d, which is saved; another worker goes on from there", trainer.StepsDone(), options.Steps)
	case err != nil:
		return err
	}
	return j.putMetrics(ctx, trainer.History(), report, saved)
}

var errStopping = errors.New("the worker is stopping")

func trainOptions(p datasets.CheckpointParams, steps int) train.Options {
	t := p.Train
	o := train.DefaultOptions()
	o.Steps, o.LR, o.MinLR, o.Schedule = steps, t.LearningRate, t.MinLR, train.Schedule(t.Schedule)
	o.WarmupSteps, o.WarmupRatio = -1, t.WarmupRatio
	o.Beta1, o.Beta2, o.Eps, o.WeightDecay, o.Clip = t.Beta1, t.Beta2, t.Eps, t.WeightDecay, max(t.Clip, 0)
	o.Loss, o.DType, o.Device = t.Loss, t.Precision, t.Device
	o.Recompute = cmp.Or(train.Recompute(t.Recompute), train.RecomputeAuto)
	o.Offload, o.States = cmp.Or(train.Offload(t.Offload), train.OffloadAuto), train.States(t.OptimizerStates)
	if p.Objective == datasets.ObjectivePretrain {
		o.Objective = train.Pretrain
	}
	return o
}

// planSource gives the micro-batches of a step, counted over all epochs.
func planSource(plans []datasets.Plan, set interface {
	datasets.SequenceSource
	Weights() []float64
}) train.Source {
	weights := set.Weights()
	return train.SourceFunc(func(step int) (train.Batch, error) {
		for _, plan := range plans {
			if step >= plan.Steps() {
				step -= plan.Steps()
				continue
			}
			packs, err := plan.Packs(step, set, 0, weights)
			if err != nil {
				return train.Batch{}, err
			}
			b := train.Batch{MicroBatches: packs}
			from, to := plan.MicroBatches(step)
			for m := from; m < to; m++ {
				b.Sequences = append(b.Sequences, plan.MicroBatch(m))
				for _, id := range plan.MicroBatch(m) {
					s, err := set.Sequence(int(id))
					if err != nil {
						return train.Batch{}, err
					}
					b.Tokens += min(len(s.IDs), plan.MaxLength)
				}
			}
			return b, nil
		}
		return train.Batch{}, fmt.Errorf("the plan has no step %d", step)
	})
}

// largestLoad is the most tokens that go through the model at once, and the longest sequence and the number of micro-batches that
// go with it.
func largestLoad(plans []datasets.Plan, set interface{ Lengths() []int }) (l train.Load) {
	lengths := set.Lengths()
	for _, plan := range plans {
		for m := range plan.MicroBatchEnds {
			longest, sum := 0, 0
			ids := plan.MicroBatch(m)
			for _, id := range ids {
				n := min(lengths[id], plan.MaxLength)
				longest, sum = max(longest, n), sum+n
			}
			if !plan.Packed() {
				sum = longest * len(ids)
			}
			l.Tokens, l.Longest = max(l.Tokens, sum), max(l.Longest, longest)
		}
		if n := plan.Steps(); n > 0 {
			l.MicroBatches = max(l.MicroBatches, (len(plan.MicroBatchEnds)+n-1)/n)
		}
	}
	return l
}

// checkContext compares the longest sequence of a training with the model, before the first step.
func checkContext(c *llama.Config, longest int) error {
	if longest <= c.MaxPositions {
		return nil
	}
	return badConfig("sequences have up to %d tokens, the model's context is %d: lower tokens.max_length, or extend the context by model.rope_theta_scale and model.max_position_embeddings", longest, c.MaxPositions)
}

// mostLoad is the largestLoad that batches of these parameters can have, before there are any.
func mostLoad(p datasets.BatchesParams) train.Load {
	l := train.Load{Tokens: p.MaxLength, Longest: p.MaxLength, MicroBatches: p.BatchSize}
	if p.Method != datasets.MethodPacking {
		l.Tokens, l.MicroBatches = p.MaxLength*p.BatchSize, max(1, p.Accumulate)
	}
	if n := p.SequencesPerStep; n > 0 {
		l.MicroBatches = n
	}
	return l
}

// trainingError types what hinders a training from starting.
func trainingError(err error) error {
	var fault deviceFault
	if errors.As(err, &fault) {
		return err // typed by the device
	}
	return badConfig("%w", err)
}
