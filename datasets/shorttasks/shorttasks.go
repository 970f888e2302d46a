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
	"regexp"
	"strings"

	"github.com/longalign/longalign-go/datasets/longbench/pytext"
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
	// N samples were scored of Wanted.
	N, Wanted int
	// Shots is what the harness used; -1 where the file does not say.
	Shots int
}

// Results are the scores that a file holds.
type Results struct {
	Version string // of the harness
	Scores  []Score
}

// samples are how many a task has, and how many were scored.
type samples struct {
	Original  int `json:"original"`
	Effective int `json:"effective"`
}

// mmluSubjects are the tasks of the group mmlu, which files of releases without group_subtasks do not list. Another task may begin with
// the same letters (mmlu_pro, mmlu_flan_n_shot_loglikelihood_anatomy): names are compared whole.
var mmluSubjects = strings.Fields(`abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology
	college_chemistry college_computer_science college_mathematics college_medicine college_physics computer_security
	conceptual_physics econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
	high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
	high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
	high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history human_aging
	human_sexuality international_law jurisprudence logical_fallacies machine_learning management marketing medical_genetics
	miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory professional_accounting professional_law
	professional_medicine professional_psychology public_relations security_studies sociology us_foreign_policy virology world_religions`)

// parts names the harness's tasks that t's score is of: itself, or a group's tasks, by the file or as they are known.
func (t Task) parts(groups map[string][]string, known map[string]samples) []string {
	if _, itself := known[t.Harness]; itself || t.Harness != "mmlu" {
		return []string{t.Harness}
	}
	var tasks []string
	seen := map[string]bool{}
	var open func(name string)
	open = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		if len(groups[name]) == 0 {
			tasks = append(tasks, name)
		}
		for _, sub := range groups[name] {
			open(sub)
		}
	}
	if len(groups[t.Harness]) > 0 {
		open(t.Harness)
		return tasks
	}
	for _, subject := range mmluSubjects {
		tasks = append(tasks, "mmlu_"+subject)
	}
	return tasks
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
		Samples map[string]samples                    `json:"n-samples"`
		// Subtasks are those of each group, groups too.
		Subtasks map[string][]string `json:"group_subtasks"`
	}
	if err := json.Unmarshal(pytext.JSON(raw), &f); err != nil {
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
		parts := t.parts(f.Subtasks, f.Samples)
		for _, name := range parts {
			s.N += f.Samples[name].Effective
			s.Wanted += f.Samples[name].Original
		}
		if s.N <= 0 {
			return nil, fmt.Errorf(`%s: the file does not say of how many samples the score is ("n-samples"); run a newer release of the series 0.4`, t.Harness)
		}
		// A group's own number of shots says nothing; its tasks should all have the same.
		for _, name := range parts {
			var n int
			if json.Unmarshal(f.Shots[name], &n) != nil { // some releases give groups an empty text
				continue
			}
			if s.Shots >= 0 && s.Shots != n {
				return nil, fmt.Errorf("%s: its tasks have different numbers of shots, %d and %d: run them with one", t.Harness, s.Shots, n)
			}
			s.Shots = n
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
		var v *float64
		if err := json.Unmarshal(raw, &v); err != nil || v == nil { // null is also what a NaN became
			return 0, fmt.Errorf("%s is %.20s, not a number", key, raw)
		}
		return *v, nil
	}
	return 0, fmt.Errorf("there is no %s", metric)
}
