package activities

import (
	"math"
	"slices"
	"sync"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/longbench"
	"github.com/longalign/longalign-go/datasets/longbench/jieba"
	"github.com/longalign/longalign-go/datasets/longbenchchat"
	"github.com/longalign/longalign-go/reports"
	"github.com/longalign/longalign-go/reports/paper"
)

// loadedJieba is jieba's dictionary, kept because loading takes a second. One that was not found is looked for again: it may be fetched
// while the worker runs.
var loadedJieba struct {
	sync.Mutex
	words *jieba.Dictionary
}

func openJieba() (*jieba.Dictionary, error) {
	loadedJieba.Lock()
	defer loadedJieba.Unlock()
	if loadedJieba.words != nil {
		return loadedJieba.words, nil
	}
	words, err := jieba.Open("")
	if err == nil {
		loadedJieba.words = words
	}
	return words, err
}

// wantedDatasets are those of LongBench that were asked for.
func wantedDatasets(p datasets.BenchmarkScoresParams) []longbench.Dataset {
	if p.Benchmark != datasets.BenchmarkLongBench && p.Benchmark != datasets.BenchmarkLongBenchE {
		return nil
	}
	all := longbench.Datasets(suite(p.Benchmark))
	if len(p.Datasets) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(d longbench.Dataset) bool {
		return !slices.ContainsFunc(p.Datasets, func(name string) bool {
			w, err := longbench.Lookup(suite(p.Benchmark), name)
			return err == nil && w.Name == d.Name
		})
	})
}

// predictionRows are a dataset's answers as LongBench's scorer reads them. Samples are matched by ID.
func (s *benchmarkScores) predictionRows(dataset string) []longbench.Prediction {
	var rows []longbench.Prediction
	for i, r := range s.references[dataset] {
		sample, a := s.sample(r)
		length := r.Length
		row := longbench.Prediction{ID: r.ID, Answers: r.Answers, AllClasses: r.AllClasses, Length: &length, Failed: a.Failed, Truncated: sample.Truncated, Line: i + 1}
		if a.Failed == "" {
			row.Pred = a.Texts[0]
		}
		rows = append(rows, row)
	}
	return rows
}

// longBench scores all datasets, their averages, and the leaderboard's rows among them.
func (s *benchmarkScores) longBench() error {
	b := suite(s.p.Benchmark)
	results := map[string]longbench.Result{}
	for _, d := range wantedDatasets(s.p) {
		rows := s.predictionRows(d.Name)
		if len(rows) == 0 {
			continue
		}
		var words *jieba.Dictionary
		if d.NeedsJieba() {
			var err error
			if words, err = openJieba(); err != nil {
				return badConfig("%w", err)
			}
			if !words.Standard() {
				s.j.note("jieba's dictionary is not that of version 0.42.1: Chinese scores are not comparable with published ones")
			}
		}
		result, err := longbench.Score(b, d, rows, words)
		if err != nil {
			return badData("%w", err)
		}
		results[d.Name] = result
		wanted, marks := s.wanted(d.RowsIn(b))
		s.explain(&result)
		for _, v := range longBenchVariants {
			marks := unionOf(marks, reasons(&result, v))
			s.set(longBenchMetric(b, d.Name, v), samplesOf(&result, v, nil), wanted, marks)
			if b != longbench.LongBenchE {
				continue
			}
			for _, bucket := range longbench.Buckets() {
				in := func(x longbench.Sample) bool { return x.Bucket == bucket }
				if samples := samplesOf(&result, v, in); len(samples) > 0 {
					s.set(longBenchMetric(b, d.Name+":"+string(bucket), v), samples, s.wantedIn(d, bucket), marks)
				}
			}
		}
	}
	s.averages(b, results)
	if b == longbench.LongBench {
		for _, name := range longbench.LeaderboardDatasets() {
			if d, err := longbench.Lookup(b, name); err == nil && len(s.references[name]) > 0 {
				s.leaderboard(name, d.Rows)
			}
		}
	}
	if s.judge != nil {
		s.judgedLongBench(b)
	}
	return nil
}

// wantedIn is how many of a dataset's rows there should be in a bucket of LongBench-E. Of how many of the first rows are in it, only the
// file tells: rows that are missing could be in any bucket, and so make each incomplete.
func (s *benchmarkScores) wantedIn(d longbench.Dataset, bucket longbench.Bucket) int {
	n, marks := s.wanted(d.RowsE)
	if marks == nil {
		return d.BucketRows(bucket)
	}
	return s.wantedOf(s.references[d.Name], n, func(r datasets.Reference) bool { return longbench.BucketOf(r.Length) == bucket })
}

// longBenchVariants are the compatible score and the one without the reference scorer's defects.
var longBenchVariants = []string{"", ":corrected"}

func longBenchMetric(b longbench.Benchmark, name, variant string) string {
	return string(b) + ":" + name + variant
}

// reasons are the footnotes of corrected scores: the corrections that changed any of them.
func reasons(r *longbench.Result, variant string) []string {
	var marks []string
	for _, c := range longbench.Corrections() {
		if variant != "" && slices.ContainsFunc(r.Samples, func(x longbench.Sample) bool { return x.Reason == c }) {
			marks = append(marks, string(c))
		}
	}
	return marks
}

// explain notes by how much the corrected scores of a dataset differ from the compatible ones, and why.
func (s *benchmarkScores) explain(r *longbench.Result) {
	for _, c := range longbench.Corrections() {
		n := 0
		for _, x := range r.Samples {
			if x.Reason == c {
				n++
			}
		}
		if n > 0 {
			s.j.note("%s is %.2f as the original scores it and %.2f corrected: %d samples differ (%s: %s)", r.Dataset.Name, r.Compat, r.Corrected, n, c, c.Explain())
		}
	}
}

