// partial[block] = Σ g² over the block's share, in float64. The number of blocks is fixed by the caller, so that the order of the
// sum depends on the length alone.
struct Args {
	double *partial;
	const T *g;
	i64 n;
	int wide;
};
KERNEL(squared_norm, 256)(Args a) {
	SHARED(double, scratch);
	double s = 0;
	float g[8];
	for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8; i < a.n; i += (i64)gridDim.x * blockDim.x * 8) {
		take8(g, a.g + i, a.wide, a.n - i);
		for (int j = 0; j < 8; j++) s += (double)g[j] * g[j];
	}
	scratch[threadIdx.x] = s;
	for (int half = blockDim.x / 2; half; half /= 2) {
		__syncthreads();
		if ((int)threadIdx.x < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
	}
	if (threadIdx.x == 0) a.partial[blockIdx.x] = scratch[0];
}
