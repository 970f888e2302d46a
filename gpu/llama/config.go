package llama

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/longalign/longalign-go/gpu"
)

// Family is a model architecture as config.json's model_type names it.
type Family string

// The supported architectures.
const (
	LLaMA   Family = "llama"
	Mistral Family = "mistral"
	Qwen2   Family = "qwen2"
	Qwen3   Family = "qwen3"
	ChatGLM Family = "chatglm"
)

// ConfigError names the fields of config.json that are unknown, contradictory or not supported.
type ConfigError struct {
	Fields []string
	Reason string
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("config.json: %s: %s", strings.Join(e.Fields, ", "), e.Reason)
}

// Config is what a model computes: the union of what the families need.
type Config struct {
	Family       Family
	Vocab        int
	Hidden       int
	FeedForward  int
	Layers       int
	Heads        int
	KVHeads      int
	HeadDim      int
	MaxPositions int // the context in tokens, with what RopeScaling adds to the file's max_position_embeddings
	NormEps      float64

	RopeTheta   float64
	Rotary      int // elements of a head that are rotated
	RopeLayout  gpu.Layout
	RopeScaling RopeScaling

	QKVBias, OutBias, MLPBias bool
	QKNorm                    bool
	Tied                      bool
	// Windows limits attention by layer; 0 means all keys. Nil means 0 everywhere.
	Windows []int

	BOS     int // -1: none
	EOS     []int
	InitStd float64
	DType   string // type of the stored weights, as Hugging Face names it

	source []byte // the file as read; nil once a field was changed
	fields map[string]json.RawMessage
}

// Window returns the attention window of a layer, 0 for none.
func (c *Config) Window(layer int) int {
	if c.Windows == nil {
		return 0
	}
	return c.Windows[layer]
}

// ReadConfig reads dir/config.json, as Load does with the same options.
func ReadConfig(dir string, opts ...LoadOption) (*Config, error) {
	var o loading
	for _, opt := range opts {
		opt(&o)
	}
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("a model directory holds config.json and safetensors weights: %w", err)
	}
	c, err := ParseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if o.ropeScale == 0 && o.maxPositions == 0 {
		return c, nil
	}
	return c.ScaleRope(cmp.Or(o.ropeScale, 1), o.maxPositions)
}

// ParseConfig reads a Hugging Face config.json. A field that it does not know, or that asks
// for other mathematics than it implements, is a *ConfigError: it would otherwise be
// ignored silently and change every result.
func ParseConfig(data []byte) (*Config, error) {
	r := reader{used: map[string]bool{}}
	if err := json.Unmarshal(data, &r.fields); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	if r.fields == nil {
		return nil, &ConfigError{[]string{"model_type"}, "the file is empty"}
	}
	c := &Config{source: bytes.Clone(data), fields: r.fields}
	c.Family = Family(r.text("model_type", "", true))
	switch c.Family {
	case LLaMA, Mistral, Qwen2, Qwen3:
		r.decoder(c)
	case ChatGLM:
		r.chatGLM(c)
	default:
		r.fail("is %q; supported are llama, mistral, qwen2, qwen3 and chatglm", []string{"model_type"}, c.Family)
	}
	if r.err == nil {
		r.finish(c)
	}
	if r.err != nil {
		return nil, r.err
	}
	return c, nil
}

// JSON returns the config.json of c: the file that was read, byte for byte, unless a field was changed.
func (c *Config) JSON() ([]byte, error) {
	if c.source != nil {
		return bytes.Clone(c.source), nil
	}
	data, err := json.MarshalIndent(c.fields, "", "  ")
	return append(data, '\n'), err
}

// set changes a field of the file.
func (c *Config) set(name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.fields = maps.Clone(c.fields)
	c.fields[name] = raw
	c.source = nil
	return nil
}

