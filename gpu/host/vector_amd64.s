//go:build !purego

#include "textflag.h"

// Element-wise float32 loops with AVX2 and FMA. Each works on eight elements at a time and on what is left
// under a mask, so that any length and any alignment is right.

#define C8(name, v) \
	DATA name<>+0(SB)/8, $v  \
	DATA name<>+8(SB)/8, $v  \
	DATA name<>+16(SB)/8, $v \
	DATA name<>+24(SB)/8, $v \
	GLOBL name<>(SB), RODATA|NOPTR, $32

C8(expLow, 0xc2ae0000c2ae0000)  // -87: e^-87 is still a normal number
C8(expHigh, 0x42b0000042b00000) // 88
C8(log2e, 0x3fb8aa3b3fb8aa3b)
C8(ln2hi, 0xbf317200bf317200)   // -0.693145751953125
C8(ln2lo, 0xb5bfbe8eb5bfbe8e)   // -1.42860677e-6
C8(exp0, 0x3950696739506967)    // a polynomial for (e^r - 1 - r)/r² on |r| ≤ ln2/2
C8(exp1, 0x3ab743ce3ab743ce)
C8(exp2, 0x3c0889083c088908)
C8(exp3, 0x3d2aa9c13d2aa9c1)
C8(exp4, 0x3e2aaaaa3e2aaaaa)
C8(exp5, 0x3f0000003f000000)
C8(one, 0x3f8000003f800000)
C8(signs, 0x8000000080000000)

// Eight ones followed by eight zeros: the mask of r elements is at 32 - 4r.
DATA masks<>+0(SB)/8, $-1
DATA masks<>+8(SB)/8, $-1
DATA masks<>+16(SB)/8, $-1
DATA masks<>+24(SB)/8, $-1
DATA masks<>+32(SB)/8, $0
DATA masks<>+40(SB)/8, $0
DATA masks<>+48(SB)/8, $0
DATA masks<>+56(SB)/8, $0
GLOBL masks<>(SB), RODATA|NOPTR, $64

// Sets y to the mask of the CX < 8 elements that are left; clobbers R10 and R11.
#define MASK(y) \
	LEAQ    masks<>+32(SB), R10 \
	MOVQ    CX, R11             \
	SHLQ    $2, R11             \
	SUBQ    R11, R10            \
	VMOVDQU (R10), y

// x = e^x, for x clamped to -87 from below; n, p and q are overwritten. x is the second source of the
// clamp, so that a NaN stays one.
#define EXP(x, n, p, q) \
	VMOVUPS      expLow<>(SB), p     \
	VMAXPS       x, p, x             \
	VMULPS       log2e<>(SB), x, n   \
	VROUNDPS     $0, n, n            \
	VFMADD231PS  ln2hi<>(SB), n, x   \
	VFMADD231PS  ln2lo<>(SB), n, x   \
	VMOVUPS      exp0<>(SB), p       \
	VFMADD213PS  exp1<>(SB), x, p    \
	VFMADD213PS  exp2<>(SB), x, p    \
	VFMADD213PS  exp3<>(SB), x, p    \
	VFMADD213PS  exp4<>(SB), x, p    \
	VFMADD213PS  exp5<>(SB), x, p    \
	VMULPS       x, x, q             \
	VADDPS       one<>(SB), x, x     \
	VFMADD231PS  q, p, x             \
	VCVTPS2DQ    n, n                \
	VPSLLD       $23, n, n           \
	VPADDD       n, x, x

// Sums the eight elements of Y0 into X0; clobbers Y1.
#define SUM8 \
	VEXTRACTF128 $1, Y0, X1 \
	VADDPS  X1, X0, X0      \
	VHADDPS X0, X0, X0      \
	VHADDPS X0, X0, X0

// func dot32(x, y []float32) float32
TEXT ·dot32(SB), NOSPLIT, $0-52
	MOVQ x_base+0(FP), SI
	MOVQ x_len+8(FP), CX
	MOVQ y_base+24(FP), DI
	VXORPS Y0, Y0, Y0
	VXORPS Y2, Y2, Y2
	VXORPS Y3, Y3, Y3
	VXORPS Y4, Y4, Y4
