//go:build !purego

#include "textflag.h"

// Tiles of 12 rows by two vectors of columns with AVX-512, for both element types.
//
// Z8–Z31 hold the tile, Z0 and Z1 a row of b, Z2–Z7 elements of a. MOV, BCAST, FMA and ADD are the instructions of the
// type, SH the binary logarithm of its size and S the size. One k is 24 multiplications, so that the loop needs no
// unrolling: its overhead hides behind them.

#define ZERO512(z) VPXORQ z, z, z

#define ZERO_TILE512 \
	ZERO512(Z8)  \
	ZERO512(Z9)  \
	ZERO512(Z10) \
	ZERO512(Z11) \
	ZERO512(Z12) \
	ZERO512(Z13) \
	ZERO512(Z14) \
	ZERO512(Z15) \
	ZERO512(Z16) \
	ZERO512(Z17) \
	ZERO512(Z18) \
	ZERO512(Z19) \
	ZERO512(Z20) \
	ZERO512(Z21) \
	ZERO512(Z22) \
	ZERO512(Z23) \
	ZERO512(Z24) \
	ZERO512(Z25) \
	ZERO512(Z26) \
	ZERO512(Z27) \
	ZERO512(Z28) \
	ZERO512(Z29) \
	ZERO512(Z30) \
	ZERO512(Z31)

#define ROW512(FMA, x, lo, hi) \
	FMA Z0, x, lo \
	FMA Z1, x, hi

// Brings the rows of c near while the sums are made.
#define PREFETCH_ROW512 \
	PREFETCHT0 (BX)   \
	PREFETCHT0 64(BX) \
	ADDQ R11, BX

#define PREFETCH512 \
	MOVQ DX, BX     \
	PREFETCH_ROW512 \
	PREFETCH_ROW512 \
	PREFETCH_ROW512 \
	PREFETCH_ROW512 \
	PREFETCH_ROW512 \
	PREFETCH_ROW512 \
	PREFETCH_ROW512 \
	PREFETCH_ROW512 \
	PREFETCH_ROW512 \
	PREFETCH_ROW512 \
	PREFETCH_ROW512 \
	PREFETCH_ROW512

// Three rows of one k, whose elements of a lie R8 bytes apart from p on.
#define THREE_ROWS512(BCAST, FMA, p, l0, h0, l1, h1, l2, h2) \
	BCAST (p), Z2        \
	BCAST (p)(R8*1), Z3  \
	BCAST (p)(R8*2), Z4  \
	ROW512(FMA, Z2, l0, h0) \
	ROW512(FMA, Z3, l1, h1) \
	ROW512(FMA, Z4, l2, h2)

// One k of a tile whose rows of a lie R8 bytes apart: SI, R9, R14 and R15 are rows 0, 3, 6 and 9.
#define STEP_ROWS512(MOV, BCAST, FMA, S) \
	MOV  (DI), Z0   \
	MOV  64(DI), Z1 \
	THREE_ROWS512(BCAST, FMA, SI, Z8, Z9, Z10, Z11, Z12, Z13)    \
	THREE_ROWS512(BCAST, FMA, R9, Z14, Z15, Z16, Z17, Z18, Z19)  \
	THREE_ROWS512(BCAST, FMA, R14, Z20, Z21, Z22, Z23, Z24, Z25) \
	THREE_ROWS512(BCAST, FMA, R15, Z26, Z27, Z28, Z29, Z30, Z31) \
	ADDQ $S, SI     \
	ADDQ $S, R9     \
	ADDQ $S, R14    \
	ADDQ $S, R15    \
	ADDQ $128, DI

#define TWO_COLS512(BCAST, FMA, S, r, l0, h0, l1, h1) \
	BCAST (r*S)(SI), Z2         \
	BCAST (r*S+S)(SI), Z3       \
	ROW512(FMA, Z2, l0, h0)     \
	ROW512(FMA, Z3, l1, h1)

