package llama

import (
	"fmt"

	"github.com/longalign/longalign-go/gpu"
)

// Keep names what of the forward pass is kept for the backward pass. What is not kept is computed again, to the same bits.
type Keep uint8

// What to keep, from most memory to least.
const (
	KeepAll       Keep = iota // everything but norms and SwiGLU
	KeepAttention             // each layer's input and what its attention gave: what grows with the square of the length is not repeated
	KeepInputs                // each layer's input
)

// Placement says which memory training takes and where it lies. No bit of a result depends on it.
type Placement struct {
	Keep Keep
	// What lies in host memory instead of on the device: activations of all layers but two, gradients of all layers but two,
	// and the float32 weights behind bfloat16 ones.
	OffloadActivations, OffloadGradients, OffloadMaster bool
	// Chunk is how many parameters move at a time where the whole of them does; 0 is DefaultChunk.
	Chunk int
}

// DefaultChunk is 128 MiB of float32: transfers of that size are as fast as the bus.
const DefaultChunk = 1 << 25

// Chunks returns the parameters that move at a time.
func (p Placement) Chunks() int {
	if p.Chunk > 0 {
		return p.Chunk
	}
	return DefaultChunk
}

// Use is bytes on the device and of host memory.
type Use struct{ Device, Host int64 }

// Footprint is the memory of a model in training, without its optimizer's moments.
type Footprint struct {
	Count              int64 // parameters
	Params             int64 // elements of a flat buffer, gaps included
	Weights, Gradients Use
	Master             Use // float32 weights behind bfloat16 ones
	Activations        Use // a token of the largest micro-batch
	Tables             Use // of rotary positions
}

// MemoryPlan returns the memory that training a model of config c takes, before anything is allocated: it walks the lists that
// the model allocates by. Longest is the longest sequence.
func MemoryPlan(c *Config, dtype gpu.DType, p Placement, longest int) Footprint {
	list := newPlan(c)
	wide := int64(accumulatorType(dtype).Size())
	n := int64(list.size)
	f := Footprint{Count: int64(list.count()), Params: n, Weights: Use{Device: n * int64(dtype.Size())}, Gradients: Use{Device: n * wide}}
	if p.OffloadGradients {
		f.Gradients = Use{Device: int64(list.edges()+min(2, c.Layers)*list.widestLayer()) * wide, Host: n * wide}
	}
	if dtype == gpu.BFloat16 {
		f.Master = Use{Device: n * wide}
		if p.OffloadMaster {
			f.Master = Use{Host: n * wide}
		}
	}
	workspaceLayout(c, true, p, func(_ string, perToken int, wide, host bool) gpu.Buffer {
		t := dtype
		if wide {
			t = accumulatorType(t)
		}
		bytes := int64(perToken) * int64(t.Size())
		if host {
			f.Activations.Host += bytes
		} else {
			f.Activations.Device += bytes
		}
		return nil
	})
	rows := 64
	for rows < longest {
		rows *= 2
	}
	f.Tables.Device = 2 * int64(rows) * int64(c.Rotary/2) * wide
	return f
}

// edges returns the parameters before and behind the layers.
func (p *plan) edges() int { return p.size - (p.starts[len(p.starts)-1] - p.starts[0]) }

func (p *plan) widestLayer() int {
	most := 0
	for i := range len(p.starts) - 1 {
		most = max(most, p.starts[i+1]-p.starts[i])
	}
	return most
}

// windows hold the gradients of two layers, and of what is before and behind the layers, on the device; the rest is in host memory.
type windows struct {
	before, behind gpu.Buffer
	layers         ring
	fresh          bool // the gradient is zero, whatever host memory holds
}

