// A machine for CUDA kernels on the processor, to test their logic: each thread of a block is a fiber, a warp's lanes run in
// random order and as far as they can, warps are picked at random and run greedily until all wait at a barrier. A program that
// counts on an order the card does not promise gives other results here, or none: a barrier that not all reach is an error.
//
// Shared memory begins every block as NaN. copy16 lands only when copies_wait says so, and poisons its place until then.
// Matrix units and shuffles see what lanes held when the whole warp arrived.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#define EMULATED
#define __global__
#define DEV static inline
#define KERNEL(name, threads) static void name
#define SHARED(type, name) type *name = (type *)emulator::block_memory
#define UNROLL
#define ROLLED
#define INFINITE INFINITY

struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

namespace emulator {

enum State { running, at_warp, at_block, at_phase, at_named, done };

// Copy is a pending copy to shared memory: what lands, and its group.
struct Copy {
	void *to;
	unsigned char bytes[16];
	int group;
};

// Product is one of a warpgroup's that has begun (hopper.h).
struct Product {
	float *c;
	int n, group;
	bool at, bt, keep, registers;
	uint64_t a, b;
	uint32_t quad[4][4];      // a's registers of the four lanes that hold this lane's rows
	std::vector<float> saved; // accumulators as they were, while they are poisoned
};

// Box is a tile on its way (hopper.h).
struct Box {
	void *to;
	const void *map;
	int column, head, token;
	unsigned long long *bar;
};

struct Lane {
#ifdef __x86_64__
	void *stack_pointer;
#else
	ucontext_t context;
#endif
	State state;
	std::vector<Copy> copies;
	int group;
	unsigned long long *bar; // waited for at_phase, with the parity; at_named the parity is the barrier's number
	int parity;
	std::vector<Product> products;
	int product_group;
	int turn; // the slot of the next exchange
};

struct Warp {
	int arrived, alive;
	uint64_t slot[2][32][8]; // what lanes show each other, in turn
};

static const size_t stack_bytes = 64 << 10, shared_limit = 227 << 10;
static unsigned char *block_memory;
static std::vector<Lane> lanes;
static std::vector<Warp> warps;
static std::vector<char> stacks;
static std::vector<Box> boxes;
static int named[16];
static std::function<void()> body;
static int current, arrived, alive;
static uint64_t random_state;

static unsigned random_below(unsigned n) {
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(random_state >> 33) % n;
}

#ifdef __x86_64__
extern "C" void emulator_switch(void **save, void *to);
asm(R"(
.text
.globl emulator_switch
emulator_switch:
	pushq %rbp
	pushq %rbx
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, (%rdi)
	movq %rsi, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbx
	popq %rbp
	ret
)");
static void *scheduler;
static void leave() { emulator_switch(&lanes[current].stack_pointer, scheduler); }
static void enter() { emulator_switch(&scheduler, lanes[current].stack_pointer); }
#else
static ucontext_t scheduler;
static void leave() { swapcontext(&lanes[current].context, &scheduler); }
static void enter() { swapcontext(&scheduler, &lanes[current].context); }
#endif

static void run_lane() {
	body();
	lanes[current].state = done;
	alive--;
	warps[current / 32].alive--;
	leave();
	abort();
}

static void prepare(int i) {
	char *top = stacks.data() + (size_t)(i + 1) * stack_bytes;
#ifdef __x86_64__
	void **s = (void **)(((uintptr_t)top & ~(uintptr_t)15) - 16);
	*--s = nullptr; // keeps the stack of run_lane aligned
	*--s = (void *)run_lane;
	for (int r = 0; r < 6; r++) *--s = nullptr;
	lanes[i].stack_pointer = s;
#else
	getcontext(&lanes[i].context);
	lanes[i].context.uc_stack.ss_sp = top - stack_bytes;
	lanes[i].context.uc_stack.ss_size = stack_bytes;
	makecontext(&lanes[i].context, run_lane, 0);
#endif
}

static void warp_barrier() {
	int me = current, first = me / 32 * 32;
	Warp &w = warps[me / 32];
	if (++w.arrived < w.alive) {
		lanes[me].state = at_warp;
		leave();
		return;
	}
	w.arrived = 0;
	for (int i = first; i < first + 32; i++)
		if (lanes[i].state == at_warp) lanes[i].state = running;
}

static void block_barrier() {
	if (++arrived < alive) {
		lanes[current].state = at_block;
		leave();
		return;
	}
	arrived = 0;
	for (Lane &l : lanes)
		if (l.state == at_block) l.state = running;
}

static void land(const Box &b);
static bool passed(const Lane &l);

// run_block runs one block and reports whether every thread ended.
static bool run_block(int threads, size_t shared) {
	memset(block_memory, 0xff, shared);
	warps.assign(threads / 32, Warp{});
	arrived = 0, alive = threads;
	boxes.clear();
	memset(named, 0, sizeof named);
	for (int i = 0; i < threads; i++) {
		lanes[i].state = running, lanes[i].group = lanes[i].turn = 0;
		lanes[i].copies.clear();
		lanes[i].products.clear(), lanes[i].product_group = 0;
		warps[i / 32].alive++;
		prepare(i);
	}
	std::vector<int> order(threads / 32);
	int slow = (int)random_below((unsigned)order.size());
	while (alive) {
		bool progress = false;
		for (size_t i = 0; i < order.size(); i++) {
			order[i] = (int)i;
			std::swap(order[i], order[random_below((unsigned)i + 1)]);
		}
		for (int w : order) {
			if (random_below(w == slow ? 16 : 8) < (w == slow ? 15 : 1)) { // a warp may stand still however long
				for (int i = w * 32; i < w * 32 + 32; i++) progress = progress || lanes[i].state == running || passed(lanes[i]);
				continue;
			}
			for (bool again = true; again;) {
				again = false;
				int turn = (int)random_below(32);
				for (int i = 0; i < 32; i++) {
					current = w * 32 + (i ^ turn);
					if (passed(lanes[current])) lanes[current].state = running;
					if (lanes[current].state != running) continue;
					again = progress = true;
					threadIdx.x = (unsigned)current;
					enter();
				}
			}
		}
		if (!boxes.empty() && (!progress || random_below(2))) {
			size_t i = random_below((unsigned)boxes.size());
			land(boxes[i]);
			boxes.erase(boxes.begin() + (long)i);
			progress = true;
		}
		if (!progress) return false;
	}
	return boxes.empty();
}

// launch runs all blocks in random order; it returns false where a barrier was not reached by all.
static bool launch(Index grid, int threads, size_t shared, uint64_t seed, std::function<void()> kernel) {
	if (threads % 32 || shared > shared_limit) {
		fprintf(stderr, "%d threads, %zu bytes of shared memory: threads come in warps of 32, memory ends at %zu\n", threads, shared, shared_limit);
		return false;
	}
	random_state = seed;
	body = kernel;
	gridDim = grid, blockDim = {(unsigned)threads, 1, 1}, threadIdx = {0, 0, 0};
	lanes.resize((size_t)threads);
	stacks.resize((size_t)threads * stack_bytes);
	size_t blocks = (size_t)grid.x * grid.y * grid.z, step = 1, at = blocks ? random_below((unsigned)blocks) : 0;
	for (size_t prime : {7919u, 104729u, 13u})
		if (blocks % prime) { step = prime; break; }
	for (size_t n = 0; n < blocks; n++, at = (at + step) % blocks) {
		blockIdx = {(unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y), (unsigned)(at / grid.x / grid.y)};
		if (!run_block(threads, shared)) {
			fprintf(stderr, "block %u, %u, %u: a barrier that some threads never reach\n", blockIdx.x, blockIdx.y, blockIdx.z);
			return false;
		}
	}
	return true;
}

static uint64_t *mine() { return warps[current / 32].slot[lanes[current].turn][current % 32]; }
static uint64_t *of(int lane) { return warps[current / 32].slot[lanes[current].turn][lane]; }
// exchanged ends an exchange. A lane writes its slot of this turn again two exchanges on, which it enters when all lanes have entered
// the one between, and so have read: no lane has to wait here.
static void exchanged() { lanes[current].turn ^= 1; }

template <class V> static V shuffle(V v, int from) {
	memcpy(mine(), &v, sizeof v);
	warp_barrier();
	V r;
	memcpy(&r, of(from), sizeof r);
	exchanged();
	return r;
}

static inline float wide(uint16_t x) {
	uint32_t b = (uint32_t)x << 16;
	float f;
	memcpy(&f, &b, 4);
	return f;
}

static inline uint16_t narrow(float f) {
	uint32_t b;
	memcpy(&b, &f, 4);
	if ((b & 0x7fffffff) > 0x7f800000) return 0x7fff;
	return (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}

static void load_matrices(uint32_t *r, const void *row, bool transposed) {
	mine()[0] = (uint64_t)row;
	warp_barrier();
	int l = current % 32;
	for (int m = 0; m < 4; m++) {
		uint32_t e[2];
		for (int i = 0; i < 2; i++) {
			int y = transposed ? l % 4 * 2 + i : l / 4, x = transposed ? l / 4 : l % 4 * 2 + i;
			e[i] = ((const uint16_t *)of(m * 8 + y)[0])[x];
		}
		r[m] = e[0] | e[1] << 16;
	}
	warp_barrier();
}

} // namespace emulator

static inline void __syncthreads() { emulator::block_barrier(); }
static inline void __syncwarp() { emulator::warp_barrier(); }
template <class V> static inline V __shfl_xor_sync(unsigned, V v, int mask) { return emulator::shuffle(v, emulator::current % 32 ^ mask); }
template <class V> static inline V __shfl_sync(unsigned, V v, int from) { return emulator::shuffle(v, from); }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }

