//go:build !purego

#include "textflag.h"

// Element-wise float32 loops with AVX-512: sixteen elements at a time, and what is left under a mask. Every element gets
// the operations that vector_amd64.s gives it, hence the same bits; sums differ in their order.

#define C4(name, v) \
	DATA name<>+0(SB)/4, $v \
	GLOBL name<>(SB), RODATA|NOPTR, $4

C4(expLow512, 0xc2ae0000)  // -87: e^-87 is still a normal number
C4(expHigh512, 0x42b00000) // 88
C4(log2e512, 0x3fb8aa3b)
C4(ln2hi512, 0xbf317200)   // -0.693145751953125
C4(ln2lo512, 0xb5bfbe8e)   // -1.42860677e-6
C4(exp0x512, 0x39506967)   // a polynomial for (e^r - 1 - r)/r² on |r| ≤ ln2/2
C4(exp1x512, 0x3ab743ce)
C4(exp2x512, 0x3c088908)
C4(exp3x512, 0x3d2aa9c1)
C4(exp4x512, 0x3e2aaaaa)
C4(exp5x512, 0x3f000000)
C4(one512, 0x3f800000)
C4(signs512, 0x80000000)

// The constants of EXP512 in Z20–Z31.
#define EXP_CONSTANTS512 \
	VBROADCASTSS expLow512<>(SB), Z20 \
	VBROADCASTSS log2e512<>(SB), Z21  \
	VBROADCASTSS ln2hi512<>(SB), Z22  \
	VBROADCASTSS ln2lo512<>(SB), Z23  \
	VBROADCASTSS exp0x512<>(SB), Z24  \
	VBROADCASTSS exp1x512<>(SB), Z25  \
	VBROADCASTSS exp2x512<>(SB), Z26  \
	VBROADCASTSS exp3x512<>(SB), Z27  \
	VBROADCASTSS exp4x512<>(SB), Z28  \
	VBROADCASTSS exp5x512<>(SB), Z29  \
	VBROADCASTSS one512<>(SB), Z30

// x = e^x, for x clamped to -87 from below; n, p and q are overwritten. x is the second source of the clamp, so that a
// NaN stays one.
#define EXP512(x, n, p, q) \
	VMAXPS       x, Z20, x \
	VMULPS       Z21, x, n \
	VRNDSCALEPS  $0, n, n  \
	VFMADD231PS  Z22, n, x \
	VFMADD231PS  Z23, n, x \
	VMOVAPS      Z24, p    \
	VFMADD213PS  Z25, x, p \
	VFMADD213PS  Z26, x, p \
	VFMADD213PS  Z27, x, p \
	VFMADD213PS  Z28, x, p \
	VFMADD213PS  Z29, x, p \
	VMULPS       x, x, q   \
	VADDPS       Z30, x, x \
	VFMADD231PS  q, p, x   \
	VCVTPS2DQ    n, n      \
	VPSLLD       $23, n, n \
	VPADDD       n, x, x

// Sets K1 to the mask of the CX < 16 elements that are left; clobbers R10.
#define MASK512 \
	MOVL  $1, R10 \
	SHLL  CX, R10 \
	DECL  R10     \
	KMOVW R10, K1

// Sums the sixteen elements of Z0 into X0; clobbers X1.
#define SUM16 \
	VEXTRACTF64X4 $1, Z0, Y1 \
	VADDPS  Y1, Y0, Y0       \
	VEXTRACTF128 $1, Y0, X1  \
	VADDPS  X1, X0, X0       \
	VHADDPS X0, X0, X0       \
	VHADDPS X0, X0, X0

// func max512(x []float32) float32, for at least 16 elements
TEXT ·max512(SB), NOSPLIT, $0-28
	MOVQ x_base+0(FP), SI
	MOVQ x_len+8(FP), CX
	VMOVUPS (SI), Z0
	VMOVAPS Z0, Z1
	LEAQ -64(SI)(CX*4), DX // the last sixteen, which may overlap
wide:
	CMPQ CX, $32
	JLT  rest
	VMAXPS (SI), Z0, Z0
	VMAXPS 64(SI), Z1, Z1
	ADDQ $128, SI
	SUBQ $32, CX
	JMP  wide
