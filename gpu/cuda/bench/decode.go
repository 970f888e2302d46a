package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

// decode times a prompt of s.tokens tokens, the tokens after it, and training's forward pass over the same prompt.
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
	const untimed = 4 // draws: kernels are compiled at the first, and what repeats is collected at the second
	news := max(8, min(64, 4*s.steps))
	tokens := min(s.tokens, c.MaxPositions-untimed-news-1)
	r := rand.New(rand.NewPCG(1, 1))
	p := datasets.Pack{CuSeqlens: []int32{0, int32(tokens)}, Weights: []float64{1}}
	for range tokens {
		p.InputIDs, p.Labels = append(p.InputIDs, int32(r.IntN(c.Vocab))), append(p.Labels, datasets.IgnoreIndex)
	}
	p.Labels[tokens-1] = p.InputIDs[tokens-1] // the head is wanted for one token, as of a prompt
	prefill, each, err := draw(d, m, p.InputIDs, untimed, news)
	if err != nil {
		return err
	}
	forward, err := second(ctx, func() error { _, err := m.NLL(&p); return err })
	if err != nil {
		return err
	}
	peak, bandwidth := limits(d)
	params := llama.MemoryPlan(c, dtype(d), llama.Placement{}, 0).Params
	read := float64(params-int64(c.Vocab*c.Hidden))*float64(dtype(d).Size()) + float64(m.CacheBytes(tokens))
	n, hq := float64(tokens), float64(c.Heads*c.HeadDim)
	flops := 2*n*float64(params-2*int64(c.Vocab*c.Hidden)) + 2*n*n*hq*float64(c.Layers)
	fmt.Fprintf(s.out, "prefill of %d tokens: %.3g s, %.0f tokens/s, %.1f %% of the peak\n", tokens, prefill, n/prefill, 100*flops/prefill/peak)
	fmt.Fprintf(s.out, "training's forward pass of them: %.3g s; the prefill has %.0f %% of its speed\n", forward, 100*forward/prefill)
	fmt.Fprintf(s.out, "decode after them: %.2f ms a token, %.0f %% of memory bandwidth\n", 1e3*each, 100*read/each/bandwidth)
	return nil
}

// draw returns the seconds of a prompt and of each of news tokens after it. The prompt is fed twice, and some tokens before those that
// count: the first time kernels are compiled and algorithms chosen.
func draw(d gpu.Device, m *llama.Model, prompt []int32, untimed, news int) (prefill, each float64, err error) {
	dec, err := m.NewDecoder()
	if err != nil {
		return 0, 0, err
	}
	defer dec.Close()
	var seq *llama.Sequence
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
	prefill, err = second(context.Background(), func() error {
		if seq != nil {
			seq.Close()
		}
		if seq, err = dec.Open(len(prompt) + untimed + news + 1); err != nil {
			return err
		}
		return seq.Feed(prompt, false, best)
	})
	if seq != nil {
		defer seq.Close()
	}
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	for i := range untimed + news {
		if i == untimed {
			if err := d.Sync(); err != nil {
				return 0, 0, err
			}
			began = time.Now()
		}
		next, _, err := dec.Draw([]*llama.Sequence{seq}, []int32{pick}, make([]gpu.Draw, 1))
		if err != nil {
			return 0, 0, err
		}
		pick = next[0]
	}
	return prefill, time.Since(began).Seconds() / float64(news), nil
}

// second returns the seconds of a second call, which ends with the work that it queued.
func second(ctx context.Context, call func() error) (seconds float64, err error) {
	for range 2 {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		began := time.Now()
		if err := call(); err != nil {
			return 0, err
		}
		seconds = time.Since(began).Seconds()
	}
	return seconds, nil
}
