package datasets

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBlocksJoinToTheWholePlan(t *testing.T) {
	lengths := longTailed(1000, 700, 4) // some are over-long
	for name, p := range everyMethod {
		t.Run(name, func(t *testing.T) {
			p.MaxLength, p.Seed, p.Block = 512, 7, 150
			for _, p.OverLength = range []OverLength{TruncateRight, DropOverLength} {
				whole, err := NewPlan(lengths, p, 1)
				if err != nil {
					t.Fatal(err)
				}
				checkPlanInBlocks(t, whole, lengths, p)
				n, err := PlanBlocks(lengths, p)
				if err != nil || n < 6 {
					t.Fatalf("%d blocks, %v", n, err)
				}
				blocks := make([]Plan, n)
				for b := range blocks {
					if blocks[b], err = PlanBlock(lengths, p, 1, b); err != nil {
						t.Fatal(err)
					}
				}
				if diff := cmp.Diff(whole, JoinPlans(blocks)); diff != "" {
					t.Error(diff)
				}
				if _, err := PlanBlock(lengths, p, 1, n); err == nil {
					t.Error("there is one block more than there are")
				}
			}
		})
	}
}

// checkPlanInBlocks is checkPlan for plans whose blocks end with partial steps, and checks that no sequence leaves its block.
func checkPlanInBlocks(t *testing.T, plan Plan, lengths []int, p BatchesParams) {
	t.Helper()
	p = p.Defaults()
	perStep := p.SequencesPerStep
	p.SequencesPerStep = 0
	checkPlan(t, plan, lengths, p)
	p.SequencesPerStep = perStep
	e, err := newEpoch(lengths, p, 1)
	if err != nil {
		t.Fatal(err)
	}
	order, _ := e.shuffled()
	size, blocks := e.p.blockSize(), e.p.blocksOf(len(order))
	for b := range blocks {
		to := (b + 1) * size
		if b == blocks-1 {
			to = len(order)
		}
		want, got := slices.Clone(order[b*size:to]), slices.Clone(plan.IDs[b*size:to])
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			t.Fatalf("block %d does not train the sequences of its run of the order", b)
		}
	}
}

func TestPlansWithCountedStepsDoNotDependOnBlocks(t *testing.T) {
	lengths := longTailed(1000, 512, 5)
	for name, p := range everyMethod {
		if p.Method == MethodSorted || p.Method != MethodNaive && p.SequencesPerStep == 0 {
			continue // these choose among the sequences of a block
		}
		t.Run(name, func(t *testing.T) {
			p.MaxLength = 512
			plan := func(block int) Plan {
				p.Block = block
				plan, err := NewPlan(lengths, p, 0)
				if err != nil {
					t.Fatal(err)
				}
				return plan
			}
			for _, block := range []int{1, 100, 333} {
				if diff := cmp.Diff(plan(0), plan(block)); diff != "" {
					t.Errorf("in blocks of %d:\n%s", block, diff)
				}
			}
		})
	}
}

// A small plan is one block: it is what it was before there were any.
func TestFewSequencesAreOneBlock(t *testing.T) {
	for n, want := range map[int]int{1: 1, 1e6: 1, 2<<20 - 1: 1, 2 << 20: 2, 1e7: 9} {
		if got := (BatchesParams{}).Defaults().blocksOf(n); got != want {
			t.Errorf("%d sequences are %d blocks, want %d", n, got, want)
		}
	}
	if err := (BatchesParams{Compat: CompatTHUDM, Block: 5}).Defaults().Validate(); err == nil {
		t.Error("the published code's plans have no blocks")
	}
}

func TestAnIndexSavesReadingTokens(t *testing.T) {
	lengths := longTailed(300, 700, 9)
	seqs := make(Sequences, len(lengths))
	for i, n := range lengths {
		seqs[i] = Sequence{IDs: make([]int32, n), Labels: make([]int32, n)}
		for t := range n / 3 {
			seqs[i].Labels[t] = IgnoreIndex
		}
	}
	for name, p := range map[string]BatchesParams{
		"packed": {}, "padded": {Method: MethodNaive}, "dropping": {OverLength: DropOverLength}, "cut in the middle": {OverLength: TruncateMiddle},
	} {
		t.Run(name, func(t *testing.T) {
			p.MaxLength = 512
			plan, err := NewPlan(lengths, p, 0)
			if err != nil {
				t.Fatal(err)
			}
			want, err := plan.Ledger(seqs)
			if err != nil {
				t.Fatal(err)
			}
			indexed := &indexedSequences{Sequences: seqs}
			got, err := plan.Ledger(indexed)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			for _, n := range indexed.read {
				if n <= p.MaxLength {
					t.Fatalf("a sequence of %d tokens was read", n)
				}
			}
		})
	}
}

type indexedSequences struct {
	Sequences
	read []int // lengths of what was read
}

func (s *indexedSequences) Counts(id int) (tokens, targets int) {
	return len(s.Sequences[id].IDs), s.Sequences[id].Targets()
}

func (s *indexedSequences) Sequence(id int) (Sequence, error) {
	s.read = append(s.read, len(s.Sequences[id].IDs))
	return s.Sequences.Sequence(id)
}
