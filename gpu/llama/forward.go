package llama

import (
	"fmt"
	"math"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
)

// LengthError says that a sequence does not fit the model's context.
type LengthError struct {
	Sequence, Tokens, Max int
}

func (e *LengthError) Error() string {
	return fmt.Sprintf("sequence %d has %d tokens, the model's context is %d; shorten it (truncation is an option) or extend the context", e.Sequence, e.Tokens, e.Max)
}

// check validates a micro-batch against the model.
func (m *Model) check(p *datasets.Pack) error {
	if err := p.Validate(m.cfg.Vocab); err != nil {
		return err
	}
	for i := range p.Sequences() {
		if n := int(p.CuSeqlens[i+1] - p.CuSeqlens[i]); n > m.cfg.MaxPositions {
			return &LengthError{i, n, m.cfg.MaxPositions}
		}
	}
	return nil
}

func (m *Model) attention(layer int, cu []int32) gpu.AttentionShape {
	return gpu.AttentionShape{
		Heads: m.cfg.Heads, KVHeads: m.cfg.KVHeads, HeadDim: m.cfg.HeadDim,
		Scale: 1 / math.Sqrt(float64(m.cfg.HeadDim)), Window: m.cfg.Window(layer), CuSeqlens: cu,
	}
}

func (m *Model) rotate(x gpu.Buffer, positions []int32, heads int, inverse bool) {
	m.dev.Rope(x, m.rope.cos, m.rope.sin, positions, heads, m.cfg.HeadDim, m.cfg.Rotary, m.cfg.RopeLayout, inverse)
}

// project computes the rotated queries and keys, and the values, of a layer from x.
func (m *Model) project(l *layer, a *activations, s *kept, x gpu.Buffer, positions []int32) {
	c, dev := m.cfg, m.dev
	dev.RMSNorm(a.norm, s.rstd1, x, l.norm1.w, c.Hidden, c.NormEps)
	dev.Linear(s.qRaw, a.norm, l.q.Linear)
	dev.Linear(s.kRaw, a.norm, l.k.Linear)
	dev.Linear(s.v, a.norm, l.v.Linear)
	if c.QKNorm {
		dev.RMSNorm(s.q, s.rstdQ, s.qRaw, l.qNorm.w, c.HeadDim, c.NormEps)
		dev.RMSNorm(s.k, s.rstdK, s.kRaw, l.kNorm.w, c.HeadDim, c.NormEps)
	}
	m.rotate(s.q, positions, c.Heads, false)
	m.rotate(s.k, positions, c.KVHeads, false)
}

// feedForward computes gate and up of a layer from its mid stream, after adding the attention's output to it.
func (m *Model) feedForward(l *layer, a *activations, s *kept, x gpu.Buffer) {
	c, dev := m.cfg, m.dev
	dev.Linear(s.mid, s.attn, l.o.Linear)
	dev.Add(s.mid, x)
	dev.RMSNorm(a.norm, s.rstd2, s.mid, l.norm2.w, c.Hidden, c.NormEps)
	dev.Linear(s.gate, a.norm, l.gate.Linear)
	dev.Linear(s.up, a.norm, l.up.Linear)
}

// down ends a layer: y = mid + Wdown·swiglu.
func (m *Model) down(l *layer, a *activations, s *kept, y gpu.Buffer) {
	m.dev.SwiGLU(a.act, s.gate, s.up)
	m.dev.Linear(y, a.act, l.down.Linear)
	m.dev.Add(y, s.mid)
}

// layerForward computes everything of layer i that its gradient needs.
func (m *Model) layerForward(i int, a *activations, s *kept, x gpu.Buffer, positions, cu []int32) {
	l := &m.layers[i]
	m.project(l, a, s, x, positions)
	m.dev.Attention(s.attn, s.lse, s.q, s.k, s.v, m.attention(i, cu))
	m.feedForward(l, a, s, x)
}

// hidden runs all layers. What the gradient needs is kept as far as a has room for it.
func (m *Model) hidden(w *workspace, a *activations, p *datasets.Pack) error {
	positions := w.positions[:len(p.InputIDs)]
	if err := m.rope.positions(positions, p); err != nil {
		return err
	}
	a.x.reset(len(m.layers) + 1)
	a.layers.reset(len(m.layers))
	a.x.write(0)
	x := a.stream(0)
	m.dev.Embedding(x, m.embed.w, p.InputIDs, m.cfg.Hidden)
	a.x.send(0)
	for i := range m.layers {
		a.layers.write(i)
		s := a.of(i)
		m.layerForward(i, a, s, x, positions, p.CuSeqlens)
		a.layers.send(i)
		a.x.write(i + 1)
		y := a.stream(i + 1)
		m.down(&m.layers[i], a, s, y)
		a.x.send(i + 1)
		x = y
	}
	m.dev.RMSNorm(a.h, a.rstd, x, m.final.w, m.cfg.Hidden, m.cfg.NormEps)
	return nil
}

// NLL returns the cross-entropy of each token's target, 0 where there is none. nll[t] is
// that of token t+1 given the tokens of its sequence up to t. No gradients are computed.
func (m *Model) NLL(p *datasets.Pack) ([]float64, error) {
	if err := m.check(p); err != nil {
		return nil, err
	}
	n := len(p.InputIDs)
	w := m.train // between two steps nothing in it is needed, and a plan of memory counts no second one
	if w == nil || w.capacity < n {
		if err := m.reserve(&m.eval, n, false); err != nil {
			return nil, err
		}
		w = m.eval
	}
	a := w.at(n)
	if err := m.hidden(w, a, p); err != nil {
		return nil, err
	}
	targets, _ := p.Targets()
	nll := make([]float64, n)
	m.dev.CrossEntropy(nll, nil, nil, a.h, m.head.Linear, targets, make([]float64, n))
	return nll, m.dev.Sync()
}

// LogProb returns Σ log p of each continuation token given the prompt and the continuation before it. The
// prompt must hold at least one token.
func (m *Model) LogProb(prompt, continuation []int32) (sum float64, perToken []float64, err error) {
	if len(prompt) == 0 || len(continuation) == 0 {
		return 0, nil, fmt.Errorf("log-probability: %d prompt and %d continuation tokens; both need at least one", len(prompt), len(continuation))
	}
	n := len(prompt) + len(continuation)
	p := datasets.Continuation(prompt, continuation)
	nll, err := m.NLL(&p)
	if err != nil {
		return 0, nil, err
	}
	perToken = nll[len(prompt)-1 : n-1]
	for i, v := range perToken {
		perToken[i] = -v
		sum -= v
	}
	return sum, perToken, nil
}