wide:
	CMPQ CX, $32
	JLT  narrow
	VMOVUPS (SI), Y5
	VMOVUPS 32(SI), Y6
	VMOVUPS 64(SI), Y7
	VMOVUPS 96(SI), Y8
	VFMADD231PS (DI), Y5, Y0
	VFMADD231PS 32(DI), Y6, Y2
	VFMADD231PS 64(DI), Y7, Y3
	VFMADD231PS 96(DI), Y8, Y4
	ADDQ $128, SI
	ADDQ $128, DI
	SUBQ $32, CX
	JMP  wide
narrow:
	CMPQ CX, $8
	JLT  rest
	VMOVUPS (SI), Y5
	VFMADD231PS (DI), Y5, Y0
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JMP  narrow
rest:
	TESTQ CX, CX
	JZ   done
	MASK(Y9)
	VMASKMOVPS (SI), Y9, Y5
	VMASKMOVPS (DI), Y9, Y6
	VFMADD231PS Y5, Y6, Y2
done:
	VADDPS Y2, Y0, Y0
	VADDPS Y4, Y3, Y3
	VADDPS Y3, Y0, Y0
	SUM8
	VZEROUPPER
	MOVSS X0, ret+48(FP)
	RET

// func dot3x32(x, y, z []float32) float32
TEXT ·dot3x32(SB), NOSPLIT, $0-76
	MOVQ x_base+0(FP), SI
	MOVQ x_len+8(FP), CX
	MOVQ y_base+24(FP), DI
	MOVQ z_base+48(FP), DX
	VXORPS Y0, Y0, Y0
	VXORPS Y2, Y2, Y2
wide:
	CMPQ CX, $16
	JLT  narrow
	VMOVUPS (SI), Y5
	VMOVUPS 32(SI), Y6
	VMULPS (DI), Y5, Y5
	VMULPS 32(DI), Y6, Y6
	VFMADD231PS (DX), Y5, Y0
	VFMADD231PS 32(DX), Y6, Y2
	ADDQ $64, SI
	ADDQ $64, DI
	ADDQ $64, DX
	SUBQ $16, CX
	JMP  wide
narrow:
	CMPQ CX, $8
	JLT  rest
	VMOVUPS (SI), Y5
	VMULPS (DI), Y5, Y5
	VFMADD231PS (DX), Y5, Y0
	ADDQ $32, SI
	ADDQ $32, DI
	ADDQ $32, DX
	SUBQ $8, CX
rest:
	TESTQ CX, CX
	JZ   done
	MASK(Y9)
	VMASKMOVPS (SI), Y9, Y5
	VMASKMOVPS (DI), Y9, Y6
	VMASKMOVPS (DX), Y9, Y7
	VMULPS Y6, Y5, Y5
	VFMADD231PS Y7, Y5, Y2
done:
	VADDPS Y2, Y0, Y0
	SUM8
	VZEROUPPER
	MOVSS X0, ret+72(FP)
	RET

// func plus32(y, x []float32)
TEXT ·plus32(SB), NOSPLIT, $0-48
	MOVQ y_base+0(FP), DI
	MOVQ y_len+8(FP), CX
	MOVQ x_base+24(FP), SI
wide:
	CMPQ CX, $16
	JLT  narrow
	VMOVUPS (DI), Y0
	VMOVUPS 32(DI), Y1
	VADDPS (SI), Y0, Y0
	VADDPS 32(SI), Y1, Y1
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $16, CX
	JMP  wide
narrow:
	CMPQ CX, $8
	JLT  rest
	VMOVUPS (DI), Y0
	VADDPS (SI), Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
rest:
	TESTQ CX, CX
	JZ   done
	MASK(Y9)
	VMASKMOVPS (DI), Y9, Y0
	VMASKMOVPS (SI), Y9, Y1
	VADDPS Y1, Y0, Y0
	VMASKMOVPS Y0, Y9, (DI)
done:
	VZEROUPPER
	RET

// func axpy32(y, x []float32, a float32)
TEXT ·axpy32(SB), NOSPLIT, $0-52
	MOVQ y_base+0(FP), DI
	MOVQ y_len+8(FP), CX
	MOVQ x_base+24(FP), SI
	VBROADCASTSS a+48(FP), Y8
