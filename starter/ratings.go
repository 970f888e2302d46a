package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/longalign/longalign-go/reports"
)

// ratingsFlags say which columns of a CSV file are whose ratings.
type ratingsFlags struct {
	file, length, format string
	humans, judges       []string
	seed                 uint64
	resamples            int
}

func (r *ratingsFlags) flags(f *pflag.FlagSet) {
	f.StringVar(&r.file, "ratings", "", "CSV file of items × raters for Table 1; - reads standard input")
	f.StringSliceVar(&r.humans, "humans", nil, "columns of people's ratings")
	f.StringSliceVar(&r.judges, "judges", nil, "columns of judges' ratings; COLUMN=NAME compares with the published judge NAME")
	f.StringVar(&r.length, "length", "", "column of answer lengths in tokens, for bias by length")
	f.StringVar(&r.format, "format", "text", "of Table 1: text, markdown, latex, csv, json or html")
	f.Uint64Var(&r.seed, "seed", 1, "of Table 1's bootstrap intervals")
	f.IntVar(&r.resamples, "resamples", 2000, "of Table 1's bootstrap intervals")
}

// run prints Table 1.
func (r *ratingsFlags) run(stdin io.Reader, stdout io.Writer) error {
	format, err := reports.ParseFormat(r.format)
	if err != nil {
		return usageError{err}
	}
	if len(r.humans) == 0 {
		return usageError{errors.New("correlate: --humans names the columns of people's ratings")}
	}
	raters := reports.RatingsParams{Humans: r.humans, Judges: r.judges}.Raters()
	for _, rater := range raters {
		if err := rater.Check(); err != nil {
			return usageError{fmt.Errorf("correlate: --judges: %w", err)}
		}
	}
	in := stdin
	if r.file != "-" {
		f, err := os.Open(r.file)
		if err != nil {
			return fmt.Errorf("correlate: %w", err)
		}
		defer f.Close()
		in = f
	}
	ratings, err := reports.ReadRatings(in, raters, r.length)
	if err != nil {
		return fmt.Errorf("correlate: %s: %w", r.file, err)
	}
	table, err := reports.JudgeTable(ratings, r.seed, r.resamples)
	if err != nil {
		return fmt.Errorf("correlate: %s: %w", r.file, err)
	}
	b, err := reports.Render(format, table)
	if err != nil {
		return err
	}
	_, err = stdout.Write(b)
	return err
}
