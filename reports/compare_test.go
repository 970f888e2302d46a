package reports

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// changedStudy is the demo study run again with another learning rate, which changed the
// predictions of one method.
func changedStudy() *Study {
	s := demoStudy()
	s.ID = "demo-ffffffffffff"
	s.Code.Revision, s.Code.Dirty = "fedcba9876543210", false
	s.Spec = json.RawMessage(`{"method":["naive","sorted","packing","weighted"],"seeds":[1,2,3],"train":{"learning_rate":0.002}}`)
	for i := range s.Cells {
		if s.Cells[i].Method != "naive" {
			continue
		}
		for k := range s.Cells[i].Scores[MetricLoss].Samples {
			s.Cells[i].Scores[MetricLoss].Samples[k].Value += 0.1
		}
	}
	for _, u := range s.Stages {
		if u.Manifest.Stage == "checkpoint" {
			u.Manifest.Key = strings.Repeat("e", 64)
			u.Manifest.ActionKeyInput = json.RawMessage(`{"params":{"learning_rate":0.002}}`)
		}
	}
	return s
}

func TestComparisonFindsWhatDiffers(t *testing.T) {
	a, b := demoStudy(), changedStudy()
	for _, u := range a.Stages {
		if u.Manifest.Stage == "checkpoint" {
			u.Manifest.ActionKeyInput = json.RawMessage(`{"params":{"learning_rate":0.001}}`)
		}
	}
	c := Compare(a, b)
	for _, x := range c.Cells {
		want := Same
		if x.Method == "naive" && x.Metric.Name == MetricLoss {
			want = Differs
		}
		if x.Outcome != want {
			t.Errorf("%s, %s: %q, want %q", x.Method, x.Metric, x.Outcome, want)
		}
	}
	want := []Change{
		{"specification", "train", "", `{"learning_rate":0.002}`},
		{"code", "revision", "0123456789abcdef with uncommitted changes", "fedcba9876543210"},
		{"checkpoint, 11 of 11", "params.learning_rate", "0.001", "0.002"},
	}
	if diff := cmp.Diff(want, c.Changes); diff != "" {
		t.Error(diff)
	}
	got, err := Render(Text, c.Tables()...)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "compare.txt", got)
}

