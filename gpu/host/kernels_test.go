package host

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// guarded is a slice with sentinels around it, so that a loop that writes outside is caught.
type guarded[F Float] struct {
	all []F
	x   []F
}

const sentinel = 12345

func guard[F Float](rng *rand.Rand, n int) guarded[F] {
	all := make([]F, n+32)
	for i := range all {
		all[i] = sentinel
	}
	g := guarded[F]{all: all, x: all[16 : 16+n : 16+n]}
	for i := range g.x {
		g.x[i] = F(rng.NormFloat64())
	}
	return g
}

func (g guarded[F]) clone() guarded[F] {
	all := append([]F(nil), g.all...)
	return guarded[F]{all: all, x: all[16 : 16+len(g.x) : 16+len(g.x)]}
}

// same reports where g and h differ by more than the tolerance relative to elements of size 1 and more, anywhere.
func (g guarded[F]) same(t *testing.T, what string, h guarded[F], tolerance float64) {
	t.Helper()
	for i := range g.all {
		a, b := float64(g.all[i]), float64(h.all[i])
		if d := math.Abs(a - b); !(d <= tolerance*max(1, math.Abs(b))) {
			t.Fatalf("%s: element %d of %d is %g, want %g", what, i-16, len(g.x), a, b)
		}
	}
}

func tolerance[F Float]() float64 {
	var f F
	if any(f) == any(float64(0)) {
		return 1e-13
	}
	return 2e-6
}

// eachSet runs a test with every set of kernels that this processor has.
func eachSet(t *testing.T, test func(t *testing.T, k32 kernels[float32], k64 kernels[float64])) {
	for _, name := range KernelSets() {
		k32, k64, err := chooseKernels(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { test(t, k32, k64) })
	}
}

// Every loop, at every length with every remainder, agrees with the portable one and stays in bounds.
func TestVectorKernelsAgreeWithPlainLoops(t *testing.T) {
	eachSet(t, func(t *testing.T, k32 kernels[float32], k64 kernels[float64]) {
		vectorKernels(t, k32)
		vectorKernels(t, k64)
	})
}

func vectorKernels[F Float](t *testing.T, k kernels[F]) {
	p, tol := portable[F](), tolerance[F]()
	rng := rand.New(rand.NewPCG(5, 6))
	for n := 1; n <= 70; n++ {
		a, b, c, d, e := guard[F](rng, n), guard[F](rng, n), guard[F](rng, n), guard[F](rng, n), guard[F](rng, n)
		scalar := func(what string, got, want F) {
			t.Helper()
			if math.Abs(float64(got-want)) > tol*10 {
				t.Fatalf("%s of %d elements is %g, want %g", what, n, got, want)
			}
		}
		// check runs the same loop of both tables on copies of all operands and compares all of them.
		check := func(what string, run func(k kernels[F], a, b, c, d, e []F)) {
			t.Helper()
			g, w := [5]guarded[F]{a.clone(), b.clone(), c.clone(), d.clone(), e.clone()}, [5]guarded[F]{a.clone(), b.clone(), c.clone(), d.clone(), e.clone()}
			run(k, g[0].x, g[1].x, g[2].x, g[3].x, g[4].x)
			run(p, w[0].x, w[1].x, w[2].x, w[3].x, w[4].x)
			for i := range g {
				g[i].same(t, fmt.Sprintf("%s, operand %d", what, i), w[i], tol)
			}
		}
		scalar("dot", k.dot(a.x, b.x), p.dot(a.x, b.x))
		scalar("dot3", k.dot3(a.x, b.x, c.x), p.dot3(a.x, b.x, c.x))
		if got, want := k.max(a.x), p.max(a.x); got != want {
			t.Fatalf("max of %d elements is %g, want %g", n, got, want)
		}
		scalar("sumSquares", F(k.sumSquares(a.x)), F(p.sumSquares(a.x)))
		check("plus", func(k kernels[F], a, b, _, _, _ []F) { k.plus(a, b) })
		check("axpy", func(k kernels[F], a, b, _, _, _ []F) { k.axpy(a, b, 0.3) })
		check("scale", func(k kernels[F], a, _, _, _, _ []F) { k.scale(a, 0.3) })
		check("scaleMul", func(k kernels[F], a, b, c, _, _ []F) { k.scaleMul(a, b, c, 0.3) })
		check("normGrad", func(k kernels[F], a, b, c, d, e []F) { k.normGrad(a, b, c, d, e, 0.3, 0.7) })
		check("rotate", func(k kernels[F], a, b, c, d, _ []F) { k.rotate(a, b, c, d) })
		check("silu", func(k kernels[F], a, b, c, _, _ []F) { k.silu(a, b, c) })
		check("siluGrad", func(k kernels[F], a, b, c, d, e []F) { k.siluGrad(a, b, c, d, e) })
		check("siluGrad in place", func(k kernels[F], a, b, c, _, _ []F) { k.siluGrad(a, b, c, a, b) })
		check("softmaxGrad", func(k kernels[F], a, b, _, _, _ []F) { k.softmaxGrad(a, b, 0.3, 0.7) })
		check("expSum", func(k kernels[F], a, b, _, _, _ []F) { b[0] = k.expSum(a, 0.5) / F(n) })
		check("adam", func(k kernels[F], a, b, c, d, _ []F) {
			for i := range d {
				d[i] *= d[i]
			}
			k.adam(a, b, c, d, &adamConstants[F]{0.5, 0.9, 0.1, 0.95, 0.05, 0.99, 0.01, 1.2, 1e-8})
		})
	}
}

