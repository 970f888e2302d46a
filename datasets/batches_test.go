package datasets

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// longTailed returns n lengths that fall off as 1/length between 16 and longest, like instruction data.
func longTailed(n, longest int, seed uint64) []int {
	r := NewRand(seed, 99)
	lengths := make([]int, n)
	for i := range lengths {
		lengths[i] = int(16 * math.Pow(float64(longest)/16, r.Float64()))
	}
	return lengths
}

// sharedLengths reads the reference lengths that lie beside a checkout used for development.
func sharedLengths(t *testing.T) []int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "shared", "cases", "lengths.txt"))
	if err != nil {
		t.Skip("../shared/cases/lengths.txt is not there; the claim is tested on made lengths elsewhere")
	}
	var lengths []int
	for f := range strings.FieldsSeq(string(data)) {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		lengths = append(lengths, n)
	}
	return lengths
}

// everyMethod is a set of parameters for each way of making batches.
var everyMethod = map[string]BatchesParams{
	"naive":                            {Method: MethodNaive, BatchSize: 4},
	"naive, accumulated":               {Method: MethodNaive, BatchSize: 4, Accumulate: 3},
	"naive, sequences per step":        {Method: MethodNaive, BatchSize: 4, SequencesPerStep: 18},
	"sorted":                           {Method: MethodSorted, BatchSize: 4},
	"sorted, accumulated":              {Method: MethodSorted, BatchSize: 4, Accumulate: 3},
	"sorted, sequences per step":       {Method: MethodSorted, BatchSize: 4, SequencesPerStep: 18},
	"packing":                          {},
	"packing, one pack a step":         {BatchSize: 1},
	"packing, by compute":              {Balance: BalanceCompute},
	"packing, sequences per step":      {SequencesPerStep: 18},
	"packing steps, by compute":        {SequencesPerStep: 18, Balance: BalanceCompute},
	"next-fit":                         {Packing: PackingNextFit},
	"next-fit, sequences per step":     {Packing: PackingNextFit, SequencesPerStep: 18},
	"best-fit":                         {Packing: PackingBestFit},
	"best-fit, sequences per step":     {Packing: PackingBestFit, SequencesPerStep: 18},
	"best-fit-decreasing":              {Packing: PackingBestFitDecreasing},
	"best-fit-decreasing, by sequence": {Packing: PackingBestFitDecreasing, SequencesPerStep: 18},
}

func TestEveryMethodTrainsEachSequenceOnceInPacksThatFit(t *testing.T) {
	for name, p := range everyMethod {
		t.Run(name, func(t *testing.T) {
			p.MaxLength, p.Seed = 512, 7
			for _, n := range []int{1, 2, 17, 400} {
				lengths := longTailed(n, 700, uint64(n)) // some are over-long
				plan, err := NewPlan(lengths, p, 0)
				if err != nil {
					t.Fatal(err)
				}
				checkPlan(t, plan, lengths, p.Defaults())
			}
		})
	}
}

func checkPlan(t *testing.T, plan Plan, lengths []int, p BatchesParams) {
	t.Helper()
	if err := plan.Check(len(lengths)); err != nil {
		t.Fatal(err)
	}
	for s := range plan.Steps() {
		from, to := plan.MicroBatches(s)
		if from == to {
			t.Fatalf("step %d is empty", s)
		}
		if p.SequencesPerStep > 0 && p.Method != MethodSorted && s < plan.Steps()-1 && plan.StepSequences(s) != p.SequencesPerStep {
			t.Fatalf("step %d has %d sequences, want %d", s, plan.StepSequences(s), p.SequencesPerStep)
		}
		if plan.Packed() && p.BatchSize > 0 && to-from > p.BatchSize {
			t.Fatalf("step %d has %d packs", s, to-from)
		}
		for m := from; m < to; m++ {
			ids := plan.MicroBatch(m)
			sum := 0
			for _, id := range ids {
				sum += min(lengths[id], p.MaxLength)
			}
			switch {
			case len(ids) == 0:
				t.Fatalf("micro-batch %d is empty", m)
			case plan.Packed() && sum > p.MaxLength:
				t.Fatalf("pack %d has %d tokens", m, sum)
			case !plan.Packed() && len(ids) > p.BatchSize:
				t.Fatalf("micro-batch %d has %d rows", m, len(ids))
			}
		}
	}
}

