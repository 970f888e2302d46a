// AdamW with moments of eight bits (package gpu says what the codes mean), eight elements a thread, a block of 64 by eight
// neighbouring threads: the moments are decoded, updated as in adamw, and rounded stochastically by counted random numbers.
struct Args {
	float *w;
	const float *g;
	unsigned char *m, *mScales, *v, *vScales;
	i64 n;
	u64 seed, first;
	float scale, b1, a1, b2, a2, keep, lr, root, eps;
	int wide;
};
DEV u32 float_bits(float x) { return *(u32 *)&x; }
DEV float value8(u32 code, u32 bias) {
	return code < 8 ? (float)code * bits_float((127 - bias - 2) << 23) : bits_float((code << 20) + ((127 - bias) << 23));
}
DEV u32 code8(float x, u32 bias, u32 random) {
	u32 bits = float_bits(x);
	if (bits >> 23 > 127 - bias) return ((bits + (random >> 12)) >> 20) - ((127 - bias) << 3);
	return (u32)(x * bits_float((127 + bias + 2) << 23) + (float)(random >> 8) * (1.f / (1 << 24)));
}
DEV u32 scale_code(float most) {
	u32 e = (float_bits(most) >> 23) + 1;
	return most == 0 ? 0 : e < 253 ? e : 253;
}
DEV u64 random8(u64 seed, u64 element) {
	u64 x = seed ^ element * 0xd1342543de82ef95ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}
DEV u64 take_codes(const unsigned char *p, int wide, i64 n) {
	if (wide && n >= 8) return *(const u64 *)p;
	u64 r = 0;
	for (int j = 0; j < 8; j++)
		if (j < n) r |= (u64)p[j] << 8 * j;
	return r;
}
DEV void give_codes(unsigned char *p, u64 r, int wide, i64 n) {
	if (wide && n >= 8) {
		*(u64 *)p = r;
		return;
	}
	for (int j = 0; j < 8; j++)
		if (j < n) p[j] = (unsigned char)(r >> 8 * j);
}
KERNEL(adamw8, 256)(Args a) {
	i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8, n = a.n - i, block = i / 64;
	bool here = n > 0;
	float w[8], g[8], m[8], v[8], mMost = 0, vMost = 0;
	if (here) {
		take8(w, a.w + i, a.wide, n);
		take8(g, a.g + i, a.wide, n);
		u64 mc = take_codes(a.m + i, a.wide, n), vc = take_codes(a.v + i, a.wide, n);
		float ms = bits_float((u32)a.mScales[block] << 23), vs = bits_float((u32)a.vScales[block] << 23);
		UNROLL for (int j = 0; j < 8; j++) {
			u32 c = (u32)(mc >> 8 * j) & 0xff;
			float x = g[j] * a.scale, old = value8(c & 0x7f, 15) * ms;
			m[j] = a.b1 * (c > 0x7f ? -old : old) + a.a1 * x;
			v[j] = a.b2 * (value8((u32)(vc >> 8 * j) & 0xff, 31) * vs) + a.a2 * x * x;
			w[j] = a.keep * w[j] - a.lr * m[j] / (a.root * sqrtf(v[j]) + a.eps);
			if (j < n) mMost = fmaxf(mMost, m[j] < 0 ? -m[j] : m[j]), vMost = fmaxf(vMost, v[j]);
		}
		give8(a.w + i, w, a.wide, n);
	}
	for (int k = 1; k < 8; k *= 2) {
		mMost = fmaxf(mMost, __shfl_xor_sync(0xffffffffu, mMost, k));
		vMost = fmaxf(vMost, __shfl_xor_sync(0xffffffffu, vMost, k));
	}
	if (!here) return;
	u32 ms = scale_code(mMost), vs = scale_code(vMost);
	float mInverse = bits_float((254 - ms) << 23), vInverse = bits_float((254 - vs) << 23);
	u64 mc = 0, vc = 0;
	UNROLL for (int j = 0; j < 8; j++) {
		u64 r = random8(a.seed, a.first + (u64)(i + j));
		u32 sign = float_bits(m[j]) >> 31;
		u32 cm = code8(bits_float(float_bits(m[j]) & 0x7fffffffu) * mInverse, 15, (u32)r) | sign << 7;
		u32 cv = code8(v[j] * vInverse, 31, (u32)(r >> 32));
		if (cv == 0 && v[j] * vInverse > 0) cv = 1;
		mc |= (u64)cm << 8 * j, vc |= (u64)cv << 8 * j;
	}
	give_codes(a.m + i, mc, a.wide, n);
	give_codes(a.v + i, vc, a.wide, n);
	if (i % 64 == 0) a.mScales[block] = (unsigned char)ms, a.vScales[block] = (unsigned char)vs;
}
