//go:build !purego

package host

import "golang.org/x/sys/cpu"

// The assembly is in tile_arm64.s and vector_arm64.s.

//go:noescape
func tileRows32(k, groups int, a *float32, lda, step int, b *float32, c *float32, ldc int, acc bool)

//go:noescape
func tileCols32(k, groups int, a *float32, lda, step int, b *float32, c *float32, ldc int, acc bool)

//go:noescape
func tileVec32(k int, a *float32, b *float32, stride, strips int, c *float32, acc bool)

//go:noescape
func dotNEON(x, y []float32) float32

//go:noescape
func expSumNEON(x []float32, m float32) float32

//go:noescape
func softmaxGradNEON(p, dp []float32, lse, delta float32)

//go:noescape
func siluNEON(y, gate, up []float32)

//go:noescape
func siluGradNEON(dgate, dup, dy, gate, up []float32)

// fastSets returns the set in assembly, if this processor can run it.
func fastSets() []kernelSet {
	if !cpu.ARM64.HasASIMD {
		return nil
	}
	return []kernelSet{{"neon", neon}}
}

// neon takes the float32 products and exponentials in assembly. The other loops, and float64, stay portable.
func neon(k32 *kernels[float32], _ *kernels[float64]) {
	k32.name = "neon"
	k32.mr, k32.nr = 6, 16
	k32.tileRows, k32.tileCols, k32.tileVec = tileRows32, tileCols32, tileVec32
	k32.dot = func(x, y []float32) float32 {
		whole := len(x) &^ 15
		return dotNEON(x[:whole], y[:whole]) + goDot(x[whole:], y[whole:])
	}
	// The assembly takes fours; what is left is done by the portable loop.
	k32.expSum = func(x []float32, m float32) float32 {
		whole := len(x) &^ 3
		sum := goExpSum(x[whole:], m)
		if whole > 0 {
			sum += expSumNEON(x[:whole], m)
		}
		return sum
	}
	k32.softmaxGrad = func(p, dp []float32, lse, delta float32) {
		whole := len(p) &^ 3
		if whole > 0 {
			softmaxGradNEON(p[:whole], dp[:whole], lse, delta)
		}
		goSoftmaxGrad(p[whole:], dp[whole:], lse, delta)
	}
	k32.silu = func(y, gate, up []float32) {
		whole := len(y) &^ 3
		if whole > 0 {
			siluNEON(y[:whole], gate[:whole], up[:whole])
		}
		goSwiGLU(y[whole:], gate[whole:], up[whole:])
	}
	k32.siluGrad = func(dgate, dup, dy, gate, up []float32) {
		n := len(dgate) &^ 3
		if n > 0 {
			siluGradNEON(dgate[:n], dup[:n], dy[:n], gate[:n], up[:n])
		}
		goSwiGLUGrad(dgate[n:], dup[n:], dy[n:], gate[n:], up[n:])
	}
}
