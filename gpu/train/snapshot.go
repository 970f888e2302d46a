package train

import (
	"maps"
	"slices"
	"sync"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama/safetensors"
)

// lending keeps track of a state on its way into a checkpoint while training goes on. What lies on the device is copied to host
// memory beside the next forward and backward pass; what lies in host memory anyway is lent: the next update, which would change
// it, waits until it was written.
type lending struct {
	mu      sync.Mutex
	spare   []gpu.HostBuffer // for the next snapshot, so that memory is pinned once
	leaving []gpu.Event      // copies under way
	lent    chan struct{}    // closed when the borrower is done; nil when nothing is lent
}

// wait lets the state change.
func (l *lending) wait(dev gpu.Device) error {
	for _, e := range l.leaving {
		dev.Await(e)
	}
	l.leaving = nil
	if l.lent != nil {
		if err := dev.Sync(); err != nil { // the borrower may wait for copies too
			return err
		}
		<-l.lent
		l.lent = nil
	}
	return nil
}

func (l *lending) end(dev gpu.Device) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.spare {
		dev.Free(b)
	}
	l.spare = nil
}

// take returns host memory for copies of flats, the spare one where it fits.
func (l *lending) take(dev gpu.Device, flats []*flat) ([]gpu.HostBuffer, error) {
	l.mu.Lock()
	spare := l.spare
	l.spare = nil
	l.mu.Unlock()
	if len(spare) == len(flats) {
		return spare, nil
	}
	var all []gpu.HostBuffer
	for _, f := range flats {
		b, err := dev.AllocHost(f.rest.Len(), f.rest.DType())
		if err != nil {
			for _, b := range all {
				dev.Free(b)
			}
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

// Snapshot copies the state, so that it can be written while training goes on.
func (t *Trainer) Snapshot() (*State, error) {
	s, err := t.snapshot(false)
	if err != nil {
		return nil, err
	}
	return s, t.dev.Sync()
}

// snapshot copies the state or, with lend, lends what lies in host memory; the copies may still be under way. With lend the
// state must be released from another goroutine than the trainer's.
func (t *Trainer) snapshot(lend bool) (*State, error) {
	cfg, err := t.model.Config().JSON()
	if err != nil {
		return nil, err
	}
	s := &State{Record: Record{
		Version: stateVersion, Step: t.step, Options: t.opts, Inputs: maps.Clone(t.inputs), DeviceClass: t.dev.Info().Class,
		ModelConfig: cfg, Metrics: slices.Clone(t.history),
	}}
	var away []*flat // on the device
	for _, f := range t.adam.states {
		if f.windows[0] == nil {
			away = append(away, f)
		}
	}
	copies, err := t.lent.take(t.dev, away)
	if err != nil {
		return nil, err
	}
	if len(away) < len(t.adam.states) {
		if err := t.dev.Sync(); err != nil { // what the last update sent to host memory has arrived
			return nil, err
		}
	}
	next := 0
	for _, f := range t.adam.states {
		var data []byte
		switch {
		case f.windows[0] == nil:
			e := t.dev.Transfer(copies[next], f.rest)
			s.arriving = append(s.arriving, e)
			t.lent.leaving = append(t.lent.leaving, e)
			data = copies[next].Bytes()
			next++
		case lend:
			data = f.rest.(gpu.HostBuffer).Bytes()
			s.lent = true
		default:
			data = slices.Clone(f.rest.(gpu.HostBuffer).Bytes())
		}
		size := f.rest.DType().Size()
		for _, p := range t.model.Params() {
			from, to := p.Offset()/f.per, (p.Offset()+p.Len()+f.per-1)/f.per
			shape := p.Shape
			if f.per > 1 {
				shape = []int{to - from}
			}
			s.tensors = append(s.tensors, stateTensor{f.group + p.Name, storedTypes[f.rest.DType()], shape, data[from*size : to*size]})
		}
	}
	done := make(chan struct{})
	if s.lent {
		t.lent.lent = done
	}
	s.release = sync.OnceFunc(func() {
		close(done)
		if l := &t.lent; len(copies) > 0 {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.spare = copies
		}
	})
	return s, nil
}

var storedTypes = map[gpu.DType]safetensors.DType{gpu.Float32: safetensors.F32, gpu.Float64: safetensors.F64, gpu.UInt8: safetensors.U8}
