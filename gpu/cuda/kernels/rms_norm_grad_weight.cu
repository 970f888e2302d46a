// partial[c, j] = Σ dy·x·rstd over the c-th `per` rows of column j: a thread a column. fold adds the partials.
struct Args {
	float *partial;
	const T *dy, *x;
	const W *rstd;
	int rows, d, per;
};
KERNEL(rms_norm_grad_weight, 128)(Args a) {
	int j = blockIdx.x * blockDim.x + threadIdx.x;
	if (j >= a.d) return;
	int from = blockIdx.y * a.per, to = min(from + a.per, a.rows);
	float s = 0;
	for (int t = from; t < to; t++) s += value(a.dy[(i64)t * a.d + j]) * value(a.x[(i64)t * a.d + j]) * value(a.rstd[t]);
	a.partial[(i64)blockIdx.y * a.d + j] = s;
}
