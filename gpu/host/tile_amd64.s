//go:build !purego

#include "textflag.h"

// Tiles of 6 rows by two vectors of columns, for both element types.
//
// Y4–Y15 hold the tile, Y0 and Y1 a row of b, Y2 and Y3 elements of a. MOV, BCAST, FMA, ADD and XOR are the
// instructions of the type, SH the binary logarithm of its size. The loops take four k at a time: one at a time costs
// 3 % where k is short, as in attention with narrow heads, and nothing elsewhere.

#define ZERO(XOR) \
	XOR Y4, Y4, Y4    \
	XOR Y5, Y5, Y5    \
	XOR Y6, Y6, Y6    \
	XOR Y7, Y7, Y7    \
	XOR Y8, Y8, Y8    \
	XOR Y9, Y9, Y9    \
	XOR Y10, Y10, Y10 \
	XOR Y11, Y11, Y11 \
	XOR Y12, Y12, Y12 \
	XOR Y13, Y13, Y13 \
	XOR Y14, Y14, Y14 \
	XOR Y15, Y15, Y15

// Brings the rows of c near while the sums are made.
#define PREFETCH \
	MOVQ       DX, BX       \
	PREFETCHT0 (BX)         \
	PREFETCHT0 (BX)(R11*1)  \
	PREFETCHT0 (BX)(R11*2)  \
	LEAQ       (BX)(R11*2), BX \
	ADDQ       R11, BX      \
	PREFETCHT0 (BX)         \
	PREFETCHT0 (BX)(R11*1)  \
	PREFETCHT0 (BX)(R11*2)

// One k of a tile whose rows of a lie R8 bytes apart: SI is row 0 and R9 row 3.
#define STEP_ROWS(MOV, BCAST, FMA, ao, bo) \
	MOV   bo(DI), Y0         \
	MOV   (bo+32)(DI), Y1    \
	BCAST ao(SI), Y2         \
	BCAST ao(SI)(R8*1), Y3   \
	FMA   Y0, Y2, Y4         \
	FMA   Y1, Y2, Y5         \
	FMA   Y0, Y3, Y6         \
	FMA   Y1, Y3, Y7         \
	BCAST ao(SI)(R8*2), Y2   \
	BCAST ao(R9), Y3         \
	FMA   Y0, Y2, Y8         \
	FMA   Y1, Y2, Y9         \
	FMA   Y0, Y3, Y10        \
	FMA   Y1, Y3, Y11        \
	BCAST ao(R9)(R8*1), Y2   \
	BCAST ao(R9)(R8*2), Y3   \
	FMA   Y0, Y2, Y12        \
	FMA   Y1, Y2, Y13        \
	FMA   Y0, Y3, Y14        \
	FMA   Y1, Y3, Y15

// One k of a tile whose elements of a are consecutive at SI.
#define STEP_COLS(MOV, BCAST, FMA, S, bo) \
	MOV   bo(DI), Y0      \
	MOV   (bo+32)(DI), Y1 \
	PREFETCHT0 (SI)(R8*8) \
	BCAST (0*S)(SI), Y2   \
	BCAST (1*S)(SI), Y3   \
	FMA   Y0, Y2, Y4      \
	FMA   Y1, Y2, Y5      \
	FMA   Y0, Y3, Y6      \
	FMA   Y1, Y3, Y7      \
	BCAST (2*S)(SI), Y2   \
	BCAST (3*S)(SI), Y3   \
	FMA   Y0, Y2, Y8      \
	FMA   Y1, Y2, Y9      \
	FMA   Y0, Y3, Y10     \
	FMA   Y1, Y3, Y11     \
	BCAST (4*S)(SI), Y2   \
	BCAST (5*S)(SI), Y3   \
	ADDQ  R8, SI          \
	FMA   Y0, Y2, Y12     \
	FMA   Y1, Y2, Y13     \
	FMA   Y0, Y3, Y14     \
	FMA   Y1, Y3, Y15

#define STORE_ROW(MOV, lo, hi) \
	MOV  lo, (DX)   \
	MOV  hi, 32(DX) \
	ADDQ R11, DX

