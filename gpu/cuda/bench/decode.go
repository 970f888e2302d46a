package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

// decode times a prompt of s.tokens tokens and the tokens after it.
func decode(ctx context.Context, s settings) error {
	d, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	c, err := shapes[s.shape].Config()
	if err != nil {
		return err
	}
	m, err := llama.New(c, d, dtype(d), 1)
	if err != nil {
		return err
	}
	defer m.Close()
	dec, err := m.NewDecoder()
	if err != nil {
		return err
	}
	defer dec.Close()
	news := max(8, min(64, 4*s.steps))
	tokens := min(s.tokens, c.MaxPositions-news-1)
	seq, err := dec.Open(tokens + news + 1)
	if err != nil {
		return err
	}
	defer seq.Close()
	r := rand.New(rand.NewPCG(1, 1))
	prompt := make([]int32, tokens)
	for i := range prompt {
		prompt[i] = int32(r.IntN(c.Vocab))
	}
	pick := int32(0)
	best := func(_ int, logits []float64) error {
		pick = 0
		for i, l := range logits {
			if l > logits[pick] {
				pick = int32(i)
			}
		}
		return nil
	}
	began := time.Now()
	if err := seq.Feed(prompt, false, best); err != nil {
		return err
	}
	prefill := time.Since(began).Seconds()
	began = time.Now()
	for range news {
		next, _, err := dec.Draw([]*llama.Sequence{seq}, []int32{pick}, make([]gpu.Draw, 1))
		if err != nil {
			return err
		}
		pick = next[0]
	}
	each := time.Since(began).Seconds() / float64(news)
	peak, bandwidth := limits(d)
	params := llama.MemoryPlan(c, dtype(d), llama.Placement{}, 0).Params
	read := float64(params-int64(c.Vocab*c.Hidden))*float64(dtype(d).Size()) + float64(m.CacheBytes(tokens))
	n, hq := float64(tokens), float64(c.Heads*c.HeadDim)
	flops := 2*n*float64(params-2*int64(c.Vocab*c.Hidden)) + 2*n*n*hq*float64(c.Layers)
	fmt.Fprintf(s.out, "prefill of %d tokens: %.2f s, %.0f tokens/s, %.1f %% of the peak\n", tokens, prefill, n/prefill, 100*flops/prefill/peak)
	fmt.Fprintf(s.out, "decode after them: %.2f ms a token, %.0f %% of memory bandwidth\n", 1e3*each, 100*read/each/bandwidth)
	return nil
}
