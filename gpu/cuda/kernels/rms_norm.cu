// y = x · rstd · w by rows of d, a block a row; rstd = 1/√(mean x² + eps).
struct Args {
	T *y;
	W *rstd;
	const T *x, *w;
	int d;
	float eps;
	int wide;
};
KERNEL(rms_norm, 256)(Args a) {
	SHARED(float, scratch);
	const T *x = a.x + (i64)blockIdx.x * a.d;
	T *y = a.y + (i64)blockIdx.x * a.d;
	float s = 0, v[8], w[8];
	for (int i = threadIdx.x * 8; i < a.d; i += blockDim.x * 8) {
		take8(v, x + i, a.wide, a.d - i);
		for (int j = 0; j < 8; j++) s += v[j] * v[j];
	}
	float r = 1.f / sqrtf(block_sum(s, scratch) / a.d + a.eps);
	if (threadIdx.x == 0) put(a.rstd + blockIdx.x, r);
	for (int i = threadIdx.x * 8; i < a.d; i += blockDim.x * 8) {
		take8(v, x + i, a.wide, a.d - i);
		take8(w, a.w + i, a.wide, a.d - i);
		for (int j = 0; j < 8; j++) v[j] *= r * w[j];
		give8(y + i, v, a.wide, a.d - i);
	}
}
