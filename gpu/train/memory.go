package train

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

// Load is what a step asks of memory and time.
type Load struct {
	Tokens       int // of the largest micro-batch
	Longest      int // sequence of it; 0: one sequence fills it
	MicroBatches int // a step; 0: one
}

// Memory is a plan: the mode of training and an estimate in bytes of what it takes, on the device (Host… aside) and of host memory.
type Memory struct {
	Recompute Recompute `json:"recompute"`
	Offload   Offload   `json:"offload"`
	States    States    `json:"optimizer_states"`

	Weights     int64 `json:"weights"` // with master weights and the device's packed copies
	Gradients   int64 `json:"gradients"`
	Optimizer   int64 `json:"optimizer"`
	Windows     int64 `json:"windows,omitempty"` // through which the optimizer's state passes
	Activations int64 `json:"activations"`       // of the largest micro-batch, with the tables of positions
	Snapshot    int64 `json:"snapshot"`          // a checkpoint on its way out, in host memory
	Total       int64 `json:"total"`             // on the device
	Available   int64 `json:"available"`         // 0: unknown

	HostWeights     int64 `json:"host_weights,omitempty"` // master weights
	HostGradients   int64 `json:"host_gradients,omitempty"`
	HostOptimizer   int64 `json:"host_optimizer,omitempty"`
	HostActivations int64 `json:"host_activations,omitempty"`
	HostTotal       int64 `json:"host_total,omitempty"` // with the snapshot; 0 where the device computes in host memory
	HostAvailable   int64 `json:"host_available,omitempty"`

	// RelativeTime is that of a step against one that keeps everything on the device, by work and bytes moved alone.
	RelativeTime float64 `json:"relative_time"`
}

// Fits reports whether the plan fits into what is available, as far as that is known.
func (m Memory) Fits() bool {
	return (m.Available <= 0 || m.Total <= m.Available) && (m.HostAvailable <= 0 || m.HostTotal <= m.HostAvailable-hostReserve)
}

// String says the mode and its sums.
func (m Memory) String() string {
	s := fmt.Sprintf("recompute %s, offload %s, optimizer states %s: %.2f GiB on the device", m.Recompute, m.Offload, m.States, float64(m.Total)/(1<<30))
	if m.HostTotal > 0 {
		s += fmt.Sprintf(", %.2f GiB of host memory", float64(m.HostTotal)/(1<<30))
	}
	return s
}

// OnDevice returns n, of host memory, where the device computes in it, else 0.
func (m Memory) OnDevice(n int64) int64 {
	if m.HostTotal > 0 {
		return 0
	}
	return n
}

// Apply returns o in the plan's mode.
func (m Memory) Apply(o Options) Options {
	o.Recompute, o.Offload = m.Recompute, m.Offload
	return o
}

// hostReserve is left to the system: buffers of files on their way out, this program itself.
const hostReserve = 4 << 30

// Rates by which modes are compared: half of an H100's peak in bfloat16, and a direction of its bus. A card with other rates in
// about the same proportion gets the same order.
const (
	assumedFLOPS = 4e14
	assumedBus   = 4e10
)

