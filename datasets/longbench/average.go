package longbench

import "math"

// Average is the unweighted mean of dataset scores, in percent.
type Average struct {
	Name              string
	Compat, Corrected float64
	// Datasets were averaged, Missing were not there or have no score. With
	// missing datasets the average is incomplete and not comparable with others.
	Datasets, Missing int
}

// Averages are the means a report prints.
type Averages struct {
	// Categories are in the benchmark's order, over both languages.
	Categories []Average
	// Languages are English and Chinese. Code counts for both.
	Languages []Average
	Overall   Average
	// Buckets are the length buckets of LongBench-E, over all its datasets.
	Buckets []Average
}

// Averages computes all means of a report.
func (r *Report) Averages() Averages {
	var a Averages
	for _, c := range []Category{SingleDocQA, MultiDocQA, Summarization, FewShot, Synthetic, Code} {
		a.Categories = append(a.Categories, r.average(string(c), func(d Dataset) bool { return d.Category == c }))
	}
	for _, l := range []Language{English, Chinese} {
		if r.Benchmark == LongBenchE && l == Chinese {
			continue // LongBench-E has no Chinese datasets
		}
		a.Languages = append(a.Languages, r.average(string(l), func(d Dataset) bool { return d.Language == l || d.Language == CodeLanguage }))
	}
	a.Overall = r.average("overall", func(Dataset) bool { return true })
	if r.Benchmark == LongBenchE {
		for _, b := range Buckets() {
			a.Buckets = append(a.Buckets, r.mean(string(b), func(Dataset) bool { return true },
				func(res *Result) (float64, float64) { s := res.ByBucket[b]; return s.Compat, s.Corrected }))
		}
	}
	return a
}

func (r *Report) average(name string, in func(Dataset) bool) Average {
	return r.mean(name, in, func(res *Result) (float64, float64) { return res.Compat, res.Corrected })
}

func (r *Report) mean(name string, in func(Dataset) bool, score func(*Result) (compat, corrected float64)) Average {
	a := Average{Name: name}
	byName := map[string]*Result{}
	for i := range r.Results {
		byName[r.Results[i].Dataset.Name] = &r.Results[i]
	}
	for _, d := range Datasets(r.Benchmark) {
		if !in(d) {
			continue
		}
		res, ok := byName[d.Name]
		if !ok {
			a.Missing++
			continue
		}
		compat, corrected := score(res)
		if math.IsNaN(compat) || math.IsNaN(corrected) {
			a.Missing++
			continue
		}
		a.Datasets++
		a.Compat += compat
		a.Corrected += corrected
	}
	return a.divided(a.Datasets)
}

// divided turns sums into means; of nothing the mean is NaN.
func (a Average) divided(n int) Average {
	a.Compat /= float64(n)
	a.Corrected /= float64(n)
	return a
}
