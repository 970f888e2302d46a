package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/longalign/longalign-go/gpu"
)

// kernels times each operation on the shapes of a layer of the model, its FLOPs and bytes as the device counts them.
func kernels(ctx context.Context, s settings) error {
	d, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	pr, ok := d.(gpu.Profiler)
	if !ok {
		return fmt.Errorf("the %s device does not count its work", d.Info().Kind)
	}
	c, err := shapes[s.shape].Config()
	if err != nil {
		return err
	}
	b := bench{Device: d, t: dtype(d)}
	T, D, F, H, G, E, V := s.tokens, c.Hidden, c.FeedForward, c.Heads, c.KVHeads, c.HeadDim, c.Vocab
	x, y, wide, up := b.random(T*D, b.t), b.random(T*D, b.t), b.random(T*F, b.t), b.random(T*F, b.t)
	square, tall, norm := b.random(D*D, b.t), b.random(F*D, b.t), b.random(D, b.t)
	dsquare, rstd, dnorm := b.random(D*D, gpu.Float32), b.random(T, gpu.Float32), b.random(D, gpu.Float32)
	q, k, v, dy := b.random(T*H*E, b.t), b.random(T*G*E, b.t), b.random(T*G*E, b.t), b.random(T*H*E, b.t)
	dq, dk, dv, lse := b.random(T*H*E, b.t), b.random(T*G*E, b.t), b.random(T*G*E, b.t), b.random(H*T, gpu.Float32)
	table := b.random(V*D, b.t)
	cos, sin := b.random(T*E/2, gpu.Float32), b.random(T*E/2, gpu.Float32)
	ids, positions, targets := make([]int32, T), make([]int32, T), make([]int32, T)
	coef, nll := make([]float64, T), make([]float64, T)
	for i := range ids {
		ids[i], positions[i], targets[i], coef[i] = b.rng.Int32N(int32(V)), int32(i), b.rng.Int32N(int32(V)), 1e-3
	}
	n := 1 << 26
	if s.shape == "tiny" {
		n = 1 << 20
	}
	w, g, m1, m2 := b.random(n, gpu.Float32), b.random(n, gpu.Float32), b.random(n, gpu.Float32), b.random(n, gpu.Float32)
	d.Zero(m2)
	zeros := func(n int) gpu.Buffer { // of eight bits; the first update fills them
		z, err := b.Alloc(n, gpu.UInt8)
		if b.err == nil {
			b.err = err
		}
		return z
	}
	moments := func() gpu.Quantized {
		return gpu.Quantized{Codes: zeros(n), Scales: zeros((n + gpu.QuantBlock - 1) / gpu.QuantBlock)}
	}
	m8, v8 := moments(), moments()
	const drawn = 16
	logits, draws, next, logProbs := b.random(drawn*V, b.t), make([]gpu.Draw, drawn), make([]int32, drawn), make([]float64, drawn)
	for i := range draws {
		draws[i] = gpu.Draw{Temperature: 1, TopP: 0.9, Seed: 1, Counter: uint64(i)}
	}
	dtable := b.random(V*D, gpu.Float32)
	if b.err != nil {
		return b.err
	}
	pack := pack(T, V)
	one := gpu.AttentionShape{Heads: H, KVHeads: G, HeadDim: E, Scale: 1 / math.Sqrt(float64(E)), CuSeqlens: []int32{0, int32(T)}}
	many := one
	many.CuSeqlens = pack.CuSeqlens
	update := gpu.AdamW{LR: 1e-5, Beta1: .9, Beta2: .95, Eps: 1e-8, Step: 1, GradScale: 1}
	cases := []kernel{
		{"copy, device to device", func() { d.Copy(w, g) }},
		{fmt.Sprintf("Linear %d × %d × %d", T, D, D), func() { d.Linear(y, x, gpu.Linear{In: D, Out: D, W: square}) }},
		{fmt.Sprintf("Linear %d × %d × %d", T, F, D), func() { d.Linear(wide, x, gpu.Linear{In: D, Out: F, W: tall}) }},
		{"LinearGradInput", func() { d.LinearGradInput(x, y, gpu.Linear{In: D, Out: D, W: square}, false) }},
		{"LinearGradWeight", func() { d.LinearGradWeight(dsquare, nil, y, x, gpu.Linear{In: D, Out: D}) }},
		{"Attention, one sequence", func() { d.Attention(dy, lse, q, k, v, one) }},
		{"AttentionGrad, one sequence", func() { d.AttentionGrad(dq, dk, dv, dy, q, lse, q, k, v, one) }},
		{"Attention, packed", func() { d.Attention(dy, lse, q, k, v, many) }},
		{"AttentionGrad, packed", func() { d.AttentionGrad(dq, dk, dv, dy, q, lse, q, k, v, many) }},
		{"AttentionCached, one token", func() { d.AttentionCached(dy.Slice(0, H*E), q.Slice(0, H*E), k, v, 1, T, one) }},
		{"RMSNorm", func() { d.RMSNorm(y, rstd, x, norm, D, 1e-5) }},
		{"RMSNormGrad", func() { d.RMSNormGrad(y, dnorm, x, x, norm, rstd, D) }},
		{"Rope", func() { d.Rope(q, cos, sin, positions, H, E, E, gpu.RotateHalf, false) }},
		{"SwiGLU", func() { d.SwiGLU(wide, wide, up) }},
		{"SwiGLUGrad", func() { d.SwiGLUGrad(wide, up, wide, wide, up) }},
		{"Add", func() { d.Add(y, x) }},
		{"Embedding", func() { d.Embedding(x, table, ids, D) }},
		{"EmbeddingGrad", func() { d.EmbeddingGrad(dtable, y, ids, D) }},
		{"CrossEntropy with gradient", func() {
			d.CrossEntropy(nll, y, nil, x, gpu.Linear{In: D, Out: V, W: table}, targets, coef)
		}},
		{"SquaredNorm", func() { d.SquaredNorm(g) }},
		{"AdamW", func() { d.AdamW(w, g, m1, m2, update) }},
		{"AdamW, moments of eight bits", func() { d.AdamW8(w, g, m8, v8, update) }},
	}
	if sampler, ok := d.(gpu.Sampler); ok {
		cases = append(cases, kernel{fmt.Sprintf("Sample, %d rows", drawn), func() { sampler.Sample(next, logProbs, logits, V, draws) }})
	}
	peak, bandwidth := limits(d)
	t := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "operation\tms\tTFLOP/s\tGB/s\tof the roofline\t")
	for _, k := range cases {
		if err := ctx.Err(); err != nil {
			return err
		}
		pr.StartProfile()
		k.run()
		counts := pr.StopProfile()
		var flops, bytes float64
		for _, o := range counts {
			flops, bytes = flops+o.FLOPs, bytes+o.Bytes
		}
		seconds, err := b.time(k.run)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		fmt.Fprintf(t, "%s\t%.3f\t%.3g\t%.0f\t%s\t\n", k.name, 1e3*seconds, flops/seconds/1e12, bytes/seconds/1e9, share(flops, bytes, seconds, peak, bandwidth))
	}
	return t.Flush()
}