loop:
	CMPQ CX, $8
	JLT  rest
	VMOVUPS (DI), Y0
	VFMADD231PS (SI), Y8, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JMP  loop
rest:
	TESTQ CX, CX
	JZ   done
	MASK(Y9)
	VMASKMOVPS (DI), Y9, Y0
	VMASKMOVPS (SI), Y9, Y1
	VFMADD231PS Y1, Y8, Y0
	VMASKMOVPS Y0, Y9, (DI)
done:
	VZEROUPPER
	RET

// func scale32(x []float32, a float32)
TEXT ·scale32(SB), NOSPLIT, $0-28
	MOVQ x_base+0(FP), DI
	MOVQ x_len+8(FP), CX
	VBROADCASTSS a+24(FP), Y8
loop:
	CMPQ CX, $8
	JLT  rest
	VMULPS (DI), Y8, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, DI
	SUBQ $8, CX
	JMP  loop
rest:
	TESTQ CX, CX
	JZ   done
	MASK(Y9)
	VMASKMOVPS (DI), Y9, Y0
	VMULPS Y8, Y0, Y0
	VMASKMOVPS Y0, Y9, (DI)
done:
	VZEROUPPER
	RET

// func scaleMul32(y, x, w []float32, a float32)
TEXT ·scaleMul32(SB), NOSPLIT, $0-76
	MOVQ y_base+0(FP), DI
	MOVQ y_len+8(FP), CX
	MOVQ x_base+24(FP), SI
	MOVQ w_base+48(FP), DX
	VBROADCASTSS a+72(FP), Y8
loop:
	CMPQ CX, $8
	JLT  rest
	VMULPS (SI), Y8, Y0
	VMULPS (DX), Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	ADDQ $32, DX
	SUBQ $8, CX
	JMP  loop
rest:
	TESTQ CX, CX
	JZ   done
	MASK(Y9)
	VMASKMOVPS (SI), Y9, Y0
	VMASKMOVPS (DX), Y9, Y1
	VMULPS Y8, Y0, Y0
	VMULPS Y1, Y0, Y0
	VMASKMOVPS Y0, Y9, (DI)
done:
	VZEROUPPER
	RET

// func normGrad32(dx, dw, dy, x, w []float32, r, c float32)
TEXT ·normGrad32(SB), NOSPLIT, $0-128
	MOVQ dx_base+0(FP), DI
	MOVQ dx_len+8(FP), CX
	MOVQ dw_base+24(FP), DX
	MOVQ dy_base+48(FP), SI
	MOVQ x_base+72(FP), R8
	MOVQ w_base+96(FP), R9
	VBROADCASTSS r+120(FP), Y8
	VBROADCASTSS c+124(FP), Y7
loop:
	CMPQ CX, $8
	JLT  rest
	VMULPS (SI), Y8, Y0
	VMOVUPS (R8), Y1
	VMOVUPS (DI), Y2
	VMOVUPS (DX), Y3
	VFMADD231PS (R9), Y0, Y2
	VFNMADD231PS Y1, Y7, Y2
	VFMADD231PS Y1, Y0, Y3
	VMOVUPS Y2, (DI)
	VMOVUPS Y3, (DX)
	ADDQ $32, DI
	ADDQ $32, DX
	ADDQ $32, SI
	ADDQ $32, R8
	ADDQ $32, R9
	SUBQ $8, CX
	JMP  loop
rest:
	TESTQ CX, CX
	JZ   done
	MASK(Y9)
	VMASKMOVPS (SI), Y9, Y0
	VMASKMOVPS (R8), Y9, Y1
	VMASKMOVPS (DI), Y9, Y2
	VMASKMOVPS (DX), Y9, Y3
	VMASKMOVPS (R9), Y9, Y4
	VMULPS Y8, Y0, Y0
	VFMADD231PS Y4, Y0, Y2
	VFNMADD231PS Y1, Y7, Y2
	VFMADD231PS Y1, Y0, Y3
	VMASKMOVPS Y2, Y9, (DI)
	VMASKMOVPS Y3, Y9, (DX)
done:
	VZEROUPPER
	RET

