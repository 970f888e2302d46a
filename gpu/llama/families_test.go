package llama_test

import (
	"encoding/json"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
	"github.com/longalign/longalign-go/gpu/llama"
)

type fields map[string]any

func (f fields) with(more fields) fields {
	out := maps.Clone(f)
	maps.Copy(out, more)
	return out
}

var base = fields{
	"model_type": "llama", "hidden_act": "silu", "vocab_size": 23, "hidden_size": 16, "intermediate_size": 20,
	"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
	"tie_word_embeddings": false, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3,
}

// families has every architecture and every kind of parameter.
var families = map[string]fields{
	"llama":          base,
	"llama, tied":    base.with(fields{"tie_word_embeddings": true}),
	"llama, biases":  base.with(fields{"attention_bias": true, "mlp_bias": true}),
	"llama, linear":  base.with(fields{"rope_scaling": fields{"type": "linear", "factor": 4.0}}),
	"llama, dynamic": base.with(fields{"max_position_embeddings": 8, "rope_scaling": fields{"type": "dynamic", "factor": 2.0}}),
	// Eight pairs a head, so that some keep their frequency, some are interpolated and some lie between.
	"llama 3.1": base.with(fields{"head_dim": 16, "rope_scaling": fields{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
		"high_freq_factor": 4.0, "original_max_position_embeddings": 32}}),
	"mistral": base.with(fields{"model_type": "mistral", "sliding_window": 5}),
	"qwen2":   base.with(fields{"model_type": "qwen2", "tie_word_embeddings": true, "use_sliding_window": true, "sliding_window": 6, "max_window_layers": 1}),
	"qwen2, yarn": base.with(fields{"model_type": "qwen2", "head_dim": 16, "rope_scaling": fields{"type": "yarn", "factor": 4.0,
		"original_max_position_embeddings": 4096}}),
	"qwen3": base.with(fields{"model_type": "qwen3", "head_dim": 6}),
	"chatglm": {
		"model_type": "chatglm", "padded_vocab_size": 23, "hidden_size": 16, "ffn_hidden_size": 20, "num_layers": 2,
		"num_attention_heads": 4, "kv_channels": 4, "seq_length": 64, "layernorm_epsilon": 1e-5, "rmsnorm": true,
		"multi_query_attention": true, "multi_query_group_num": 2, "add_qkv_bias": true, "add_bias_linear": false,
		"post_layer_norm": true, "original_rope": true, "rope_ratio": 50, "tie_word_embeddings": false, "eos_token_id": 2,
		"apply_query_key_layer_scaling": true, "attention_softmax_in_fp32": true, "initializer_range": 0.3,
	},
}

func parse(t testing.TB, f fields) *llama.Config {
	t.Helper()
	data, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	c, err := llama.ParseConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func openHost(t testing.TB) gpu.Device {
	t.Helper()
	dev, err := host.Open(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return dev
}

// randomModel has no zero bias and no norm weight of 1, so that nothing hides behind a neutral value.
func randomModel(t testing.TB, c *llama.Config, dev gpu.Device, dtype gpu.DType) *llama.Model {
	t.Helper()
	m, err := llama.New(c, dev, dtype, 7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	r := rand.New(rand.NewPCG(3, 4))
	for _, p := range m.Params() {
		if len(p.Shape) == 1 {
			x := make([]float64, p.Len())
			dev.Download64(x, p.Weight)
			for i := range x {
				x[i] += 0.3 * r.NormFloat64()
			}
			dev.Upload64(p.Weight, x)
		}
	}
	return m
}

// threeSequences are of lengths 1 (no target), 9 and 13.
func threeSequences(vocab int) datasets.Pack {
	r := rand.New(rand.NewPCG(1, 2))
	p := datasets.Pack{CuSeqlens: []int32{0, 9, 10, 23}}
	for t := range 23 {
		id := int32(r.IntN(vocab))
		p.InputIDs = append(p.InputIDs, id)
		if t%4 == 2 {
			id = datasets.IgnoreIndex
		}
		p.Labels = append(p.Labels, id)
	}
	return p
}

var coef = []float64{0.7, 0, 0.4}

func gradient(t *testing.T, m *llama.Model, p *datasets.Pack) (float64, []float64) {
	t.Helper()
	m.ZeroGrad()
	l, err := m.LossAndGrad(p, coef)
	if err != nil {
		t.Fatal(err)
	}
	g := make([]float64, m.Grads().Len())
	m.Device().Download64(g, m.Grads())
	return l.Loss, g
}

func TestGradientsEqualFiniteDifferences(t *testing.T) {
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			dev := openHost(t)
			m := randomModel(t, parse(t, f), dev, gpu.Float64)
			if err := m.EnableTraining(llama.Placement{}); err != nil {
				t.Fatal(err)
			}
			p := threeSequences(23)
			_, grad := gradient(t, m, &p)
			loss := func() float64 {
				nll, err := m.NLL(&p)
				if err != nil {
					t.Fatal(err)
				}
				var sum float64
				for i, c := range coef {
					for s := p.CuSeqlens[i]; s < p.CuSeqlens[i+1]; s++ {
						sum += c * nll[s]
					}
				}
				return sum
			}
			const h = 1e-5 // the error of a central difference is about h² and 1e-16/h
			r := rand.New(rand.NewPCG(5, 6))
			for _, q := range m.Params() {
				x := make([]float64, q.Len())
				dev.Download64(x, q.Weight)
				for range 4 {
					i := r.IntN(len(x))
					keep := x[i]
					x[i] = keep + h
					dev.Upload64(q.Weight, x)
					up := loss()
					x[i] = keep - h
					dev.Upload64(q.Weight, x)
					down := loss()
					x[i] = keep
					dev.Upload64(q.Weight, x)
					want, got := (up-down)/(2*h), grad[q.Offset()+i]
					if math.Abs(want-got) > 1e-8+1e-6*math.Abs(want) {
						t.Errorf("%s[%d]: gradient %.12g, finite difference %.12g", q.Name, i, got, want)
					}
				}
			}
		})
	}
}

