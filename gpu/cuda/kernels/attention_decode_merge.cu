// Adds the shares that attention_decode left of one row, in their order: a block a row of a key head of a sequence.
struct Args {
	T *y;               // [sequences, n, H, e]
	const float *parts; // [sequences, places, rows of a key head, key heads, e + 2]
	const Rows *rows;   // as in attention_decode
	Rows one;
	int n, most, places, heads, kvheads, e, window, unused;
};
KERNEL(attention_decode_merge, 128)(Args a) {
	int row = blockIdx.x, g = blockIdx.y, sequence = blockIdx.z, group = a.heads / a.kvheads;
	int splits = shares((a.rows ? a.rows[sequence] : a.one).length, a.n, a.window, a.most).number;
	i64 step = (i64)gridDim.x * a.kvheads * (a.e + 2);
	const float *part = a.parts + sequence * a.places * step + ((i64)row * a.kvheads + g) * (a.e + 2);
	float top = -INFINITE, sum = 0;
	for (int s = 0; s < splits; s++) top = fmaxf(top, part[s * step + a.e]);
	for (int s = 0; s < splits; s++) sum += part[s * step + a.e + 1] * exp2_fast(part[s * step + a.e] - top);
	float f = 1.f / sum;
	T *y = a.y + ((i64)(sequence * a.n + row / group) * a.heads + g * group + row % group) * a.e;
	for (int c = threadIdx.x; c < a.e; c += blockDim.x) {
		float v = 0;
		for (int s = 0; s < splits; s++) v += part[s * step + c] * exp2_fast(part[s * step + a.e] - top);
		put(y + c, v * f);
	}
}
