package llama

import (
	"fmt"

	"github.com/longalign/longalign-go/gpu"
)

// workspace holds the activations of one micro-batch of up to capacity tokens.
type workspace struct {
	dev      gpu.Device
	capacity int
	heads    int
	owned    []gpu.Buffer
	whole    activations
	views    map[int]*activations // by number of tokens, so that the steady state allocates nothing

	positions []int32
	coef      []float64
	nll       []float64
}

// activations are buffers cut to T tokens.
type activations struct {
	x     []gpu.Buffer // residual stream [T,D]: into each layer and out of the last; two in turn without gradients
	saved []kept       // by layer, or one for all
	norm  gpu.Buffer   // [T,D] input of the matrices
	act   gpu.Buffer   // [T,F]
	h     gpu.Buffer   // [T,D] input of the head
	rstd  gpu.Buffer   // [T] of the final norm

	// Gradients.
	dx, dnorm         gpu.Buffer // [T,D]
	dact, dgate, dup  gpu.Buffer // [T,F]
	dattn, dq, dk, dv gpu.Buffer // [T,H,E] or [T,G,E]
	dqRaw, dkRaw      gpu.Buffer // before the QK norm
}

// kept is what the gradient of a layer needs from its forward pass.
type kept struct {
	mid          gpu.Buffer // [T,D] residual stream between attention and feed-forward
	rstd1, rstd2 gpu.Buffer // [T]
	q, k, v      gpu.Buffer // rotated
	qRaw, kRaw   gpu.Buffer // before the QK norm
	rstdQ, rstdK gpu.Buffer // [T,H], [T,G]
	attn         gpu.Buffer // [T,H,E]
	lse          gpu.Buffer // [H,T]
	gate, up     gpu.Buffer // [T,F]
}

// workspaceLayout asks alloc for every buffer of a workspace: elements a token, in the model's type or the
// (wider) accumulator's. The memory estimate walks the same list.
func workspaceLayout(c *Config, train, recompute bool, alloc func(name string, perToken int, wide bool) gpu.Buffer) activations {
	d, f := c.Hidden, c.FeedForward
	hq, hk := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	var a activations
	streams, layers := 2, 1
	if train {
		streams = c.Layers + 1
		if !recompute {
			layers = c.Layers
		}
	}
	for range streams {
		a.x = append(a.x, alloc("residual stream", d, false))
	}
	for range layers {
		k := kept{
			mid:   alloc("layer", d, false),
			rstd1: alloc("layer", 1, true), rstd2: alloc("layer", 1, true),
			q: alloc("layer", hq, false), k: alloc("layer", hk, false), v: alloc("layer", hk, false),
			attn: alloc("layer", hq, false), lse: alloc("layer", c.Heads, true),
			gate: alloc("layer", f, false), up: alloc("layer", f, false),
		}
		k.qRaw, k.kRaw = k.q, k.k
		if c.QKNorm {
			k.qRaw, k.kRaw = alloc("layer", hq, false), alloc("layer", hk, false)
			k.rstdQ, k.rstdK = alloc("layer", c.Heads, true), alloc("layer", c.KVHeads, true)
		}
		a.saved = append(a.saved, k)
	}
	a.norm, a.act = alloc("scratch", d, false), alloc("scratch", f, false)
	a.h, a.rstd = alloc("scratch", d, false), alloc("scratch", 1, true)
	if !train {
		return a
	}
	a.dx, a.dnorm = alloc("gradients", d, false), alloc("gradients", d, false)
	a.dact, a.dgate, a.dup = alloc("gradients", f, false), alloc("gradients", f, false), alloc("gradients", f, false)
	a.dattn, a.dq = alloc("gradients", hq, false), alloc("gradients", hq, false)
	a.dk, a.dv = alloc("gradients", hk, false), alloc("gradients", hk, false)
	a.dqRaw, a.dkRaw = a.dq, a.dk
	if c.QKNorm {
		a.dqRaw, a.dkRaw = alloc("gradients", hq, false), alloc("gradients", hk, false)
	}
	return a
}

