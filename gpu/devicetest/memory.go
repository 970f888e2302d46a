package devicetest

import (
	"math"
	"slices"
	"sort"
	"testing"

	"github.com/longalign/longalign-go/gpu"
)

// transfers checks that host memory holds what it is given, and that transfers keep their order with operations.
func (s *suite) transfers(t *testing.T) {
	b := s.bench(t)
	const n = 3000
	x, y := b.normal(n, 1), b.normal(n, 1)
	h, err := b.AllocHost(n, s.dtype)
	if err != nil {
		t.Fatal(err)
	}
	b.near("fresh host memory", h, make(matrix, n), 0)
	if len(h.Bytes()) != n*s.dtype.Size() {
		t.Errorf("%d bytes hold %d elements of %v", len(h.Bytes()), n, s.dtype)
	}
	b.Upload64(h, x)
	b.near("host memory", h, x, 0)
	b.near("a slice of host memory", h.Slice(5, 9), x[5:9], 0)

	in, d := b.empty(n), b.buffer(y)
	b.Await(b.Transfer(in, h))
	b.Add(d, in) // what arrived
	b.Add(in, in)
	out := b.Transfer(h.Slice(0, n/2), in.Slice(0, n/2))
	b.Await(out)
	b.Zero(in) // the transfer is awaited, so that it has what was there before
	if err := out.Wait(); err != nil {
		t.Fatal(err)
	}
	for i := range n / 2 {
		x[i] *= 2
	}
	b.near("what was sent out", h, x, 0)
	sum := make(matrix, n)
	for i := range sum {
		sum[i] = x[i] + y[i]
		if i < n/2 {
			sum[i] = x[i]/2 + y[i]
		}
	}
	b.near("what was computed from it", d, sum, s.tolerance())
	b.Zero(h)
	b.near("cleared host memory", h, make(matrix, n), 0)
	b.Await(nil)

	codes, err := b.AllocHost(5, gpu.UInt8)
	if err != nil {
		t.Fatal(err)
	}
	want := matrix{0, 1, 127, 128, 255}
	b.Upload64(codes, want)
	onDevice, err := b.Alloc(5, gpu.UInt8)
	if err != nil {
		t.Fatal(err)
	}
	b.Await(b.Transfer(onDevice, codes))
	b.near("codes", onDevice, want, 0)
	b.Free(codes)
	b.Free(h)
	if err := b.Sync(); err != nil {
		t.Error(err)
	}
}

// codeTable is the values of the codes of a moment, rising.
func codeTable(n int, decode func(uint8) float32) []float64 {
	var values []float64
	for c := range n {
		values = append(values, float64(decode(uint8(c))))
	}
	return values
}

