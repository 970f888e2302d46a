package reports

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/longalign/longalign-go/datasets/bootstrap"
)

// Metric names what an expectation or a comparison is about: a score ("loss"), a score
// over one range of answer lengths ("loss/8-31", "loss/128+"), the share of the loss
// that a range has ("share/1-7"), or a cost ("steps", "real_tokens", "padded_tokens",
// "efficiency", "seconds", "tokens_per_second", "idle").
type Metric struct {
	Name   string
	Bucket *Bucket
}

// Metrics that are not scores: they are read from the plan or the clock.
const (
	metricShare      = "share"
	metricEfficiency = "efficiency"
)

// ParseMetric reads "name" or "name/bucket"; a bucket is "8-31", "5" or "128+".
func ParseMetric(s string) (Metric, error) {
	name, rest, found := strings.Cut(s, "/")
	if name == "" {
		return Metric{}, fmt.Errorf("metric %q has no name; write loss, needle, share/1-7, padded_tokens or another one", s)
	}
	if !found {
		if name == metricShare {
			return Metric{}, fmt.Errorf("metric %q needs a range of answer lengths, such as share/1-7", s)
		}
		return Metric{Name: name}, nil
	}
	b, err := ParseBucket(rest)
	if err != nil {
		return Metric{}, fmt.Errorf("metric %q: %w", s, err)
	}
	return Metric{name, &b}, nil
}

// ParseBucket reads "8-31", "5" or "128+".
func ParseBucket(s string) (Bucket, error) {
	bad := func() (Bucket, error) {
		return Bucket{}, fmt.Errorf("range of lengths %q: write 8-31, 5 or 128+", s)
	}
	if from, ok := strings.CutSuffix(s, "+"); ok {
		n, err := strconv.Atoi(from)
		if err != nil || n < 0 {
			return bad()
		}
		return Bucket{n, 0}, nil
	}
	from, to, isRange := strings.Cut(s, "-")
	a, err := strconv.Atoi(from)
	if err != nil || a < 0 {
		return bad()
	}
	if !isRange {
		to = from
	}
	b, err := strconv.Atoi(to)
	if err != nil || b < a || b == 0 {
		return bad()
	}
	return Bucket{a, b}, nil
}

// String is the form that ParseMetric reads.
func (m Metric) String() string {
	if m.Bucket == nil {
		return m.Name
	}
	switch b := *m.Bucket; {
	case b.To == 0:
		return fmt.Sprintf("%s/%d+", m.Name, b.From)
	case b.To == b.From:
		return fmt.Sprintf("%s/%d", m.Name, b.From)
	default:
		return fmt.Sprintf("%s/%d-%d", m.Name, b.From, b.To)
	}
}

// exact returns the value of a metric that is one number for a cell rather than a mean
// over samples.
func (m Metric) exact(c *CellData) (v float64, ok bool) {
	if m.Name == metricShare {
		for _, s := range c.LossShare {
			if m.Bucket != nil && s.Bucket == *m.Bucket {
				return s.Share, true
			}
		}
		return 0, false
	}
	t := c.Timing
	if t == nil || m.Bucket != nil {
		return 0, false
	}
	switch m.Name {
	case "steps":
		return float64(t.Steps), true
	case "real_tokens":
		return float64(t.RealTokens), true
	case "padded_tokens":
		return float64(t.PaddedTokens), true
	case metricEfficiency:
		return float64(t.RealTokens) / float64(t.PaddedTokens), t.PaddedTokens > 0
	case "seconds":
		return t.Seconds, t.Seconds > 0
	case "tokens_per_second":
		return t.TokensPerSecond, t.TokensPerSecond > 0
	case "idle":
		if t.Simulated != nil {
			return t.Simulated.Idle, true
		}
	}
	return 0, false
}

// measured reports whether m comes from a clock, so that it differs from run to run.
func (m Metric) measured() bool {
	return m.Name == "seconds" || m.Name == "tokens_per_second" || m.Name == "idle"
}

// samples returns the samples of m in c, those without a score left out, and the counts.
func (m Metric) samples(c *CellData) (ok []bootstrap.Sample, failed, truncated int) {
	set := c.Scores[m.Name]
	for _, s := range set.Samples {
		if m.Bucket != nil && !m.Bucket.Contains(s.Length) {
			continue
		}
		if s.Truncated {
			truncated++
		}
		if !s.scored() {
			failed++
			continue
		}
		ok = append(ok, bootstrap.Sample{ID: s.ID, Score: s.Value})
	}
	return ok, failed, truncated
}