rest:
	CMPQ CX, $16
	JLT  last
	VMAXPS (SI), Z0, Z0
last:
	VMAXPS (DX), Z1, Z1
	VMAXPS Z1, Z0, Z0
	VEXTRACTF64X4 $1, Z0, Y1
	VMAXPS Y1, Y0, Y0
	VEXTRACTF128 $1, Y0, X1
	VMAXPS X1, X0, X0
	VSHUFPS $0x4e, X0, X0, X1
	VMAXPS X1, X0, X0
	VSHUFPS $0xb1, X0, X0, X1
	VMAXPS X1, X0, X0
	VZEROUPPER
	MOVSS X0, ret+24(FP)
	RET

// func expSum512(x []float32, m float32) float32
TEXT ·expSum512(SB), NOSPLIT, $0-36
	MOVQ x_base+0(FP), SI
	MOVQ x_len+8(FP), CX
	VBROADCASTSS m+24(FP), Z10
	EXP_CONSTANTS512
	VPXORQ Z0, Z0, Z0
	VPXORQ Z5, Z5, Z5
wide:
	CMPQ CX, $32
	JLT  narrow
	VMOVUPS (SI), Z1
	VMOVUPS 64(SI), Z6
	VSUBPS Z10, Z1, Z1
	VSUBPS Z10, Z6, Z6
	EXP512(Z1, Z2, Z3, Z4)
	EXP512(Z6, Z7, Z8, Z9)
	VMOVUPS Z1, (SI)
	VMOVUPS Z6, 64(SI)
	VADDPS Z1, Z0, Z0
	VADDPS Z6, Z5, Z5
	ADDQ $128, SI
	SUBQ $32, CX
	JMP  wide
narrow:
	CMPQ CX, $16
	JLT  rest
	VMOVUPS (SI), Z1
	VSUBPS Z10, Z1, Z1
	EXP512(Z1, Z2, Z3, Z4)
	VMOVUPS Z1, (SI)
	VADDPS Z1, Z0, Z0
	ADDQ $64, SI
	SUBQ $16, CX
rest:
	TESTQ CX, CX
	JZ   done
	MASK512
	VMOVUPS.Z (SI), K1, Z1
	VSUBPS Z10, Z1, Z1
	EXP512(Z1, Z2, Z3, Z4)
	VMOVUPS Z1, K1, (SI)
	VADDPS Z1, Z5, K1, Z5
done:
	VADDPS Z5, Z0, Z0
	SUM16
	VZEROUPPER
	MOVSS X0, ret+32(FP)
	RET

// func softmaxGrad512(p, dp []float32, lse, delta float32)
TEXT ·softmaxGrad512(SB), NOSPLIT, $0-56
	MOVQ p_base+0(FP), SI
	MOVQ p_len+8(FP), CX
	MOVQ dp_base+24(FP), DI
	VBROADCASTSS lse+48(FP), Z10
	VBROADCASTSS delta+52(FP), Z11
	EXP_CONSTANTS512
wide:
	CMPQ CX, $32
	JLT  narrow
	VMOVUPS (SI), Z1
	VMOVUPS 64(SI), Z6
	VSUBPS Z10, Z1, Z1
	VSUBPS Z10, Z6, Z6
	EXP512(Z1, Z2, Z3, Z4)
	EXP512(Z6, Z7, Z8, Z9)
	VMOVUPS (DI), Z2
	VMOVUPS 64(DI), Z7
	VSUBPS Z11, Z2, Z2
	VSUBPS Z11, Z7, Z7
	VMOVUPS Z1, (SI)
	VMOVUPS Z6, 64(SI)
	VMULPS Z1, Z2, Z2
	VMULPS Z6, Z7, Z7
	VMOVUPS Z2, (DI)
	VMOVUPS Z7, 64(DI)
	ADDQ $128, SI
	ADDQ $128, DI
	SUBQ $32, CX
	JMP  wide