// adamw8 checks an update in eight bits: the weights are AdamW's, every moment became one of its two neighbours among the codes,
// on average it kept its value, and a part of the model is updated as the whole is.
func (s *suite) adamw8(t *testing.T) {
	if s.dtype == gpu.Float64 {
		t.Skip("moments of eight bits go with float32 weights")
	}
	first, second := codeTable(128, gpu.Decode8), codeTable(256, gpu.DecodeSecond8)
	if !sort.Float64sAreSorted(first) || !sort.Float64sAreSorted(second) {
		t.Fatal("codes are not in the order of their values")
	}
	for _, n := range []int{1, 64, 1000, 20013} {
		b := s.bench(t)
		b.dtype = gpu.Float32
		bytes := func(n int) gpu.Buffer {
			x, err := b.Alloc(n, gpu.UInt8)
			if err != nil {
				t.Fatal(err)
			}
			return x
		}
		blocks := (n + gpu.QuantBlock - 1) / gpu.QuantBlock
		w, g := b.normal(n, 1), b.normal(n, 1)
		for i := range g {
			g[i] = float64(float32(g[i] * math.Exp2(-float64(i%23)))) // a wide range within a block
			if i%29 == 0 {
				g[i] = 0
			}
		}
		bw, whole, bg := b.buffer(w), b.buffer(w), b.buffer(g)
		m, v := gpu.Quantized{Codes: bytes(n), Scales: bytes(blocks)}, gpu.Quantized{Codes: bytes(n), Scales: bytes(blocks)}
		m2, v2 := gpu.Quantized{Codes: bytes(n), Scales: bytes(blocks)}, gpu.Quantized{Codes: bytes(n), Scales: bytes(blocks)}
		decoded := func(q gpu.Quantized, decode func(uint8) float32) (values, scales matrix) {
			codes, s := b.read(q.Codes), b.read(q.Scales)
			for i, c := range codes {
				scale, _ := gpu.ScaleOf(uint8(s[i/gpu.QuantBlock]))
				values, scales = append(values, float64(decode(uint8(c))*scale)), append(scales, float64(scale))
			}
			return values, scales
		}
		var error1, error2, count float64
		for step := 1; step <= 3; step++ {
			p := gpu.AdamW{LR: 0.01, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1, Step: step, GradScale: 0.5, Seed: 7}
			want := slices.Clone(w)
			wantM, _ := decoded(m, gpu.Decode8)
			wantV, _ := decoded(v, gpu.DecodeSecond8)
			refAdamW(want, g, wantM, wantV, p)
			b.AdamW8(whole, bg, m2, v2, p)
			if cut := min(n, 128); cut > 0 { // in two parts
				at := cut / gpu.QuantBlock
				part := func(q gpu.Quantized, from, to, fromBlock, toBlock int) gpu.Quantized {
					return gpu.Quantized{Codes: q.Codes.Slice(from, to), Scales: q.Scales.Slice(fromBlock, toBlock)}
				}
				if cut%gpu.QuantBlock != 0 {
					at = blocks
				}
				b.AdamW8(bw.Slice(0, cut), bg.Slice(0, cut), part(m, 0, cut, 0, at), part(v, 0, cut, 0, at), p)
				p.First = cut
				if cut < n {
					b.AdamW8(bw.Slice(cut, n), bg.Slice(cut, n), part(m, cut, n, at, blocks), part(v, cut, n, at, blocks), p)
				}
			}
			b.near("w", bw, want, s.tolerance())
			w = b.read(bw)
			gotM, mScale := decoded(m, gpu.Decode8)
			gotV, vScale := decoded(v, gpu.DecodeSecond8)
			for i := range w {
				for _, c := range []struct {
					name             string
					got, want, scale float64
					table            []float64
					sum              *float64
				}{{"m", math.Abs(gotM[i]), math.Abs(wantM[i]), mScale[i], first, &error1}, {"v", gotV[i], wantV[i], vScale[i], second, &error2}} {
					if c.want == 0 || c.scale == 0 {
						if c.got != 0 {
							t.Fatalf("step %d: %s[%d] of zero became %g", step, c.name, i, c.got)
						}
						continue
					}
					x := c.want / c.scale
					at := max(1, min(sort.SearchFloat64s(c.table, x), len(c.table)-1))
					low, high := c.table[at-1], c.table[at]
					slack := 1e-5 * x
					if q := c.got / c.scale; q < low-slack && (at < 2 || q != c.table[at-2] || x-low > slack) || q > high+slack && (at+1 == len(c.table) || q != c.table[at+1] || high-x > slack) {
						t.Fatalf("step %d: %s[%d] = %g became %g, not one of %g and %g", step, c.name, i, x, q, low, high)
					}
					if c.name == "v" && c.got == 0 {
						t.Fatalf("step %d: v[%d] = %g became zero", step, i, c.want)
					}
					if at > 1 { // below the first code above zero a second moment is always rounded up
						*c.sum += (c.got/c.scale - x) / (high - low)
					}
				}
				count++
			}
			if !slices.Equal(b.read(whole), w) || !slices.Equal(b.read(m2.Codes), b.read(m.Codes)) || !slices.Equal(b.read(v2.Scales), b.read(v.Scales)) {
				t.Fatal("an update in parts differs from one of the whole")
			}
		}
		// Each error is below one gap and their standard deviation below a half: four of those of the mean.
		if limit := 2 / math.Sqrt(count); n > 10000 && (math.Abs(error1/count) > limit || math.Abs(error2/count) > limit) {
			t.Errorf("rounding is off by %g and %g gaps on average", error1/count, error2/count)
		}
	}
}
