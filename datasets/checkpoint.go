package datasets

import (
	"math"
	"slices"
	"strings"
)

// Objective says where a checkpoint comes from.
type Objective string

// The objectives of the checkpoint stage.
const (
	// ObjectiveImport takes a model from a Hugging Face directory as it is.
	ObjectiveImport Objective = "import"
	// ObjectivePretrain trains on documents, every token a target.
	ObjectivePretrain Objective = "pretrain"
	// ObjectiveSFT trains on instructions, answers being the targets.
	ObjectiveSFT Objective = "sft"
)

// ModelParams say which model training starts from: one in a directory, or a new one with random weights.
type ModelParams struct {
	// Path is a Hugging Face directory. It is where to look; the files' digests are in the action key.
	Path string `json:"path,omitempty" key:"-"`
	// Name names the model in tables; default: the last part of Path, or "new".
	Name string `json:"name,omitempty" key:"-"`
	// The shape of a new LLaMA model. The vocabulary is the tokenizer's.
	HiddenSize        int `json:"hidden_size,omitempty"`
	IntermediateSize  int `json:"intermediate_size,omitempty"`
	NumHiddenLayers   int `json:"num_hidden_layers,omitempty"`
	NumAttentionHeads int `json:"num_attention_heads,omitempty"`
	NumKeyValueHeads  int `json:"num_key_value_heads,omitempty"`
	// MaxPositionEmbeddings is the context in tokens. A model read from Path keeps its own unless this is longer; with
	// RopeThetaScale the default is the longest sequence that is trained on.
	MaxPositionEmbeddings int     `json:"max_position_embeddings,omitempty"`
	RopeTheta             float64 `json:"rope_theta,omitempty"`
	TieWordEmbeddings     bool    `json:"tie_word_embeddings,omitempty"`
	// InitSeed determines the random weights.
	InitSeed uint64 `json:"init_seed,omitempty"`
	// RopeThetaScale multiplies the RoPE base, for context extension; default 1, the paper has 200.
	RopeThetaScale float64 `json:"rope_theta_scale,omitempty"`
}

// Defaults returns p with unset fields filled in.
func (p ModelParams) Defaults() ModelParams {
	setDefault(&p.RopeThetaScale, 1)
	if p.Path != "" {
		return p
	}
	setDefault(&p.Name, "new")
	setDefault(&p.NumKeyValueHeads, p.NumAttentionHeads)
	setDefault(&p.RopeTheta, 10000)
	return p
}

// Validate says what is wrong with p, after Defaults.
func (p ModelParams) Validate() error {
	if !(p.RopeThetaScale > 0) {
		return paramError("rope_theta_scale", "%v must be positive", p.RopeThetaScale)
	}
	shape := []int{p.HiddenSize, p.IntermediateSize, p.NumHiddenLayers, p.NumAttentionHeads, p.NumKeyValueHeads}
	if p.MaxPositionEmbeddings < 0 {
		return paramError("max_position_embeddings", "%d is no number of tokens", p.MaxPositionEmbeddings)
	}
	if p.Path != "" {
		if slices.ContainsFunc(shape, func(n int) bool { return n != 0 }) {
			return paramError("path", "a model is either read from path or made anew with hidden_size and so on; remove one of them")
		}
		return nil
	}
	switch {
	case p.MaxPositionEmbeddings == 0 || slices.ContainsFunc(shape, func(n int) bool { return n < 1 }):
		return paramError("hidden_size", "a new model needs hidden_size, intermediate_size, num_hidden_layers, num_attention_heads and max_position_embeddings; or name a model's directory in path")
	case p.HiddenSize%p.NumAttentionHeads != 0 || p.HiddenSize/p.NumAttentionHeads%2 != 0:
		return paramError("num_attention_heads", "%d heads do not divide a width of %d into even parts", p.NumAttentionHeads, p.HiddenSize)
	case p.NumAttentionHeads%p.NumKeyValueHeads != 0:
		return paramError("num_key_value_heads", "%d query heads cannot share %d key/value heads evenly", p.NumAttentionHeads, p.NumKeyValueHeads)
	case !(p.RopeTheta > 0):
		return paramError("rope_theta", "%v must be positive", p.RopeTheta)
	}
	return nil
}

// TrainParams are how a model is trained.
type TrainParams struct {
	Loss Loss `json:"loss"` // default longalign
	// LearningRate is the peak; default 2e-5. MinLR is where the cosine ends.
	LearningRate float64 `json:"learning_rate"`
	MinLR        float64 `json:"min_lr,omitempty"`
	// Schedule is cosine, linear or constant; default cosine.
	Schedule string `json:"schedule"`
	// WarmupRatio is the share of steps that warm up, rounded up; default 0.03. Step 0 has lr 0, as in Hugging Face.
	WarmupRatio float64 `json:"warmup_ratio"`
	// Clip bounds the gradient norm; default 1, negative switches it off.
	Clip        float64 `json:"clip"`
	WeightDecay float64 `json:"weight_decay"`
	Beta1       float64 `json:"beta1"` // default 0.9
	Beta2       float64 `json:"beta2"` // default 0.95
	Eps         float64 `json:"eps"`   // default 1e-8
	// Precision is f32, f64 or bf16; default f32.
	Precision string `json:"precision"`
	// Device is where training runs: auto, host, cuda. Its class is in the action key.
	Device string `json:"device,omitempty" key:"-"`
	// CheckpointEvery is the number of steps between checkpoints; default 50.
	CheckpointEvery int `json:"checkpoint_every,omitempty" key:"-"`
	// Recompute names what is computed again in the backward pass instead of being kept; default auto: the least that fits.
	Recompute Recompute `json:"recompute,omitempty" key:"-"`
	// Offload names what lies in host memory until its turn comes: auto (default: what must), none, or some of activations,
	// gradients and optimizer, by commas.
	Offload string `json:"offload,omitempty" key:"-"`
	// OptimizerStates are AdamW's moments: f32 (default), or 8bit, a quarter of the memory and other results.
	OptimizerStates string `json:"optimizer_states,omitempty"`
	// EvalEvery is the number of steps between measurements of the loss on held-out instructions; there is one after the last
	// step too. 0: none. EvalInstances is on how many of them, the first ones; default 64.
	EvalEvery     int `json:"eval_every,omitempty"`
	EvalInstances int `json:"eval_instances,omitempty"`
}