// samplesOf are the samples of one dataset that in accepts, in percent.
func samplesOf(r *longbench.Result, variant string, in func(longbench.Sample) bool) []reports.Sample {
	var out []reports.Sample
	for _, x := range r.Samples {
		if in != nil && !in(x) {
			continue
		}
		v := x.Compat
		if variant != "" {
			v = x.Corrected
		}
		sample := reports.Sample{ID: x.ID, Failed: x.Failed, Truncated: x.Truncated}
		if !x.Failed {
			sample.Value = 100 * v
		}
		if !math.IsNaN(v) { // a repeated row has no corrected score
			out = append(out, sample)
		}
	}
	return out
}

// averages are the benchmark's means over datasets: every dataset counts alike, whatever its number of samples.
func (s *benchmarkScores) averages(b longbench.Benchmark, results map[string]longbench.Result) {
	add := func(name string, in func(longbench.Dataset) bool, bucket longbench.Bucket) {
		for _, variant := range longBenchVariants {
			var samples []reports.Sample
			var marks []string
			wanted := 0
			for _, d := range longbench.Datasets(b) {
				if !in(d) {
					continue
				}
				n, m := s.wanted(d.RowsIn(b))
				if bucket != "" {
					n = s.wantedIn(d, bucket)
				}
				wanted += n
				if r, ok := results[d.Name]; ok {
					marks = unionOf(unionOf(marks, m), reasons(&r, variant))
					for _, x := range samplesOf(&r, variant, func(x longbench.Sample) bool { return bucket == "" || x.Bucket == bucket }) {
						x.Group = d.Name
						samples = append(samples, x)
					}
				}
			}
			if len(samples) == 0 {
				continue
			}
			s.set(longBenchMetric(b, name, variant), samples, wanted, marks)
			if name == "overall" && b == longbench.LongBench && variant == "" {
				s.set("LongBench Overall Average Score", samples, wanted, marks)
			}
		}
	}
	for _, c := range longBenchCategories {
		add(string(c), func(d longbench.Dataset) bool { return d.Category == c }, "")
	}
	languages := []longbench.Language{longbench.English, longbench.Chinese}
	if b == longbench.LongBenchE { // it has no Chinese datasets: code alone would make that row
		languages = languages[:1]
	}
	for _, l := range languages {
		add(string(l), func(d longbench.Dataset) bool { return d.Language == l || d.Language == longbench.CodeLanguage }, "")
	}
	all := func(longbench.Dataset) bool { return true }
	add("overall", all, "")
	if b == longbench.LongBenchE {
		for _, bucket := range longbench.Buckets() {
			add("overall:"+string(bucket), all, bucket)
		}
	}
}

var longBenchCategories = []longbench.Category{longbench.SingleDocQA, longbench.MultiDocQA, longbench.Summarization, longbench.FewShot, longbench.Synthetic, longbench.Code}

// judgedLongBench are the paper's columns: ratings of answers to questions and of summaries, mapped to 0 to 100.
func (s *benchmarkScores) judgedLongBench(b longbench.Benchmark) {
	for _, column := range []struct {
		name     string
		category longbench.Category
	}{{paper.SingleDocQA, longbench.SingleDocQA}, {paper.MultiDocQA, longbench.MultiDocQA}, {paper.Summary, longbench.Summarization}} {
		scale, err := longbenchchat.ScaleOf(column.category)
		if err != nil {
			continue
		}
		var samples []reports.Sample
		marks := s.judgeMarks()
		wanted := 0
		for _, d := range longbench.Datasets(b) {
			if d.Category != column.category {
				continue
			}
			n, m := s.wanted(d.RowsIn(b))
			wanted += n
			rated := s.rated(s.references[d.Name], 0, scale.Percent)
			if len(rated) == 0 {
				continue
			}
			marks = unionOf(marks, m)
			s.set(longBenchMetric(b, d.Name, ":judged"), rated, n, unionOf(s.judgeMarks(), m))
			for _, x := range slices.Clone(rated) {
				x.Group = d.Name
				samples = append(samples, x)
			}
		}
		if len(samples) > 0 && b == longbench.LongBench {
			s.set(column.name, samples, wanted, marks)
			s.scores.Judged = append(s.scores.Judged, column.name)
		}
	}
	for name := range s.scores.Metrics {
		if b := len(name) - len(":judged"); b > 0 && name[b:] == ":judged" {
			s.scores.Judged = append(s.scores.Judged, name)
		}
	}
	slices.Sort(s.scores.Judged)
}

// leaderboardNames are the leaderboard's names of datasets.
var leaderboardNames = map[string]string{
	"multifieldqa_en": "MFQA en", longbench.EnQA: "En.QA", "narrativeqa": "NarrativeQA", "2wikimqa": "2WikiMQA", "musique": "MuSiQue",
}

// leaderboard scores one dataset as the leaderboard's rows want it.
func (s *benchmarkScores) leaderboard(dataset string, rows int) {
	var subEM, f1 []reports.Sample
	for _, r := range s.references[dataset] {
		sample, a := s.sample(r)
		x, y := sample, sample
		if !sample.Failed {
			x.Value, y.Value = 100*longbench.SubEM(a.Texts[0], r.Answers), 100*longbench.AnswerF1(a.Texts[0], r.Answers)
		}
		subEM, f1 = append(subEM, x), append(f1, y)
	}
	wanted, marks := s.wanted(rows)
	s.set(leaderboardNames[dataset]+" "+metricSubEM, subEM, wanted, marks)
	s.set(leaderboardNames[dataset]+" "+metricF1Score, f1, wanted, marks)
}
