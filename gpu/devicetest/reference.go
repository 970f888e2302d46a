package devicetest

import (
	"math"

	"github.com/longalign/longalign-go/gpu"
)

// The reference: every operation in float64 and in plain loops, written from the formulas in package gpu.
// Nothing here is shared with a device. Gradients are checked against finite differences in this package's tests.

type matrix = []float64

func refRMSNorm(x, w matrix, d int, eps float64) (y, rstd matrix) {
	y, rstd = make(matrix, len(x)), make(matrix, len(x)/d)
	for t := range rstd {
		var s float64
		for _, v := range x[t*d : (t+1)*d] {
			s += v * v
		}
		rstd[t] = 1 / math.Sqrt(s/float64(d)+eps)
		for i := range d {
			y[t*d+i] = x[t*d+i] * rstd[t] * w[i]
		}
	}
	return y, rstd
}

func refRMSNormGrad(dy, x, w, rstd matrix, d int) (dx, dw matrix) {
	dx, dw = make(matrix, len(x)), make(matrix, d)
	for t, r := range rstd {
		var s float64
		for i := range d {
			s += dy[t*d+i] * w[i] * x[t*d+i]
		}
		for i := range d {
			dx[t*d+i] = r*dy[t*d+i]*w[i] - r*r*r*s/float64(d)*x[t*d+i]
			dw[i] += dy[t*d+i] * x[t*d+i] * r
		}
	}
	return dx, dw
}

func refLinear(x, w, bias matrix, in, out int) matrix {
	rows := len(x) / in
	y := make(matrix, rows*out)
	for t := range rows {
		for o := range out {
			var s float64
			if bias != nil {
				s = bias[o]
			}
			for i := range in {
				s += x[t*in+i] * w[o*in+i]
			}
			y[t*out+o] = s
		}
	}
	return y
}

func refLinearGrad(dy, x, w matrix, in, out int) (dx, dw, dbias matrix) {
	rows := len(x) / in
	dx, dw, dbias = make(matrix, rows*in), make(matrix, in*out), make(matrix, out)
	for t := range rows {
		for o := range out {
			g := dy[t*out+o]
			dbias[o] += g
			for i := range in {
				dx[t*in+i] += g * w[o*in+i]
				dw[o*in+i] += g * x[t*in+i]
			}
		}
	}
	return dx, dw, dbias
}

func refRope(x, cos, sin matrix, positions []int32, heads, e, rotary int, layout gpu.Layout, inverse bool) matrix {
	y := append(matrix(nil), x...)
	for t, p := range positions {
		for h := range heads {
			o := (t*heads + h) * e
			for i := range rotary / 2 {
				a, b := o+i, o+i+rotary/2
				if layout == gpu.Interleaved {
					a, b = o+2*i, o+2*i+1
				}
				c, s := cos[int(p)*rotary/2+i], sin[int(p)*rotary/2+i]
				if inverse {
					s = -s
				}
				y[a], y[b] = x[a]*c-x[b]*s, x[b]*c+x[a]*s
			}
		}
	}
	return y
}

// refWeights calls f for each query row and head with the softmax over the keys first… that it sees.
func refWeights(q, k matrix, s gpu.AttentionShape, f func(t, h, first int, p matrix, lse float64)) {
	e := s.HeadDim
	for i := 1; i < len(s.CuSeqlens); i++ {
		from, to := int(s.CuSeqlens[i-1]), int(s.CuSeqlens[i])
		for t := from; t < to; t++ {
			first := from
			if s.Window > 0 {
				first = max(from, t-s.Window+1)
			}
			for h := range s.Heads {
				g := h / (s.Heads / s.KVHeads)
				p := make(matrix, t-first+1)
				top := math.Inf(-1)
				for j := range p {
					for c := range e {
						p[j] += q[(t*s.Heads+h)*e+c] * k[((first+j)*s.KVHeads+g)*e+c]
					}
					p[j] *= s.Scale
					top = max(top, p[j])
				}
				var sum float64
				for j := range p {
					p[j] = math.Exp(p[j] - top)
					sum += p[j]
				}
				for j := range p {
					p[j] /= sum
				}
				f(t, h, first, p, top+math.Log(sum))
			}
		}
	}
}

