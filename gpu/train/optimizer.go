package train

import (
	"fmt"
	"math"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

// optimizer holds AdamW's moments. What rests in host memory goes through the device in chunks, the next one coming while one
// is computed and the last one leaves; the update is elementwise, so that its bits do not depend on that.
type optimizer struct {
	dev    gpu.Device
	model  *llama.Model
	eight  bool
	seed   uint64
	chunk  int
	grads  *flat
	states []*flat // as checkpoints hold them: weights, m, v, and the scales of m and v
	left   [2]gpu.Event
}

// flat is a value for each parameter, or for each block of them.
type flat struct {
	group   string // of tensors in a checkpoint
	rest    gpu.Buffer
	per     int           // parameters a value
	windows [2]gpu.Buffer // on the device, where rest is host memory
	own     bool          // allocated by the optimizer
}

func (f *flat) slice(from, to int) gpu.Buffer { return f.rest.Slice(from/f.per, (to+f.per-1)/f.per) }

// at returns parameters [from, to) on the device.
func (f *flat) at(slot, from, to int) gpu.Buffer {
	if f.windows[slot] == nil {
		return f.slice(from, to)
	}
	return f.windows[slot].Slice(0, (to-from+f.per-1)/f.per)
}

func (f *flat) fetch(dev gpu.Device, slot, from, to int) gpu.Event {
	if f.windows[slot] == nil {
		return nil
	}
	return dev.Transfer(f.at(slot, from, to), f.slice(from, to))
}

func (f *flat) send(dev gpu.Device, slot, from, to int) gpu.Event {
	if f.windows[slot] == nil {
		return nil
	}
	return dev.Transfer(f.slice(from, to), f.at(slot, from, to))
}

func newOptimizer(model *llama.Model, o Options, host bool) (_ *optimizer, err error) {
	a := &optimizer{dev: model.Device(), model: model, eight: o.States == States8Bit, seed: o.Seed, chunk: model.Placement().Chunks()}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	n, t := model.Master().Len(), model.Master().DType()
	window := func(f *flat, host bool) error {
		for i := range f.windows {
			if !host {
				break
			}
			if f.windows[i], err = a.dev.Alloc((min(n, a.chunk)+f.per-1)/f.per, f.rest.DType()); err != nil {
				return fmt.Errorf("a window on the optimizer's state: %w", err)
			}
		}
		return nil
	}
	a.grads = &flat{rest: model.Grads(), per: 1}
	master := &flat{group: "weights/", rest: model.Master(), per: 1}
	a.states = []*flat{master}
	if err := window(a.grads, model.Placement().OffloadGradients); err != nil {
		return nil, err
	}
	if err := window(master, model.Placement().OffloadMaster && model.DType() == gpu.BFloat16); err != nil {
		return nil, err
	}
	for _, s := range momentsOf(a.eight, t) {
		f := &flat{group: s.group, per: s.per, own: true}
		if host {
			f.rest, err = asBuffer(a.dev.AllocHost((n+s.per-1)/s.per, s.dtype))
		} else {
			f.rest, err = a.dev.Alloc((n+s.per-1)/s.per, s.dtype)
		}
		if err != nil {
			return nil, fmt.Errorf("optimizer moments of %d parameters: %w", n, err)
		}
		a.states = append(a.states, f)
		if err := window(f, host); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func asBuffer(b gpu.HostBuffer, err error) (gpu.Buffer, error) {
	if err != nil {
		return nil, err // not a nil HostBuffer, which is no nil Buffer
	}
	return b, nil
}

// moments are what the optimizer keeps of each parameter.
type moments struct {
	group string
	dtype gpu.DType
	per   int
}

func momentsOf(eight bool, wide gpu.DType) []moments {
	if !eight {
		return []moments{{"m/", wide, 1}, {"v/", wide, 1}}
	}
	return []moments{{"m/", gpu.UInt8, 1}, {"v/", gpu.UInt8, 1}, {"m.scale/", gpu.UInt8, gpu.QuantBlock}, {"v.scale/", gpu.UInt8, gpu.QuantBlock}}
}

func (a *optimizer) close() {
	for _, f := range append(a.states, a.grads) {
		if f == nil {
			continue
		}
		for _, w := range f.windows {
			if w != nil {
				a.dev.Free(w)
			}
		}
		if f.own && f.rest != nil {
			a.dev.Free(f.rest)
		}
	}
	a.states, a.grads = nil, nil
}

func (a *optimizer) offloaded() bool {
	for _, f := range append([]*flat{a.grads}, a.states...) {
		if f.windows[0] != nil {
			return true
		}
	}
	return false
}

// norm returns that of the gradient or the weights. It is summed by chunks in order, wherever they lie.
func (a *optimizer) norm(f *flat) float64 {
	n := f.rest.Len()
	span := func(k int) (from, to int) { return k * a.chunk, min((k+1)*a.chunk, n) }
	var sum float64
	var coming gpu.Event
	if from, to := span(0); n > 0 {
		coming = f.fetch(a.dev, 0, from, to)
	}
	for k := 0; k*a.chunk < n; k++ {
		now := coming
		if from, to := span(k + 1); from < n {
			coming = f.fetch(a.dev, (k+1)%2, from, to)
		}
		a.dev.Await(now)
		from, to := span(k)
		sum += a.dev.SquaredNorm(f.at(k%2, from, to))
	}
	return math.Sqrt(sum)
}

// update takes a step with the model's gradient.
func (a *optimizer) update(p gpu.AdamW) error {
	p.Seed = a.seed
	n := a.grads.rest.Len()
	if !a.offloaded() {
		a.adam(0, 0, n, p)
		return a.model.MasterChanged()
	}
	span := func(k int) (from, to int) { return k * a.chunk, min((k+1)*a.chunk, n) }
	var came [2]gpu.Event
	fetch := func(k int) {
		from, to := span(k)
		if from >= n {
			return
		}
		slot := k % 2
		a.dev.Await(a.left[slot])
		for _, f := range append([]*flat{a.grads}, a.states...) {
			if e := f.fetch(a.dev, slot, from, to); e != nil {
				came[slot] = e
			}
		}
	}
	fetch(0)
	for k := 0; k*a.chunk < n; k++ {
		fetch(k + 1)
		from, to := span(k)
		slot := k % 2
		a.dev.Await(came[slot])
		a.adam(slot, from, to, p)
		if master := a.states[0]; master.windows[slot] != nil {
			a.dev.Copy(a.model.Weights().Slice(from, to), master.at(slot, from, to))
		}
		a.left[slot] = nil
		for _, f := range a.states {
			if e := f.send(a.dev, slot, from, to); e != nil {
				a.left[slot] = e
			}
		}
	}
	for i := range a.left {
		a.dev.Await(a.left[i])
		a.left[i] = nil
	}
	if a.states[0].windows[0] == nil {
		return a.model.MasterChanged()
	}
	a.dev.WeightsChanged()
	return nil
}

func (a *optimizer) adam(slot, from, to int, p gpu.AdamW) {
	if to == from {
		return
	}
	at := func(f *flat) gpu.Buffer { return f.at(slot, from, to) }
	if !a.eight {
		a.dev.AdamW(at(a.states[0]), at(a.grads), at(a.states[1]), at(a.states[2]), p)
		return
	}
	p.First = from
	a.dev.AdamW8(at(a.states[0]), at(a.grads), gpu.Quantized{Codes: at(a.states[1]), Scales: at(a.states[3])}, gpu.Quantized{Codes: at(a.states[2]), Scales: at(a.states[4])}, p)
}
