package llama

import (
	"fmt"
	"slices"

	"github.com/longalign/longalign-go/gpu"
)

// Param is one tensor of a model under its Hugging Face name.
type Param struct {
	Name  string
	Shape []int
	// Weight and Grad are slices of the model's flat buffers; Grad is nil unless the model trains.
	Weight, Grad gpu.Buffer

	offset int
	init   initKind
}

// Len returns the number of elements.
func (p Param) Len() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

type initKind uint8

const (
	initNormal initKind = iota
	initOne
	initZero
)

// paramAlign is the alignment in elements of each tensor within the flat buffers; the gaps stay zero.
const paramAlign = 64

// part is a view of some rows of a parameter: fused tensors hold several matrices.
type part struct {
	param      int // index into the parameters, -1: absent
	from, rows int
}

var absent = part{param: -1}

// blueprint says where the matrices of one layer lie.
type blueprint struct {
	norm1, norm2               part
	q, k, v, o                 part
	qBias, kBias, vBias, oBias part
	qNorm, kNorm               part
	gate, up, down             part
	gateBias, upBias, downBias part
}

// plan lists the parameters of c in Hugging Face's order, and what they are.
type plan struct {
	params             []Param
	layers             []blueprint
	embed, final, head part
	size               int   // elements of a flat buffer
	starts             []int // where each layer begins, and where the last one ends
}

func (p *plan) add(kind initKind, name string, shape ...int) part {
	n := 1
	for _, d := range shape {
		n *= d
	}
	p.params = append(p.params, Param{Name: name, Shape: slices.Clone(shape), offset: p.size, init: kind})
	p.size += (n + paramAlign - 1) / paramAlign * paramAlign
	return part{param: len(p.params) - 1, rows: shape[0]}
}

// addIf adds a bias where the family has one.
func (p *plan) addIf(yes bool, name string, n int) part {
	if !yes {
		return absent
	}
	return p.add(initZero, name, n)
}

// slice returns rows [from, from+n) of a fused parameter.
func (t part) slice(from, n int) part {
	if t.param < 0 {
		return t
	}
	return part{param: t.param, from: t.from + from, rows: n}
}

// count is how many parameters there are, without the room between tensors that size has.
func (p *plan) count() (n int) {
	for _, t := range p.params {
		n += t.Len()
	}
	return n
}

func newPlan(c *Config) *plan {
	if c.Family == ChatGLM {
		return chatGLMPlan(c)
	}
	p := &plan{}
	d, e, f := c.Hidden, c.HeadDim, c.FeedForward
	hq, hk := c.Heads*e, c.KVHeads*e
	p.embed = p.add(initNormal, "model.embed_tokens.weight", c.Vocab, d)
	for i := range c.Layers {
		n := func(s string) string { return fmt.Sprintf("model.layers.%d.%s", i, s) }
		var b blueprint
		p.starts = append(p.starts, p.size)
		b.q = p.add(initNormal, n("self_attn.q_proj.weight"), hq, d)
		b.qBias = p.addIf(c.QKVBias, n("self_attn.q_proj.bias"), hq)
		b.k = p.add(initNormal, n("self_attn.k_proj.weight"), hk, d)
		b.kBias = p.addIf(c.QKVBias, n("self_attn.k_proj.bias"), hk)
		b.v = p.add(initNormal, n("self_attn.v_proj.weight"), hk, d)
		b.vBias = p.addIf(c.QKVBias, n("self_attn.v_proj.bias"), hk)
		b.o = p.add(initNormal, n("self_attn.o_proj.weight"), d, hq)
		b.oBias = p.addIf(c.OutBias, n("self_attn.o_proj.bias"), d)
		b.qNorm, b.kNorm = absent, absent
		if c.QKNorm {
			b.qNorm = p.add(initOne, n("self_attn.q_norm.weight"), e)
			b.kNorm = p.add(initOne, n("self_attn.k_norm.weight"), e)
		}
		b.gate = p.add(initNormal, n("mlp.gate_proj.weight"), f, d)
		b.gateBias = p.addIf(c.MLPBias, n("mlp.gate_proj.bias"), f)
		b.up = p.add(initNormal, n("mlp.up_proj.weight"), f, d)
		b.upBias = p.addIf(c.MLPBias, n("mlp.up_proj.bias"), f)
		b.down = p.add(initNormal, n("mlp.down_proj.weight"), d, f)
		b.downBias = p.addIf(c.MLPBias, n("mlp.down_proj.bias"), d)
		b.norm1 = p.add(initOne, n("input_layernorm.weight"), d)
		b.norm2 = p.add(initOne, n("post_attention_layernorm.weight"), d)
		p.layers = append(p.layers, b)
	}
	p.starts = append(p.starts, p.size)
	p.final = p.add(initOne, "model.norm.weight", d)
	p.head = p.embed
	if !c.Tied {
		p.head = p.add(initNormal, "lm_head.weight", c.Vocab, d)
	}
	return p
}