// The exponential in assembly is good to two units in the last place and never leaves the normal numbers.
func TestExponentialIsAccurate(t *testing.T) {
	eachSet(t, func(t *testing.T, k kernels[float32], _ kernels[float64]) {
		if k.name != portableName { // which has math.Exp
			exponential(t, k)
		}
	})
}

func exponential(t *testing.T, k kernels[float32]) {
	x, in := make([]float32, 16), make([]float32, 16)
	for v := -86.9; v < 80; v += 0.0137 {
		for i := range x {
			in[i] = float32(v + float64(i)*0.0008)
		}
		copy(x, in)
		k.expSum(x, 0)
		for i, got := range x {
			want := math.Exp(float64(in[i]))
			if math.Abs(float64(got)-want) > 2.4e-7*want {
				t.Fatalf("exp(%g) = %g, want %g", in[i], got, want)
			}
		}
	}
	for n := 1; n <= 40; n++ {
		for at := range n {
			nan, y := make([]float32, n), make([]float32, n)
			nan[at] = float32(math.NaN())
			k.silu(y, nan, make([]float32, n))
			if y[at] == y[at] {
				t.Errorf("silu hides a NaN at %d of %d", at, n)
			}
			if sum := k.expSum(nan, 0); sum == sum {
				t.Errorf("expSum hides a NaN at %d of %d", at, n)
			}
		}
	}
	for _, v := range []float32{-88, -1e4, -1e30, float32(math.Inf(-1))} {
		x[0] = v
		if k.expSum(x[:9], 0); !(x[0] >= 0 && x[0] < 1e-37) {
			t.Errorf("exp(%g) = %g", v, x[0])
		}
	}
}

// Tiles agree with plain loops for every depth, for several groups, added and written, and stay in bounds.
func TestTilesAgreeWithPlainLoops(t *testing.T) {
	eachSet(t, func(t *testing.T, k32 kernels[float32], k64 kernels[float64]) {
		tiles(t, k32)
		tiles(t, k64)
	})
}

