// delta[h, t] = Σ dy·y over a head's width, a warp a query and head: what the softmax's gradient takes off.
struct Args {
	float *delta; // [H, T]
	const T *dy, *y;
	int tokens, heads, e;
};
KERNEL(attention_delta, 128)(Args a) {
	i64 n = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 32;
	if (n >= (i64)a.tokens * a.heads) return;
	float s = 0;
	for (int i = threadIdx.x % 32; i < a.e; i += 32) s += value(a.dy[n * a.e + i]) * value(a.y[n * a.e + i]);
	s = warp_sum(s);
	if (threadIdx.x % 32 == 0) a.delta[n % a.heads * a.tokens + n / a.heads] = s;
}
