// Adds the shares that attention_decode left of one row, in their order: a block a row of a key head.
struct Args {
	T *y;               // [n, H, e]
	const float *parts; // [splits, rows of a key head, key heads, e + 2]
	int splits, heads, kvheads, e;
};
KERNEL(attention_decode_merge, 128)(Args a) {
	int row = blockIdx.x, g = blockIdx.y, group = a.heads / a.kvheads;
	i64 step = (i64)gridDim.x * a.kvheads * (a.e + 2);
	const float *part = a.parts + ((i64)row * a.kvheads + g) * (a.e + 2);
	float top = -INFINITE, sum = 0;
	for (int s = 0; s < a.splits; s++) top = fmaxf(top, part[s * step + a.e]);
	for (int s = 0; s < a.splits; s++) sum += part[s * step + a.e + 1] * exp2_fast(part[s * step + a.e] - top);
	float f = 1.f / sum;
	T *y = a.y + ((i64)(row / group) * a.heads + g * group + row % group) * a.e;
	for (int c = threadIdx.x; c < a.e; c += blockDim.x) {
		float v = 0;
		for (int s = 0; s < a.splits; s++) v += part[s * step + c] * exp2_fast(part[s * step + a.e] - top);
		put(y + c, v * f);
	}
}
