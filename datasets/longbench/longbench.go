// Package longbench is the LongBench benchmark (arXiv 2308.14508): its 21
// datasets and the 13 of LongBench-E, their inputs, prompts and metrics.
//
// Order: inputs (inputs.go) → prompts (prompts.go) → a model's predictions
// (predictions.go) → scores (score.go) → averages (average.go).
//
// Scores are fractions of 1 per sample and percentages per dataset. Score
// reproduces the reference scorer bit for bit where it can be observed, defects
// included ("compat"); the corrected score stands beside it, with what differs
// and why (corrections.go). Lengths are the benchmark's: words, or characters for
// Chinese; lengths of prompts are tokens.
//
// The package performs no network I/O. The benchmark's texts and prompts are its
// own files, given by the user.
package longbench

import (
	"fmt"
	"slices"
	"strings"
)

// Benchmark is one of the two suites.
type Benchmark string

// The suites.
const (
	LongBench  Benchmark = "longbench"
	LongBenchE Benchmark = "longbench-e"
)

// ParseBenchmark returns the suite named s.
func ParseBenchmark(s string) (Benchmark, error) {
	switch b := Benchmark(s); b {
	case LongBench, LongBenchE:
		return b, nil
	}
	return "", fmt.Errorf("benchmark %q is not known; use %s or %s", s, LongBench, LongBenchE)
}

// Category is a kind of task, over which the benchmark averages.
type Category string

// The benchmark's six categories, in its order.
const (
	SingleDocQA   Category = "single-doc QA"
	MultiDocQA    Category = "multi-doc QA"
	Summarization Category = "summarization"
	FewShot       Category = "few-shot learning"
	Synthetic     Category = "synthetic tasks"
	Code          Category = "code completion"
)

// Language is a dataset's language.
type Language string

// The benchmark's languages. Code counts for both others in averages.
const (
	English      Language = "en"
	Chinese      Language = "zh"
	CodeLanguage Language = "code"
)

// Dataset describes one dataset of the benchmark.
type Dataset struct {
	Name     string
	Category Category
	Language Language
	Metric   Metric
	// Rows is the number of samples in LongBench, RowsE in LongBench-E; 0 where
	// the dataset is not part of it.
	Rows, RowsE int
	// Completion marks datasets whose prompt goes to the model as it is, without
	// a chat template: few-shot and code tasks.
	Completion bool
	// FirstLine marks datasets of whose prediction only the first line counts.
	FirstLine bool
	// StopAtNewline ends generation at the first line break.
	StopAtNewline bool
}

// NeedsJieba reports whether scoring the dataset needs jieba's dictionary.
func (d Dataset) NeedsJieba() bool { return d.Metric == QAF1Chinese || d.Metric == RougeLChinese }

// RowsIn is the number of samples of d in b, 0 if it is not part of it.
func (d Dataset) RowsIn(b Benchmark) int {
	if b == LongBenchE {
		return d.RowsE
	}
	return d.Rows
}

// BucketRows is the number of the dataset's samples in a length bucket of LongBench-E, 0 if it is not part of it: 100 or what there was
// of such lengths, counted in the benchmark's files.
func (d Dataset) BucketRows(b Bucket) int {
	i := slices.Index(Buckets(), b)
	if i < 0 || d.RowsE == 0 {
		return 0
	}
	switch d.Name {
	case "qasper":
		return [...]int{100, 100, 24}[i]
	case "multifieldqa_en":
		return [...]int{67, 70, 13}[i]
	case "multi_news":
		return [...]int{100, 100, 94}[i]
	}
	return 100
}

var datasets = []Dataset{
	{Name: "narrativeqa", Category: SingleDocQA, Language: English, Metric: QAF1, Rows: 200},
	{Name: "qasper", Category: SingleDocQA, Language: English, Metric: QAF1, Rows: 200, RowsE: 224},
	{Name: "multifieldqa_en", Category: SingleDocQA, Language: English, Metric: QAF1, Rows: 150, RowsE: 150},
	{Name: "multifieldqa_zh", Category: SingleDocQA, Language: Chinese, Metric: QAF1Chinese, Rows: 200},
	{Name: "hotpotqa", Category: MultiDocQA, Language: English, Metric: QAF1, Rows: 200, RowsE: 300},
	{Name: "2wikimqa", Category: MultiDocQA, Language: English, Metric: QAF1, Rows: 200, RowsE: 300},
	{Name: "musique", Category: MultiDocQA, Language: English, Metric: QAF1, Rows: 200},
	{Name: "dureader", Category: MultiDocQA, Language: Chinese, Metric: RougeLChinese, Rows: 200},
	{Name: "gov_report", Category: Summarization, Language: English, Metric: RougeL, Rows: 200, RowsE: 300},
	{Name: "qmsum", Category: Summarization, Language: English, Metric: RougeL, Rows: 200},
	{Name: "multi_news", Category: Summarization, Language: English, Metric: RougeL, Rows: 200, RowsE: 294},
	{Name: "vcsum", Category: Summarization, Language: Chinese, Metric: RougeLChinese, Rows: 200},
	{Name: "trec", Category: FewShot, Language: English, Metric: Classification, Rows: 200, RowsE: 300, Completion: true, FirstLine: true},
	{Name: "triviaqa", Category: FewShot, Language: English, Metric: QAF1, Rows: 200, RowsE: 300, Completion: true, FirstLine: true},
	{Name: "samsum", Category: FewShot, Language: English, Metric: RougeL, Rows: 200, RowsE: 300, Completion: true, FirstLine: true, StopAtNewline: true},
	{Name: "lsht", Category: FewShot, Language: Chinese, Metric: Classification, Rows: 200, Completion: true, FirstLine: true},
	{Name: "passage_count", Category: Synthetic, Language: English, Metric: Count, Rows: 200, RowsE: 300},
	{Name: "passage_retrieval_en", Category: Synthetic, Language: English, Metric: Retrieval, Rows: 200, RowsE: 300},
	{Name: "passage_retrieval_zh", Category: Synthetic, Language: Chinese, Metric: RetrievalChinese, Rows: 200},
	{Name: "lcc", Category: Code, Language: CodeLanguage, Metric: CodeSimilarity, Rows: 500, RowsE: 300, Completion: true},
	{Name: "repobench-p", Category: Code, Language: CodeLanguage, Metric: CodeSimilarity, Rows: 500, RowsE: 300, Completion: true},
}

// Datasets returns the datasets of b in the benchmark's order.
func Datasets(b Benchmark) []Dataset {
	return slices.DeleteFunc(slices.Clone(datasets), func(d Dataset) bool { return d.RowsIn(b) == 0 })
}

// Lookup returns the dataset of b with the given name; the benchmark's own name
// of a LongBench-E file, such as "qasper_e", is understood as well.
func Lookup(b Benchmark, name string) (Dataset, error) {
	if b == LongBenchE {
		name = strings.TrimSuffix(name, "_e")
	}
	var known []string
	for _, d := range Datasets(b) {
		if d.Name == name {
			return d, nil
		}
		known = append(known, d.Name)
	}
	return Dataset{}, fmt.Errorf("dataset %q is not part of %s, which has %s", name, b, strings.Join(known, ", "))
}
