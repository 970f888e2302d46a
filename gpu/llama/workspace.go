package llama

import (
	"fmt"

	"github.com/longalign/longalign-go/gpu"
)

// workspace holds the activations of one micro-batch of up to capacity tokens.
type workspace struct {
	dev      gpu.Device
	capacity int
	owned    []gpu.Buffer
	whole    activations
	views    map[int]*activations // by number of tokens, so that the steady state allocates nothing

	positions []int32
	coef      []float64
	nll       []float64
}

// activations are buffers cut to T tokens.
type activations struct {
	x     ring   // residual stream [T,D]: into each layer and out of the last; two in turn without gradients
	saved []kept // by layer, or in turn, or one for all; what of it belongs to a layer is in layers
	// layers are the buffers of saved that are kept for each layer.
	layers ring

	norm gpu.Buffer // [T,D] input of the matrices
	act  gpu.Buffer // [T,F]
	h    gpu.Buffer // [T,D] input of the head
	rstd gpu.Buffer // [T] of the final norm

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

// belong returns the buffers that are kept for each layer.
func (k *kept) belong(keep Keep) []gpu.Buffer {
	switch keep {
	case KeepInputs:
		return nil
	case KeepAttention:
		return []gpu.Buffer{k.attn, k.lse}
	}
	all := []gpu.Buffer{k.mid, k.rstd1, k.rstd2, k.q, k.k, k.v, k.attn, k.lse, k.gate, k.up}
	if k.rstdQ != nil {
		all = append(all, k.qRaw, k.kRaw, k.rstdQ, k.rstdK)
	}
	return all
}

// stream returns the input of layer i, or the output of the last.
func (a *activations) stream(i int) gpu.Buffer { return a.x.at(i)[0] }

// of returns what is kept of layer i.
func (a *activations) of(i int) *kept { return &a.saved[i%len(a.saved)] }

// workspaceLayout asks alloc for every buffer of a workspace: elements a token, in the model's type or the
// (wider) accumulator's, on the device or in host memory. The memory estimate walks the same list.
func workspaceLayout(c *Config, train bool, p Placement, alloc func(name string, perToken int, wide, host bool) gpu.Buffer) activations {
	d, f := c.Hidden, c.FeedForward
	hq, hk := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	var a activations
	streams, layers := 2, 1
	if train {
		streams = c.Layers + 1
		if p.Keep != KeepInputs {
			layers = c.Layers
		}
		if p.OffloadActivations {
			streams, layers = min(2, streams), min(2, layers)
		}
	} else {
		p.Keep, p.OffloadActivations = KeepInputs, false
	}
	for range streams {
		a.x.slots = append(a.x.slots, []gpu.Buffer{alloc("residual stream", d, false, false)})
	}
	if p.OffloadActivations {
		for range max(0, c.Layers-1) { // the last two stay
			a.x.host = append(a.x.host, []gpu.Buffer{alloc("residual stream", d, false, true)})
		}
	}
	var shared kept
	one := func(perLayer bool, had gpu.Buffer, perToken int, wide bool) gpu.Buffer {
		if perLayer || len(a.saved) == 0 {
			return alloc("layer", perToken, wide, false)
		}
		return had
	}
	all, attention := p.Keep == KeepAll, p.Keep <= KeepAttention
	for range layers {
		k := kept{
			mid:   one(all, shared.mid, d, false),
			rstd1: one(all, shared.rstd1, 1, true), rstd2: one(all, shared.rstd2, 1, true),
			q: one(all, shared.q, hq, false), k: one(all, shared.k, hk, false), v: one(all, shared.v, hk, false),
			attn: one(attention, shared.attn, hq, false), lse: one(attention, shared.lse, c.Heads, true),
			gate: one(all, shared.gate, f, false), up: one(all, shared.up, f, false),
		}
		k.qRaw, k.kRaw = k.q, k.k
		if c.QKNorm {
			k.qRaw, k.kRaw = one(all, shared.qRaw, hq, false), one(all, shared.kRaw, hk, false)
			k.rstdQ, k.rstdK = one(all, shared.rstdQ, c.Heads, true), one(all, shared.rstdK, c.KVHeads, true)
		}
		shared = k
		a.saved = append(a.saved, k)
		a.layers.slots = append(a.layers.slots, k.belong(p.Keep))
	}
	if p.OffloadActivations && p.Keep != KeepInputs {
		sizes := []int{hq, c.Heads} // in the order of belong
		if all {
			sizes = []int{d, 1, 1, hq, hk, hk, hq, c.Heads, f, f}
			if c.QKNorm {
				sizes = append(sizes, hq, hk, c.Heads, c.KVHeads)
			}
		}
		wide := map[int]bool{1: true}
		if all {
			wide = map[int]bool{1: true, 2: true, 7: true, 12: true, 13: true}
		}
		for range max(0, c.Layers-2) {
			var h []gpu.Buffer
			for i, n := range sizes {
				h = append(h, alloc("layer", n, wide[i], true))
			}
			a.layers.host = append(a.layers.host, h)
		}
	}
	a.norm, a.act = alloc("scratch", d, false, false), alloc("scratch", f, false, false)
	a.h, a.rstd = alloc("scratch", d, false, false), alloc("scratch", 1, true, false)
	if !train {
		return a
	}
	gradient := func(n int) gpu.Buffer { return alloc("gradients", n, false, false) }
	a.dx, a.dnorm = gradient(d), gradient(d)
	a.dact, a.dgate, a.dup = gradient(f), gradient(f), gradient(f)
	a.dattn, a.dq, a.dk, a.dv = gradient(hq), gradient(hq), gradient(hk), gradient(hk)
	a.dqRaw, a.dkRaw = a.dq, a.dk
	if c.QKNorm {
		a.dqRaw, a.dkRaw = gradient(hq), gradient(hk)
	}
	return a
}

func newWorkspace(m *Model, tokens int, train bool) (*workspace, error) {
	w := &workspace{dev: m.dev, capacity: tokens, views: map[int]*activations{}}
	var failed error
	w.whole = workspaceLayout(m.cfg, train, m.placement, func(name string, perToken int, wide, host bool) gpu.Buffer {
		if failed != nil {
			return nil
		}
		t := m.dtype
		if wide {
			t = accumulatorType(t)
		}
		var b gpu.Buffer
		var err error
		if host {
			b, err = m.dev.AllocHost(perToken*tokens, t)
		} else {
			b, err = m.dev.Alloc(perToken*tokens, t)
		}
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
	lists := func(all [][]gpu.Buffer) (out [][]gpu.Buffer) {
		for _, l := range all {
			var o []gpu.Buffer
			for _, b := range l {
				o = append(o, cut(b))
			}
			out = append(out, o)
		}
		return out
	}
	s := &w.whole
	a := &activations{
		norm: cut(s.norm), act: cut(s.act), h: cut(s.h), rstd: cut(s.rstd), dx: cut(s.dx), dnorm: cut(s.dnorm),
		dact: cut(s.dact), dgate: cut(s.dgate), dup: cut(s.dup), dattn: cut(s.dattn), dq: cut(s.dq), dk: cut(s.dk), dv: cut(s.dv),
		dqRaw: cut(s.dqRaw), dkRaw: cut(s.dkRaw),
		x:      ring{dev: w.dev, slots: lists(s.x.slots), host: lists(s.x.host)},
		layers: ring{dev: w.dev, slots: lists(s.layers.slots), host: lists(s.layers.host)},
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
