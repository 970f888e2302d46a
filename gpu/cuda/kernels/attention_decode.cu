// Attention of a few new tokens a sequence to caches of keys and values, which are read once: a block a sequence, a key head, a share
// of the keys and up to R of the rows (query and head) that see them. Lengths lie in memory, so that a launch can be repeated as it
// is while they grow; blocks beyond a sequence's shares end at once. Eight elements a lane, so `lanes` of them a key; each group of lanes takes four
// keys at a time, all loads before the first use. attention_decode_merge adds the shares.
struct Args {
	float *parts;      // [sequences, shares, rows of a key head, key heads, e + 2]: output, top, sum
	const T *q;        // [sequences, n, H, e]
	const Rows *rows;  // of each sequence; 0 for one
	Rows one;
	int n, most, heads, kvheads, e, lanes, window;
	float scale;
	int wide, unused;
};
#define KEYS 4

KERNEL(attention_decode, 128)(Args a) {
	SHARED(float, scratch); // by warp and row: output [lanes · 8], top, sum; then where the keys and values are, and
	// the last key that each row sees
	int g = blockIdx.y, group = a.heads / a.kvheads, rows = a.n * group, blocks = (rows + R - 1) / R;
	int r0 = blockIdx.z % blocks * R;
	Rows cache = a.rows ? a.rows[blockIdx.z / blocks] : a.one;
	Shares share = shares(cache.length, a.n, a.window, a.most);
	if ((int)blockIdx.x >= share.number) return;
	int warp = threadIdx.x / 32, lane = threadIdx.x % 32, groups = 32 / a.lanes, mine = lane / a.lanes, i = lane % a.lanes * 8;
	int from = share.skip + blockIdx.x * share.per, to = min(from + share.per, cache.length), width = a.lanes * 8 + 2;
	i64 step = (i64)a.kvheads * a.e;
	float scale = a.scale * 1.44269504f, q[R][8], out[R][8], top[R], sum[R];
	volatile u64 *place = (volatile u64 *)(scratch + 4 * R * width); // read anew in each round: eight rows leave no registers for it
	volatile int *lasts = (volatile int *)(place + 2);
	if (threadIdx.x == 0) place[0] = cache.keys, place[1] = cache.values;
	if (threadIdx.x < R) lasts[threadIdx.x] = cache.length - a.n + min(r0 + (int)threadIdx.x, rows - 1) / group;
	__syncthreads();
	UNROLL for (int r = 0; r < R; r++) {
		int row = min(r0 + r, rows - 1);
		UNROLL for (int c = 0; c < 8; c++) q[r][c] = out[r][c] = 0;
		if (i < a.e) take8(q[r], a.q + ((i64)(blockIdx.z / blocks * a.n + row / group) * a.heads + g * group + row % group) * a.e + i, a.wide, a.e - i);
		UNROLL for (int c = 0; c < 8; c++) q[r][c] *= scale;
		top[r] = -INFINITE, sum[r] = 0;
	}
	for (int base = from + warp * groups * KEYS; base < to; base += 4 * groups * KEYS) {
		const T *keys = (const T *)place[0], *values = (const T *)place[1];
		float k[KEYS][8], v[KEYS][8];
		UNROLL for (int u = 0; u < KEYS; u++) {
			i64 at = (i64)min(base + u * groups + mine, to - 1) * step + (i64)g * a.e + i;
			i64 there = i < a.e ? a.e - i : 0;
			take8(k[u], keys + at, a.wide, there);
			take8(v[u], values + at, a.wide, there);
		}
		UNROLL for (int r = 0; r < R; r++) {
			int last = lasts[r];
			float p[KEYS], next = top[r];
			UNROLL for (int u = 0; u < KEYS; u++) {
				int key = base + u * groups + mine;
				float s = 0;
				UNROLL for (int c = 0; c < 8; c++) s += q[r][c] * k[u][c];
				for (int m = a.lanes / 2; m; m /= 2) s += __shfl_xor_sync(0xffffffffu, s, m);
				p[u] = key < to && key <= last && !(a.window && key <= last - a.window) ? s : -INFINITE;
				next = fmaxf(next, p[u]);
			}
			float base2 = next == -INFINITE ? 0.f : next, shrink = exp2_fast(top[r] - base2);
			top[r] = next;
			sum[r] *= shrink;
			UNROLL for (int c = 0; c < 8; c++) out[r][c] *= shrink;
			UNROLL for (int u = 0; u < KEYS; u++) {
				float w = exp2_fast(p[u] - base2);
				sum[r] += w;
				UNROLL for (int c = 0; c < 8; c++) out[r][c] += w * v[u][c];
			}
		}
	}
	UNROLL for (int r = 0; r < R; r++) {
		for (int m = a.lanes; m < 32; m *= 2) { // groups of lanes, then warps, in a fixed order
			float other = __shfl_xor_sync(0xffffffffu, top[r], m), next = fmaxf(top[r], other), base2 = next == -INFINITE ? 0.f : next;
			float f = exp2_fast(top[r] - base2), o = exp2_fast(other - base2);
			float t0 = __shfl_xor_sync(0xffffffffu, sum[r], m);
			sum[r] = sum[r] * f + t0 * o;
			UNROLL for (int c = 0; c < 8; c++) {
				float t = __shfl_xor_sync(0xffffffffu, out[r][c], m);
				out[r][c] = out[r][c] * f + t * o;
			}
			top[r] = next;
		}
		float *s = scratch + (warp * R + r) * width;
		if (mine == 0) {
			UNROLL for (int c = 0; c < 8; c++) s[i + c] = out[r][c];
			if (lane == 0) s[width - 2] = top[r], s[width - 1] = sum[r];
		}
	}
	__syncthreads();
	for (int r = 0; r < R && r0 + r < rows; r++) {
		float most = -INFINITE, all = 0;
		for (int w = 0; w < 4; w++) most = fmaxf(most, scratch[(w * R + r) * width + width - 2]);
		float base2 = most == -INFINITE ? 0.f : most;
		for (int w = 0; w < 4; w++) all += scratch[(w * R + r) * width + width - 1] * exp2_fast(scratch[(w * R + r) * width + width - 2] - base2);
		float *part = a.parts + ((((i64)(blockIdx.z / blocks) * gridDim.x + blockIdx.x) * rows + r0 + r) * a.kvheads + g) * (a.e + 2);
		for (int c = threadIdx.x; c < a.e; c += blockDim.x) {
			float s = 0;
			for (int w = 0; w < 4; w++) s += scratch[(w * R + r) * width + c] * exp2_fast(scratch[(w * R + r) * width + width - 2] - base2);
			part[c] = s;
		}
		if (threadIdx.x == 0) part[a.e] = most, part[a.e + 1] = all;
	}
}
#undef KEYS
