// Causal attention of bfloat16 on the matrix units, head width D (64 or 128): a block 64 queries of a head, a warp 16 of
// them, keys 64 at a time in two stages of shared memory. The exponentials are powers of two.
//
// Sequence s has queries [cuq[s], cuq[s+1]) and keys [cuk[s], cuk[s+1]); its last query sees its last key. tiles lists the
// blocks: sequence, first query in it.
struct Args {
	u16 *y;      // [T, H, D]
	float *lse;  // [H, T], or null
	const u16 *q, *k, *v;
	const int *cuq, *cuk, *tiles;
	int tokens, heads, kvheads, window;
	float scale;
};

// Rows of D elements in pieces of eight, moved so that eight rows' equal pieces lie in different banks.
#define AT(r, c) ((r) * D + (((((c) >> 3) ^ ((r) & 7)) << 3) | ((c) & 7)))

KERNEL(attention, 128)(Args a) {
	SHARED(u16, sq);
	u16 *sk = sq + 64 * D, *sv = sk + 2 * 64 * D;
	int s = a.tiles[2 * blockIdx.x], m0 = a.tiles[2 * blockIdx.x + 1], h = blockIdx.y, g = h / (a.heads / a.kvheads);
	int q0 = a.cuq[s], nq = a.cuq[s + 1] - q0, k0 = a.cuk[s], nk = a.cuk[s + 1] - k0, ahead = nk - nq;
	int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, row = m0 + warp * 16 + lane / 4;
	int from = a.window ? max(0, m0 + ahead - a.window + 1) / 64 : 0;
	int to = (min(nk, m0 + 64 + ahead) + 63) / 64;
	float scale = a.scale * 1.44269504f;

	for (int i = thread; i < 64 * D / 8; i += 128) {
		int r = i / (D / 8), c = i % (D / 8) * 8;
		bool there = m0 + r < nq;
		copy16(sq + AT(r, c), a.q + ((i64)(q0 + (there ? m0 + r : 0)) * a.heads + h) * D + c, there);
	}
	auto fetch = [&](int j, int stage) {
		for (int i = thread; i < 64 * D / 8; i += 128) {
			int r = i / (D / 8), c = i % (D / 8) * 8;
			bool there = j * 64 + r < nk;
			i64 at = ((i64)(k0 + (there ? j * 64 + r : 0)) * a.kvheads + g) * D + c;
			copy16(sk + stage * 64 * D + AT(r, c), a.k + at, there);
			copy16(sv + stage * 64 * D + AT(r, c), a.v + at, there);
		}
	};
	fetch(from, 0);
	copies_group();

	float out[D / 8][4], top[2] = {-INFINITE, -INFINITE}, sum[2] = {0, 0};
	UNROLL for (int i = 0; i < D / 8; i++)
		UNROLL for (int e = 0; e < 4; e++) out[i][e] = 0;
	for (int j = from; j < to; j++) {
		int stage = (j - from) & 1;
		const u16 *k = sk + stage * 64 * D, *v = sv + stage * 64 * D;
		if (j + 1 < to) fetch(j + 1, stage ^ 1);
		copies_group();
		copies_wait<1>();
		__syncthreads();

		float p[8][4];
		UNROLL for (int i = 0; i < 8; i++)
			UNROLL for (int e = 0; e < 4; e++) p[i][e] = 0;
		UNROLL for (int kk = 0; kk < D / 16; kk++) {
			u32 x[4];
			load4(x, sq + AT(warp * 16 + lane % 16, kk * 16 + lane / 16 * 8));
			UNROLL for (int n = 0; n < 4; n++) {
				u32 b[4];
				load4(b, k + AT(n * 16 + lane % 8 + lane / 16 * 8, kk * 16 + (lane / 8 & 1) * 8));
				multiply(p[2 * n], x, b[0], b[1]);
				multiply(p[2 * n + 1], x, b[2], b[3]);
			}
		}
		float next[2] = {top[0], top[1]}, base[2], shrink[2];
		UNROLL for (int i = 0; i < 8; i++)
			UNROLL for (int e = 0; e < 4; e++) {
				int key = j * 64 + i * 8 + lane % 4 * 2 + (e & 1), at = row + (e / 2) * 8 + ahead;
				if (key > at || key >= nk || (a.window && key <= at - a.window)) p[i][e] = -INFINITE;
				next[e / 2] = fmaxf(next[e / 2], p[i][e]);
			}
		UNROLL for (int r = 0; r < 2; r++) {
			next[r] = fmaxf(next[r], __shfl_xor_sync(0xffffffffu, next[r], 1));
			next[r] = fmaxf(next[r], __shfl_xor_sync(0xffffffffu, next[r], 2));
			base[r] = next[r] == -INFINITE ? 0.f : next[r] * scale; // a row may see none of these keys
			shrink[r] = exp2_fast(top[r] * scale - base[r]);
			top[r] = next[r];
			sum[r] *= shrink[r];
		}
		UNROLL for (int i = 0; i < D / 8; i++)
			UNROLL for (int e = 0; e < 4; e++) out[i][e] *= shrink[e / 2];
		UNROLL for (int i = 0; i < 8; i++)
			UNROLL for (int e = 0; e < 4; e++) {
				p[i][e] = exp2_fast(p[i][e] * scale - base[e / 2]);
				sum[e / 2] += p[i][e];
			}
		UNROLL for (int kk = 0; kk < 4; kk++) {
			u32 x[4] = {pack(p[2 * kk][0], p[2 * kk][1]), pack(p[2 * kk][2], p[2 * kk][3]),
				    pack(p[2 * kk + 1][0], p[2 * kk + 1][1]), pack(p[2 * kk + 1][2], p[2 * kk + 1][3])};
			UNROLL for (int n = 0; n < D / 16; n++) {
				u32 b[4];
				load4_transposed(b, v + AT(kk * 16 + lane % 16, n * 16 + lane / 16 * 8));
				multiply(out[2 * n], x, b[0], b[1]);
				multiply(out[2 * n + 1], x, b[2], b[3]);
			}
		}
		__syncthreads();
	}
	UNROLL for (int r = 0; r < 2; r++) {
		sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
		sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
		int t = row + r * 8;
		if (t >= nq) continue;
		float f = 1.f / sum[r];
		u16 *y = a.y + ((i64)(q0 + t) * a.heads + h) * D + lane % 4 * 2;
		UNROLL for (int i = 0; i < D / 8; i++) *(u32 *)(y + i * 8) = pack(out[i][2 * r] * f, out[i][2 * r + 1] * f);
		if (a.lse && lane % 4 == 0) a.lse[(i64)h * a.tokens + q0 + t] = top[r] * a.scale + logf(sum[r]);
	}
}
#undef AT
