// A block a row of logits: nll = logsumexp − logit of the target, and with grad not null the gradient of coef · nll.
struct Args {
	T *grad;     // [rows, vocab], may be logits itself
	float *nll;  // [rows]
	const float *logits;
	const int *targets;
	const float *coef;
	int vocab;
};
KERNEL(cross_entropy, 512)(Args a) {
	SHARED(float, scratch);
	const float *row = a.logits + (i64)blockIdx.x * a.vocab;
	int target = a.targets[blockIdx.x];
	float at = row[target], top = -INFINITE, s = 0;
	for (int i = threadIdx.x; i < a.vocab; i += blockDim.x) top = fmaxf(top, row[i]);
	top = block_max(top, scratch);
	for (int i = threadIdx.x; i < a.vocab; i += blockDim.x) s += expf(row[i] - top);
	s = block_sum(s, scratch);
	if (threadIdx.x == 0) a.nll[blockIdx.x] = logf(s) + (top - at);
	if (!a.grad) return;
	T *grad = a.grad + (i64)blockIdx.x * a.vocab;
	float c = a.coef[blockIdx.x], f = c / s;
	for (int i = threadIdx.x; i < a.vocab; i += blockDim.x) put(grad + i, expf(row[i] - top) * f - (i == target ? c : 0.f));
}