func newWorkspace(m *Model, tokens int, train bool) (*workspace, error) {
	w := &workspace{dev: m.dev, capacity: tokens, heads: m.cfg.Heads, views: map[int]*activations{}}
	var failed error
	w.whole = workspaceLayout(m.cfg, train, m.recompute, func(name string, perToken int, wide bool) gpu.Buffer {
		if failed != nil {
			return nil
		}
		t := m.dtype
		if wide {
			t = accumulatorType(t)
		}
		b, err := m.dev.Alloc(perToken*tokens, t)
		if err != nil {
			failed = fmt.Errorf("%s activations of a micro-batch of %d tokens: %w", name, tokens, err)
			return nil
		}
		w.owned = append(w.owned, b)
		return b
	})
	if failed != nil {
		w.free()
		return nil, failed
	}
	w.positions = make([]int32, tokens)
	w.coef, w.nll = make([]float64, tokens), make([]float64, tokens)
	return w, nil
}

// at returns the activations cut to n tokens.
func (w *workspace) at(n int) *activations {
	if a, ok := w.views[n]; ok {
		return a
	}
	if len(w.views) >= 256 {
		clear(w.views)
	}
	cut := func(b gpu.Buffer) gpu.Buffer {
		if b == nil {
			return nil
		}
		return b.Slice(0, b.Len()/w.capacity*n)
	}
	s := &w.whole
	a := &activations{
		norm: cut(s.norm), act: cut(s.act), h: cut(s.h), rstd: cut(s.rstd), dx: cut(s.dx), dnorm: cut(s.dnorm),
		dact: cut(s.dact), dgate: cut(s.dgate), dup: cut(s.dup), dattn: cut(s.dattn), dq: cut(s.dq), dk: cut(s.dk), dv: cut(s.dv),
		dqRaw: cut(s.dqRaw), dkRaw: cut(s.dkRaw),
	}
	for _, b := range s.x {
		a.x = append(a.x, cut(b))
	}
	for _, k := range s.saved {
		a.saved = append(a.saved, kept{
			mid: cut(k.mid), rstd1: cut(k.rstd1), rstd2: cut(k.rstd2), q: cut(k.q), k: cut(k.k), v: cut(k.v),
			qRaw: cut(k.qRaw), kRaw: cut(k.kRaw), rstdQ: cut(k.rstdQ), rstdK: cut(k.rstdK), attn: cut(k.attn), lse: cut(k.lse),
			gate: cut(k.gate), up: cut(k.up),
		})
	}
	w.views[n] = a
	return a
}

func (w *workspace) free() {
	if w == nil {
		return
	}
	for _, b := range w.owned {
		w.dev.Free(b)
	}
	w.owned = nil
}

// reserve makes *w large enough for n tokens.
func (m *Model) reserve(w **workspace, n int, train bool) error {
	if *w != nil && (*w).capacity >= n {
		return nil
	}
	if err := m.dev.Sync(); err != nil {
		return err
	}
	(*w).free()
	*w = nil
	fresh, err := newWorkspace(m, n, train)
	if err != nil {
		return err
	}
	*w = fresh
	return nil
}

// ReserveTraining allocates the activations of micro-batches of up to tokens tokens, so that a
// lack of memory shows before the first step.
func (m *Model) ReserveTraining(tokens int) error { return m.reserve(&m.train, tokens, true) }

// MemoryPlan returns the elements of one flat buffer of parameters and the bytes of training activations a token, for an
// estimate before anything is allocated.
func MemoryPlan(c *Config, dtype gpu.DType, recompute bool) (params, bytesPerToken int64) {
	workspaceLayout(c, true, recompute, func(_ string, perToken int, wide bool) gpu.Buffer {
		t := dtype
		if wide {
			t = accumulatorType(t)
		}
		bytesPerToken += int64(perToken) * int64(t.Size())
		return nil
	})
	return int64(newPlan(c).size), bytesPerToken
}
