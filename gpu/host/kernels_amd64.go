//go:build !purego

package host

import (
	"slices"

	"golang.org/x/sys/cpu"
)

// The assembly is in tile_amd64.s and vector_amd64.s.

//go:noescape
func tileRows32(k, groups int, a *float32, lda, step int, b *float32, c *float32, ldc int, acc bool)

//go:noescape
func tileCols32(k, groups int, a *float32, lda, step int, b *float32, c *float32, ldc int, acc bool)

//go:noescape
func tileVec32(k int, a *float32, b *float32, stride, strips int, c *float32, acc bool)

//go:noescape
func tileRows64(k, groups int, a *float64, lda, step int, b *float64, c *float64, ldc int, acc bool)

//go:noescape
func tileCols64(k, groups int, a *float64, lda, step int, b *float64, c *float64, ldc int, acc bool)

//go:noescape
func tileVec64(k int, a *float64, b *float64, stride, strips int, c *float64, acc bool)

//go:noescape
func packCols16(dst, src *float32, ld, k int)

//go:noescape
func packCols6(dst, src *float32, ld, k int)

//go:noescape
func dot32(x, y []float32) float32

//go:noescape
func dot3x32(x, y, z []float32) float32

//go:noescape
func plus32(y, x []float32)

//go:noescape
func axpy32(y, x []float32, a float32)

//go:noescape
func scale32(x []float32, a float32)

//go:noescape
func scaleMul32(y, x, w []float32, a float32)

//go:noescape
func normGrad32(dx, dw, dy, x, w []float32, r, c float32)

//go:noescape
func rotate32(a, b, cos, sin []float32)

//go:noescape
func silu32(y, gate, up []float32)

//go:noescape
func siluGrad32(dgate, dup, dy, gate, up []float32)

//go:noescape
func max32(x []float32) float32

//go:noescape
func expSum32(x []float32, m float32) float32

//go:noescape
func softmaxGrad32(p, dp []float32, lse, delta float32)

//go:noescape
func sumSquares32(x []float32) float64

//go:noescape
func adam32(w, g, m, v []float32, c *adamConstants[float32])

//go:noescape
func transpose8(dst *float32, dstStride int, src *float32, srcStride, blocks int)

// fastSets returns the sets in assembly that this processor can run, the one to prefer first.
func fastSets() []kernelSet {
	var sets []kernelSet
	if canAVX2() {
		sets = append(sets, kernelSet{"avx2", avx2})
	}
	if canAVX512() {
		sets = append(sets, kernelSet{"avx512", avx512})
		if thisProcessor().wide() {
			slices.Reverse(sets)
		}
	}
	return sets
}

func canAVX2() bool { return cpu.X86.HasAVX2 && cpu.X86.HasFMA }

// avx2 takes the loops in assembly. Float64 keeps the portable element-wise ones: its exponentials are math.Exp's.
func avx2(k32 *kernels[float32], k64 *kernels[float64]) {
	k32.name, k64.name = "avx2", "avx2"
	k32.mr, k32.nr, k64.mr, k64.nr = 6, 16, 6, 8
	k32.tileRows, k32.tileCols, k32.tileVec = tileRows32, tileCols32, tileVec32
	k64.tileRows, k64.tileCols, k64.tileVec = tileRows64, tileCols64, tileVec64

	k32.packT, k32.packCols = packT32, packCols32
	k32.dot, k32.dot3 = dot32, dot3x32
	k32.plus, k32.axpy, k32.scale, k32.scaleMul = plus32, axpy32, scale32, scaleMul32
	k32.normGrad, k32.rotate = normGrad32, rotate32
	k32.silu, k32.siluGrad = silu32, siluGrad32
	k32.expSum, k32.softmaxGrad = expSum32, softmaxGrad32
	k32.adam = adam32
	k32.max = func(x []float32) float32 {
		if len(x) < 8 {
			return goMax(x)
		}
		return max32(x)
	}
	k32.sumSquares = func(x []float32) float64 {
		whole := len(x) &^ 7
		return sumSquares32(x[:whole]) + goSumSquares(x[whole:])
	}
}

// packT32 transposes whole strips by blocks of 8×8; the rest is left to the portable loop.
func packT32(dst, src []float32, ld, k, n, nr int) {
	blocks := k / 8
	if n < nr || blocks == 0 {
		packTransposed(dst, src, ld, k, n, nr)
		return
	}
	for r := 0; r < nr; r += 8 {
		transpose8(&dst[r], nr, &src[r*ld], ld, blocks)
	}
	if done := 8 * blocks; done < k {
		packTransposed(dst[done*nr:], src[done:], ld, k-done, n, nr)
	}
}

// packCols32 copies whole strips of either operand; the rest is left to the portable loop.
func packCols32(dst, src []float32, ld, k, n, nr int) {
	switch {
	case k == 0:
	case n == 16 && nr == 16:
		packCols16(&dst[0], &src[0], ld, k)
	case n == 6 && nr == 6:
		packCols6(&dst[0], &src[0], ld, k)
	default:
		packStrip(dst, src, ld, k, n, nr)
	}
}
