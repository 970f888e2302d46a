// partial[c, j] = Σ dy·x·rstd over the c-th `per` rows of column j: a thread eight columns. fold adds the partials.
struct Args {
	float *partial;
	const T *dy, *x;
	const W *rstd;
	int rows, d, per, wide;
};
KERNEL(rms_norm_grad_weight, 128)(Args a) {
	int j = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
	if (j >= a.d) return;
	int from = blockIdx.y * a.per, to = min(from + a.per, a.rows);
	float s[8], x[8], y[8];
	UNROLL for (int i = 0; i < 8; i++) s[i] = 0;
	for (int t = from; t < to; t++) {
		float r = value(a.rstd[t]);
		take8(y, a.dy + (i64)t * a.d + j, a.wide, a.d - j);
		take8(x, a.x + (i64)t * a.d + j, a.wide, a.d - j);
		UNROLL for (int i = 0; i < 8; i++) s[i] += y[i] * x[i] * r;
	}
	give8(a.partial + (i64)blockIdx.y * a.d + j, s, a.wide, a.d - j);
}
