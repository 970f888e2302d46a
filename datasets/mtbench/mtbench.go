// Package mtbench is MT-Bench (arXiv 2306.05685): 80 questions of two turns in
// eight categories, rated from 1 to 10 by a judge, each turn on its own.
//
// Order: questions and references → the model's answers (temperature by category)
// → judge prompts → ratings → the mean over both turns.
//
// The rules are the original's (FastChat llm_judge): the first marker in the
// judge's reply counts, references are shown for math, reasoning and coding. A
// reply without a marker is a failed judgment here; the original records −1 and
// leaves it out of the mean, which is the same score, but does not say so. Questions,
// references and prompts are the benchmark's own files, given by the user.
package mtbench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/longalign/longalign-go/datasets/longbenchchat"
)

// Turns is the number of turns of a question.
const Turns = 2

// Question is one conversation to hold.
type Question struct {
	ID       int      `json:"question_id"`
	Category string   `json:"category"`
	Turns    []string `json:"turns"`
	// Reference holds a right answer to each turn, where the file has any.
	Reference []string `json:"reference"`
}

// NeedsReference reports whether the judge is shown a right answer.
func (q Question) NeedsReference() bool {
	return slices.Contains([]string{"math", "reasoning", "coding"}, q.Category)
}

// temperatures are those at which answers are sampled, by category.
var temperatures = map[string]float64{
	"writing": 0.7, "roleplay": 0.7, "extraction": 0, "math": 0, "coding": 0,
	"reasoning": 0, "stem": 0.1, "humanities": 0.1,
}

// Temperature is the sampling temperature for the question's answers.
func (q Question) Temperature() float64 {
	if t, ok := temperatures[q.Category]; ok {
		return t
	}
	return 0.7
}

// ReadQuestions reads question.jsonl.
func ReadQuestions(r io.Reader, name string) ([]Question, error) {
	var questions []Question
	seen := map[int]bool{}
	err := eachRow(r, name, func(raw []byte) error {
		var q Question
		if err := json.Unmarshal(raw, &q); err != nil {
			return err
		}
		switch {
		case q.ID == 0:
			return errors.New(`no "question_id"`)
		case seen[q.ID]:
			return fmt.Errorf("question %d is there twice", q.ID)
		case len(q.Turns) != Turns || slices.Contains(q.Turns, ""):
			return fmt.Errorf("question %d has %d turns, want %d", q.ID, len(q.Turns), Turns)
		case q.Category == "":
			return fmt.Errorf("question %d has no category, which decides temperature and reference", q.ID)
		}
		seen[q.ID] = true
		questions = append(questions, q)
		return nil
	})
	if err == nil && len(questions) == 0 {
		err = fmt.Errorf("%s has no questions", name)
	}
	return questions, err
}

