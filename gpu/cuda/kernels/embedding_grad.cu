// dtable[id] += Σ dy[t] over the tokens t of id, in their order: a block an id of the batch.
// order lists the tokens by id, first where each id's begin (one more than there are ids).
struct Args {
	W *dtable;
	const T *dy;
	const int *ids, *first, *order;
	int d;
};
KERNEL(embedding_grad, 256)(Args a) {
	int from = a.first[blockIdx.x], to = a.first[blockIdx.x + 1];
	W *row = a.dtable + (i64)a.ids[blockIdx.x] * a.d;
	for (int i = threadIdx.x; i < a.d; i += blockDim.x) {
		float s = value(row[i]);
		for (int t = from; t < to; t++) s += value(a.dy[(i64)a.order[t] * a.d + i]);
		put(row + i, s);
	}
}
