package longbench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/longalign/longalign-go/datasets/longbench/pytext"
)

// SubEM is substring exact match: 1 if any gold answer, normalised, is contained
// in the normalised prediction, else 0. Normalisation is SQuAD's
// (Rajpurkar et al., arXiv 1606.05250). Matching the answer as part of the prediction is the
// "accuracy" of open-domain QA with generating models (Mallen et al., arXiv
// 2212.10511). As there, word borders do not count: "art" is found in "party".
// An answer of which normalisation leaves nothing (an article, a dash) matches an equally
// empty prediction only.
func SubEM(prediction string, answers []string) float64 {
	p := NormalizeAnswer(prediction)
	for _, a := range answers {
		a = NormalizeAnswer(a)
		if a == "" {
			if p == "" {
				return 1
			}
			continue
		}
		if strings.Contains(p, a) {
			return 1
		}
	}
	return 0
}

// AnswerF1 is the best QA-F1 of the prediction over the gold answers.
func AnswerF1(prediction string, answers []string) float64 {
	p := pytext.Fields(NormalizeAnswer(prediction))
	best := 0.0
	for _, a := range answers {
		best = max(best, wordF1(p, pytext.Fields(NormalizeAnswer(a))))
	}
	return best
}

// LeaderboardDatasets are the datasets of the leaderboard rows, in order; the
// second is InfiniteBench's, the others LongBench's.
func LeaderboardDatasets() []string {
	return []string{"multifieldqa_en", EnQA, "narrativeqa", "2wikimqa", "musique"}
}

// EnQA names InfiniteBench's En.QA task (arXiv 2402.13718), the file
// longbook_qa_eng.jsonl of that benchmark.
const (
	EnQA     = "infinitebench_en_qa"
	EnQAFile = "longbook_qa_eng.jsonl"
	// EnQARows is its number of samples, EnQAMaxNewTokens its length of answers.
	EnQARows         = 351
	EnQAMaxNewTokens = 40
)

// ReadEnQA streams InfiniteBench's En.QA samples to each as inputs; a sample's
// context is a whole novel, so memory holds one. Length stays 0: the file does not
// state it.
func ReadEnQA(r io.Reader, name string, each func(Input) error) error {
	seen := map[string]int{}
	err := eachRow(r, name, func(line int, raw []byte) error {
		var row struct {
			ID      json.RawMessage `json:"id"`
			Context string          `json:"context"`
			Input   string          `json:"input"`
			Answer  json.RawMessage `json:"answer"`
		}
		if err := json.Unmarshal(raw, &row); err != nil {
			return err
		}
		in := Input{Context: row.Context, Input: row.Input, Dataset: EnQA, Language: string(English), Line: line}
		in.ID = strings.Trim(string(row.ID), `"`)
		if err := json.Unmarshal(row.Answer, &in.Answers); err != nil {
			var one string
			if json.Unmarshal(row.Answer, &one) == nil {
				in.Answers = []string{one}
			}
		}
		switch {
		case in.ID == "" || bytes.Equal(row.ID, []byte("null")):
			return errors.New(`no "id", by which predictions are matched`)
		case in.Context == "" || in.Input == "":
			return errors.New(`no "context" or no "input"; is this InfiniteBench's ` + EnQAFile + "?")
		case len(in.Answers) == 0:
			return errors.New(`no "answer"; the sample could not be scored`)
		}
		if first, ok := seen[in.ID]; ok {
			return fmt.Errorf("id %s was on line %d already; remove the duplicate", in.ID, first)
		}
		seen[in.ID] = line
		return each(in)
	})
	if err == nil && len(seen) == 0 {
		return fmt.Errorf("%s has no rows", name)
	}
	return err
}
