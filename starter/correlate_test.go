package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCorrelate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ratings.csv")
	if err := os.WriteFile(file, []byte("anna,ben,gap,same\n1,2,1,3\n2,1,,3\n3,3,2,3\n4,4,3,3\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		out  string
		err  string
	}{
		"two columns are correlated": {args: []string{"--x", "anna", "--y", "ben"}, out: `{"n":4,"spearman":0.8,"kendall_tau_b":0.6666666666666666}`},
		"a missing value is an error that says where": {args: []string{"--x", "anna", "--y", "gap"},
			err: "1 of 4 rows lack a value of anna or gap, the first on line 3; fill them in, or leave such rows out with --skip-missing"},
		"rows without a value are left out when asked": {args: []string{"--x", "anna", "--y", "gap", "--skip-missing"}, out: `{"n":3,"spearman":1,"kendall_tau_b":1}`},
		"a constant column is named":                   {args: []string{"--x", "anna", "--y", "same"}, err: `column "same" is constant (all values are 3)`},
		"an unknown column is answered with the known": {args: []string{"--x", "anna", "--y", "carl"}, err: `there is no column "carl"; the file has anna, ben, gap, same`},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCorrelateCommand()
			var out, errs bytes.Buffer
			c.SetOut(&out)
			c.SetErr(&errs)
			c.SilenceUsage, c.SilenceErrors = true, true
			c.SetArgs(append([]string{"--csv", file}, tt.args...))
			err := c.Execute()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one that says %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(out.String()); got != tt.out {
				t.Errorf("printed %s, want %s", got, tt.out)
			}
		})
	}
}
