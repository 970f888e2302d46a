// What every kernel is written in. The kernels include no header, so that the run-time compiler needs none; on a machine
// without a card the emulator defines EMULATED and gives the same names its own meaning.
//
// T is the element type of weights and activations (u16 holds a bfloat16, or float), W that of gradients of
// weights and of statistics, D a head width. All arithmetic is in float unless a kernel says otherwise.
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifndef EMULATED
#define DEV static __device__ __forceinline__
#define KERNEL(name, threads) extern "C" __global__ void __launch_bounds__(threads, 1) name
#define SHARED(type, name)                                    \
	extern __shared__ __align__(128) unsigned char block_[]; \
	type *name = (type *)block_
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")
#define INFINITE __int_as_float(0x7f800000)

DEV float bits_float(u32 x) { return __uint_as_float(x); }

// Two bfloat16 in a word, the first in its low half, rounded to nearest even.
DEV u32 pack(float low, float high) {
	u32 r;
	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
	return r;
}

DEV float exp2_fast(float x) {
	float y;
	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}

// 1/x to a unit in the last place, 0 of what is beyond 2¹²⁶; the exact division is a call, which costs registers.
DEV float reciprocal(float x) {
	float y;
	asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}

DEV u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

// copy16 starts copying 16 bytes to shared memory, or zeros when there is nothing to copy.
DEV void copy16(void *to, const void *from, bool there) {
	int n = there ? 16 : 0;
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(n) : "memory");
}
DEV void copies_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> DEV void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// Four 8×8 matrices of u16, the row addresses from lanes 0–7, 8–15, 16–23, 24–31.
DEV void load4(u32 *r, const void *row) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
		     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
DEV void load4_transposed(u32 *r, const void *row) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
		     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// c[16,8] += a[16,16] b[16,8]; a lane holds rows lane/4 and lane/4+8, columns 2(lane%4) and the next.
DEV void multiply(float *c, const u32 *a, u32 b0, u32 b1) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
		     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
		     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A product and a sum that are rounded each, whatever stands around them.
DEV float rounded_product(float x, float y) { return __fmul_rn(x, y); }
DEV float rounded_sum(float x, float y) { return __fadd_rn(x, y); }
DEV u64 high_product(u64 x, u64 y) { return __umul64hi(x, y); }
// add_whole and least change a number that many threads change; their results do not depend on the order.
DEV void add_whole(u64 *to, u64 x) { atomicAdd(to, x); }
DEV void least(int *to, int x) { atomicMin(to, x); }
#endif

DEV float value(float x) { return x; }
DEV float value(u16 x) { return bits_float((u32)x << 16); }
DEV void put(float *p, float v) { *p = v; }
DEV void put(u16 *p, float v) { *p = (u16)pack(v, 0.f); }

DEV float warp_sum(float v) {
	for (int m = 16; m; m /= 2) v += __shfl_xor_sync(0xffffffffu, v, m);
	return v;
}
DEV float warp_max(float v) {
	for (int m = 16; m; m /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, m));
	return v;
}

// block_sum adds over the block in one order; scratch has a float for each warp.
DEV float block_sum(float v, float *scratch) {
	v = warp_sum(v);
	__syncthreads();
	if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
	__syncthreads();
	float s = 0;
	for (int i = 0; i < (int)blockDim.x / 32; i++) s += scratch[i];
	return s;
}
DEV float block_max(float v, float *scratch) {
	v = warp_max(v);
	__syncthreads();
	if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
	__syncthreads();
	float s = scratch[0];
	for (int i = 1; i < (int)blockDim.x / 32; i++) s = fmaxf(s, scratch[i]);
	return s;
}

// Rows are the keys and values of a sequence, as gpu.CachedRows.
struct Rows {
	u64 keys, values;
	int length, unused;
};
// Shares tells how the keys that n new tokens see are shared out among blocks, at most `most`. It depends on the sequence alone, as
// does the order of the sums.
struct Shares {
	int skip, keys, per, number; // keys that no query sees, the others, those of a share
};
DEV Shares shares(int length, int n, int window, int most) {
	Shares s;
	s.skip = (length - (window ? min(length, window + n - 1) : length)) / 32 * 32;
	s.keys = length - s.skip;
	int some = max(1, min(most, (s.keys + 127) / 128));
	s.per = ((s.keys + some - 1) / some + 31) / 32 * 32;
	s.number = (s.keys + s.per - 1) / s.per;
	return s;
}

// Eight elements at once where they lie at a multiple of 16 bytes (wide), else one by one; n of them exist.
DEV void take8(float *r, const u16 *p, int wide, i64 n) {
	if (wide && n >= 8) {
		uint4 v = *(const uint4 *)p;
		u32 w[4] = {v.x, v.y, v.z, v.w};
		UNROLL for (int i = 0; i < 4; i++) r[2 * i] = bits_float(w[i] << 16), r[2 * i + 1] = bits_float(w[i] & 0xffff0000u);
		return;
	}
	UNROLL for (int i = 0; i < 8; i++) r[i] = i < n ? value(p[i]) : 0.f;
}
DEV void take8(float *r, const float *p, int wide, i64 n) {
	if (wide && n >= 8) {
		float4 a = ((const float4 *)p)[0], b = ((const float4 *)p)[1];
		r[0] = a.x, r[1] = a.y, r[2] = a.z, r[3] = a.w, r[4] = b.x, r[5] = b.y, r[6] = b.z, r[7] = b.w;
		return;
	}
	UNROLL for (int i = 0; i < 8; i++) r[i] = i < n ? p[i] : 0.f;
}
DEV void give8(u16 *p, const float *r, int wide, i64 n) {
	if (wide && n >= 8) {
		uint4 v;
		v.x = pack(r[0], r[1]), v.y = pack(r[2], r[3]), v.z = pack(r[4], r[5]), v.w = pack(r[6], r[7]);
		*(uint4 *)p = v;
		return;
	}
	UNROLL for (int i = 0; i < 8; i++)
		if (i < n) put(p + i, r[i]);
}
DEV void give8(float *p, const float *r, int wide, i64 n) {
	if (wide && n >= 8) {
		float4 a, b;
		a.x = r[0], a.y = r[1], a.z = r[2], a.w = r[3], b.x = r[4], b.y = r[5], b.z = r[6], b.w = r[7];
		((float4 *)p)[0] = a, ((float4 *)p)[1] = b;
		return;
	}
	UNROLL for (int i = 0; i < 8; i++)
		if (i < n) p[i] = r[i];
}

// move8 copies eight elements, of which n exist.
template <class E> DEV void move8(E *to, const E *from, int wide, i64 n) {
	if (wide && n >= 8) {
		UNROLL for (int i = 0; i < (int)sizeof(E) / 2; i++) ((uint4 *)to)[i] = ((const uint4 *)from)[i];
		return;
	}
	UNROLL for (int i = 0; i < 8; i++)
		if (i < n) to[i] = from[i];
}
