package reports

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
		"no cells": {func(s *Study) { s.Cells = nil }, "one of the runs has no finished cell"},
	} {
		t.Run(name, func(t *testing.T) {
			b := demoStudy()
			tt.change(b)
			c := Compare(demoStudy(), b)
			if !slices.ContainsFunc(c.Problems, func(p string) bool { return strings.Contains(p, tt.want) }) {
				t.Errorf("problems %q, want one that says %q", c.Problems, tt.want)
			}
			if _, err := Render(Text, c.Tables()...); err != nil {
				t.Error(err)
			}
		})
	}
}
