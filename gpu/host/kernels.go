package host

import "fmt"

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

// chooseKernels returns the tables for the named set.
func chooseKernels(name string) (kernels[float32], kernels[float64], error) {
	k32, k64 := portable[float32](), portable[float64]()
	switch name {
	case "":
		fastKernels(&k32, &k64)
	case "go":
	default:
		if fastKernels(&k32, &k64); k32.name != name {
			return k32, k64, fmt.Errorf("host device: kernels %q are not for this processor, which has %q and \"go\"", name, k32.name)
		}
	}
	return k32, k64, nil
}
