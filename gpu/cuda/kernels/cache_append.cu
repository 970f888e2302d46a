// Writes the new row of keys (y = 0) or values of each sequence to the last row of its cache: a block a sequence and 2048 elements.
struct Args {
	const T *k, *v;   // [sequences, width]
	const Rows *rows;
	int width, wide;
};
KERNEL(cache_append, 256)(Args a) {
	int i = (blockIdx.z * 256 + threadIdx.x) * 8;
	if (i >= a.width) return;
	Rows r = a.rows[blockIdx.x];
	T *to = (T *)(blockIdx.y ? r.values : r.keys) + (i64)(r.length - 1) * a.width + i;
	move8(to, (blockIdx.y ? a.v : a.k) + (i64)blockIdx.x * a.width + i, a.wide, a.width - i);
}
