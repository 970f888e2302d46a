package cuda

import (
	"math"

	"github.com/longalign/longalign-go/gpu"
)

// AdamW8 updates w, and m and v in eight bits.
func (d *Device) AdamW8(w, g gpu.Buffer, m, v gpu.Quantized, p gpu.AdamW) {
	o := d.begin("AdamW8")
	defer o.end()
	bw := o.have("w", w)
	bw = o.want("w", w, bw.n, gpu.Float32)
	bg := o.want("g", g, bw.n, gpu.Float32)
	blocks := ceil(bw.n, gpu.QuantBlock)
	mc, vc := o.want("m's codes", m.Codes, bw.n, gpu.UInt8), o.want("v's codes", v.Codes, bw.n, gpu.UInt8)
	ms, vs := o.want("m's scales", m.Scales, blocks, gpu.UInt8), o.want("v's scales", v.Scales, blocks, gpu.UInt8)
	switch {
	case o.failed():
	case p.Step < 1:
		o.refuse("step %d; steps count from 1", p.Step)
	case p.First%gpu.QuantBlock != 0:
		o.refuse("the first element is %d, no multiple of a block's %d", p.First, gpu.QuantBlock)
	}
	t := float64(p.Step)
	o.work(20*float64(bw.n), float64(3*bw.bytes()+4*bw.n))
	wide := aligned(8, bw, bg)
	if mc.address%8 != 0 || vc.address%8 != 0 {
		wide = 0
	}
	launch(o, "adamw8", "", over(ceil(bw.n, 2048)), 256, 0, struct {
		w, g, m, mScales, v, vScales               uint64
		n                                          int64
		seed, first                                uint64
		scale, b1, a1, b2, a2, keep, lr, root, eps float32
		wide                                       int32
	}{
		bw.address, bg.address, mc.address, ms.address, vc.address, vs.address, int64(bw.n),
		p.Seed + uint64(p.Step)*0x9e3779b97f4a7c15, uint64(p.First),
		float32(p.GradScale), float32(p.Beta1), float32(1 - p.Beta1), float32(p.Beta2), float32(1 - p.Beta2),
		float32(1 - p.LR*p.WeightDecay), float32(p.LR / (1 - math.Pow(p.Beta1, t))), float32(1 / math.Sqrt(1-math.Pow(p.Beta2, t))), float32(p.Eps),
		wide,
	})
}