#define ADD_ROW(MOV, ADD, lo, hi) \
	ADD  (DX), lo, lo   \
	ADD  32(DX), hi, hi \
	STORE_ROW(MOV, lo, hi)

// Writes the tile, after which DX is the row below it, and goes on with the next group of rows.
#define FINISH(MOV, ADD) \
	TESTB  AX, AX              \
	JZ     write               \
	ADD_ROW(MOV, ADD, Y4, Y5)   \
	ADD_ROW(MOV, ADD, Y6, Y7)   \
	ADD_ROW(MOV, ADD, Y8, Y9)   \
	ADD_ROW(MOV, ADD, Y10, Y11) \
	ADD_ROW(MOV, ADD, Y12, Y13) \
	ADD_ROW(MOV, ADD, Y14, Y15) \
	JMP    next                \
write:                         \
	STORE_ROW(MOV, Y4, Y5)      \
	STORE_ROW(MOV, Y6, Y7)      \
	STORE_ROW(MOV, Y8, Y9)      \
	STORE_ROW(MOV, Y10, Y11)    \
	STORE_ROW(MOV, Y12, Y13)    \
	STORE_ROW(MOV, Y14, Y15)    \
next:                          \
	ADDQ   R13, R12            \
	MOVQ   CX, BX              \
	SHLQ   $6, BX              \
	SUBQ   BX, DI              \
	DECQ   R10                 \
	JNZ    group               \
	VZEROUPPER                 \
	RET

// R12 is the first element of a of the group and R13 the bytes to that of the next, R10 counts groups.
#define TILE_ROWS(MOV, BCAST, FMA, ADD, XOR, SH, S) \
	SHLQ $SH, R8            \
	SHLQ $SH, R11           \
	SHLQ $SH, R13           \
group:                      \
	MOVQ R12, SI            \
	LEAQ (SI)(R8*2), R9     \
	ADDQ R8, R9             \
	ZERO(XOR)               \
	PREFETCH                \
	MOVQ CX, BX             \
	SHRQ $2, BX             \
	JZ   tail               \
loop:                       \
	STEP_ROWS(MOV, BCAST, FMA, (0*S), 0)   \
	STEP_ROWS(MOV, BCAST, FMA, (1*S), 64)  \
	STEP_ROWS(MOV, BCAST, FMA, (2*S), 128) \
	STEP_ROWS(MOV, BCAST, FMA, (3*S), 192) \
	ADDQ $(4*S), SI         \
	ADDQ $(4*S), R9         \
	ADDQ $256, DI           \
	DECQ BX                 \
	JNZ  loop               \
tail:                       \
	MOVQ CX, BX             \
	ANDQ $3, BX             \
	JZ   done               \
one:                        \
	STEP_ROWS(MOV, BCAST, FMA, (0*S), 0) \
	ADDQ $S, SI             \
	ADDQ $S, R9             \
	ADDQ $64, DI            \
	DECQ BX                 \
	JNZ  one                \
done:                       \
	FINISH(MOV, ADD)

#define TILE_COLS(MOV, BCAST, FMA, ADD, XOR, SH, S) \
	SHLQ $SH, R8            \
	SHLQ $SH, R11           \
	SHLQ $SH, R13           \
group:                      \
	MOVQ R12, SI            \
	ZERO(XOR)               \
	PREFETCH                \
	MOVQ CX, BX             \
	SHRQ $2, BX             \
	JZ   tail               \
loop:                       \
	STEP_COLS(MOV, BCAST, FMA, S, 0)   \
	STEP_COLS(MOV, BCAST, FMA, S, 64)  \
	STEP_COLS(MOV, BCAST, FMA, S, 128) \
	STEP_COLS(MOV, BCAST, FMA, S, 192) \
	ADDQ $256, DI           \
	DECQ BX                 \
	JNZ  loop               \
tail:                       \
	MOVQ CX, BX             \
	ANDQ $3, BX             \
	JZ   done               \
one:                        \
	STEP_COLS(MOV, BCAST, FMA, S, 0) \
	ADDQ $64, DI            \
	DECQ BX                 \
	JNZ  one                \