narrow:
	CMPQ CX, $16
	JLT  rest
	VMOVUPS (SI), Z1
	VSUBPS Z10, Z1, Z1
	EXP512(Z1, Z2, Z3, Z4)
	VMOVUPS (DI), Z2
	VSUBPS Z11, Z2, Z2
	VMOVUPS Z1, (SI)
	VMULPS Z1, Z2, Z2
	VMOVUPS Z2, (DI)
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $16, CX
rest:
	TESTQ CX, CX
	JZ   done
	MASK512
	VMOVUPS.Z (SI), K1, Z1
	VSUBPS Z10, Z1, Z1
	EXP512(Z1, Z2, Z3, Z4)
	VMOVUPS.Z (DI), K1, Z2
	VSUBPS Z11, Z2, Z2
	VMOVUPS Z1, K1, (SI)
	VMULPS Z1, Z2, Z2
	VMOVUPS Z2, K1, (DI)
done:
	VZEROUPPER
	RET

// Z16 and Z17 for SIGMOID512.
#define SIGMOID_CONSTANTS512 \
	EXP_CONSTANTS512                    \
	VBROADCASTSS signs512<>(SB), Z16    \
	VBROADCASTSS expHigh512<>(SB), Z17

// Z1 = 1/(1+e^-Z0); clobbers Z2, Z3 and Z4.
#define SIGMOID512 \
	VPXORQ Z16, Z0, Z1     \
	VMINPS Z1, Z17, Z1     \
	EXP512(Z1, Z2, Z3, Z4) \
	VADDPS Z30, Z1, Z1     \
	VDIVPS Z1, Z30, Z1

// func silu512(y, gate, up []float32)
TEXT ·silu512(SB), NOSPLIT, $0-72
	MOVQ y_base+0(FP), DI
	MOVQ y_len+8(FP), CX
	MOVQ gate_base+24(FP), SI
	MOVQ up_base+48(FP), DX
	SIGMOID_CONSTANTS512
loop:
	CMPQ CX, $16
	JLT  rest
	VMOVUPS (SI), Z0
	SIGMOID512
	VMULPS Z1, Z0, Z0
	VMULPS (DX), Z0, Z0
	VMOVUPS Z0, (DI)
	ADDQ $64, DI
	ADDQ $64, SI
	ADDQ $64, DX
	SUBQ $16, CX
	JMP  loop
rest:
	TESTQ CX, CX
	JZ   done
	MASK512
	VMOVUPS.Z (SI), K1, Z0
	VMOVUPS.Z (DX), K1, Z5
	SIGMOID512
	VMULPS Z1, Z0, Z0
	VMULPS Z5, Z0, Z0
	VMOVUPS Z0, K1, (DI)
done:
	VZEROUPPER
	RET

// From gate Z0, up Z5, dy Z6: dgate Z7 = dy up s (1 + g (1-s)), dup Z8 = dy g s.
#define SILU_GRAD512 \
	SIGMOID512             \
	VMULPS Z0, Z1, Z2      \
	VMULPS Z6, Z2, Z8      \
	VSUBPS Z1, Z30, Z3     \
	VFMADD213PS Z1, Z2, Z3 \
	VMULPS Z6, Z5, Z5      \
	VMULPS Z5, Z3, Z7

// func siluGrad512(dgate, dup, dy, gate, up []float32)
TEXT ·siluGrad512(SB), NOSPLIT, $0-120
	MOVQ dgate_base+0(FP), DI
	MOVQ dgate_len+8(FP), CX
	MOVQ dup_base+24(FP), DX
	MOVQ dy_base+48(FP), SI
	MOVQ gate_base+72(FP), R8
	MOVQ up_base+96(FP), R9
	SIGMOID_CONSTANTS512
loop:
	CMPQ CX, $16
	JLT  rest
	VMOVUPS (R8), Z0
	VMOVUPS (R9), Z5
	VMOVUPS (SI), Z6
	SILU_GRAD512
	VMOVUPS Z7, (DI)
	VMOVUPS Z8, (DX)
	ADDQ $64, DI
	ADDQ $64, DX
	ADDQ $64, SI
	ADDQ $64, R8
	ADDQ $64, R9
	SUBQ $16, CX
	JMP  loop
rest:
	TESTQ CX, CX
	JZ   done
	MASK512
	VMOVUPS.Z (R8), K1, Z0
	VMOVUPS.Z (R9), K1, Z5
	VMOVUPS.Z (SI), K1, Z6
	SILU_GRAD512
	VMOVUPS Z7, K1, (DI)
	VMOVUPS Z8, K1, (DX)
done:
	VZEROUPPER
	RET
