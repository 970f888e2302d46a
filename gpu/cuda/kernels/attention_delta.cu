// delta[h, t] = Σ dy·y over a head's width: what the softmax's gradient takes off. A thread eight elements; the lanes of a head, a
// power of two of them, add up.
struct Args {
	float *delta; // [H, T]
	const T *dy, *y;
	int tokens, heads, e, lanes, wide;
};
KERNEL(attention_delta, 128)(Args a) {
	i64 n = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / a.lanes;
	int i = threadIdx.x % a.lanes * 8;
	bool there = n < (i64)a.tokens * a.heads;
	float s = 0, x[8], y[8];
	if (there && i < a.e) {
		take8(x, a.dy + n * a.e + i, a.wide, a.e - i);
		take8(y, a.y + n * a.e + i, a.wide, a.e - i);
		UNROLL for (int j = 0; j < 8; j++) s += x[j] * y[j];
	}
	for (int m = a.lanes / 2; m; m /= 2) s += __shfl_xor_sync(0xffffffffu, s, m);
	if (there && i == 0) a.delta[n % a.heads * a.tokens + n / a.heads] = s;
}
