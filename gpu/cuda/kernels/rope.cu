// Rotates pairs of elements of x [T, heads, e] by the angles of their token's position, in place: a thread a pair.
struct Args {
	T *x;
	const W *cos, *sin; // [positions, half]
	const int *positions;
	i64 pairs;
	int heads, e, half, interleaved;
	float sign;
};
KERNEL(rope, 256)(Args a) {
	i64 n = (i64)blockIdx.x * blockDim.x + threadIdx.x;
	if (n >= a.pairs) return;
	int i = (int)(n % a.half);
	i64 head = n / a.half; // of all tokens
	i64 angle = (i64)a.positions[head / a.heads] * a.half + i;
	T *p = a.x + head * a.e + (a.interleaved ? 2 * i : i), *q = p + (a.interleaved ? 1 : a.half);
	float c = value(a.cos[angle]), s = a.sign * value(a.sin[angle]), u = value(*p), v = value(*q);
	put(p, u * c - v * s);
	put(q, v * c + u * s);
}
