// y[i] = table[ids[i]], a block a row, eight elements a thread.
struct Args {
	T *y;
	const T *table;
	const int *ids;
	int d, wide;
};
KERNEL(embedding, 128)(Args a) {
	const T *from = a.table + (i64)a.ids[blockIdx.x] * a.d;
	T *to = a.y + (i64)blockIdx.x * a.d;
	for (int i = threadIdx.x * 8; i < a.d; i += blockDim.x * 8) move8(to + i, from + i, a.wide, a.d - i);
}