// ScaleRope returns a copy of c for context extension: the rotary base is multiplied by scale (the paper
// uses 200) and the context is extended to maxPositions where it is shorter. It is an error where the file's rope_scaling takes
// the context as what it scales from, so that an extension would change it too.
func (c *Config) ScaleRope(scale float64, maxPositions int) (*Config, error) {
	if !(scale > 0) || math.IsInf(scale, 0) {
		return nil, fmt.Errorf("rope_theta_scale is %v; it must be positive", scale)
	}
	if maxPositions < 0 || maxPositions > 1<<30 {
		return nil, fmt.Errorf("a context of %d tokens cannot be; it must be positive, or 0 to keep the model's", maxPositions)
	}
	if scale == 1 && maxPositions <= c.MaxPositions {
		return c, nil
	}
	d := *c
	err := d.setTheta(c.RopeTheta * scale)
	if err == nil && maxPositions > c.MaxPositions {
		switch s := c.RopeScaling; {
		case s.Type == "dynamic":
			return nil, c.scalesFrom("leave its context as it is, or give it a larger factor")
		case s.Type == "linear" && s.OriginalMax == 0: // the context is the positions times the factor
			maxPositions = int(math.Ceil(float64(maxPositions) / s.Factor))
		}
		err = d.set(map[bool]string{true: "seq_length", false: "max_position_embeddings"}[c.Family == ChatGLM], maxPositions)
	}
	if err != nil {
		return nil, err
	}
	data, err := d.JSON()
	if err != nil {
		return nil, err
	}
	// What is computed is what the file says, so that a saved model computes the same.
	saved, err := ParseConfig(data)
	if err != nil {
		return nil, err
	}
	if c.RopeScaling.Type != "" && saved.RopeScaling != c.RopeScaling {
		return nil, c.scalesFrom("give it original_max_position_embeddings, or a larger factor")
	}
	return saved, nil
}

func (c *Config) scalesFrom(advice string) error {
	s := c.RopeScaling
	return &ConfigError{[]string{"rope_scaling"}, fmt.Sprintf("%s scales from the context of %d tokens; extending that would change it: %s", s.Type, s.OriginalMax, advice)}
}

// setTheta writes the rotary base to each place of the file that holds it, or to the usual one.
func (c *Config) setTheta(theta float64) error {
	if c.Family == ChatGLM {
		return c.set("rope_ratio", theta/10000)
	}
	written := false
	for _, name := range []string{"rope_parameters", "rope_scaling"} {
		var m map[string]any
		if raw := c.fields[name]; raw == nil {
			continue
		} else if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		if m["rope_theta"] == nil && (m == nil || name != "rope_parameters") {
			continue
		}
		m["rope_theta"] = theta
		if err := c.set(name, m); err != nil {
			return err
		}
		written = true
	}
	if raw := c.fields["rope_theta"]; written && (raw == nil || string(raw) == "null") {
		return nil
	}
	return c.set("rope_theta", theta)
}

// Shape is the size of a LLaMA model made from nothing; the parameter type of such models.
type Shape struct {
	Dim         int     `json:"dim" yaml:"dim"`
	Layers      int     `json:"layers" yaml:"layers"`
	Heads       int     `json:"heads" yaml:"heads"`
	KVHeads     int     `json:"kv_heads" yaml:"kv_heads"`
	FeedForward int     `json:"ff" yaml:"ff"`
	Vocab       int     `json:"vocab" yaml:"vocab"`
	Context     int     `json:"context" yaml:"context"`
	Tied        bool    `json:"tied" yaml:"tied"`
	RopeTheta   float64 `json:"rope_theta,omitempty" yaml:"rope_theta,omitempty"` // 0: 10,000
	BOS         int     `json:"bos,omitempty" yaml:"bos,omitempty"`
	EOS         int     `json:"eos,omitempty" yaml:"eos,omitempty"`
}

// Config returns the LLaMA configuration of shape s.
func (s Shape) Config() (*Config, error) {
	theta := s.RopeTheta
	if theta == 0 {
		theta = 10000
	}
	headDim := 0
	if s.Heads > 0 {
		headDim = s.Dim / s.Heads
	}
	if headDim*s.Heads != s.Dim || headDim == 0 {
		return nil, fmt.Errorf("model shape: dim %d is not a multiple of %d heads", s.Dim, s.Heads)
	}
	data, err := json.MarshalIndent(map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_act": "silu",
		"vocab_size": s.Vocab, "hidden_size": s.Dim, "intermediate_size": s.FeedForward, "num_hidden_layers": s.Layers,
		"num_attention_heads": s.Heads, "num_key_value_heads": s.KVHeads, "head_dim": headDim, "rms_norm_eps": 1e-5,
		"rope_theta": theta, "tie_word_embeddings": s.Tied, "max_position_embeddings": s.Context, "attention_bias": false,
		"mlp_bias": false, "torch_dtype": "float32", "bos_token_id": s.BOS, "eos_token_id": s.EOS, "initializer_range": 0.02,
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	return ParseConfig(append(data, '\n'))
}
