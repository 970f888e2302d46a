// dq[t, first + h] = sum[t, h] · scale for the heads of a launch of hopper_attention_grad_kv, eight elements a thread.
struct Args {
	u16 *dq;          // [T, heads, e]
	const float *sum; // [T, some, e]
	i64 n;            // elements of sum
	int heads, some, first, e;
	float scale;
};
KERNEL(attention_gather_q, 256)(Args a) {
	i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
	if (i >= a.n) return;
	float x[8];
	take8(x, a.sum + i, 1, 8);
	for (int j = 0; j < 8; j++) x[j] *= a.scale;
	i64 row = i / a.e;
	give8(a.dq + (row / a.some * a.heads + a.first + row % a.some) * a.e + i % a.e, x, 1, 8);
}