func refAttention(q, k, v matrix, s gpu.AttentionShape) (y, lse matrix) {
	e, T := s.HeadDim, int(s.CuSeqlens[len(s.CuSeqlens)-1])
	y, lse = make(matrix, len(q)), make(matrix, T*s.Heads)
	refWeights(q, k, s, func(t, h, first int, p matrix, l float64) {
		lse[h*T+t] = l
		g := h / (s.Heads / s.KVHeads)
		for j, pj := range p {
			for c := range e {
				y[(t*s.Heads+h)*e+c] += pj * v[((first+j)*s.KVHeads+g)*e+c]
			}
		}
	})
	return y, lse
}

func refAttentionGrad(dy, q, k, v matrix, s gpu.AttentionShape) (dq, dk, dv matrix) {
	e := s.HeadDim
	dq, dk, dv = make(matrix, len(q)), make(matrix, len(k)), make(matrix, len(v))
	refWeights(q, k, s, func(t, h, first int, p matrix, _ float64) {
		g := h / (s.Heads / s.KVHeads)
		qo := (t*s.Heads + h) * e
		dp := make(matrix, len(p))
		var mean float64
		for j, pj := range p {
			ko := ((first+j)*s.KVHeads + g) * e
			for c := range e {
				dp[j] += dy[qo+c] * v[ko+c]
				dv[ko+c] += pj * dy[qo+c]
			}
			mean += pj * dp[j]
		}
		for j, pj := range p {
			ko := ((first+j)*s.KVHeads + g) * e
			ds := pj * (dp[j] - mean) * s.Scale
			for c := range e {
				dq[qo+c] += ds * k[ko+c]
				dk[ko+c] += ds * q[qo+c]
			}
		}
	})
	return dq, dk, dv
}

func refSwiGLU(gate, up matrix) matrix {
	y := make(matrix, len(gate))
	for i, g := range gate {
		y[i] = g / (1 + math.Exp(-g)) * up[i]
	}
	return y
}

func refSwiGLUGrad(dy, gate, up matrix) (dgate, dup matrix) {
	dgate, dup = make(matrix, len(gate)), make(matrix, len(gate))
	for i, g := range gate {
		s := 1 / (1 + math.Exp(-g))
		dup[i] = dy[i] * g * s
		dgate[i] = dy[i] * up[i] * (s + g*s*(1-s))
	}
	return dgate, dup
}

func refCrossEntropy(h, w matrix, d, vocab int, targets []int32, coef []float64) (nll, dh, dw matrix) {
	nll, dh, dw = make(matrix, len(targets)), make(matrix, len(h)), make(matrix, len(w))
	logits := refLinear(h, w, nil, d, vocab)
	for t, y := range targets {
		if y < 0 {
			continue
		}
		row := logits[t*vocab : (t+1)*vocab]
		top := math.Inf(-1)
		for _, v := range row {
			top = max(top, v)
		}
		var sum float64
		for _, v := range row {
			sum += math.Exp(v - top)
		}
		nll[t] = top + math.Log(sum) - row[y]
		for j, v := range row {
			g := math.Exp(v-top) / sum
			if j == int(y) {
				g--
			}
			g *= coef[t]
			for i := range d {
				dh[t*d+i] += g * w[j*d+i]
				dw[j*d+i] += g * h[t*d+i]
			}
		}
	}
	return nll, dh, dw
}

func refAdamW(w, g, m, v matrix, p gpu.AdamW) {
	t := float64(p.Step)
	for i := range w {
		gi := g[i] * p.GradScale
		w[i] -= p.LR * p.WeightDecay * w[i]
		m[i] = p.Beta1*m[i] + (1-p.Beta1)*gi
		v[i] = p.Beta2*v[i] + (1-p.Beta2)*gi*gi
		mhat := m[i] / (1 - math.Pow(p.Beta1, t))
		vhat := v[i] / (1 - math.Pow(p.Beta2, t))
		w[i] -= p.LR * mhat / (math.Sqrt(vhat) + p.Eps)
	}
}
