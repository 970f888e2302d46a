// y[i] = table[ids[i]], a block a row.
struct Args {
	T *y;
	const T *table;
	const int *ids;
	int d;
};
KERNEL(embedding, 128)(Args a) {
	const T *from = a.table + (i64)a.ids[blockIdx.x] * a.d;
	T *to = a.y + (i64)blockIdx.x * a.d;
	for (int i = threadIdx.x; i < a.d; i += blockDim.x) to[i] = from[i];
}
