package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/longalign/longalign-go/reports"
)

// newCorrelateCommand prints the rank correlations of two columns of a CSV file.
func newCorrelateCommand() *cobra.Command {
	var (
		file, x, y  string
		skipMissing bool
		r           ratingsFlags
	)
	cmd := &cobra.Command{
		Use:   "correlate --csv FILE --x COLUMN --y COLUMN",
		Short: "Rank correlations of two columns of a CSV file, or the paper's Table 1 from ratings",
		Long: `Correlate prints Spearman's ρ and Kendall's τ-b, both corrected for ties, of two
columns of a CSV file whose first line names them:

  {"n":1992,"spearman":0.19683326252423866,"kendall_tau_b":0.13342469740435015}

A missing value (an empty field, NA, NaN) is an error unless --skip-missing leaves its row out.

With --ratings it prints the paper's Table 1 from a CSV of items × raters: how people agree with each other, and each
judge with people, by rank correlation, mean absolute difference and bias by answer length. A rater may leave items out.`,
		Example: `  starter correlate --csv ratings.csv --x annotator_1 --y judge
  starter correlate --csv ratings.csv --x annotator_1 --y annotator_2 --skip-missing
  starter correlate --ratings ratings.csv --humans annotator_1,annotator_2 --judges judge,few_shot=gpt-4+few-shot --length tokens`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.file != "" {
				return r.run(cmd.InOrStdin(), cmd.OutOrStdout())
			}
			for name, value := range map[string]string{"csv": file, "x": x, "y": y} {
				if value == "" {
					return usageError{fmt.Errorf("correlate: --%s is missing; usage: %s", name, cmd.UseLine())}
				}
			}
			in := cmd.InOrStdin()
			if file != "-" {
				f, err := os.Open(file)
				if err != nil {
					return fmt.Errorf("correlate: %w", err)
				}
				defer f.Close()
				in = f
			}
			columns, err := reports.ReadColumns(in, x, y)
			if err != nil {
				return fmt.Errorf("correlate: %s: %w", file, err)
			}
			a, b, skipped := columns.Pairs(0, 1)
			switch {
			case len(skipped) > 0 && !skipMissing:
				return fmt.Errorf("correlate: %s: %d of %d rows lack a value of %s or %s, the first on line %d; fill them in, or leave such rows out with --skip-missing",
					file, len(skipped), len(columns.Lines), x, y, skipped[0])
			case len(skipped) > 0:
				fmt.Fprintf(cmd.ErrOrStderr(), "correlate: left out %d of %d rows without a value\n", len(skipped), len(columns.Lines))
			}
			c, err := reports.Correlate(a, b)
			var constant *reports.ConstantError
			if errors.As(err, &constant) {
				name := x
				if slices.Min(b) == slices.Max(b) {
					name = y
				}
				return fmt.Errorf("correlate: %s: column %q %w", file, name, constant)
			}
			if err != nil {
				return fmt.Errorf("correlate: %s: %w", file, err)
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(c)
		},
	}
	cmd.Flags().StringVar(&file, "csv", "", "CSV file with a header line; - reads standard input")
	cmd.Flags().StringVar(&x, "x", "", "first column")
	cmd.Flags().StringVar(&y, "y", "", "second column")
	cmd.Flags().BoolVar(&skipMissing, "skip-missing", false, "leave out rows without a value in either column")
	r.flags(cmd.Flags())
	cmd.MarkFlagsMutuallyExclusive("csv", "ratings")
	return cmd
}
