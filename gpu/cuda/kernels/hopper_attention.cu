// Causal attention of bfloat16 on Hopper, head width D (64 or 128): a block 128 queries of a head. One thread has the copy engine
// bring tiles of 128 keys and values, two stages ahead; two warpgroups have 64 queries each and compute the scores of a tile while
// the values of the tile before are multiplied. They take turns in giving the matrix units their products, so that one's softmax runs
// under the other's products. Keys go from the last to the first, so that the masked tiles come first.
//
// Sequence s has queries [cuq[s], cuq[s+1]) and keys [cuk[s], cuk[s+1]); its last query sees its last key. tiles lists the
// blocks: sequence, first query in it. Rows of a tile beyond the sequence belong to the next one and are masked.
struct Args {
	Map q, k, v; // boxes of 128 rows
	u16 *y;      // [T, H, D]
	float *lse;  // [H, T], or null
	const int *cuq, *cuk, *tiles;
	int tokens, heads, kvheads, window;
	float scale;
};
#define ROWS 128

KERNEL(hopper_attention, 384)(GRID_CONSTANT Args a) {
	SWIZZLED(u16, sq);
	u16 *sk = sq + ROWS * D, *sv = sk + 2 * ROWS * D;
	u64 *q_here = (u64 *)(sv + 2 * ROWS * D), *k_here = q_here + 1, *v_here = k_here + 2, *k_free = v_here + 2, *v_free = k_free + 2;
	int s = a.tiles[2 * blockIdx.x], m0 = a.tiles[2 * blockIdx.x + 1], h = blockIdx.y, g = h / (a.heads / a.kvheads);
	int q0 = a.cuq[s], nq = a.cuq[s + 1] - q0, k0 = a.cuk[s], nk = a.cuk[s + 1] - k0, ahead = nk - nq;
	int from = a.window ? max(0, m0 + ahead - a.window + 1) / ROWS : 0, to = (min(nk, m0 + ROWS + ahead) + ROWS - 1) / ROWS;
	if (threadIdx.x == 0) {
		prefetch_map(&a.q), prefetch_map(&a.k), prefetch_map(&a.v);
		barrier_init(q_here, 1);
		UNROLL for (int i = 0; i < 2; i++) barrier_init(k_here + i, 1), barrier_init(v_here + i, 1), barrier_init(k_free + i, 8), barrier_init(v_free + i, 8);
		barriers_ready();
	}
	__syncthreads();

	if (threadIdx.x < 128) {
		registers_fewer<24>();
		if (threadIdx.x == 0) {
			barrier_expect(q_here, ROWS * D * 2);
			UNROLL for (int c = 0; c < D; c += 64) copy_box(sq + c * ROWS, &a.q, c, h, q0 + m0, q_here);
			for (int i = 0; i < to - from; i++) {
				int stage = i & 1, turn = i / 2 & 1, t = k0 + (to - 1 - i) * ROWS;
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
		float scale = a.scale * 1.44269504f;
		float p[64], out[D / 2], top[2] = {-INFINITE, -INFINITE}, sum[2] = {0, 0}, shrink[2];
		u32 x[32];
		UNROLL for (int i = 0; i < D / 2; i++) out[i] = 0;

		auto score = [&](int i) { // begins the scores of tile i
			barrier_wait(k_here + (i & 1), i / 2 & 1);
			products_begin();
			UNROLL for (int c = 0; c < D; c += 16) wgmma<0, 0>(p, along_k(sq, ROWS, group * 64, c), along_k(sk + (i & 1) * ROWS * D, ROWS, 0, c), c > 0);
			products_group();
		};
		auto gather = [&](int i) { // begins adding tile i's values
			barrier_wait(v_here + (i & 1), i / 2 & 1);
			products_begin();
			UNROLL for (int c = 0; c < ROWS; c += 16) wgmma<1>(out, x + c / 4, across_k(sv + (i & 1) * ROWS * D, ROWS, c, 0), true);
			products_group();
		};
		auto partial = [&](int i) { // tile i has keys that some query does not see
			int j0 = (to - 1 - i) * ROWS;
			return j0 + ROWS > nk || j0 + ROWS - 1 > first + ahead || (a.window && j0 <= first + 63 + ahead - a.window);
		};
		auto soften = [&](int i, bool marks) { // turns tile i's scores into weights
			int j0 = (to - 1 - i) * ROWS + lane % 4 * 2;
			UNROLL for (int r = 0; r < 2; r++) {
				if (marks) {
					int at = row + r * 8 + ahead - j0, last = min(at, nk - 1 - j0), least = a.window ? at - a.window + 1 : 0;
					UNROLL for (int e = 0; e < 64; e++)
						if ((e / 2 & 1) == r) p[e] = (e / 4 * 8 + (e & 1) > last) | (e / 4 * 8 + (e & 1) < least) ? -INFINITE : p[e];
				}
				float next = top[r];
				UNROLL for (int e = 0; e < 64; e++)
					if ((e / 2 & 1) == r) next = fmaxf(next, p[e]);
				next = fmaxf(next, __shfl_xor_sync(0xffffffffu, next, 1));
				next = fmaxf(next, __shfl_xor_sync(0xffffffffu, next, 2));
				float base = next == -INFINITE ? 0.f : next * scale; // a row may see none of these keys
				shrink[r] = exp2_fast(top[r] * scale - base);
				top[r] = next;
				float part = 0;
				UNROLL for (int e = 0; e < 64; e++)
					if ((e / 2 & 1) == r) p[e] = exp2_fast(p[e] * scale - base), part += p[e];
				sum[r] = sum[r] * shrink[r] + part;
			}
		};
		auto narrow = [&]() { // packs the weights for the product with the values
			UNROLL for (int i = 0; i < 32; i++) x[i] = pack(p[2 * i], p[2 * i + 1]);
		};
		auto settle = [&](int i) { // waits for the values of tile i and packs the weights of the next
			products_wait<0>();
			hold(out);
			barrier_arrive(v_free + (i & 1), lane == 0);
			UNROLL for (int e = 0; e < D / 2; e++) out[e] *= shrink[e / 2 & 1];
			narrow();
		};
		// Behind a branch the compiler does not know which products have ended, and before one it lets nothing wait early: so the
		// softmax, which runs under the products of the tile before, ends the loop's body, and the branch on its kind is before it.
		auto turn = [&](int i, bool marks) {
			barrier_of(1 + group, 256);
			score(i);
			gather(i - 1);
			barrier_leave(2 - group, 256);
			products_wait<1>();
			hold(p);
			barrier_arrive(k_free + (i & 1), lane == 0);
			soften(i, marks);
		};

		barrier_wait(q_here, 0);
		score(0);
		products_wait<0>();
		hold(p);
		barrier_arrive(k_free, lane == 0);
		soften(0, true);
		narrow();
		if (group == 1) barrier_leave(1, 256); // the first turn is the other's
		for (int i = 1; i < to - from; i++) {
			if (i > 1) settle(i - 2);
			if (partial(i)) turn(i, true);
			else turn(i, false);
		}
		if (group == 0) barrier_of(1, 256); // the last turn, which the other gave
		if (to - from > 1) settle(to - from - 2);
		gather(to - from - 1);
		products_wait<0>();
		hold(out);

		UNROLL for (int r = 0; r < 2; r++) {
			sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
			sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
			int t = row + r * 8;
			if (t >= nq) continue;
			float f = 1.f / sum[r];
			u16 *y = a.y + ((i64)(q0 + t) * a.heads + h) * D + lane % 4 * 2;
			UNROLL for (int i = 0; i < D / 8; i++) *(u32 *)(y + i * 8) = pack(out[4 * i + 2 * r] * f, out[4 * i + 2 * r + 1] * f);
			if (a.lse && lane % 4 == 0) a.lse[(i64)h * a.tokens + q0 + t] = top[r] * a.scale + logf(sum[r]);
		}
	}
}
#undef ROWS
