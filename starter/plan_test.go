package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
)

// plan runs starter plan over lengths given on standard input.
func plan(lengths string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(context.Background(), append([]string{"plan", "--lengths", "-"}, args...), strings.NewReader(lengths), &out, &err)
	return code, out.String(), err.String()
}

func TestPlanPrintsStepsOfLineNumbers(t *testing.T) {
	code, out, stderr := plan("3\n4\n2\n", "--method", "sorted", "--max-length", "8", "--batch-size", "2", "--accumulate", "2")
	if code != exitDone {
		t.Fatal(stderr)
	}
	if diff := cmp.Diff(`{"step":0,"micro_batches":[[2,0],[1]]}`+"\n", out); diff != "" {
		t.Error(diff)
	}
}

func TestPlanStatsCountPaddingAndTruncation(t *testing.T) {
	code, out, stderr := plan("3\n9\n2\n", "--method", "naive", "--max-length", "8", "--batch-size", "4", "--stats")
	if code != exitDone {
		t.Fatal(stderr)
	}
	var got datasets.PlanStats
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	got.Seconds = 0
	want := datasets.PlanStats{Sequences: 3, Tokens: 13, PaddedTokens: 24, Steps: 1, MicroBatches: 1, Efficiency: 13. / 24, SequencesPerStepMean: 3, Truncated: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPlanSaysWhatIsWrong(t *testing.T) {
	for name, tt := range map[string]struct {
		lengths string
		args    []string
		code    int
		want    string
	}{
		"a line that is no number":  {"3\nx\n", nil, exitFailed, `-:2: "x" is not a length in tokens`},
		"a length of zero":          {"0\n", nil, exitFailed, "-:1:"},
		"no lines":                  {"", nil, exitFailed, "no lengths"},
		"an unknown method":         {"3\n", []string{"--method", "random"}, exitUsage, "use naive, sorted or packing"},
		"an impossible combination": {"3\n", []string{"--method", "naive", "--packing", "next-fit"}, exitUsage, "remove it or set method: packing"},
		"an over-long sequence":     {"30\n", []string{"--max-length", "8", "--over-length", "error"}, exitFailed, "sequence 0 has 30 tokens, max_length is 8"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := plan(tt.lengths, tt.args...)
			if code != tt.code || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit code %d, %q; want %d and %q", code, stderr, tt.code, tt.want)
			}
		})
	}
}

func TestPlanRefusesNumbersThatMeanNothing(t *testing.T) {
	for _, flags := range [][]string{{"--max-length", "0"}, {"--epoch", "-1"}} {
		cmd := newPlanCommand()
		cmd.SetArgs(append([]string{"--lengths", "-"}, flags...))
		cmd.SetIn(strings.NewReader("1\n"))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.Execute(); !errors.As(err, new(usageError)) {
			t.Errorf("%v: got %v, want a usage error", flags, err)
		}
	}
}
