package train

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

// Metrics describe one optimizer step.
type Metrics struct {
	Step     int     `json:"step"` // from 0
	Loss     float64 `json:"loss"`
	LR       float64 `json:"lr"`
	GradNorm float64 `json:"grad_norm"` // before clipping
	// TokensPerSecond counts Tokens.
	TokensPerSecond float64 `json:"tokens_per_second"`
	Seconds         float64 `json:"seconds"`
	Tokens          int     `json:"tokens"` // computed, padding included
	// RealTokens are Tokens without padding, where the source of the batches tells.
	RealTokens   int `json:"real_tokens,omitempty"`
	Targets      int `json:"targets"` // Σ N_i
	Sequences    int `json:"sequences"`
	MicroBatches int `json:"micro_batches"`
	// MicroBatchSeconds are the seconds of each micro-batch's forward and backward pass.
	MicroBatchSeconds []float64 `json:"micro_batch_seconds,omitempty"`
	// EvalLoss is the held-out loss after the step, where it was measured.
	EvalLoss *float64 `json:"eval_loss,omitempty"`
}

// DivergedError says that a step's loss or gradient is not finite or far too large, or, where it was Taken, that the weights which
// it left are not finite. A step that was not taken leaves the state as it was before.
type DivergedError struct {
	Step      int
	Loss      float64
	GradNorm  float64
	Sequences []string // those of the step whose own loss is not finite, or all of them
	Taken     bool
	// Kept are the steps of the newest checkpoint of the run: -1 where there is none, 0 where that is not known.
	Kept int
}

func (e *DivergedError) Error() string {
	names := e.Sequences
	more := ""
	if len(names) > 8 {
		names, more = names[:8], fmt.Sprintf(" and %d more", len(e.Sequences)-8)
	}
	what := ""
	if e.Taken {
		what = "weights that are not finite after it, "
	}
	kept := ""
	switch {
	case e.Kept > 0:
		kept = fmt.Sprintf("; the newest checkpoint is that after %d steps", e.Kept)
	case e.Kept < 0:
		kept = "; there is no checkpoint"
	}
	return fmt.Sprintf("step %d diverged: %sloss %v, gradient norm %v, with sequences %s%s%s; lower lr, lengthen the warm-up or look at these sequences",
		e.Step, what, e.Loss, e.GradNorm, strings.Join(names, ", "), more, kept)
}

// Trainer trains one model on one device.
type Trainer struct {
	model   *llama.Model
	dev     gpu.Device
	opts    Options
	adam    *optimizer
	lent    lending // of the state to a checkpoint on its way out
	step    int     // steps taken
	history []Metrics
	inputs  map[string]string
	names   func(microBatch, sequence int) string
	latest  []string // the sequences of the last gradient
	torn    bool     // an update failed midway
	passed  func()   // LoopOptions.OnMicroBatch
}

// New prepares model for training. The model must have been loaded in the options' dtype.
func New(model *llama.Model, opts Options) (*Trainer, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	if dtype, _ := ParseDType(opts.DType); dtype != model.DType() {
		return nil, &OptionError{"dtype", fmt.Sprintf("is %s but the model was loaded in %s", opts.DType, model.DType())}
	}
	t := &Trainer{model: model, dev: model.Device(), opts: opts}
	placement, moments := opts.placement()
	if err := model.EnableTraining(placement); err != nil {
		return nil, err
	}
	var err error
	if t.adam, err = newOptimizer(model, opts, moments); err != nil {
		return nil, err
	}
	return t, nil
}

// Close frees the optimizer's memory, not the model's.
func (t *Trainer) Close() {
	if t.adam == nil {
		return
	}
	t.lent.end(t.dev)
	t.adam.close()
	t.adam = nil
}

// Model returns the model in training.
func (t *Trainer) Model() *llama.Model { return t.model }

// Options returns the options of the run.
func (t *Trainer) Options() Options { return t.opts }

// SetInputs names what the run reads, such as digests of its data. They are kept in
// checkpoints, and a checkpoint of other inputs is refused.
func (t *Trainer) SetInputs(inputs map[string]string) { t.inputs = maps.Clone(inputs) }

// StepsDone returns how many steps were taken; the next is step number StepsDone.
func (t *Trainer) StepsDone() int { return t.step }

