package activities

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
)

// Rehearsal stands in for workers: it looks results up, makes those that cost nothing apart from the store, and
// forecasts the others.
type Rehearsal struct {
	// Device is the one that training and predictions are foretold for.
	Device gpu.Info
	// Say, if not nil, is told what is being made.
	Say func(string)

	a     *Activities
	mu    sync.Mutex
	steps []Foreseen
	// imagined are results that a real run would have, with the model of those that hold one.
	imagined map[artifact.Ref]*llama.Config
	planned  map[artifact.Ref]train.Load // what imagined batches have at most
	calls    map[string]Call             // by key
	speeds   []speed
	measured map[string]float64
}

// Foreseen is one result that a run would use.
type Foreseen struct {
	Stage string       `json:"stage"`
	Cell  string       `json:"cell"` // the first that asks for it
	Ref   artifact.Ref `json:"ref"`
	// Hit says that the store has it. Tried says that it was made, apart from the store, to see what comes of it.
	Hit   bool `json:"hit"`
	Tried bool `json:"tried,omitempty"`
	// Takes says what making it takes: a teacher, a training, a model on a device.
	Takes    string   `json:"takes,omitempty"`
	Forecast Forecast `json:"forecast,omitzero"`
	Problem  string   `json:"problem,omitempty"`
}

// Rehearse begins a rehearsal against the store of a. Close ends it.
func (a *Activities) Rehearse(ctx context.Context) (r *Rehearsal, done func() error, err error) {
	aside, remove, err := a.aside()
	if err != nil {
		return nil, nil, err
	}
	r = &Rehearsal{a: aside, imagined: map[artifact.Ref]*llama.Config{}, planned: map[artifact.Ref]train.Load{}, measured: map[string]float64{}, calls: map[string]Call{}}
	dev, err := a.device(ctx, "auto", "")
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	r.Device = dev.Info()
	dev.Close()
	r.speeds = a.speeds(ctx)
	return r, remove, nil
}

// Foreseen returns what the run would use, in the order it was asked for.
func (r *Rehearsal) Foreseen() []Foreseen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.steps
}

// Calls returns the calls of the run whose action keys are known, by key.
func (r *Rehearsal) Calls() map[string]Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := maps.Clone(r.calls)
	for key, call := range calls {
		call.Key = key
		calls[key] = call
	}
	return calls
}

func (r *Rehearsal) add(f Foreseen) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, f)
}

// unknown tells whether a call builds on a result that is only imagined.
func (r *Rehearsal) unknown(call Call) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, in := range call.Inputs {
		if _, ok := r.imagined[in]; ok {
			return true
		}
	}
	return false
}

// Resolve looks a call up. What builds on results that are not there is not there either.
func (r *Rehearsal) Resolve(ctx context.Context, call Call) (Resolved, error) {
	if r.unknown(call) {
		identity := sha256.Sum256(mustMarshal(Call{Stage: call.Stage, Params: call.Params, Inputs: call.Inputs, Class: call.Class}))
		return Resolved{Key: hex.EncodeToString(identity[:])}, nil
	}
	found, err := r.a.Resolve(ctx, call)
	if err == nil {
		r.mu.Lock()
		r.calls[found.Key] = call
		r.mu.Unlock()
	}
	if err != nil {
		r.add(Foreseen{Stage: call.Stage, Cell: call.Label, Problem: err.Error()})
	} else if found.Hit {
		r.add(Foreseen{Stage: call.Stage, Cell: call.Label, Ref: found.Ref, Hit: true})
	}
	return found, err
}

// Make makes what costs nothing, and imagines the rest.
func (r *Rehearsal) Make(ctx context.Context, call Call) (artifact.Ref, error) {
	f := Foreseen{Stage: call.Stage, Cell: call.Label, Ref: artifact.Ref{Stage: call.Stage, Key: call.Key, Generation: 1}, Takes: Cost(call.Stage, call.Params)}
	unknown := r.unknown(call)
	if f.Takes == "" && !unknown {
		if r.Say != nil {
			r.Say("trying " + call.Stage + " · " + call.Label)
		}
		start := time.Now()
		ref, err := r.a.Run(ctx, call)
		f.Tried, f.Forecast.Seconds = true, time.Since(start).Seconds()
		if err != nil {
			f.Problem = err.Error()
		} else if m, err := r.a.Store.Manifest(ctx, ref); err == nil {
			for _, o := range m.Outputs {
				f.Forecast.DiskBytes += o.Blob.Size
			}
		}
		r.add(f)
		return ref, err
	}
	config, err := r.forecast(ctx, call, &f)
	if err != nil {
		f.Problem = err.Error()
	}
	r.mu.Lock()
	r.imagined[f.Ref] = config
	r.mu.Unlock()
	r.add(f)
	return f.Ref, err
}

// describedClass is the device class in an action's description.
func describedClass(action json.RawMessage) string {
	var d artifact.Action
	if json.Unmarshal(action, &d) != nil {
		return ""
	}
	return d.DeviceClass
}
