// y[rows[i]] = x[i], a block a row.
struct Args {
	T *y;
	const T *x;
	const int *rows;
	int d;
};
KERNEL(scatter, 128)(Args a) {
	const T *from = a.x + (i64)blockIdx.x * a.d;
	T *to = a.y + (i64)a.rows[blockIdx.x] * a.d;
	for (int i = threadIdx.x; i < a.d; i += blockDim.x) to[i] = from[i];
}
