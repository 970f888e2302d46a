// y += x, eight elements a thread.
struct Args {
	T *y;
	const T *x;
	i64 n;
	int wide;
};
KERNEL(add, 256)(Args a) {
	i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
	if (i >= a.n) return;
	float x[8], y[8];
	take8(x, a.x + i, a.wide, a.n - i);
	take8(y, a.y + i, a.wide, a.n - i);
	for (int j = 0; j < 8; j++) y[j] += x[j];
	give8(a.y + i, y, a.wide, a.n - i);
}
