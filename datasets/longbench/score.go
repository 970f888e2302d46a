package longbench

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/longalign/longalign-go/datasets/longbench/jieba"
	"github.com/longalign/longalign-go/datasets/longbench/pytext"
)

// Sample is the score of one prediction: its best over the gold answers.
type Sample struct {
	ID   string
	Line int
	// Compat is the reference scorer's score, Corrected the one without its
	// defects; both are fractions of 1.
	Compat, Corrected float64
	// Reason names the correction where the two differ.
	Reason Correction
	// Bucket is the sample's length bucket in LongBench-E.
	Bucket    Bucket
	Truncated bool
	// Failed samples have no prediction and count in no score.
	Failed bool
}

// Bucket is a range of input lengths in LongBench-E.
type Bucket string

// The buckets of LongBench-E, in the order of its result.json.
const (
	Short  Bucket = "0-4k"
	Medium Bucket = "4-8k"
	Long   Bucket = "8k+"
)

// Buckets lists the buckets in order.
func Buckets() []Bucket { return []Bucket{Short, Medium, Long} }

// BucketOf is the bucket of an input of the given length.
func BucketOf(length int) Bucket {
	switch {
	case length < 4000:
		return Short
	case length < 8000:
		return Medium
	}
	return Long
}

// Result is one dataset's scores, in percent.
type Result struct {
	Dataset   Dataset
	Benchmark Benchmark
	// Compat equals the reference's result.json; Corrected is the mean without its
	// defects. Both are rounded to two decimals. In LongBench-E they are the means over
	// the whole dataset, which result.json does not have; the buckets are in ByBucket.
	Compat, Corrected float64
	// ByBucket is filled for LongBench-E; the value of an empty bucket is NaN.
	ByBucket map[Bucket]BucketScore
	Samples  []Sample
	// N samples have a score, Failed have none, Truncated did not fit the window.
	N, Failed, Truncated int
	// Warnings tell what makes the result incomplete or suspicious.
	Warnings []string
}

// BucketScore is the score of one length bucket, in percent.
type BucketScore struct {
	Compat, Corrected float64
	N                 int
}

// Score scores the rows of one dataset. words may be nil where d needs no Chinese
// dictionary. Rows must not be empty.
func Score(b Benchmark, d Dataset, rows []Prediction, words *jieba.Dictionary) (Result, error) {
	if d.NeedsJieba() && words == nil {
		return Result{}, fmt.Errorf("%s: %w", d.Name, errNoJieba)
	}
	if len(rows) == 0 {
		return Result{}, fmt.Errorf("%s has no rows to score", d.Name)
	}
	res := Result{Dataset: d, Benchmark: b, Samples: make([]Sample, 0, len(rows))}
	s := scorer{words: words}
	lastClasses := rows[len(rows)-1].AllClasses
	for i := range rows {
		sample, err := s.sample(b, d, &rows[i], lastClasses)
		if err != nil {
			return Result{}, &RowError{File: d.Name, Line: rows[i].Line, Err: err}
		}
		res.Samples = append(res.Samples, sample)
	}
	res.dropDuplicates()
	res.summarize()
	return res, nil
}

func (s *scorer) sample(b Benchmark, d Dataset, row *Prediction, lastClasses []string) (Sample, error) {
	out := Sample{ID: row.ID, Line: row.Line, Truncated: row.Truncated, Failed: row.Failed != ""}
	if b == LongBenchE {
		if row.Length == nil {
			return out, fmt.Errorf(`no "length", by which %s groups samples`, b)
		}
		out.Bucket = BucketOf(*row.Length)
	}
	if out.Failed {
		return out, nil
	}
	if d.Metric == Classification && (lastClasses == nil || row.AllClasses == nil) {
		return out, fmt.Errorf(`no "all_classes", which %s needs`, d.Name)
	}
	prediction := row.Pred
	if d.FirstLine {
		prediction = pytext.FirstLine(prediction)
	}
	reason := Correction("")
	for _, answer := range row.Answers {
		score, err := s.compare(d.Metric, prediction, answer, lastClasses, row.AllClasses)
		if err != nil {
			return out, err
		}
		if score.compat != score.corrected {
			reason = score.reason
		}
		out.Compat = max(out.Compat, score.compat)
		out.Corrected = max(out.Corrected, score.corrected)
	}
	if out.Compat != out.Corrected {
		out.Reason = reason
	}
	return out, nil
}

