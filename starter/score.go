package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/datasets/longbench"
	"github.com/longalign/longalign-go/datasets/longbench/jieba"
)

// newScoreCommand scores a directory of LongBench predictions.
func newScoreCommand() *cobra.Command {
	var (
		benchmark, predictions, jiebaDir string
		perSample, corrected, averages   bool
	)
	cmd := &cobra.Command{
		Use:   "score --benchmark longbench|longbench-e --predictions DIR",
		Short: "Score LongBench predictions as the benchmark's own scorer does",
		Long: `Score reads DIR/DATASET.jsonl, prediction files as LongBench writes them, and prints
the scores as LongBench's result.json, to the digit:

  {"narrativeqa":18.99,"qasper":21.82,…}

and {"qasper":{"0-4k":15.94,"4-8k":16.07,"8k+":19.47},…} for LongBench-E (null for a bucket
without samples). What is incomplete or suspicious about the files (missing datasets, wrong
numbers of rows, duplicates) is told on standard error.

Chinese datasets need jieba's dictionary: --jieba, else LONGALIGN_JIEBA, else what
"starter fetch jieba" put into the user's cache, else an installed Python jieba.`,
		Example: `  starter score --benchmark longbench --predictions pred/my-model
  starter score --benchmark longbench --predictions pred/my-model --corrected
  starter score --benchmark longbench --predictions pred/my-model --averages`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := longbench.ParseBenchmark(benchmark)
			if err != nil {
				return usageError{fmt.Errorf("score: %w", err)}
			}
			if info, err := os.Stat(predictions); err != nil {
				return fmt.Errorf("score: %w", err)
			} else if !info.IsDir() {
				return fmt.Errorf("score: %s is a file; --predictions names the directory that holds one file a dataset", predictions)
			}
			report, err := longbench.ScoreDir(b, os.DirFS(predictions), func() (*jieba.Dictionary, error) {
				return openJieba(jiebaDir, cmd.ErrOrStderr())
			})
			if err != nil {
				return fmt.Errorf("score: %s: %w", predictions, err)
			}
			for _, w := range report.Warnings() {
				fmt.Fprintln(cmd.ErrOrStderr(), "score:", w)
			}
			if averages {
				return writeAverages(cmd.OutOrStdout(), report)
			}
			return writeScores(cmd.OutOrStdout(), report, perSample, corrected)
		},
	}
	f := cmd.Flags()
	f.StringVar(&benchmark, "benchmark", "", "longbench or longbench-e")
	f.StringVar(&predictions, "predictions", "", "directory with one DATASET.jsonl a dataset")
	f.BoolVar(&perSample, "per-sample", false, "print every sample's score, a fraction of 1, in file order (null: failed)")
	f.BoolVar(&corrected, "corrected", false, "print beside each score the one without the original's defects, and what differs")
	f.BoolVar(&averages, "averages", false, "print the means by task category, by language and over all instead, of LongBench-E by length as well")
	f.StringVar(&jiebaDir, "jieba", "", "directory of jieba's dict.txt and finalseg/")
	cmd.MarkFlagsMutuallyExclusive("averages", "per-sample")
	cmd.MarkFlagsMutuallyExclusive("averages", "corrected") // which averages hold anyhow
	for _, name := range []string{"benchmark", "predictions"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is defined above
		}
	}
	return cmd
}

func openJieba(dir string, stderr io.Writer) (*jieba.Dictionary, error) {
	words, err := jieba.Open(dir)
	if err == nil && !words.Standard() {
		fmt.Fprintln(stderr, "score: jieba's dictionary is not that of version 0.42.1: Chinese scores are not comparable with published ones")
	}
	return words, err
}

// correctedScore is a dataset's entry with --corrected.
type correctedScore struct {
	Compat    any `json:"compat"`
	Corrected any `json:"corrected"`
	// Changed counts the samples whose score differs, by correction.
	Changed map[longbench.Correction]int    `json:"changed,omitempty"`
	Why     map[longbench.Correction]string `json:"why,omitempty"`
}

type correctedSample struct {
	ID        string               `json:"_id,omitempty"`
	Compat    any                  `json:"compat"`
	Corrected any                  `json:"corrected"`
	Reason    longbench.Correction `json:"reason,omitempty"`
}

// writeScores prints one JSON object with the datasets in the benchmark's order.
func writeScores(w io.Writer, report *longbench.Report, perSample, corrected bool) error {
	var out bytes.Buffer
	out.WriteByte('{')
	for i := range report.Results {
		res := &report.Results[i]
		var entry any
		switch {
		case perSample:
			entry = sampleEntries(res, corrected)
		case corrected:
			entry = correctedEntry(res)
		default:
			entry = res.CompatJSON()
		}
		value, err := json.Marshal(entry)
		if err != nil {
			return fmt.Errorf("score: %s: %w", res.Dataset.Name, err)
		}
		if i > 0 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "\n    %q: %s", res.Dataset.Name, value)
	}
	out.WriteString("\n}\n")
	_, err := out.WriteTo(w)
	return err
}

// averageEntry is a mean over datasets, each of which counts alike. It is null when none of them is there, and not comparable with
// others' when some are missing.
type averageEntry struct {
	Compat    any `json:"compat"`
	Corrected any `json:"corrected"`
	Datasets  int `json:"datasets"`
	Missing   int `json:"missing"`
}

// writeAverages prints one JSON object with the means by name.
func writeAverages(w io.Writer, report *longbench.Report) error {
	a := report.Averages()
	var out bytes.Buffer
	out.WriteByte('{')
	value := func(v float64) any {
		if math.IsNaN(v) {
			return nil
		}
		return math.Round(100*v) / 100
	}
	for i, m := range slices.Concat(a.Categories, a.Languages, a.Buckets, []longbench.Average{a.Overall}) {
		entry, err := json.Marshal(averageEntry{value(m.Compat), value(m.Corrected), m.Datasets, m.Missing})
		if err != nil {
			return fmt.Errorf("score: %s: %w", m.Name, err)
		}
		if i > 0 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "\n    %q: %s", m.Name, entry)
	}
	out.WriteString("\n}\n")
	_, err := out.WriteTo(w)
	return err
}

func correctedEntry(res *longbench.Result) correctedScore {
	entry := correctedScore{Compat: res.CompatJSON(), Corrected: res.CorrectedJSON()}
	for _, s := range res.Samples {
		if s.Reason == "" {
			continue
		}
		if entry.Changed == nil {
			entry.Changed, entry.Why = map[longbench.Correction]int{}, map[longbench.Correction]string{}
		}
		entry.Changed[s.Reason]++
		entry.Why[s.Reason] = s.Reason.Explain()
	}
	return entry
}

func sampleEntries(res *longbench.Result, corrected bool) []any {
	entries := make([]any, len(res.Samples))
	for i, s := range res.Samples {
		switch {
		case corrected:
			e := correctedSample{ID: s.ID, Reason: s.Reason}
			if !s.Failed {
				e.Compat = s.Compat
				if !math.IsNaN(s.Corrected) {
					e.Corrected = s.Corrected
				}
			}
			entries[i] = e
		case !s.Failed:
			entries[i] = s.Compat
		}
	}
	return entries
}
