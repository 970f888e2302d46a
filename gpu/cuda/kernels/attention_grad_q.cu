// dq of bfloat16 attention on the matrix units, head width D (64 or 128): a block 64 queries of a head, a warp 16 of them, keys 64
// at a time. The scores are computed again from q, k and lse.
struct Args {
	u16 *dq;
	const u16 *dy, *q, *k, *v;
	const float *lse, *delta; // [H, T]
	const int *cu, *tiles;    // tiles: sequence, first query in it
	int tokens, heads, kvheads, window;
	float scale;
};
#define AT(r, c) ((r) * D + (((((c) >> 3) ^ ((r) & 7)) << 3) | ((c) & 7)))

KERNEL(attention_grad_q, 128)(Args a) {
	SHARED(u16, sq);
	u16 *sdy = sq + 64 * D, *sk = sdy + 64 * D, *sv = sk + 64 * D;
	int s = a.tiles[2 * blockIdx.x], m0 = a.tiles[2 * blockIdx.x + 1], h = blockIdx.y, g = h / (a.heads / a.kvheads);
	int t0 = a.cu[s], n = a.cu[s + 1] - t0;
	int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, row = m0 + warp * 16 + lane / 4;
	int from = a.window ? max(0, m0 - a.window + 1) / 64 : 0, to = (min(n, m0 + 64) + 63) / 64;
	const float log2e = 1.44269504f;
	float scale = a.scale * log2e;

	for (int i = thread; i < 64 * D / 8; i += 128) {
		int r = i / (D / 8), c = i % (D / 8) * 8;
		bool there = m0 + r < n;
		i64 at = ((i64)(t0 + (there ? m0 + r : 0)) * a.heads + h) * D + c;
		copy16(sq + AT(r, c), a.q + at, there);
		copy16(sdy + AT(r, c), a.dy + at, there);
	}
	float lse[2], delta[2], out[D / 8][4];
	UNROLL for (int r = 0; r < 2; r++) {
		int t = min(row + 8 * r, n - 1);
		lse[r] = a.lse[(i64)h * a.tokens + t0 + t] * log2e;
		delta[r] = a.delta[(i64)h * a.tokens + t0 + t];
	}
	UNROLL for (int i = 0; i < D / 8; i++)
		UNROLL for (int e = 0; e < 4; e++) out[i][e] = 0;
	for (int j = from; j < to; j++) {
		for (int i = thread; i < 64 * D / 8; i += 128) {
			int r = i / (D / 8), c = i % (D / 8) * 8;
			bool there = j * 64 + r < n;
			i64 at = ((i64)(t0 + (there ? j * 64 + r : 0)) * a.kvheads + g) * D + c;
			copy16(sk + AT(r, c), a.k + at, there);
			copy16(sv + AT(r, c), a.v + at, there);
		}
		copies_group();
		copies_wait<0>();
		__syncthreads();

		float p[8][4], dp[8][4];
		UNROLL for (int i = 0; i < 8; i++)
			UNROLL for (int e = 0; e < 4; e++) p[i][e] = dp[i][e] = 0;
		ROLLED for (int kk = 0; kk < D / 16; kk++) {
			u32 x[4], y[4];
			load4(x, sq + AT(warp * 16 + lane % 16, kk * 16 + lane / 16 * 8));
			load4(y, sdy + AT(warp * 16 + lane % 16, kk * 16 + lane / 16 * 8));
			UNROLL for (int i = 0; i < 4; i++) {
				u32 b[4];
				load4(b, sk + AT(i * 16 + lane % 8 + lane / 16 * 8, kk * 16 + (lane / 8 & 1) * 8));
				multiply(p[2 * i], x, b[0], b[1]);
				multiply(p[2 * i + 1], x, b[2], b[3]);
				load4(b, sv + AT(i * 16 + lane % 8 + lane / 16 * 8, kk * 16 + (lane / 8 & 1) * 8));
				multiply(dp[2 * i], y, b[0], b[1]);
				multiply(dp[2 * i + 1], y, b[2], b[3]);
			}
		}
		UNROLL for (int i = 0; i < 8; i++)
			UNROLL for (int e = 0; e < 4; e++) {
				int key = j * 64 + i * 8 + lane % 4 * 2 + (e & 1), at = row + (e / 2) * 8;
				bool seen = key <= at && key < n && at < n && (!a.window || key > at - a.window);
				p[i][e] = seen ? exp2_fast(p[i][e] * scale - lse[e / 2]) * (dp[i][e] - delta[e / 2]) : 0.f; // but for the scale, which dq gets at the end
			}
		UNROLL for (int kk = 0; kk < 4; kk++) {
			u32 x[4] = {pack(p[2 * kk][0], p[2 * kk][1]), pack(p[2 * kk][2], p[2 * kk][3]),
				    pack(p[2 * kk + 1][0], p[2 * kk + 1][1]), pack(p[2 * kk + 1][2], p[2 * kk + 1][3])};
			UNROLL for (int i = 0; i < D / 16; i++) {
				u32 b[4];
				load4_transposed(b, sk + AT(kk * 16 + lane % 16, i * 16 + lane / 16 * 8));
				multiply(out[2 * i], x, b[0], b[1]);
				multiply(out[2 * i + 1], x, b[2], b[3]);
			}
		}
		__syncthreads();
	}
	UNROLL for (int r = 0; r < 2; r++) {
		int t = row + r * 8;
		if (t >= n) continue;
		u16 *dq = a.dq + ((i64)(t0 + t) * a.heads + h) * D + lane % 4 * 2;
		UNROLL for (int i = 0; i < D / 8; i++) *(u32 *)(dq + i * 8) = pack(out[i][2 * r] * a.scale, out[i][2 * r + 1] * a.scale);
	}
}
#undef AT
