package host

import (
	"fmt"
	"os"
	"strings"
)

// Float is the element type of an engine.
type Float interface{ float32 | float64 }

// kernels are the inner loops of one element type. Slices of one call have the length of the
// first unless it says otherwise; reductions have a fixed order for a given length.
type kernels[F Float] struct {
	name string

	// A tile has mr rows and nr columns: c[i·ldc+j] = (acc ? c : 0) + Σ_k a(i,k) b[k·nr+j], b packed.
	// In tileRows a(i,k) = a[i·lda+k], in tileCols a(i,k) = a[k·lda+i]. Tiles below each other, as many as groups says, have
	// their a step elements apart and share b.
	mr, nr   int
	tileRows func(k, groups int, a *F, lda, step int, b *F, c *F, ldc int, acc bool)
	tileCols func(k, groups int, a *F, lda, step int, b *F, c *F, ldc int, acc bool)
	// tileVec is one row against strips consecutive strips of b, stride elements apart; same sums as tileRows.
	tileVec func(k int, a *F, b *F, stride, strips int, c *F, acc bool)

	// packT turns n ≤ nr rows of k elements, ld apart, into k rows of nr, padded with zeros.
	// packCols copies k rows of n ≤ nr elements, ld apart, into rows of nr, padded with zeros.
	packT, packCols func(dst, src []F, ld, k, n, nr int)

	dot  func(x, y []F) F
	dot3 func(x, y, z []F) F // Σ x y z
	plus func(y, x []F)      // y += x
	axpy func(y, x []F, a F) // y += a x
	// scale: x *= a. scaleMul: y = a x w.
	scale    func(x []F, a F)
	scaleMul func(y, x, w []F, a F)
	// normGrad: dx += r dy w − c x, dw += r dy x.
	normGrad func(dx, dw, dy, x, w []F, r, c F)
	// rotate: (a, b) = (a cos − b sin, b cos + a sin).
	rotate   func(a, b, cos, sin []F)
	silu     func(y, gate, up []F)
	siluGrad func(dgate, dup, dy, gate, up []F)
	max      func(x []F) F
	// expSum: x = exp(x − m), returns the sum.
	expSum func(x []F, m F) F
	// softmaxGrad: p = exp(p − lse), dp = p (dp − delta).
	softmaxGrad func(p, dp []F, lse, delta F)
	sumSquares  func(x []F) float64
	adam        func(w, g, m, v []F, c *adamConstants[F])
}

// adamConstants are the factors of one AdamW update: m = b1 m + a1 g; v = b2 v + a2 g²; w = keep w − lr m / (√v · root + eps).
type adamConstants[F Float] struct {
	gradScale, b1, a1, b2, a2, keep, lr, root, eps F
}

// kernelSet is a named way to fill the tables. install replaces loops of the portable ones.
type kernelSet struct {
	name    string
	install func(*kernels[float32], *kernels[float64])
}

// portableName names the loops in Go, which every processor runs.
const portableName = "go"

// KernelsVariable is the environment variable that names the kernels where Options do not.
const KernelsVariable = "LONGALIGN_KERNELS"

// KernelSets returns the names that Options.Kernels takes on this processor, the default first.
func KernelSets() []string {
	var names []string
	for _, s := range fastSets() {
		names = append(names, s.name)
	}
	return append(names, portableName)
}

// chooseKernels returns the tables of the named set; "" is the one that KernelsVariable names, else the default.
func chooseKernels(name string) (kernels[float32], kernels[float64], error) {
	k32, k64 := portable[float32](), portable[float64]()
	if name == "" {
		name = os.Getenv(KernelsVariable)
	}
	if name == "" {
		name = KernelSets()[0]
	}
	if name == portableName {
		return k32, k64, nil
	}
	for _, s := range fastSets() {
		if s.name == name {
			s.install(&k32, &k64)
			return k32, k64, nil
		}
	}
	return k32, k64, fmt.Errorf("host device: kernels %q are not for this processor, which has %s", name, strings.Join(KernelSets(), ", "))
}
