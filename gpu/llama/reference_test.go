package llama_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu/llama"
)

// reference is a second, plain implementation of the models: one sequence, one token at a time, straight from
// the config fields and tensor names. It shares nothing with the package but the weights.
type reference struct {
	f       fields
	weights map[string][]float64
}

func referenceNLL(t *testing.T, f fields, m *llama.Model, p *datasets.Pack) []float64 {
	t.Helper()
	r := reference{f: f, weights: map[string][]float64{}}
	for _, q := range m.Params() {
		x := make([]float64, q.Len())
		m.Device().Download64(x, q.Weight)
		r.weights[q.Name] = x
	}
	if err := m.Device().Sync(); err != nil {
		t.Fatal(err)
	}
	out := make([]float64, len(p.InputIDs))
	for i := range p.Sequences() {
		a, b := p.CuSeqlens[i], p.CuSeqlens[i+1]
		logits := r.logits(p.InputIDs[a:b])
		for s := a; s < b-1; s++ {
			row := logits[s-a]
			var z float64
			for _, l := range row {
				z += math.Exp(l)
			}
			out[s] = math.Log(z) - row[p.InputIDs[s+1]]
		}
	}
	return out
}

func (r *reference) int(names ...string) int {
	for _, n := range names {
		if v, ok := r.f[n].(int); ok {
			return v
		}
	}
	return 0
}

func (r *reference) glm() bool { return r.f["model_type"] == "chatglm" }

// product is w x + b for rows [from, from+n) of w.
func (r *reference) product(x []float64, name string, from, n int) []float64 {
	y := make([]float64, n)
	w, b := r.weights[name+".weight"], r.weights[name+".bias"]
	for i := range y {
		for j, v := range x {
			y[i] += w[(from+i)*len(x)+j] * v
		}
		if b != nil {
			y[i] += b[from+i]
		}
	}
	return y
}

func (r *reference) norm(x []float64, name string) []float64 {
	eps, ok := r.f["rms_norm_eps"].(float64)
	if !ok {
		eps = r.f["layernorm_epsilon"].(float64)
	}
	var sum float64
	for _, v := range x {
		sum += v * v
	}
	s := 1 / math.Sqrt(sum/float64(len(x))+eps)
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v * s * r.weights[name+".weight"][i]
	}
	return y
}

// angles returns the angle of each pair at a position, and the factor on both coordinates.
func (r *reference) angles(pos, length, e int) (angle []float64, factor float64) {
	theta, dim := 10000.0, e
	if r.glm() {
		theta, dim = 10000*float64(r.int("rope_ratio")), e/2
	}
	factor = 1
	s, scaled := r.f["rope_scaling"].(fields)
	kind := ""
	if scaled {
		kind, _ = s["type"].(string)
		if kind == "" {
			kind = s["rope_type"].(string)
		}
	}
	original := float64(r.int("max_position_embeddings"))
	if o, ok := s["original_max_position_embeddings"].(int); ok && kind != "dynamic" { // which Hugging Face scales from the former
		original = float64(o)
	}
	d := float64(dim)
	if kind == "dynamic" && float64(length) > original {
		k := s["factor"].(float64)
		theta *= math.Pow(k*float64(length)/original-(k-1), d/(d-2))
	}
	for i := range dim / 2 {
		freq := math.Pow(theta, -2*float64(i)/d)
		switch kind {
		case "linear":
			freq /= s["factor"].(float64)
		case "llama3":
			turns := original * freq / (2 * math.Pi) // within the original context
			switch k := s["factor"].(float64); {
			case turns < 1: // low_freq_factor
				freq /= k
			case turns <= 4: // high_freq_factor
				smooth := (turns - 1) / 3
				freq = (1-smooth)*freq/k + smooth*freq
			}
		case "yarn":
			k := s["factor"].(float64)
			correction := func(beta float64) float64 {
				return d * math.Log(original/(beta*2*math.Pi)) / (2 * math.Log(theta))
			}
			low, high := math.Max(0, math.Floor(correction(32))), math.Min(d-1, math.Ceil(correction(1)))
			if low == high {
				high += 0.001
			}
			extrapolate := 1 - math.Min(1, math.Max(0, (float64(i)-low)/(high-low)))
			freq = freq/k*(1-extrapolate) + freq*extrapolate
			factor = 0.1*math.Log(k) + 1
		}
		angle = append(angle, float64(pos)*freq)
	}
	return angle, factor
}

