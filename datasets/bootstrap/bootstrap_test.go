package bootstrap

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func normals(n int, mu float64, seed uint64) []float64 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float64, n)
	for i := range x {
		x[i] = mu + r.NormFloat64()
	}
	return x
}

func TestMeanCIDegenerateInputs(t *testing.T) {
	nan := math.NaN()
	for name, tt := range map[string]struct {
		x    []float64
		want Interval
	}{
		"no samples give no interval":            {nil, Interval{}},
		"one sample is its own interval":         {[]float64{3}, Interval{3, 3, 3, 1}},
		"equal samples leave no uncertainty":     {[]float64{2, 2, 2}, Interval{2, 2, 2, 3}},
		"a NaN is not hidden among other scores": {[]float64{1, nan}, Interval{nan, nan, nan, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			same := cmp.Comparer(func(a, b float64) bool { return a == b || a != a && b != b })
			if diff := cmp.Diff(tt.want, MeanCI(tt.x, 1, 100), same); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestClustersAreDrawnWhole(t *testing.T) {
	x := normals(40, 0, 7)
	var alone, pairs, twins [][]float64
	for i, v := range x {
		alone, twins = append(alone, []float64{v}), append(twins, []float64{v, v})
		if i%2 == 0 {
			pairs = append(pairs, x[i:i+2])
		}
	}
	plain := MeanCI(x, 5, 1000)
	if diff := cmp.Diff(plain, ClusterMeanCI(alone, 5, 1000)); diff != "" {
		t.Error("clusters of one are samples: ", diff)
	}
	doubled := plain
	doubled.N *= 2
	if diff := cmp.Diff(doubled, ClusterMeanCI(twins, 5, 1000)); diff != "" {
		t.Error("a sample said twice narrows no interval: ", diff)
	}
	if got := ClusterMeanCI(pairs, 5, 1000); math.Abs(got.Mean-plain.Mean) > 1e-15 || got.N != plain.N {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(Interval{2, 2, 2, 3}, ClusterMeanCI([][]float64{{1, 2, 3}, nil}, 5, 100)); diff != "" {
		t.Error("one cluster says nothing of the spread: ", diff)
	}
	if got := ClusterMeanCI([][]float64{nil}, 5, 100); got != (Interval{}) {
		t.Errorf("no samples: %+v", got)
	}
}

func TestMeanCIIsAFunctionOfItsArguments(t *testing.T) {
	x := normals(50, 0, 7)
	if diff := cmp.Diff(MeanCI(x, 5, 1000), MeanCI(x, 5, 1000)); diff != "" {
		t.Error("same arguments, other result:", diff)
	}
	if MeanCI(x, 5, 1000) == MeanCI(x, 6, 1000) {
		t.Error("the seed has no effect")
	}
	if MeanCI(x, 5, 0) != MeanCI(x, 5, DefaultResamples) {
		t.Error("resamples 0 is not the default")
	}
}

// Published tables must keep their intervals: the generator and the order of
// draws are part of the format.
func TestIntervalsStayTheSameAcrossReleases(t *testing.T) {
	x := []float64{0, 1, 0.5, 0.25, 1, 0, 0.75, 1}
	if diff := cmp.Diff(Interval{0.5625, 0.25, 0.84375, 8}, MeanCI(x, 42, 1000)); diff != "" {
		t.Error(diff)
	}
}

func TestIntervalShiftsAndScalesWithTheData(t *testing.T) {
	x := normals(80, 1, 3)
	y := make([]float64, len(x))
	for i := range x {
		y[i] = 100*x[i] - 7
	}
	a, b := MeanCI(x, 9, 500), MeanCI(y, 9, 500)
	want := Interval{100*a.Mean - 7, 100*a.Low - 7, 100*a.High - 7, a.N}
	near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })
	if diff := cmp.Diff(want, b, near); diff != "" {
		t.Error(diff)
	}
}

// 95 % of 400 intervals should hold the true mean; the bounds allow four
// standard errors and the percentile method's known optimism at n = 40.
func TestIntervalsCoverTheTrueMean(t *testing.T) {
	const trials = 400
	covered := 0
	for i := range trials {
		iv := MeanCI(normals(40, 2, uint64(i)), uint64(i), 400)
		if iv.Low <= 2 && 2 <= iv.High {
			covered++
		}
	}
	if covered < 0.88*trials || covered > 0.99*trials {
		t.Errorf("%d of %d intervals cover the mean, want about 95 %%", covered, trials)
	}
}

func TestMacroMeanWeighsGroupsAlike(t *testing.T) {
	groups := [][]float64{{1, 1, 1, 1, 1, 1}, {0}}
	if got := MacroMeanCI(groups, 1, 50); got != (Interval{0.5, 0.5, 0.5, 7}) {
		t.Error(got)
	}
	if got := MacroMeanCI([][]float64{{1}, {}}, 1, 50); got != (Interval{}) {
		t.Error("an empty group still gave a mean:", got)
	}
	x := normals(30, 0, 1)
	if diff := cmp.Diff(MeanCI(x, 4, 300), MacroMeanCI([][]float64{x}, 4, 300)); diff != "" {
		t.Error("one group is not the plain mean:", diff)
	}
}

func TestPaired(t *testing.T) {
	base := normals(100, 0, 11)
	better := make([]float64, len(base))
	for i := range base {
		better[i] = base[i] + 0.5 + 0.1*float64(i%3)
	}
	up, down := Paired(better, base, 1, 2000), Paired(base, better, 1, 2000)
	if up.P > 0.001 || up.Low <= 0 {
		t.Error("a constant gain is not significant:", up)
	}
	near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 0.02 })
	if diff := cmp.Diff(PairedResult{-up.Diff, -up.High, -up.Low, up.P, up.N}, down, near); diff != "" {
		t.Error("swapping the methods does not mirror the result:", diff)
	}
	if same := Paired(base, base, 1, 500); same != (PairedResult{P: 1, N: 100}) {
		t.Error("a method differs from itself:", same)
	}
	if none := Paired(nil, nil, 1, 10); none != (PairedResult{P: 1}) {
		t.Error(none)
	}
}

// Without a difference P is uniform: about 5 % of 400 trials fall below 0.05.
func TestPairedFalseAlarmsAreRare(t *testing.T) {
	alarms := 0
	for i := range uint64(400) {
		if Paired(normals(60, 0, 2*i), normals(60, 0, 2*i+1), i, 300).P < 0.05 {
			alarms++
		}
	}
	if alarms < 5 || alarms > 45 {
		t.Errorf("%d of 400 null comparisons below 0.05, want about 20", alarms)
	}
}

func TestMatchPairsByID(t *testing.T) {
	a := []Sample{{"c", 3}, {"a", 1}, {"x", 9}}
	b := []Sample{{"a", 10}, {"b", 20}, {"c", 30}}
	got, err := Match(a, b)
	if err != nil {
		t.Fatal(err)
	}
	want := Matched{IDs: []string{"a", "c"}, A: []float64{1, 3}, B: []float64{10, 30},
		OnlyA: []string{"x"}, OnlyB: []string{"b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	slices.Reverse(a)
	if again, _ := Match(a, b); !cmp.Equal(again, got) {
		t.Error("the order of rows matters")
	}
	for name, bad := range map[string][]Sample{
		"a repeated id": {{"a", 1}, {"a", 2}},
		"an empty id":   {{"", 1}},
	} {
		if _, err := Match(b, bad); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func BenchmarkMeanCI(b *testing.B) {
	x := normals(200, 0, 1)
	for b.Loop() {
		MeanCI(x, 1, DefaultResamples)
	}
}
