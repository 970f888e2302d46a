package shorttasks

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The shape of a results file of the harness's series 0.4, with values of our own.
const file = `{
 "results": {
  "arc_challenge": {"alias": "arc_challenge", "acc,none": 0.25, "acc_norm,none": 0.5, "acc_norm_stderr,none": 0.01},
  "truthfulqa_mc2": {"acc,none": 0.125, "acc_stderr,none": "N/A"},
  "mmlu_anatomy": {"acc,none": 0.75}, "mmlu_virology": {"acc,none": 0.25}
 },
 "groups": {"mmlu": {"acc,none": 0.625, "acc_stderr,none": 0.02}},
 "n-shot": {"arc_challenge": 25, "truthfulqa_mc2": 0, "mmlu_anatomy": 5, "mmlu_virology": 5},
 "n-samples": {"arc_challenge": {"original": 1172, "effective": 100}, "truthfulqa_mc2": {"original": 817, "effective": 817}, "mmlu_anatomy": {"original": 3, "effective": 3}, "mmlu_virology": {"original": 4, "effective": 4}},
 "lm_eval_version": "0.4.9"
}`

func TestResultsAreReadWithTheLeaderboardsMetrics(t *testing.T) {
	got, err := Read(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	tasks := Tasks()
	want := &Results{Version: "0.4.9", Scores: []Score{
		{Task: tasks[0], Value: 50, StdErr: 1, N: 100, Wanted: 1172, Shots: 25},
		{Task: tasks[2], Value: 12.5, N: 817, Wanted: 817, Shots: 0},
		{Task: tasks[3], Value: 62.5, StdErr: 2, N: 7, Wanted: 7, Shots: 5},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A file may hold other tasks whose names begin alike; whichever order its maps are read in, they are not counted.
func TestTasksThatAreNamedAlikeAreOthers(t *testing.T) {
	text := strings.NewReplacer(
		`"n-shot": {`, `"n-shot": {"arc_challenge_chat": 0, "mmlu_pro": 3, "mmlu_pro_law": 2, "truthfulqa_mc2_x": 9, `,
		`"n-samples": {`, `"n-samples": {"arc_challenge_chat": {"original": 1172, "effective": 7}, "mmlu_pro_law": {"original": 99, "effective": 98}, "mmlu_flan_anatomy": {"original": 1, "effective": 1}, `,
	).Replace(file)
	want, err := Read(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		got, err := Read(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	}
	if len(mmluSubjects) != 57 {
		t.Errorf("MMLU has 57 subjects, not %d", len(mmluSubjects))
	}
}

func TestAGroupsTasksAreThoseTheFileNames(t *testing.T) {
	text := strings.Replace(file, `"n-shot"`, `"group_subtasks": {"mmlu": ["mmlu_other"], "mmlu_other": ["mmlu_virology"]}, "n-shot"`, 1)
	got, err := Read(strings.NewReader(text))
	if err != nil || got.Scores[2].N != 4 || got.Scores[2].Shots != 5 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Read(strings.NewReader(strings.Replace(file, `"mmlu_virology": 5`, `"mmlu_virology": 0`, 1))); err == nil || !strings.Contains(err.Error(), "different numbers of shots") {
		t.Error("mixed shots:", err)
	}
}

// Python's json writes them, for other tasks' metrics or a standard error of one sample.
func TestNumbersThatAreNotFiniteDoNoHarmElsewhere(t *testing.T) {
	want, err := Read(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(strings.NewReader(strings.Replace(file, `"results": {`, `"results": {"other": {"word_perplexity,none": Infinity, "acc_stderr,none": NaN}, `, 1)))
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestWhatIsNoKnownResultsFileIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		text    string
		version bool
		says    string
	}{
		"a newer series":        {strings.Replace(file, "0.4.9", "0.5.0", 1), true, `"0.5.0"`},
		"an older one":          {strings.Replace(file, "0.4.9", "0.3.0", 1), true, `"0.3.0"`},
		"no version":            {strings.Replace(file, "lm_eval_version", "v", 1), true, "lm_eval_version"},
		"another program":       {`{"scores": {}}`, false, `no "results"`},
		"not JSON":              {`acc 0.5`, false, "no results file"},
		"none of the tasks":     {`{"lm_eval_version": "0.4.2", "results": {"gsm8k": {}}}`, false, "none of"},
		"no number of samples":  {strings.Replace(file, "n-samples", "n_samples", 1), false, "how many samples"},
		"a task without metric": {`{"lm_eval_version": "0.4.2", "results": {"hellaswag": {"acc,none": 1}}}`, false, "acc_norm"},
		"percent":               {`{"lm_eval_version": "0.4.2", "results": {"hellaswag": {"acc_norm,none": 75}}}`, false, "shares"},
		"no finite number":      {`{"lm_eval_version": "0.4.2", "results": {"hellaswag": {"acc_norm,none": NaN}}}`, false, "not a number"},
		"text for a number":     {`{"lm_eval_version": "0.4.2", "results": {"hellaswag": {"acc_norm,none": "good"}}}`, false, "not a number"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read(strings.NewReader(tt.text))
			var version *VersionError
			if err == nil || errors.As(err, &version) != tt.version || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add(file)
	f.Add(`{"lm_eval_version": "0.4.0", "results": {"mmlu": {"acc": 1e-9}}, "n-samples": {"mmlu_x": {}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Read(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, s := range r.Scores {
			if !(s.Value >= 0 && s.Value <= 100) {
				t.Errorf("%s is %v percent", s.Task.Name, s.Value)
			}
		}
	})
}