done:                       \
	FINISH(MOV, ADD)

// func tileRows32(k, groups int, a *float32, lda, step int, b *float32, c *float32, ldc int, acc bool)
TEXT ·tileRows32(SB), NOSPLIT, $0-65
	MOVQ    k+0(FP), CX
	MOVQ    groups+8(FP), R10
	MOVQ    a+16(FP), R12
	MOVQ    lda+24(FP), R8
	MOVQ    step+32(FP), R13
	MOVQ    b+40(FP), DI
	MOVQ    c+48(FP), DX
	MOVQ    ldc+56(FP), R11
	MOVBLZX acc+64(FP), AX
	TILE_ROWS(VMOVUPS, VBROADCASTSS, VFMADD231PS, VADDPS, VXORPS, 2, 4)

// func tileCols32(k, groups int, a *float32, lda, step int, b *float32, c *float32, ldc int, acc bool)
TEXT ·tileCols32(SB), NOSPLIT, $0-65
	MOVQ    k+0(FP), CX
	MOVQ    groups+8(FP), R10
	MOVQ    a+16(FP), R12
	MOVQ    lda+24(FP), R8
	MOVQ    step+32(FP), R13
	MOVQ    b+40(FP), DI
	MOVQ    c+48(FP), DX
	MOVQ    ldc+56(FP), R11
	MOVBLZX acc+64(FP), AX
	TILE_COLS(VMOVUPS, VBROADCASTSS, VFMADD231PS, VADDPS, VXORPS, 2, 4)

// func tileRows64(k, groups int, a *float64, lda, step int, b *float64, c *float64, ldc int, acc bool)
TEXT ·tileRows64(SB), NOSPLIT, $0-65
	MOVQ    k+0(FP), CX
	MOVQ    groups+8(FP), R10
	MOVQ    a+16(FP), R12
	MOVQ    lda+24(FP), R8
	MOVQ    step+32(FP), R13
	MOVQ    b+40(FP), DI
	MOVQ    c+48(FP), DX
	MOVQ    ldc+56(FP), R11
	MOVBLZX acc+64(FP), AX
	TILE_ROWS(VMOVUPD, VBROADCASTSD, VFMADD231PD, VADDPD, VXORPD, 3, 8)

// func tileCols64(k, groups int, a *float64, lda, step int, b *float64, c *float64, ldc int, acc bool)
TEXT ·tileCols64(SB), NOSPLIT, $0-65
	MOVQ    k+0(FP), CX
	MOVQ    groups+8(FP), R10
	MOVQ    a+16(FP), R12
	MOVQ    lda+24(FP), R8
	MOVQ    step+32(FP), R13
	MOVQ    b+40(FP), DI
	MOVQ    c+48(FP), DX
	MOVQ    ldc+56(FP), R11
	MOVBLZX acc+64(FP), AX
	TILE_COLS(VMOVUPD, VBROADCASTSD, VFMADD231PD, VADDPD, VXORPD, 3, 8)

// One k of one row against four strips R8 bytes apart: DI is strip 0 and R9 strip 3.
#define STEP_VEC(BCAST, FMA, ao, bo) \
	BCAST ao(SI), Y2                     \
	FMA   bo(DI), Y2, Y4                 \
	FMA   (bo+32)(DI), Y2, Y5            \
	FMA   bo(DI)(R8*1), Y2, Y6           \
	FMA   (bo+32)(DI)(R8*1), Y2, Y7      \
	FMA   bo(DI)(R8*2), Y2, Y8           \
	FMA   (bo+32)(DI)(R8*2), Y2, Y9      \
	FMA   bo(R9), Y2, Y10                \
	FMA   (bo+32)(R9), Y2, Y11

#define PUT(MOV, ADD, o, y) \
	TESTB AX, AX        \
	JZ    2(PC)         \
	ADD   o(DX), y, y   \
	MOV   y, o(DX)

// BX is k, R12 a and R13 b.
#define TILE_VEC(MOV, BCAST, FMA, ADD, XOR, SH, S) \
	SHLQ $SH, R8         \