// One k of a tile whose elements of a are consecutive at SI.
#define STEP_COLS512(MOV, BCAST, FMA, S) \
	MOV  (DI), Z0   \
	MOV  64(DI), Z1 \
	PREFETCHT0 (SI)(R8*8) \
	TWO_COLS512(BCAST, FMA, S, 0, Z8, Z9, Z10, Z11)    \
	TWO_COLS512(BCAST, FMA, S, 2, Z12, Z13, Z14, Z15)  \
	TWO_COLS512(BCAST, FMA, S, 4, Z16, Z17, Z18, Z19)  \
	TWO_COLS512(BCAST, FMA, S, 6, Z20, Z21, Z22, Z23)  \
	TWO_COLS512(BCAST, FMA, S, 8, Z24, Z25, Z26, Z27)  \
	TWO_COLS512(BCAST, FMA, S, 10, Z28, Z29, Z30, Z31) \
	ADDQ R8, SI     \
	ADDQ $128, DI

#define STORE_ROW512(MOV, lo, hi) \
	MOV  lo, (DX)   \
	MOV  hi, 64(DX) \
	ADDQ R11, DX

#define ADD_ROW512(ADD, lo, hi) \
	ADD  (BX), lo, lo   \
	ADD  64(BX), hi, hi \
	ADDQ R11, BX

// Writes the tile, after which DX is the row below it, and goes on with the next group of rows.
#define FINISH512(MOV, ADD) \
	TESTB AX, AX             \
	JZ    write              \
	MOVQ  DX, BX             \
	ADD_ROW512(ADD, Z8, Z9)   \
	ADD_ROW512(ADD, Z10, Z11) \
	ADD_ROW512(ADD, Z12, Z13) \
	ADD_ROW512(ADD, Z14, Z15) \
	ADD_ROW512(ADD, Z16, Z17) \
	ADD_ROW512(ADD, Z18, Z19) \
	ADD_ROW512(ADD, Z20, Z21) \
	ADD_ROW512(ADD, Z22, Z23) \
	ADD_ROW512(ADD, Z24, Z25) \
	ADD_ROW512(ADD, Z26, Z27) \
	ADD_ROW512(ADD, Z28, Z29) \
	ADD_ROW512(ADD, Z30, Z31) \
write:                        \
	STORE_ROW512(MOV, Z8, Z9)   \
	STORE_ROW512(MOV, Z10, Z11) \
	STORE_ROW512(MOV, Z12, Z13) \
	STORE_ROW512(MOV, Z14, Z15) \
	STORE_ROW512(MOV, Z16, Z17) \
	STORE_ROW512(MOV, Z18, Z19) \
	STORE_ROW512(MOV, Z20, Z21) \
	STORE_ROW512(MOV, Z22, Z23) \
	STORE_ROW512(MOV, Z24, Z25) \
	STORE_ROW512(MOV, Z26, Z27) \
	STORE_ROW512(MOV, Z28, Z29) \
	STORE_ROW512(MOV, Z30, Z31) \
	ADDQ  R13, R12            \
	MOVQ  CX, BX              \
	SHLQ  $7, BX              \
	SUBQ  BX, DI              \
	DECQ  R10                 \
	JNZ   group               \
	VZEROUPPER                \
	RET

// R12 is the first element of a of the group and R13 the bytes to that of the next, R10 counts groups.
#define TILE_ROWS512(MOV, BCAST, FMA, ADD, SH, S) \
	SHLQ $SH, R8          \
	SHLQ $SH, R11         \
	SHLQ $SH, R13         \
group:                    \
	MOVQ R12, SI          \
	LEAQ (R8)(R8*2), BX   \
	LEAQ (SI)(BX*1), R9   \
	LEAQ (SI)(BX*2), R14  \
	LEAQ (R9)(BX*2), R15  \
	ZERO_TILE512          \
	PREFETCH512           \
	MOVQ CX, BX           \
loop:                     \
	STEP_ROWS512(MOV, BCAST, FMA, S) \
	DECQ BX               \
	JNZ  loop             \
	FINISH512(MOV, ADD)

#define TILE_COLS512(MOV, BCAST, FMA, ADD, SH, S) \
	SHLQ $SH, R8          \
	SHLQ $SH, R11         \
	SHLQ $SH, R13         \
group:                    \
	MOVQ R12, SI          \
	ZERO_TILE512          \
	PREFETCH512           \
	MOVQ CX, BX           \
