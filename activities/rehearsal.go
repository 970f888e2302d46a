package activities

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
)

// Rehearsal stands in for workers: it looks results up, makes those that cost nothing apart from the store, and
// forecasts the others. It goes on past what would fail, as if that were mended, so that all that is wrong is found at once.
type Rehearsal struct {
	// Device is the one of this machine that training and predictions are foretold for.
	Device gpu.Info
	// Say, if not nil, is told what is being made.
	Say func(string)

	a         *Activities
	device    string // the name by which Device was opened
	mu        sync.Mutex
	described map[string]described // by the name that was asked for
	lacking   []string             // why devices that were asked for are not here
	steps     []Foreseen
	// problems are why the run would fail. broken are results that would not be there, by the problems at their roots.
	problems []Problem
	broken   map[artifact.Ref][]int
	// imagined are results that a real run would have, with the model of those that hold one.
	imagined map[artifact.Ref]*llama.Config
	planned  map[artifact.Ref]train.Load // what imagined batches have at most
	calls    map[string]Call             // by key
	speeds   []speed
	timing   sync.Mutex         // held while a step is timed
	measured map[string]float64 // guarded by timing
}

// described is a device that a result asks for, or Device in its place where this machine cannot open it.
type described struct {
	gpu.Info
	name string // by which it is opened
	here bool
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
	// Blocked says that what it is made from would fail.
	Blocked bool `json:"blocked,omitempty"`
}

// Problem is one thing that a run would fail for.
type Problem struct {
	Stage   string `json:"stage"`
	For     string `json:"for"` // the first cell that asks for the result
	Message string `json:"problem"`
	// Cells are those that would fail for it. Without any, the run's tables would.
	Cells []string `json:"cells,omitempty"`
}

// Rehearse begins a rehearsal against the store of a. Close ends it.
func (a *Activities) Rehearse(ctx context.Context) (r *Rehearsal, done func() error, err error) {
	aside, remove, err := a.aside()
	if err != nil {
		return nil, nil, err
	}
	r = &Rehearsal{a: aside, device: "auto", described: map[string]described{}, broken: map[artifact.Ref][]int{}, imagined: map[artifact.Ref]*llama.Config{}, planned: map[artifact.Ref]train.Load{}, measured: map[string]float64{}, calls: map[string]Call{}}
	dev, err := a.device(ctx, r.device, "")
	if InUse(err) { // by this machine's own worker, maybe
		r.device = "host"
		r.lacking = append(r.lacking, err.Error())
		dev, err = a.device(ctx, r.device, "")
		aside.OpenDevice = func(ctx context.Context, name string) (gpu.Device, error) {
			if name == "auto" {
				name = r.device
			}
			return a.OpenDevice(ctx, name)
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	r.Device = dev.Info()
	dev.Close()
	r.speeds = a.speeds(ctx)
	return r, remove, nil
}

// Describe tells of the device by the name that a result asks for. Where this machine cannot open it, that is Device, and Lacking has
// the reason.
func (r *Rehearsal) Describe(ctx context.Context, name string) gpu.Info {
	return r.describe(ctx, name).Info
}

func (r *Rehearsal) describe(ctx context.Context, name string) described {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d, ok := r.described[name]; ok {
		return d
	}
	d := described{r.Device, r.device, r.device == "auto" || name == r.device}
	if name != "" && name != "auto" && name != r.device {
		dev, err := r.a.device(ctx, name, "")
		if d.here = err == nil; d.here {
			d.Info, d.name = dev.Info(), name
			dev.Close()
		} else if r.device == "auto" || !InUse(err) { // else that is said already
			r.lacking = append(r.lacking, err.Error())
		}
	}
	r.described[name] = d
	return d
}

// Lacking returns why devices that the run asks for could not be looked at on this machine.
func (r *Rehearsal) Lacking() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lacking)
}

// Foreseen returns what the run would use, in the order it was asked for.
func (r *Rehearsal) Foreseen() []Foreseen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.steps
}

// Problems returns what the run would fail for, in the order it was met.
func (r *Rehearsal) Problems() []Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.problems
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

// fails takes down that a result would fail, which f is about, and lets it pass for imagined from then on.
func (r *Rehearsal) fails(f *Foreseen, err error) {
	f.Problem = err.Error()
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		f.Problem = app.Message()
	}
	f.Problem = strings.TrimPrefix(strings.TrimPrefix(f.Problem, "resolve "), f.Stage+": ")
	r.mu.Lock()
	defer r.mu.Unlock()
	root := slices.IndexFunc(r.problems, func(p Problem) bool { return p.Stage == f.Stage && p.Message == f.Problem })
	if root < 0 {
		root = len(r.problems)
		r.problems = append(r.problems, Problem{Stage: f.Stage, For: f.Cell, Message: f.Problem})
	}
	r.broken[f.Ref] = append(r.broken[f.Ref], root)
}

