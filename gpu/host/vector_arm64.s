//go:build !purego

#include "textflag.h"

// Instructions on four float32 that the assembler has no name for; operands are register numbers, the
// destination last.
#define FADD(m, n, d) WORD $(0x4E20D400 | ((m)<<16) | ((n)<<5) | (d))
#define FSUB(m, n, d) WORD $(0x4EA0D400 | ((m)<<16) | ((n)<<5) | (d)) // n - m
#define FMUL(m, n, d) WORD $(0x6E20DC00 | ((m)<<16) | ((n)<<5) | (d))
#define FDIV(m, n, d) WORD $(0x6E20FC00 | ((m)<<16) | ((n)<<5) | (d)) // n / m
#define FMAX(m, n, d) WORD $(0x4E20F400 | ((m)<<16) | ((n)<<5) | (d))
#define FMIN(m, n, d) WORD $(0x4EA0F400 | ((m)<<16) | ((n)<<5) | (d))
#define FADDP(m, n, d) WORD $(0x6E20D400 | ((m)<<16) | ((n)<<5) | (d))
#define FNEG(n, d) WORD $(0x6EA0F800 | ((n)<<5) | (d))
#define FRINTN(n, d) WORD $(0x4E218800 | ((n)<<5) | (d))
#define FCVTNS(n, d) WORD $(0x4E21A800 | ((n)<<5) | (d))
#define SHL23(n, d) WORD $(0x4F375400 | ((n)<<5) | (d))

// func dotNEON(x, y []float32) float32, for a multiple of 16 elements
TEXT ·dotNEON(SB), NOSPLIT, $0-52
	MOVD x_base+0(FP), R0
	MOVD x_len+8(FP), R1
	MOVD y_base+24(FP), R2
	VEOR V0.B16, V0.B16, V0.B16
	VEOR V1.B16, V1.B16, V1.B16
	VEOR V2.B16, V2.B16, V2.B16
	VEOR V3.B16, V3.B16, V3.B16
	CBZ R1, done
loop:
	VLD1.P 64(R0), [V4.S4, V5.S4, V6.S4, V7.S4]
	VLD1.P 64(R2), [V16.S4, V17.S4, V18.S4, V19.S4]
	VFMLA V4.S4, V16.S4, V0.S4
	VFMLA V5.S4, V17.S4, V1.S4
	VFMLA V6.S4, V18.S4, V2.S4
	VFMLA V7.S4, V19.S4, V3.S4
	SUBS $16, R1, R1
	BNE loop
done:
	FADD(1, 0, 0)
	FADD(3, 2, 2)
	FADD(2, 0, 0)
	FADDP(0, 0, 0)
	FADDP(0, 0, 0)
	FMOVS F0, ret+48(FP)
	RET

// Constants of the exponential in V16–V27: -87, 88, log2 e, -ln 2 in two parts, the polynomial
// for (e^r - 1 - r)/r² on |r| ≤ ln2/2, and 1.
DATA exps<>+0(SB)/8, $0x42b00000c2ae0000
DATA exps<>+8(SB)/8, $0xbf3172003fb8aa3b
DATA exps<>+16(SB)/8, $0x39506967b5bfbe8e
DATA exps<>+24(SB)/8, $0x3c0889083ab743ce
DATA exps<>+32(SB)/8, $0x3e2aaaaa3d2aa9c1
DATA exps<>+40(SB)/8, $0x3f8000003f000000
GLOBL exps<>(SB), RODATA|NOPTR, $48

#define CONSTANTS \
	MOVD $exps<>(SB), R9 \
	VLD1R.P 4(R9), [V16.S4] \
	VLD1R.P 4(R9), [V17.S4] \
	VLD1R.P 4(R9), [V18.S4] \
	VLD1R.P 4(R9), [V19.S4] \
	VLD1R.P 4(R9), [V20.S4] \
	VLD1R.P 4(R9), [V21.S4] \
	VLD1R.P 4(R9), [V22.S4] \
	VLD1R.P 4(R9), [V23.S4] \
	VLD1R.P 4(R9), [V24.S4] \
	VLD1R.P 4(R9), [V25.S4] \
	VLD1R.P 4(R9), [V26.S4] \
	VLD1R.P 4(R9), [V27.S4]

