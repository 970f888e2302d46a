package reports

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Correlation holds the rank correlations of two lists of n values.
type Correlation struct {
	N           int     `json:"n"`
	Spearman    float64 `json:"spearman"`
	KendallTauB float64 `json:"kendall_tau_b"`
}

// Correlate returns Spearman's ρ (Pearson's correlation of average ranks) and Kendall's
// τ-b (corrected for ties) of x and y, in O(n log n). Fewer than two values, values that are
// not finite and constant lists are errors: no correlation is defined for them.
func Correlate(x, y []float64) (Correlation, error) {
	if len(x) != len(y) {
		return Correlation{}, fmt.Errorf("correlate: %d and %d values; they must be pairs", len(x), len(y))
	}
	if len(x) < 2 {
		return Correlation{}, fmt.Errorf("correlate: at least two pairs of values are needed, there are %d", len(x))
	}
	for _, side := range []struct {
		name string
		v    []float64
	}{{"first", x}, {"second", y}} {
		constant := true
		for i, v := range side.v {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return Correlation{}, fmt.Errorf("correlate: the %s list's value %d is %v; leave the pair out", side.name, i+1, v)
			}
			constant = constant && v == side.v[0]
		}
		if constant {
			return Correlation{}, fmt.Errorf("correlate: the %s list %w", side.name, &ConstantError{side.v[0]})
		}
	}
	return Correlation{N: len(x), Spearman: pearson(ranks(x), ranks(y)), KendallTauB: kendall(x, y)}, nil
}

// ConstantError says that a list has no ranks to correlate.
type ConstantError struct{ Value float64 }

func (e *ConstantError) Error() string {
	return fmt.Sprintf("is constant (all values are %v): a rank correlation is not defined", e.Value)
}

// ranks gives equal values the mean of the ranks they cover.
func ranks(x []float64) []float64 {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(x[a], x[b]) })
	out := make([]float64, len(x))
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && x[order[j]] == x[order[i]] {
			j++
		}
		for k := i; k < j; k++ {
			out[order[k]] = float64(i+j+1) / 2
		}
		i = j
	}
	return out
}

func pearson(x, y []float64) float64 {
	mx, my := mean(x), mean(y)
	var sxy, sxx, syy float64
	for i := range x {
		dx, dy := x[i]-mx, y[i]-my
		sxy += dx * dy
		sxx += dx * dx
		syy += dy * dy
	}
	return clampUnit(sxy / math.Sqrt(sxx*syy))
}

func mean(x []float64) float64 {
	s := 0.0
	for _, v := range x {
		s += v
	}
	return s / float64(len(x))
}

// kendall is τ-b by Knight's method: sort by (x, y), count the exchanges that a merge
// sort by y needs, and correct for the pairs tied in x, in y and in both.
func kendall(x, y []float64) float64 {
	n := len(x)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(x[a], x[b]), cmp.Compare(y[a], y[b]))
	})
	tiedX := tiedPairs(n, func(i, j int) bool { return x[order[i]] == x[order[j]] })
	tiedBoth := tiedPairs(n, func(i, j int) bool {
		return x[order[i]] == x[order[j]] && y[order[i]] == y[order[j]]
	})
	ys := make([]float64, n)
	for i, o := range order {
		ys[i] = y[o]
	}
	exchanges := mergeCount(ys, make([]float64, n))
	tiedY := tiedPairs(n, func(i, j int) bool { return ys[i] == ys[j] })
	pairs := int64(n) * int64(n-1) / 2
	numerator := float64(pairs - tiedX - tiedY + tiedBoth - 2*exchanges)
	return clampUnit(numerator / math.Sqrt(float64(pairs-tiedX)*float64(pairs-tiedY)))
}

// tiedPairs counts the pairs inside runs of neighbours that equal holds for.
func tiedPairs(n int, equal func(i, j int) bool) int64 {
	var total int64
	run := int64(1)
	for i := 1; i <= n; i++ {
		if i < n && equal(i-1, i) {
			run++
			continue
		}
		total += run * (run - 1) / 2
		run = 1
	}
	return total
}

