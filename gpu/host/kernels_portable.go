package host

import (
	"math"
	"unsafe"
)

// portable returns the kernels in Go. They are the reference of the assembly.
func portable[F Float]() kernels[F] {
	return kernels[F]{
		name: portableName,
		mr:   4, nr: 4,
		tileRows: func(k, groups int, a *F, lda, step int, b *F, c *F, ldc int, acc bool) {
			for g := range groups {
				goTile(k, at(a, g*step), lda, 1, b, at(c, 4*g*ldc), ldc, acc)
			}
		},
		tileCols: func(k, groups int, a *F, lda, step int, b *F, c *F, ldc int, acc bool) {
			for g := range groups {
				goTile(k, at(a, g*step), 1, lda, b, at(c, 4*g*ldc), ldc, acc)
			}
		},
		tileVec:     goTileVec[F],
		packT:       packTransposed[F],
		packCols:    packStrip[F],
		dot:         goDot[F],
		dot3:        goDot3[F],
		plus:        goAdd[F],
		axpy:        goAxpy[F],
		scale:       goScale[F],
		scaleMul:    goScaleMul[F],
		normGrad:    goNormGrad[F],
		rotate:      goRotate[F],
		silu:        goSwiGLU[F],
		siluGrad:    goSwiGLUGrad[F],
		max:         goMax[F],
		expSum:      goExpSum[F],
		softmaxGrad: goSoftmaxGrad[F],
		sumSquares:  goSumSquares[F],
		adam:        goAdamW[F],
	}
}

// goTile is a 4×4 tile, computed as two 2×4 ones so that the sums stay in registers.
func goTile[F Float](k int, a *F, rowStride, kStride int, b *F, c *F, ldc int, acc bool) {
	if k == 0 {
		return
	}
	bs := unsafe.Slice(b, 4*k)
	for i := 0; i < 4; i += 2 {
		a0 := unsafe.Slice(at(a, i*rowStride), (k-1)*kStride+1)
		a1 := unsafe.Slice(at(a, (i+1)*rowStride), (k-1)*kStride+1)
		var s00, s01, s02, s03, s10, s11, s12, s13 F
		for p, q := 0, 0; p < len(bs); p, q = p+4, q+kStride {
			r := (*[4]F)(bs[p:])
			x, y := a0[q], a1[q]
			s00 += x * r[0]
			s01 += x * r[1]
			s02 += x * r[2]
			s03 += x * r[3]
			s10 += y * r[0]
			s11 += y * r[1]
			s12 += y * r[2]
			s13 += y * r[3]
		}
		c0 := unsafe.Slice(at(c, i*ldc), 4)
		c1 := unsafe.Slice(at(c, (i+1)*ldc), 4)
		if acc {
			s00, s01, s02, s03 = c0[0]+s00, c0[1]+s01, c0[2]+s02, c0[3]+s03
			s10, s11, s12, s13 = c1[0]+s10, c1[1]+s11, c1[2]+s12, c1[3]+s13
		}
		c0[0], c0[1], c0[2], c0[3] = s00, s01, s02, s03
		c1[0], c1[1], c1[2], c1[3] = s10, s11, s12, s13
	}
}

func at[F Float](p *F, i int) *F {
	return (*F)(unsafe.Add(unsafe.Pointer(p), i*int(unsafe.Sizeof(*p))))
}

func goTileVec[F Float](k int, a *F, b *F, stride, strips int, c *F, acc bool) {
	x := unsafe.Slice(a, k)
	for s := range strips {
		bs := unsafe.Slice(at(b, s*stride), 4*k)
		var s0, s1, s2, s3 F
		for p, v := range x {
			r := (*[4]F)(bs[4*p:])
			s0 += v * r[0]
			s1 += v * r[1]
			s2 += v * r[2]
			s3 += v * r[3]
		}
		y := unsafe.Slice(at(c, 4*s), 4)
		if acc {
			s0, s1, s2, s3 = y[0]+s0, y[1]+s1, y[2]+s2, y[3]+s3
		}
		y[0], y[1], y[2], y[3] = s0, s1, s2, s3
	}
}

