package llama_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

func TestConfigsThatChangeTheMathsAreRefused(t *testing.T) {
	glm := families["chatglm"]
	for name, tt := range map[string]struct {
		config fields
		field  string
	}{
		"an unknown field":                         {base.with(fields{"logit_scale": 0.5}), "logit_scale"},
		"an unknown architecture":                  {base.with(fields{"model_type": "gemma3"}), "model_type"},
		"another activation":                       {base.with(fields{"hidden_act": "gelu"}), "hidden_act"},
		"a partial rotary embedding":               {base.with(fields{"partial_rotary_factor": 0.5}), "partial_rotary_factor"},
		"quantized weights":                        {base.with(fields{"quantization_config": fields{"bits": 4}}), "quantization_config"},
		"dropout":                                  {base.with(fields{"attention_dropout": 0.1}), "attention_dropout"},
		"heads that do not divide":                 {base.with(fields{"num_key_value_heads": 3}), "num_key_value_heads"},
		"a width that heads do not divide":         {base.with(fields{"num_attention_heads": 5, "num_key_value_heads": 5}), "hidden_size"},
		"an unknown rope scaling":                  {base.with(fields{"rope_scaling": fields{"type": "longrope", "factor": 2.0}}), "rope_scaling"},
		"an unknown field of rope scaling":         {base.with(fields{"rope_scaling": fields{"type": "linear", "factor": 2.0, "warp": 1}}), "rope_scaling"},
		"two types of rope scaling":                {base.with(fields{"rope_scaling": fields{"type": "linear", "rope_type": "yarn", "factor": 2.0}}), "rope_scaling"},
		"rope scaling without a factor":            {base.with(fields{"rope_scaling": fields{"type": "linear"}}), "rope_scaling"},
		"rope scaling with a negative temperature": {base.with(fields{"rope_scaling": fields{"type": "yarn", "factor": 2.0, "attention_factor": -1.0}}), "rope_scaling"},
		"rope parameters without a factor":         {base.with(fields{"rope_parameters": fields{"rope_type": "linear"}}), "rope_parameters"},
		"dynamic scaling from two contexts":        {base.with(fields{"rope_scaling": fields{"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 8}}), "max_position_embeddings"},
		"rotated neighbours":                       {base.with(fields{"rope_interleaved": true}), "rope_interleaved"},
		"positions in several dimensions":          {base.with(fields{"model_type": "qwen2", "use_mrope": true}), "use_mrope"},
		"two rotary bases":                         {base.with(fields{"rope_parameters": fields{"rope_type": "default", "rope_theta": 5.0}}), "rope_theta"},
		"a window on llama":                        {base.with(fields{"sliding_window": 8}), "sliding_window"},
		"layer types against the window":           {base.with(fields{"model_type": "qwen3", "layer_types": []string{"full_attention", "sliding_attention"}}), "layer_types"},
		"qwen2 without its biases":                 {base.with(fields{"model_type": "qwen2", "attention_bias": false}), "attention_bias"},
		"a missing size":                           {fields{"model_type": "llama", "vocab_size": 5}, "hidden_size"},
		"a negative size":                          {base.with(fields{"vocab_size": -1}), "vocab_size"},
		"more layers than can be":                  {base.with(fields{"num_hidden_layers": 500_000_000}), "num_hidden_layers"},
		"sizes whose product overflows":            {base.with(fields{"vocab_size": 1 << 30, "hidden_size": 1 << 30, "intermediate_size": 1 << 30, "num_attention_heads": 1 << 29, "num_key_value_heads": 1, "head_dim": 2}), "hidden_size"},
		"a size that is text":                      {base.with(fields{"vocab_size": "many"}), "vocab_size"},
		"chatglm with another residual":            {glm.with(fields{"apply_residual_connection_post_layernorm": true}), "apply_residual_connection_post_layernorm"},
		"chatglm with two vocabulary sizes":        {glm.with(fields{"vocab_size": 99}), "padded_vocab_size"},
		"chatglm2 with a longer context":           {glm.with(fields{"_name_or_path": "THUDM/chatglm2-6b-32k"}), "rope_ratio"},
		"quantized chatglm":                        {glm.with(fields{"quantization_bit": 4}), "quantization_bit"},
		"a negative number of heads per chatglm":   {glm.with(fields{"multi_query_group_num": -2}), "multi_query_group_num"},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := json.Marshal(tt.config)
			if err != nil {
				t.Fatal(err)
			}
			_, err = llama.ParseConfig(data)
			var ce *llama.ConfigError
			if !errors.As(err, &ce) || !slices.Contains(ce.Fields, tt.field) {
				t.Errorf("got %v, want a ConfigError naming %s", err, tt.field)
			}
		})
	}
}

func TestHarmlessFieldsPass(t *testing.T) {
	c := parse(t, base.with(fields{
		"transformers_version": "4.45.0", "use_cache": false, "pretraining_tp": 2, "_name_or_path": "x", "sliding_window": nil,
		"unheard_of": nil, "attention_dropout": 0.0, "torch_dtype": "bfloat16", "eos_token_id": []int{2, 7},
	}))
	if c.DType != "bfloat16" || !slices.Equal(c.EOS, []int{2, 7}) {
		t.Errorf("dtype %q, EOS %v", c.DType, c.EOS)
	}
}

// TestPublishedConfigsMeanWhatTheirModelsCompute uses the fields, not the text, of well-known models' files.
func TestPublishedConfigsMeanWhatTheirModelsCompute(t *testing.T) {
	common := fields{"hidden_act": "silu", "attention_dropout": 0.0, "use_cache": true, "torch_dtype": "bfloat16", "initializer_range": 0.02}
	for name, tt := range map[string]struct {
		config                    fields
		kv, headDim, window, last int // windows of the first and last layer
		theta                     float64
		params                    int64 // as published; 0: not a published model
	}{
		"Llama 3.1 8B": {common.with(fields{
			"model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
			"num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 131072,
			"rope_scaling":   fields{"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
			"attention_bias": false, "mlp_bias": false, "pretraining_tp": 1, "bos_token_id": 128000, "eos_token_id": []int{128001, 128008, 128009},
		}), 8, 128, 0, 0, 500000, 8030261248},
		"Mistral 7B v0.1": {common.with(fields{
			"model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
			"num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 32768, "sliding_window": 4096,
		}), 8, 128, 4096, 4096, 10000, 7241732096},
		"Mistral 7B v0.3": {common.with(fields{
			"model_type": "mistral", "vocab_size": 32768, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
			"num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "max_position_embeddings": 32768, "sliding_window": nil,
		}), 8, 128, 0, 0, 1e6, 7248023552},
		"Mistral that leaves out what is usual": {common.with(fields{
			"model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
		}), 8, 128, 4096, 4096, 10000, 0},
		"Qwen2.5 7B": {common.with(fields{
			"model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
			"num_attention_heads": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 131072,
			"sliding_window": 131072, "use_sliding_window": false, "max_window_layers": 28, "tie_word_embeddings": false,
		}), 4, 128, 0, 0, 1e6, 7615616512},
		"Qwen3 0.6B": {common.with(fields{
			"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
			"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-6, "rope_theta": 1000000, "rope_scaling": nil,
			"max_position_embeddings": 40960, "sliding_window": nil, "use_sliding_window": false, "max_window_layers": 28, "attention_bias": false, "tie_word_embeddings": true,
		}), 8, 128, 0, 0, 1e6, 596049920},
		"Qwen3 as newer versions write it": {fields{
			"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 2,
			"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-6, "dtype": "bfloat16",
			"rope_parameters": fields{"rope_theta": 1000000, "rope_type": "default"}, "layer_types": []string{"full_attention", "sliding_attention"},
			"max_position_embeddings": 40960, "sliding_window": 512, "use_sliding_window": true, "max_window_layers": 1, "attention_bias": false,
		}, 8, 128, 0, 512, 1e6, 0},
		"Qwen2.5 0.5B": {common.with(fields{
			"model_type": "qwen2", "architectures": []string{"Qwen2ForCausalLM"}, "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
			"num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 32768,
			"sliding_window": 32768, "use_sliding_window": false, "max_window_layers": 24, "tie_word_embeddings": true, "use_mrope": false,
			"bos_token_id": 151643, "eos_token_id": 151643, "transformers_version": "4.40.1",
		}), 2, 64, 0, 0, 1e6, 494032768},
		"DeepSeek-R1-Distill-Qwen 7B": {common.with(fields{
			"model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
			"num_attention_heads": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "rope_theta": 10000, "max_position_embeddings": 131072,
			"sliding_window": 4096, "use_sliding_window": false, "max_window_layers": 28, "tie_word_embeddings": false, "use_mrope": false,
		}), 4, 128, 0, 0, 10000, 7615616512},
		"SmolLM2 135M": {common.with(fields{
			"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
			"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "rms_norm_eps": 1e-5, "rope_theta": 100000, "max_position_embeddings": 8192,
			"attention_bias": false, "mlp_bias": false, "initializer_range": 0.041666666666666664, "is_llama_config": true, "rope_interleaved": false, "rope_scaling": nil,
			"pretraining_tp": 1, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
			"transformers.js_config": fields{"dtype": "q4", "kv_cache_dtype": fields{"q4f16": "float16", "fp16": "float16"}},
		}), 3, 64, 0, 0, 100000, 134515008},
		"Mistral Nemo 12B": {common.with(fields{
			"model_type": "mistral", "vocab_size": 131072, "hidden_size": 5120, "intermediate_size": 14336, "num_hidden_layers": 40, "head_dim": 128,
			"num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "max_position_embeddings": 131072, "sliding_window": nil,
		}), 8, 128, 0, 0, 1e6, 12247782400},
		"a Qwen2 whose window is null": {common.with(fields{
			"model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
			"num_attention_heads": 28, "num_key_value_heads": 4, "sliding_window": nil, "use_sliding_window": true, "max_window_layers": 0,
		}), 4, 128, 0, 0, 10000, 0},
		"ChatGLM3 6B 32k": {fields{
			"model_type": "chatglm", "_name_or_path": "THUDM/chatglm3-6b-32k", "padded_vocab_size": 65024, "vocab_size": 65024, "hidden_size": 4096,
			"ffn_hidden_size": 13696, "num_layers": 28, "num_attention_heads": 32, "kv_channels": 128, "seq_length": 32768, "layernorm_epsilon": 1e-5,
			"rmsnorm": true, "rope_ratio": 50, "original_rope": true, "multi_query_attention": true, "multi_query_group_num": 2, "add_bias_linear": false,
			"add_qkv_bias": true, "post_layer_norm": true, "apply_residual_connection_post_layernorm": false, "apply_query_key_layer_scaling": true,
			"attention_softmax_in_fp32": true, "attention_dropout": 0.0, "hidden_dropout": 0.0, "classifier_dropout": nil, "bias_dropout_fusion": true,
			"fp32_residual_connection": false, "quantization_bit": 0, "pre_seq_len": nil, "prefix_projection": false, "tie_word_embeddings": false,
			"torch_dtype": "float16", "eos_token_id": 2, "pad_token_id": 0, "use_cache": true, "auto_map": fields{"AutoConfig": "x"},
		}, 2, 128, 0, 0, 500000, 6243584000},
	} {
		t.Run(name, func(t *testing.T) {
			c := parse(t, tt.config)
			if c.KVHeads != tt.kv || c.HeadDim != tt.headDim || c.Window(0) != tt.window || c.Window(c.Layers-1) != tt.last || c.RopeTheta != tt.theta {
				t.Errorf("%d key/value heads of %d, windows %d and %d, base %v", c.KVHeads, c.HeadDim, c.Window(0), c.Window(c.Layers-1), c.RopeTheta)
			}
			// All their sizes are multiples of the alignment, so the flat buffer has no gaps.
			if n := llama.MemoryPlan(c, gpu.Float32, llama.Placement{}, 0).Params; tt.params != 0 && n != tt.params {
				t.Errorf("%d parameters, want %d", n, tt.params)
			}
		})
	}
}

func TestConfigsRoundTripByteForByte(t *testing.T) {
	source := "{\"model_type\":\"llama\",\n\t\"vocab_size\": 8, \"hidden_size\":4,\"intermediate_size\":4,\"num_hidden_layers\":1,\"num_attention_heads\":1 }"
	c, err := llama.ParseConfig([]byte(source))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.JSON(); err != nil || string(got) != source {
		t.Errorf("%q, %v", got, err)
	}
}

func TestContextExtensionIsWrittenIntoTheConfig(t *testing.T) {
	for name, tt := range map[string]struct {
		config fields
		theta  float64
	}{
		"llama":            {base, 2e6},
		"chatglm":          {families["chatglm"], 10000 * 50 * 200},
		"rope_parameters":  {base.with(fields{"rope_theta": nil, "rope_parameters": fields{"rope_type": "default", "rope_theta": 10000.0}}), 2e6},
		"rope_scaling":     {base.with(fields{"rope_scaling": fields{"rope_type": "default", "rope_theta": 10000.0}}), 2e6},
		"without a base":   {base.with(fields{"rope_theta": nil}), 2e6},
		"with llama3 rope": {families["llama 3.1"], 2e6},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parse(t, tt.config).ScaleRope(200, 65536)
			if err != nil {
				t.Fatal(err)
			}
			data, err := c.JSON()
			if err != nil {
				t.Fatal(err)
			}
			again, err := llama.ParseConfig(data)
			if err != nil {
				t.Fatal(err)
			}
			if again.RopeTheta != tt.theta || c.RopeTheta != tt.theta || again.MaxPositions != 65536 {
				t.Errorf("base %v, written %v, want %v; context %d", c.RopeTheta, again.RopeTheta, tt.theta, again.MaxPositions)
			}
		})
	}
}

// TestRopeScalingStretchesTheContext: those who follow Qwen2.5's advice add the scaling and leave max_position_embeddings.
func TestRopeScalingStretchesTheContext(t *testing.T) {
	for name, tt := range map[string]struct {
		positions int
		scaling   fields
		want      int
	}{
		"yarn beside the trained context":   {32768, fields{"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072},
		"yarn beside the stretched context": {131072, fields{"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072},
		"yarn from the file's context":      {512, fields{"type": "yarn", "factor": 4.0}, 2048},
		"dynamic":                           {4096, fields{"type": "dynamic", "factor": 2.0}, 8192},
		"linear":                            {4096, fields{"type": "linear", "factor": 2.5}, 10240},
		"linear that names its origin":      {32768, fields{"type": "linear", "factor": 8.0, "original_max_position_embeddings": 4096}, 32768},
		"llama3":                            {131072, fields{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, 131072},
	} {
		t.Run(name, func(t *testing.T) {
			if c := parse(t, base.with(fields{"max_position_embeddings": tt.positions, "rope_scaling": tt.scaling})); c.MaxPositions != tt.want {
				t.Errorf("a context of %d, want %d", c.MaxPositions, tt.want)
			}
		})
	}
}

func TestAContextIsNeverShortenedNorChangesWhatRopeScalingScalesFrom(t *testing.T) {
	c := parse(t, base)
	same, err := c.ScaleRope(1, c.MaxPositions-1)
	if err != nil || same != c {
		t.Errorf("a shorter context: %+v, %v", same, err)
	}
	yarn := fields{"type": "yarn", "factor": 4.0}
	for name, tt := range map[string]struct {
		scaling fields
		context int
		want    string // of the error
	}{
		"dynamic":                       {fields{"type": "dynamic", "factor": 2.0}, 128, ""},
		"dynamic, beyond it":            {fields{"type": "dynamic", "factor": 2.0}, 129, "dynamic scales from the context of 64"},
		"yarn":                          {yarn, 256, ""},
		"yarn, beyond it":               {yarn, 257, "yarn scales from the context of 64"},
		"yarn that names what from":     {yarn.with(fields{"original_max_position_embeddings": 16}), 300, ""},
		"linear, which scales all":      {fields{"type": "linear", "factor": 3.0}, 300, ""},
		"llama3, which names what from": {families["llama 3.1"]["rope_scaling"].(fields), 1 << 20, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := parse(t, base.with(fields{"rope_scaling": tt.scaling}))
			longer, err := c.ScaleRope(1, tt.context)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if longer.MaxPositions != max(c.MaxPositions, tt.context) || longer.RopeScaling != c.RopeScaling || longer.RopeTheta != c.RopeTheta {
				t.Errorf("a context of %d, %+v, base %v", longer.MaxPositions, longer.RopeScaling, longer.RopeTheta)
			}
			data, err := longer.JSON()
			if err != nil {
				t.Fatal(err)
			}
			saved, err := llama.ParseConfig(data)
			if err != nil {
				t.Fatal(err)
			}
			if saved.MaxPositions != longer.MaxPositions || saved.RopeScaling != longer.RopeScaling {
				t.Errorf("saved: a context of %d, %+v", saved.MaxPositions, saved.RopeScaling)
			}
		})
	}
}

func TestShapesBecomeConfigs(t *testing.T) {
	s := llama.Shape{Dim: 128, Layers: 4, Heads: 4, KVHeads: 2, FeedForward: 344, Vocab: 1024, Context: 1024, Tied: true, BOS: 1, EOS: 2}
	c, err := s.Config()
	if err != nil {
		t.Fatal(err)
	}
	if c.HeadDim != 32 || !c.Tied || c.RopeTheta != 10000 || c.MaxPositions != 1024 {
		t.Errorf("%+v", c)
	}
	s.Heads = 3
	if _, err := s.Config(); err == nil || !strings.Contains(err.Error(), "multiple") {
		t.Errorf("3 heads of 128: %v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, c := range families {
		data, err := json.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := llama.ParseConfig(data)
		if err != nil {
			return
		}
		if c.Heads%c.KVHeads != 0 || c.Rotary <= 0 || c.Rotary > c.HeadDim {
			t.Errorf("accepted %+v", c)
		}
	})
}