func tiles[F Float](t *testing.T, k kernels[F]) {
	rng := rand.New(rand.NewPCG(7, 8))
	for depth := 1; depth <= 70; depth++ {
		for groups := 1; groups <= 3; groups++ {
			rows := groups * k.mr
			lda, ldc := max(depth, rows)+rng.IntN(5), k.nr+rng.IntN(5)
			a, b := guard[F](rng, max(rows, depth)*lda), guard[F](rng, depth*k.nr)
			c0 := guard[F](rng, (rows-1)*ldc+k.nr)
			for _, acc := range []bool{false, true} {
				for _, cols := range []bool{false, true} {
					got, want := c0.clone(), c0.clone()
					for i := range rows {
						for j := range k.nr {
							var s float64
							for p := range depth {
								x := a.x[i*lda+p]
								if cols {
									x = a.x[p*lda+i]
								}
								s += float64(x) * float64(b.x[p*k.nr+j])
							}
							if acc {
								s += float64(want.x[i*ldc+j])
							}
							want.x[i*ldc+j] = F(s)
						}
					}
					if cols {
						k.tileCols(depth, groups, &a.x[0], lda, k.mr, &b.x[0], &got.x[0], ldc, acc)
					} else {
						k.tileRows(depth, groups, &a.x[0], lda, k.mr*lda, &b.x[0], &got.x[0], ldc, acc)
					}
					got.same(t, fmt.Sprintf("depth %d, %d groups, cols %v, acc %v", depth, groups, cols, acc), want, 20*tolerance[F]())
				}
			}
		}
		for strips := 1; strips <= 9; strips++ {
			a, b, c0 := guard[F](rng, depth), guard[F](rng, depth*k.nr*strips), guard[F](rng, k.nr*strips)
			for _, acc := range []bool{false, true} {
				got, want := c0.clone(), c0.clone()
				k.tileVec(depth, &a.x[0], &b.x[0], depth*k.nr, strips, &got.x[0], acc)
				for s := range strips {
					tile := make([]F, k.mr*k.nr)
					for r := range k.mr {
						copy(tile[r*k.nr:], want.x[s*k.nr:(s+1)*k.nr])
					}
					k.tileRows(depth, 1, &a.x[0], 0, 0, &b.x[s*depth*k.nr], &tile[0], k.nr, acc)
					copy(want.x[s*k.nr:(s+1)*k.nr], tile)
				}
				got.same(t, fmt.Sprintf("one row, depth %d, %d strips", depth, strips), want, 0)
			}
		}
	}
}

// FuzzProduct compares products of odd shapes, in all forms, with plain loops.
func FuzzProduct(f *testing.F) {
	for _, s := range [][3]uint16{{1, 1, 1}, {2, 17, 31}, {6, 16, 256}, {7, 15, 257}, {70, 70, 70}, {145, 33, 300}, {13, 129, 513}} {
		f.Add(s[0], s[1], s[2], uint64(1))
	}
	var devices []*Device
	for i, name := range KernelSets() {
		d, err := Open(Options{Threads: 1 + i%2, Kernels: name})
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { d.Close() })
		devices = append(devices, d)
	}
	f.Fuzz(func(t *testing.T, m, n, k uint16, seed uint64) {
		m, n, k = m%200+1, n%200+1, k%600+1
		for _, d := range devices {
			product(t, d.f32, int(m), int(n), int(k), seed)
			product(t, d.f64, int(m), int(n), int(k), seed)
		}
	})
}

func TestProductsOfAllSmallShapes(t *testing.T) {
	for _, name := range KernelSets() {
		d, err := Open(Options{Threads: 2, Kernels: name})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for m := 1; m <= 70; m += 3 {
			for n := 1; n <= 70; n++ {
				product(t, d.f32, m, n, (m*7+n*13)%70+1, 1)
			}
		}
	}
}

func product[F Float](t *testing.T, e *engine[F], m, n, k int, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 9))
	a, b, c := guard[F](rng, m*k), guard[F](rng, n*k), guard[F](rng, m*n)
	packed := make([]F, e.packedLen(k, n))
	for form := range 4 {
		cols, transposed := form&1 != 0, form&2 != 0
		got, want := c.clone(), c.clone()
		for i := range m {
			for j := range n {
				s := float64(want.x[i*n+j])
				for p := range k {
					x, y := a.x[i*k+p], b.x[p*n+j]
					if cols {
						x = a.x[p*m+i]
					}
					if transposed {
						y = b.x[j*k+p]
					}
					s += float64(x) * float64(y)
				}
				want.x[i*n+j] = F(s)
			}
		}
		job := gemmJob[F]{c: got.x, ldc: n, a: a.x, lda: k, cols: cols, b: packed, m: m, n: n, k: k, acc: true}
		if cols {
			job.lda = m
		}
		if transposed {
			e.pack(packed, b.x, k, k, n, true)
		} else {
			e.pack(packed, b.x, n, k, n, false)
		}
		e.gemm(job)
		got.same(t, fmt.Sprintf("%d×%d×%d, form %d", m, n, k, form), want, 60*tolerance[F]())
	}
}
