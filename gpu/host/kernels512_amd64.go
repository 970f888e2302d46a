//go:build !purego

package host

import "golang.org/x/sys/cpu"

// The assembly is in tile512_amd64.s, vector512_amd64.s and cpuid_amd64.s.

//go:noescape
func tileRows32x512(k, groups int, a *float32, lda, step int, b *float32, c *float32, ldc int, acc bool)

//go:noescape
func tileCols32x512(k, groups int, a *float32, lda, step int, b *float32, c *float32, ldc int, acc bool)

//go:noescape
func tileVec32x512(k int, a *float32, b *float32, stride, strips int, c *float32, acc bool)

//go:noescape
func tileRows64x512(k, groups int, a *float64, lda, step int, b *float64, c *float64, ldc int, acc bool)

//go:noescape
func tileCols64x512(k, groups int, a *float64, lda, step int, b *float64, c *float64, ldc int, acc bool)

//go:noescape
func tileVec64x512(k int, a *float64, b *float64, stride, strips int, c *float64, acc bool)

//go:noescape
func packCols32w(dst, src *float32, ld, k int)

//go:noescape
func packCols12(dst, src *float32, ld, k int)

//go:noescape
func max512(x []float32) float32

//go:noescape
func expSum512(x []float32, m float32) float32

//go:noescape
func softmaxGrad512(p, dp []float32, lse, delta float32)

//go:noescape
func silu512(y, gate, up []float32)

//go:noescape
func siluGrad512(dgate, dup, dy, gate, up []float32)

// cpuid returns the processor's answer to a leaf (sub-leaf 0).
func cpuid(leaf uint32) (eax, ebx, ecx, edx uint32)

// canAVX512 reports whether processor and system have what the kernels use, AVX2's included.
func canAVX512() bool {
	return canAVX2() && cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512BW
}

// avx512 takes the wide registers for the loops that arithmetic bounds: products and exponentials. The others wait for
// memory whatever the width and stay as they are.
func avx512(k32 *kernels[float32], k64 *kernels[float64]) {
	avx2(k32, k64)
	k32.name, k64.name = "avx512", "avx512"
	k32.mr, k32.nr, k64.mr, k64.nr = 12, 32, 12, 16
	k32.tileRows, k32.tileCols, k32.tileVec = tileRows32x512, tileCols32x512, tileVec32x512
	k64.tileRows, k64.tileCols, k64.tileVec = tileRows64x512, tileCols64x512, tileVec64x512
	k32.packCols = packColumns512
	k32.silu, k32.siluGrad = silu512, siluGrad512
	k32.expSum, k32.softmaxGrad = expSum512, softmaxGrad512
	k32.max = func(x []float32) float32 {
		if len(x) < 16 {
			return goMax(x)
		}
		return max512(x)
	}
}

// packColumns512 copies whole strips of either operand; the rest is left to the portable loop.
func packColumns512(dst, src []float32, ld, k, n, nr int) {
	switch {
	case k == 0:
	case n == 32 && nr == 32:
		packCols32w(&dst[0], &src[0], ld, k)
	case n == 12 && nr == 12:
		packCols12(&dst[0], &src[0], ld, k)
	default:
		packStrip(dst, src, ld, k, n, nr)
	}
}

// processor is what tells processors with the same instructions apart.
type processor struct {
	vendor        string
	family, model int
	amx           bool
}

func thisProcessor() processor {
	_, b, c, d := cpuid(0)
	var vendor []byte
	for _, r := range [3]uint32{b, d, c} {
		vendor = append(vendor, byte(r), byte(r>>8), byte(r>>16), byte(r>>24))
	}
	p := processor{vendor: string(vendor), amx: cpu.X86.HasAMXTile}
	a, _, _, _ := cpuid(1)
	p.family, p.model = int(a>>8&15), int(a>>4&15)
	if p.family == 6 || p.family == 15 {
		p.model |= int(a >> 16 & 15 << 4)
	}
	if p.family == 15 {
		p.family += int(a >> 20 & 255)
	}
	return p
}

// wide reports whether 512-bit multiplications are twice the work of 256-bit ones a cycle. Where they are not, on Intel's
// small cores and AMD's Zen 4, AVX2 is as fast without the lower clock that some processors fall to. It is decided by
// name, not by a stopwatch: the choice is part of the device's class, which must be the same in every run on a machine.
func (p processor) wide() bool {
	switch p.vendor {
	case "GenuineIntel":
		// Skylake-X and Cascade Lake; Ice Lake servers; and from Sapphire Rapids on all servers, which AMX marks.
		return p.amx || p.family == 6 && (p.model == 0x55 || p.model == 0x6a || p.model == 0x6c)
	case "AuthenticAMD":
		return p.family >= 0x1a // Zen 5
	}
	return false
}
