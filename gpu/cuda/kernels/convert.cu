// y = x in another type, eight elements a thread.
struct Args {
	W *y;
	const T *x;
	i64 n;
	int wide;
};
KERNEL(convert, 256)(Args a) {
	i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
	if (i >= a.n) return;
	float x[8];
	take8(x, a.x + i, a.wide, a.n - i);
	give8(a.y + i, x, a.wide, a.n - i);
}