// AddReferences reads a reference_answer file and replaces the references of the
// questions it answers. It is an error when a question that needs a reference is left without.
func AddReferences(questions []Question, r io.Reader, name string) error {
	byID := map[int]*Question{}
	for i := range questions {
		byID[questions[i].ID] = &questions[i]
	}
	err := eachRow(r, name, func(raw []byte) error {
		var row struct {
			ID      int `json:"question_id"`
			Choices []struct {
				Turns []string `json:"turns"`
			} `json:"choices"`
		}
		if err := json.Unmarshal(raw, &row); err != nil {
			return err
		}
		if len(row.Choices) == 0 || len(row.Choices[0].Turns) != Turns {
			return fmt.Errorf("the reference for question %d has no answer of %d turns", row.ID, Turns)
		}
		if q := byID[row.ID]; q != nil {
			q.Reference = row.Choices[0].Turns
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, q := range questions {
		if q.NeedsReference() && len(q.Reference) < Turns {
			return fmt.Errorf("%s has no reference for question %d (%s), which is judged against one", name, q.ID, q.Category)
		}
	}
	return nil
}

// JudgePrompt is one row of judge_prompts.jsonl.
type JudgePrompt struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	System   string `json:"system_prompt"`
	Template string `json:"prompt_template"`
	Output   string `json:"output_format"`
}

// JudgePrompts are the single-answer prompts by name.
type JudgePrompts map[string]JudgePrompt

// ReadJudgePrompts reads judge_prompts.jsonl and checks that the four prompts of
// single-answer grading are there.
func ReadJudgePrompts(r io.Reader, name string) (JudgePrompts, error) {
	prompts := JudgePrompts{}
	err := eachRow(r, name, func(raw []byte) error {
		var p JudgePrompt
		if err := json.Unmarshal(raw, &p); err != nil {
			return err
		}
		if p.Type == "single" {
			prompts[p.Name] = p
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, math := range []bool{false, true} {
		for turn := 1; turn <= Turns; turn++ {
			p, ok := prompts[promptName(math, turn)]
			if !ok || p.Output != "[[rating]]" {
				return nil, fmt.Errorf("%s has no prompt %q that asks for [[rating]]", name, promptName(math, turn))
			}
		}
	}
	return prompts, nil
}

func promptName(reference bool, turn int) string {
	name := "single-v1"
	if reference {
		name = "single-math-v1"
	}
	if turn == 2 {
		name += "-multi-turn"
	}
	return name
}

// Message is the judge's system and user message for one turn (1 or 2) of a
// model's answers. The judge of the second turn sees the first as well. Answers are quoted
// through Guard.
func (p JudgePrompts) Message(q Question, answers []string, turn int) (system, user string, err error) {
	prompt, ok := p[promptName(q.NeedsReference(), turn)]
	switch {
	case turn < 1 || turn > Turns:
		return "", "", fmt.Errorf("question %d has turns 1 and 2, not %d", q.ID, turn)
	case !ok:
		return "", "", fmt.Errorf("no judge prompt %q", promptName(q.NeedsReference(), turn))
	case len(answers) < turn:
		return "", "", fmt.Errorf("question %d has %d answers, turn %d is to be judged", q.ID, len(answers), turn)
	case q.NeedsReference() && len(q.Reference) < turn:
		return "", "", fmt.Errorf("question %d has no reference for turn %d", q.ID, turn)
	}
	values := map[string]string{"question": q.Turns[0], "answer": Guard(answers[0])}
	for i := range turn {
		n := strconv.Itoa(i + 1)
		values["question_"+n], values["answer_"+n] = q.Turns[i], Guard(answers[i])
		if q.NeedsReference() {
			values["ref_answer_"+n] = q.Reference[i]
		}
	}
	user, err = fill(prompt.Template, values)
	if err != nil {
		return "", "", fmt.Errorf("judge prompt %s: %w", prompt.Name, err)
	}
	return prompt.System, user, nil
}

var field = regexp.MustCompile(`\{\{|\}\}|\{[a-z_0-9]*\}`)

// fill is Python's str.format with named fields.
func fill(template string, values map[string]string) (string, error) {
	var unknown error
	out := field.ReplaceAllStringFunc(template, func(f string) string {
		if f == "{{" || f == "}}" {
			return f[:1]
		}
		v, ok := values[f[1:len(f)-1]]
		if !ok {
			unknown = fmt.Errorf("field %s is not known for this turn", f)
		}
		return v
	})
	return out, unknown
}

// The original's patterns: double brackets, else single ones, numbers alone. Its
// digits may be of any script.
var (
	marker       = regexp.MustCompile(`\[\[(\p{Nd}+\.?\p{Nd}*)\]\]`)
	backupMarker = regexp.MustCompile(`\[(\p{Nd}+\.?\p{Nd}*)\]`)
)

// Guard makes an answer safe to quote to this benchmark's judges: longbenchchat.Guard, and numbers alone in single brackets are set
// apart as well ("[10]" becomes "[ 10 ]"). A judge that copies one and gives no rating of its own would otherwise have given it, by
// the second of the original's patterns. Indices in quoted programs mean the same with spaces.
func Guard(answer string) string {
	return backupMarker.ReplaceAllString(longbenchchat.Guard(answer), "[ $1 ]")
}

// ParseRating reads the rating from a judge's reply: the first [[number]], else the first
// [number]. A reply with none, or a number outside 1 to 10, is a *longbenchchat.RatingError.
func ParseRating(reply string) (float64, error) {
	m := marker.FindStringSubmatch(reply)
	if m == nil {
		m = backupMarker.FindStringSubmatch(reply)
	}
	reason := "no [[rating]]"
	if m != nil {
		v, err := strconv.ParseFloat(m[1], 64)
		if err == nil && v >= longbenchchat.MinRating && v <= longbenchchat.MaxRating {
			return v, nil
		}
		reason = fmt.Sprintf("[[%s]] is not between %d and %d", m[1], longbenchchat.MinRating, longbenchchat.MaxRating)
	}
	tail := []rune(strings.TrimSpace(reply))
	return 0, &longbenchchat.RatingError{Reason: reason, Reply: string(tail[max(0, len(tail)-80):])}
}

// maxRowBytes bounds one row of the benchmark's files.
const maxRowBytes = 16 << 20

func eachRow(r io.Reader, name string, row func(raw []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxRowBytes)
	n := 1
	for ; lines.Scan(); n++ {
		raw := bytes.TrimSpace(lines.Bytes())
		if len(raw) == 0 {
			continue
		}
		err := errors.New("the line is not valid UTF-8")
		if utf8.Valid(raw) {
			err = row(raw)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s:%d: %w", name, n, err)
	}
	return nil
}
