// The emulator's Hopper: tiles that land at any time after they were asked for, barriers that count their bytes, and products of a
// warpgroup that happen at any time between their start and the wait for them. Until a tile lands its place is poisoned, and until
// a product is waited for its accumulators are.
#pragma once

#define GRID_CONSTANT const
#define SWIZZLED(type, name) type *name = (type *)emulator::block_memory
#define __align__(n) alignas(n)

struct Map;

namespace emulator {

// Phase is a barrier as it lies in shared memory.
struct Phase {
	uint64_t expected : 12, pending : 12, parity : 1;
	int64_t bytes : 39;
};

static void advance(Phase *p) {
	if (p->pending || p->bytes) return;
	p->parity ^= 1, p->pending = p->expected;
}

// What a tensor map holds here, encoded by the test's machine.
struct Tensor {
	uint64_t address, width, heads, tokens, rows;
};

static unsigned char *swizzled(uint32_t at) { return block_memory + (at ^ (at >> 7 & 7) << 4); }

static void land(const Box &b) {
	const Tensor &x = *(const Tensor *)b.map;
	uint32_t to = (uint32_t)((unsigned char *)b.to - block_memory);
	for (uint32_t r = 0; r < x.rows; r++)
		for (uint32_t c = 0; c < 64; c++) {
			bool there = (uint64_t)b.token + r < x.tokens && (uint64_t)b.column + c < x.width && (uint64_t)b.head < x.heads;
			uint16_t v = there ? ((const uint16_t *)x.address)[((b.token + r) * x.heads + b.head) * x.width + b.column + c] : (uint16_t)0;
			memcpy(swizzled(to + r * 128 + c * 2), &v, 2);
		}
	Phase *p = (Phase *)b.bar;
	p->bytes -= (int64_t)x.rows * 128;
	advance(p);
}

static bool passed(const Lane &l) { return l.state == at_phase && ((const Phase *)l.bar)->parity != (unsigned)l.parity; }

// element (r, k) of an operand that its descriptor finds.
static float operand(uint64_t d, bool across, int r, int k) {
	uint32_t start = (uint32_t)(d & 0x3fff) << 4, lead = (uint32_t)(d >> 16 & 0x3fff) << 4, stride = (uint32_t)(d >> 32 & 0x3fff) << 4;
	uint32_t at = across ? start + r / 64 * lead + r % 64 * 2 + k / 8 * stride + k % 8 * 128 : start + r / 8 * stride + r % 8 * 128 + k * 2;
	uint16_t v;
	memcpy(&v, swizzled(at), 2);
	return wide(v);
}

static void multiply(Product &p) {
	int l = current % 32, first = current / 32 % 4 * 16 + l / 4;
	float a[2][16], b[16];
	if (!p.saved.empty()) memcpy(p.c, p.saved.data(), p.saved.size() * sizeof(float));
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < 16; k++)
			a[i][k] = p.registers ? wide((uint16_t)(p.quad[k % 8 / 2][i + k / 8 * 2] >> (k & 1) * 16)) : operand(p.a, p.at, first + 8 * i, k);
	for (int n = 0; n < p.n / 8; n++)
		for (int e = 0; e < 2; e++) {
			for (int k = 0; k < 16; k++) b[k] = operand(p.b, p.bt, n * 8 + l % 4 * 2 + e, k);
			for (int i = 0; i < 2; i++) {
				float sum = p.keep ? p.c[4 * n + 2 * i + e] : 0.f;
				for (int k = 0; k < 16; k++) sum += a[i][k] * b[k];
				p.c[4 * n + 2 * i + e] = sum;
			}
		}
}

// start begins a product: at once, or at the wait.
static void start(Product p, int n) {
	Lane &l = lanes[current];
	if ((p.a >> 62 != 1 && !p.registers) || p.b >> 62 != 1) fprintf(stderr, "a descriptor of another layout than 128 swizzled bytes\n"), exit(3);
	p.n = n, p.group = l.product_group;
	bool waits = !l.products.empty() || random_below(2);
	if (waits) {
		bool first = true;
		for (Product &o : l.products) first = first && o.c != p.c;
		if (first) {
			p.saved.assign(p.c, p.c + n / 2);
			for (int i = 0; i < n / 2; i++) p.c[i] = NAN;
		}
		l.products.push_back(p);
	} else {
		multiply(p);
	}
	warp_barrier();
}

