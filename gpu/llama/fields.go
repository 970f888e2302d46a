package llama

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/gpu"
)

// reader takes fields out of a config and remembers which were understood.
type reader struct {
	fields map[string]json.RawMessage
	used   map[string]bool
	err    error
}

func (r *reader) fail(format string, fields []string, args ...any) {
	if r.err == nil {
		r.err = &ConfigError{fields, fmt.Sprintf(format, args...)}
	}
}

// get decodes a field into v; null counts as absent.
func (r *reader) get(name string, v any, required bool) bool {
	r.used[name] = true
	raw, ok := r.fields[name]
	if !ok || string(raw) == "null" {
		if required {
			r.fail("is missing", []string{name})
		}
		return false
	}
	if err := json.Unmarshal(raw, v); err != nil {
		r.fail("%v", []string{name}, err)
		return false
	}
	return true
}

func (r *reader) text(name, def string, required bool) string {
	r.get(name, &def, required)
	return def
}

func (r *reader) boolean(name string, def bool) bool {
	r.get(name, &def, false)
	return def
}

func (r *reader) number(name string, def float64) float64 {
	r.get(name, &def, false)
	return def
}

// size reads a positive integer; def 0 makes it required.
func (r *reader) size(name string, def int) int {
	v := def
	if r.get(name, &v, def == 0) && (v <= 0 || v > 1<<30) {
		r.fail("is %d; it must be positive and at most 2^30", []string{name}, v)
	}
	return v
}

// must reports an error unless the field is absent, null or one of the values allowed.
func (r *reader) must(name string, allowed ...any) {
	var v any
	if !r.get(name, &v, false) {
		return
	}
	for _, a := range allowed {
		if v == a {
			return
		}
	}
	r.fail("is %v; only %v is supported", []string{name}, v, allowed)
}

// decoder reads the families that share LLaMA's names.
func (r *reader) decoder(c *Config) {
	c.Vocab = r.size("vocab_size", 0)
	c.Hidden = r.size("hidden_size", 0)
	c.FeedForward = r.size("intermediate_size", 0)
	c.Layers = r.size("num_hidden_layers", 0)
	c.Heads = r.size("num_attention_heads", 0)
	if r.err != nil {
		return
	}
	groups := c.Heads // what the families' own classes assume when a file says nothing
	switch c.Family {
	case Mistral:
		groups = 8
	case Qwen2, Qwen3:
		groups = 32
	}
	c.KVHeads = r.size("num_key_value_heads", groups)
	var headDim int
	if r.get("head_dim", &headDim, false) {
		if headDim <= 0 || headDim > 1<<16 {
			r.fail("is %d; it must be positive and at most 65536", []string{"head_dim"}, headDim)
		}
	} else if c.Hidden%c.Heads != 0 {
		r.fail("%d heads do not divide a width of %d and head_dim is not given", []string{"num_attention_heads", "hidden_size"}, c.Heads, c.Hidden)
	} else {
		headDim = c.Hidden / c.Heads
		if c.Family == Qwen3 {
			headDim = 128 // the family's default
		}
	}
	c.HeadDim, c.Rotary, c.RopeLayout = headDim, headDim, gpu.RotateHalf
	c.MaxPositions = r.size("max_position_embeddings", map[Family]int{LLaMA: 2048, Mistral: 131072, Qwen2: 32768, Qwen3: 32768}[c.Family])
	c.NormEps = r.number("rms_norm_eps", 1e-6)
	r.must("hidden_act", "silu", "swish")
	r.must("partial_rotary_factor", 1.0)
	r.must("attention_dropout", 0.0)
	r.must("is_encoder_decoder", false)
	r.must("add_cross_attention", false)
	r.must("use_mrope", false)        // Qwen2's positions in several dimensions
	r.must("rope_interleaved", false) // pairs of neighbours, which Hugging Face's own classes never rotate
	c.Tied = r.boolean("tie_word_embeddings", false)
	switch c.Family {
	case LLaMA:
		bias := r.boolean("attention_bias", false)
		c.QKVBias, c.OutBias = bias, bias
		c.MLPBias = r.boolean("mlp_bias", false)
		r.must("sliding_window")
	case Mistral:
		r.must("attention_bias", false)
		r.must("mlp_bias", false)
		w := 4096
		if _, written := r.fields["sliding_window"]; r.get("sliding_window", &w, false) || !written {
			c.window(w, 0, r)
		}
	case Qwen2:
		r.must("attention_bias", true)
		r.must("mlp_bias", false)
		c.QKVBias = true
		r.qwenWindow(c)
	case Qwen3:
		bias := r.boolean("attention_bias", false)
		c.QKVBias, c.OutBias = bias, bias
		r.must("mlp_bias", false)
		c.QKNorm = true
		r.qwenWindow(c)
	}
	r.layerTypes(c)
	r.rope(c)
}

func (c *Config) window(w, fromLayer int, r *reader) {
	if w <= 0 {
		r.fail("is %d; it must be positive or null", []string{"sliding_window"}, w)
		return
	}
	c.Windows = make([]int, c.Layers)
	for i := max(0, fromLayer); i < c.Layers; i++ {
		c.Windows[i] = w
	}
}

