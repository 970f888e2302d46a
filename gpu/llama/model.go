package llama

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"

	"github.com/longalign/longalign-go/gpu"
)

// Model is a LLaMA-type model on a device.
type Model struct {
	cfg   *Config
	dev   gpu.Device
	dtype gpu.DType

	plan    *plan
	layers  []layer
	embed   weight
	final   weight
	head    linear
	weights gpu.Buffer // all parameters, in the order of plan.params
	grads   gpu.Buffer // same layout; nil until the model trains
	master  gpu.Buffer // float32 weights behind bfloat16 ones; nil otherwise

	placement Placement
	windows   *windows // gradients on the device, where grads is host memory
	rope      ropeTable
	train     *workspace
	eval      *workspace
	dir       string // where it was loaded from; "" for a model made from nothing
	files     *files // how the model was stored, so that saving gives the same files
}

type weight struct{ w, g gpu.Buffer }

type linear struct {
	gpu.Linear
	gw, gb gpu.Buffer
}

type layer struct {
	norm1, norm2, qNorm, kNorm weight
	q, k, v, o                 linear
	gate, up, down             linear
}

// accumulatorType is the type of gradients, statistics and tables: never below float32.
func accumulatorType(t gpu.DType) gpu.DType {
	if t == gpu.Float64 {
		return gpu.Float64
	}
	return gpu.Float32
}

// newModel allocates a model with all weights zero.
func newModel(c *Config, dev gpu.Device, dtype gpu.DType) (*Model, error) {
	if !dev.Supports(dtype) {
		var can []string
		for _, t := range []gpu.DType{gpu.Float32, gpu.BFloat16, gpu.Float64} {
			if dev.Supports(t) {
				can = append(can, t.String())
			}
		}
		return nil, fmt.Errorf("the %s device does not compute in %s; choose %s (weights stored in any type are read and written all the same)", dev.Info().Kind, dtype, strings.Join(can, " or "))
	}
	m := &Model{cfg: c, dev: dev, dtype: dtype, plan: newPlan(c)}
	m.rope = ropeTable{cfg: c, dev: dev, dtype: accumulatorType(dtype), blocks: map[int]int{}}
	var err error
	if m.weights, err = dev.Alloc(m.plan.size, dtype); err != nil {
		return nil, fmt.Errorf("weights of %d parameters in %s: %w", m.plan.size, dtype, err)
	}
	m.bind()
	return m, nil
}

