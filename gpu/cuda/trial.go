//go:build cuda

package cuda

// #include <cuda.h>
import "C"

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"time"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/cuda/kernels"
)

// trialLimit is when a trial counts as hung; the run-time compiler's time is in it.
var trialLimit = 5 * time.Minute

// Ends of a trial that are the same wherever card and compiler are: the kernels are not used.
var (
	errDisagree    = errors.New("the kernels disagree")
	errNotCompiled = errors.New("the compiler does not take them")
)

// refusals are the driver's answers that say of a kernel or its arguments that they do not fit this card: the same ones come every time.
var refusals = []int{C.CUDA_ERROR_INVALID_VALUE, C.CUDA_ERROR_NO_BINARY_FOR_GPU, C.CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES}

// useHopper decides whether attention runs on Hopper's matrix units: where the card has them and a trial agrees with the kernels
// of every card. LONGALIGN_CUDA_ATTENTION=mma keeps it from trying. What may pass, like memory that ran out, is an error and not a
// reason to compute otherwise: results are promised for a class.
func (d *Device) useHopper() (err error) {
	if !d.m.hopper() || os.Getenv("LONGALIGN_CUDA_ATTENTION") == "mma" {
		return nil
	}
	d.hopper, err = d.passes(false)
	return err
}

// SetFast lets gradients of attention add up in any order on Hopper, which saves two of seven products: results are then no longer
// the same bits from run to run, and Info.Class says so. The default is deterministic. The kernel is tried first; where it disagrees
// the device stays deterministic.
func (d *Device) SetFast(fast bool) (err error) {
	if !fast || !d.hopper {
		d.fast = fast
		return nil
	}
	d.fast, err = d.passes(true)
	return err
}

// passes tries Hopper's kernels. A fault in a trial leaves this process without its card: the error ends the process, and the fault is
// remembered in a file, so that the next process does without these kernels.
func (d *Device) passes(fast bool) (bool, error) {
	known := d.m.(interface{ trials() trials }).trials()
	mode := "deterministic"
	if fast {
		mode = "fast"
	}
	if why := known.fault(mode); why != "" {
		slog.Warn("Hopper's kernels of attention are not used, for they faulted on this card before; remove the file to try again", "mode", mode, "why", why, "file", known.file(mode))
		return false, nil
	}
	ended := make(chan error, 1)
	go func() { ended <- d.tryHopper(fast) }()
	var err error
	select {
	case err = <-ended:
	case <-time.After(trialLimit):
		err = &Error{Kind: TrialFailed, Op: "try Hopper's kernels", Text: fmt.Sprintf("%s mode did not end within %v", mode, trialLimit)}
	}
	var e *Error
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &e) && e.Kind == KernelFailed:
		err = &Error{Kind: TrialFailed, Op: "try Hopper's kernels", Text: fmt.Sprintf("%s mode: %v", mode, err), Code: e.Code}
	case errors.Is(err, errDisagree), errors.Is(err, errNotCompiled), e != nil && slices.Contains(refusals, e.Code):
		slog.Warn("Hopper's kernels of attention are not used", "mode", mode, "why", err)
		return false, nil
	}
	if errors.As(err, &e) && e.Kind == TrialFailed {
		known.remember(mode, err)
		return false, err
	}
	return false, fmt.Errorf("the trial of Hopper's kernels (LONGALIGN_CUDA_ATTENTION=mma does without): %w", err)
}

// trials remembers on disk where Hopper's kernels faulted: by card, driver, compiler and the kernels' text.
type trials struct {
	cache cache
	card  string
}

func (t trials) file(mode string) string {
	parts := []string{"trial", mode, t.card}
	for _, u := range kernels.Units() {
		if u.Hopper() {
			source, _ := sourceOf(u)
			parts = append(parts, source)
		}
	}
	return t.cache.file(parts) + ".fault"
}

// fault returns what went wrong before, "" where nothing is known.
func (t trials) fault(mode string) string {
	if t.cache.dir == "" {
		return ""
	}
	b, _ := os.ReadFile(t.file(mode))
	return string(b)
}

func (t trials) remember(mode string, why error) {
	if t.cache.dir == "" || os.MkdirAll(t.cache.dir, 0o755) != nil || os.WriteFile(t.file(mode), []byte(why.Error()), 0o644) != nil {
		slog.Error("the fault cannot be remembered; set LONGALIGN_CUDA_ATTENTION=mma, or the next process faults too", "folder", t.cache.dir)
	}
}

// tryHopper compares both kinds of kernels on a small problem of each width.
func (d *Device) tryHopper(fast bool) error {
	for _, width := range []int{64, 128} {
		s := gpu.AttentionShape{Heads: 2, KVHeads: 1, HeadDim: width, Scale: 1 / math.Sqrt(float64(width)), Window: 200, CuSeqlens: []int32{0, 70, 71, 400}}
		var want [][]float32
		for _, hopper := range []bool{false, true} {
			got, err := d.trial(s, hopper, fast)
			var e *Error
			if hopper && errors.As(err, &e) && e.Kind == NotCompiled {
				return fmt.Errorf("%w: %w", errNotCompiled, err)
			}
			if err != nil {
				return err
			}
			if !hopper {
				want = got
				continue
			}
			for i, name := range []string{"the output", "log-sum-exp", "dq", "dk", "dv"} {
				if e := distance(got[i], want[i]); !(e < 1e-2) {
					return fmt.Errorf("%w: with heads of %d %s is off by %.2g of its norm", errDisagree, width, name, e)
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
func (d *Device) trial(s gpu.AttentionShape, hopper, fast bool) (results [][]float32, err error) {
	probe := newDevice(d.m)
	probe.hopper, probe.fast = hopper, fast
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