// qwenWindow reads Qwen's sliding window, which counts only when switched on and only above max_window_layers.
func (r *reader) qwenWindow(c *Config) {
	w := 4096
	_, written := r.fields["sliding_window"]
	given := r.get("sliding_window", &w, false)
	from := 28
	r.get("max_window_layers", &from, false)
	if r.boolean("use_sliding_window", false) && (given || !written) { // null means none
		c.window(w, from, r)
	}
}

// layerTypes checks the newer per-layer list against the fields it repeats.
func (r *reader) layerTypes(c *Config) {
	var types []string
	if !r.get("layer_types", &types, false) || r.err != nil {
		return
	}
	if len(types) != c.Layers {
		r.fail("%d types for %d layers", []string{"layer_types", "num_hidden_layers"}, len(types), c.Layers)
		return
	}
	for i, t := range types {
		switch sliding := c.Window(i) > 0; {
		case t != "full_attention" && t != "sliding_attention":
			r.fail("layer %d is %q; supported are full_attention and sliding_attention", []string{"layer_types"}, i, t)
		case sliding != (t == "sliding_attention"):
			r.fail("layer %d is %q, which the window fields contradict", []string{"layer_types", "sliding_window"}, i, t)
		}
	}
}

func (r *reader) rope(c *Config) {
	c.RopeTheta = 10000
	thetaGiven := r.get("rope_theta", &c.RopeTheta, false)
	var raw json.RawMessage
	scaling := r.get("rope_scaling", &raw, false)
	name := "rope_scaling"
	var raw2 json.RawMessage
	if r.get("rope_parameters", &raw2, false) {
		if scaling && !jsonEqual(raw, raw2) {
			r.fail("they differ", []string{"rope_scaling", "rope_parameters"})
			return
		}
		name, raw, scaling = "rope_parameters", raw2, true
	}
	if r.err != nil || !scaling {
		return
	}
	rs, theta, err := parseRopeScaling(raw)
	if err != nil {
		r.fail("%v", []string{name}, err)
		return
	}
	if theta != 0 {
		if thetaGiven && theta != c.RopeTheta {
			r.fail("rope_theta is %v and %v", []string{"rope_theta", name}, c.RopeTheta, theta)
		}
		c.RopeTheta = theta
	}
	switch {
	case rs.Type == "dynamic" && rs.OriginalMax != 0 && rs.OriginalMax != c.MaxPositions:
		r.fail("dynamic scaling starts at max_position_embeddings, %d, and Hugging Face ignores original_max_position_embeddings, here %d: leave it out, and set max_position_embeddings to the context the model was trained with",
			[]string{name, "max_position_embeddings"}, c.MaxPositions, rs.OriginalMax)
	case rs.OriginalMax == 0 && rs.Type != "linear": // which scales all positions alike
		rs.OriginalMax = c.MaxPositions
	}
	c.RopeScaling, c.MaxPositions = rs, rs.context(c.MaxPositions)
}

// chatGLM reads ChatGLM2/3's own names: half of each head is rotated, in interleaved pairs,
// keys and values come in groups, QKV and gate-up are fused.
func (r *reader) chatGLM(c *Config) {
	c.Vocab = r.size("padded_vocab_size", 0)
	c.Hidden = r.size("hidden_size", 0)
	c.FeedForward = r.size("ffn_hidden_size", 0)
	c.Layers = r.size("num_layers", 0)
	c.Heads = r.size("num_attention_heads", 0)
	c.HeadDim = r.size("kv_channels", 0)
	c.MaxPositions = r.size("seq_length", 0)
	c.NormEps = r.number("layernorm_epsilon", 1e-5)
	if r.err != nil {
		return
	}
	if v := r.size("vocab_size", c.Vocab); v != c.Vocab {
		r.fail("they are %d and %d", []string{"vocab_size", "padded_vocab_size"}, v, c.Vocab)
	}
	if n := r.size("num_hidden_layers", c.Layers); n != c.Layers {
		r.fail("they are %d and %d", []string{"num_hidden_layers", "num_layers"}, n, c.Layers)
	}
	c.KVHeads = c.Heads
	groups := r.size("multi_query_group_num", c.Heads)
	if r.boolean("multi_query_attention", false) {
		c.KVHeads = groups
	}
	linearBias := r.boolean("add_bias_linear", false)
	c.OutBias, c.MLPBias = linearBias, linearBias
	c.QKVBias = r.boolean("add_qkv_bias", false) || linearBias
	c.Tied = r.boolean("tie_word_embeddings", false)
	r.must("rmsnorm", true)
	r.must("post_layer_norm", true)
	r.must("apply_residual_connection_post_layernorm", false)
	r.must("original_rope", true)
	r.must("attention_dropout", 0.0)
	r.must("hidden_dropout", 0.0)
	r.must("quantization_bit", 0.0)
	r.must("pre_seq_len")
	r.must("prefix_projection", false)
	r.must("interleaved_qkv", false)
	// Scales queries down and scores up again: no effect on the result.
	r.boolean("apply_query_key_layer_scaling", true)
	ratio := r.number("rope_ratio", 1)
	if name := r.text("_name_or_path", "", false); ratio != 1 && strings.Contains(strings.ToLower(name), "chatglm2") {
		r.fail("is %v in a ChatGLM2, which divides positions by it; ChatGLM3 multiplies the base, and only that is supported", []string{"rope_ratio"}, ratio)
	}
	c.RopeTheta = 10000 * ratio
	c.Rotary, c.RopeLayout = c.HeadDim/2, gpu.Interleaved
}