// EstimateMemory returns the plan of the mode that opts ask for; what they leave to the plan counts as none.
func EstimateMemory(c *llama.Config, opts Options, load Load, info gpu.Info) (Memory, error) {
	dtype, err := ParseDType(opts.DType)
	if err != nil {
		return Memory{}, err
	}
	if load.Longest <= 0 || load.Longest > load.Tokens {
		load.Longest = load.Tokens
	}
	load.MicroBatches = max(1, load.MicroBatches)
	place, moments := opts.placement()
	f := llama.MemoryPlan(c, dtype, place, load.Longest)
	t, wide := int64(load.Tokens), int64(max(4, dtype.Size()))
	m := Memory{
		Recompute: opts.Recompute, Offload: opts.Offload, States: cmp.Or(opts.States, StatesF32),
		Weights: f.Weights.Device + f.Master.Device, HostWeights: f.Master.Host,
		Gradients: f.Gradients.Device, HostGradients: f.Gradients.Host,
		Activations: f.Activations.Device*t + f.Tables.Device, HostActivations: f.Activations.Host * t,
		Available: info.Memory, HostAvailable: info.HostMemory,
	}
	if m.Recompute == RecomputeAuto {
		m.Recompute = RecomputeNone
	}
	if m.Offload == "" || m.Offload == OffloadAuto {
		m.Offload = OffloadNone
	}
	window := min(f.Params, int64(place.Chunks()))
	if f.Gradients.Host > 0 {
		m.Windows += 2 * window * wide
	}
	if f.Master.Host > 0 {
		m.Windows += 2 * window * wide
	} else {
		m.Snapshot += f.Params * wide
	}
	for _, s := range momentsOf(opts.States == States8Bit, map[bool]gpu.DType{true: gpu.Float64, false: gpu.Float32}[dtype == gpu.Float64]) {
		bytes := (f.Params + int64(s.per) - 1) / int64(s.per) * int64(s.dtype.Size())
		if moments {
			m.HostOptimizer += bytes
			m.Windows += 2 * ((window + int64(s.per) - 1) / int64(s.per)) * int64(s.dtype.Size())
		} else {
			m.Optimizer += bytes
			m.Snapshot += bytes
		}
	}
	if info.Kind == "host" {
		m.Weights += 2 * f.Weights.Device // packed for products with the weight and with its transpose
	}
	m.Total = m.Weights + m.Gradients + m.Optimizer + m.Windows + m.Activations
	m.HostTotal = m.HostWeights + m.HostGradients + m.HostOptimizer + m.HostActivations + m.Snapshot
	if info.Kind == "host" {
		m.Total, m.HostTotal = m.Total+m.HostTotal, 0
	}
	m.RelativeTime = relativeTime(c, opts, load, f, m)
	return m, nil
}

// relativeTime counts work against work, and bytes that are not hidden behind it.
func relativeTime(c *llama.Config, opts Options, load Load, f llama.Footprint, m Memory) float64 {
	t := float64(load.Tokens)
	width := float64(c.Heads * c.HeadDim)
	linear := 2 * t * float64(c.Hidden) * (2*width + 2*float64(c.KVHeads*c.HeadDim) + 3*float64(c.FeedForward)) * float64(c.Layers)
	attention := 2 * t * float64(load.Longest) * width * float64(c.Layers)
	head := 2 * t * float64(c.Hidden) * float64(c.Vocab)
	base := 3*(linear+head) + 3.5*attention
	work := base
	switch m.Recompute {
	case RecomputeSelective:
		work += linear * (1 - float64(c.FeedForward)/(3*float64(c.FeedForward)+4*width))
	case RecomputeLayer:
		work += linear*(1-float64(c.FeedForward)/(3*float64(c.FeedForward)+4*width)) + attention
	}
	micro := float64(load.MicroBatches)
	// Half of what leaves in the forward pass returns in the backward pass; both run beside the work, and cost a little of it.
	hidden := (float64(m.HostActivations) + 2*float64(m.HostGradients)) / assumedBus
	seconds := micro * (max(work/assumedFLOPS, hidden) + 0.01*hidden)
	// The update waits for its bytes, in both directions at once.
	seconds += (float64(m.HostOptimizer+m.HostWeights) + 2*float64(m.HostGradients)) / assumedBus
	return seconds / (micro * base / assumedFLOPS)
}

// MemoryError refuses a run that does not fit, before it starts.
type MemoryError struct {
	Memory
	Tokens  int
	Advices []string
}

