package datasets

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each subtest is a defect of the published code that THUDMPlan reproduces and NewPlan does not have.
func TestTHUDMPlanReproducesTheDefects(t *testing.T) {
	for name, tt := range map[string]struct {
		lengths     []int
		p           BatchesParams
		groups      []int32
		want        string
		wantDropped []int32
	}{
		"the last partial pack is never written": {
			lengths: []int{4, 5, 6, 2}, p: BatchesParams{BatchSize: 1},
			want: "[0 1]", wantDropped: []int32{2, 3},
		},
		"a pack closes when a sequence would fill it exactly": {
			lengths: []int{4, 6, 4, 6}, p: BatchesParams{BatchSize: 1},
			want: "[0] [1] [2]", wantDropped: []int32{3},
		},
		"rows without padding are dropped from packs": {
			lengths: []int{4, 10, 12, 0, 5, 6}, p: BatchesParams{BatchSize: 1},
			want: "[0 4]", wantDropped: []int32{1, 2, 3, 5},
		},
		"packs beyond a multiple of the devices are dropped": {
			lengths: []int{9, 9, 9, 9}, p: BatchesParams{BatchSize: 2},
			want: "[0] [1]", wantDropped: []int32{3, 2},
		},
		"sorting drops the N mod group longest rows": {
			lengths: []int{5, 9, 3, 8, 4}, p: BatchesParams{Method: MethodSorted, BatchSize: 2}, groups: []int32{1, 0},
			want: "[0 3] [2 4]", wantDropped: []int32{1},
		},
		"naive keeps the order": {
			lengths: []int{5, 9, 3}, p: BatchesParams{Method: MethodNaive, BatchSize: 2},
			want: "[0 1] [2]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tt.p.MaxLength = 10
			plan, err := THUDMPlan(tt.lengths, tt.p, Ascending(len(tt.lengths)), tt.groups)
			if err != nil {
				t.Fatal(err)
			}
			var packs []string
			for m := range plan.MicroBatchEnds {
				packs = append(packs, fmt.Sprint(plan.MicroBatch(m)))
			}
			if diff := cmp.Diff(tt.want, strings.Join(packs, " ")); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.wantDropped, plan.Dropped); diff != "" {
				t.Error(diff)
			}
			if err := plan.Check(len(tt.lengths)); err != nil {
				t.Error(err)
			}
			lengths := make([]int, len(tt.lengths))
			for i, n := range tt.lengths {
				lengths[i] = max(n, 1)
			}
			ours, err := NewPlan(lengths, tt.p, 0)
			if err != nil {
				t.Fatal(err)
			}
			if len(ours.Dropped) > 0 {
				t.Errorf("NewPlan drops %v", ours.Dropped)
			}
		})
	}
}

func TestTHUDMPlanRefusesWhatIsNoPermutation(t *testing.T) {
	for _, rows := range [][]int32{{0, 1}, {0, 1, 1}, {0, 1, 3}, {-1, 0, 1}} {
		if _, err := THUDMPlan([]int{3, 3, 3}, BatchesParams{MaxLength: 10, BatchSize: 1}, rows, nil); err == nil {
			t.Errorf("%v was accepted", rows)
		}
	}
}

func TestCompatPlansComeFromTheSeedAndBalance(t *testing.T) {
	var seqs Sequences
	for _, n := range longTailed(200, 90, 3) {
		seqs = append(seqs, Sequence{IDs: make([]int32, n)})
	}
	for _, m := range []Method{MethodNaive, MethodSorted, MethodPacking} {
		p := BatchesParams{Method: m, MaxLength: 100, BatchSize: 8, Compat: CompatTHUDM, Seed: 4}
		plan, err := NewPlan(seqs.Lengths(), p, 0)
		if err != nil {
			t.Fatal(err)
		}
		again, err := NewPlan(seqs.Lengths(), p, 0)
		if err != nil || !cmp.Equal(plan, again) {
			t.Errorf("%s: planned again it differs: %v", m, err)
		}
		l, err := plan.Ledger(seqs)
		if err != nil {
			t.Error(err)
		}
		if dropped := l.Dropped > 0; dropped != (m == MethodPacking) {
			t.Errorf("%s: %d tokens dropped", m, l.Dropped)
		}
	}
}

func TestTHUDMFactorsIgnoreAccumulation(t *testing.T) {
	targets := [][]int{{5, 5, 5}, {10}, {20}, {40}}
	ours, err := Coefficients(LossLongAlign, targets, nil)
	if err != nil {
		t.Fatal(err)
	}
	equal := func(gpus int) bool {
		theirs, err := THUDMFactors(targets, gpus)
		if err != nil {
			t.Fatal(err)
		}
		for k := range ours {
			for i := range ours[k] {
				if math.Abs(ours[k][i]-theirs[k][i]) > 1e-15 {
					return false
				}
			}
		}
		return true
	}
	if !equal(4) {
		t.Error("without accumulation the factors differ from the paper's")
	}
	if equal(2) {
		t.Error("with accumulation the factors are the paper's: the defect is not reproduced")
	}
	if _, err := THUDMFactors(targets, 3); err == nil {
		t.Error("4 packs were divided among 3 devices")
	}
}