// func rotate32(a, b, cos, sin []float32)
TEXT ·rotate32(SB), NOSPLIT, $0-96
	MOVQ a_base+0(FP), DI
	MOVQ a_len+8(FP), CX
	MOVQ b_base+24(FP), SI
	MOVQ cos_base+48(FP), R8
	MOVQ sin_base+72(FP), R9
loop:
	CMPQ CX, $8
	JLT  rest
	VMOVUPS (DI), Y0
	VMOVUPS (SI), Y1
	VMOVUPS (R8), Y2
	VMOVUPS (R9), Y3
	VMULPS Y2, Y0, Y4
	VMULPS Y2, Y1, Y5
	VFNMADD231PS Y3, Y1, Y4
	VFMADD231PS Y3, Y0, Y5
	VMOVUPS Y4, (DI)
	VMOVUPS Y5, (SI)
	ADDQ $32, DI
	ADDQ $32, SI
	ADDQ $32, R8
	ADDQ $32, R9
	SUBQ $8, CX
	JMP  loop
rest:
	TESTQ CX, CX
	JZ   done
	MASK(Y9)
	VMASKMOVPS (DI), Y9, Y0
	VMASKMOVPS (SI), Y9, Y1
	VMASKMOVPS (R8), Y9, Y2
	VMASKMOVPS (R9), Y9, Y3
	VMULPS Y2, Y0, Y4
	VMULPS Y2, Y1, Y5
	VFNMADD231PS Y3, Y1, Y4
	VFMADD231PS Y3, Y0, Y5
	VMASKMOVPS Y4, Y9, (DI)
	VMASKMOVPS Y5, Y9, (SI)
done:
	VZEROUPPER
	RET

// Y1 = 1/(1+e^-Y0); clobbers Y2, Y3 and Y4.
#define SIGMOID \
	VXORPS signs<>(SB), Y0, Y1 \
	VMOVUPS expHigh<>(SB), Y2  \
	VMINPS Y1, Y2, Y1          \
	EXP(Y1, Y2, Y3, Y4)        \
	VMOVUPS one<>(SB), Y2      \
	VADDPS Y2, Y1, Y1          \
	VDIVPS Y1, Y2, Y1

// func silu32(y, gate, up []float32)
TEXT ·silu32(SB), NOSPLIT, $0-72
	MOVQ y_base+0(FP), DI
	MOVQ y_len+8(FP), CX
	MOVQ gate_base+24(FP), SI
	MOVQ up_base+48(FP), DX
loop:
	CMPQ CX, $8
	JLT  rest
	VMOVUPS (SI), Y0
	SIGMOID
	VMULPS Y1, Y0, Y0
	VMULPS (DX), Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ $32, DI
	ADDQ $32, SI
	ADDQ $32, DX
	SUBQ $8, CX
	JMP  loop
rest:
	TESTQ CX, CX
	JZ   done
	MASK(Y9)
	VMASKMOVPS (SI), Y9, Y0
	VMASKMOVPS (DX), Y9, Y5
	SIGMOID
	VMULPS Y1, Y0, Y0
	VMULPS Y5, Y0, Y0
	VMASKMOVPS Y0, Y9, (DI)
done:
	VZEROUPPER
	RET

// From gate Y0, up Y5, dy Y6: dgate Y7 = dy up s (1 + g (1-s)), dup Y8 = dy g s.
#define SILU_GRAD \
	SIGMOID                \
	VMULPS Y0, Y1, Y2      \
	VMULPS Y6, Y2, Y8      \
	VMOVUPS one<>(SB), Y3  \
	VSUBPS Y1, Y3, Y3      \
	VFMADD213PS Y1, Y2, Y3 \
	VMULPS Y6, Y5, Y5      \
	VMULPS Y5, Y3, Y7

// func siluGrad32(dgate, dup, dy, gate, up []float32)
TEXT ·siluGrad32(SB), NOSPLIT, $0-120
	MOVQ dgate_base+0(FP), DI
	MOVQ dgate_len+8(FP), CX
	MOVQ dup_base+24(FP), DX
	MOVQ dy_base+48(FP), SI
	MOVQ gate_base+72(FP), R8
	MOVQ up_base+96(FP), R9