func (m *Model) newWindows() (*windows, error) {
	p, t := m.plan, accumulatorType(m.dtype)
	w := &windows{layers: ring{dev: m.dev}, fresh: true}
	var err error
	alloc := func(n int) (b gpu.Buffer) {
		if err == nil {
			b, err = m.dev.Alloc(n, t)
		}
		return b
	}
	first, last := p.starts[0], p.starts[len(p.starts)-1]
	w.before, w.behind = alloc(first), alloc(p.size-last)
	for range min(2, len(p.starts)-1) {
		w.layers.slots = append(w.layers.slots, []gpu.Buffer{alloc(p.widestLayer())})
	}
	if err != nil {
		w.free(m.dev)
		return nil, err
	}
	for i := range len(p.starts) - 1 {
		w.layers.host = append(w.layers.host, []gpu.Buffer{m.grads.Slice(p.starts[i], p.starts[i+1])})
	}
	w.layers.reset(len(p.starts) - 1)
	return w, nil
}

func (w *windows) free(dev gpu.Device) {
	if w == nil {
		return
	}
	for _, b := range []gpu.Buffer{w.before, w.behind} {
		if b != nil {
			dev.Free(b)
		}
	}
	for _, s := range w.layers.slots {
		if s[0] != nil {
			dev.Free(s[0])
		}
	}
}

// gradView returns where the gradient of t is added to.
func (m *Model) gradView(t part) gpu.Buffer {
	if m.windows == nil || t.param < 0 {
		return m.plan.view(m.grads, t)
	}
	q := &m.plan.params[t.param]
	width := q.Len() / q.Shape[0]
	at, n := q.offset+t.from*width, t.rows*width
	starts := m.plan.starts
	if at < starts[0] {
		return m.windows.before.Slice(at, at+n)
	}
	for i := range len(starts) - 1 {
		if at < starts[i+1] {
			at -= starts[i]
			return m.windows.layers.slots[i%len(m.windows.layers.slots)][0].Slice(at, at+n)
		}
	}
	at -= starts[len(starts)-1]
	return m.windows.behind.Slice(at, at+n)
}

// gradientOf makes the window of a layer's gradient ready.
func (m *Model) gradientOf(i int) {
	w := m.windows
	if w == nil {
		return
	}
	if w.fresh {
		w.layers.write(i)
		m.dev.Zero(w.layers.at(i)[0])
		return
	}
	if i == len(m.layers)-1 {
		w.layers.fetch(i)
	}
	w.layers.ready(i)
}

// gradientNext begins to fetch the gradient that follows. In the middle of a layer, so that what its window held has left beside
// the first half and it comes beside the second.
func (m *Model) gradientNext(i int) {
	if m.windows != nil && !m.windows.fresh {
		m.windows.layers.fetch(i)
	}
}

// gradientDone sends what was added to host memory.
func (m *Model) gradientDone(i int) {
	if m.windows != nil {
		m.windows.layers.send(i)
	}
}

// gradientsDone ends a micro-batch.
func (m *Model) gradientsDone() {
	w := m.windows
	if w == nil {
		return
	}
	p := m.plan
	last := p.starts[len(p.starts)-1]
	m.dev.Await(m.dev.Transfer(m.grads.Slice(0, p.starts[0]), w.before))
	m.dev.Await(m.dev.Transfer(m.grads.Slice(last, p.size), w.behind))
	w.layers.settle()
	w.fresh = false
}

// eachChunk moves all parameters through a float32 buffer on the device, for what is done rarely.
func (m *Model) eachChunk(do func(window, rest, weights gpu.Buffer)) error {
	n, chunk := m.plan.size, m.placement.Chunks()
	window, err := m.dev.Alloc(min(n, chunk), m.master.DType())
	if err != nil {
		return fmt.Errorf("a window on %d parameters: %w", min(n, chunk), err)
	}
	defer m.dev.Free(window)
	for from := 0; from < n; from += chunk {
		to := min(from+chunk, n)
		do(window.Slice(0, to-from), m.master.Slice(from, to), m.weights.Slice(from, to))
	}
	return m.dev.Sync()
}
