// A block a row of logits: nll = logsumexp − logit of the target, and with grad not null the gradient of coef · nll. The row is
// read once for maximum and sum together, and once more for the gradient.
struct Args {
	T *grad;     // [rows, vocab], may be logits itself
	float *nll;  // [rows]
	const float *logits;
	const int *targets;
	const float *coef;
	int vocab, wide;
};
KERNEL(cross_entropy, 512)(Args a) {
	SHARED(float, scratch);
	const float *row = a.logits + (i64)blockIdx.x * a.vocab;
	int target = a.targets[blockIdx.x];
	float at = row[target], mine = -INFINITE, s = 0, x[8];
	for (int i = threadIdx.x * 8; i < a.vocab; i += blockDim.x * 8) {
		int n = min(8, a.vocab - i);
		take8(x, row + i, a.wide, n);
		float next = mine;
		UNROLL for (int j = 0; j < 8; j++)
			if (j < n) next = fmaxf(next, x[j]);
		float part = 0;
		UNROLL for (int j = 0; j < 8; j++)
			if (j < n) part += expf(x[j] - next);
		s = (mine == -INFINITE ? 0.f : s * expf(mine - next)) + part;
		mine = next;
	}
	float top = block_max(mine, scratch);
	s = block_sum(mine == -INFINITE ? 0.f : s * expf(mine - top), scratch);
	if (threadIdx.x == 0) a.nll[blockIdx.x] = logf(s) + (top - at);
	if (!a.grad) return;
	T *grad = a.grad + (i64)blockIdx.x * a.vocab;
	float c = a.coef[blockIdx.x], f = c / s;
	for (int i = threadIdx.x * 8; i < a.vocab; i += blockDim.x * 8) {
		take8(x, row + i, a.wide, a.vocab - i);
		UNROLL for (int j = 0; j < 8; j++) x[j] = expf(x[j] - top) * f - (i + j == target ? c : 0.f);
		give8(grad + i, x, a.wide, a.vocab - i);
	}
}
