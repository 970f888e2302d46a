package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/longalign/longalign-go/activities/llm"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
)

// Forecast is what making a result would take. Zero fields are not known.
type Forecast struct {
	Steps  int   `json:"steps,omitempty"`
	Tokens int64 `json:"tokens,omitempty"` // that go through the model, padding too
	// Samples are those that a model would be asked about.
	Samples int `json:"samples,omitempty"`
	// Memory is the most that batches of the given length can take where they are not there yet (Steps is 0).
	Memory  *train.Memory `json:"memory,omitempty"`
	Seconds float64       `json:"seconds,omitempty"`
	// Speed says where Seconds come from.
	Speed string `json:"speed,omitempty"`
	// DiskBytes are those of the result, StateBytes those of the states saved on the way, which gc removes.
	DiskBytes  int64         `json:"disk_bytes,omitempty"`
	StateBytes int64         `json:"state_bytes,omitempty"`
	Money      *llm.Forecast `json:"money,omitempty"`
	Parameters int64         `json:"parameters,omitempty"`
}

// speed is what a training in the store was like.
type speed struct {
	class      string
	parameters int64
	perSecond  float64 // tokens
	finished   time.Time
}

// speeds reads the timings of all trainings in the store, newest first. What cannot be read is no timing.
func (a *Activities) speeds(ctx context.Context) []speed {
	var all []speed
	for _, r := range a.Store.Manifests(ctx, "checkpoint") {
		if r.Err != nil {
			continue
		}
		var t Timings
		if err := readOutput(ctx, a.Store, r.Manifest, "timings.json", &t); err != nil || t.Seconds <= 0 {
			continue
		}
		all = append(all, speed{describedClass(r.Manifest.ActionKeyInput), r.Manifest.Counts["parameters"], float64(r.Manifest.Counts["tokens"]) / t.Seconds, r.Manifest.Finished})
	}
	slices.SortFunc(all, func(x, y speed) int { return y.finished.Compare(x.finished) })
	return all
}

// expectedSeconds is how long a training of so many tokens should take, by the newest training of such a model on such a device; 0 when
// there is none. A store that cannot be asked gives none either: a forecast is no reason to fail.
func (a *Activities) expectedSeconds(ctx context.Context, class string, parameters, tokens int64) float64 {
	var newest *artifact.Manifest
	for _, r := range a.Store.Manifests(ctx, "checkpoint") {
		if m := r.Manifest; r.Err == nil && m.Counts["parameters"] == parameters && m.Counts["tokens"] > 0 && describedClass(m.ActionKeyInput) == class &&
			(newest == nil || m.Finished.After(newest.Finished)) {
			newest = m
		}
	}
	var t Timings
	if newest == nil || readOutput(ctx, a.Store, newest, "timings.json", &t) != nil {
		return 0
	}
	return t.Seconds / float64(newest.Counts["tokens"]) * float64(tokens)
}