// Defaults returns p with unset fields filled in.
func (p TrainParams) Defaults() TrainParams {
	setDefault(&p.Loss, LossLongAlign)
	setDefault(&p.LearningRate, 2e-5)
	setDefault(&p.Schedule, "cosine")
	setDefault(&p.WarmupRatio, 0.03)
	setDefault(&p.Clip, 1)
	setDefault(&p.Beta1, 0.9)
	setDefault(&p.Beta2, 0.95)
	setDefault(&p.Eps, 1e-8)
	setDefault(&p.Precision, "f32")
	setDefault(&p.Device, "auto")
	setDefault(&p.CheckpointEvery, 50)
	if p.EvalEvery > 0 {
		setDefault(&p.EvalInstances, 64)
	}
	if p.OptimizerStates == "f32" {
		p.OptimizerStates = "" // so that saying the default changes no key
	}
	return p
}

// Validate says what is wrong with p, after Defaults.
func (p TrainParams) Validate() error {
	if _, err := ParseLoss(string(p.Loss)); err != nil {
		return paramError("loss", "%v", err)
	}
	switch {
	case !(p.LearningRate >= 0) || math.IsInf(p.LearningRate, 0):
		return paramError("learning_rate", "%v must be a number that is not negative", p.LearningRate)
	case p.MinLR < 0 || p.MinLR > p.LearningRate:
		return paramError("min_lr", "%v is not between 0 and learning_rate", p.MinLR)
	case !slices.Contains([]string{"cosine", "linear", "constant"}, p.Schedule):
		return paramError("schedule", "%q is not known; use cosine, linear or constant", p.Schedule)
	case !(p.WarmupRatio >= 0 && p.WarmupRatio <= 1):
		return paramError("warmup_ratio", "%v is not a share from 0 to 1", p.WarmupRatio)
	case !(p.Beta1 >= 0 && p.Beta1 < 1 && p.Beta2 >= 0 && p.Beta2 < 1):
		return paramError("beta1", "betas %v and %v must be from 0 to below 1", p.Beta1, p.Beta2)
	case !(p.Eps > 0):
		return paramError("eps", "%v must be positive", p.Eps)
	case !slices.Contains([]string{"f32", "f64", "bf16"}, p.Precision):
		return paramError("precision", "%q is not known; use f32, f64 or bf16", p.Precision)
	case !slices.Contains([]Recompute{"", "auto", "none", "selective", "layer"}, p.Recompute):
		return paramError("recompute", "%q is not known; use auto, none, selective or layer", p.Recompute)
	case !offloadable(p.Offload):
		return paramError("offload", "%q is not known; use auto, none, or some of activations, gradients and optimizer, by commas", p.Offload)
	case p.OptimizerStates != "" && p.OptimizerStates != "8bit":
		return paramError("optimizer_states", "%q is not known; use f32 or 8bit", p.OptimizerStates)
	case p.EvalEvery < 0:
		return paramError("eval_every", "%d is no number of steps; 0 measures no held-out loss during training", p.EvalEvery)
	case p.EvalInstances < 0:
		return paramError("eval_instances", "%d is no number of held-out instructions", p.EvalInstances)
	case p.EvalEvery == 0 && p.EvalInstances > 0:
		return paramError("eval_instances", "%d, but eval_every is 0, so that they would never be asked; set it or remove both", p.EvalInstances)
	case p.CheckpointEvery < 1:
		return paramError("checkpoint_every", "%d must be at least 1", p.CheckpointEvery)
	}
	return nil
}

func offloadable(parts string) bool {
	if slices.Contains([]string{"", "auto", "none"}, parts) {
		return true
	}
	for part := range strings.SplitSeq(parts, ",") {
		if !slices.Contains([]string{"activations", "gradients", "optimizer"}, strings.TrimSpace(part)) {
			return false
		}
	}
	return true
}

// CheckpointParams are the parameters of the checkpoint stage.
type CheckpointParams struct {
	Objective Objective `json:"objective"`
	// Model is set where the stage makes or imports one; else training starts from the input "base".
	Model *ModelParams `json:"model,omitempty"`
	// Train is set unless the model is only imported.
	Train *TrainParams `json:"train,omitempty"`
	// Template and MaxLength are how the held-out instructions of Train.EvalEvery become tokens.
	Template  string `json:"template,omitempty"`
	MaxLength int    `json:"max_length,omitempty"`
}