// cell makes the table cell of metric m over cells that differ in the seed only: the
// mean over samples of the mean over seeds, its interval over samples.
func (s *Study) cell(m Metric, cells []CellData) Cell {
	var out Cell
	var means []bootstrap.Sample
	var imported []ScoreSet
	for i := range cells {
		c := &cells[i]
		set, there := c.Scores[m.Name]
		out.Marks = union(union(out.Marks, set.Marks), answeredNote(set.AnsweredBy))
		out.Sources = union(out.Sources, set.Sources)
		if there && len(set.Samples) == 0 && set.N > 0 && m.Bucket == nil {
			imported = append(imported, set)
			continue
		}
		ok, failed, truncated := m.samples(c)
		out.Failed += failed
		out.Truncated += truncated
		if m.Bucket == nil && (set.Wanted > len(set.Samples) || set.lacksGroup()) || !there || len(ok) == 0 {
			out.Incomplete = true
		}
		if m.Bucket == nil {
			out.Wanted = max(out.Wanted, set.Wanted)
		}
		means = append(means, ok...)
	}
	if len(imported) > 0 && len(means) == 0 {
		return importedCell(imported, len(cells), out)
	}
	out.Incomplete = out.Incomplete || len(imported) > 0 // samples and bare means cannot be pooled
	pooled := poolByID(means)
	if len(pooled) == 0 {
		return Cell{Incomplete: true, Marks: union(out.Marks, []string{NoteUnmeasured}), Failed: out.Failed, Truncated: out.Truncated, Sources: out.Sources}
	}
	iv := meanCI(pooled, groupsOf(m.Name, cells), clustersOf(m.Name, cells), s.Seed, s.Resamples)
	out.Value, out.Low, out.High, out.N = iv.Mean, iv.Low, iv.High, iv.N
	if out.N < 2 {
		out.Low, out.High = 0, 0
	}
	return out
}

// lacksGroup tells whether a group has no sample with a score: then the mean of the groups' means is over fewer groups than it says.
func (set ScoreSet) lacksGroup() bool {
	scored := map[string]bool{}
	for _, x := range set.Samples {
		scored[x.Group] = scored[x.Group] || x.scored()
	}
	for _, some := range scored {
		if !some {
			return true
		}
	}
	return false
}

func (x Sample) scored() bool { return !x.Failed && !math.IsNaN(x.Value) && !math.IsInf(x.Value, 0) }

// importedCell averages the means that another program computed for each seed. Without
// samples there is no interval over seeds; a single one keeps its own.
func importedCell(sets []ScoreSet, wanted int, out Cell) Cell {
	out.Wanted = 0
	for i, set := range sets {
		out.Value += set.Mean / float64(len(sets))
		if i == 0 || set.N < out.N {
			out.N = set.N
		}
		out.Failed += set.Failed
		out.Truncated += set.Truncated
		out.Wanted = max(out.Wanted, set.Wanted)
	}
	out.Incomplete = len(sets) < wanted || out.Wanted > out.N+out.Failed
	if len(sets) == 1 {
		out.Low, out.High = sets[0].Low, sets[0].High
	}
	return out
}

// poolByID averages the scores of each sample over the seeds, ordered by id.
func poolByID(samples []bootstrap.Sample) []bootstrap.Sample {
	slices.SortStableFunc(samples, func(a, b bootstrap.Sample) int { return cmp.Compare(a.ID, b.ID) })
	var out []bootstrap.Sample
	for i := 0; i < len(samples); {
		j, sum := i, 0.0
		for ; j < len(samples) && samples[j].ID == samples[i].ID; j++ {
			sum += samples[j].Score
		}
		out = append(out, bootstrap.Sample{ID: samples[i].ID, Score: sum / float64(j-i)})
		i = j
	}
	return out
}

func scores(samples []bootstrap.Sample) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = s.Score
	}
	return out
}