// V0 = e^V0 for elements in [-87, 88]; V1, V2 and V3 are overwritten.
#define EXP \
	FMAX(16, 0, 0)            \
	FMIN(17, 0, 0)            \
	FMUL(18, 0, 1)            \
	FRINTN(1, 1)              \
	VFMLA V19.S4, V1.S4, V0.S4 \
	VFMLA V20.S4, V1.S4, V0.S4 \
	VMOV  V22.B16, V3.B16      \
	VFMLA V21.S4, V0.S4, V3.S4 \
	VMOV  V23.B16, V2.B16      \
	VFMLA V3.S4, V0.S4, V2.S4  \
	VMOV  V24.B16, V3.B16      \
	VFMLA V2.S4, V0.S4, V3.S4  \
	VMOV  V25.B16, V2.B16      \
	VFMLA V3.S4, V0.S4, V2.S4  \
	VMOV  V26.B16, V3.B16      \
	VFMLA V2.S4, V0.S4, V3.S4  \
	FMUL(0, 0, 2)             \
	FADD(27, 0, 0)            \
	VFMLA V3.S4, V2.S4, V0.S4  \
	FCVTNS(1, 1)              \
	SHL23(1, 1)               \
	VADD  V1.S4, V0.S4, V0.S4

// The loops below take a multiple of 4 elements, at least 4.

// func expSumNEON(x []float32, m float32) float32
TEXT ·expSumNEON(SB), NOSPLIT, $0-36
	MOVD  x_base+0(FP), R0
	MOVD  x_len+8(FP), R1
	FMOVS m+24(FP), F4
	VDUP  V4.S[0], V4.S4
	VEOR  V5.B16, V5.B16, V5.B16
	CONSTANTS
loop:
	VLD1 (R0), [V0.S4]
	FSUB(4, 0, 0)
	EXP
	VST1.P [V0.S4], 16(R0)
	FADD(0, 5, 5)
	SUBS $4, R1, R1
	BNE  loop
	FADDP(5, 5, 5)
	FADDP(5, 5, 5)
	FMOVS F5, ret+32(FP)
	RET

// func softmaxGradNEON(p, dp []float32, lse, delta float32)
TEXT ·softmaxGradNEON(SB), NOSPLIT, $0-56
	MOVD  p_base+0(FP), R0
	MOVD  p_len+8(FP), R1
	MOVD  dp_base+24(FP), R2
	FMOVS lse+48(FP), F4
	VDUP  V4.S[0], V4.S4
	FMOVS delta+52(FP), F6
	VDUP  V6.S[0], V6.S4
	CONSTANTS
loop:
	VLD1 (R0), [V0.S4]
	FSUB(4, 0, 0)
	EXP
	VLD1 (R2), [V5.S4]
	FSUB(6, 5, 5)
	FMUL(0, 5, 5)
	VST1.P [V0.S4], 16(R0)
	VST1.P [V5.S4], 16(R2)
	SUBS $4, R1, R1
	BNE  loop
	RET

// func siluNEON(y, gate, up []float32)
TEXT ·siluNEON(SB), NOSPLIT, $0-72
	MOVD y_base+0(FP), R0
	MOVD y_len+8(FP), R1
	MOVD gate_base+24(FP), R2
	MOVD up_base+48(FP), R3
	CONSTANTS
loop:
	VLD1.P 16(R2), [V4.S4]
	FNEG(4, 0)
	EXP
	FADD(27, 0, 0)
	FDIV(0, 4, 0)
	VLD1.P 16(R3), [V5.S4]
	FMUL(5, 0, 0)
	VST1.P [V0.S4], 16(R0)
	SUBS $4, R1, R1
	BNE  loop
	RET

// func siluGradNEON(dgate, dup, dy, gate, up []float32)
TEXT ·siluGradNEON(SB), NOSPLIT, $0-120
	MOVD dgate_base+0(FP), R0
	MOVD dgate_len+8(FP), R1
	MOVD dup_base+24(FP), R2
	MOVD dy_base+48(FP), R3
	MOVD gate_base+72(FP), R4
	MOVD up_base+96(FP), R5
	CONSTANTS
loop:
	VLD1.P 16(R4), [V4.S4] // g
	VLD1.P 16(R3), [V28.S4]
	VLD1.P 16(R5), [V29.S4]
	FNEG(4, 0)
	EXP
	FADD(27, 0, 0)
	FDIV(0, 27, 5)   // s
	FMUL(4, 5, 6)    // g s
	FMUL(28, 6, 30)  // dup
	FSUB(5, 27, 7)   // 1 - s
	VFMLA V7.S4, V6.S4, V5.S4
	FMUL(28, 29, 29) // dy up
	FMUL(29, 5, 5)
	VST1.P [V5.S4], 16(R0)
	VST1.P [V30.S4], 16(R2)
	SUBS $4, R1, R1
	BNE  loop
	RET