// History returns the metrics of all steps so far.
func (t *Trainer) History() []Metrics { return t.history }

// objective returns the micro-batches with the labels that the objective asks for.
func objective(o Objective, packs []datasets.Pack) []datasets.Pack {
	if o == SFT {
		return packs
	}
	out := make([]datasets.Pack, len(packs))
	for k, p := range packs {
		if p.Labels != nil {
			p.Labels = everyToken(&p)
		}
		out[k] = p
	}
	return out
}

// everyToken labels each token with itself, except for padding: the unlabelled end of a sequence.
func everyToken(p *datasets.Pack) []int32 {
	if p.Validate(0) != nil {
		return p.Labels // the step's own validation says what is wrong
	}
	labels := slices.Clone(p.InputIDs)
	for i := 1; i < len(p.CuSeqlens); i++ {
		for t := p.CuSeqlens[i] - 1; t >= p.CuSeqlens[i-1] && p.Labels[t] == datasets.IgnoreIndex; t-- {
			labels[t] = datasets.IgnoreIndex
		}
	}
	return labels
}

// coefficients validates a step's micro-batches and weighs their sequences.
func coefficients(loss datasets.Loss, packs []datasets.Pack, vocab int) (coef [][]float64, targets, sequences, tokens int, err error) {
	if len(packs) == 0 {
		return nil, 0, 0, 0, errors.New("a step needs at least one micro-batch")
	}
	counts := make([][]int, len(packs))
	weights := make([][]float64, len(packs))
	weighted := false
	for k := range packs {
		p := &packs[k]
		if err := p.Validate(vocab); err != nil {
			return nil, 0, 0, 0, fmt.Errorf("micro-batch %d: %w", k, err)
		}
		_, counts[k] = p.Targets()
		for _, n := range counts[k] {
			targets += n
		}
		sequences += p.Sequences()
		tokens += len(p.InputIDs)
		weighted = weighted || p.Weights != nil
	}
	if !weighted {
		weights = nil
	} else {
		for k := range packs {
			if weights[k] = packs[k].Weights; weights[k] == nil {
				weights[k] = make([]float64, packs[k].Sequences())
				for i := range weights[k] {
					weights[k][i] = 1
				}
			}
		}
	}
	coef, err = datasets.Coefficients(loss, counts, weights)
	return coef, targets, sequences, tokens, err
}

// Gradient accumulates the loss and gradient of a step over its micro-batches without taking the step. The
// gradient stays in the model, unclipped; Step does all of it.
func (t *Trainer) Gradient(ctx context.Context, packs []datasets.Pack) (Metrics, error) {
	mt := Metrics{Step: t.step, LR: t.opts.LRAt(t.step), MicroBatches: len(packs)}
	packs = objective(t.opts.Objective, packs)
	coef, targets, sequences, tokens, err := coefficients(t.opts.Loss, packs, t.model.Config().Vocab)
	if err != nil {
		return mt, fmt.Errorf("step %d: %w", t.step, err)
	}
	mt.Targets, mt.Sequences, mt.Tokens = targets, sequences, tokens
	longest := 0
	for k := range packs {
		longest = max(longest, len(packs[k].InputIDs))
	}
	if err := t.model.ReserveTraining(longest); err != nil {
		return mt, fmt.Errorf("step %d: %w", t.step, err)
	}
	t.model.ZeroGrad()
	var all, infinite []string
	for k := range packs {
		if err := ctx.Err(); err != nil {
			return mt, err
		}
		began := time.Now()
		l, err := t.model.LossAndGrad(&packs[k], coef[k])
		if err != nil {
			return mt, fmt.Errorf("step %d, micro-batch %d: %w", t.step, k, err)
		}
		mt.MicroBatchSeconds = append(mt.MicroBatchSeconds, time.Since(began).Seconds())
		if t.passed != nil {
			t.passed()
		}
		mt.Loss += l.Loss
		for i, nll := range l.Sequences {
			all = append(all, t.name(k, i))
			if math.IsNaN(nll) || math.IsInf(nll, 0) {
				infinite = append(infinite, t.name(k, i))
			}
		}
	}
	t.latest = all
	mt.GradNorm = t.adam.norm(t.adam.grads)
	if err := t.dev.Sync(); err != nil {
		return mt, fmt.Errorf("step %d: %w", t.step, err)
	}
	limit := t.opts.MaxLoss
	if limit == 0 {
		limit = 10 * math.Log(float64(max(2, t.model.Config().Vocab)))
	}
	if bad := math.IsNaN(mt.Loss+mt.GradNorm) || math.IsInf(mt.Loss+mt.GradNorm, 0); bad || mt.Loss > limit {
		if len(infinite) == 0 {
			infinite = all
		}
		return mt, &DivergedError{Step: t.step, Loss: mt.Loss, GradNorm: mt.GradNorm, Sequences: infinite}
	}
	return mt, nil
}