// Contrast is the difference of two methods in one metric, A minus B.
type Contrast struct {
	Diff float64
	// Low and High bound the difference: the wider, at either end, of the paired
	// bootstrap interval over samples and the t interval over seeds, so that neither an odd sample
	// nor an odd seed passes for an effect. For exact metrics they come from the seeds alone.
	Low, High float64
	// N counts the pairs of samples, PerSeed holds the difference for each common seed.
	N       int
	PerSeed []float64
	Seeds   []int
	// Exact metrics are counted, not estimated.
	Exact bool
	// Few says that there are too few samples for an interval: fewer than MinPairs, or fewer than two of a group. Low and High
	// are then Diff.
	Few bool
	// Identical says that every pair is equal, to the last bit for scores.
	Identical bool
	// Unpaired says why there is no comparison: empty when there is one.
	Unpaired string
}

// MinPairs is how many samples a difference needs to be more than noise: with fewer, even all of them on one side of 0 are
// no rare chance (two-sided sign test: 5 of 5 have p = 0.06, 6 of 6 have 0.03), and resampling so few understates their spread.
const MinPairs = 6

// Differs reports whether the interval excludes 0. Too few samples have none.
func (c Contrast) Differs() bool {
	return c.Unpaired == "" && !c.Few && (c.Low > 0 || c.High < 0)
}

// contrast compares the cells of two methods, which differ in the seed only.
func (s *Study) contrast(m Metric, as, bs []CellData) Contrast {
	if !s.sameHeldOut(m, as, bs) {
		return Contrast{Unpaired: "they were asked different held-out instructions"}
	}
	for _, c := range slices.Concat(as, bs) {
		if by := c.Scores[m.Name].AnsweredBy; by != "" && m.Bucket == nil {
			return Contrast{Unpaired: by + " answered in place of the methods' models"}
		}
	}
	return contrast(m, as, bs, s.Seed, s.Resamples)
}

func contrast(m Metric, as, bs []CellData, seed uint64, resamples int) Contrast {
	var out Contrast
	var diffs []bootstrap.Sample
	seen := map[string]int{}
	exacts := 0
	out.Identical = true
	groups, clusters := groupsOf(m.Name, as), clustersOf(m.Name, as)
	for i := range as {
		j := slices.IndexFunc(bs, func(b CellData) bool { return b.Seed == as[i].Seed })
		if j < 0 {
			continue
		}
		a, b := &as[i], &bs[j]
		if va, ok := m.exact(a); ok {
			if vb, ok := m.exact(b); ok {
				d := va - vb
				if math.Abs(d) <= 1e-9*max(math.Abs(va), math.Abs(vb)) {
					d = 0 // sums taken in another order
				}
				out.Identical = out.Identical && d == 0
				out.PerSeed = append(out.PerSeed, d)
				out.Seeds = append(out.Seeds, a.Seed)
				exacts++
			}
			continue
		}
		sa, _, _ := m.samples(a)
		sb, _, _ := m.samples(b)
		matched, err := bootstrap.Match(sa, sb)
		if err != nil {
			return Contrast{Unpaired: err.Error()}
		}
		if len(matched.IDs) == 0 {
			continue
		}
		var ofSeed []bootstrap.Sample
		for k, id := range matched.IDs {
			d := matched.A[k] - matched.B[k]
			ofSeed = append(ofSeed, bootstrap.Sample{ID: id, Score: d})
			out.Identical = out.Identical && d == 0
			seen[id]++
		}
		diffs = append(diffs, ofSeed...)
		out.PerSeed = append(out.PerSeed, macroMean(ofSeed, groups))
		out.Seeds = append(out.Seeds, a.Seed)
	}
	if len(out.PerSeed) == 0 {
		out.Unpaired, out.Identical = "there are no common seeds with common samples", false
		return out
	}
	ofSeeds, half := seedInterval(out.PerSeed)
	if exacts > 0 {
		out.Exact, out.N = true, exacts
		out.Diff, out.Low, out.High = ofSeeds, ofSeeds-half, ofSeeds+half
		return out
	}
	// A sample that failed under one seed would weigh the seeds unequally: leave it out.
	diffs = slices.DeleteFunc(diffs, func(d bootstrap.Sample) bool { return seen[d.ID] < len(out.PerSeed) })
	if len(diffs) == 0 {
		out.Unpaired = "no sample was scored under every seed"
		return out
	}
	pooled := poolByID(diffs)
	if name := unpairedGroup(pooled, groups); name != "" {
		return Contrast{Unpaired: fmt.Sprintf("%s, over which the mean is taken too, has no sample that both have", name)}
	}
	iv := meanCI(pooled, groups, clusters, seed, resamples)
	out.Diff, out.N = iv.Mean, iv.N
	out.Low, out.High = min(iv.Low, iv.Mean-half), max(iv.High, iv.Mean+half)
	few := out.N < MinPairs
	switch {
	case len(groups) > 0: // of a single sample in a group nobody knows the spread
		few = few || slices.ContainsFunc(grouped(pooled, groups), func(g []float64) bool { return len(g) < 2 })
	case len(clusters) > 0:
		few = len(grouped(pooled, clusters)) < MinPairs
	}
	return out.unless(few)
}

