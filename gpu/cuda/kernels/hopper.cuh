// What kernels for Hopper's matrix units (sm_90a) are written in, behind prelude.cuh: tiles that the copy engine brings to shared
// memory (barriers count their bytes), and products of a warpgroup, four warps, whose operands lie there.
//
// A tile of R rows and C columns of bfloat16 lies as C/64 panels of R rows of 128 bytes, swizzled: the 16-byte piece p of row r
// is at place p ^ (r % 8). Panels begin at multiples of 1024 bytes.
struct __align__(128) Map { u64 opaque[16]; }; // a tensor map: [tokens, heads, width] in boxes of 64 columns
#define PANEL 128 // bytes of a row

#ifndef EMULATED
#define GRID_CONSTANT const __grid_constant__
#define SWIZZLED(type, name)                                   \
	extern __shared__ __align__(1024) unsigned char block_[]; \
	type *name = (type *)block_

DEV void barrier_init(u64 *bar, int count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(count) : "memory"); }
DEV void barriers_ready() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// barrier_arrive arrives where that is wanted. The condition is inside, so that there is no branch while products are under way.
DEV void barrier_arrive(u64 *bar, bool wanted) {
	asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %1, 0;\n@p mbarrier.arrive.shared::cta.b64 _, [%0];\n}" ::"r"(shared_address(bar)), "r"((int)wanted) : "memory");
}
// barrier_expect arrives and makes the barrier wait for that many bytes too.
DEV void barrier_expect(u64 *bar, int bytes) { asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes) : "memory"); }

// barrier_wait waits for the end of the phase of that parity. It gives up after 20 seconds, so that a mistake in a kernel is an
// error of the launch, not a card that never answers: by a store to nowhere, because with a trap in it the compiler leaves all warps
// the same number of registers.
DEV void barrier_wait(u64 *bar, int parity) {
	u64 began = 0;
	for (;;) {
		u32 done;
		asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
			     : "=r"(done) : "r"(shared_address(bar)), "r"(parity) : "memory");
		if (done) return;
		u64 now;
		asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
		if (!began) began = now;
		else if (now - began > 20000000000ull) *(volatile int *)8 = 0;
	}
}

// copy_box starts the copy of a box of 64 columns from c, head h and rows from t; the barrier counts its bytes. Rows beyond the
// tensor are zeros.
DEV void copy_box(void *to, const Map *from, int c, int h, int t, u64 *bar) {
	asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];"
		     ::"r"(shared_address(to)), "l"(from), "r"(c), "r"(h), "r"(t), "r"(shared_address(bar)) : "memory");
}
DEV void prefetch_map(const Map *m) { asm volatile("prefetch.tensormap [%0];" ::"l"(m) : "memory"); }

// visible makes what this thread stored to shared memory visible to the matrix units.
DEV void visible() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
DEV void barrier_of(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
// barrier_leave counts this thread at a barrier where others wait, without waiting.
DEV void barrier_leave(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
template <int N> DEV void registers_fewer() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> DEV void registers_more() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }

DEV void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEV void products_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> DEV void products_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory"); }
// hold keeps the compiler from touching accumulators while products are under way.
template <int N> DEV void hold(float (&c)[N]) {
	UNROLL for (int i = 0; i < N; i++) asm volatile("" : "+f"(c[i])::"memory");
}

// fresh keeps the compiler from computing what depends on x ahead of a loop, which costs registers.
DEV int fresh(int x) {
	asm volatile("" : "+r"(x));
	return x;
}

// add_pair adds two neighbours in device memory atomically.
DEV void add_pair(float *to, float x, float y) { asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(x), "f"(y) : "memory"); }

// wgmma: c[64, N] = a[64, 16] b[N, 16]ᵀ, added to c where keep is set. a is in shared memory or in registers, laid out as for
// multiply, a warp having 16 rows; so is c. With AT or BT the operand's tile lies [16, 64] or [16, N], along its rows.
#define OUT8(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define OUT16 OUT8(0), OUT8(8)
#define OUT32 OUT16, OUT8(16), OUT8(24)
#define OUT64 OUT32, OUT8(32), OUT8(40), OUT8(48), OUT8(56)
#define IN16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define IN32 IN16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define IN64 IN32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
	     ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA(N, R, P1, P2, P3, P4, P5, P6, P7)                                                                                                          \
	template <int AT, int BT> DEV void wgmma(float (&c)[R], u64 a, u64 b, bool keep) {                                                             \
		asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P3 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" IN##R       \
			     "}, %" #P1 ", %" #P2 ", p, 1, 1, %" #P4 ", %" #P5 ";\n}" : OUT##R : "l"(a), "l"(b), "r"((int)keep), "n"(AT), "n"(BT)); \
	}                                                                                                                                              \
	template <int BT> DEV void wgmma(float (&c)[R], const u32 *a, u64 b, bool keep) {                                                              \
		asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P6 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" IN##R       \
			     "}, {%" #P1 ", %" #P2 ", %" #P3 ", %" #P4 "}, %" #P5 ", p, 1, 1, %" #P7 ";\n}"                                          \
			     : OUT##R : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)keep), "n"(BT));                              \
	}
WGMMA(32, 16, 16, 17, 18, 19, 20, 21, 22)
WGMMA(64, 32, 32, 33, 34, 35, 36, 37, 38)
WGMMA(128, 64, 64, 65, 66, 67, 68, 69, 70)
#undef WGMMA
#endif

// Descriptors of operands: along_k of a tile's 16 columns from c, whose rows from r are the operand's; across_k of 16 rows from r,
// whose columns from c are the operand's (AT, BT). The tile has that many rows. They are sums, so that the compiler has one for each
// tile and adds constants: places are multiples of 16, and shared memory ends long before its number of a place does.
DEV u64 descriptor(const void *tile, int bytes, u32 panels) { return (u64)1 << 62 | (u64)(8 * PANEL >> 4) << 32 | ((shared_address(tile) >> 4) + (bytes >> 4) + (panels << 16)); }
DEV u64 along_k(const void *tile, int rows, int r, int c) { return descriptor((const u16 *)tile + r * 64, c / 64 * rows * PANEL + c % 64 * 2, 1); }
DEV u64 across_k(const void *tile, int rows, int r, int c) { return descriptor((const u16 *)tile + c / 64 * rows * 64 + c % 64, r * PANEL, rows * PANEL >> 4); }

// warpgroup is the number of this thread's warpgroup, the same for all of a warp as the compiler sees.
DEV int warpgroup() { return __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0); }
