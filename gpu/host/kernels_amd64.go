//go:build !purego

package host

import "golang.org/x/sys/cpu"

// The assembly is in tile_amd64.s and vector_amd64.s.

//go:noescape
func tileRows32(k int, a *float32, lda int, b *float32, c *float32, ldc int, acc bool)

//go:noescape
func tileCols32(k int, a *float32, lda int, b *float32, c *float32, ldc int, acc bool)

//go:noescape
func tileVec32(k int, a *float32, b *float32, stride, strips int, c *float32, acc bool)

//go:noescape
func tileRows64(k int, a *float64, lda int, b *float64, c *float64, ldc int, acc bool)

//go:noescape
func tileCols64(k int, a *float64, lda int, b *float64, c *float64, ldc int, acc bool)

//go:noescape
func tileVec64(k int, a *float64, b *float64, stride, strips int, c *float64, acc bool)

// fastKernels replaces the portable kernels where the processor has better ones. Float64 keeps
// the portable element-wise loops: its exponentials are math.Exp's.
func fastKernels(k32 *kernels[float32], k64 *kernels[float64]) {
	if !cpu.X86.HasAVX2 || !cpu.X86.HasFMA {
		return
	}
	k32.name, k64.name = "avx2", "avx2"
	k32.mr, k32.nr, k64.mr, k64.nr = 6, 16, 6, 8
	k32.tileRows, k32.tileCols, k32.tileVec = tileRows32, tileCols32, tileVec32
	k64.tileRows, k64.tileCols, k64.tileVec = tileRows64, tileCols64, tileVec64
}
