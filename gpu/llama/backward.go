package llama

import (
	"errors"
	"fmt"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
)

// BatchLoss is the outcome of one micro-batch.
type BatchLoss struct {
	Loss      float64   // Σ_i c_i Σ_t ℓ_it
	Sequences []float64 // Σ_t ℓ_it of each sequence
	Targets   []int     // N_i
}

// LossAndGrad adds the gradient of Σ_i c_i Σ_t ℓ_it to the model's gradient; coef
// holds c_i of each sequence, from datasets.Coefficients. A sequence of coefficient 0
// adds nothing to the loss.
func (m *Model) LossAndGrad(p *datasets.Pack, coef []float64) (BatchLoss, error) {
	var out BatchLoss
	if m.grads == nil {
		return out, errors.New("the model does not train; call EnableTraining first")
	}
	if err := m.check(p); err != nil {
		return out, err
	}
	if len(coef) != p.Sequences() {
		return out, fmt.Errorf("%d coefficients for %d sequences", len(coef), p.Sequences())
	}
	n := len(p.InputIDs)
	if err := m.reserve(&m.train, n, true); err != nil {
		return out, err
	}
	w := m.train
	a := w.at(n)
	if err := m.hidden(w, a, p); err != nil {
		return out, err
	}
	targets, counts := p.Targets()
	tokenCoef, nll := w.coef[:n], w.nll[:n]
	for i, c := range coef {
		for t := p.CuSeqlens[i]; t < p.CuSeqlens[i+1]; t++ {
			tokenCoef[t] = c
		}
	}
	m.dev.CrossEntropy(nll, a.dnorm, m.head.gw, a.h, m.head.Linear, targets, tokenCoef)
	m.backward(w, a, p)
	m.gradientsDone()
	if err := m.dev.Sync(); err != nil {
		return out, err
	}
	out.Targets, out.Sequences = counts, make([]float64, len(counts))
	for i, c := range coef {
		for t := p.CuSeqlens[i]; t < p.CuSeqlens[i+1]; t++ {
			out.Sequences[i] += nll[t]
		}
		if c != 0 {
			out.Loss += c * out.Sequences[i]
		}
	}
	return out, nil
}

// backward goes from the gradient of the head's input, in a.dnorm, to the embedding.
func (m *Model) backward(w *workspace, a *activations, p *datasets.Pack) {
	dev, c := m.dev, m.cfg
	positions := w.positions[:len(p.InputIDs)]
	dev.Zero(a.dx)
	dev.RMSNormGrad(a.dx, m.final.g, a.dnorm, a.stream(len(m.layers)), m.final.w, a.rstd, c.Hidden)
	for i := len(m.layers) - 1; i >= 0; i-- {
		a.x.fetch(i - 1)
		a.layers.fetch(i - 1)
		m.gradientOf(i)
		a.x.ready(i)
		a.layers.ready(i)
		s := a.of(i)
		if i < len(m.layers)-1 { // the last layer's are still there
			m.again(i, a, s, positions, p.CuSeqlens)
		}
		m.feedForwardGrad(&m.layers[i], a, s)
		m.gradientNext(i - 1)
		m.attentionGrad(i, a, s, positions, p.CuSeqlens)
		m.gradientDone(i)
	}
	dev.EmbeddingGrad(m.embed.g, a.dx, p.InputIDs, c.Hidden)
}

// again computes what was not kept of layer i.
func (m *Model) again(i int, a *activations, s *kept, positions, cu []int32) {
	switch m.placement.Keep {
	case KeepAttention:
		m.project(&m.layers[i], a, s, a.stream(i), positions)
		m.feedForward(&m.layers[i], a, s, a.stream(i))
	case KeepInputs:
		m.layerForward(i, a, s, a.stream(i), positions, cu)
	}
}

// weightGrad adds to a matrix's gradient and its bias's.
func (m *Model) weightGrad(l *linear, dy, x gpu.Buffer) {
	m.dev.LinearGradWeight(l.gw, l.gb, dy, x, l.Linear)
}

// feedForwardGrad turns dx from the gradient of a layer's output into that of its mid stream. The cheap
// intermediates (norm, swiglu) are computed again instead of kept.
func (m *Model) feedForwardGrad(l *layer, a *activations, s *kept) {
	dev, c := m.dev, m.cfg
	dev.SwiGLU(a.act, s.gate, s.up)
	m.weightGrad(&l.down, a.dx, a.act)
	dev.LinearGradInput(a.dact, a.dx, l.down.Linear, false)
	dev.SwiGLUGrad(a.dgate, a.dup, a.dact, s.gate, s.up)
	dev.RMSNorm(a.norm, s.rstd2, s.mid, l.norm2.w, c.Hidden, c.NormEps)
	m.weightGrad(&l.gate, a.dgate, a.norm)
	m.weightGrad(&l.up, a.dup, a.norm)
	dev.LinearGradInput(a.dnorm, a.dgate, l.gate.Linear, false)
	dev.LinearGradInput(a.dnorm, a.dup, l.up.Linear, true)
	dev.RMSNormGrad(a.dx, l.norm2.g, a.dnorm, s.mid, l.norm2.w, s.rstd2, c.Hidden)
}

// attentionGrad turns dx from the gradient of a layer's mid stream into that of its input.
func (m *Model) attentionGrad(i int, a *activations, s *kept, positions, cu []int32) {
	dev, c, l := m.dev, m.cfg, &m.layers[i]
	m.weightGrad(&l.o, a.dx, s.attn)
	dev.LinearGradInput(a.dattn, a.dx, l.o.Linear, false)
	dev.AttentionGrad(a.dq, a.dk, a.dv, a.dattn, s.attn, s.lse, s.q, s.k, s.v, m.attention(i, cu))
	m.rotate(a.dq, positions, c.Heads, true)
	m.rotate(a.dk, positions, c.KVHeads, true)
	if c.QKNorm {
		dev.Zero(a.dqRaw)
		dev.Zero(a.dkRaw)
		dev.RMSNormGrad(a.dqRaw, l.qNorm.g, a.dq, s.qRaw, l.qNorm.w, s.rstdQ, c.HeadDim)
		dev.RMSNormGrad(a.dkRaw, l.kNorm.g, a.dk, s.kRaw, l.kNorm.w, s.rstdK, c.HeadDim)
	}
	dev.RMSNorm(a.norm, s.rstd1, a.stream(i), l.norm1.w, c.Hidden, c.NormEps)
	m.weightGrad(&l.q, a.dqRaw, a.norm)
	m.weightGrad(&l.k, a.dkRaw, a.norm)
	m.weightGrad(&l.v, a.dv, a.norm)
	dev.LinearGradInput(a.dnorm, a.dqRaw, l.q.Linear, false)
	dev.LinearGradInput(a.dnorm, a.dkRaw, l.k.Linear, true)
	dev.LinearGradInput(a.dnorm, a.dv, l.v.Linear, true)
	dev.RMSNormGrad(a.dx, l.norm1.g, a.dnorm, a.stream(i), l.norm1.w, s.rstd1, c.Hidden)
}
