package datasets

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestCoefficientsAreTheFormulas(t *testing.T) {
	for name, tt := range map[string]struct {
		loss    Loss
		targets [][]int
		weights [][]float64
		want    [][]float64
	}{
		"longalign: long and short answers count alike":        {LossLongAlign, [][]int{{1, 2}, {4}}, nil, [][]float64{{1. / 3, 1. / 6}, {1. / 12}}},
		"longalign: weights count":                             {LossLongAlign, [][]int{{1, 2}}, [][]float64{{3, 1}}, [][]float64{{.75, .125}}},
		"longalign: a sequence without targets is not counted": {LossLongAlign, [][]int{{0, 2}, {2}}, nil, [][]float64{{0, .25}, {.25}}},
		"longalign: nor is its weight":                         {LossLongAlign, [][]int{{0, 2}}, [][]float64{{9, 1}}, [][]float64{{0, .5}}},
		"longalign: weights of 0 give no loss":                 {LossLongAlign, [][]int{{2, 2}}, [][]float64{{0, 0}}, [][]float64{{0, 0}}},
		"token: every target counts alike":                     {LossToken, [][]int{{1, 2}, {1}}, nil, [][]float64{{.25, .25}, {.25}}},
		"pack: every pack counts alike":                        {LossPack, [][]int{{1, 3}, {1}}, nil, [][]float64{{.125, .125}, {.5}}},
		"pack: a pack without targets counts":                  {LossPack, [][]int{{0}, {2}}, nil, [][]float64{{0}, {.25}}},
		"no target at all is no loss":                          {LossLongAlign, [][]int{{0}, {0, 0}}, nil, [][]float64{{0}, {0, 0}}},
		"token: no target at all is no loss":                   {LossToken, [][]int{{0}}, nil, [][]float64{{0}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Coefficients(tt.loss, tt.targets, tt.weights)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateApprox(0, 1e-15)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := Coefficients("mean", [][]int{{1}}, nil); err == nil {
		t.Error("an unknown loss was computed")
	}
	if _, err := Coefficients(LossLongAlign, [][]int{{1}}, [][]float64{{1, 2}}); err == nil {
		t.Error("two weights for one sequence were accepted")
	}
}

// A step's sequences get the same factors however they are spread over micro-batches, but under pack.
func TestCoefficientsDoNotDependOnMicroBatches(t *testing.T) {
	r := NewRand(1, 0)
	for range 100 {
		var flat []int
		var weights []float64
		for range 1 + r.IntN(20) {
			flat, weights = append(flat, r.IntN(50)), append(weights, r.Float64())
		}
		split := func() (ns [][]int, ws [][]float64) {
			for at := 0; at < len(flat); {
				n := 1 + r.IntN(len(flat)-at)
				ns, ws = append(ns, flat[at:at+n]), append(ws, weights[at:at+n])
				at += n
			}
			return ns, ws
		}
		for _, loss := range []Loss{LossLongAlign, LossToken} {
			factors := func() (all []float64) {
				ns, ws := split()
				c, err := Coefficients(loss, ns, ws)
				if err != nil {
					t.Fatal(err)
				}
				for _, cs := range c {
					all = append(all, cs...)
				}
				return all
			}
			if diff := cmp.Diff(factors(), factors(), cmpopts.EquateApprox(1e-14, 0)); diff != "" {
				t.Fatalf("%s of %v:\n%s", loss, flat, diff)
			}
		}
		ns, _ := split()
		total := 0
		for _, n := range flat {
			total += n
		}
		if total == 0 {
			continue
		}
		for _, loss := range []Loss{LossLongAlign, LossToken} {
			c, err := Coefficients(loss, ns, nil)
			if err != nil {
				t.Fatal(err)
			}
			sum := 0.0
			for k := range c {
				for i := range c[k] {
					sum += c[k][i] * float64(ns[k][i])
				}
			}
			if math.Abs(sum-1) > 1e-12 {
				t.Fatalf("%s: a loss of 1 everywhere gives %v", loss, sum)
			}
		}
	}
}

func TestLossesHaveNames(t *testing.T) {
	for _, name := range []string{"longalign", "pack", "token"} {
		if l, err := ParseLoss(name); err != nil || string(l) != name {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
	if _, err := ParseLoss("mean"); err == nil {
		t.Error("mean is a loss")
	}
}
