// dq of bfloat16 attention on Hopper, head width D (64 or 128): a block 128 queries of a head, two warpgroups of 64; the copy engine
// brings tiles of 128 keys and values, two stages ahead. The scores are computed again from q, k and lse.
struct Args {
	Map q, dy, k, v; // boxes of 128 rows
	u16 *dq;
	const float *lse, *delta; // [H, T]
	const int *cu, *tiles;    // tiles: sequence, first query in it
	int tokens, heads, kvheads, window;
	float scale;
};
#define ROWS 128

KERNEL(hopper_attention_grad_q, 384)(GRID_CONSTANT Args a) {
	SWIZZLED(u16, sq);
	u16 *sdy = sq + ROWS * D, *sk = sdy + ROWS * D, *sv = sk + 2 * ROWS * D;
	u64 *q_here = (u64 *)(sv + 2 * ROWS * D), *k_here = q_here + 1, *v_here = k_here + 2, *k_free = v_here + 2, *v_free = k_free + 2;
	int s = a.tiles[2 * blockIdx.x], m0 = a.tiles[2 * blockIdx.x + 1], h = blockIdx.y, g = h / (a.heads / a.kvheads);
	int t0 = a.cu[s], n = a.cu[s + 1] - t0;
	int from = a.window ? max(0, m0 - a.window + 1) / ROWS : 0, to = (min(n, m0 + ROWS) + ROWS - 1) / ROWS;
	if (threadIdx.x == 0) {
		prefetch_map(&a.q), prefetch_map(&a.dy), prefetch_map(&a.k), prefetch_map(&a.v);
		barrier_init(q_here, 1);
		UNROLL for (int i = 0; i < 2; i++) barrier_init(k_here + i, 1), barrier_init(v_here + i, 1), barrier_init(k_free + i, 8), barrier_init(v_free + i, 8);
		barriers_ready();
	}
	__syncthreads();

	if (threadIdx.x < 128) {
		registers_fewer<24>();
		if (threadIdx.x == 0) {
			barrier_expect(q_here, 2 * ROWS * D * 2);
			UNROLL for (int c = 0; c < D; c += 64) {
				copy_box(sq + c * ROWS, &a.q, c, h, t0 + m0, q_here);
				copy_box(sdy + c * ROWS, &a.dy, c, h, t0 + m0, q_here);
			}
			for (int i = 0; i < to - from; i++) {
				int stage = i & 1, turn = i / 2 & 1, t = t0 + (from + i) * ROWS;
				if (i > 1) barrier_wait(k_free + stage, turn ^ 1);
				barrier_expect(k_here + stage, ROWS * D * 2);
				UNROLL for (int c = 0; c < D; c += 64) copy_box(sk + stage * ROWS * D + c * ROWS, &a.k, c, g, t, k_here + stage);
				if (i > 1) barrier_wait(v_free + stage, turn ^ 1);
				barrier_expect(v_here + stage, ROWS * D * 2);
				UNROLL for (int c = 0; c < D; c += 64) copy_box(sv + stage * ROWS * D + c * ROWS, &a.v, c, g, t, v_here + stage);
			}
		}
	} else {
		registers_more<240>();
		int group = warpgroup() - 1, lane = threadIdx.x % 32, first = m0 + group * 64, row = first + threadIdx.x % 128 / 32 * 16 + lane / 4;
		const float log2e = 1.44269504f;
		float scale = a.scale * log2e, lse[2], delta[2], p[64], dp[64], out[D / 2];
		u32 x[32];
		UNROLL for (int r = 0; r < 2; r++) {
			i64 at = (i64)h * a.tokens + t0 + min(row + 8 * r, n - 1);
			lse[r] = a.lse[at] * log2e, delta[r] = a.delta[at];
		}
		UNROLL for (int i = 0; i < D / 2; i++) out[i] = 0;
		// Between the wait for some products and the last use of their results there is no branch: behind one the compiler waits for
		// all products. The weights end the loop's body, so that it does not wait for the next ones before they are computed.
		auto weights = [&](int i, bool marks) { // begins tile i's scores and what their gradient is made of, and has its weights in p
			int stage = i & 1, parity = i / 2 & 1;
			const u16 *k = sk + stage * ROWS * D, *v = sv + stage * ROWS * D;
			barrier_wait(k_here + stage, parity);
			barrier_wait(v_here + stage, parity);
			float s[64];
			products_begin();
			UNROLL for (int c = 0; c < D; c += 16) wgmma<0, 0>(s, along_k(sq, ROWS, group * 64, c), along_k(k, ROWS, 0, c), c > 0);
			products_group();
			UNROLL for (int c = 0; c < D; c += 16) wgmma<0, 0>(dp, along_k(sdy, ROWS, group * 64, c), along_k(v, ROWS, 0, c), c > 0);
			products_group();
			products_wait<1>();
			hold(s);
			UNROLL for (int e = 0; e < 64; e++) p[e] = exp2_fast(s[e] * scale - lse[e / 2 & 1]);
			if (marks) {
				int j0 = (from + i) * ROWS + lane % 4 * 2;
				UNROLL for (int r = 0; r < 2; r++) {
					int at = row + r * 8 - j0, last = min(at, n - 1 - j0), least = a.window ? at - a.window + 1 : 0;
					UNROLL for (int e = 0; e < 64; e++)
						if ((e / 2 & 1) == r) p[e] = (e / 4 * 8 + (e & 1) > last) | (e / 4 * 8 + (e & 1) < least) ? 0.f : p[e];
				}
			}
		};
		auto gather = [&](int i) { // adds ds k of tile i to dq
			int stage = i & 1;
			products_wait<0>();
			hold(dp);
			barrier_arrive(v_free + stage, lane == 0);
			UNROLL for (int e = 0; e < 32; e++) {
				float low = p[2 * e] * (dp[2 * e] - delta[e & 1]), high = p[2 * e + 1] * (dp[2 * e + 1] - delta[e & 1]);
				x[e] = pack(low, high); // but for the scale, which dq gets at the end
			}
			products_begin();
			UNROLL for (int c = 0; c < ROWS; c += 16) wgmma<1>(out, x + c / 4, across_k(sk + stage * ROWS * D, ROWS, c, 0), true);
			products_group();
			products_wait<0>();
			hold(out);
			barrier_arrive(k_free + stage, lane == 0);
		};
		auto partial = [&](int i) { // tile i has keys that some query does not see
			int j0 = (from + i) * ROWS;
			return j0 + ROWS > n || j0 + ROWS - 1 > first || (a.window && j0 <= first + 63 - a.window);
		};
		barrier_wait(q_here, 0);
		weights(0, true);
		for (int i = 1; i < to - from; i++) {
			gather(i - 1);
			if (partial(i)) weights(i, true);
			else weights(i, false);
		}
		gather(to - from - 1);
		UNROLL for (int r = 0; r < 2; r++) {
			int t = row + r * 8;
			if (t >= n) continue;
			u16 *dq = a.dq + ((i64)(t0 + t) * a.heads + h) * D + lane % 4 * 2;
			UNROLL for (int i = 0; i < D / 8; i++) *(u32 *)(dq + i * 8) = pack(out[4 * i + 2 * r] * a.scale, out[4 * i + 2 * r + 1] * a.scale);
		}
	}
}
#undef ROWS
