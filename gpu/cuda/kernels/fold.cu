// y[j] += Σ partial[c, j] in order of c, a thread a column.
struct Args {
	W *y;
	const float *partial;
	int parts, d;
};
KERNEL(fold, 128)(Args a) {
	int j = blockIdx.x * blockDim.x + threadIdx.x;
	if (j >= a.d) return;
	float s = 0;
	for (int c = 0; c < a.parts; c++) s += a.partial[(i64)c * a.d + j];
	put(a.y + j, value(a.y[j]) + s);
}
