// Package longbenchchat is LongBench-Chat (arXiv 2401.18058): 50 real queries over
// long documents, answered by the model and rated from 1 to 10 by a judge that sees
// three rated examples.
//
// Order: cases and examples (cases.go) → the model's answers → judge prompt
// (prompt.go) → the judge's replies → ratings (rating.go) → scores (score.go). The
// same judging serves LongBench tasks (tasks.go); an offline stand-in for the
// judge is in offline.go, and the drift canary in canary.go.
//
// The package makes no calls: it says what to ask and what a reply means. Cases,
// examples and the judge prompt are the benchmark's own files, given by the user.
package longbenchchat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf8"
)

// The benchmark's files.
const (
	CasesFile    = "test_cases.json"
	ExamplesFile = "few_shots.json"
	PromptFile   = "prompt_fs.txt"
)

// ExamplesPerCase is how many rated answers the judge sees.
const ExamplesPerCase = 3

// Case is one query.
type Case struct {
	// Index counts from 1 and finds the case's examples.
	Index int `json:"idx"`
	// Prompt is what the model is given: document and query.
	Prompt string `json:"prompt"`
	// Query is the query alone, which is all of it that the judge sees.
	Query string `json:"query"`
	// Answer is the reference answer.
	Answer   string    `json:"answer"`
	Language string    `json:"language,omitempty"`
	Examples []Example `json:"-"`
}

// ID names the case as a sample.
func (c Case) ID() string { return fmt.Sprintf("longbench-chat-%d", c.Index) }

// Example is an answer with its rating by a person.
type Example struct {
	Answer string  `json:"answer"`
	Score  float64 `json:"score"`
}

// Load reads the cases with their examples from fsys. Cases must be numbered from 1
// without gaps; each needs three examples rated from 1 to 10.
func Load(fsys fs.FS) ([]Case, error) {
	var cases []Case
	if err := readFile(fsys, CasesFile, &cases); err != nil {
		return nil, err
	}
	examples, err := readExamples(fsys)
	if err != nil {
		return nil, err
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("%s has no cases", CasesFile)
	}
	seen := map[int]bool{}
	for i := range cases {
		c := &cases[i]
		switch {
		case c.Index < 1 || c.Index > len(examples):
			return nil, fmt.Errorf("%s: case %d has idx %d, %s has examples for 1 to %d", CasesFile, i+1, c.Index, ExamplesFile, len(examples))
		case seen[c.Index]:
			return nil, fmt.Errorf("%s: idx %d occurs twice", CasesFile, c.Index)
		case c.Prompt == "" || c.Query == "" || c.Answer == "":
			return nil, fmt.Errorf("%s: case %d lacks prompt, query or answer", CasesFile, c.Index)
		}
		seen[c.Index] = true
		if c.Language == "" {
			c.Language = languageOf(c.Query)
		}
		c.Examples = examples[c.Index-1]
	}
	return cases, nil
}

func readExamples(fsys fs.FS) ([][]Example, error) {
	var examples [][]Example
	if err := readFile(fsys, ExamplesFile, &examples); err != nil {
		return nil, err
	}
	for i, e := range examples {
		if len(e) != ExamplesPerCase {
			return nil, fmt.Errorf("%s: case %d has %d examples, want %d", ExamplesFile, i+1, len(e), ExamplesPerCase)
		}
		for _, x := range e {
			if x.Answer == "" || x.Score < MinRating || x.Score > MaxRating {
				return nil, fmt.Errorf("%s: case %d has an example rated %v; want an answer rated %d to %d", ExamplesFile, i+1, x.Score, MinRating, MaxRating)
			}
		}
	}
	return examples, nil
}

func readFile(fsys fs.FS, name string, to any) error {
	f, err := fsys.Open(name)
	if err != nil {
		return fmt.Errorf("%w; it comes with LongBench-Chat", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if !utf8.Valid(raw) {
		return fmt.Errorf("%s is not UTF-8", name)
	}
	if strings.HasPrefix(string(raw), "version https://git-lfs") {
		return fmt.Errorf("%s is a Git LFS pointer; fetch the file itself (git lfs pull)", name)
	}
	if err := json.Unmarshal(raw, to); err != nil {
		var at *json.SyntaxError
		if errors.As(err, &at) {
			return fmt.Errorf("%s: byte %d: %w", name, at.Offset, err)
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// languageOf tells a Chinese query from an English one by its letters.
func languageOf(query string) string {
	han, letters := 0, 0
	for _, r := range query {
		switch {
		case '\u4e00' <= r && r <= '\u9fff':
			han++
		case 'a' <= r|0x20 && r|0x20 <= 'z':
			letters++
		}
	}
	if 2*han > letters { // a Han character weighs about as much as a short word
		return "zh"
	}
	return "en"
}