static inline float bits_float(unsigned x) {
	float f;
	memcpy(&f, &x, 4);
	return f;
}
static inline unsigned pack(float low, float high) { return (unsigned)emulator::narrow(low) | (unsigned)emulator::narrow(high) << 16; }
static inline float rounded_product(float x, float y) { return x * y; }
static inline float rounded_sum(float x, float y) { return x + y; }
static inline unsigned long long high_product(unsigned long long x, unsigned long long y) { return (unsigned long long)((unsigned __int128)x * y >> 64); }
static inline void add_whole(unsigned long long *to, unsigned long long x) { *to += x; }
static inline void least(int *to, int x) { *to = min(*to, x); }
static inline float exp2_fast(float x) { return exp2f(x); }
static inline float reciprocal(float x) { return 1.f / x; }

static inline void copy16(void *to, const void *from, bool there) {
	emulator::Lane &l = emulator::lanes[emulator::current];
	emulator::Copy c{to, {}, l.group};
	if (there) memcpy(c.bytes, from, 16);
	if ((uintptr_t)to % 16 || (uintptr_t)from % 16) fprintf(stderr, "copy16 of an address that is no multiple of 16\n"), exit(3);
	memset(to, 0xff, 16);
	l.copies.push_back(c);
}
static inline void copies_group() { emulator::lanes[emulator::current].group++; }
template <int PENDING> static inline void copies_wait() {
	emulator::Lane &l = emulator::lanes[emulator::current];
	size_t kept = 0;
	for (emulator::Copy &c : l.copies)
		if (c.group < l.group - PENDING) memcpy(c.to, c.bytes, 16);
		else l.copies[kept++] = c;
	l.copies.resize(kept);
}
static inline void load4(uint32_t *r, const void *row) { emulator::load_matrices(r, row, false); }
static inline void load4_transposed(uint32_t *r, const void *row) { emulator::load_matrices(r, row, true); }

static inline void multiply(float *c, const uint32_t *a, uint32_t b0, uint32_t b1) {
	uint32_t *s = (uint32_t *)emulator::mine();
	s[0] = a[0], s[1] = a[1], s[2] = a[2], s[3] = a[3], s[4] = b0, s[5] = b1;
	emulator::warp_barrier();
	int l = emulator::current % 32;
	for (int i = 0; i < 4; i++) {
		int row = l / 4 + i / 2 * 8, col = l % 4 * 2 + (i & 1);
		float sum = c[i];
		for (int k = 0; k < 16; k++) {
			uint32_t x = ((uint32_t *)emulator::of(row % 8 * 4 + k % 8 / 2))[row / 8 + k / 8 * 2];
			uint32_t y = ((uint32_t *)emulator::of(col * 4 + k % 8 / 2))[4 + k / 8];
			sum += emulator::wide((uint16_t)(x >> (k & 1) * 16)) * emulator::wide((uint16_t)(y >> (k & 1) * 16));
		}
		c[i] = sum;
	}
	emulator::exchanged();
}
