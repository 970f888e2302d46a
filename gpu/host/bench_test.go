package host_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
)

// report adds what the device's own counters say: GFLOP/s and GB/s, and GFLOP a second of processor time.
func report(b *testing.B, d *host.Device, op func()) {
	b.Helper()
	op()
	b.ReportAllocs()
	d.StartProfile()
	cpu := cpuTime()
	for b.Loop() {
		op()
	}
	cpu = cpuTime() - cpu
	var flops, bytes float64
	for _, s := range d.StopProfile() {
		flops += s.FLOPs
		bytes += s.Bytes
	}
	seconds := b.Elapsed().Seconds()
	b.ReportMetric(flops/seconds/1e9, "GFLOP/s")
	b.ReportMetric(bytes/seconds/1e9, "GB/s")
	if cpu > 0 {
		b.ReportMetric(flops/cpu.Seconds()/1e9, "GFLOP/cpu-s")
	}
	if err := d.Sync(); err != nil {
		b.Fatal(err)
	}
}

func filled(b *testing.B, d *host.Device, n int) gpu.Buffer {
	b.Helper()
	x, err := d.Alloc(n, gpu.Float32)
	if err != nil {
		b.Fatal(err)
	}
	h := make([]float32, n)
	s := uint32(n)
	for i := range h {
		s = s*1664525 + 1013904223
		h[i] = float32(int32(s)) / (1 << 31)
	}
	d.Upload(x, h)
	return x
}

func BenchmarkPeak(b *testing.B) {
	d := open(b, host.Options{})
	var p gpu.Peaks
	for b.Loop() {
		q := d.Peak()
		p.FLOPS, p.Bandwidth = max(p.FLOPS, q.FLOPS), max(p.Bandwidth, q.Bandwidth)
	}
	b.ReportMetric(p.FLOPS/1e9, "GFLOP/s")
	b.ReportMetric(p.Bandwidth/1e9, "GB/s")
}

func BenchmarkLinear(b *testing.B) {
	d := open(b, host.Options{})
	for _, s := range [][3]int{{4096, 256, 256}, {4096, 256, 688}, {4096, 688, 256}, {4096, 512, 1376}, {1024, 128, 344}} {
		t, in, out := s[0], s[1], s[2]
		l := gpu.Linear{In: in, Out: out, W: filled(b, d, in*out)}
		x, y, dw := filled(b, d, t*in), filled(b, d, t*out), filled(b, d, in*out)
		name := fmt.Sprintf("%dx%dx%d", t, in, out)
		b.Run("forward/"+name, func(b *testing.B) { report(b, d, func() { d.Linear(y, x, l) }) })
		b.Run("input/"+name, func(b *testing.B) { report(b, d, func() { d.LinearGradInput(x, y, l, false) }) })
		b.Run("weight/"+name, func(b *testing.B) { report(b, d, func() { d.LinearGradWeight(dw, nil, y, x, l) }) })
	}
}

func BenchmarkDecodeLinear(b *testing.B) {
	d := open(b, host.Options{})
	for _, s := range [][2]int{{256, 688}, {512, 32000}} {
		l := gpu.Linear{In: s[0], Out: s[1], W: filled(b, d, s[0]*s[1])}
		x, y := filled(b, d, s[0]), filled(b, d, s[1])
		b.Run(fmt.Sprintf("%dx%d", s[0], s[1]), func(b *testing.B) { report(b, d, func() { d.Linear(y, x, l) }) })
	}
}