// dropDuplicates takes repeated ids out of the corrected score.
func (r *Result) dropDuplicates() {
	seen := map[string]int{}
	repeated := 0
	for i := range r.Samples {
		s := &r.Samples[i]
		if s.ID == "" {
			continue
		}
		if first, ok := seen[s.ID]; ok {
			if repeated == 0 {
				r.warn("lines %d and %d both have _id %s", first, s.Line, s.ID)
			}
			repeated++
			s.Corrected, s.Reason = math.NaN(), DuplicateRow
			continue
		}
		seen[s.ID] = s.Line
	}
	if repeated > 0 {
		r.warn("%d duplicate rows; was the file appended to by a second run?", repeated)
	}
}

func (r *Result) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, r.Dataset.Name+": "+fmt.Sprintf(format, args...))
}

func (r *Result) summarize() {
	want := r.Dataset.RowsIn(r.Benchmark)
	if n := len(r.Samples); n != want {
		hint := ""
		if want > 0 && n > want {
			hint = "; was the file appended to by a second run?"
		}
		r.warn("%d rows, %s has %d%s", n, r.Benchmark, want, hint)
	}
	for _, s := range r.Samples {
		switch {
		case s.Failed:
			r.Failed++
		default:
			r.N++
		}
		if s.Truncated {
			r.Truncated++
		}
	}
	if r.Failed > 0 {
		r.warn("%d samples failed and count in no score", r.Failed)
	}
	r.Compat = percent(r.compat(""))
	r.Corrected = percent(r.corrected(""))
	if r.Benchmark != LongBenchE {
		return
	}
	r.ByBucket = map[Bucket]BucketScore{}
	for _, b := range Buckets() {
		compat := r.compat(b)
		r.ByBucket[b] = BucketScore{Compat: meanPercent(compat), Corrected: meanPercent(r.corrected(b)), N: len(compat)}
	}
}

// compat lists the scores of a bucket, of all samples for "".
func (r *Result) compat(b Bucket) []float64 {
	var x []float64
	for _, s := range r.Samples {
		if !s.Failed && (b == "" || s.Bucket == b) {
			x = append(x, s.Compat)
		}
	}
	return x
}

func (r *Result) corrected(b Bucket) []float64 {
	var x []float64
	for _, s := range r.Samples {
		if !s.Failed && (b == "" || s.Bucket == b) && !math.IsNaN(s.Corrected) {
			x = append(x, s.Corrected)
		}
	}
	return x
}

// percent is round(100 * sum(x) / len(x), 2), summing in order.
func percent(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v
	}
	return round2(100 * sum / float64(len(x)))
}

// meanPercent is round(100 * numpy.mean(x), 2).
func meanPercent(x []float64) float64 {
	return math.RoundToEven(100*(pairwiseSum(x)/float64(len(x)))*100) / 100
}

// pairwiseSum adds in NumPy's order: eight partial sums in blocks of up to 128,
// halves beyond that.
func pairwiseSum(x []float64) float64 {
	n := len(x)
	switch {
	case n < 8:
		var sum float64
		for _, v := range x {
			sum += v
		}
		return sum
	case n <= 128:
		var r [8]float64
		copy(r[:], x)
		i := 8
		for ; i+8 <= n; i += 8 {
			for k := range r {
				r[k] += x[i+k]
			}
		}
		sum := ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
		for _, v := range x[i:] {
			sum += v
		}
		return sum
	}
	half := n / 2
	half -= half % 8
	return pairwiseSum(x[:half]) + pairwiseSum(x[half:])
}

// round2 is Python's round(x, 2): the exact binary value to two decimals, which
// strconv rounds correctly.
func round2(x float64) float64 {
	v, err := strconv.ParseFloat(strconv.FormatFloat(x, 'f', 2, 64), 64)
	if err != nil {
		return x
	}
	return v
}

// CompatJSON is the dataset's entry in the reference's result.json: a number, or
// an object by bucket in LongBench-E, where an empty bucket is null.
func (r *Result) CompatJSON() any {
	return r.json(r.Compat, func(s BucketScore) float64 { return s.Compat })
}

// CorrectedJSON is the same shape with corrected scores.
func (r *Result) CorrectedJSON() any {
	return r.json(r.Corrected, func(s BucketScore) float64 { return s.Corrected })
}

func (r *Result) json(whole float64, of func(BucketScore) float64) any {
	if r.Benchmark != LongBenchE {
		return number(whole)
	}
	var m bucketObject
	for i, b := range Buckets() {
		m[i] = number(of(r.ByBucket[b]))
	}
	return m
}

// bucketObject keeps the buckets' order, which a map would not.
type bucketObject [3]any

func (o bucketObject) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, b := range Buckets() {
		v, err := json.Marshal(o[i])
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(strconv.AppendQuote(out, string(b)), ':'), v...)
	}
	return append(out, '}'), nil
}

// number is v, or nil where there is no score.
func number(v float64) any {
	if math.IsNaN(v) {
		return nil
	}
	return v
}
