package llama_test

import (
	"testing"
	"time"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

// BenchmarkPrefill feeds a prompt of 4,096 tokens and, by turns, runs the same tokens through the forward pass that
// training has (with the head and the loss of every token). It reports both speeds: a prompt should not be slower.
func BenchmarkPrefill(b *testing.B) {
	c, err := llama.Shape{Dim: 256, Layers: 4, Heads: 4, KVHeads: 2, FeedForward: 688, Vocab: 4096, Context: 8192}.Config()
	if err != nil {
		b.Fatal(err)
	}
	m, err := llama.New(c, openHost(b), gpu.Float32, 1)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	d, err := m.NewDecoder()
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	const tokens = 4096
	ids := make([]int32, tokens)
	for i := range ids {
		ids[i] = int32(i * 7919 % 4096)
	}
	p := datasets.Pack{InputIDs: ids, CuSeqlens: []int32{0, tokens}}
	prompt := func() time.Duration {
		s, err := d.Open(tokens)
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		began := time.Now()
		if err := s.Feed(ids, false, func(int, []float64) error { return nil }); err != nil {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	forward := func() time.Duration {
		began := time.Now()
		if _, err := m.NLL(&p); err != nil {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	prompt()
	forward()
	fed, passed := time.Hour, time.Hour
	for b.Loop() {
		fed, passed = min(fed, prompt()), min(passed, forward())
	}
	b.ReportMetric(tokens/fed.Seconds(), "prompt-tokens/s")
	b.ReportMetric(tokens/passed.Seconds(), "forward-tokens/s")
}