func chatGLMPlan(c *Config) *plan {
	p := &plan{}
	d, e, f := c.Hidden, c.HeadDim, c.FeedForward
	hq, hk := c.Heads*e, c.KVHeads*e
	p.embed = p.add(initNormal, "transformer.embedding.word_embeddings.weight", c.Vocab, d)
	for i := range c.Layers {
		n := func(s string) string { return fmt.Sprintf("transformer.encoder.layers.%d.%s", i, s) }
		b := blueprint{qNorm: absent, kNorm: absent}
		p.starts = append(p.starts, p.size)
		b.norm1 = p.add(initOne, n("input_layernorm.weight"), d)
		qkv := p.add(initNormal, n("self_attention.query_key_value.weight"), hq+2*hk, d)
		b.q, b.k, b.v = qkv.slice(0, hq), qkv.slice(hq, hk), qkv.slice(hq+hk, hk)
		bias := p.addIf(c.QKVBias, n("self_attention.query_key_value.bias"), hq+2*hk)
		b.qBias, b.kBias, b.vBias = bias.slice(0, hq), bias.slice(hq, hk), bias.slice(hq+hk, hk)
		b.o = p.add(initNormal, n("self_attention.dense.weight"), d, hq)
		b.oBias = p.addIf(c.OutBias, n("self_attention.dense.bias"), d)
		b.norm2 = p.add(initOne, n("post_attention_layernorm.weight"), d)
		gateUp := p.add(initNormal, n("mlp.dense_h_to_4h.weight"), 2*f, d)
		b.gate, b.up = gateUp.slice(0, f), gateUp.slice(f, f)
		guBias := p.addIf(c.MLPBias, n("mlp.dense_h_to_4h.bias"), 2*f)
		b.gateBias, b.upBias = guBias.slice(0, f), guBias.slice(f, f)
		b.down = p.add(initNormal, n("mlp.dense_4h_to_h.weight"), d, f)
		b.downBias = p.addIf(c.MLPBias, n("mlp.dense_4h_to_h.bias"), d)
		p.layers = append(p.layers, b)
	}
	p.starts = append(p.starts, p.size)
	p.final = p.add(initOne, "transformer.encoder.final_layernorm.weight", d)
	p.head = p.embed
	if !c.Tied {
		p.head = p.add(initNormal, "transformer.output_layer.weight", c.Vocab, d)
	}
	return p
}

// headName is the head's tensor, which some files repeat although it is tied.
func (c *Config) headName() string {
	if c.Family == ChatGLM {
		return "transformer.output_layer.weight"
	}
	return "lm_head.weight"
}

// view returns the rows of t within a flat buffer, nil if t is absent.
func (p *plan) view(flat gpu.Buffer, t part) gpu.Buffer {
	if t.param < 0 || flat == nil {
		return nil
	}
	q := &p.params[t.param]
	width := q.Len() / q.Shape[0]
	at := q.offset + t.from*width
	return flat.Slice(at, at+t.rows*width)
}