loop:
	CMPQ CX, $8
	JLT  rest
	VMOVUPS (R8), Y0
	VMOVUPS (R9), Y5
	VMOVUPS (SI), Y6
	SILU_GRAD
	VMOVUPS Y7, (DI)
	VMOVUPS Y8, (DX)
	ADDQ $32, DI
	ADDQ $32, DX
	ADDQ $32, SI
	ADDQ $32, R8
	ADDQ $32, R9
	SUBQ $8, CX
	JMP  loop
rest:
	TESTQ CX, CX
	JZ   done
	MASK(Y9)
	VMASKMOVPS (R8), Y9, Y0
	VMASKMOVPS (R9), Y9, Y5
	VMASKMOVPS (SI), Y9, Y6
	SILU_GRAD
	VMASKMOVPS Y7, Y9, (DI)
	VMASKMOVPS Y8, Y9, (DX)
done:
	VZEROUPPER
	RET

// func max32(x []float32) float32, for at least 8 elements
TEXT ·max32(SB), NOSPLIT, $0-28
	MOVQ x_base+0(FP), SI
	MOVQ x_len+8(FP), CX
	VMOVUPS (SI), Y0
	VMOVAPS Y0, Y1
	LEAQ -32(SI)(CX*4), DX // the last eight, which may overlap
wide:
	CMPQ CX, $16
	JLT  rest
	VMAXPS (SI), Y0, Y0
	VMAXPS 32(SI), Y1, Y1
	ADDQ $64, SI
	SUBQ $16, CX
	JMP  wide
rest:
	CMPQ CX, $8
	JLT  last
	VMAXPS (SI), Y0, Y0
last:
	VMAXPS (DX), Y1, Y1
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

// func expSum32(x []float32, m float32) float32
TEXT ·expSum32(SB), NOSPLIT, $0-36
	MOVQ x_base+0(FP), SI
	MOVQ x_len+8(FP), CX
	VBROADCASTSS m+24(FP), Y10
	VXORPS Y0, Y0, Y0
	VXORPS Y5, Y5, Y5
wide:
	CMPQ CX, $16
	JLT  narrow
	VMOVUPS (SI), Y1
	VMOVUPS 32(SI), Y6
	VSUBPS Y10, Y1, Y1
	VSUBPS Y10, Y6, Y6
	EXP(Y1, Y2, Y3, Y4)
	EXP(Y6, Y7, Y8, Y9)
	VMOVUPS Y1, (SI)
	VMOVUPS Y6, 32(SI)
	VADDPS Y1, Y0, Y0
	VADDPS Y6, Y5, Y5
	ADDQ $64, SI
	SUBQ $16, CX
	JMP  wide
narrow:
	CMPQ CX, $8
	JLT  rest
	VMOVUPS (SI), Y1
	VSUBPS Y10, Y1, Y1
	EXP(Y1, Y2, Y3, Y4)
	VMOVUPS Y1, (SI)
	VADDPS Y1, Y0, Y0
	ADDQ $32, SI
	SUBQ $8, CX
rest:
	TESTQ CX, CX
	JZ   done
	MASK(Y11)
	VMASKMOVPS (SI), Y11, Y1
	VSUBPS Y10, Y1, Y1
	EXP(Y1, Y2, Y3, Y4)
	VMASKMOVPS Y1, Y11, (SI)
	VANDPS Y11, Y1, Y1
	VADDPS Y1, Y5, Y5
done:
	VADDPS Y5, Y0, Y0
	SUM8
	VZEROUPPER
	MOVSS X0, ret+32(FP)
	RET

// func softmaxGrad32(p, dp []float32, lse, delta float32)
TEXT ·softmaxGrad32(SB), NOSPLIT, $0-56
	MOVQ p_base+0(FP), SI
	MOVQ p_len+8(FP), CX
	MOVQ dp_base+24(FP), DI
	VBROADCASTSS lse+48(FP), Y10
	VBROADCASTSS delta+52(FP), Y11
