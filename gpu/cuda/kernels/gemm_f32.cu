// c[m, n] = Σ_k a(m, k) b(n, k) + bias[n], or added to c, in float32: a block 64 × 64, a thread 4 × 4, k 16 at a time. Element
// (i, k) of a is a[i·rows + k·steps], one of the two being 1; the same of b.
struct Args {
	float *c;
	const float *a, *b, *bias;
	i64 a_rows, a_steps, b_rows, b_steps;
	int m, n, k, ldc, accumulate;
};
#define PITCH 68

DEV void tile(float *to, const float *x, i64 rows, i64 steps, int r0, int k0, int most, int k) {
	for (int i = threadIdx.x; i < 64 * 16; i += 256) {
		int r = steps == 1 ? i / 16 : i % 64, c = steps == 1 ? i % 16 : i / 64;
		bool there = r0 + r < most && k0 + c < k;
		to[c * PITCH + r] = there ? x[(r0 + r) * rows + (k0 + c) * steps] : 0.f;
	}
}

KERNEL(gemm_f32, 256)(Args a) {
	SHARED(float, sa);
	float *sb = sa + 16 * PITCH;
	int m0 = blockIdx.y * 64, n0 = blockIdx.x * 64, tm = threadIdx.x / 16 * 4, tn = threadIdx.x % 16 * 4;
	float c[4][4];
	UNROLL for (int i = 0; i < 4; i++)
		UNROLL for (int j = 0; j < 4; j++) c[i][j] = 0;
	for (int k0 = 0; k0 < a.k; k0 += 16) {
		tile(sa, a.a, a.a_rows, a.a_steps, m0, k0, a.m, a.k);
		tile(sb, a.b, a.b_rows, a.b_steps, n0, k0, a.n, a.k);
		__syncthreads();
		UNROLL for (int k = 0; k < 16; k++)
			UNROLL for (int i = 0; i < 4; i++)
				UNROLL for (int j = 0; j < 4; j++) c[i][j] += sa[k * PITCH + tm + i] * sb[k * PITCH + tn + j];
		__syncthreads();
	}
	UNROLL for (int i = 0; i < 4; i++)
		UNROLL for (int j = 0; j < 4; j++) {
			int m = m0 + tm + i, n = n0 + tn + j;
			if (m >= a.m || n >= a.n) continue;
			float *to = a.c + (i64)m * a.ldc + n, v = c[i][j];
			if (a.bias) v += a.bias[n];
			if (a.accumulate) v += *to;
			*to = v;
		}
}
#undef PITCH
