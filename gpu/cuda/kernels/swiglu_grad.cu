// dup = dy · silu(gate), dgate = dy · up · silu′(gate), eight elements a thread; the outputs may be the inputs.
struct Args {
	T *dgate, *dup;
	const T *dy, *gate, *up;
	i64 n;
	int wide;
};
KERNEL(swiglu_grad, 256)(Args a) {
	i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
	if (i >= a.n) return;
	float y[8], g[8], u[8];
	take8(y, a.dy + i, a.wide, a.n - i);
	take8(g, a.gate + i, a.wide, a.n - i);
	take8(u, a.up + i, a.wide, a.n - i);
	for (int j = 0; j < 8; j++) {
		float s = reciprocal(1.f + expf(-g[j])), gate = y[j] * u[j] * (s + g[j] * s * (1.f - s));
		u[j] = y[j] * g[j] * s;
		g[j] = gate;
	}
	give8(a.dgate + i, g, a.wide, a.n - i);
	give8(a.dup + i, u, a.wide, a.n - i);
}