// Results of one stage are compared by what they are to their cells, and an input that is another result is told where that was made.
func TestChangesAreToldWhereTheyBegin(t *testing.T) {
	study := func(pretrain, tuned, rate string) *Study {
		use := func(stage, role, key string, action string) StageUse {
			m := &artifact.Manifest{Stage: stage, Key: strings.Repeat(key, 64), Generation: 1, ActionKeyInput: json.RawMessage(action),
				Outputs: []artifact.Output{{Name: "out", Blob: artifact.Blob{Digest: "sha256:" + strings.Repeat(key, 64)}}}}
			return StageUse{Manifest: m, Role: role}
		}
		tokens := []StageUse{
			use("tokens", "pretrain", pretrain, `{"params":{"template":"plain"},"stage_version":`+pretrain+`}`),
			use("tokens", "instructions", "c", `{"params":{"template":"llama2"}}`),
		}
		if pretrain == "2" {
			slices.Reverse(tokens) // the order in which results were made means nothing
		}
		input := tokens[slices.IndexFunc(tokens, func(u StageUse) bool { return u.Role == "pretrain" })].Manifest.Digest()
		return &Study{Stages: append(tokens, use("checkpoint", "base", tuned, fmt.Sprintf(`{"inputs":{"tokens":%q},"params":{"lr":%s}}`, input, rate)))}
	}
	for name, tt := range map[string]struct {
		b    *Study
		want []Change
	}{
		"a version": {study("2", "e", "1"), []Change{{"tokens (pretrain), 1 of 1", "stage_version", "1", "2"}}},
		"a version and a parameter": {study("2", "e", "3"), []Change{
			{"tokens (pretrain), 1 of 1", "stage_version", "1", "2"}, {"checkpoint (base), 1 of 1", "params.lr", "1", "3"}}},
		"nothing": {study("1", "d", "1"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, changes(study("1", "d", "1"), tt.b)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAStudyEqualsItself(t *testing.T) {
	c := Compare(demoStudy(), demoStudy())
	for _, x := range c.Cells {
		if x.Outcome != Same {
			t.Errorf("%s, %s: %q", x.Method, x.Metric, x.Outcome)
		}
	}
	if len(c.Changes) > 0 {
		t.Error(c.Changes)
	}
}

func TestStudiesThatCannotBeComparedSaySo(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Study)
		want   string
	}{
		"other samples": {func(s *Study) {
			for i := range s.Cells {
				s.Cells[i].Timing, s.Cells[i].LossShare = nil, nil
				for _, set := range s.Cells[i].Scores {
					for k := range set.Samples {
						set.Samples[k].ID = "other-" + set.Samples[k].ID
					}
				}
			}
		}, "no samples in common"},
		"other questions under the same numbers": {func(s *Study) {
			for i := range s.Cells {
				s.Cells[i].Timing, s.Cells[i].LossShare = nil, nil
			}
			askOf(s, "f")
		}, "answer other questions"},
		"no cells": {func(s *Study) { s.Cells = nil }, "one of the runs has no finished cell"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := demoStudy(), demoStudy()
			askOf(a, "b")
			askOf(b, "b")
			tt.change(b)
			c := Compare(a, b)
			for _, x := range c.Cells {
				if x.Outcome != Incomparable && x.Outcome != OnlyA && x.Metric.Bucket == nil && x.Metric.Name == MetricLoss {
					t.Errorf("%s, %s: %q", x.Method, x.Metric, x.Outcome)
				}
			}
			if !slices.ContainsFunc(c.Problems, func(p string) bool { return strings.Contains(p, tt.want) }) {
				t.Errorf("problems %q, want one that says %q", c.Problems, tt.want)
			}
			if _, err := Render(Text, c.Tables()...); err != nil {
				t.Error(err)
			}
		})
	}
}

// askOf makes the held-out instructions of a study with this content the questions of its predictions.
func askOf(s *Study, content string) {
	var instructions artifact.Ref
	for _, u := range s.Stages {
		switch u.Manifest.Stage {
		case "instructions":
			instructions = u.Manifest.Ref()
			u.Manifest.Outputs = []artifact.Output{
				{Name: "train.jsonl.zst", Blob: artifact.Blob{Digest: "sha256:" + strings.Repeat("1", 64)}},
				{Name: "held-out.jsonl.zst", Blob: artifact.Blob{Digest: "sha256:" + strings.Repeat(content, 64)}},
			}
		case "predictions":
			u.Manifest.Inputs["instructions"] = instructions
		}
	}
}

func TestWhatCannotBePairedSaysWhy(t *testing.T) {
	a, b := demoStudy(), demoStudy()
	for _, s := range []*Study{a, b} {
		for i := range s.Cells {
			s.Cells[i].Scores["ARC"] = ScoreSet{Mean: 48, N: 1172, Low: 46, High: 50}
			s.Cells[i].Scores["judged"] = ScoreSet{Samples: []Sample{{ID: "x", Failed: true}}}
			s.Cells[i].Scores["unseen"] = ScoreSet{}
		}
	}
	for i := range b.Cells {
		b.Cells[i].Seed += 100
	}
	got := map[string]Outcome{}
	for _, x := range Compare(a, b).Cells {
		if x.Method == "packing" {
			got[x.Metric.Name] = x.Outcome
		}
	}
	for name, want := range map[string]Outcome{"steps": OtherSeeds, "ARC": NoSamples, "judged": InNeither, "unseen": "", MetricLoss: Incomparable} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

func TestOnlyTheQuestionsDecideWhetherSamplesPair(t *testing.T) {
	a, b := demoStudy(), demoStudy()
	askOf(a, "b")
	askOf(b, "b")
	for _, u := range b.Stages {
		if u.Manifest.Stage == "instructions" {
			u.Manifest.Key = strings.Repeat("9", 64) // other parameters, the same held-out questions
			u.Manifest.Outputs[0].Blob.Digest = "sha256:" + strings.Repeat("2", 64)
		}
	}
	for _, u := range b.Stages {
		if u.Manifest.Stage == "predictions" {
			u.Manifest.Inputs["instructions"] = artifact.Ref{Stage: "instructions", Key: strings.Repeat("9", 64), Generation: 1}
		}
	}
	for _, x := range Compare(a, b).Cells {
		if x.Outcome != Same {
			t.Errorf("%s, %s: %q", x.Method, x.Metric, x.Outcome)
		}
	}
	b.Stages = slices.DeleteFunc(b.Stages, func(u StageUse) bool { return u.Manifest.Stage == "instructions" })
	for i := range b.Cells {
		for name, set := range b.Cells[i].Scores {
			set.Sources = []string{"scores/ffffffffffff/1"}
			b.Cells[i].Scores[name] = set
		}
	}
	for _, x := range Compare(a, b).Cells {
		if _, exact := exactOf(x.Metric, a.Cells); !exact && x.Outcome != Incomparable {
			t.Errorf("questions that are not known, %s, %s: %q", x.Method, x.Metric, x.Outcome)
		}
	}
}
