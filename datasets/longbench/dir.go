package longbench

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/longalign/longalign-go/datasets/longbench/jieba"
)

// Report is the scores of all prediction files of one model.
type Report struct {
	Benchmark Benchmark
	// Results are in the benchmark's order.
	Results []Result
	// Missing names the datasets that have no file.
	Missing []string
}

// Warnings lists what is incomplete or suspicious, missing files included.
func (r *Report) Warnings() []string {
	var all []string
	if len(r.Missing) > 0 {
		all = append(all, fmt.Sprintf("no predictions for %s: averages over them are incomplete", strings.Join(r.Missing, ", ")))
	}
	for _, res := range r.Results {
		all = append(all, res.Warnings...)
	}
	return all
}

// ScoreDir scores every NAME.jsonl of fsys, a model's directory as the reference
// writes it, in parallel. openJieba is called once, and only if a Chinese dataset
// is there. A file that is no dataset of the benchmark is an error.
func ScoreDir(b Benchmark, fsys fs.FS, openJieba func() (*jieba.Dictionary, error)) (*Report, error) {
	files, err := predictionFiles(b, fsys)
	if err != nil {
		return nil, err
	}
	words := sync.OnceValues(openJieba)
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	if slices.ContainsFunc(files, func(f predictionFile) bool { return f.dataset.NeedsJieba() }) {
		work.Go(func() error { // others are scored while it loads
			_, err := words()
			return err
		})
	}
	results := make([]Result, len(files))
	for _, i := range byCost(files) {
		work.Go(func() error {
			f := files[i]
			rows, err := readFile(fsys, f)
			if err != nil {
				return err
			}
			var dict *jieba.Dictionary
			if f.dataset.NeedsJieba() {
				if dict, err = words(); err != nil {
					return err
				}
			}
			results[i], err = Score(b, f.dataset, rows, dict)
			var bad *RowError
			if errors.As(err, &bad) {
				bad.File = f.name
			}
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	report := &Report{Benchmark: b, Results: results}
	for _, d := range Datasets(b) {
		if !slices.ContainsFunc(files, func(f predictionFile) bool { return f.dataset.Name == d.Name }) {
			report.Missing = append(report.Missing, d.Name)
		}
	}
	return report, nil
}

type predictionFile struct {
	name    string
	dataset Dataset
	size    int64
}

// predictionFiles lists the files to score in the benchmark's order.
func predictionFiles(b Benchmark, fsys fs.FS) ([]predictionFile, error) {
	names, err := fs.Glob(fsys, "*.jsonl")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no *.jsonl predictions; %s expects one file a dataset, such as %s.jsonl", b, Datasets(b)[0].Name)
	}
	var files []predictionFile
	for _, name := range names {
		d, err := Lookup(b, strings.TrimSuffix(path.Base(name), ".jsonl"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if other := slices.IndexFunc(files, func(f predictionFile) bool { return f.dataset.Name == d.Name }); other >= 0 {
			return nil, fmt.Errorf("%s and %s are both dataset %s; keep one", files[other].name, name, d.Name)
		}
		info, err := fs.Stat(fsys, name)
		if err != nil {
			return nil, err
		}
		files = append(files, predictionFile{name, d, info.Size()})
	}
	order := map[string]int{}
	for i, d := range Datasets(b) {
		order[d.Name] = i
	}
	slices.SortFunc(files, func(x, y predictionFile) int { return order[x.dataset.Name] - order[y.dataset.Name] })
	return files, nil
}

// byCost orders files so that parallel work ends together: the large ones first,
// those that wait for jieba after them.
func byCost(files []predictionFile) []int {
	order := make([]int, len(files))
	for i := range order {
		order[i] = i
	}
	waits := func(i int) int {
		if files[i].dataset.NeedsJieba() {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(order, func(i, j int) int {
		return cmp.Or(waits(i)-waits(j), cmp.Compare(files[j].size, files[i].size))
	})
	return order
}

func readFile(fsys fs.FS, f predictionFile) ([]Prediction, error) {
	file, err := fsys.Open(f.name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return ReadPredictions(file, f.name, f.dataset)
}