func goDot[F Float](x, y []F) F {
	y = y[:len(x)]
	var s [4]F
	i := 0
	for ; i+4 <= len(x); i += 4 {
		p, q := (*[4]F)(x[i:]), (*[4]F)(y[i:])
		s[0] += p[0] * q[0]
		s[1] += p[1] * q[1]
		s[2] += p[2] * q[2]
		s[3] += p[3] * q[3]
	}
	for ; i < len(x); i++ {
		s[0] += x[i] * y[i]
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}

func goDot3[F Float](x, y, z []F) F {
	y, z = y[:len(x)], z[:len(x)]
	var s, t F
	i := 0
	for ; i+2 <= len(x); i += 2 {
		s += x[i] * y[i] * z[i]
		t += x[i+1] * y[i+1] * z[i+1]
	}
	if i < len(x) {
		s += x[i] * y[i] * z[i]
	}
	return s + t
}

func goAdd[F Float](y, x []F) {
	x = x[:len(y)]
	for i := range y {
		y[i] += x[i]
	}
}

func goAxpy[F Float](y, x []F, a F) {
	x = x[:len(y)]
	for i := range y {
		y[i] += a * x[i]
	}
}

func goScale[F Float](x []F, a F) {
	for i := range x {
		x[i] *= a
	}
}

func goScaleMul[F Float](y, x, w []F, a F) {
	x, w = x[:len(y)], w[:len(y)]
	for i := range y {
		y[i] = x[i] * a * w[i]
	}
}

func goNormGrad[F Float](dx, dw, dy, x, w []F, r, c F) {
	n := len(dx)
	dw, dy, x, w = dw[:n], dy[:n], x[:n], w[:n]
	for i := range dx {
		t := r * dy[i]
		dx[i] += t*w[i] - c*x[i]
		dw[i] += t * x[i]
	}
}

func goRotate[F Float](a, b, cos, sin []F) {
	b, cos, sin = b[:len(a)], cos[:len(a)], sin[:len(a)]
	for i := range a {
		p, q := a[i], b[i]
		a[i] = p*cos[i] - q*sin[i]
		b[i] = q*cos[i] + p*sin[i]
	}
}

func goSwiGLU[F Float](y, gate, up []F) {
	gate, up = gate[:len(y)], up[:len(y)]
	for i := range y {
		y[i] = gate[i] / (1 + exp(-gate[i])) * up[i]
	}
}

func goSwiGLUGrad[F Float](dgate, dup, dy, gate, up []F) {
	n := len(dgate)
	dup, dy, gate, up = dup[:n], dy[:n], gate[:n], up[:n]
	for i := range dgate {
		g, u, d := gate[i], up[i], dy[i]
		s := 1 / (1 + exp(-g))
		dup[i] = d * g * s
		dgate[i] = d * u * s * (1 + g*(1-s))
	}
}

func goMax[F Float](x []F) F {
	m := F(math.Inf(-1))
	for _, v := range x {
		m = max(m, v)
	}
	return m
}

func goExpSum[F Float](x []F, m F) F {
	var s, t F
	i := 0
	for ; i+2 <= len(x); i += 2 {
		x[i], x[i+1] = exp(x[i]-m), exp(x[i+1]-m)
		s += x[i]
		t += x[i+1]
	}
	if i < len(x) {
		x[i] = exp(x[i] - m)
		s += x[i]
	}
	return s + t
}

func goSoftmaxGrad[F Float](p, dp []F, lse, delta F) {
	dp = dp[:len(p)]
	for i := range p {
		p[i] = exp(p[i] - lse)
		dp[i] = p[i] * (dp[i] - delta)
	}
}

func goSumSquares[F Float](x []F) float64 {
	var s, t float64
	i := 0
	for ; i+2 <= len(x); i += 2 {
		a, b := float64(x[i]), float64(x[i+1])
		s += a * a
		t += b * b
	}
	if i < len(x) {
		s += float64(x[i]) * float64(x[i])
	}
	return s + t
}

func goAdamW[F Float](w, g, m, v []F, c *adamConstants[F]) {
	g, m, v = g[:len(w)], m[:len(w)], v[:len(w)]
	for i := range w {
		gi := g[i] * c.gradScale
		m[i] = c.b1*m[i] + c.a1*gi
		v[i] = c.b2*v[i] + c.a2*gi*gi
		w[i] = c.keep*w[i] - c.lr*m[i]/(F(math.Sqrt(float64(v[i])))*c.root+c.eps)
	}
}

func exp[F Float](x F) F { return F(math.Exp(float64(x))) }
