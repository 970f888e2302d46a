// dk and dv of bfloat16 attention on Hopper, head width D (64 or 128): a block 128 keys of a key head, two warpgroups of 64. It goes
// through the heads of the group and their queries in order, 64 at a time; the copy engine brings them, two stages ahead, and a warp
// their statistics. With FAST it also adds its share to dq, atomically: five products instead of the seven of two passes.
struct Args {
	Map q, dy; // boxes of 64 rows
	Map k, v;  // boxes of 128 rows
	u16 *dk, *dv;
	float *dq;                // [T, heads of the launch, D], zeros before; with FAST
	const float *lse, *delta; // [H, T]
	const int *cu, *tiles;    // tiles: sequence, first key in it
	int tokens, heads, kvheads, window;
	float scale;
	int first; // key head of the launch
};
#define ROWS 128
#define QUERIES 64

KERNEL(hopper_attention_grad_kv, 384)(GRID_CONSTANT Args a) {
	SWIZZLED(u16, sk);
	u16 *sv = sk + ROWS * D, *sq = sv + ROWS * D, *sdy = sq + 2 * QUERIES * D, *sds = sdy + 2 * QUERIES * D;
	float *statistics = (float *)(sds + (FAST ? ROWS * QUERIES : 0)); // by stage: lse, delta
	u64 *k_here = (u64 *)(statistics + 4 * QUERIES), *here = k_here + 1, *known = here + 2, *free = known + 2;
	int s = a.tiles[2 * blockIdx.x], n0 = a.tiles[2 * blockIdx.x + 1], g = a.first + blockIdx.y, group = a.heads / a.kvheads;
	int t0 = a.cu[s], n = a.cu[s + 1] - t0, end = a.window ? min(n, n0 + ROWS - 1 + a.window) : n;
	int tiles = (end - n0 + QUERIES - 1) / QUERIES, steps = tiles * group; // tile by tile of the first head, then of the next
	if (threadIdx.x == 0) {
		prefetch_map(&a.k), prefetch_map(&a.v), prefetch_map(&a.q), prefetch_map(&a.dy);
		barrier_init(k_here, 1);
		UNROLL for (int i = 0; i < 2; i++) barrier_init(here + i, 1), barrier_init(known + i, 32), barrier_init(free + i, 8);
		barriers_ready();
	}
	__syncthreads();

	if (threadIdx.x < 128) {
		registers_fewer<24>();
		if (threadIdx.x == 0) {
			barrier_expect(k_here, 2 * ROWS * D * 2);
			UNROLL for (int c = 0; c < D; c += 64) {
				copy_box(sk + c * ROWS, &a.k, c, g, t0 + n0, k_here);
				copy_box(sv + c * ROWS, &a.v, c, g, t0 + n0, k_here);
			}
			int h = g * group, m = 0;
			for (int i = 0; i < steps; i++) {
				int stage = i & 1;
				if (i > 1) barrier_wait(free + stage, i / 2 & 1 ^ 1);
				barrier_expect(here + stage, 2 * QUERIES * D * 2);
				UNROLL for (int c = 0; c < D; c += 64) {
					copy_box(sq + stage * QUERIES * D + c * QUERIES, &a.q, c, h, t0 + n0 + m * QUERIES, here + stage);
					copy_box(sdy + stage * QUERIES * D + c * QUERIES, &a.dy, c, h, t0 + n0 + m * QUERIES, here + stage);
				}
				if (++m == tiles) m = 0, h++;
			}
		} else if (threadIdx.x / 32 == 1) {
			i64 sequence = (i64)g * group * a.tokens + t0;
			for (int i = 0, m0 = n0; i < steps; i++) {
				int stage = i & 1;
				if (i > 1) barrier_wait(free + stage, i / 2 & 1 ^ 1);
				UNROLL for (int r = threadIdx.x % 32; r < QUERIES; r += 32) {
					i64 at = sequence + min(m0 + r, n - 1);
					statistics[stage * 2 * QUERIES + r] = a.lse[at] * 1.44269504f;
					statistics[stage * 2 * QUERIES + QUERIES + r] = a.delta[at];
				}
				barrier_arrive(known + stage, true);
				if ((m0 += QUERIES) >= end) m0 = n0, sequence += a.tokens;
			}
		}
	} else {
		registers_more<240>();
		int half = warpgroup() - 1, lane = threadIdx.x % 32, first = n0 + half * 64, row = first + threadIdx.x % 128 / 32 * 16 + lane / 4;
		float scale = a.scale * 1.44269504f, dk[D / 2], dv[D / 2];
		UNROLL for (int i = 0; i < D / 2; i++) dk[i] = dv[i] = 0;
		float p[32], ds[32];
		// Begins the products of step i, whose queries begin at m0, and has the weights in p. No branch is between the wait for some
		// products and the last use of their results, for behind one the compiler waits for all; one is after it, so that nothing waits
		// for the next results before the weights are computed.
		auto weights = [&](int i, int m0, bool marks) {
			int stage = i & 1, parity = i / 2 & 1;
			const u16 *q = sq + stage * QUERIES * D, *dy = sdy + stage * QUERIES * D;
			const float *lse = statistics + fresh(stage * 2 * QUERIES + lane % 4 * 2);
			float s[32];
			barrier_wait(known + stage, parity);
			barrier_wait(here + stage, parity);
			products_begin();
			UNROLL for (int c = 0; c < D; c += 16) wgmma<0, 0>(s, along_k(sk, ROWS, half * 64, c), along_k(q, QUERIES, 0, c), c > 0);
			products_group();
			UNROLL for (int c = 0; c < D; c += 16) wgmma<0, 0>(ds, along_k(sv, ROWS, half * 64, c), along_k(dy, QUERIES, 0, c), c > 0);
			products_group();
			products_wait<1>();
			hold(s);
			UNROLL for (int e = 0; e < 32; e++) p[e] = exp2_fast(s[e] * scale - lse[e / 4 * 8 + (e & 1)]);
			if (marks) {
				UNROLL for (int r = 0; r < 2; r++) {
					// A key behind the sequence comes after all its queries.
					int key = row + r * 8 - m0 - lane % 4 * 2, last = n - 1 - m0 - lane % 4 * 2;
					if (a.window) last = min(last, key + a.window - 1);
					UNROLL for (int e = 0; e < 32; e++)
						if ((e / 2 & 1) == r) p[e] = (e / 4 * 8 + (e & 1) < key) | (e / 4 * 8 + (e & 1) > last) ? 0.f : p[e];
				}
			}
		};
		auto gather = [&](int i, int h, int m0) { // adds to dk and dv, and to dq
			int stage = i & 1;
			const u16 *q = sq + stage * QUERIES * D, *dy = sdy + stage * QUERIES * D;
			const float *delta = statistics + fresh(stage * 2 * QUERIES + QUERIES + lane % 4 * 2);
			u32 x[16], y[16];
			products_wait<0>();
			hold(ds);
			UNROLL for (int e = 0; e < 16; e++) {
				const float *d = delta + e / 2 * 8;
				x[e] = pack(p[2 * e], p[2 * e + 1]);
				y[e] = pack(p[2 * e] * (ds[2 * e] - d[0]), p[2 * e + 1] * (ds[2 * e + 1] - d[1])); // but for the scale, which dk and dq get at the end
			}
			products_begin();
			UNROLL for (int c = 0; c < QUERIES; c += 16) wgmma<1>(dv, x + c / 4, across_k(dy, QUERIES, c, 0), true);
			UNROLL for (int c = 0; c < QUERIES; c += 16) wgmma<1>(dk, y + c / 4, across_k(q, QUERIES, c, 0), true);
			products_group();
#if FAST
			// ds goes to shared memory as the product with the keys wants it: a tile of 128 keys by 64 queries.
			if (i > 0) barrier_of(1, 256); // both have read the last one
			int r = fresh(row - n0);
			UNROLL for (int e = 0; e < 16; e++) *(u32 *)(sds + (r + (e & 1) * 8) * 64 + ((e / 2 ^ (r & 7)) << 3) + lane % 4 * 2) = y[e];
			visible();
			barrier_of(2, 256);
			// Each warpgroup has half of the columns; where those are too few, half of the keys.
			float part[32];
			products_begin();
			if (D == 128) {
				UNROLL for (int c = 0; c < ROWS; c += 16) wgmma<1, 1>(part, across_k(sds, ROWS, c, 0), across_k(sk, ROWS, c, half * 64), c > 0);
			} else {
				UNROLL for (int c = 0; c < 64; c += 16) wgmma<1, 1>(part, across_k(sds, ROWS, half * 64 + c, 0), across_k(sk, ROWS, half * 64 + c, 0), c > 0);
			}
			products_group();
#endif
			products_wait<0>();
			hold(dk);
			hold(dv);
			barrier_arrive(free + stage, lane == 0);
#if FAST
			hold(part);
			int query = fresh(m0 + row - first), heads = group * (int)gridDim.y;
			UNROLL for (int r = 0; r < 2; r++) {
				if (query + 8 * r >= n) continue;
				float *to = a.dq + ((i64)(t0 + query + 8 * r) * heads + h - a.first * group) * D + (D == 128 ? half * 64 : 0) + lane % 4 * 2;
				UNROLL for (int j = 0; j < 8; j++) add_pair(to + j * 8, part[4 * j + 2 * r], part[4 * j + 2 * r + 1]);
			}
#endif
		};
		auto partial = [&](int m0) { // the tile has pairs that are not seen
			return m0 + QUERIES > n || first + 63 > m0 || (a.window && first <= m0 + QUERIES - 1 - a.window);
		};
		barrier_wait(k_here, 0);
		int h = g * group, m = 0;
		weights(0, n0, true);
		for (int i = 0;;) {
			gather(i, h, n0 + m * QUERIES);
			if (++i == steps) break;
			if (++m == tiles) m = 0, h++;
			if (partial(n0 + m * QUERIES)) weights(i, n0 + m * QUERIES, true);
			else weights(i, n0 + m * QUERIES, false);
		}
		UNROLL for (int r = 0; r < 2; r++) {
			int t = row + r * 8;
			if (t >= n) continue;
			i64 at = ((i64)(t0 + t) * a.kvheads + g) * D + lane % 4 * 2;
			UNROLL for (int i = 0; i < D / 8; i++) {
				*(u32 *)(a.dk + at + i * 8) = pack(dk[4 * i + 2 * r] * a.scale, dk[4 * i + 2 * r + 1] * a.scale);
				*(u32 *)(a.dv + at + i * 8) = pack(dv[4 * i + 2 * r], dv[4 * i + 2 * r + 1]);
			}
		}
	}
}
#undef ROWS
#undef QUERIES
