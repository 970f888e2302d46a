package train

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

// Schedule names how the learning rate moves.
type Schedule string

// The schedules, as in Hugging Face: linear warm-up from 0, then the shape.
const (
	Cosine   Schedule = "cosine"   // half a cosine down to MinLR
	Linear   Schedule = "linear"   // a line down to MinLR
	Constant Schedule = "constant" // stays
)

// Objective names which tokens are targets.
type Objective string

// The objectives.
const (
	SFT      Objective = "sft"      // the labels of the packs
	Pretrain Objective = "pretrain" // every token but a sequence's first; labels only tell padding: an unlabelled end
)

// Recompute names what is computed again in the backward pass to save memory. Results are the same bits.
type Recompute string

// Recomputation by choice.
const (
	RecomputeAuto      Recompute = "auto"      // the least that fits, by the memory plan
	RecomputeNone      Recompute = "none"      // norms and SwiGLU only, which is always done
	RecomputeSelective Recompute = "selective" // all of a layer but its attention, whose work grows with the square of the length
	RecomputeLayer     Recompute = "layer"     // each layer from its input: a third more work, activations of one layer
)

// Offload names what lies in host memory and goes through the device when it is its turn: "auto" (what must, by the memory plan),
// "none", or some of activations, gradients and optimizer, by commas. Results are the same bits.
type Offload string

// Offloading by rule.
const (
	OffloadAuto Offload = "auto"
	OffloadNone Offload = "none"
)

// parts returns what is named.
func (o Offload) parts() (activations, gradients, optimizer bool, err error) {
	for _, name := range strings.Split(string(o), ",") {
		switch strings.TrimSpace(name) {
		case "activations":
			activations = true
		case "gradients":
			gradients = true
		case "optimizer":
			optimizer = true
		default:
			if o != "" && o != OffloadAuto && o != OffloadNone {
				return false, false, false, fmt.Errorf("%q is not known; use auto, none, or some of activations, gradients and optimizer", name)
			}
		}
	}
	return activations, gradients, optimizer, nil
}

// States names how AdamW's moments are kept.
type States string

// The kinds of moments.
const (
	StatesF32  States = "f32"  // in the type of the gradients
	States8Bit States = "8bit" // a byte each, rounded stochastically; a quarter of the memory, other results
)

// most8BitBeta2 bounds beta2 with moments of eight bits: each step rounds to one part in eight, and the noise of a second moment
// is √(1/(1−β2²)) of that.
const most8BitBeta2 = 0.99

// Options are the parameters of training. Start from DefaultOptions: zero means zero.
type Options struct {
	// Steps is the number of optimizer steps of the whole run; the schedule ends there.
	Steps int `json:"steps" yaml:"steps"`
	// LR is the highest learning rate, MinLR the last.
	LR    float64 `json:"lr" yaml:"lr"`
	MinLR float64 `json:"min_lr" yaml:"min_lr"`
	// WarmupSteps is the length of the warm-up; -1 takes ceil(WarmupRatio·Steps).
	WarmupSteps int      `json:"warmup_steps" yaml:"warmup_steps"`
	WarmupRatio float64  `json:"warmup_ratio" yaml:"warmup_ratio"`
	Schedule    Schedule `json:"schedule" yaml:"schedule"`

	Beta1 float64 `json:"beta1" yaml:"beta1"`
	Beta2 float64 `json:"beta2" yaml:"beta2"`
	Eps   float64 `json:"eps" yaml:"eps"`
	// WeightDecay is AdamW's, on all parameters.
	WeightDecay float64 `json:"weight_decay" yaml:"weight_decay"`
	// Clip is the largest norm of the gradient; 0 does not clip.
	Clip float64 `json:"clip" yaml:"clip"`

	Loss      datasets.Loss `json:"loss" yaml:"loss"`
	Objective Objective     `json:"objective" yaml:"objective"`
	// DType is the type of computation: f32, bf16 (with float32 master weights) or f64.
	DType string `json:"dtype" yaml:"dtype"`
	// Device is "auto", "host" or "cuda[:N]".
	Device    string    `json:"device" yaml:"device"`
	Recompute Recompute `json:"recompute" yaml:"recompute"`
	Offload   Offload   `json:"offload,omitempty" yaml:"offload"`
	// States are AdamW's moments, StatesF32 by default; Seed is that of the random numbers which round those of eight bits.
	States States `json:"optimizer_states,omitempty" yaml:"optimizer_states"`
	Seed   uint64 `json:"seed,omitempty" yaml:"seed"`
	// MaxLoss stops a run whose loss explodes; 0 means 10 times that of uniform guessing.
	MaxLoss float64 `json:"max_loss,omitempty" yaml:"max_loss,omitempty"`
	// Parity checks before the first step that the loss does not depend on the layout.
	Parity bool `json:"parity" yaml:"parity"`
}