loop:                     \
	STEP_COLS512(MOV, BCAST, FMA, S) \
	DECQ BX               \
	JNZ  loop             \
	FINISH512(MOV, ADD)

// func tileRows32x512(k, groups int, a *float32, lda, step int, b *float32, c *float32, ldc int, acc bool)
TEXT ·tileRows32x512(SB), NOSPLIT, $0-65
	MOVQ    k+0(FP), CX
	MOVQ    groups+8(FP), R10
	MOVQ    a+16(FP), R12
	MOVQ    lda+24(FP), R8
	MOVQ    step+32(FP), R13
	MOVQ    b+40(FP), DI
	MOVQ    c+48(FP), DX
	MOVQ    ldc+56(FP), R11
	MOVBLZX acc+64(FP), AX
	TILE_ROWS512(VMOVUPS, VBROADCASTSS, VFMADD231PS, VADDPS, 2, 4)

// func tileCols32x512(k, groups int, a *float32, lda, step int, b *float32, c *float32, ldc int, acc bool)
TEXT ·tileCols32x512(SB), NOSPLIT, $0-65
	MOVQ    k+0(FP), CX
	MOVQ    groups+8(FP), R10
	MOVQ    a+16(FP), R12
	MOVQ    lda+24(FP), R8
	MOVQ    step+32(FP), R13
	MOVQ    b+40(FP), DI
	MOVQ    c+48(FP), DX
	MOVQ    ldc+56(FP), R11
	MOVBLZX acc+64(FP), AX
	TILE_COLS512(VMOVUPS, VBROADCASTSS, VFMADD231PS, VADDPS, 2, 4)

// func tileRows64x512(k, groups int, a *float64, lda, step int, b *float64, c *float64, ldc int, acc bool)
TEXT ·tileRows64x512(SB), NOSPLIT, $0-65
	MOVQ    k+0(FP), CX
	MOVQ    groups+8(FP), R10
	MOVQ    a+16(FP), R12
	MOVQ    lda+24(FP), R8
	MOVQ    step+32(FP), R13
	MOVQ    b+40(FP), DI
	MOVQ    c+48(FP), DX
	MOVQ    ldc+56(FP), R11
	MOVBLZX acc+64(FP), AX
	TILE_ROWS512(VMOVUPD, VBROADCASTSD, VFMADD231PD, VADDPD, 3, 8)

// func tileCols64x512(k, groups int, a *float64, lda, step int, b *float64, c *float64, ldc int, acc bool)
TEXT ·tileCols64x512(SB), NOSPLIT, $0-65
	MOVQ    k+0(FP), CX
	MOVQ    groups+8(FP), R10
	MOVQ    a+16(FP), R12
	MOVQ    lda+24(FP), R8
	MOVQ    step+32(FP), R13
	MOVQ    b+40(FP), DI
	MOVQ    c+48(FP), DX
	MOVQ    ldc+56(FP), R11
	MOVBLZX acc+64(FP), AX
	TILE_COLS512(VMOVUPD, VBROADCASTSD, VFMADD231PD, VADDPD, 3, 8)

#define PUT512(MOV, ADD, o, z) \
	TESTB AX, AX        \
	JZ    2(PC)         \
	ADD   o(DX), z, z   \
	MOV   z, o(DX)

// One row against R10 strips R8 bytes apart, four at a time and then one by one. BX is k, R12 a and R13 b; in the loop DI
// is strip 0 and R9 strip 3.
#define TILE_VEC512(MOV, BCAST, FMA, ADD, SH, S) \
	SHLQ $SH, R8         \
four:                    \
	CMPQ R10, $4         \
	JLT  single          \
	MOVQ R12, SI         \
	MOVQ R13, DI         \
	MOVQ BX, CX          \
	LEAQ (DI)(R8*2), R9  \
	ADDQ R8, R9          \
	ZERO512(Z8)          \
	ZERO512(Z9)          \
	ZERO512(Z10)         \
	ZERO512(Z11)         \
	ZERO512(Z12)         \
	ZERO512(Z13)         \
	ZERO512(Z14)         \
	ZERO512(Z15)         \