static void finish(int pending) {
	Lane &l = lanes[current];
	size_t kept = 0;
	for (size_t i = 0; i < l.products.size(); i++)
		if (l.products[i].group < l.product_group - pending) multiply(l.products[i]);
		else std::swap(l.products[kept++], l.products[i]);
	l.products.resize(kept);
	warp_barrier();
}

} // namespace emulator

static inline unsigned shared_address(const void *p) { return (unsigned)((const unsigned char *)p - emulator::block_memory); }
static inline void barrier_init(unsigned long long *bar, int count) {
	emulator::Phase p = {};
	p.expected = p.pending = (unsigned)count;
	memcpy(bar, &p, sizeof p);
}
static inline void barriers_ready() {}
static inline void barrier_arrive(unsigned long long *bar, bool wanted) {
	if (!wanted) return;
	emulator::Phase *p = (emulator::Phase *)bar;
	if (!p->pending) fprintf(stderr, "more arrivals at a barrier than it expects\n"), exit(3);
	p->pending--;
	emulator::advance(p);
}
static inline void barrier_expect(unsigned long long *bar, int bytes) {
	((emulator::Phase *)bar)->bytes += bytes;
	barrier_arrive(bar, true);
}
static inline void barrier_wait(unsigned long long *bar, int parity) {
	emulator::Lane &l = emulator::lanes[emulator::current];
	l.bar = bar, l.parity = parity, l.state = emulator::at_phase;
	emulator::leave();
}
static inline void copy_box(void *to, const Map *from, int c, int h, int t, unsigned long long *bar) {
	const emulator::Tensor &x = *(const emulator::Tensor *)from;
	if (shared_address(to) % 1024) fprintf(stderr, "a box to an address that is no multiple of 1024\n"), exit(3);
	memset(to, 0xff, x.rows * 128);
	emulator::boxes.push_back({to, from, c, h, t, bar});
}
static inline void prefetch_map(const Map *) {}
static inline void visible() {}
static inline void barrier_leave(int id, int threads) {
	if (++emulator::named[id] < threads) return;
	emulator::named[id] = 0;
	for (emulator::Lane &o : emulator::lanes)
		if (o.state == emulator::at_named && o.parity == id) o.state = emulator::running;
}
static inline void barrier_of(int id, int threads) {
	emulator::Lane &l = emulator::lanes[emulator::current];
	l.state = emulator::at_named, l.parity = id;
	barrier_leave(id, threads);
	if (l.state == emulator::at_named) emulator::leave();
}
template <int N> static inline void registers_fewer() {}
template <int N> static inline void registers_more() {}
static inline void products_begin() { emulator::warp_barrier(); }
static inline void products_group() { emulator::lanes[emulator::current].product_group++; }
template <int PENDING> static inline void products_wait() { emulator::finish(PENDING); }
template <int N> static inline void hold(float (&)[N]) {}
static inline int fresh(int x) { return x; }
static inline void add_pair(float *to, float x, float y) { to[0] += x, to[1] += y; }
template <int AT, int BT, int R> static inline void wgmma(float (&c)[R], uint64_t a, uint64_t b, bool keep) {
	emulator::Product p{};
	p.c = c, p.a = a, p.b = b, p.at = AT, p.bt = BT, p.keep = keep;
	emulator::start(p, 2 * R);
}
template <int BT, int R> static inline void wgmma(float (&c)[R], const uint32_t *a, uint64_t b, bool keep) {
	emulator::Product p{};
	p.c = c, p.b = b, p.bt = BT, p.keep = keep, p.registers = true;
	memcpy(emulator::mine(), a, 16);
	emulator::warp_barrier();
	for (int i = 0; i < 4; i++) memcpy(p.quad[i], emulator::of(emulator::current % 32 / 4 * 4 + i), 16);
	emulator::warp_barrier();
	emulator::start(p, 2 * R);
}