// mergeCount sorts v and returns the number of pairs that were out of order.
func mergeCount(v, buffer []float64) int64 {
	if len(v) < 2 {
		return 0
	}
	mid := len(v) / 2
	count := mergeCount(v[:mid], buffer[:mid]) + mergeCount(v[mid:], buffer[mid:])
	i, j := 0, mid
	for k := range v {
		if i < mid && (j == len(v) || v[i] <= v[j]) {
			buffer[k] = v[i]
			i++
			continue
		}
		buffer[k] = v[j]
		j++
		count += int64(mid - i)
	}
	copy(v, buffer)
	return count
}

// clampUnit removes the rounding beyond ±1 that perfect agreement can leave.
func clampUnit(v float64) float64 { return math.Max(-1, math.Min(1, v)) }

// correlationInterval is the 95 % percentile bootstrap interval of a statistic of
// pairs; resamples in which it is not defined (constant lists) are left out.
func correlationInterval(x, y []float64, seed uint64, resamples int, of func(Correlation) float64) (low, high float64) {
	if resamples <= 0 {
		resamples = 1000
	}
	rng := rand.New(rand.NewPCG(seed, 0x636f7272656c6174))
	var stats []float64
	a, b := make([]float64, len(x)), make([]float64, len(x))
	for range resamples {
		for i := range a {
			k := rng.IntN(len(x))
			a[i], b[i] = x[k], y[k]
		}
		if c, err := Correlate(a, b); err == nil {
			stats = append(stats, of(c))
		}
	}
	if len(stats) == 0 {
		return 0, 0
	}
	slices.Sort(stats)
	at := func(q float64) float64 { return stats[int(q*float64(len(stats)-1)+0.5)] }
	return at(0.025), at(0.975)
}

// Columns are numbers read from a CSV file, NaN where a field is empty.
type Columns struct {
	Names  []string
	Values [][]float64 // by column, then row
	// Lines are the rows' line numbers, from 1, the header's.
	Lines []int
}

// missing are the spellings of a value that is not there.
var missing = []string{"", "na", "n/a", "nan", "null", "none", "-", "–"}

// ReadColumns reads the named columns of CSV with a header line. Empty fields and the
// usual spellings of a missing value become NaN; anything else that is not a number is an
// error with its line. A name that two columns bear is an error if it is asked for.
func ReadColumns(r io.Reader, names ...string) (*Columns, error) {
	cr := csv.NewReader(r)
	cr.TrimLeadingSpace = true
	header, err := cr.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("csv: the file is empty; the first line must name the columns")
	}
	if err != nil {
		return nil, fmt.Errorf("csv: %w", err)
	}
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	index := make([]int, len(names))
	for i, name := range names {
		if index[i] = slices.Index(header, name); index[i] < 0 {
			return nil, fmt.Errorf("csv: there is no column %q; the file has %s", name, strings.Join(header, ", "))
		}
		if again := slices.Index(header[index[i]+1:], name); again >= 0 {
			return nil, fmt.Errorf("csv: columns %d and %d are both named %q; rename one, so that it is known which is meant", index[i]+1, index[i]+again+2, name)
		}
	}
	out := &Columns{Names: slices.Clone(names), Values: make([][]float64, len(names))}
	for {
		rec, err := cr.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("csv: %w", err)
		}
		line, _ := cr.FieldPos(0)
		for i, at := range index {
			field := strings.TrimSpace(rec[at])
			v := math.NaN()
			if !slices.Contains(missing, strings.ToLower(field)) {
				if v, err = strconv.ParseFloat(field, 64); err != nil || math.IsInf(v, 0) {
					return nil, fmt.Errorf("csv: line %d, column %q: %q is not a finite number", line, names[i], field)
				}
			}
			out.Values[i] = append(out.Values[i], v)
		}
		out.Lines = append(out.Lines, line)
	}
	if len(out.Lines) == 0 {
		return nil, errors.New("csv: there are no rows below the header")
	}
	return out, nil
}

// Pairs returns columns i and j without the rows in which either is missing, and the
// lines of those rows.
func (c *Columns) Pairs(i, j int) (x, y []float64, skipped []int) {
	for k := range c.Lines {
		a, b := c.Values[i][k], c.Values[j][k]
		if math.IsNaN(a) || math.IsNaN(b) {
			skipped = append(skipped, c.Lines[k])
			continue
		}
		x = append(x, a)
		y = append(y, b)
	}
	return x, y, skipped
}
