// dq for any head width up to 256 and any type: a warp a query and head, a lane a key, then elements lane, lane+32, … of dq.
struct Args {
	T *dq;
	const T *dy, *q, *k, *v;
	const float *lse, *delta; // [H, T]
	const int *cu;
	int sequences, tokens, heads, kvheads, e, window;
	float scale;
};
KERNEL(attention_rows_grad_q, 32)(Args a) {
	SHARED(float, q); // [e], then dy [e]
	float *dy = q + a.e;
	int t = blockIdx.x, h = blockIdx.y, lane = threadIdx.x;
	int low = 0, high = a.sequences - 1;
	while (low < high) {
		int mid = (low + high + 1) / 2;
		if (a.cu[mid] <= t) low = mid;
		else high = mid - 1;
	}
	int first = a.cu[low];
	if (a.window) first = max(first, t - a.window + 1);
	i64 step = (i64)a.kvheads * a.e, at = ((i64)t * a.heads + h) * a.e;
	const T *k = a.k + h / (a.heads / a.kvheads) * a.e, *v = a.v + (k - a.k);
	for (int i = lane; i < a.e; i += 32) q[i] = value(a.q[at + i]), dy[i] = value(a.dy[at + i]);
	__syncwarp();
	float lse = a.lse[(i64)h * a.tokens + t], delta = a.delta[(i64)h * a.tokens + t], out[8];
	UNROLL for (int i = 0; i < 8; i++) out[i] = 0;
	for (int j0 = first; j0 <= t; j0 += 32) {
		int j = j0 + lane;
		float ds = 0;
		if (j <= t) {
			float s = 0, dp = 0;
			for (int i = 0; i < a.e; i++) s += q[i] * value(k[j * step + i]), dp += dy[i] * value(v[j * step + i]);
			ds = expf(s * a.scale - lse) * (dp - delta) * a.scale;
		}
		for (int n = 0; n < 32 && j0 + n <= t; n++) {
			float g = __shfl_sync(0xffffffffu, ds, n);
			UNROLL for (int i = 0; i < 8; i++)
				if (lane + 32 * i < a.e) out[i] += g * value(k[(j0 + n) * step + lane + 32 * i]);
		}
	}
	UNROLL for (int i = 0; i < 8; i++)
		if (lane + 32 * i < a.e) put(a.dq + at + lane + 32 * i, out[i]);
}