// New returns a model with random weights: normal with the config's initializer_range, biases 0, norms 1. A tensor's
// weights depend on the seed and its place in the model, not on the device.
func New(c *Config, dev gpu.Device, dtype gpu.DType, seed uint64) (*Model, error) {
	m, err := newModel(c, dev, dtype)
	if err != nil {
		return nil, err
	}
	// Each parameter has a generator of its own, so that some are made side by side: a large model spends most of its beginning here.
	made := make([]chan []float32, len(m.plan.params))
	room := make(chan struct{}, min(8, runtime.GOMAXPROCS(0)))
	for i := range made {
		made[i] = make(chan []float32, 1)
	}
	go func() {
		for i, p := range m.plan.params {
			room <- struct{}{}
			go func() { made[i] <- p.initial(c.InitStd, rand.New(rand.NewPCG(seed, uint64(i)))) }()
		}
	}()
	for i := range m.plan.params {
		dev.Upload(m.paramView(m.weights, i), <-made[i])
		<-room
	}
	if err := dev.Sync(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// initial returns a parameter's first values.
func (p Param) initial(std float64, r *rand.Rand) []float32 {
	x := make([]float32, p.Len())
	for j := range x {
		switch p.init {
		case initNormal:
			x[j] = float32(r.NormFloat64() * std)
		case initOne:
			x[j] = 1
		}
	}
	return x
}

// bind points the layers at the flat buffers.
func (m *Model) bind() {
	p, c := m.plan, m.cfg
	w := func(t part) weight { return weight{p.view(m.weights, t), m.gradView(t)} }
	lin := func(in, out int, t, bias part) linear {
		return linear{
			Linear: gpu.Linear{In: in, Out: out, W: p.view(m.weights, t), Bias: p.view(m.weights, bias)},
			gw:     m.gradView(t), gb: m.gradView(bias),
		}
	}
	d, hq, hk, f := c.Hidden, c.Heads*c.HeadDim, c.KVHeads*c.HeadDim, c.FeedForward
	m.layers = make([]layer, len(p.layers))
	for i, b := range p.layers {
		m.layers[i] = layer{
			norm1: w(b.norm1), norm2: w(b.norm2), qNorm: w(b.qNorm), kNorm: w(b.kNorm),
			q: lin(d, hq, b.q, b.qBias), k: lin(d, hk, b.k, b.kBias), v: lin(d, hk, b.v, b.vBias), o: lin(hq, d, b.o, b.oBias),
			gate: lin(d, f, b.gate, b.gateBias), up: lin(d, f, b.up, b.upBias), down: lin(f, d, b.down, b.downBias),
		}
	}
	m.embed, m.final = w(p.embed), w(p.final)
	m.head = lin(d, c.Vocab, p.head, absent)
	for i := range p.params {
		p.params[i].Weight = m.paramView(m.weights, i)
		p.params[i].Grad = m.paramView(m.grads, i)
	}
}

func (m *Model) paramView(flat gpu.Buffer, i int) gpu.Buffer {
	if flat == nil {
		return nil
	}
	p := &m.plan.params[i]
	return flat.Slice(p.offset, p.offset+p.Len())
}

// EnableTraining allocates gradients and, for bfloat16, float32 master weights, where p says. A model that trains already
// can change what it keeps of the forward pass, but not where its gradients and master weights lie. What fails frees what it took.
func (m *Model) EnableTraining(p Placement) (err error) {
	if m.placement.Keep != p.Keep || m.placement.OffloadActivations != p.OffloadActivations {
		m.train.free()
		m.train = nil
	}
	was := m.placement
	m.placement = p
	if m.grads != nil {
		if was.OffloadGradients != p.OffloadGradients || was.OffloadMaster != p.OffloadMaster {
			m.placement = was
			return errors.New("the model trains already, with its gradients or master weights in other memory")
		}
		return nil
	}
	defer func() {
		if err != nil {
			m.DisableTraining()
		}
	}()
	if m.grads, err = m.allocIn(p.OffloadGradients, accumulatorType(m.dtype)); err != nil {
		return fmt.Errorf("gradients of %d parameters: %w", m.plan.size, err)
	}
	if p.OffloadGradients {
		if m.windows, err = m.newWindows(); err != nil {
			return fmt.Errorf("gradients of two layers: %w", err)
		}
	}
	if m.dtype == gpu.BFloat16 {
		if m.master, err = m.allocIn(p.OffloadMaster, gpu.Float32); err != nil {
			return fmt.Errorf("float32 master weights of %d parameters: %w", m.plan.size, err)
		}
		if err := m.fillMaster(); err != nil {
			return err
		}
	}
	m.bind()
	return m.dev.Sync()
}

// allocIn allocates a flat buffer on the device or in host memory.
func (m *Model) allocIn(host bool, t gpu.DType) (gpu.Buffer, error) {
	if !host {
		return m.dev.Alloc(m.plan.size, t)
	}
	b, err := m.dev.AllocHost(m.plan.size, t)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// DisableTraining frees gradients, master weights and activations. Training steps since the model was loaded are lost in a
// bfloat16 model but for their rounded weights.
func (m *Model) DisableTraining() {
	m.train.free()
	m.train = nil
	m.windows.free(m.dev)
	m.windows = nil
	for _, b := range []gpu.Buffer{m.grads, m.master} {
		if b != nil {
			m.dev.Free(b)
		}
	}
	m.grads, m.master = nil, nil
	m.bind()
}

// fillMaster gives the master weights the precision of the files, which bfloat16 weights have lost.
func (m *Model) fillMaster() error {
	if m.dir != "" {
		return m.read(m.dir, m.master)
	}
	if !m.placement.OffloadMaster {
		m.dev.Copy(m.master, m.weights)
		return nil
	}
	return m.eachChunk(func(window, rest, weights gpu.Buffer) {
		m.dev.Copy(window, weights)
		m.dev.Await(m.dev.Transfer(rest, window))
	})
}

// Config returns the model's configuration. It must not be changed.
func (m *Model) Config() *Config { return m.cfg }

// Device returns the device that holds the model.
func (m *Model) Device() gpu.Device { return m.dev }

// DType returns the type that the model computes in.
func (m *Model) DType() gpu.DType { return m.dtype }

// Params returns the parameters in Hugging Face's order. It must not be changed.
func (m *Model) Params() []Param { return m.plan.params }

// NumParams returns the number of parameters.
func (m *Model) NumParams() int {
	return m.plan.count()
}

// Grads returns the flat gradient, nil unless the model trains. In host memory it is whole after LossAndGrad, not after ZeroGrad.
func (m *Model) Grads() gpu.Buffer { return m.grads }

// Master returns the flat weights that an optimizer updates: float32 where the model computes in bfloat16,
// else the weights themselves. Params give each tensor's place by Offset.
func (m *Model) Master() gpu.Buffer {
	if m.master != nil {
		return m.master
	}
	return m.weights
}

// Offset returns where the parameter begins in the flat buffers.
func (p Param) Offset() int { return p.offset }

// MasterChanged brings the computing weights up to date after Master was written.
func (m *Model) MasterChanged() error {
	defer m.dev.WeightsChanged()
	switch {
	case m.master == nil:
	case m.placement.OffloadMaster:
		return m.eachChunk(func(window, rest, weights gpu.Buffer) {
			m.dev.Await(m.dev.Transfer(window, rest))
			m.dev.Copy(weights, window)
		})
	default:
		m.dev.Copy(m.weights, m.master)
	}
	return nil
}

// Weights returns the flat weights that the model computes with.
func (m *Model) Weights() gpu.Buffer { return m.weights }

// Placement returns where the model's training memory lies.
func (m *Model) Placement() Placement { return m.placement }

// ZeroGrad clears the gradient.
func (m *Model) ZeroGrad() {
	if m.windows == nil {
		m.dev.Zero(m.grads)
		return
	}
	// Host memory is written as a whole by the next micro-batch.
	m.windows.fresh = true
	m.dev.Zero(m.windows.before)
	m.dev.Zero(m.windows.behind)
}

// Close frees the model's device memory.
func (m *Model) Close() {
	m.train.free()
	m.eval.free()
	m.train, m.eval = nil, nil
	m.windows.free(m.dev)
	m.windows = nil
	m.rope.free()
	for _, b := range []gpu.Buffer{m.weights, m.grads, m.master} {
		if b != nil {
			m.dev.Free(b)
		}
	}
	m.weights, m.grads, m.master = nil, nil, nil
	m.layers = nil
}
