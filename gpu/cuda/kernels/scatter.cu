// y[rows[i]] = x[i], a block a row, eight elements a thread.
struct Args {
	T *y;
	const T *x;
	const int *rows;
	int d, wide;
};
KERNEL(scatter, 128)(Args a) {
	const T *from = a.x + (i64)blockIdx.x * a.d;
	T *to = a.y + (i64)a.rows[blockIdx.x] * a.d;
	for (int i = threadIdx.x * 8; i < a.d; i += blockDim.x * 8) move8(to + i, from + i, a.wide, a.d - i);
}