// unless takes the interval away that too few samples do not support.
func (c Contrast) unless(few bool) Contrast {
	if few {
		c.Few, c.Low, c.High = true, c.Diff, c.Diff
	}
	return c
}

// unpairedGroup is the first group, by name, without a sample, "" if every one has some.
func unpairedGroup(samples []bootstrap.Sample, groups map[string]string) string {
	lacking := map[string]bool{}
	for _, g := range groups {
		lacking[g] = true
	}
	for _, x := range samples {
		delete(lacking, groups[x.ID])
	}
	if len(lacking) == 0 {
		return ""
	}
	return slices.Min(slices.Collect(maps.Keys(lacking)))
}

// groupsOf maps samples to their groups; it is empty for scores without groups.
func groupsOf(metric string, cells []CellData) map[string]string {
	return labelsOf(metric, cells, func(s Sample) string { return s.Group })
}

// clustersOf maps samples to their clusters; it is empty for scores without clusters.
func clustersOf(metric string, cells []CellData) map[string]string {
	return labelsOf(metric, cells, func(s Sample) string { return s.Cluster })
}

func labelsOf(metric string, cells []CellData, label func(Sample) string) map[string]string {
	labels := map[string]string{}
	for _, c := range cells {
		for _, s := range c.Scores[metric].Samples {
			if l := label(s); l != "" {
				labels[s.ID] = l
			}
		}
	}
	return labels
}

// meanCI is the mean of samples with its interval, or, with groups, the mean of the groups' means. With clusters, the interval draws
// whole ones.
func meanCI(samples []bootstrap.Sample, groups, clusters map[string]string, seed uint64, resamples int) bootstrap.Interval {
	switch {
	case len(groups) > 0:
		return bootstrap.MacroMeanCI(grouped(samples, groups), seed, resamples)
	case len(clusters) > 0:
		return bootstrap.ClusterMeanCI(grouped(samples, clusters), seed, resamples)
	}
	return bootstrap.MeanCI(scores(samples), seed, resamples)
}

// macroMean is the mean of samples, or, with groups, the mean of the groups' means.
func macroMean(samples []bootstrap.Sample, groups map[string]string) float64 {
	var sum float64
	all := grouped(samples, groups)
	for _, values := range all {
		var of float64
		for _, v := range values {
			of += v
		}
		sum += of / float64(len(values))
	}
	return sum / float64(len(all))
}

// grouped are the scores by group, groups in the order of their names.
func grouped(samples []bootstrap.Sample, groups map[string]string) [][]float64 {
	byGroup := map[string][]float64{}
	for _, s := range samples {
		byGroup[groups[s.ID]] = append(byGroup[groups[s.ID]], s.Score)
	}
	var values [][]float64
	for _, g := range slices.Sorted(maps.Keys(byGroup)) {
		values = append(values, byGroup[g])
	}
	return values
}

// studentT are the 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom.
var studentT = []float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
	2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042}

// seedInterval returns the mean over seeds and the half width of its 95 % t interval; 0
// for a single seed, whose spread nobody knows.
func seedInterval(x []float64) (mean, half float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	if len(x) < 2 {
		return mean, 0
	}
	ss := 0.0
	for _, v := range x {
		ss += (v - mean) * (v - mean)
	}
	t := 1.96
	if df := len(x) - 1; df <= len(studentT) {
		t = studentT[df-1]
	}
	return mean, t * math.Sqrt(ss/float64(len(x)-1)/float64(len(x)))
}

// union appends to a what b has and a lacks.
func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}