func (r *reference) rotate(x []float64, pos, length int) []float64 {
	angle, factor := r.angles(pos, length, len(x))
	y := append([]float64(nil), x...)
	for i, a := range angle {
		j, k := i, i+len(angle)
		if r.glm() {
			j, k = 2*i, 2*i+1
		}
		y[j] = factor * (x[j]*math.Cos(a) - x[k]*math.Sin(a))
		y[k] = factor * (x[k]*math.Cos(a) + x[j]*math.Sin(a))
	}
	return y
}

func (r *reference) logits(ids []int32) [][]float64 {
	d, heads := r.int("hidden_size"), r.int("num_attention_heads")
	groups := r.int("multi_query_group_num", "num_key_value_heads")
	e := r.int("kv_channels", "head_dim")
	if e == 0 {
		e = d / heads
	}
	ff, layers := r.int("ffn_hidden_size", "intermediate_size"), r.int("num_layers", "num_hidden_layers")
	vocab := r.int("padded_vocab_size", "vocab_size")
	embed, final, head := "model.embed_tokens", "model.norm", "lm_head"
	if r.glm() {
		embed, final, head = "transformer.embedding.word_embeddings", "transformer.encoder.final_layernorm", "transformer.output_layer"
	}
	if tied, _ := r.f["tie_word_embeddings"].(bool); tied {
		head = embed
	}
	x := make([][]float64, len(ids))
	for t, id := range ids {
		x[t] = append([]float64(nil), r.weights[embed+".weight"][int(id)*d:(int(id)+1)*d]...)
	}
	for l := range layers {
		p := fmt.Sprintf("model.layers.%d.", l)
		if r.glm() {
			p = fmt.Sprintf("transformer.encoder.layers.%d.", l)
		}
		window := len(ids)
		if w := r.int("sliding_window"); w > 0 && l >= r.int("max_window_layers") {
			window = w
		}
		var q, k, v [][]float64 // [t][head*e]
		for t := range ids {
			n := r.norm(x[t], p+"input_layernorm")
			var qt, kt, vt []float64
			if r.glm() {
				w := p + "self_attention.query_key_value"
				qt, kt, vt = r.product(n, w, 0, heads*e), r.product(n, w, heads*e, groups*e), r.product(n, w, (heads+groups)*e, groups*e)
			} else {
				qt, kt, vt = r.product(n, p+"self_attn.q_proj", 0, heads*e), r.product(n, p+"self_attn.k_proj", 0, groups*e), r.product(n, p+"self_attn.v_proj", 0, groups*e)
			}
			each := func(x []float64, norm string) (y []float64) {
				for h := 0; h < len(x); h += e {
					z := x[h : h+e]
					if r.f["model_type"] == "qwen3" {
						z = r.norm(z, p+"self_attn."+norm)
					}
					y = append(y, r.rotate(z, t, len(ids))...)
				}
				return y
			}
			q, k, v = append(q, each(qt, "q_norm")), append(k, each(kt, "k_norm")), append(v, vt)
		}
		for t := range ids {
			var o []float64
			for h := range heads {
				g := h / (heads / groups)
				var z float64
				sum := make([]float64, e)
				for s := max(0, t-window+1); s <= t; s++ {
					var dot float64
					for i := range e {
						dot += q[t][h*e+i] * k[s][g*e+i]
					}
					w := math.Exp(dot / math.Sqrt(float64(e)))
					z += w
					for i := range e {
						sum[i] += w * v[s][g*e+i]
					}
				}
				for i := range sum {
					sum[i] /= z
				}
				o = append(o, sum...)
			}
			name := p + "self_attn.o_proj"
			if r.glm() {
				name = p + "self_attention.dense"
			}
			for i, y := range r.product(o, name, 0, d) {
				x[t][i] += y
			}
			n := r.norm(x[t], p+"post_attention_layernorm")
			var gate, up []float64
			down := p + "mlp.down_proj"
			if r.glm() {
				gate, up = r.product(n, p+"mlp.dense_h_to_4h", 0, ff), r.product(n, p+"mlp.dense_h_to_4h", ff, ff)
				down = p + "mlp.dense_4h_to_h"
			} else {
				gate, up = r.product(n, p+"mlp.gate_proj", 0, ff), r.product(n, p+"mlp.up_proj", 0, ff)
			}
			for i := range gate {
				gate[i] *= up[i] / (1 + math.Exp(-gate[i]))
			}
			for i, y := range r.product(gate, down, 0, d) {
				x[t][i] += y
			}
		}
	}
	out := make([][]float64, len(ids))
	for t := range ids {
		out[t] = r.product(r.norm(x[t], final), head, 0, vocab)
	}
	return out
}
