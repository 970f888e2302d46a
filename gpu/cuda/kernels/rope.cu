// Rotates pairs of elements of x [T, heads, e] by the angles of their token's position, in place: a thread eight pairs that lie
// side by side (the last ones of a head may be fewer).
struct Args {
	T *x;
	const W *cos, *sin; // [positions, half]
	const int *positions;
	i64 threads; // heads of all tokens × ⌈half / 8⌉
	int heads, e, half, interleaved;
	float sign;
	int wide;
};
KERNEL(rope, 256)(Args a) {
	i64 n = (i64)blockIdx.x * blockDim.x + threadIdx.x;
	if (n >= a.threads) return;
	int per = (a.half + 7) / 8, i = (int)(n % per) * 8, left = a.half - i;
	i64 head = n / per; // of all tokens
	i64 angle = (i64)a.positions[head / a.heads] * a.half + i;
	T *p = a.x + head * a.e + (a.interleaved ? 2 * i : i), *q = p + (a.interleaved ? 8 : a.half);
	float c[8], s[8], u[8], v[8];
	take8(c, a.cos + angle, a.wide, left);
	take8(s, a.sin + angle, a.wide, left);
	int first = a.interleaved ? 2 * left : left, second = a.interleaved ? 2 * left - 8 : left;
	take8(u, p, a.wide, first);
	take8(v, q, a.wide, second);
	if (a.interleaved) {
		UNROLL for (int j = 0; j < 4; j++) {
			float low = u[2 * j], high = v[2 * j];
			u[2 * j] = low * c[j] - u[2 * j + 1] * (a.sign * s[j]);
			u[2 * j + 1] = u[2 * j + 1] * c[j] + low * (a.sign * s[j]);
			v[2 * j] = high * c[j + 4] - v[2 * j + 1] * (a.sign * s[j + 4]);
			v[2 * j + 1] = v[2 * j + 1] * c[j + 4] + high * (a.sign * s[j + 4]);
		}
	} else {
		UNROLL for (int j = 0; j < 8; j++) {
			float x = u[j];
			u[j] = x * c[j] - v[j] * (a.sign * s[j]);
			v[j] = v[j] * c[j] + x * (a.sign * s[j]);
		}
	}
	give8(p, u, a.wide, first);
	give8(q, v, a.wide, second);
}