func (t *Trainer) name(microBatch, sequence int) string {
	if t.names != nil {
		return t.names(microBatch, sequence)
	}
	return fmt.Sprintf("%d/%d", microBatch, sequence)
}

// Step takes one optimizer step over its micro-batches. On an error, and when ctx ends before the update, the
// state is that before the step.
func (t *Trainer) Step(ctx context.Context, packs []datasets.Pack) (Metrics, error) {
	begin := time.Now()
	if t.step >= t.opts.Steps {
		return Metrics{}, fmt.Errorf("all %d steps are done", t.opts.Steps)
	}
	mt, err := t.Gradient(ctx, packs)
	if err != nil {
		return mt, err
	}
	scale := 1.0
	if t.opts.Clip > 0 && mt.GradNorm > t.opts.Clip {
		scale = t.opts.Clip / mt.GradNorm
	}
	if err := t.lent.wait(t.dev); err != nil {
		return mt, fmt.Errorf("step %d: %w", t.step, err)
	}
	t.torn = true
	if err := t.adam.update(gpu.AdamW{
		LR: mt.LR, Beta1: t.opts.Beta1, Beta2: t.opts.Beta2, Eps: t.opts.Eps, WeightDecay: t.opts.WeightDecay,
		Step: t.step + 1, GradScale: scale,
	}); err != nil {
		return mt, fmt.Errorf("step %d: %w", t.step, err)
	}
	if err := t.dev.Sync(); err != nil {
		return mt, fmt.Errorf("step %d: %w", t.step, err)
	}
	t.torn = false
	t.step++
	mt.Seconds = time.Since(begin).Seconds()
	mt.TokensPerSecond = float64(mt.Tokens) / max(mt.Seconds, 1e-9)
	t.history = append(t.history, mt)
	return mt, nil
}

// sound returns an error unless the state is that after a whole step: a *DivergedError where the weights are not finite.
func (t *Trainer) sound() error {
	if t.torn {
		return fmt.Errorf("the update of step %d failed midway; the state is lost", t.step)
	}
	norm := t.adam.norm(t.adam.states[0])
	if err := t.dev.Sync(); err != nil {
		return err
	}
	if !math.IsNaN(norm) && !math.IsInf(norm, 0) {
		return nil
	}
	e := &DivergedError{Step: t.step - 1, Sequences: t.latest, Taken: true}
	if n := len(t.history); n > 0 {
		e.Loss, e.GradNorm = t.history[n-1].Loss, t.history[n-1].GradNorm
	}
	return e
}

// Evaluate returns the loss of held-out micro-batches under the run's loss and objective; nothing is trained.
func (t *Trainer) Evaluate(ctx context.Context, packs []datasets.Pack) (float64, error) {
	packs = objective(t.opts.Objective, packs)
	coef, _, _, _, err := coefficients(t.opts.Loss, packs, t.model.Config().Vocab)
	if err != nil {
		return 0, fmt.Errorf("held-out %w", err)
	}
	var loss float64
	for k := range packs {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		nll, err := t.model.NLL(&packs[k])
		if err != nil {
			return 0, fmt.Errorf("held-out micro-batch %d: %w", k, err)
		}
		if t.passed != nil {
			t.passed()
		}
		for i, c := range coef[k] {
			for s := packs[k].CuSeqlens[i]; s < packs[k].CuSeqlens[i+1]; s++ {
				if nll[s] != 0 {
					loss += c * nll[s]
				}
			}
		}
	}
	return loss, nil
}
