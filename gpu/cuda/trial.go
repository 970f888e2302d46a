//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"

	"github.com/longalign/longalign-go/gpu"
)

// useHopper decides whether attention runs on Hopper's matrix units: where the card has them and a trial agrees with the kernels
// of every card. LONGALIGN_CUDA_ATTENTION=mma keeps it from trying.
func (d *Device) useHopper() {
	if !d.m.hopper() || os.Getenv("LONGALIGN_CUDA_ATTENTION") == "mma" {
		return
	}
	err := d.tryHopper()
	if err == nil {
		d.hopper = true
		return
	}
	slog.Warn("attention runs on the kernels of every card, not on Hopper's", "why", err)
	var e *Error
	if errors.As(err, &e) && e.Sticky() {
		d.fail("Open", fmt.Errorf("the trial of Hopper's kernels; set LONGALIGN_CUDA_ATTENTION=mma to do without: %w", err))
	}
}

// tryHopper compares both kinds of kernels on a small problem of each width.
func (d *Device) tryHopper() error {
	for _, width := range []int{64, 128} {
		s := gpu.AttentionShape{Heads: 2, KVHeads: 1, HeadDim: width, Scale: 1 / math.Sqrt(float64(width)), Window: 200, CuSeqlens: []int32{0, 70, 71, 400}}
		var want [][]float32
		for _, hopper := range []bool{false, true} {
			got, err := d.trial(s, hopper)
			if err != nil {
				return err
			}
			if !hopper {
				want = got
				continue
			}
			for i, name := range []string{"the output", "log-sum-exp", "dq", "dk", "dv"} {
				if e := distance(got[i], want[i]); !(e < 1e-2) {
					return fmt.Errorf("with heads of %d %s is off by %.2g of its norm", width, name, e)
				}
			}
		}
	}
	return nil
}

// distance is the norm of the difference over the norm of want.
func distance(got, want []float32) float64 {
	var num, den float64
	for i := range want {
		num += math.Pow(float64(got[i])-float64(want[i]), 2)
		den += math.Pow(float64(want[i]), 2)
	}
	return math.Sqrt(num / den)
}

// trial computes attention and its gradient with one kind of kernels on a device of its own over the same card, so that a failure is
// the trial's.
func (d *Device) trial(s gpu.AttentionShape, hopper bool) (results [][]float32, err error) {
	probe := newDevice(d.m)
	probe.hopper, probe.fast = hopper, d.fast
	defer func() {
		for _, b := range probe.temporary {
			d.m.free(b.address)
		}
		for _, l := range probe.lists {
			if l.bytes > 0 {
				d.m.free(l.address)
			}
		}
	}()
	T := int(s.CuSeqlens[len(s.CuSeqlens)-1])
	nq, nk := T*s.Heads*s.HeadDim, T*s.KVHeads*s.HeadDim
	buffer := func(n int, t gpu.DType) gpu.Buffer {
		b, e := probe.Alloc(n, t)
		if err == nil {
			err = e
		}
		return b
	}
	q, k, v, dy := buffer(nq, gpu.BFloat16), buffer(nk, gpu.BFloat16), buffer(nk, gpu.BFloat16), buffer(nq, gpu.BFloat16)
	y, lse := buffer(nq, gpu.BFloat16), buffer(T*s.Heads, gpu.Float32)
	dq, dk, dv := buffer(nq, gpu.BFloat16), buffer(nk, gpu.BFloat16), buffer(nk, gpu.BFloat16)
	all := []gpu.Buffer{q, k, v, dy, y, lse, dq, dk, dv}
	defer func() {
		for _, b := range all {
			if b != nil {
				probe.Free(b)
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	state := uint32(1)
	for _, b := range all[:4] {
		x := make([]float32, b.Len())
		for i := range x {
			state = state*1664525 + 1013904223
			x[i] = float32(int32(state)) / (1 << 30)
		}
		probe.Upload(b, x)
	}
	probe.Attention(y, lse, q, k, v, s)
	probe.AttentionGrad(dq, dk, dv, dy, y, lse, q, k, v, s)
	for _, b := range all[4:] {
		x := make([]float32, b.Len())
		probe.Download(x, b)
		results = append(results, x)
	}
	return results, probe.Sync()
}
