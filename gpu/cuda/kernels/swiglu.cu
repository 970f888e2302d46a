// y = silu(gate) · up, eight elements a thread.
struct Args {
	T *y;
	const T *gate, *up;
	i64 n;
	int wide;
};
KERNEL(swiglu, 256)(Args a) {
	i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
	if (i >= a.n) return;
	float g[8], u[8];
	take8(g, a.gate + i, a.wide, a.n - i);
	take8(u, a.up + i, a.wide, a.n - i);
	for (int j = 0; j < 8; j++) u[j] *= g[j] * reciprocal(1.f + expf(-g[j]));
	give8(a.y + i, u, a.wide, a.n - i);
}