four:                    \
	CMPQ R10, $4         \
	JLT  single          \
	MOVQ R12, SI         \
	MOVQ R13, DI         \
	MOVQ BX, CX          \
	LEAQ (DI)(R8*2), R9  \
	ADDQ R8, R9          \
	ZERO(XOR)            \
fourk:                   \
	STEP_VEC(BCAST, FMA, 0, 0) \
	ADDQ $S, SI          \
	ADDQ $64, DI         \
	ADDQ $64, R9         \
	DECQ CX              \
	JNZ  fourk           \
	PUT(MOV, ADD, 0, Y4)     \
	PUT(MOV, ADD, 32, Y5)    \
	PUT(MOV, ADD, 64, Y6)    \
	PUT(MOV, ADD, 96, Y7)    \
	PUT(MOV, ADD, 128, Y8)   \
	PUT(MOV, ADD, 160, Y9)   \
	PUT(MOV, ADD, 192, Y10)  \
	PUT(MOV, ADD, 224, Y11)  \
	ADDQ $256, DX        \
	LEAQ (R13)(R8*4), R13 \
	SUBQ $4, R10         \
	JMP  four            \
single:                  \
	TESTQ R10, R10       \
	JZ   end             \
	MOVQ R12, SI         \
	MOVQ R13, DI         \
	MOVQ BX, CX          \
	XOR  Y4, Y4, Y4      \
	XOR  Y5, Y5, Y5      \
singlek:                 \
	BCAST (SI), Y2       \
	FMA  (DI), Y2, Y4    \
	FMA  32(DI), Y2, Y5  \
	ADDQ $S, SI          \
	ADDQ $64, DI         \
	DECQ CX              \
	JNZ  singlek         \
	PUT(MOV, ADD, 0, Y4)     \
	PUT(MOV, ADD, 32, Y5)    \
	ADDQ $64, DX         \
	ADDQ R8, R13         \
	DECQ R10             \
	JMP  single          \
end:                     \
	VZEROUPPER           \
	RET

// func tileVec32(k int, a *float32, b *float32, stride, strips int, c *float32, acc bool)
TEXT ·tileVec32(SB), NOSPLIT, $0-49
	MOVQ    k+0(FP), BX
	MOVQ    a+8(FP), R12
	MOVQ    b+16(FP), R13
	MOVQ    stride+24(FP), R8
	MOVQ    strips+32(FP), R10
	MOVQ    c+40(FP), DX
	MOVBLZX acc+48(FP), AX
	TILE_VEC(VMOVUPS, VBROADCASTSS, VFMADD231PS, VADDPS, VXORPS, 2, 4)

// func tileVec64(k int, a *float64, b *float64, stride, strips int, c *float64, acc bool)
TEXT ·tileVec64(SB), NOSPLIT, $0-49
	MOVQ    k+0(FP), BX
	MOVQ    a+8(FP), R12
	MOVQ    b+16(FP), R13
	MOVQ    stride+24(FP), R8
	MOVQ    strips+32(FP), R10
	MOVQ    c+40(FP), DX
	MOVBLZX acc+48(FP), AX
	TILE_VEC(VMOVUPD, VBROADCASTSD, VFMADD231PD, VADDPD, VXORPD, 3, 8)

// func packCols16(dst, src *float32, ld, k int)
TEXT ·packCols16(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ ld+16(FP), R8
	MOVQ k+24(FP), CX
	SHLQ $2, R8
loop:
	VMOVUPS (SI), Y0
	VMOVUPS 32(SI), Y1
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	ADDQ    R8, SI
	ADDQ    $64, DI
	DECQ    CX
	JNZ     loop
	VZEROUPPER
	RET

// func packCols6(dst, src *float32, ld, k int)
TEXT ·packCols6(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ ld+16(FP), R8
	MOVQ k+24(FP), CX
	SHLQ $2, R8
loop:
	MOVUPS (SI), X0
	MOVQ   16(SI), AX
	MOVUPS X0, (DI)
	MOVQ   AX, 16(DI)
	ADDQ   R8, SI
	ADDQ   $24, DI
	DECQ   CX
	JNZ    loop
	RET
