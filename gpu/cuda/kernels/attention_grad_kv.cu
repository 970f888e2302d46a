// dk and dv of bfloat16 attention on the matrix units, head width D (64 or 128): a block 64 keys of a key head, a warp 16 of them;
// it goes through the heads of the group and their queries in order, so that no sum is shared between blocks.
struct Args {
	u16 *dk, *dv;
	const u16 *dy, *q, *k, *v;
	const float *lse, *delta; // [H, T]
	const int *cu, *tiles;    // tiles: sequence, first key in it
	int tokens, heads, kvheads, window;
	float scale;
};
#define AT(r, c) ((r) * D + (((((c) >> 3) ^ ((r) & 7)) << 3) | ((c) & 7)))
#define QUERIES (D == 64 ? 64 : 32) // at a time: as many as the registers hold

KERNEL(attention_grad_kv, 128)(Args a) {
	SHARED(u16, sk);
	u16 *sv = sk + 64 * D, *sq = sv + 64 * D, *sdy = sq + QUERIES * D;
	float *lse = (float *)(sdy + QUERIES * D), *delta = lse + QUERIES;
	int s = a.tiles[2 * blockIdx.x], n0 = a.tiles[2 * blockIdx.x + 1], g = blockIdx.y, group = a.heads / a.kvheads;
	int t0 = a.cu[s], n = a.cu[s + 1] - t0;
	int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, row = n0 + warp * 16 + lane / 4;
	int end = a.window ? min(n, n0 + 63 + a.window) : n;
	const float log2e = 1.44269504f;
	float scale = a.scale * log2e;

	for (int i = thread; i < 64 * D / 8; i += 128) {
		int r = i / (D / 8), c = i % (D / 8) * 8;
		bool there = n0 + r < n;
		i64 at = ((i64)(t0 + (there ? n0 + r : 0)) * a.kvheads + g) * D + c;
		copy16(sk + AT(r, c), a.k + at, there);
		copy16(sv + AT(r, c), a.v + at, there);
	}
	float dk[D / 8][4], dv[D / 8][4];
	UNROLL for (int i = 0; i < D / 8; i++)
		UNROLL for (int e = 0; e < 4; e++) dk[i][e] = dv[i][e] = 0;
	for (int h = g * group; h < (g + 1) * group; h++)
		for (int m0 = n0; m0 < end; m0 += QUERIES) {
			for (int i = thread; i < QUERIES * D / 8; i += 128) {
				int r = i / (D / 8), c = i % (D / 8) * 8;
				bool there = m0 + r < n;
				i64 at = ((i64)(t0 + (there ? m0 + r : 0)) * a.heads + h) * D + c;
				copy16(sq + AT(r, c), a.q + at, there);
				copy16(sdy + AT(r, c), a.dy + at, there);
			}
			copies_group();
			if (thread < QUERIES) {
				i64 at = (i64)h * a.tokens + t0 + min(m0 + thread, n - 1);
				lse[thread] = a.lse[at] * log2e, delta[thread] = a.delta[at];
			}
			copies_wait<0>();
			__syncthreads();

			float p[QUERIES / 8][4], ds[QUERIES / 8][4];
			UNROLL for (int i = 0; i < QUERIES / 8; i++)
				UNROLL for (int e = 0; e < 4; e++) p[i][e] = ds[i][e] = 0;
			ROLLED for (int kk = 0; kk < D / 16; kk++) {
				u32 x[4], y[4];
				load4(x, sk + AT(warp * 16 + lane % 16, kk * 16 + lane / 16 * 8));
				load4(y, sv + AT(warp * 16 + lane % 16, kk * 16 + lane / 16 * 8));
				UNROLL for (int i = 0; i < QUERIES / 16; i++) {
					u32 b[4];
					load4(b, sq + AT(i * 16 + lane % 8 + lane / 16 * 8, kk * 16 + (lane / 8 & 1) * 8));
					multiply(p[2 * i], x, b[0], b[1]);
					multiply(p[2 * i + 1], x, b[2], b[3]);
					load4(b, sdy + AT(i * 16 + lane % 8 + lane / 16 * 8, kk * 16 + (lane / 8 & 1) * 8));
					multiply(ds[2 * i], y, b[0], b[1]);
					multiply(ds[2 * i + 1], y, b[2], b[3]);
				}
			}
			UNROLL for (int i = 0; i < QUERIES / 8; i++)
				UNROLL for (int e = 0; e < 4; e++) {
					int c = i * 8 + lane % 4 * 2 + (e & 1), at = m0 + c, key = row + (e / 2) * 8;
					bool seen = key <= at && at < n && key < n && (!a.window || key > at - a.window);
					p[i][e] = seen ? exp2_fast(p[i][e] * scale - lse[c]) : 0.f;
					ds[i][e] = p[i][e] * (ds[i][e] - delta[c]); // but for the scale, which dk gets at the end
				}
			UNROLL for (int kk = 0; kk < QUERIES / 16; kk++) {
				u32 x[4] = {pack(p[2 * kk][0], p[2 * kk][1]), pack(p[2 * kk][2], p[2 * kk][3]),
					    pack(p[2 * kk + 1][0], p[2 * kk + 1][1]), pack(p[2 * kk + 1][2], p[2 * kk + 1][3])};
				u32 y[4] = {pack(ds[2 * kk][0], ds[2 * kk][1]), pack(ds[2 * kk][2], ds[2 * kk][3]),
					    pack(ds[2 * kk + 1][0], ds[2 * kk + 1][1]), pack(ds[2 * kk + 1][2], ds[2 * kk + 1][3])};
				UNROLL for (int i = 0; i < D / 16; i++) {
					u32 b[4];
					load4_transposed(b, sdy + AT(kk * 16 + lane % 16, i * 16 + lane / 16 * 8));
					multiply(dv[2 * i], x, b[0], b[1]);
					multiply(dv[2 * i + 1], x, b[2], b[3]);
					load4_transposed(b, sq + AT(kk * 16 + lane % 16, i * 16 + lane / 16 * 8));
					multiply(dk[2 * i], y, b[0], b[1]);
					multiply(dk[2 * i + 1], y, b[2], b[3]);
				}
			}
			__syncthreads();
		}
	UNROLL for (int r = 0; r < 2; r++) {
		int t = row + r * 8;
		if (t >= n) continue;
		i64 at = ((i64)(t0 + t) * a.kvheads + g) * D + lane % 4 * 2;
		UNROLL for (int i = 0; i < D / 8; i++) {
			*(u32 *)(a.dk + at + i * 8) = pack(dk[i][2 * r] * a.scale, dk[i][2 * r + 1] * a.scale);
			*(u32 *)(a.dv + at + i * 8) = pack(dv[i][2 * r], dv[i][2 * r + 1]);
		}
	}
}
#undef AT
#undef QUERIES