// add takes down what becomes of a call. A result that is not there, made or not, is imagined with the model that it would hold.
func (r *Rehearsal) add(call Call, f Foreseen, imagined bool, config *llama.Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if imagined {
		r.imagined[f.Ref] = config
		for _, role := range slices.Sorted(maps.Keys(call.Inputs)) {
			for _, root := range r.broken[call.Inputs[role]] {
				if f.Blocked = true; !slices.Contains(r.broken[f.Ref], root) {
					r.broken[f.Ref] = append(r.broken[f.Ref], root)
				}
			}
		}
		if call.Stage == "tables" {
			r.blame(call)
		}
	}
	r.steps = append(r.steps, f)
}

// blame tells the problems which cells fail for them, by the results that the tables would be made from.
func (r *Rehearsal) blame(call Call) {
	var p TablesParams
	if json.Unmarshal(call.Params, &p) != nil {
		return
	}
	for _, c := range p.Cells {
		for role, in := range call.Inputs {
			own := role == "checkpoint/"+c.Name || role == "scores/"+c.Name || strings.HasPrefix(role, BenchmarkRole(c.Name, ""))
			for _, root := range r.broken[in] {
				if of := &r.problems[root]; own && !slices.Contains(of.Cells, c.Name) {
					of.Cells = append(of.Cells, c.Name)
				}
			}
		}
	}
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

// Resolve looks a call up. What builds on results that are not there is not there either; its own parameters and files can be looked at.
func (r *Rehearsal) Resolve(ctx context.Context, call Call) (Resolved, error) {
	identity := sha256.Sum256(mustMarshal(Call{Stage: call.Stage, Params: call.Params, Inputs: call.Inputs, Class: call.Class}))
	imagined := Resolved{Key: hex.EncodeToString(identity[:])}
	var found Resolved
	var err error
	unknown := r.unknown(call)
	if unknown {
		found, err = imagined, r.a.check(ctx, call)
	} else {
		found, err = r.a.Resolve(ctx, call)
	}
	switch {
	case ctx.Err() != nil:
		return Resolved{}, ctx.Err()
	case err != nil:
		f := Foreseen{Stage: call.Stage, Cell: call.Label, Ref: artifact.Ref{Stage: call.Stage, Key: imagined.Key, Generation: 1}}
		r.fails(&f, err)
		return imagined, nil // which Make is asked for next
	case unknown:
		return imagined, nil
	}
	r.mu.Lock()
	r.calls[found.Key] = call
	r.mu.Unlock()
	if found.Hit {
		r.add(call, Foreseen{Stage: call.Stage, Cell: call.Label, Ref: found.Ref, Hit: true}, false, nil)
	}
	return found, nil
}

// Make makes what costs nothing, and imagines the rest.
func (r *Rehearsal) Make(ctx context.Context, call Call) (artifact.Ref, error) {
	f := Foreseen{Stage: call.Stage, Cell: call.Label, Ref: artifact.Ref{Stage: call.Stage, Key: call.Key, Generation: 1}, Takes: Cost(call.Stage, call.Params)}
	r.mu.Lock()
	if roots := r.broken[f.Ref]; len(roots) > 0 { // Resolve failed already
		f.Problem = r.problems[roots[0]].Message
	}
	r.mu.Unlock()
	if f.Takes == "" && f.Problem == "" && !r.unknown(call) {
		if r.Say != nil {
			r.Say("trying " + call.Stage + " · " + call.Label)
		}
		start := time.Now()
		ref, err := r.a.Run(ctx, call)
		if ctx.Err() != nil {
			return ref, ctx.Err()
		}
		f.Tried, f.Forecast.Seconds = true, time.Since(start).Seconds()
		if err == nil {
			if m, err := r.a.Store.Manifest(ctx, ref); err == nil {
				for _, o := range m.Outputs {
					f.Forecast.DiskBytes += o.Blob.Size
				}
			}
			r.add(call, f, false, nil)
			return ref, nil
		}
		r.fails(&f, err)
	}
	config, err := r.forecast(ctx, call, &f)
	if ctx.Err() != nil {
		return f.Ref, ctx.Err()
	}
	if err != nil && f.Problem == "" {
		r.fails(&f, err)
	}
	r.add(call, f, true, config)
	return f.Ref, nil
}

// describedClass is the device class in an action's description.
func describedClass(action json.RawMessage) string {
	var d artifact.Action
	if json.Unmarshal(action, &d) != nil {
		return ""
	}
	return d.DeviceClass
}