func TestPlansAreAFunctionOfSeedAndEpoch(t *testing.T) {
	lengths := longTailed(500, 512, 1)
	for name, p := range everyMethod {
		t.Run(name, func(t *testing.T) {
			p.MaxLength = 512
			make := func(seed uint64, epoch int) Plan {
				p.Seed = seed
				plan, err := NewPlan(lengths, p, epoch)
				if err != nil {
					t.Fatal(err)
				}
				return plan
			}
			if diff := cmp.Diff(make(1, 0), make(1, 0)); diff != "" {
				t.Errorf("the same seed and epoch differ:\n%s", diff)
			}
			if cmp.Equal(make(1, 0).IDs, make(1, 1).IDs) {
				t.Error("epochs 0 and 1 are alike")
			}
			if cmp.Equal(make(1, 0).IDs, make(2, 0).IDs) {
				t.Error("seeds 1 and 2 are alike")
			}
		})
	}
}

// These plans must never change: the artifacts of finished runs name them by their parameters.
func TestPlansStayWhatTheyWere(t *testing.T) {
	lengths := []int{9, 3, 4, 12, 5, 1, 7, 2, 6, 8}
	for name, tt := range map[string]struct {
		p    BatchesParams
		want string
	}{
		"naive":   {BatchesParams{Method: MethodNaive, BatchSize: 2, Accumulate: 2}, "[[[0 9] [7 6]] [[5 3] [4 1]] [[8 2]]]"},
		"sorted":  {BatchesParams{Method: MethodSorted, BatchSize: 2, Accumulate: 2}, "[[[5 7] [1 2]] [[4 8] [6 9]] [[0 3]]]"},
		"packing": {BatchesParams{BatchSize: 2}, "[[[0 7 5] [3]] [[6 4] [8 2]] [[9 1]]]"},
		"next":    {BatchesParams{Packing: PackingNextFit, BatchSize: 2}, "[[[0] [9 7]] [[6 5] [3]] [[4 1] [8 2]]]"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.p.MaxLength, tt.p.Seed = 12, 3
			plan, err := NewPlan(lengths, tt.p, 0)
			if err != nil {
				t.Fatal(err)
			}
			var steps [][][]int32
			for s := range plan.Steps() {
				var step [][]int32
				from, to := plan.MicroBatches(s)
				for m := from; m < to; m++ {
					step = append(step, plan.MicroBatch(m))
				}
				steps = append(steps, step)
			}
			if diff := cmp.Diff(tt.want, fmt.Sprint(steps)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRandStaysWhatItWas(t *testing.T) {
	r := NewRand(1, 2)
	var got []uint64
	for _, n := range []uint64{10, 1000, 1 << 40, 3} {
		got = append(got, r.Uint64n(n))
	}
	if diff := cmp.Diff([]uint64{7, 616, 862487708977, 2}, got); diff != "" {
		t.Error(diff)
	}
}

func TestDefaultPackingIsFullAndEven(t *testing.T) {
	for name, tt := range map[string]struct {
		lengths []int
		full    float64
	}{
		"on the reference lengths":    {nil, 0.999},
		"on made long-tailed lengths": {longTailed(40000, 65536, 5), 0.999},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.lengths == nil {
				tt.lengths = sharedLengths(t)
			}
			plan, err := NewPlan(tt.lengths, BatchesParams{MaxLength: 65536, BatchSize: 8}, 0)
			if err != nil {
				t.Fatal(err)
			}
			st := plan.Stats(tt.lengths)
			if cv := st.SequencesPerStepSD / st.SequencesPerStepMean; st.Efficiency < tt.full || cv > 0.12 {
				t.Errorf("packs are %.4f full and sequences a step vary by %.3f, want at least %.4f and at most 0.12", st.Efficiency, cv, tt.full)
			}
		})
	}
}

func TestDefaultPackingMovesSequencesOnlySoFar(t *testing.T) {
	p := BatchesParams{MaxLength: 4096, BatchSize: 4}.Defaults()
	lengths := longTailed(30000, 4096, 8)
	clipped := make([]int32, len(lengths))
	order := make([]int32, len(lengths))
	for i, n := range lengths {
		clipped[i], order[i] = int32(n), int32(i)
	}
	rng := NewRand(p.Seed, 0)
	Shuffle(rng, order)
	turns := make([]int, len(lengths))
	bestFit(order, clipped, p.MaxLength, func(id int32, opened int) { turns[id] = opened })
	plan, err := NewPlan(lengths, p, 0)
	if err != nil {
		t.Fatal(err)
	}
	furthest := 0
	for m := range plan.MicroBatchEnds {
		for _, id := range plan.MicroBatch(m) {
			furthest = max(furthest, m-turns[id], turns[id]-m)
		}
	}
	if bound := p.Displacement(); furthest > bound {
		t.Errorf("a sequence moved by %d packs, more than %d", furthest, bound)
	}
}

func TestNaiveAndPackingTakeTheSameStepsWhenSequencesPerStepIsSet(t *testing.T) {
	lengths := longTailed(1000, 512, 3)
	steps := func(p BatchesParams) (all [][]int32) {
		p.MaxLength, p.SequencesPerStep, p.Seed = 512, 50, 11
		plan, err := NewPlan(lengths, p, 2)
		if err != nil {
			t.Fatal(err)
		}
		for s := range plan.Steps() {
			var ids []int32
			from, to := plan.MicroBatches(s)
			for m := from; m < to; m++ {
				ids = append(ids, plan.MicroBatch(m)...)
			}
			slices.Sort(ids)
			all = append(all, ids)
		}
		return all
	}
	naive := steps(BatchesParams{Method: MethodNaive, BatchSize: 8})
	for _, packing := range []Packing{PackingDefault, PackingNextFit, PackingBestFit, PackingBestFitDecreasing} {
		if diff := cmp.Diff(naive, steps(BatchesParams{Packing: packing})); diff != "" {
			t.Errorf("%s:\n%s", packing, diff)
		}
	}
}

func TestSortedStepsAreRunsOfTheSortedLengths(t *testing.T) {
	lengths := longTailed(103, 512, 4)
	plan, err := NewPlan(lengths, BatchesParams{Method: MethodSorted, MaxLength: 512, BatchSize: 4, Accumulate: 2}, 0)
	if err != nil {
		t.Fatal(err)
	}
	sorted := slices.Sorted(slices.Values(lengths))
	var starts []int
	for s := range plan.Steps() {
		var step []int
		from, to := plan.MicroBatches(s)
		for m := from; m < to; m++ {
			for _, id := range plan.MicroBatch(m) {
				step = append(step, lengths[id])
			}
		}
		start := -1
		for k := 0; k < len(sorted); k += 8 {
			if slices.Equal(step, sorted[k:min(k+8, len(sorted))]) {
				start = k
			}
		}
		if start < 0 {
			t.Fatalf("step %d %v is no run of the sorted lengths", s, step)
		}
		starts = append(starts, start)
	}
	if slices.IsSorted(starts) {
		t.Error("the groups are in order, not shuffled")
	}
}

// TestBalancingByComputeKeepsDevicesBusy gives each device the packs j mod devices of a step. Where a step has several rounds of packs, the
// numbers of sequences stay even too; where it has one, that is the price.
func TestBalancingByComputeKeepsDevicesBusy(t *testing.T) {
	lengths := longTailed(60000, 65536, 6)
	measure := func(balance Balance, perStep, devices int) (idle, spread float64) {
		p := BatchesParams{BatchSize: perStep, Balance: balance}
		plan, err := NewPlan(lengths, p, 0)
		if err != nil {
			t.Fatal(err)
		}
		p.ComputeWidth = 4096
		costs := make([]float64, len(plan.MicroBatchEnds))
		for m := range costs {
			for _, id := range plan.MicroBatch(m) {
				costs[m] += p.cost(int32(lengths[id]))
			}
		}
		simulated, err := SimulateIdle(plan, costs, devices)
		if err != nil {
			t.Fatal(err)
		}
		stats := plan.Stats(lengths)
		return simulated.IdleShare, stats.SequencesPerStepSD / stats.SequencesPerStepMean
	}
	for _, tt := range []struct {
		perStep, devices int
		spread           float64
	}{{8, 8, 1}, {8, 4, 1}, {64, 8, .12}, {32, 4, .2}} {
		tokens, _ := measure(BalanceTokens, tt.perStep, tt.devices)
		compute, spread := measure(BalanceCompute, tt.perStep, tt.devices)
		if compute > .06 || compute > tokens/2 || spread > tt.spread {
			t.Errorf("%d packs a step on %d devices: %.3f of the time idle, %.3f when balanced by tokens; sequences a step vary by %.2f", tt.perStep, tt.devices, compute, tokens, spread)
		}
	}
}

func TestOverLongSequences(t *testing.T) {
	lengths := []int{5, 30, 7, 40}
	p := BatchesParams{Method: MethodNaive, BatchSize: 2, MaxLength: 10}
	t.Run("are cut by default", func(t *testing.T) {
		plan, err := NewPlan(lengths, p, 0)
		if err != nil {
			t.Fatal(err)
		}
		st := plan.Stats(lengths)
		if diff := cmp.Diff([]int64{5 + 10 + 7 + 10, 2, 0}, []int64{st.Tokens, int64(st.Truncated), int64(st.Dropped)}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("are dropped by drop", func(t *testing.T) {
		p.OverLength = DropOverLength
		plan, err := NewPlan(lengths, p, 0)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int32{1, 3}, plan.Dropped); diff != "" {
			t.Error(diff)
		}
		if err := plan.Check(4); err != nil {
			t.Error(err)
		}
	})
	t.Run("fail by error", func(t *testing.T) {
		p.OverLength = ErrorOverLength
		_, err := NewPlan(lengths, p, 0)
		var over *OverLengthError
		if !errors.As(err, &over) || over.Sequence != 1 || !strings.Contains(err.Error(), "truncate-right") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("fail when dropping leaves nothing", func(t *testing.T) {
		p.OverLength, p.MaxLength = DropOverLength, 4
		if _, err := NewPlan(lengths, p, 0); err == nil || !strings.Contains(err.Error(), "all 4 sequences") {
			t.Errorf("got %v", err)
		}
	})
}

func TestImpossibleParametersAreRefusedByName(t *testing.T) {
	for want, p := range map[string]BatchesParams{
		"method":             {Method: "sort"},
		"packing":            {Packing: "first-fit"},
		"max_length":         {MaxLength: 1},
		"batch_size":         {BatchSize: -1},
		"sequences_per_step": {BatchSize: 8, SequencesPerStep: 100},
		"accumulate":         {Accumulate: 2},
		"epochs":             {Epochs: -1},
		"over_length":        {OverLength: "cut"},
		"balance":            {Method: MethodNaive, Balance: BalanceTokens},
		"compat":             {Compat: "hf"},
	} {
		err := p.Defaults().Validate()
		var param *ParamError
		if !errors.As(err, &param) || param.Field != want {
			t.Errorf("%+v: got %v, want an error about %s", p, err, want)
		}
	}
	for _, lengths := range [][]int{nil, {3, 0}, {-1}} {
		if _, err := NewPlan(lengths, BatchesParams{}, 0); err == nil {
			t.Errorf("lengths %v were planned", lengths)
		}
	}
}

func TestPlanSurvivesItsJSON(t *testing.T) {
	lengths := longTailed(300, 512, 2)
	plan, err := NewPlan(lengths, BatchesParams{MaxLength: 512}, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := plan.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	back, err := ReadPlan(&b)
	if err != nil {
		t.Fatal(err)
	}
	back.Method, back.MaxLength, back.OverLength = plan.Method, plan.MaxLength, plan.OverLength
	if diff := cmp.Diff(plan, back); diff != "" {
		t.Error(diff)
	}
}

func FuzzReadPlan(f *testing.F) {
	for _, s := range []string{
		"", `{"step":0,"micro_batches":[[0,5],[3]]}`, `{"step":1,"micro_batches":[[0]]}`, `{"step":0,"micro_batches":[[]]}`,
		`{"step":0,"micro_batches":[]}`, `{"step":0,"micro_batches":[[-1]]}`, `{"step":0}`, `{`, `[]`, "{\"step\":0,\"micro_batches\":[[9999999999]]}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		plan, err := ReadPlan(strings.NewReader(s))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := plan.WriteJSON(&b); err != nil {
			t.Fatal(err)
		}
		back, err := ReadPlan(&b)
		if err != nil || !cmp.Equal(plan, back) {
			t.Fatalf("%q: written again it is another plan: %v", s, err)
		}
	})
}

func FuzzNewPlan(f *testing.F) {
	f.Add([]byte{1, 200, 3, 4, 90, 90, 90}, uint8(0), uint8(100), uint64(1))
	f.Add([]byte{255, 255, 1}, uint8(5), uint8(2), uint64(0))
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range everyMethod {
			if !yield(name) {
				return
			}
		}
	})
	f.Fuzz(func(t *testing.T, data []byte, method, maxLength uint8, seed uint64) {
		lengths := make([]int, len(data))
		for i, b := range data {
			lengths[i] = int(b) + 1
		}
		p := everyMethod[names[int(method)%len(names)]]
		p.MaxLength, p.Seed = int(maxLength)+2, seed
		plan, err := NewPlan(lengths, p, 0)
		if err != nil {
			if len(lengths) > 0 {
				t.Fatal(err)
			}
			return
		}
		checkPlan(t, plan, lengths, p.Defaults())
	})
}

func BenchmarkNewPlan(b *testing.B) {
	for _, p := range []BatchesParams{{}, {Packing: PackingBestFitDecreasing}, {Method: MethodSorted}, {SequencesPerStep: 100}} {
		p = p.Defaults()
		for _, n := range []int{1e4, 1e5, 1e6, 1e7} {
			if n > 1e6 && testing.Short() {
				continue
			}
			b.Run(fmt.Sprintf("%s%s/sequences_per_step=%d/n=%.0e", p.Method, p.Packing, p.SequencesPerStep, float64(n)), func(b *testing.B) {
				lengths := longTailed(n, 65536, 1)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := NewPlan(lengths, p, 0); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/sequence")
			})
		}
	}
}
