package llama

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
)

// windowed has two layers that see all keys and two that see a window.
func windowed(t *testing.T, window string) *Model {
	t.Helper()
	c, err := ParseConfig([]byte(`{"model_type":"qwen2","vocab_size":50,"hidden_size":16,"intermediate_size":24,"num_hidden_layers":4,
		"num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":8192,"use_sliding_window":true,
		"sliding_window":` + window + `,"max_window_layers":2,"initializer_range":0.3}`))
	if err != nil {
		t.Fatal(err)
	}
	dev, err := host.Open(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(c, dev, gpu.Float32, 5)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// A layer's cache that drops what its window hides gives the logits of one that keeps all, to the bit: in blocks of a
// prompt, of odd lengths, token by token, and for two sequences of different lengths at once.
func TestAWindowsCacheGivesTheBitsOfAWholeOne(t *testing.T) {
	for _, window := range []string{"1", "7", "193", "600"} {
		t.Run("window "+window, func(t *testing.T) {
			const capacity = 2600
			last := 1850
			if window == "193" {
				last = capacity // so that the cache moves between single tokens too
			}
			m := windowed(t, window)
			d, err := m.NewDecoder()
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			r := rand.New(rand.NewPCG(1, 2))
			ids := make([]int32, capacity)
			for i := range ids {
				ids[i] = int32(r.IntN(50))
			}
			// run feeds a and, in step with its last part, a second sequence b.
			run := func(whole bool) (logits [][]float64, moved int) {
				var seqs [2]*Sequence
				for i := range seqs {
					if seqs[i], err = d.Open(capacity - 500*i); err != nil {
						t.Fatal(err)
					}
					defer seqs[i].Close()
					for l := range seqs[i].layers {
						c := &seqs[i].layers[l]
						if whole && c.rows < capacity-500*i {
							if c.keys, err = m.dev.Alloc(capacity*c.width, m.dtype); err != nil {
								t.Fatal(err)
							}
							defer m.dev.Free(c.keys)
							if c.values, err = m.dev.Alloc(capacity*c.width, m.dtype); err != nil {
								t.Fatal(err)
							}
							defer m.dev.Free(c.values)
							c.rows = capacity
						}
					}
				}
				keep := func(_ int, l []float64) error { logits = append(logits, slices.Clone(l)); return nil }
				a, b := seqs[0], seqs[1]
				for _, part := range [][2]int{{0, 1100}, {1100, 1103}, {1103, 1803}, {1803, 1810}} {
					if err := a.Feed(ids[part[0]:part[1]], false, keep); err != nil {
						t.Fatal(err)
					}
				}
				if err := b.Feed(ids[:1200], false, keep); err != nil {
					t.Fatal(err)
				}
				for i := 1810; i < last; i++ {
					if err := d.Step([]*Sequence{a, b}, []int32{ids[i], ids[i-610]}, keep); err != nil {
						t.Fatal(err)
					}
				}
				for _, c := range a.layers {
					moved = max(moved, c.base)
				}
				return logits, moved
			}
			want, moved := run(true)
			if moved != 0 {
				t.Fatalf("the whole cache moved by %d", moved)
			}
			got, moved := run(false)
			if moved < 400 {
				t.Fatalf("the window's cache moved by %d only", moved)
			}
			for i := range want {
				if !slices.Equal(want[i], got[i]) {
					t.Fatalf("logits %d differ", i)
				}
			}
		})
	}
}

func TestAWindowBoundsTheCache(t *testing.T) {
	m := windowed(t, "64")
	const perToken = 2 * 2 * 4 * 4 // keys and values of two heads of four float32
	long, longer := m.CacheBytes(4000), m.CacheBytes(8000)
	if got, want := longer-long, int64(2*4000*perToken); got != want {
		t.Errorf("4000 more tokens take %d bytes more, want %d: two of four layers have a window", got, want)
	}
	if got, want := m.CacheBytes(100), int64(4*100*perToken); got != want {
		t.Errorf("100 tokens take %d bytes, want %d", got, want)
	}
	d, err := m.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s, err := d.Open(8000)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := int64(s.cache.Len()) * 4; got != longer {
		t.Errorf("a sequence holds %d bytes, CacheBytes says %d", got, longer)
	}
}