wide:
	CMPQ CX, $16
	JLT  narrow
	VMOVUPS (SI), Y1
	VMOVUPS 32(SI), Y6
	VSUBPS Y10, Y1, Y1
	VSUBPS Y10, Y6, Y6
	EXP(Y1, Y2, Y3, Y4)
	EXP(Y6, Y7, Y8, Y9)
	VMOVUPS (DI), Y2
	VMOVUPS 32(DI), Y7
	VSUBPS Y11, Y2, Y2
	VSUBPS Y11, Y7, Y7
	VMOVUPS Y1, (SI)
	VMOVUPS Y6, 32(SI)
	VMULPS Y1, Y2, Y2
	VMULPS Y6, Y7, Y7
	VMOVUPS Y2, (DI)
	VMOVUPS Y7, 32(DI)
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $16, CX
	JMP  wide
narrow:
	CMPQ CX, $8
	JLT  rest
	VMOVUPS (SI), Y1
	VSUBPS Y10, Y1, Y1
	EXP(Y1, Y2, Y3, Y4)
	VMOVUPS (DI), Y2
	VSUBPS Y11, Y2, Y2
	VMOVUPS Y1, (SI)
	VMULPS Y1, Y2, Y2
	VMOVUPS Y2, (DI)
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
rest:
	TESTQ CX, CX
	JZ   done
	MASK(Y12)
	VMASKMOVPS (SI), Y12, Y1
	VSUBPS Y10, Y1, Y1
	EXP(Y1, Y2, Y3, Y4)
	VMASKMOVPS (DI), Y12, Y2
	VSUBPS Y11, Y2, Y2
	VMASKMOVPS Y1, Y12, (SI)
	VMULPS Y1, Y2, Y2
	VMASKMOVPS Y2, Y12, (DI)
done:
	VZEROUPPER
	RET

// func sumSquares32(x []float32) float64, for a multiple of 8 elements
TEXT ·sumSquares32(SB), NOSPLIT, $0-32
	MOVQ x_base+0(FP), SI
	MOVQ x_len+8(FP), CX
	VXORPD Y0, Y0, Y0
	VXORPD Y1, Y1, Y1
loop:
	CMPQ CX, $8
	JLT  done
	VCVTPS2PD (SI), Y2
	VCVTPS2PD 16(SI), Y3
	VFMADD231PD Y2, Y2, Y0
	VFMADD231PD Y3, Y3, Y1
	ADDQ $32, SI
	SUBQ $8, CX
	JMP  loop
done:
	VADDPD Y1, Y0, Y0
	VEXTRACTF128 $1, Y0, X1
	VADDPD X1, X0, X0
	VHADDPD X0, X0, X0
	VZEROUPPER
	MOVSD X0, ret+24(FP)
	RET

// The update of one vector: w Y0, g Y1, m Y2, v Y3. Constants Y4–Y12 in the order of adamConstants.
#define ADAM \
	VMULPS Y4, Y1, Y1         \
	VMULPS Y5, Y2, Y2         \
	VFMADD231PS Y6, Y1, Y2    \
	VMULPS Y7, Y3, Y3         \
	VMULPS Y1, Y1, Y1         \
	VFMADD231PS Y8, Y1, Y3    \
	VSQRTPS Y3, Y1            \
	VFMADD213PS Y12, Y11, Y1  \
	VMULPS Y10, Y2, Y13       \
	VDIVPS Y1, Y13, Y1        \
	VMULPS Y9, Y0, Y0         \
	VSUBPS Y1, Y0, Y0

// func adam32(w, g, m, v []float32, c *adamConstants[float32])
TEXT ·adam32(SB), NOSPLIT, $0-104
	MOVQ w_base+0(FP), DI
	MOVQ w_len+8(FP), CX
	MOVQ g_base+24(FP), SI
	MOVQ m_base+48(FP), R8
	MOVQ v_base+72(FP), R9
	MOVQ c+96(FP), DX
	VBROADCASTSS (DX), Y4
	VBROADCASTSS 4(DX), Y5
	VBROADCASTSS 8(DX), Y6
	VBROADCASTSS 12(DX), Y7
	VBROADCASTSS 16(DX), Y8
	VBROADCASTSS 20(DX), Y9
	VBROADCASTSS 24(DX), Y10
	VBROADCASTSS 28(DX), Y11
	VBROADCASTSS 32(DX), Y12
