package devicetest

import (
	"errors"
	"slices"
	"testing"

	"github.com/longalign/longalign-go/gpu"
)

// isolation checks that a token's results have the same bits whatever the other sequences of
// its micro-batch hold.
func (s *suite) isolation(t *testing.T) {
	const heads, kv, e, in, out, vocab = 4, 2, 16, 64, 40, 50
	shape := attentionShape(heads, kv, e, 0, 0, 70, 131, 400)
	const T, from, to = 400, 70, 131 // the sequence that stays
	run := func(seed float64) []matrix {
		b := s.bench(t)
		q, k, v, dy := b.normal(T*in, 1), b.normal(T*kv*e, 1), b.normal(T*kv*e, 1), b.normal(T*in, 1)
		w, norm := b.normal(out*in, 1), b.normal(in, 1)
		head := b.normal(vocab*in, 1)
		disturb := func(x matrix) matrix {
			width := len(x) / T
			for i := range x {
				if i < from*width || i >= to*width {
					x[i] *= seed
				}
			}
			return x
		}
		bq, bk, bv, bdy := b.buffer(disturb(q)), b.buffer(disturb(k)), b.buffer(disturb(v)), b.buffer(disturb(dy))
		y, lse := b.empty(T*in), b.statistics(heads*T)
		dq, dk, dv := b.empty(T*in), b.empty(T*kv*e), b.empty(T*kv*e)
		b.Attention(y, lse, bq, bk, bv, shape)
		b.AttentionGrad(dq, dk, dv, bdy, y, lse, bq, bk, bv, shape)
		n, rstd, z, dn := b.empty(T*in), b.empty(T), b.empty(T*out), b.empty(T*in)
		b.RMSNorm(n, rstd, y, b.buffer(norm), in, 1e-5)
		l := gpu.Linear{In: in, Out: out, W: b.buffer(w)}
		b.Linear(z, n, l)
		b.LinearGradInput(dn, z, l, false)
		nll, dh := make([]float64, T), b.empty(T*in)
		targets, coef := make([]int32, T), make([]float64, T)
		for i := range targets {
			targets[i], coef[i] = int32(i%vocab), 1
		}
		b.CrossEntropy(nll, dh, nil, n, gpu.Linear{In: in, Out: vocab, W: b.buffer(head)}, targets, coef)
		var rows []matrix
		for _, d := range []gpu.Buffer{y, dq, dk, dv, n, z, dn, dh} {
			x := b.read(d)
			width := len(x) / T
			rows = append(rows, x[from*width:to*width])
		}
		return append(rows, nll[from:to])
	}
	a, b := run(1), run(-3)
	for i, name := range []string{"attention", "dq", "dk", "dv", "norm", "linear", "linear gradient", "dh", "nll"} {
		if !slices.Equal(a[i], b[i]) {
			t.Errorf("%s of a sequence changes with its neighbours", name)
		}
	}
}

// errors checks that mistakes stick, are reported once by Sync and stop nothing else.
func (s *suite) errors(t *testing.T) {
	for name, mistake := range map[string]func(b *bench){
		"a source of another length":   func(b *bench) { b.Copy(b.empty(3), b.empty(4)) },
		"an upload of another length":  func(b *bench) { b.Upload(b.empty(3), make([]float32, 4)) },
		"an id beyond the vocabulary":  func(b *bench) { b.Embedding(b.empty(4), b.empty(8), []int32{2}, 4) },
		"a negative id":                func(b *bench) { b.Embedding(b.empty(4), b.empty(8), []int32{-1}, 4) },
		"a row that is not whole":      func(b *bench) { b.RMSNorm(b.empty(5), b.empty(1), b.empty(5), b.empty(4), 4, 1e-5) },
		"a weight of another shape":    func(b *bench) { b.Linear(b.empty(4), b.empty(4), gpu.Linear{In: 4, Out: 4, W: b.empty(12)}) },
		"a missing weight":             func(b *bench) { b.Linear(b.empty(4), b.empty(4), gpu.Linear{In: 4, Out: 4}) },
		"an odd rotary width":          func(b *bench) { b.Rope(b.empty(4), b.empty(2), b.empty(2), []int32{0}, 1, 4, 3, gpu.RotateHalf, false) },
		"a position beyond the tables": func(b *bench) { b.Rope(b.empty(4), b.empty(2), b.empty(2), []int32{1}, 1, 4, 4, gpu.RotateHalf, false) },
		"sequences out of order": func(b *bench) {
			b.Attention(b.empty(32), b.statistics(4), b.empty(32), b.empty(32), b.empty(32), attentionShape(1, 1, 8, 0, 0, 3, 2, 4))
		},
		"key heads that do not divide the heads": func(b *bench) {
			b.Attention(b.empty(96), b.statistics(12), b.empty(96), b.empty(64), b.empty(64), attentionShape(3, 2, 8, 0, 0, 4))
		},
		"a cache that is too small": func(b *bench) {
			b.AttentionCached(b.empty(8), b.empty(8), b.empty(16), b.empty(16), 1, 3, attentionShape(1, 1, 8, 0))
		},
		"a step into a cache without room": func(b *bench) {
			rows := []gpu.CachedRows{{Keys: b.empty(16), Values: b.empty(16), Length: 3}}
			b.AttentionStep(b.empty(8), b.empty(8), b.empty(8), b.empty(8), rows, attentionShape(1, 1, 8, 0))
		},
		"a step of fewer sequences than rows": func(b *bench) {
			rows := []gpu.CachedRows{{Keys: b.empty(16), Values: b.empty(16), Length: 1}}
			b.AttentionStep(b.empty(16), b.empty(16), b.empty(16), b.empty(16), rows, attentionShape(1, 1, 8, 0))
		},
		"a target beyond the vocabulary": func(b *bench) {
			b.CrossEntropy(make([]float64, 1), nil, nil, b.empty(4), gpu.Linear{In: 4, Out: 2, W: b.empty(8)}, []int32{2}, nil)
		},
		"steps that count from zero":   func(b *bench) { b.AdamW(b.empty(4), b.empty(4), b.empty(4), b.empty(4), gpu.AdamW{}) },
		"a transfer within the device": func(b *bench) { b.Transfer(b.empty(4), b.empty(4)) },
		"a transfer of another length": func(b *bench) { b.Transfer(b.empty(4), b.host(5)) },
		"host memory in an operation":  func(b *bench) { b.Add(b.empty(4), b.host(4)) },
		"codes of another length": func(b *bench) {
			q := gpu.Quantized{Codes: b.empty(4), Scales: b.empty(1)}
			b.AdamW8(b.empty(4), b.empty(4), q, q, gpu.AdamW{Step: 1})
		},
		"a buffer that was freed": func(b *bench) {
			x := b.empty(4)
			b.Free(x)
			b.Zero(x)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := s.bench(t)
			keep := b.buffer(matrix{1, 2})
			mistake(b)
			err := b.Sync()
			var op *gpu.OpError
			if !errors.As(err, &op) || op.Op == "" || op.Device == "" {
				t.Fatalf("Sync returns %v, not a *gpu.OpError that names device and operation", err)
			}
			b.Zero(keep)
			if again := b.Sync(); again != err {
				t.Errorf("the failure does not stick: %v, then %v", err, again)
			}
		})
	}
}
