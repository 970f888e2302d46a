package longbench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/longalign/longalign-go/datasets/longbench/pytext"
)

// Prediction is one row of a predictions file: a model's answer to one sample
// with what is needed to score it. The reference writes pred, answers,
// all_classes and length; the other fields are ours and may be absent.
type Prediction struct {
	ID         string   `json:"_id,omitempty"`
	Pred       string   `json:"pred"`
	Answers    []string `json:"answers"`
	AllClasses []string `json:"all_classes"`
	// Length is the input's length as the benchmark counts it, by which
	// LongBench-E sorts samples into buckets.
	Length *int `json:"length,omitempty"`
	// Failed says why there is no prediction. Such a row has no score.
	Failed string `json:"failed,omitempty"`
	// Truncated says that the input did not fit the model's window.
	Truncated bool `json:"truncated,omitempty"`
	// Dataset and Language, where given, must be those of the file.
	Dataset  string `json:"dataset,omitempty"`
	Language string `json:"language,omitempty"`
	// Line is where the row stands in its file, from 1.
	Line int `json:"-"`
}

// MaxRowBytes bounds one row of a file: a book and its answers fit many times.
const MaxRowBytes = 256 << 20

// RowError is a row that cannot be used.
type RowError struct {
	File string
	Line int
	Err  error
}

func (e *RowError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

func (e *RowError) Unwrap() error { return e.Err }

// ReadPredictions reads a predictions file of dataset d. name is used in errors,
// which are *RowError where a row is at fault.
func ReadPredictions(r io.Reader, name string, d Dataset) ([]Prediction, error) {
	var rows []Prediction
	err := eachRow(r, name, func(line int, raw []byte) error {
		p, err := parsePrediction(raw)
		if err != nil {
			return err
		}
		p.Line = line
		if err := belongs(d, p.Dataset, p.Language); err != nil {
			return err
		}
		rows = append(rows, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s has no rows", name)
	}
	return rows, nil
}

// parsePrediction reads a row by the exact names of its fields, as Python does. What else a program has put there is not looked at.
func parsePrediction(raw []byte) (p Prediction, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return p, err
	}
	var pred *string
	var length *float64
	for _, f := range []struct {
		name, want string
		to         any
	}{
		{"pred", "a text", &pred},
		{"answers", "a list of texts", &p.Answers},
		{"all_classes", "a list of texts, or null", &p.AllClasses},
		{"length", "a number", &length},
		{"failed", "the reason, a text", &p.Failed},
		{"truncated", "true or false", &p.Truncated},
		{"dataset", "a text", &p.Dataset},
		{"language", "a text", &p.Language},
	} {
		if raw, ok := fields[f.name]; ok && json.Unmarshal(raw, f.to) != nil {
			return p, fmt.Errorf("%q is %s; want %s", f.name, shortened(raw), f.want)
		}
	}
	if id := fields["_id"]; len(id) > 0 && json.Unmarshal(id, &p.ID) != nil {
		p.ID = string(id) // a number, in some programs' files
	}
	switch {
	case pred == nil && p.Failed == "":
		return p, errors.New(`no "pred"; is this a predictions file?`)
	case len(p.Answers) == 0:
		return p, errors.New(`no "answers"; a prediction cannot be scored without them`)
	}
	if pred != nil {
		p.Pred = *pred
	}
	if length != nil {
		n := int(*length)
		p.Length = &n
	}
	return p, nil
}

// shortened is a value for an error message.
func shortened(raw json.RawMessage) string {
	const most = 40
	if r := []rune(string(raw)); len(r) > most {
		return string(r[:most]) + "…"
	}
	return string(raw)
}

// belongs checks a row's own statement of what it is part of.
func belongs(d Dataset, dataset, language string) error {
	if dataset != "" && dataset != d.Name && dataset != d.Name+"_e" {
		return fmt.Errorf("row of dataset %q in the file of %s", dataset, d.Name)
	}
	// The benchmark labels the language of code datasets as a programming language.
	if language != "" && d.Language != CodeLanguage && language != string(d.Language) {
		return fmt.Errorf("row in language %q in dataset %s, which is %s; do not mix languages in one file", language, d.Name, d.Language)
	}
	return nil
}

// eachRow calls row with every line of r that is not blank, streaming. The bytes
// are valid until the next call.
func eachRow(r io.Reader, name string, row func(line int, raw []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), MaxRowBytes)
	n := 0
	for lines.Scan() {
		n++
		raw := bytes.TrimSpace(lines.Bytes())
		if len(raw) == 0 {
			continue
		}
		err := error(nil)
		if !utf8.Valid(raw) {
			err = errors.New("the line is not valid UTF-8")
		} else {
			err = row(n, pytext.JSON(raw))
		}
		if err != nil {
			return &RowError{File: name, Line: n, Err: err}
		}
	}
	if err := lines.Err(); err != nil {
		return &RowError{File: name, Line: n + 1, Err: err}
	}
	return nil
}
