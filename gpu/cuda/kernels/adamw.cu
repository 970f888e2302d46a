// PyTorch's AdamW, eight elements a thread: m = b1·m + a1·g, v = b2·v + a2·g², w = keep·w − lr·m / (root·√v + eps), with the
// bias corrections in lr and root.
struct Args {
	W *w, *m, *v;
	const W *g;
	i64 n;
	float scale, b1, a1, b2, a2, keep, lr, root, eps;
	int wide;
};
KERNEL(adamw, 256)(Args a) {
	i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
	if (i >= a.n) return;
	i64 n = a.n - i;
	float w[8], g[8], m[8], v[8];
	take8(w, a.w + i, a.wide, n);
	take8(g, a.g + i, a.wide, n);
	take8(m, a.m + i, a.wide, n);
	take8(v, a.v + i, a.wide, n);
	for (int j = 0; j < 8; j++) {
		float x = g[j] * a.scale;
		m[j] = a.b1 * m[j] + a.a1 * x;
		v[j] = a.b2 * v[j] + a.a2 * x * x;
		w[j] = a.keep * w[j] - a.lr * m[j] / (a.root * sqrtf(v[j]) + a.eps);
	}
	give8(a.w + i, w, a.wide, n);
	give8(a.m + i, m, a.wide, n);
	give8(a.v + i, v, a.wide, n);
}