func (e *MemoryError) Error() string {
	gib := func(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
	s := fmt.Sprintf("training with recompute: %s and offload: %s needs about %s on the device (weights %s, gradients %s, optimizer %s, activations of %d tokens %s), which has %s",
		e.Recompute, e.Offload, gib(e.Total), gib(e.Weights), gib(e.Gradients), gib(e.Optimizer+e.Windows), e.Tokens, gib(e.Activations), gib(e.Available))
	if e.HostTotal > 0 && e.HostAvailable > 0 {
		s += fmt.Sprintf(", and %s of host memory (weights %s, gradients %s, optimizer %s, activations %s, a checkpoint %s), which has %s to give",
			gib(e.HostTotal), gib(e.HostWeights), gib(e.HostGradients), gib(e.HostOptimizer), gib(e.HostActivations), gib(e.Snapshot), gib(e.HostAvailable-hostReserve))
	}
	return s + "; " + strings.Join(e.Advices, ", or ")
}

// plans returns every mode that opts allow, the fastest first.
func plans(c *llama.Config, opts Options, load Load, info gpu.Info) ([]Memory, error) {
	recomputes, offloads := []Recompute{opts.Recompute}, []Offload{opts.Offload}
	if opts.Recompute == RecomputeAuto {
		recomputes = []Recompute{RecomputeNone, RecomputeSelective, RecomputeLayer}
	}
	if opts.Offload == OffloadAuto || opts.Offload == "" {
		offloads = []Offload{OffloadNone}
		if info.Kind != "host" { // whose memory is that of the device
			for _, set := range []string{"activations", "optimizer", "activations,optimizer", "gradients", "gradients,activations", "gradients,optimizer", "gradients,activations,optimizer"} {
				offloads = append(offloads, Offload(set))
			}
		}
	}
	var all []Memory
	for _, r := range recomputes {
		for _, o := range offloads {
			opts.Recompute, opts.Offload = r, o
			m, err := EstimateMemory(c, opts, load, info)
			if err != nil {
				return nil, err
			}
			all = append(all, m)
		}
	}
	slices.SortStableFunc(all, func(a, b Memory) int { return cmp.Compare(a.RelativeTime, b.RelativeTime) })
	return all, nil
}

// PlanMemory returns the fastest mode among those that opts allow which fits, or a *MemoryError about the one that comes nearest,
// with what to change.
func PlanMemory(c *llama.Config, opts Options, load Load, info gpu.Info) (Memory, error) {
	all, err := plans(c, opts, load, info)
	if err != nil {
		return Memory{}, err
	}
	for _, m := range all {
		if m.Fits() {
			return m, nil
		}
	}
	over := func(m Memory) int64 {
		n := max(0, m.Total-m.Available)
		if m.HostAvailable > 0 {
			n += max(0, m.HostTotal-(m.HostAvailable-hostReserve))
		}
		return n
	}
	nearest := slices.MinFunc(all, func(a, b Memory) int { return cmp.Compare(over(a), over(b)) })
	e := &MemoryError{Memory: nearest, Tokens: load.Tokens}
	e.Advices = advices(c, opts, load, info, nearest)
	return nearest, e
}

// advices say what to change so that a run fits.
func advices(c *llama.Config, opts Options, load Load, info gpu.Info, m Memory) (out []string) {
	fits := func(o Options, l Load) (Memory, bool) {
		all, err := plans(c, o, l, info)
		if err != nil {
			return Memory{}, false
		}
		i := slices.IndexFunc(all, Memory.Fits)
		if i < 0 {
			return Memory{}, false
		}
		return all[i], true
	}
	free := opts
	free.Recompute, free.Offload = RecomputeAuto, OffloadAuto
	if with, ok := fits(free, load); ok {
		out = append(out, fmt.Sprintf("set recompute: %s and offload: %s", with.Recompute, with.Offload))
	}
	if eight := free; opts.States != States8Bit && opts.DType != "f64" && opts.Beta2 <= most8BitBeta2 {
		eight.States = States8Bit
		if with, ok := fits(eight, load); ok && len(out) == 0 {
			out = append(out, fmt.Sprintf("set optimizer_states: 8bit (other results; recompute: %s, offload: %s)", with.Recompute, with.Offload))
		}
	}
	// The longest micro-batch that fits, in the modes that were asked for.
	low, high := 0, load.Tokens
	for high-low > max(1, load.Tokens/1024) {
		l, middle := load, (low+high)/2
		l.Tokens, l.Longest = middle, min(load.Longest, middle)
		if _, ok := fits(opts, l); ok {
			low = middle
		} else {
			high = middle
		}
	}
	if low > 0 {
		return append(out, fmt.Sprintf("use micro-batches of at most %d tokens", low))
	}
	if len(out) > 0 {
		return out
	}
	// A mode whose share of the device's memory is there, and which takes the least of the host's.
	room := info
	room.HostMemory = 0 // unknown
	if all, err := plans(c, free, load, room); err == nil {
		all = slices.DeleteFunc(all, func(m Memory) bool { return !m.Fits() })
		if len(all) > 0 {
			least := slices.MinFunc(all, func(a, b Memory) int { return cmp.Compare(a.HostTotal, b.HostTotal) })
			return []string{fmt.Sprintf("use a machine that can give %.1f GiB of host memory (recompute: %s, offload: %s), or a smaller model",
				float64(least.HostTotal+hostReserve)/(1<<30), least.Recompute, least.Offload)}
		}
	}
	return []string{"use a smaller model or a device with more memory: weights, gradients and optimizer states alone do not fit"}
}