fourk:                   \
	BCAST (SI), Z2       \
	FMA  (DI), Z2, Z8    \
	FMA  64(DI), Z2, Z9  \
	FMA  (DI)(R8*1), Z2, Z10   \
	FMA  64(DI)(R8*1), Z2, Z11 \
	FMA  (DI)(R8*2), Z2, Z12   \
	FMA  64(DI)(R8*2), Z2, Z13 \
	FMA  (R9), Z2, Z14   \
	FMA  64(R9), Z2, Z15 \
	ADDQ $S, SI          \
	ADDQ $128, DI        \
	ADDQ $128, R9        \
	DECQ CX              \
	JNZ  fourk           \
	PUT512(MOV, ADD, 0, Z8)    \
	PUT512(MOV, ADD, 64, Z9)   \
	PUT512(MOV, ADD, 128, Z10) \
	PUT512(MOV, ADD, 192, Z11) \
	PUT512(MOV, ADD, 256, Z12) \
	PUT512(MOV, ADD, 320, Z13) \
	PUT512(MOV, ADD, 384, Z14) \
	PUT512(MOV, ADD, 448, Z15) \
	ADDQ $512, DX        \
	LEAQ (R13)(R8*4), R13 \
	SUBQ $4, R10         \
	JMP  four            \
single:                  \
	TESTQ R10, R10       \
	JZ   end             \
	MOVQ R12, SI         \
	MOVQ R13, DI         \
	MOVQ BX, CX          \
	ZERO512(Z8)          \
	ZERO512(Z9)          \
singlek:                 \
	BCAST (SI), Z2       \
	FMA  (DI), Z2, Z8    \
	FMA  64(DI), Z2, Z9  \
	ADDQ $S, SI          \
	ADDQ $128, DI        \
	DECQ CX              \
	JNZ  singlek         \
	PUT512(MOV, ADD, 0, Z8)  \
	PUT512(MOV, ADD, 64, Z9) \
	ADDQ $128, DX        \
	ADDQ R8, R13         \
	DECQ R10             \
	JMP  single          \
end:                     \
	VZEROUPPER           \
	RET

// func tileVec32x512(k int, a *float32, b *float32, stride, strips int, c *float32, acc bool)
TEXT ·tileVec32x512(SB), NOSPLIT, $0-49
	MOVQ    k+0(FP), BX
	MOVQ    a+8(FP), R12
	MOVQ    b+16(FP), R13
	MOVQ    stride+24(FP), R8
	MOVQ    strips+32(FP), R10
	MOVQ    c+40(FP), DX
	MOVBLZX acc+48(FP), AX
	TILE_VEC512(VMOVUPS, VBROADCASTSS, VFMADD231PS, VADDPS, 2, 4)

// func tileVec64x512(k int, a *float64, b *float64, stride, strips int, c *float64, acc bool)
TEXT ·tileVec64x512(SB), NOSPLIT, $0-49
	MOVQ    k+0(FP), BX
	MOVQ    a+8(FP), R12
	MOVQ    b+16(FP), R13
	MOVQ    stride+24(FP), R8
	MOVQ    strips+32(FP), R10
	MOVQ    c+40(FP), DX
	MOVBLZX acc+48(FP), AX
	TILE_VEC512(VMOVUPD, VBROADCASTSD, VFMADD231PD, VADDPD, 3, 8)

// func packCols32w(dst, src *float32, ld, k int)
TEXT ·packCols32w(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ ld+16(FP), R8
	MOVQ k+24(FP), CX
	SHLQ $2, R8
loop:
	VMOVUPS (SI), Z0
	VMOVUPS 64(SI), Z1
	VMOVUPS Z0, (DI)
	VMOVUPS Z1, 64(DI)
	ADDQ    R8, SI
	ADDQ    $128, DI
	DECQ    CX
	JNZ     loop
	VZEROUPPER
	RET

// func packCols12(dst, src *float32, ld, k int)
TEXT ·packCols12(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ ld+16(FP), R8
	MOVQ k+24(FP), CX
	SHLQ $2, R8
loop:
	VMOVUPS (SI), Y0
	VMOVUPS 32(SI), X1
	VMOVUPS Y0, (DI)
	VMOVUPS X1, 32(DI)
	ADDQ    R8, SI
	ADDQ    $48, DI
	DECQ    CX
	JNZ     loop
	VZEROUPPER
	RET