// kernel is an operation with its operands.
type kernel struct {
	name string
	run  func()
}

// bench makes buffers and times operations.
type bench struct {
	gpu.Device
	t   gpu.DType
	rng *rand.Rand
	err error
}

// random returns n numbers between -1 and 1; zeros would run faster than data do.
func (b *bench) random(n int, t gpu.DType) gpu.Buffer {
	if b.rng == nil {
		b.rng = rand.New(rand.NewPCG(3, 4))
	}
	x, err := b.Alloc(n, t)
	if err != nil {
		if b.err == nil {
			b.err = err
		}
		return x
	}
	some := make([]float32, min(n, 1<<20))
	for i := range some {
		some[i] = 2*b.rng.Float32() - 1
	}
	for from := 0; from < n; from += len(some) {
		to := min(n, from+len(some))
		b.Upload(x.Slice(from, to), some[:to-from])
	}
	return x
}

// time returns the median of five runs of as many calls as take about 50 ms, after one call.
func (b *bench) time(f func()) (float64, error) {
	f()
	if err := b.Sync(); err != nil {
		return 0, err
	}
	began := time.Now()
	f()
	if err := b.Sync(); err != nil {
		return 0, err
	}
	calls := max(1, min(200, int(0.05/time.Since(began).Seconds())))
	var all []float64
	for range 5 {
		began := time.Now()
		for range calls {
			f()
		}
		if err := b.Sync(); err != nil {
			return 0, err
		}
		all = append(all, time.Since(began).Seconds()/float64(calls))
	}
	slices.Sort(all)
	return all[2], nil
}