// harmless are fields that do not change what the model computes.
var harmless = map[string]bool{
	"architectures": true, "auto_map": true, "_name_or_path": true, "transformers_version": true, "_attn_implementation": true,
	"_attn_implementation_autoset": true, "attn_implementation": true, "use_cache": true, "pretraining_tp": true,
	"pad_token_id": true, "sep_token_id": true, "cls_token_id": true, "unk_token_id": true, "decoder_start_token_id": true,
	"forced_bos_token_id": true, "forced_eos_token_id": true, "suppress_tokens": true, "begin_suppress_tokens": true,
	"keys_to_ignore_at_inference": true, "model_max_length": true, "max_sequence_length": true, "tokenizer_class": true,
	"id2label": true, "label2id": true, "problem_type": true, "num_labels": true, "classifier_dropout": true, "prefix": true,
	"task_specific_params": true, "finetuning_task": true, "return_dict": true, "output_hidden_states": true,
	"output_attentions": true, "torchscript": true, "use_bfloat16": true, "tf_legacy_loss": true, "pruned_heads": true,
	"is_decoder": true, "cross_attention_hidden_size": true, "tie_encoder_decoder": true, "chunk_size_feed_forward": true,
	"bias_dropout_fusion": true, "attention_softmax_in_fp32": true, "fp32_residual_connection": true, "use_flash_attn": true,
	"max_length": true, "min_length": true, "do_sample": true, "early_stopping": true, "num_beams": true, "temperature": true,
	"top_k": true, "top_p": true, "typical_p": true, "repetition_penalty": true, "length_penalty": true, "no_repeat_ngram_size": true,
	"encoder_no_repeat_ngram_size": true, "bad_words_ids": true, "num_return_sequences": true, "num_beam_groups": true,
	"diversity_penalty": true, "output_scores": true, "return_dict_in_generate": true, "remove_invalid_values": true,
	"exponential_decay_length_penalty": true, "unsloth_version": true, "unsloth_fixed": true,
	"is_llama_config": true, "transformers.js_config": true, "neftune_noise_alpha": true,
}

func (r *reader) finish(c *Config) {
	c.BOS = -1
	r.get("bos_token_id", &c.BOS, false)
	var raw json.RawMessage
	if r.get("eos_token_id", &raw, false) {
		var one int
		if json.Unmarshal(raw, &one) == nil {
			c.EOS = []int{one}
		} else if err := json.Unmarshal(raw, &c.EOS); err != nil {
			r.fail("is neither a number nor a list of numbers", []string{"eos_token_id"})
		}
	}
	c.InitStd = r.number("initializer_range", 0.02)
	c.DType = r.text("torch_dtype", r.text("dtype", "float32", false), false)
	var unknown []string
	for _, name := range slices.Sorted(maps.Keys(r.fields)) {
		if !r.used[name] && !harmless[name] && string(r.fields[name]) != "null" {
			unknown = append(unknown, name)
		}
	}
	switch {
	case len(unknown) > 0:
		r.fail("not known for model_type %q; the model would compute something else without it", unknown, c.Family)
	case c.Layers > 1<<16 || c.parameters() > 1<<46: // what it would take to say so later is more than any machine has
		r.fail("%d layers of these sizes make a model of %.2g parameters; one of them is wrong", []string{"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}, c.Layers, c.parameters())
	case c.Heads%max(1, c.KVHeads) != 0:
		r.fail("%d query heads are not a multiple of %d key/value heads", []string{"num_attention_heads", "num_key_value_heads"}, c.Heads, c.KVHeads)
	case c.Rotary <= 0 || c.Rotary%2 != 0:
		r.fail("rotary embedding needs an even number of elements, got %d", []string{"head_dim"}, c.Rotary)
	case !(c.RopeTheta > 0) || math.IsInf(c.RopeTheta, 0):
		r.fail("is %v; it must be positive", []string{"rope_theta"}, c.RopeTheta)
	case !(c.NormEps > 0 && c.NormEps < 1):
		r.fail("is %v; it must lie between 0 and 1", []string{"rms_norm_eps"}, c.NormEps)
	case !(c.InitStd >= 0 && c.InitStd < 10):
		r.fail("is %v", []string{"initializer_range"}, c.InitStd)
	}
}

// parameters is about how many a model has; it does not overflow.
func (c *Config) parameters() float64 {
	hidden, heads := float64(c.Hidden), float64(c.HeadDim)*float64(c.Heads+c.KVHeads)
	return hidden * (2*float64(c.Vocab) + float64(c.Layers)*(2*heads+3*float64(c.FeedForward)))
}

func jsonEqual(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
