// dk and dv for any head width up to 256 and any type: a warp a key and key head, which goes through its group's heads and their
// queries in order; a lane a query, then elements lane, lane+32, … of dk and dv.
struct Args {
	T *dk, *dv;
	const T *dy, *q, *k, *v;
	const float *lse, *delta; // [H, T]
	const int *cu;
	int sequences, tokens, heads, kvheads, e, window;
	float scale;
};
KERNEL(attention_rows_grad_kv, 32)(Args a) {
	SHARED(float, k); // [e], then v [e]
	float *v = k + a.e;
	int j = blockIdx.x, g = blockIdx.y, lane = threadIdx.x, group = a.heads / a.kvheads;
	int low = 0, high = a.sequences - 1;
	while (low < high) {
		int mid = (low + high + 1) / 2;
		if (a.cu[mid] <= j) low = mid;
		else high = mid - 1;
	}
	int end = a.cu[low + 1];
	if (a.window) end = min(end, j + a.window);
	i64 at = ((i64)j * a.kvheads + g) * a.e, step = (i64)a.heads * a.e;
	for (int i = lane; i < a.e; i += 32) k[i] = value(a.k[at + i]), v[i] = value(a.v[at + i]);
	__syncwarp();
	float dk[8], dv[8];
	UNROLL for (int i = 0; i < 8; i++) dk[i] = dv[i] = 0;
	for (int h = g * group; h < (g + 1) * group; h++) {
		const T *q = a.q + (i64)h * a.e, *dy = a.dy + (i64)h * a.e;
		const float *lse = a.lse + (i64)h * a.tokens, *delta = a.delta + (i64)h * a.tokens;
		for (int t0 = j; t0 < end; t0 += 32) {
			int t = t0 + lane;
			float p = 0, ds = 0;
			if (t < end) {
				float s = 0, dp = 0;
				for (int i = 0; i < a.e; i++) s += k[i] * value(q[t * step + i]), dp += v[i] * value(dy[t * step + i]);
				p = expf(s * a.scale - lse[t]);
				ds = p * (dp - delta[t]) * a.scale;
			}
			for (int n = 0; n < 32 && t0 + n < end; n++) {
				float pn = __shfl_sync(0xffffffffu, p, n), gn = __shfl_sync(0xffffffffu, ds, n);
				i64 row = (t0 + n) * step + lane;
				UNROLL for (int i = 0; i < 8; i++)
					if (lane + 32 * i < a.e) dk[i] += gn * value(q[row + 32 * i]), dv[i] += pn * value(dy[row + 32 * i]);
			}
		}
	}
	UNROLL for (int i = 0; i < 8; i++)
		if (lane + 32 * i < a.e) put(a.dk + at + lane + 32 * i, dk[i]), put(a.dv + at + lane + 32 * i, dv[i]);
}
