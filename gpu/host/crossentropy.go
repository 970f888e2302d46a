package host

import (
	"fmt"
	"math"

	"github.com/longalign/longalign-go/gpu"
)

// chunkElements bounds the logits that exist at once; chunkRows, a multiple of any tile, the rows.
const (
	chunkElements = 1 << 25
	chunkRows     = 1152
)

// softmaxJob turns the logits of a chunk's rows into nll and, for the gradient, into exp(logit − max) with the
// sum taken off at the target; the factor coef/sum is left in rows' factors.
type softmaxJob[F Float] struct {
	e          *engine[F]
	logits     []F
	factors    []F
	rows       []int32 // token of each row
	targets    []int32
	nll, coef  []float64
	vocab, per int
	grad       bool
	h, scaled  []F // rows of h, and where to put them times their factor
	dh         []F
	out        []F // dh's rows before scaling
	d          int
	scatter    bool
}

func (e *engine[F]) crossEntropy(nll []float64, dh, dw, h gpu.Buffer, head gpu.Linear, targets []int32, coef []float64) error {
	hs, dhs, dws := elements[F](h), elements[F](dh), elements[F](dw)
	d, vocab := head.In, head.Out
	tokens, err := rowsOf("h", hs, d)
	if err == nil {
		err = want("the weight", elements[F](head.W), d*vocab)
	}
	if err == nil && head.Bias != nil {
		err = fmt.Errorf("the head has a bias, which is not supported")
	}
	if err == nil && dh != nil {
		err = want("dh", dhs, len(hs))
	}
	if err == nil && dw != nil {
		err = want("dw", dws, d*vocab)
	}
	if err == nil && (len(nll) != tokens || len(targets) != tokens || dh != nil && len(coef) != tokens) {
		err = fmt.Errorf("%d tokens, but %d nll, %d targets, %d coef", tokens, len(nll), len(targets), len(coef))
	}
	if err != nil {
		return err
	}
	rows := e.scope.rows[:0]
	for t, y := range targets {
		nll[t] = 0
		if y >= int32(vocab) {
			return fmt.Errorf("token %d has target %d, the vocabulary %d entries", t, y, vocab)
		}
		if y >= 0 {
			rows = append(rows, int32(t))
		}
	}
	e.scope.rows = rows
	products := 1.
	if dh != nil {
		products++
		e.each(eachJob[F]{kind: eachZero, a: dhs, n: len(dhs)})
	}
	if dw != nil && dh != nil {
		products++
	}
	e.work(products*2*float64(len(rows))*float64(d)*float64(vocab), products*float64(len(rows)*d+d*vocab))

	chunk := min(len(rows), chunkRows, max(96, chunkElements/vocab/96*96))
	packed := e.packedLen(chunk, d)
	need := chunk*vocab + 3*chunk*d + chunk + packed
	if len(e.scope.logits) < need {
		e.scope.logits = aligned[F](need)
	}
	mem := e.scope.logits
	take := func(n int) []F { m := mem[:n:n]; mem = mem[n:]; return m }
	logits, factors := take(chunk*vocab), take(chunk)
	gathered, out, scaled, right := take(chunk*d), take(chunk*d), take(chunk*d), take(packed)
	forward := e.weight(head, false)
	var backward []F
	if dh != nil {
		backward = e.weight(head, true)
	}
	for from := 0; from < len(rows); from += chunk {
		m := min(chunk, len(rows)-from)
		j := &e.jobs.softmax
		*j = softmaxJob[F]{
			e: e, logits: logits, factors: factors, rows: rows[from : from+m], targets: targets, nll: nll, coef: coef,
			vocab: vocab, grad: dh != nil, h: gathered, scaled: scaled, dh: dhs, out: out, d: d,
			per: max(1, 32768/vocab),
		}
		e.each(eachJob[F]{kind: eachEmbedding, a: gathered, b: hs, ids: j.rows, n: m, per: grain(d), d: d})
		e.gemm(gemmJob[F]{c: logits, ldc: vocab, a: gathered, lda: d, b: forward, m: m, n: vocab, k: d})
		e.dev.pool.run(j, ceil(m, j.per))
		if dh == nil {
			continue
		}
		e.gemm(gemmJob[F]{c: out, ldc: d, a: logits, lda: vocab, b: backward, m: m, n: d, k: vocab})
		j.scatter = true
		e.dev.pool.run(j, ceil(m, j.per))
		if dw != nil {
			e.pack(right, scaled, d, m, d, false)
			e.gemm(gemmJob[F]{c: dws, ldc: d, a: logits, lda: vocab, cols: true, b: right, m: vocab, n: d, k: m, acc: true})
		}
	}
	return nil
}

func (j *softmaxJob[F]) part(_, i int) {
	for r := i * j.per; r < min((i+1)*j.per, len(j.rows)); r++ {
		if j.scatter {
			j.finish(r)
		} else {
			j.row(r)
		}
	}
}

func (j *softmaxJob[F]) row(r int) {
	e, t := j.e, j.rows[r]
	s := j.logits[r*j.vocab : (r+1)*j.vocab]
	y := j.targets[t]
	at, m := s[y], e.max(s)
	sum := e.expSum(s, m)
	j.nll[t] = math.Log(float64(sum)) + float64(m) - float64(at)
	if j.grad {
		s[y] -= sum
		f := F(j.coef[t] / float64(sum))
		j.factors[r] = f
		h := j.scaled[r*j.d : (r+1)*j.d]
		copy(h, j.h[r*j.d:])
		e.scale(h, f)
	}
}

// finish scales a row of dh and puts it in its token's place.
func (j *softmaxJob[F]) finish(r int) {
	dh := j.dh[int(j.rows[r])*j.d:][:j.d]
	copy(dh, j.out[r*j.d:])
	j.e.scale(dh, j.factors[r])
}
