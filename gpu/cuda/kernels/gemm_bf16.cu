// c[m, n] = Σ_k a(m, k) b(n, k) + bias[n], or added to c: bfloat16 on the matrix units, a block 64 × 64, a warp 32 × 32, k 32 at a
// time. Either operand may lie along k or across it: element (i, k) of a is a[i·rows + k·steps], one of the two being 1.
// It serves where the vendor's library is missing, and every shape.
struct Args {
	W *c;
	const u16 *a, *b, *bias;
	i64 a_rows, a_steps, b_rows, b_steps;
	int m, n, k, ldc, accumulate;
};
#define PITCH 40 // u16 in a row of a tile: 16-byte rows that start in different banks

// tile copies x(r0 … r0+63, k0 … k0+31) to shared memory, zeros outside.
DEV void tile(u16 *to, const u16 *x, i64 rows, i64 steps, int r0, int k0, int most, int k) {
	for (int i = threadIdx.x; i < 64 * 32; i += 128) {
		int r = steps == 1 ? i / 32 : i % 64, c = steps == 1 ? i % 32 : i / 64;
		bool there = r0 + r < most && k0 + c < k;
		to[r * PITCH + c] = there ? x[(r0 + r) * rows + (k0 + c) * steps] : (u16)0;
	}
}

KERNEL(gemm_bf16, 128)(Args a) {
	SHARED(u16, sa);
	u16 *sb = sa + 64 * PITCH;
	int m0 = blockIdx.y * 64, n0 = blockIdx.x * 64, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	int wm = warp / 2 * 32, wn = warp % 2 * 32;
	float c[2][4][4];
	UNROLL for (int i = 0; i < 2; i++)
		UNROLL for (int j = 0; j < 4; j++)
			UNROLL for (int e = 0; e < 4; e++) c[i][j][e] = 0;
	for (int k0 = 0; k0 < a.k; k0 += 32) {
		tile(sa, a.a, a.a_rows, a.a_steps, m0, k0, a.m, a.k);
		tile(sb, a.b, a.b_rows, a.b_steps, n0, k0, a.n, a.k);
		__syncthreads();
		UNROLL for (int kk = 0; kk < 32; kk += 16) {
			u32 x[2][4];
			UNROLL for (int i = 0; i < 2; i++) load4(x[i], sa + (wm + i * 16 + lane % 16) * PITCH + kk + lane / 16 * 8);
			UNROLL for (int j = 0; j < 2; j++) {
				u32 b[4];
				load4(b, sb + (wn + j * 16 + lane % 8 + lane / 16 * 8) * PITCH + kk + (lane / 8 & 1) * 8);
				UNROLL for (int i = 0; i < 2; i++) {
					multiply(c[i][2 * j], x[i], b[0], b[1]);
					multiply(c[i][2 * j + 1], x[i], b[2], b[3]);
				}
			}
		}
		__syncthreads();
	}
	UNROLL for (int i = 0; i < 2; i++)
		UNROLL for (int j = 0; j < 4; j++)
			UNROLL for (int e = 0; e < 4; e++) {
				int m = m0 + wm + i * 16 + lane / 4 + e / 2 * 8, n = n0 + wn + j * 8 + lane % 4 * 2 + (e & 1);
				if (m >= a.m || n >= a.n) continue;
				W *to = a.c + (i64)m * a.ldc + n;
				float v = c[i][j][e];
				if (a.bias) v += value(a.bias[n]);
				if (a.accumulate) v += value(*to);
				put(to, v);
			}
}
#undef PITCH
