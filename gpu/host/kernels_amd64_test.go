//go:build !purego

package host

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Elements get the same operations whatever the width, so only sums may differ, by their order.
func TestElementsHaveTheSameBitsWithEitherWidth(t *testing.T) {
	if !canAVX512() {
		t.Skip("this processor has no AVX-512; TestAVX512UnderEmulation has")
	}
	narrow, _, err := chooseKernels("avx2")
	if err != nil {
		t.Fatal(err)
	}
	wide, _, err := chooseKernels("avx512")
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(11, 12))
	for n := 1; n <= 100; n++ {
		in := make([][]float32, 5)
		for i := range in {
			in[i] = make([]float32, n)
			for j := range in[i] {
				in[i][j] = float32(30 * rng.NormFloat64())
			}
		}
		in[0][rng.IntN(n)] = float32(math.Inf(-1))
		run := func(k kernels[float32]) [][]float32 {
			var out [][]float32
			fresh := func() [][]float32 {
				c := make([][]float32, len(in))
				for i := range in {
					c[i] = slices.Clone(in[i])
				}
				return c
			}
			a := fresh()
			k.expSum(a[0], 40)
			out = append(out, a[0], []float32{k.max(in[1])})
			a = fresh()
			k.softmaxGrad(a[1], a[2], 40, 0.3)
			out = append(out, a[1], a[2])
			a = fresh()
			k.silu(a[0], a[1], a[2])
			out = append(out, a[0])
			a = fresh()
			k.siluGrad(a[0], a[1], a[2], a[3], a[4])
			return append(out, a[0], a[1])
		}
		if diff := cmp.Diff(run(narrow), run(wide)); diff != "" {
			t.Fatalf("%d elements (-avx2 +avx512):\n%s", n, diff)
		}
	}
}

func TestWideKernelsAreTheDefaultWhereTheyAreTwiceTheWork(t *testing.T) {
	for name, tt := range map[string]struct {
		p    processor
		want bool
	}{
		"Skylake-X":       {processor{"GenuineIntel", 6, 0x55, false}, true},
		"Ice Lake server": {processor{"GenuineIntel", 6, 0x6a, false}, true},
		"Sapphire Rapids": {processor{"GenuineIntel", 6, 0x8f, true}, true},
		"Tiger Lake":      {processor{"GenuineIntel", 6, 0x8c, false}, false},
		"Zen 4":           {processor{"AuthenticAMD", 0x19, 0x61, false}, false},
		"Zen 5":           {processor{"AuthenticAMD", 0x1a, 0x44, false}, true},
		"another's":       {processor{"CentaurHauls", 7, 0x5b, false}, false},
	} {
		if got := tt.p.wide(); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if p := thisProcessor(); len(p.vendor) != 12 || p.family == 0 {
		t.Errorf("this processor is %+v", p)
	}
}
