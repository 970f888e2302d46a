package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
)

// work is the floating-point operations of one training step: products of weights for each token, those of the head for tokens with
// a target, and of attention the pairs that causality leaves; the backward pass costs twice the forward one. Recomputation is not counted.
func work(c *llama.Config, p datasets.Pack) float64 {
	d, f, hq, hk := float64(c.Hidden), float64(c.FeedForward), float64(c.Heads*c.HeadDim), float64(c.KVHeads*c.HeadDim)
	matrices := float64(c.Layers) * (d*hq*2 + d*hk*2 + 3*d*f)
	targets := 0
	for _, l := range p.Labels {
		if l >= 0 {
			targets++
		}
	}
	var pairs float64
	for i := range len(p.CuSeqlens) - 1 {
		n := float64(p.CuSeqlens[i+1] - p.CuSeqlens[i])
		pairs += n * n / 2
	}
	return 6*(float64(len(p.InputIDs))*matrices+float64(targets)*d*float64(c.Vocab)) + 12*pairs*hq*float64(c.Layers)
}

// trainer is a model with random weights in training, and its pack.
func (s settings) trainer(d gpu.Device) (*llama.Config, *train.Trainer, datasets.Pack, error) {
	none := datasets.Pack{}
	c, err := shapes[s.shape].Config()
	if err != nil {
		return nil, nil, none, err
	}
	o := train.DefaultOptions()
	o.Steps, o.DType, o.Device, o.Recompute, o.Parity, o.MaxLoss = 1<<20, dtype(d).String(), s.device, train.RecomputeAuto, false, 1e9 // as a user gets it
	if s.options != "" {
		if err := json.Unmarshal([]byte(s.options), &o); err != nil {
			return nil, nil, none, fmt.Errorf("-options: %w", err)
		}
	}
	p := pack(s.tokens, c.Vocab)
	load := train.Load{Tokens: s.tokens}
	for i := range p.Sequences() {
		load.Longest = max(load.Longest, int(p.CuSeqlens[i+1]-p.CuSeqlens[i]))
	}
	if _, err := train.PlanMemory(c, o, load, d.Info()); err != nil {
		return nil, nil, none, err
	}
	began := time.Now()
	m, err := llama.New(c, d, dtype(d), 1)
	if err != nil {
		return nil, nil, none, err
	}
	t, plan, err := train.Fit(m, o, load)
	if err != nil {
		m.Close()
		return nil, nil, none, err
	}
	fmt.Fprintf(s.out, "%s in %s, sequences %d, tokens %d, %v, ready after %.0f s\n", s.shape, o.DType, len(p.Weights), s.tokens, plan, time.Since(began).Seconds())
	return c, t, p, nil
}

// step times whole optimizer steps, then shows one by operation.
func step(ctx context.Context, s settings) error {
	d, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	c, t, p, err := s.trainer(d)
	if err != nil {
		return err
	}
	defer t.Model().Close()
	defer t.Close()
	var seconds []float64
	for i := range s.steps + 2 {
		m, err := t.Step(ctx, []datasets.Pack{p})
		if err != nil {
			return err
		}
		if i >= 2 {
			seconds = append(seconds, m.Seconds)
		}
	}
	slices.Sort(seconds)
	median, flops := seconds[len(seconds)/2], work(c, p)
	peak, bandwidth := limits(d)
	fmt.Fprintf(s.out, "step: %.3f s (median of %d, %.3f to %.3f), %.0f tokens/s, %.3g TFLOP/s, model FLOP utilisation %.1f %%\n",
		median, len(seconds), seconds[0], seconds[len(seconds)-1], float64(s.tokens)/median, flops/median/1e12, 100*flops/median/peak)
	pr, ok := d.(gpu.Profiler)
	if !ok {
		return nil
	}
	pr.StartProfile()
	if _, err := t.Step(ctx, []datasets.Pack{p}); err != nil {
		return err
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "operation\tcalls\tms\tTFLOP/s\tGB/s\tof the roofline\t")
	for _, o := range pr.StopProfile() {
		fmt.Fprintf(w, "%s\t%d\t%.2f\t%.3g\t%.0f\t%s\t\n", o.Op, o.Calls, 1e3*o.Seconds, o.FLOPs/o.Seconds/1e12, o.Bytes/o.Seconds/1e9, share(o.FLOPs, o.Bytes, o.Seconds, peak, bandwidth))
	}
	return w.Flush()
}

// share is the least time that the machine's limits allow over the time taken.
func share(flops, bytes, seconds, peak, bandwidth float64) string {
	least := max(flops/peak, bytes/bandwidth)
	if least == 0 || seconds == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f %%", 100*least/seconds)
}

// soak trains for some minutes and fails if memory or time grow.
func soak(ctx context.Context, s settings) error {
	d, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	_, t, p, err := s.trainer(d)
	if err != nil {
		return err
	}
	defer t.Model().Close()
	defer t.Close()
	held, _ := d.(interface{ Allocated() int64 })
	var first int64
	steps := 0
	for end := time.Now().Add(time.Duration(s.minutes * float64(time.Minute))); time.Now().Before(end) || steps < 3; steps++ {
		m, err := t.Step(ctx, []datasets.Pack{p})
		if err != nil {
			return err
		}
		if held == nil {
			continue
		}
		switch now := held.Allocated(); {
		case steps == 1:
			first = now
		case steps > 1 && now != first:
			return fmt.Errorf("step %d holds %d bytes on the card, step 1 held %d", m.Step, now, first)
		}
	}
	fmt.Fprintf(s.out, "soak: %d steps, %.1f GiB held throughout\n", steps, float64(first)/(1<<30))
	return nil
}
