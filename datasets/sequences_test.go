package datasets

import (
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const ig = IgnoreIndex

var threeSequences = Sequences{
	{IDs: []int32{1, 2, 3, 4}, Labels: []int32{ig, ig, 3, 4}},
	{IDs: []int32{5, 6}, Labels: []int32{ig, 6}},
	{IDs: []int32{7, 8, 9, 10, 11, 12}, Labels: []int32{ig, ig, ig, ig, 11, 12}},
}

// twoSteps trains sequences 2 and 1, then 0.
func twoSteps(m Method, max int) Plan {
	return Plan{Method: m, MaxLength: max, OverLength: TruncateRight, IDs: []int32{2, 1, 0}, MicroBatchEnds: []int32{2, 3}, StepEnds: []int32{1, 2}}
}

func TestMicroBatchesAreLaidOut(t *testing.T) {
	for name, tt := range map[string]struct {
		plan    Plan
		weights []float64
		want    Pack
	}{
		"packed end to end": {
			twoSteps(MethodPacking, 8), nil,
			Pack{InputIDs: []int32{7, 8, 9, 10, 11, 12, 5, 6}, CuSeqlens: []int32{0, 6, 8}, Labels: []int32{ig, ig, ig, ig, 11, 12, ig, 6}},
		},
		"padded to the longest row": {
			twoSteps(MethodNaive, 8), nil,
			Pack{InputIDs: []int32{7, 8, 9, 10, 11, 12, 5, 6, 99, 99, 99, 99}, CuSeqlens: []int32{0, 6, 12}, Labels: []int32{ig, ig, ig, ig, 11, 12, ig, 6, ig, ig, ig, ig}},
		},
		"cut to the plan's maximum": {
			twoSteps(MethodNaive, 5), nil,
			Pack{InputIDs: []int32{7, 8, 9, 10, 11, 5, 6, 99, 99, 99}, CuSeqlens: []int32{0, 5, 10}, Labels: []int32{ig, ig, ig, ig, 11, ig, 6, ig, ig, ig}},
		},
		"with weights by sequence": {
			twoSteps(MethodPacking, 8), []float64{.5, 2, 3},
			Pack{InputIDs: []int32{7, 8, 9, 10, 11, 12, 5, 6}, CuSeqlens: []int32{0, 6, 8}, Labels: []int32{ig, ig, ig, ig, 11, 12, ig, 6}, Weights: []float64{3, 2}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			packs, err := tt.plan.Packs(0, threeSequences, 99, tt.weights)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Pack{tt.want}, packs); diff != "" {
				t.Error(diff)
			}
			if err := packs[0].Validate(100); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMicroBatchesOfOtherSequencesAreRefused(t *testing.T) {
	plan := twoSteps(MethodPacking, 8)
	if _, err := plan.Packs(0, threeSequences[:2], 0, nil); err == nil {
		t.Error("a plan for three sequences was laid out with two")
	}
	plan.MaxLength, plan.OverLength = 5, DropOverLength
	if _, err := plan.Packs(0, threeSequences, 0, nil); err == nil {
		t.Error("an over-long sequence that should have been dropped was laid out")
	}
}

func TestTruncation(t *testing.T) {
	s := Sequence{IDs: []int32{1, 2, 3, 4, 5, 6}, Labels: []int32{ig, 2, ig, 4, 5, 6}}
	for name, tt := range map[string]struct {
		n      int
		policy OverLength
		want   Sequence
		keep   bool
	}{
		"a fitting sequence stays":                                 {6, ErrorOverLength, s, true},
		"right keeps the start":                                    {4, TruncateRight, Sequence{IDs: []int32{1, 2, 3, 4}, Labels: []int32{ig, 2, ig, 4}}, true},
		"middle keeps both ends and does not predict over the gap": {4, TruncateMiddle, Sequence{IDs: []int32{1, 2, 5, 6}, Labels: []int32{ig, 2, ig, 6}}, true},
		"middle of an odd length keeps one more at the start":      {3, TruncateMiddle, Sequence{IDs: []int32{1, 2, 6}, Labels: []int32{ig, 2, ig}}, true},
		"middle of length one keeps the first":                     {1, TruncateMiddle, Sequence{IDs: []int32{1}, Labels: []int32{ig}}, true},
		"drop leaves it out":                                       {4, DropOverLength, Sequence{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, keep, err := s.Truncate(tt.n, tt.policy)
			if err != nil || keep != tt.keep {
				t.Fatalf("keep %v, error %v", keep, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, _, err := s.Truncate(4, ErrorOverLength); err == nil {
		t.Error("no error under policy error")
	}
}

func TestLedgerBalancesForEveryMethod(t *testing.T) {
	var seqs Sequences
	for i, n := range longTailed(300, 700, 12) {
		s := Sequence{IDs: make([]int32, n), Labels: make([]int32, n)}
		for k := range s.Labels {
			s.Labels[k] = int32(k % 7)
			if k < n/2 || i%10 == 0 { // every tenth has no target
				s.Labels[k] = ig
			}
		}
		seqs = append(seqs, s)
	}
	for name, p := range everyMethod {
		for _, over := range []OverLength{TruncateRight, TruncateMiddle, DropOverLength} {
			t.Run(name+"/"+string(over), func(t *testing.T) {
				p.MaxLength, p.OverLength = 512, over
				plan, err := NewPlan(seqs.Lengths(), p, 0)
				if err != nil {
					t.Fatal(err)
				}
				l, err := plan.Ledger(seqs)
				if err != nil {
					t.Fatal(err)
				}
				// What the trainer is given must be what the ledger says.
				var computed, trained int64
				for s := range plan.Steps() {
					packs, err := plan.Packs(s, seqs, 0, nil)
					if err != nil {
						t.Fatal(err)
					}
					for _, pack := range packs {
						_, counts := pack.Targets()
						computed += int64(len(pack.InputIDs))
						for _, n := range counts {
							trained += int64(n)
						}
					}
				}
				if err := l.Confirm(computed, trained); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestLedgersThatDoNotBalanceFail(t *testing.T) {
	good := Ledger{Input: 10, Trained: 3, Prompt: 4, Truncated: 2, Dropped: 1, Padding: 5, Computed: 12}
	if err := good.Confirm(12, 3); err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]Ledger{
		"a token vanished":         {Input: 11, Trained: 3, Prompt: 4, Truncated: 2, Dropped: 1},
		"a token appeared":         {Input: 10, Trained: 3, Prompt: 4, Truncated: 2, Dropped: 1, Padding: 5, Computed: 13},
		"padding was not computed": {Padding: 1},
		"a count is negative":      {Trained: -1, Prompt: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var unbalanced *LedgerError
			if err := l.Balance(); !errors.As(err, &unbalanced) {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := good.Confirm(12, 2); err == nil {
		t.Error("a trainer that missed a target was believed")
	}
}

func TestLossSharesAreThePapersPoint(t *testing.T) {
	// One pack of a long and a short answer, one of two short ones.
	plan := Plan{Method: MethodPacking, IDs: []int32{0, 1, 2, 3}, MicroBatchEnds: []int32{2, 4}, StepEnds: []int32{2}}
	targets := []int{90, 10, 10, 10}
	for loss, want := range map[Loss]float64{
		LossLongAlign: 3. / 4,             // each sequence counts alike
		LossToken:     30. / 120,          // each target counts alike
		LossPack:      (10./100 + 1.) / 2, // each pack counts alike
	} {
		shares, err := plan.LossShares(loss, targets, nil, []int{10})
		if err != nil {
			t.Fatal(err)
		}
		if got := shares[0].Share; math.Abs(got-want) > 1e-15 {
			t.Errorf("%s: short answers have %.4f of the loss, want %.4f", loss, got, want)
		}
		if got := shares[0].Share + shares[1].Share; math.Abs(got-1) > 1e-15 {
			t.Errorf("%s: the shares sum to %v", loss, got)
		}
		if diff := cmp.Diff([]int{3, 1}, []int{shares[0].Sequences, shares[1].Sequences}); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := plan.LossShares(LossToken, targets, nil, []int{10, 5}); err == nil {
		t.Error("descending bounds were accepted")
	}
	if _, err := plan.LossShares(LossToken, targets[:2], nil, nil); err == nil {
		t.Error("too few targets were accepted")
	}
}

func TestLossSharesDoNotDependOnBatchingButForPack(t *testing.T) {
	lengths := longTailed(400, 512, 21)
	targets := make([]int, len(lengths))
	for i, n := range lengths {
		targets[i] = n / 3
	}
	shares := func(p BatchesParams, loss Loss) []LossShare {
		p.MaxLength, p.SequencesPerStep = 512, 40
		plan, err := NewPlan(lengths, p, 0)
		if err != nil {
			t.Fatal(err)
		}
		s, err := plan.LossShares(loss, targets, nil, []int{16, 64})
		if err != nil {
			t.Fatal(err)
		}
		for b := range s {
			s[b].Share = math.Round(s[b].Share*1e12) / 1e12
		}
		return s
	}
	naive := BatchesParams{Method: MethodNaive, BatchSize: 4}
	for _, loss := range []Loss{LossLongAlign, LossToken} {
		if diff := cmp.Diff(shares(naive, loss), shares(BatchesParams{}, loss)); diff != "" {
			t.Errorf("%s:\n%s", loss, diff)
		}
	}
	if short := func(l Loss) float64 { return shares(BatchesParams{}, l)[0].Share }; short(LossPack) >= short(LossLongAlign) {
		t.Error("unweighted packing gives short answers no smaller share than weighting does")
	}
}

func TestIdleTimeIsWaitingForTheSlowestDevice(t *testing.T) {
	plan := Plan{IDs: []int32{0, 1, 2, 3}, MicroBatchEnds: []int32{1, 2, 3, 4}, StepEnds: []int32{3, 4}}
	got, err := SimulateIdle(plan, []float64{3, 1, 1, 2}, 2)
	if err != nil {
		t.Fatal(err)
	}
	// Step 0: device 0 has 3+1, device 1 has 1. Step 1: device 0 has 2.
	want := Idle{Simulated: true, Devices: 2, Seconds: 6, BusySeconds: 7, IdleShare: 0.41666666666666663} // 5 of 12 device seconds
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, seconds := range map[string][]float64{"too few": {1}, "not a number": {1, 2, 3, math.NaN()}} {
		if _, err := SimulateIdle(plan, seconds, 2); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