// DefaultOptions are the paper's: AdamW (.9, .95, 1e-8), learning rate 2e-5, cosine with 3 % warm-up, clipping at 1.
func DefaultOptions() Options {
	return Options{
		LR: 2e-5, WarmupSteps: -1, WarmupRatio: 0.03, Schedule: Cosine,
		Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, Clip: 1,
		Loss: datasets.LossLongAlign, Objective: SFT, DType: "f32", Device: "auto", Recompute: RecomputeAuto, Offload: OffloadAuto, Parity: true,
	}
}

// OptionError names the option that cannot work.
type OptionError struct {
	Option, Reason string
}

func (e *OptionError) Error() string {
	return fmt.Sprintf("training option %s: %s", e.Option, e.Reason)
}

// Validate reports the first option that cannot work as an *OptionError.
func (o Options) Validate() error {
	bad := func(option, format string, args ...any) error {
		return &OptionError{option, fmt.Sprintf(format, args...)}
	}
	finite := func(x float64) bool { return x >= 0 && !math.IsInf(x, 0) }
	if _, err := datasets.ParseLoss(string(o.Loss)); err != nil {
		return bad("loss", "%v", err)
	}
	if _, err := ParseDType(o.DType); err != nil {
		return bad("dtype", "%v", err)
	}
	if _, _, _, err := o.Offload.parts(); err != nil {
		return bad("offload", "%v", err)
	}
	switch {
	case o.Steps < 1:
		return bad("steps", "is %d; at least one step is needed", o.Steps)
	case !finite(o.LR):
		return bad("lr", "is %v; it must be finite and not negative", o.LR)
	case !finite(o.MinLR) || o.MinLR > o.LR:
		return bad("min_lr", "is %v; it lies between 0 and lr %v", o.MinLR, o.LR)
	case o.WarmupSteps < -1 || o.WarmupSteps > o.Steps:
		return bad("warmup_steps", "is %d of %d steps; use -1 to take warmup_ratio", o.WarmupSteps, o.Steps)
	case !(o.WarmupRatio >= 0 && o.WarmupRatio <= 1):
		return bad("warmup_ratio", "is %v; it lies between 0 and 1", o.WarmupRatio)
	case !slices.Contains([]Schedule{Cosine, Linear, Constant}, o.Schedule):
		return bad("schedule", "%q is not known; use cosine, linear or constant", o.Schedule)
	case !(o.Beta1 >= 0 && o.Beta1 < 1):
		return bad("beta1", "is %v; it lies in [0, 1)", o.Beta1)
	case !(o.Beta2 >= 0 && o.Beta2 < 1):
		return bad("beta2", "is %v; it lies in [0, 1)", o.Beta2)
	case !(o.Eps > 0) || math.IsInf(o.Eps, 0):
		return bad("eps", "is %v; it must be positive", o.Eps)
	case !finite(o.WeightDecay):
		return bad("weight_decay", "is %v; it must be finite and not negative", o.WeightDecay)
	case !finite(o.Clip):
		return bad("clip", "is %v; it must be positive, or 0 for none", o.Clip)
	case !finite(o.MaxLoss):
		return bad("max_loss", "is %v; it must be positive, or 0 for the default", o.MaxLoss)
	case o.Objective != SFT && o.Objective != Pretrain:
		return bad("objective", "%q is not known; use sft or pretrain", o.Objective)
	case !slices.Contains([]Recompute{RecomputeAuto, RecomputeNone, RecomputeSelective, RecomputeLayer}, o.Recompute):
		return bad("recompute", "%q is not known; use auto, none, selective or layer", o.Recompute)
	case !slices.Contains([]States{"", StatesF32, States8Bit}, o.States):
		return bad("optimizer_states", "%q is not known; use f32 or 8bit", o.States)
	case o.States == States8Bit && o.DType == "f64":
		return bad("optimizer_states", "8bit goes with f32 and bf16, not with f64")
	case o.States == States8Bit && o.Beta2 > most8BitBeta2:
		return bad("optimizer_states", "8bit moments are too coarse for beta2 %v; use at most %v, or f32", o.Beta2, most8BitBeta2)
	case o.Device != "auto" && o.Device != "host" && o.Device != "cuda" && !strings.HasPrefix(o.Device, "cuda:"):
		return bad("device", "%q is not known; use auto, host or cuda[:N]", o.Device)
	}
	return nil
}

// placement is where training memory lies. What is left to the plan is as if there were plenty.
func (o Options) placement() (p llama.Placement, moments bool) {
	p.Keep = map[Recompute]llama.Keep{RecomputeSelective: llama.KeepAttention, RecomputeLayer: llama.KeepInputs}[o.Recompute]
	p.OffloadActivations, p.OffloadGradients, moments, _ = o.Offload.parts()
	p.OffloadMaster = moments
	p.Chunk = chunk
	return p, moments
}

// chunk is 0 but in tests, which move few parameters at a time.
var chunk int

// ParseDType returns the element type named f32, f64 or bf16.
func ParseDType(s string) (gpu.DType, error) {
	for _, t := range []gpu.DType{gpu.Float32, gpu.Float64, gpu.BFloat16} {
		if s == t.String() {
			return t, nil
		}
	}
	return 0, fmt.Errorf("%q is not known; use f32, f64 or bf16", s)
}