func BenchmarkAttention(b *testing.B) {
	d := open(b, host.Options{})
	for _, c := range []struct{ heads, kv, e, length, total int }{
		{4, 2, 64, 512, 4096}, {4, 2, 64, 2048, 4096}, {4, 2, 64, 8192, 8192}, {4, 2, 32, 512, 1024},
	} {
		s := gpu.AttentionShape{Heads: c.heads, KVHeads: c.kv, HeadDim: c.e, Scale: 1 / math.Sqrt(float64(c.e))}
		for n := 0; n <= c.total; n += c.length {
			s.CuSeqlens = append(s.CuSeqlens, int32(n))
		}
		nq, nk := c.total*c.heads*c.e, c.total*c.kv*c.e
		q, k, v, y, lse := filled(b, d, nq), filled(b, d, nk), filled(b, d, nk), filled(b, d, nq), filled(b, d, c.total*c.heads)
		dq, dk, dv, dy := filled(b, d, nq), filled(b, d, nk), filled(b, d, nk), filled(b, d, nq)
		name := fmt.Sprintf("E%d/%dof%d", c.e, c.length, c.total)
		b.Run("forward/"+name, func(b *testing.B) { report(b, d, func() { d.Attention(y, lse, q, k, v, s) }) })
		b.Run("gradient/"+name, func(b *testing.B) {
			report(b, d, func() { d.AttentionGrad(dq, dk, dv, dy, y, lse, q, k, v, s) })
		})
	}
}

func BenchmarkCrossEntropy(b *testing.B) {
	d := open(b, host.Options{})
	for _, s := range [][3]int{{4096, 256, 4096}, {1024, 512, 32000}, {1024, 128, 2048}} {
		t, in, vocab := s[0], s[1], s[2]
		head := gpu.Linear{In: in, Out: vocab, W: filled(b, d, in*vocab)}
		h, dh, dw := filled(b, d, t*in), filled(b, d, t*in), filled(b, d, in*vocab)
		nll, coef, targets := make([]float64, t), make([]float64, t), make([]int32, t)
		for i := range targets {
			targets[i], coef[i] = int32(i%vocab), 1/float64(t)
		}
		b.Run(fmt.Sprintf("%dx%dx%d", t, in, vocab), func(b *testing.B) {
			report(b, d, func() { d.CrossEntropy(nll, dh, dw, h, head, targets, coef) })
		})
	}
}

func BenchmarkElementwise(b *testing.B) {
	d := open(b, host.Options{})
	const t, width, ff = 4096, 256, 688
	gate, up, y, dgate, dup := filled(b, d, t*ff), filled(b, d, t*ff), filled(b, d, t*ff), filled(b, d, t*ff), filled(b, d, t*ff)
	x, z, dx := filled(b, d, t*width), filled(b, d, t*width), filled(b, d, t*width)
	w, dw, rstd := filled(b, d, width), filled(b, d, width), filled(b, d, t)
	m, v, g, p := filled(b, d, 1<<20), filled(b, d, 1<<20), filled(b, d, 1<<20), filled(b, d, 1<<20)
	cos, sin, positions := filled(b, d, t*32), filled(b, d, t*32), make([]int32, t)
	for i := range positions {
		positions[i] = int32(i)
	}
	d.Zero(v)
	for name, op := range map[string]func(){
		"SwiGLU":      func() { d.SwiGLU(y, gate, up) },
		"SwiGLUGrad":  func() { d.SwiGLUGrad(dgate, dup, y, gate, up) },
		"RMSNorm":     func() { d.RMSNorm(z, rstd, x, w, width, 1e-5) },
		"RMSNormGrad": func() { d.RMSNormGrad(dx, dw, z, x, w, rstd, width) },
		"Add":         func() { d.Add(dx, z) },
		"Rope":        func() { d.Rope(x, cos, sin, positions, 4, 64, 64, gpu.RotateHalf, false) },
		"SquaredNorm": func() { d.SquaredNorm(g) },
		"AdamW": func() {
			d.AdamW(p, g, m, v, gpu.AdamW{LR: 1e-4, Beta1: .9, Beta2: .95, Eps: 1e-8, Step: 9, GradScale: 1})
		},
	} {
		b.Run(name, func(b *testing.B) { report(b, d, op) })
	}
}
