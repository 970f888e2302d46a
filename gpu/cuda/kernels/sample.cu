// Draws a token from each row of logits, a block a row. Probabilities are integers (gpu.DrawWeight), so that sums have no order and
// the host draws the same token: the largest logit; the sum of all weights; the weight of the least likely token that top-p keeps,
// eight bits at a time by the mass of tokens that share the bits above; then the token at the random place among the kept ones.
struct Draw {
	u64 random, share; // of 2⁶⁴; top-p of 2³²
	float scale;       // 0: the likeliest
	int pad;
};
struct Args {
	int *ids;
	float *probs; // logarithms
	const T *logits;
	const Draw *draws;
	int vocab;
};

// weight is gpu.DrawWeight, operation by operation.
DEV u64 weight(float below, float scale) {
	float x = rounded_product(below, scale);
	if (!(x < 46.f)) return 0;
	int k = (int)x;
	float f = rounded_sum((float)k, -x), p = 1.5252734e-05f;
	p = rounded_sum(rounded_product(p, f), 1.5403530e-04f);
	p = rounded_sum(rounded_product(p, f), 1.3333558e-03f);
	p = rounded_sum(rounded_product(p, f), 9.6181291e-03f);
	p = rounded_sum(rounded_product(p, f), 5.5504109e-02f);
	p = rounded_sum(rounded_product(p, f), 2.4022651e-01f);
	p = rounded_sum(rounded_product(p, f), 6.9314718e-01f);
	p = rounded_sum(rounded_product(p, f), 1.f);
	return (u64)rounded_product(p, 16777216.f) << 21 >> k;
}

KERNEL(sample, 512)(Args a) {
	SHARED(u64, bins); // 256, then 512 of mass and 512 of ties by thread, then what all share
	u64 *mass = bins + 256, *ties = mass + 512, *common = ties + 512;
	float *scratch = (float *)(common + 8);
	int *place = (int *)(scratch + 16);
	const T *row = a.logits + (i64)blockIdx.x * a.vocab;
	Draw draw = a.draws[blockIdx.x];
	int thread = threadIdx.x, per = (a.vocab + 511) / 512, from = min(thread * per, a.vocab), to = min(from + per, a.vocab);

	float mine = -INFINITE, sum = 0;
	for (int i = thread; i < a.vocab; i += 512) mine = fmaxf(mine, value(row[i]));
	float top = block_max(mine, scratch);
	for (int i = thread; i < a.vocab; i += 512) sum += expf(value(row[i]) - top);
	sum = block_sum(sum, scratch);
	if (thread == 0) *place = a.vocab - 1;
	__syncthreads();
	if (draw.scale == 0) {
		for (int i = thread; i < a.vocab; i += 512)
			if (value(row[i]) == top) least(place, i);
	} else {
		u64 all = 0;
		for (int i = thread; i < a.vocab; i += 512) all += weight(top - value(row[i]), draw.scale);
		mass[thread] = all;
		for (int half = 256; half; half /= 2) {
			__syncthreads();
			if (thread < half) mass[thread] += mass[thread + half];
		}
		__syncthreads();
		u64 total = mass[0], wanted = (total >> 32) * draw.share + ((total & 0xffffffffu) * draw.share >> 32), above = 0, last = 0;
		if (wanted < 1) wanted = 1;
		for (int shift = 40; shift >= 0; shift -= 8) { // weights have at most 46 bits
			if (thread < 256) bins[thread] = 0;
			__syncthreads();
			for (int i = thread; i < a.vocab; i += 512) {
				u64 w = weight(top - value(row[i]), draw.scale);
				if (w && w >> shift >> 8 == last >> shift >> 8) add_whole(bins + (w >> shift & 255), w);
			}
			__syncthreads();
			if (thread == 0) {
				int bin = 255;
				for (; bin > 0 && above + bins[bin] < wanted; bin--) above += bins[bin];
				common[0] = above, common[1] = last | (u64)bin << shift;
			}
			__syncthreads();
			above = common[0], last = common[1];
		}
		// Of the tokens as unlikely as the last, the first `some` stay.
		u64 some = last ? (wanted - above + last - 1) / last : 0, r = high_product(draw.random, above + some * last), m = 0, n = 0;
		for (int i = from; i < to; i++) {
			u64 w = weight(top - value(row[i]), draw.scale);
			if (w > last) m += w;
			else if (w && w == last) n++;
		}
		__syncthreads();
		mass[thread] = m, ties[thread] = n;
		__syncthreads();
		if (thread == 0) {
			u64 passed = 0, equal = 0;
			for (int t = 0; t < 512; t++) { // what stands before each thread's tokens
				u64 w = mass[t], e = ties[t], stay = equal >= some ? 0 : e < some - equal ? e : some - equal;
				mass[t] = passed, ties[t] = equal;
				passed += w + stay * last, equal += e;
			}
		}
		__syncthreads();
		u64 passed = mass[thread], equal = ties[thread];
		for (int i = from; i < to; i++) {
			u64 w = weight(top - value(row[i]), draw.scale);
			if (w < last || !w || (w == last && equal++ >= some)) continue;
			if (r >= passed && r - passed < w) *place = i;
			passed += w;
		}
	}
	__syncthreads();
	if (thread == 0) a.ids[blockIdx.x] = *place, a.probs[blockIdx.x] = value(row[*place]) - top - logf(sum);
}