loop:
	CMPQ CX, $8
	JLT  rest
	VMOVUPS (DI), Y0
	VMOVUPS (SI), Y1
	VMOVUPS (R8), Y2
	VMOVUPS (R9), Y3
	ADAM
	VMOVUPS Y0, (DI)
	VMOVUPS Y2, (R8)
	VMOVUPS Y3, (R9)
	ADDQ $32, DI
	ADDQ $32, SI
	ADDQ $32, R8
	ADDQ $32, R9
	SUBQ $8, CX
	JMP  loop
rest:
	TESTQ CX, CX
	JZ   done
	MASK(Y14)
	VMASKMOVPS (DI), Y14, Y0
	VMASKMOVPS (SI), Y14, Y1
	VMASKMOVPS (R8), Y14, Y2
	VMASKMOVPS (R9), Y14, Y3
	ADAM
	VMASKMOVPS Y0, Y14, (DI)
	VMASKMOVPS Y2, Y14, (R8)
	VMASKMOVPS Y3, Y14, (R9)
done:
	VZEROUPPER
	RET

// func transpose8(dst *float32, dstStride int, src *float32, srcStride, blocks int)
// Eight rows of 8·blocks elements, srcStride apart, become rows of eight, dstStride apart.
TEXT ·transpose8(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ dstStride+8(FP), R8
	MOVQ src+16(FP), SI
	MOVQ srcStride+24(FP), R9
	MOVQ blocks+32(FP), CX
	SHLQ $2, R8
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R10
	LEAQ (R8)(R8*2), R11
loop:
	LEAQ (SI)(R9*4), DX
	VMOVUPS (SI), Y0
	VMOVUPS (SI)(R9*1), Y1
	VMOVUPS (SI)(R9*2), Y2
	VMOVUPS (SI)(R10*1), Y3
	VMOVUPS (DX), Y4
	VMOVUPS (DX)(R9*1), Y5
	VMOVUPS (DX)(R9*2), Y6
	VMOVUPS (DX)(R10*1), Y7
	VUNPCKLPS Y1, Y0, Y8
	VUNPCKHPS Y1, Y0, Y9
	VUNPCKLPS Y3, Y2, Y10
	VUNPCKHPS Y3, Y2, Y11
	VUNPCKLPS Y5, Y4, Y12
	VUNPCKHPS Y5, Y4, Y13
	VUNPCKLPS Y7, Y6, Y14
	VUNPCKHPS Y7, Y6, Y15
	VSHUFPS $0x44, Y10, Y8, Y0
	VSHUFPS $0xee, Y10, Y8, Y1
	VSHUFPS $0x44, Y11, Y9, Y2
	VSHUFPS $0xee, Y11, Y9, Y3
	VSHUFPS $0x44, Y14, Y12, Y4
	VSHUFPS $0xee, Y14, Y12, Y5
	VSHUFPS $0x44, Y15, Y13, Y6
	VSHUFPS $0xee, Y15, Y13, Y7
	VPERM2F128 $0x20, Y4, Y0, Y8
	VPERM2F128 $0x20, Y5, Y1, Y9
	VPERM2F128 $0x20, Y6, Y2, Y10
	VPERM2F128 $0x20, Y7, Y3, Y11
	VPERM2F128 $0x31, Y4, Y0, Y12
	VPERM2F128 $0x31, Y5, Y1, Y13
	VPERM2F128 $0x31, Y6, Y2, Y14
	VPERM2F128 $0x31, Y7, Y3, Y15
	LEAQ (DI)(R8*4), DX
	VMOVUPS Y8, (DI)
	VMOVUPS Y9, (DI)(R8*1)
	VMOVUPS Y10, (DI)(R8*2)
	VMOVUPS Y11, (DI)(R11*1)
	VMOVUPS Y12, (DX)
	VMOVUPS Y13, (DX)(R8*1)
	VMOVUPS Y14, (DX)(R8*2)
	VMOVUPS Y15, (DX)(R11*1)
	ADDQ $32, SI
	LEAQ (DI)(R8*8), DI
	DECQ CX
	JNZ  loop
	VZEROUPPER
	RET