// forecast fills in what a call would take, and returns the model that it would make.
func (r *Rehearsal) forecast(ctx context.Context, call Call, f *Foreseen) (*llama.Config, error) {
	dir, err := os.MkdirTemp(r.a.Scratch, "forecast-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	j := &job{a: r.a, call: call, dir: dir, manifest: &artifact.Manifest{Counts: map[string]int64{}}}
	switch call.Stage {
	case "instructions":
		return nil, r.instructions(ctx, j, f)
	case "batches":
		return nil, r.batches(j, f)
	case "checkpoint":
		return r.training(ctx, j, f)
	case "predictions":
		return nil, r.predictions(ctx, j, f)
	case "judgments":
		return nil, r.judgments(ctx, j, f)
	}
	return nil, nil
}

// predictions counts the held-out instructions, or a benchmark's questions, that a model would be asked. How long an answer takes is known from earlier ones.
func (r *Rehearsal) predictions(ctx context.Context, j *job, f *Foreseen) error {
	p, err := decodeParams[datasets.PredictionsStageParams](j.call.Params)
	if err != nil {
		return err
	}
	if p.Answer != nil {
		return r.answers(ctx, j, p, f)
	}
	if !j.hasInput("instructions") || r.imaginedInput(j, "instructions") {
		return nil
	}
	var tokens float64 // that go through the model, about
	for i, err := range j.instances(ctx, "instructions", heldOutFile) {
		if err != nil {
			return err
		}
		if f.Forecast.Samples++; p.MaxInstances > 0 && f.Forecast.Samples > p.MaxInstances {
			continue
		}
		of := 0.0
		for _, m := range i.Messages {
			of += float64(len(m.Content)) / bytesOfToken
		}
		if tokens += min(of, float64(p.MaxLength)); i.Meta != nil && i.Meta.Needle != "" {
			tokens += min(of, float64(p.MaxLength)) // once with the needle, once without
		}
	}
	if f.Forecast.Samples == 0 {
		return nil // there is no held-out loss then
	}
	if p.MaxInstances > 0 {
		f.Forecast.Samples = min(f.Forecast.Samples, p.MaxInstances)
	}
	var newest *artifact.Manifest
	on := r.describe(ctx, p.Device)
	for _, m := range r.a.Store.Manifests(ctx, "predictions") {
		if m.Err == nil && m.Manifest.Counts["predictions"] > 0 && describedClass(m.Manifest.ActionKeyInput) == on.Class && (newest == nil || m.Manifest.Finished.After(newest.Finished)) {
			newest = m.Manifest
		}
	}
	if newest != nil {
		f.Forecast.Seconds = newest.Finished.Sub(newest.Started).Seconds() / float64(newest.Counts["predictions"]) * float64(f.Forecast.Samples)
		return nil
	}
	r.mu.Lock()
	config := r.imagined[j.call.Inputs["checkpoint"]]
	r.mu.Unlock()
	if config == nil {
		return nil
	}
	options := train.DefaultOptions()
	parameters := llama.MemoryPlan(config, gpu.Float32, llama.Placement{}, 0).Count
	if perSecond, _ := r.speedOf(ctx, on, config, options, parameters, timedTokens); perSecond > 0 {
		written := float64(min(p.Generate, f.Forecast.Samples) * p.MaxNewTokens)
		f.Forecast.Seconds = tokens/(forwardOfStep*perSecond) + written/perSecond
	}
	return nil
}

// What is assumed of predictions before any were made: how many bytes a token spells, and that a forward pass takes a third of a training
// step. Writing, a token at a time, is taken to be as slow as training.
const (
	bytesOfToken  = 3.0
	forwardOfStep = 3.0
)

// instructions counts what a teacher would be asked about.
func (r *Rehearsal) instructions(ctx context.Context, j *job, f *Foreseen) error {
	if r.unknown(j.call) {
		return nil
	}
	var p struct {
		datasets.InstructionsParams
		Endpoint *datasets.EndpointParams `json:"endpoint"`
	}
	if err := json.Unmarshal(j.call.Params, &p); err != nil {
		return err
	}
	p.InstructionsParams = p.InstructionsParams.Defaults()
	var work llm.Workload
	for d, err := range j.documents(ctx) {
		if err != nil {
			return err
		}
		n := float64(max(1, p.PerDocument))
		if d.Split == datasets.SplitHeldOut && p.PerHeldOut > 0 {
			n = float64(p.PerHeldOut)
		}
		work.Instances.Low, work.Instances.High = work.Instances.Low+n, work.Instances.High+n
		work.Tokens.Low, work.Tokens.High = work.Tokens.Low+n*float64(d.Tokens), work.Tokens.High+n*float64(d.Tokens)
	}
	if p.Endpoint != nil {
		money := llm.Estimate(*p.Endpoint, p.InstructionsParams, work)
		f.Forecast.Money = &money
	}
	return nil
}

// batches remembers how long the sequences of batches that are not there yet may be.
func (r *Rehearsal) batches(j *job, f *Foreseen) error {
	p, err := decodeParams[datasets.BatchesParams](j.call.Params)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.planned[f.Ref] = mostLoad(p)
	r.mu.Unlock()
	return nil
}

// training counts steps and tokens from the plan, where there is one, and estimates memory, disk and time.
func (r *Rehearsal) training(ctx context.Context, j *job, f *Foreseen) (*llama.Config, error) {
	p, err := decodeCheckpoint(j.call.Params)
	if err != nil {
		return nil, err
	}
	config, err := r.config(ctx, j, p)
	if err != nil || config == nil || p.Train == nil {
		return config, err
	}
	options := trainOptions(p, 1)
	dtype, err := train.ParseDType(p.Train.Precision)
	if err != nil {
		return config, badConfig("train.precision: %w", err)
	}
	n := llama.MemoryPlan(config, dtype, llama.Placement{}, 0).Count
	f.Forecast.Parameters, f.Forecast.DiskBytes = n, n*int64(dtype.Size())
	r.mu.Lock()
	load, planned := r.planned[j.call.Inputs["batches"]]
	r.mu.Unlock()
	switch {
	case planned:
	case r.imaginedInput(j, "batches"):
		return config, nil // not even their parameters are good
	default:
		plans, report, err := j.plans(ctx, "batches")
		if err != nil {
			return config, err
		}
		set, err := j.sequenceIndex(ctx, "tokens")
		if err != nil {
			return config, err
		}
		load = largestLoad(plans, set)
		f.Forecast.Steps, f.Forecast.Tokens = report.Steps, report.Ledger.Computed
		options.Steps = max(1, report.Steps)
	}
	if err := checkContext(config, load.Longest); err != nil {
		return config, err
	}
	load.Tokens = max(load.Tokens, 1)
	on := r.describe(ctx, p.Train.Device)
	memory, err := train.PlanMemory(config, options, load, on.Info)
	if err != nil && on.here {
		f.Forecast.Memory = &memory
		return config, badConfig("%w", err)
	}
	if err == nil { // what does not fit on this machine may fit on the one that has the device
		f.Forecast.Memory = &memory
	}
	if f.Forecast.Steps > 0 {
		saves := 1 // after the last step
		if every := p.Train.CheckpointEvery; every > 0 {
			saves = (f.Forecast.Steps + every - 1) / every
		}
		f.Forecast.StateBytes = int64(saves) * memory.Snapshot
		perSecond, source := r.speedOf(ctx, on, config, options, n, load.Tokens)
		if f.Forecast.Speed = source; perSecond > 0 {
			f.Forecast.Seconds = float64(f.Forecast.Tokens) / perSecond
		}
	}
	return config, nil
}

func (r *Rehearsal) imaginedInput(j *job, role string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.imagined[j.call.Inputs[role]]
	return ok
}

// config is the model that a call would train.
func (r *Rehearsal) config(ctx context.Context, j *job, p datasets.CheckpointParams) (*llama.Config, error) {
	if base, ok := j.call.Inputs["base"]; ok {
		r.mu.Lock()
		c, imagined := r.imagined[base]
		r.mu.Unlock()
		if imagined {
			return c, nil
		}
		blob, err := j.inputBlob(ctx, "base", "config.json")
		if err != nil {
			return nil, err
		}
		data, err := r.a.Store.ReadBlob(ctx, blob)
		if err != nil {
			return nil, err
		}
		return llama.ParseConfig(data)
	}
	switch {
	case p.Model == nil:
		return nil, badConfig("there is no model to start from")
	case p.Model.Path != "":
		c, err := llama.ReadConfig(p.Model.Path, llama.WithRopeThetaScale(p.Model.RopeThetaScale, p.Model.MaxPositionEmbeddings))
		if err != nil {
			return nil, badData("model %s: %w", p.Model.Path, err)
		}
		return c, nil
	case r.imaginedInput(j, "tokenizer"):
		return nil, nil
	}
	tok, err := j.tokenizer(ctx, "tokenizer")
	if err != nil {
		return nil, err
	}
	return newShape(p.Model, tok)
}

// Bounds of the step that is timed when no training in the store says how fast one is.
const (
	timedParameters = 200_000_000
	timedTokens     = 1024
)

// speedOf returns the tokens a second of a training and where the number comes from: the newest training of such a model, or
// a short step timed now, or another model's training, scaled by the number of parameters.
func (r *Rehearsal) speedOf(ctx context.Context, on described, c *llama.Config, o train.Options, parameters int64, tokens int) (float64, string) {
	for _, s := range r.speeds {
		if s.class == on.Class && s.parameters == parameters {
			return s.perSecond, fmt.Sprintf("%.0f tokens/s, as the training of %s", s.perSecond, s.finished.UTC().Format("2006-01-02 15:04"))
		}
	}
	if parameters <= timedParameters || on.Kind != "host" {
		key := fmt.Sprintf("%s %d %s", on.name, parameters, o.DType)
		r.timing.Lock() // side by side, steps would be slower than in a run
		defer r.timing.Unlock()
		perSecond, known := r.measured[key]
		if !known {
			var err error
			if perSecond, err = r.time(ctx, on.name, c, o, min(tokens, timedTokens)); err != nil {
				return 0, "not known: a step could not be timed: " + err.Error()
			}
			r.measured[key] = perSecond
		}
		return perSecond, fmt.Sprintf("%.0f tokens/s, timed on a short step", perSecond)
	}
	for _, s := range r.speeds {
		if s.class == on.Class && s.parameters > 0 {
			v := s.perSecond * float64(s.parameters) / float64(parameters)
			return v, fmt.Sprintf("%.3g tokens/s, scaled from a training of %.3g parameters", v, float64(s.parameters))
		}
	}
	return 0, "not known: no training of such a model in the store; starter bench times one"
}

// time takes two short steps on random weights and times the second.
func (r *Rehearsal) time(ctx context.Context, device string, c *llama.Config, o train.Options, tokens int) (float64, error) {
	dev, err := r.a.device(ctx, device, "")
	if err != nil {
		return 0, err
	}
	defer dev.Close()
	dtype, err := train.ParseDType(o.DType)
	if err != nil {
		return 0, err
	}
	model, err := llama.New(c, dev, dtype, 1)
	if err != nil {
		return 0, err
	}
	defer model.Close()
	o.Steps, o.Objective = 2, train.Pretrain
	trainer, err := train.New(model, o)
	if err != nil {
		return 0, err
	}
	defer trainer.Close()
	tokens = max(tokens, 2)
	pack := datasets.Pack{CuSeqlens: []int32{0, int32(tokens)}}
	draw := datasets.NewRand(1, 0)
	for range tokens {
		pack.InputIDs = append(pack.InputIDs, int32(draw.IntN(c.Vocab)))
	}
	var last train.Metrics
	for range 2 {
		if last, err = trainer.Step(ctx, []datasets.Pack{pack}); err != nil {
			return 0, err
		}
	}
	return float64(tokens) / last.Seconds, nil
}

// newShape is the configuration of a model that begins with random weights.
func newShape(m *datasets.ModelParams, tok interface {
	VocabSize() int
	BOS() (int32, bool)
	EOS() (int32, bool)
}) (*llama.Config, error) {
	bos, _ := tok.BOS()
	eos, _ := tok.EOS()
	c, err := llama.Shape{
		Dim: m.HiddenSize, FeedForward: m.IntermediateSize, Layers: m.NumHiddenLayers, Heads: m.NumAttentionHeads, KVHeads: m.NumKeyValueHeads,
		Vocab: tok.VocabSize(), Context: m.MaxPositionEmbeddings, Tied: m.TieWordEmbeddings, RopeTheta: m.RopeTheta * m.RopeThetaScale, BOS: int(bos), EOS: int(eos),
	}.Config()
	if err != nil {
		return nil, badConfig("%w", err)
	}
	return c, nil
}
