package devicetest

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/longalign/longalign-go/gpu"
)

// sampling checks a gpu.Sampler: greedy choice, the law of what is drawn, top-p's set, and that a draw is its seed's and counter's.
func (s *suite) sampling(t *testing.T) {
	b := s.bench(t)
	d, ok := b.Device.(gpu.Sampler)
	if !ok {
		t.Skip("the device draws no tokens")
	}
	draw := func(logits matrix, vocab int, draws ...gpu.Draw) ([]int32, []float64) {
		ids, probs := make([]int32, len(draws)), make([]float64, len(draws))
		all := make(matrix, 0, len(draws)*vocab)
		for range draws {
			all = append(all, logits...)
		}
		d.Sample(ids, probs, b.buffer(all), vocab, draws)
		if err := b.Sync(); err != nil {
			t.Fatal(err)
		}
		return ids, probs
	}
	t.Run("greedy takes the smallest of the likeliest", func(t *testing.T) {
		logits := make(matrix, 1300)
		for i := range logits {
			logits[i] = float64(i%7) / 4
		}
		logits[700], logits[1299] = 3, 3
		ids, probs := draw(logits, 1300, gpu.Draw{}, gpu.Draw{Temperature: 1e-9, Seed: 4})
		var sum float64
		for _, l := range logits {
			sum += math.Exp(l)
		}
		if want := 3 - math.Log(sum); ids[0] != 700 || ids[1] != 700 || math.Abs(probs[0]-want) > 1e-4 {
			t.Errorf("drew %v with %v, want 700 with %v", ids, probs, want)
		}
	})
	// Values that every type represents, so that all devices see the same logits.
	logits := matrix{0, 1, -2, 0.5, 0.5, 3, -40, 0.5, 2, -1, 3}
	vocab := len(logits)
	// The reference keeps the law, and the device draws what the reference draws.
	for name, c := range map[string]struct{ temperature, topP float64 }{
		"as it is":     {1, 0},
		"hot":          {2, 1},
		"cold":         {0.5, 0},
		"top-p":        {1, 0.8},
		"a tiny top-p": {1, 1e-6},
		"both":         {1.25, 0.95},
	} {
		t.Run("the law, "+name, func(t *testing.T) {
			const n, some = 4000, 50
			draws := make([]gpu.Draw, n)
			for i := range draws {
				draws[i] = gpu.Draw{Temperature: c.temperature, TopP: c.topP, Seed: uint64(i % 3), Counter: uint64(i / 3)}
			}
			expected, want, count := law(logits, c.temperature, c.topP), make([]int32, n), make([]float64, vocab)
			for i := range draws {
				want[i] = reference(logits, draws[i])
				count[want[i]]++
			}
			for i, p := range expected {
				if p == 0 && count[i] > 0 || math.Abs(count[i]/n-p) > 5*math.Sqrt(p*(1-p)/n)+1e-9 {
					t.Errorf("token %d came %v times of %d, its probability is %.4f", i, count[i], n, p)
				}
			}
			ids, probs := draw(logits, vocab, draws[:some]...)
			if !slices.Equal(ids, want[:some]) {
				t.Fatalf("drew %v, want %v", ids, want[:some])
			}
			var sum float64
			for _, l := range logits {
				sum += math.Exp(l)
			}
			for i, id := range ids {
				if math.Abs(probs[i]-(logits[id]-math.Log(sum))) > 1e-4 {
					t.Fatalf("token %d has log-probability %v, want %v", id, probs[i], logits[id]-math.Log(sum))
				}
			}
		})
	}
	t.Run("a vocabulary of 1,301", func(t *testing.T) {
		logits := b.normal(1301, 4)
		draws, want := make([]gpu.Draw, 40), make([]int32, 40)
		for i := range draws {
			draws[i] = gpu.Draw{Temperature: 0.5 + float64(i%4)/2, TopP: float64(i%5) / 4, Seed: 7, Counter: uint64(i)}
			want[i] = reference(logits, draws[i])
		}
		if ids, _ := draw(logits, len(logits), draws...); !slices.Equal(ids, want) {
			t.Errorf("drew %v, want %v", ids, want)
		}
	})
	t.Run("wrong lengths are refused", func(t *testing.T) {
		b := s.bench(t)
		b.Device.(gpu.Sampler).Sample(make([]int32, 1), make([]float64, 2), b.empty(8), 4, make([]gpu.Draw, 2))
		var op *gpu.OpError
		if err := b.Sync(); !errors.As(err, &op) {
			t.Errorf("Sync returns %v", err)
		}
	})
}

// law is the distribution in float64.
func law(logits matrix, temperature, topP float64) []float64 {
	p, sum := make([]float64, len(logits)), 0.
	for i, l := range logits {
		p[i] = math.Exp(l / temperature)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	if topP <= 0 || topP >= 1 {
		return p
	}
	kept, mass := make([]float64, len(p)), 0.
	for mass < topP {
		best := -1
		for i := range p {
			if kept[i] == 0 && (best < 0 || p[i] > p[best]) {
				best = i
			}
		}
		kept[best] = p[best]
		mass += p[best]
	}
	for i := range kept {
		kept[i] /= mass
	}
	return kept
}

// reference draws by repeated search for the likeliest, in the integers that all devices share.
func reference(logits matrix, d gpu.Draw) int32 {
	top := math.Inf(-1)
	for _, l := range logits {
		top = max(top, l)
	}
	var total float64
	w := make([]float64, len(logits))
	for i, l := range logits {
		w[i] = float64(gpu.DrawWeight(float32(top)-float32(l), gpu.DrawScale(d.Temperature)))
		total += w[i]
	}
	kept, mass := make([]bool, len(w)), 0.
	for mass < math.Floor(total*float64(d.KeptShare())/(1<<32)) {
		best := -1
		for i := range w {
			if !kept[i] && (best < 0 || w[i] > w[best]) {
				best = i
			}
		}
		kept[best] = true
		mass += w[best]
	}
	r := math.Floor(float64(d.DrawRandom()) / (1 << 32) * mass / (1 << 32))
	for i := range w {
		if kept[i] {
			if r < w[i] {
				return int32(i)
			}
			r -= w[i]
		}
	}
	return -1
}
