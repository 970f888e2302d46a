// Package shorttasks reads what lm-evaluation-harness says about the short tasks of the LongAlign paper: ARC (challenge), HellaSwag,
// TruthfulQA and MMLU, with the Open LLM Leaderboard's shots and metrics. The tasks themselves are the harness's.
//
// Scores are percent. Results files of the harness's versions 0.4.x are known; another version may name or count things otherwise,
// and is an error.
package shorttasks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
)

// Task is one of the tasks.
type Task struct {
	// Name is the paper's, Harness the harness's task or group, Metric the harness's metric.
	Name, Harness, Metric string
	// Shots are the solved examples before each question.
	Shots int
}

// Tasks lists the tasks in the paper's order, with the leaderboard's settings. TruthfulQA's own prompt holds six examples, which do not
// count as shots.
func Tasks() []Task {
	return []Task{
		{"ARC", "arc_challenge", "acc_norm", 25},
		{"HellaSwag", "hellaswag", "acc_norm", 10},
		{"TruthfulQA", "truthfulqa_mc2", "acc", 0},
		{"MMLU", "mmlu", "acc", 5},
	}
}

// Score is one task's score.
type Score struct {
	Task Task
	// Value is in percent, StdErr its standard error, 0 where the file has none.
	Value, StdErr float64
	// N samples were scored of Wanted; both are 0 where the file does not say.
	N, Wanted int
	// Shots is what the harness used; -1 where the file does not say.
	Shots int
}

// Results are the scores that a file holds.
type Results struct {
	Version string // of the harness
	Scores  []Score
}

// VersionError refuses a file of a harness that is not known.
type VersionError struct{ Version string }

// Error says what to do.
func (e *VersionError) Error() string {
	if e.Version == "" {
		return "the file does not say which lm-evaluation-harness wrote it (no lm_eval_version): newer releases of its series 0.4 do; run one of them"
	}
	return fmt.Sprintf("lm-evaluation-harness %.40q wrote the file; what its numbers mean is known for the series 0.4 only: run that", e.Version)
}

var knownVersion = regexp.MustCompile(`^0\.4\.\d+([.\-+a-z0-9]*)?$`)

// maxFile bounds a results file; with logged samples apart, they are well below a mebibyte.
const maxFile = 64 << 20

// Read reads a results file. Tasks that are not in it are left out; a file with none of them is an error.
func Read(r io.Reader) (*Results, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxFile {
		return nil, fmt.Errorf("more than %d MiB are no results file", maxFile>>20)
	}
	var f struct {
		Version *string                               `json:"lm_eval_version"`
		Results map[string]map[string]json.RawMessage `json:"results"`
		Groups  map[string]map[string]json.RawMessage `json:"groups"`
		Shots   map[string]json.RawMessage            `json:"n-shot"`
		Samples map[string]struct {
			Original  int `json:"original"`
			Effective int `json:"effective"`
		} `json:"n-samples"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("no results file of lm-evaluation-harness: %w", err)
	}
	if f.Results == nil {
		return nil, errors.New(`no "results": is this lm-evaluation-harness's results file?`)
	}
	if f.Version == nil {
		return nil, &VersionError{}
	}
	if !knownVersion.MatchString(*f.Version) {
		return nil, &VersionError{*f.Version}
	}
	out := &Results{Version: *f.Version}
	for _, t := range Tasks() {
		values, ok := f.Results[t.Harness]
		if !ok {
			if values, ok = f.Groups[t.Harness]; !ok {
				continue
			}
		}
		s := Score{Task: t, Shots: -1}
		if s.Value, err = number(values, t.Metric); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Harness, err)
		}
		if s.Value < 0 || s.Value > 1 {
			return nil, fmt.Errorf("%s: %s is %v; the harness writes shares from 0 to 1", t.Harness, t.Metric, s.Value)
		}
		if e, err := number(values, t.Metric+"_stderr"); err == nil && e >= 0 {
			s.StdErr = 100 * e
		}
		s.Value *= 100
		for name, n := range f.Samples { // a group's are those of its tasks
			if name == t.Harness || f.Samples[t.Harness].Original == 0 && strings.HasPrefix(name, t.Harness+"_") {
				s.N += n.Effective
				s.Wanted += n.Original
			}
		}
		for name, raw := range f.Shots { // some releases give groups an empty text
			var n int
			if json.Unmarshal(raw, &n) != nil {
				continue
			}
			// A group's own number says nothing; all of its tasks have the same.
			if name == t.Harness && f.Groups[t.Harness] == nil || strings.HasPrefix(name, t.Harness+"_") {
				s.Shots = n
			}
		}
		out.Scores = append(out.Scores, s)
	}
	if len(out.Scores) == 0 {
		return nil, errors.New("the file has none of arc_challenge, hellaswag, truthfulqa_mc2 and mmlu")
	}
	return out, nil
}

// number finds a metric, which the harness writes as "acc,none": a name and a filter.
func number(values map[string]json.RawMessage, metric string) (float64, error) {
	for _, key := range []string{metric + ",none", metric} {
		raw, ok := values[key]
		if !ok {
			continue
		}
		var v float64
		if err := json.Unmarshal(raw, &v); err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return 0, fmt.Errorf("%s is %.20s, not a number", key, raw)
		}
		return v, nil
	}
	return 0, fmt.Errorf("there is no %s", metric)
}
