// dx += r·dy·w − r³/d · (Σ dy·w·x) · x, a block a row.
struct Args {
	T *dx;
	const T *dy, *x, *w;
	const W *rstd;
	int d, wide;
};
KERNEL(rms_norm_grad, 256)(Args a) {
	SHARED(float, scratch);
	i64 row = (i64)blockIdx.x * a.d;
	float s = 0, x[8], g[8], w[8], out[8], r = value(a.rstd[blockIdx.x]);
	for (int i = threadIdx.x * 8; i < a.d; i += blockDim.x * 8) {
		take8(x, a.x + row + i, a.wide, a.d - i);
		take8(g, a.dy + row + i, a.wide, a.d - i);
		take8(w, a.w + i, a.wide, a.d - i);
		for (int j = 0; j < 8; j++) s += g[j] * w[j] * x[j];
	}
	float c = r * r * r * block_sum(s, scratch) / a.d;
	for (int i = threadIdx.x * 8; i < a.d; i += blockDim.x * 8) {
		take8(x, a.x + row + i, a.wide, a.d - i);
		take8(g, a.dy + row + i, a.wide, a.d - i);
		take8(w, a.w + i, a.wide, a.d - i);
		take8(out, a.dx + row + i, a.wide, a.d - i);
		for (int j = 0; j < 8; j++) out[j] += r * g[j] * w[j] - c * x[j];
		give8(a.dx + row + i, out, a.wide, a.d - i);
	}
}
