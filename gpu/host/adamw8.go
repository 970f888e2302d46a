package host

import (
	"fmt"

	"github.com/longalign/longalign-go/gpu"
)

// AdamW8 updates w, and m and v in eight bits.
func (d *Device) AdamW8(w, g gpu.Buffer, m, v gpu.Quantized, p gpu.AdamW) {
	const op = "AdamW8"
	if d.start(op, w, g) == nil {
		return
	}
	d.finish(op, d.adamw8(w.(*Buffer), g.(*Buffer), m, v, p))
	d.wrote(w)
}

// adamw8Job updates parts of whole blocks.
type adamw8Job struct {
	e                                *engine[float32]
	w, g                             []float32
	mCodes, mScales, vCodes, vScales []uint8
	p                                gpu.AdamW
	constants                        adamConstants[float32]
}

func (d *Device) adamw8(w, g *Buffer, m, v gpu.Quantized, p gpu.AdamW) error {
	j := &adamw8Job{e: d.f32, w: w.f32, g: g.f32, p: p}
	n := len(j.w)
	switch {
	case w.dtype != gpu.Float32:
		return fmt.Errorf("w is %v; moments of eight bits are for f32", w.dtype)
	case len(j.g) != n:
		return fmt.Errorf("g has %d elements, not %d", len(j.g), n)
	case p.Step < 1:
		return fmt.Errorf("step %d; steps count from 1", p.Step)
	case p.First%gpu.QuantBlock != 0:
		return fmt.Errorf("the first element is %d, no multiple of a block's %d", p.First, gpu.QuantBlock)
	}
	for _, x := range [...]struct {
		name string
		b    gpu.Buffer
		n    int
		to   *[]uint8
	}{
		{"m's codes", m.Codes, n, &j.mCodes}, {"m's scales", m.Scales, ceil(n, gpu.QuantBlock), &j.mScales},
		{"v's codes", v.Codes, n, &j.vCodes}, {"v's scales", v.Scales, ceil(n, gpu.QuantBlock), &j.vScales},
	} {
		b, ok := x.b.(*Buffer)
		switch {
		case !ok || b == nil:
			return fmt.Errorf("%s: %w", x.name, errNoBuffer)
		case b.freed() || b.home.host:
			return fmt.Errorf("%s were freed, or are host memory", x.name)
		case b.dtype != gpu.UInt8 || len(b.u8) != x.n:
			return fmt.Errorf("%s are %d elements of %v, not %d of u8", x.name, b.Len(), b.dtype, x.n)
		}
		*x.to = b.u8
	}
	j.constants = adamFactors[float32](p)
	d.prof.work(20*float64(n), 16*float64(n))
	d.pool.run(j, ceil(n, sumPart))
	return nil
}

func (j *adamw8Job) part(_, i int) {
	var m, v [gpu.QuantBlock]float32
	for from, end := i*sumPart, min((i+1)*sumPart, len(j.w)); from < end; from += gpu.QuantBlock {
		to, block := min(from+gpu.QuantBlock, end), from/gpu.QuantBlock
		mScale, _ := gpu.ScaleOf(j.mScales[block])
		vScale, _ := gpu.ScaleOf(j.vScales[block])
		for k, c := range j.mCodes[from:to] {
			m[k], v[k] = gpu.Decode8(c)*mScale, gpu.DecodeSecond8(j.vCodes[from+k])*vScale
		}
		n := to - from
		j.e.adam(j.w[from:to], j.g[from:to], m[:n], v[:n], &j.constants)
		var mMost, vMost float32
		for k := range n {
			mMost, vMost = max(mMost, m[k], -m[k]), max(vMost, v[k])
		}
		j.mScales[block], j.vScales[block] = gpu.ScaleCode(mMost), gpu.ScaleCode(vMost)
		_, mInverse := gpu.ScaleOf(j.mScales[block])
		_, vInverse := gpu.ScaleOf(j.vScales[block])
		for k := range n {
			first, second := gpu.Random8(j.p.Seed, j.p.Step, j.p.First+from+k)
			j.mCodes[from+k], j.vCodes[from+k] = gpu.Encode8(m[k]*mInverse, first), gpu.EncodeSecond8(v[k]*vInverse, second)
		}
	}
}