func TestRecomputationGivesTheSameBits(t *testing.T) {
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			m := randomModel(t, parse(t, f), openHost(t), gpu.Float32)
			p := threeSequences(23)
			if err := m.EnableTraining(llama.Placement{}); err != nil {
				t.Fatal(err)
			}
			loss, grad := gradient(t, m, &p)
			if err := m.EnableTraining(llama.Placement{Keep: llama.KeepInputs}); err != nil {
				t.Fatal(err)
			}
			loss2, grad2 := gradient(t, m, &p)
			if loss != loss2 || !slices.Equal(grad, grad2) {
				t.Errorf("loss %v and %v, gradients equal: %v", loss, loss2, slices.Equal(grad, grad2))
			}
		})
	}
}

func TestPaddingChangesNeitherLossNorGradient(t *testing.T) {
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			m := randomModel(t, parse(t, f), openHost(t), gpu.Float64)
			if err := m.EnableTraining(llama.Placement{}); err != nil {
				t.Fatal(err)
			}
			p := threeSequences(23)
			p.Labels[22] = p.InputIDs[22] // the longest ends in a target
			padded := datasets.Pack{CuSeqlens: []int32{0}}
			for i := range p.Sequences() {
				ids, labels := slices.Clone(p.InputIDs[p.CuSeqlens[i]:p.CuSeqlens[i+1]]), slices.Clone(p.Labels[p.CuSeqlens[i]:p.CuSeqlens[i+1]])
				for len(ids) < 15 {
					ids, labels = append(ids, 0), append(labels, datasets.IgnoreIndex)
				}
				padded.InputIDs, padded.Labels = append(padded.InputIDs, ids...), append(padded.Labels, labels...)
				padded.CuSeqlens = append(padded.CuSeqlens, int32(len(padded.InputIDs)))
			}
			loss, grad := gradient(t, m, &p)
			loss2, grad2 := gradient(t, m, &padded)
			if math.Abs(loss-loss2) > 1e-12*loss {
				t.Errorf("the loss is %.16g, padded %.16g", loss, loss2)
			}
			for i := range grad {
				if math.Abs(grad[i]-grad2[i]) > 1e-12 {
					t.Fatalf("gradient %d is %.16g, padded %.16g", i, grad[i], grad2[i])
				}
			}
		})
	}
}

func TestForwardEqualsAPlainReference(t *testing.T) {
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			c := parse(t, f)
			m := randomModel(t, c, openHost(t), gpu.Float64)
			p := threeSequences(23)
			p.Labels = nil
			got, err := m.NLL(&p)
			if err != nil {
				t.Fatal(err)
			}
			want := referenceNLL(t, f, m, &p)
			for i := range got {
				if math.Abs(got[i]-want[i]) > 1e-11 {
					t.Fatalf("token %d: %.15g, want %.15g", i, got[i], want[i])
				}
			}
		})
	}
}

func TestDecodingWithACacheEqualsTheWholeForward(t *testing.T) {
	for name, f := range families {
		if name == "llama, dynamic" {
			continue // its base depends on the planned length, by definition
		}
		t.Run(name, func(t *testing.T) {
			m := randomModel(t, parse(t, f), openHost(t), gpu.Float64)
			ids := threeSequences(23).InputIDs
			p := datasets.Pack{InputIDs: ids, CuSeqlens: []int32{0, int32(len(ids))}}
			nll, err := m.NLL(&p)
			if err != nil {
				t.Fatal(err)
			}
			d, err := m.NewDecoder()
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			a, err := d.Open(40)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			b, err := d.Open(40)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			compare := func(at int, logits []float64) error {
				if at+1 < len(ids) {
					if got := llama.LogSumExp(logits) - logits[ids[at+1]]; math.Abs(got-nll[at]) > 1e-11 {
						t.Errorf("token %d: %.15g, want %.15g", at, got, nll[at])
					}
				}
				return nil
			}
			// a: a block of 11, then one by one, in step with b, which is a shorter prefix.
			if err := a.Feed(ids[:11], true, compare); err != nil {
				t.Fatal(err)
			}
			if err := b.Feed(ids[:3], true, compare); err != nil {
				t.Fatal(err)
			}
			for i := 11; i < len(ids); i++ {
				j := i - 8
				err := d.Step([]*llama.Sequence{a, b}, []int32{ids[i], ids[j]}, func(k int, logits []float64) error {
					return compare([]int{i, j}[k], logits)
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestSavingAndLoadingChangesNoByte(t *testing.T) {
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			dev := openHost(t)
			m := randomModel(t, parse(t, f), dev, gpu.Float32)
			for _, o := range [][]llama.SaveOption{{}, {llama.WithDType("BF16")}, {llama.WithDType("F16")}} {
				first, second := t.TempDir(), t.TempDir()
				m.CarryFiles(map[string][]byte{"tokenizer.json": []byte(`{"a":1}`)})
				if err := m.Save(first, o...); err != nil {
					t.Fatal(err)
				}
				again, err := llama.Load(first, dev, gpu.Float32)
				if err != nil {
					t.Fatal(err)
				}
				if err := again.Save(second); err != nil {
					t.Fatal(err)
				}
				again.Close()
				if diff := cmp.Diff(readDir(t, first), readDir(t, second)); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func readDir(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(data)
	}
	return out
}
