// Causal attention for any head width up to 256 and any type: a block a query and head, whose warps share the keys, 32 at a
// time, and merge in a fixed order. Within a warp a lane scores one key, then holds elements lane, lane+32, … of the output.
//
// Sequence s has queries [cuq[s], cuq[s+1]) and keys [cuk[s], cuk[s+1]); its last query sees its last key.
struct Args {
	T *y;        // [T, H, e]
	float *lse;  // [H, T], or null
	const T *q, *k, *v;
	const int *cuq, *cuk;
	int sequences, tokens, heads, kvheads, e, window;
	float scale;
};
KERNEL(attention_rows, 128)(Args a) {
	SHARED(float, scratch); // q [e], then by warp: output [e], top, sum
	int t = blockIdx.x, h = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
	int low = 0, high = a.sequences - 1;
	while (low < high) {
		int mid = (low + high + 1) / 2;
		if (a.cuq[mid] <= t) low = mid;
		else high = mid - 1;
	}
	int keys = a.cuk[low + 1] - a.cuk[low], last = t - a.cuq[low] + keys - (a.cuq[low + 1] - a.cuq[low]);
	int first = a.window ? max(0, last - a.window + 1) : 0;
	i64 step = (i64)a.kvheads * a.e;
	const T *q = a.q + ((i64)t * a.heads + h) * a.e;
	const T *k = a.k + a.cuk[low] * step + h / (a.heads / a.kvheads) * a.e, *v = a.v + (k - a.k);
	for (int i = threadIdx.x; i < a.e; i += blockDim.x) scratch[i] = value(q[i]);
	__syncthreads();

	float top = -INFINITE, sum = 0, out[8];
	UNROLL for (int i = 0; i < 8; i++) out[i] = 0;
	for (int j0 = first + warp * 32; j0 <= last; j0 += warps * 32) {
		int j = j0 + lane;
		float s = -INFINITE;
		if (j <= last) {
			s = 0;
			for (int i = 0; i < a.e; i++) s += scratch[i] * value(k[j * step + i]);
			s *= a.scale;
		}
		float next = fmaxf(top, warp_max(s)), shrink = expf(top - next), p = expf(s - next);
		top = next;
		sum = sum * shrink + warp_sum(p);
		UNROLL for (int i = 0; i < 8; i++) out[i] *= shrink;
		for (int n = 0; n < 32 && j0 + n <= last; n++) {
			float pn = __shfl_sync(0xffffffffu, p, n);
			UNROLL for (int i = 0; i < 8; i++)
				if (lane + 32 * i < a.e) out[i] += pn * value(v[(j0 + n) * step + lane + 32 * i]);
		}
	}
	float *mine = scratch + a.e + warp * (a.e + 2);
	UNROLL for (int i = 0; i < 8; i++)
		if (lane + 32 * i < a.e) mine[lane + 32 * i] = out[i];
	if (lane == 0) mine[a.e] = top, mine[a.e + 1] = sum;
	__syncthreads();
	const float *all = scratch + a.e;
	top = -INFINITE, sum = 0;
	for (int w = 0; w < warps; w++) top = fmaxf(top, all[w * (a.e + 2) + a.e]);
	for (int w = 0; w < warps; w++) sum += all[w * (a.e + 2) + a.e + 1] * expf(all[w * (a.e + 2) + a.e] - top);
	for (int i = threadIdx.x; i < a.e; i += blockDim.x) {
		float s = 0;
		for (int w = 0; w < warps; w++) s += all[w * (a.e + 2) + i] * expf(all[w * (a.e + 2) + a.e] - top);
		put(a.y + ((i64)t * a.heads + h) * a.e + i, s / sum);
	}
	if (a.lse && threadIdx.x == 0) a.lse[(i64)h * a.tokens + t] = top + logf(sum);
}
