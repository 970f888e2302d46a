package host

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/longalign/longalign-go/gpu"
)

// operations are what an engine computes, whatever its type. Each checks its operands.
type operations interface {
	copyTo(dst, src gpu.Buffer) error
	zero(x gpu.Buffer) error
	embedding(y, table gpu.Buffer, ids []int32, d int) error
	embeddingGrad(dtable, dy gpu.Buffer, ids []int32, d int) error
	rmsNorm(y, rstd, x, w gpu.Buffer, d int, eps float64) error
	rmsNormGrad(dx, dw, dy, x, w, rstd gpu.Buffer, d int) error
	linear(y, x gpu.Buffer, l gpu.Linear) error
	linearGradInput(dx, dy gpu.Buffer, l gpu.Linear, accumulate bool) error
	linearGradWeight(dw, dbias, dy, x gpu.Buffer, l gpu.Linear) error
	rope(x, cos, sin gpu.Buffer, positions []int32, heads, e, rotary int, layout gpu.Layout, inverse bool) error
	attention(y, lse, q, k, v gpu.Buffer, s gpu.AttentionShape) error
	attentionGrad(dq, dk, dv, dy, y, lse, q, k, v gpu.Buffer, s gpu.AttentionShape) error
	attentionCached(y, q, k, v gpu.Buffer, n, length int, s gpu.AttentionShape) error
	swiglu(y, gate, up gpu.Buffer) error
	swigluGrad(dgate, dup, dy, gate, up gpu.Buffer) error
	add(y, x gpu.Buffer) error
	crossEntropy(nll []float64, dh, dw, h gpu.Buffer, head gpu.Linear, targets []int32, coef []float64) error
	squaredNorm(g gpu.Buffer) (float64, error)
	adamw(w, g, m, v gpu.Buffer, p gpu.AdamW) error
}

// engine computes with elements of type F. The jobs are kept so that running one allocates nothing.
type engine[F Float] struct {
	kernels[F]
	dev  *Device
	size int // bytes of an element

	local  [][]F // scratch memory of each worker
	shared []F   // scratch memory of the operation

	jobs struct {
		gemm      gemmJob[F]
		pack      packJob[F]
		norm      normJob[F]
		normGrad  normGradJob[F]
		rope      ropeJob[F]
		each      eachJob[F]
		embedGrad embeddingGradJob[F]
		bias      biasGradJob[F]
		kv        packKVJob[F]
		attention attentionJob[F]
		attGrad   attentionGradJob[F]
		sumHeads  sumHeadsJob[F]
		decode    decodeJob[F]
		softmax   softmaxJob[F]
		sum       sumJob[F]
	}
	scope struct { // reused slices of operations
		tasks, blocks, sequences []attentionTask
		grads, logits            []F
		rows                     []int32
		sums                     []float64
		packed                   struct { // what gradWeight packed last, and in which operation
			x        *F
			rows, in int
			op       uint64
		}
	}
}

func newEngine[F Float](d *Device, k kernels[F]) *engine[F] {
	var f F
	return &engine[F]{kernels: k, dev: d, size: int(unsafe.Sizeof(f)), local: make([][]F, d.pool.threads)}
}

// scratch makes sure that every worker has n elements of scratch memory of its own. It grows by more
// than is asked for, since a decoded sequence asks for a little more each time.
func (e *engine[F]) scratch(n int) {
	for w := range e.local {
		if len(e.local[w]) < n {
			e.local[w] = aligned[F](n + n/4)
		}
	}
}

// common returns n elements of scratch memory shared by the workers, with any contents.
func (e *engine[F]) common(n int) []F {
	if len(e.shared) < n {
		e.shared = aligned[F](n + n/8)
	}
	return e.shared[:n]
}

func (e *engine[F]) work(flops, elements float64) {
	e.dev.prof.work(flops, elements*float64(e.size))
}

var errNoBuffer = errors.New("a buffer is nil")

// want checks that x has n elements.
func want[F Float](name string, x []F, n int) error {
	if len(x) != n {
		return fmt.Errorf("%s has %d elements, not %d", name, len(x), n)
	}
	return nil
}

// rowsOf returns how many rows of d elements x has.
func rowsOf[F Float](name string, x []F, d int) (int, error) {
	if d <= 0 || len(x)%d != 0 {
		return 0, fmt.Errorf("%s has %d elements, which is not a multiple of the width %d", name, len(x), d)
	}
	return len(x) / d, nil
}

// ceil returns n/d rounded up.
func ceil(n, d int) int { return (n + d - 1) / d }

// grain returns how many rows of d elements make a part of an element-wise job: enough
// to be worth handing out, and a number that does not depend on the threads.
func grain(d int) int { return max(1, 16384/max(1, d)) }
