package longbench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// Input is one sample of the benchmark, a row of its data files.
type Input struct {
	ID         string   `json:"_id"`
	Input      string   `json:"input"`
	Context    string   `json:"context"`
	Answers    []string `json:"answers"`
	Length     int      `json:"length"`
	Dataset    string   `json:"dataset"`
	Language   string   `json:"language"`
	AllClasses []string `json:"all_classes"`
	// Line is where the row stands in its file, from 1.
	Line int `json:"-"`
}

// ReadInputs streams the rows of a data file of dataset d to each, so that memory holds
// one row. A row without id, context or answers, of another dataset or language, or with an id
// seen before is a *RowError, and so is what each returns.
func ReadInputs(r io.Reader, name string, d Dataset, each func(Input) error) error {
	seen := map[string]int{}
	err := eachRow(r, name, func(line int, raw []byte) error {
		in := Input{Line: line}
		if err := json.Unmarshal(raw, &in); err != nil {
			return err
		}
		switch {
		case in.ID == "":
			return errors.New(`no "_id", by which predictions are matched`)
		case in.Context == "":
			return errors.New(`no "context"; is this a file of benchmark inputs?`)
		case len(in.Answers) == 0:
			return errors.New(`no "answers"; the sample could not be scored`)
		}
		if first, ok := seen[in.ID]; ok {
			return fmt.Errorf("_id %s was on line %d already; remove the duplicate", in.ID, first)
		}
		seen[in.ID] = line
		if err := belongs(d, in.Dataset, in.Language); err != nil {
			return err
		}
		return each(in)
	})
	if err == nil && len(seen) == 0 {
		return fmt.Errorf("%s has no rows", name)
	}
	return err
}

// OpenInputs finds the data file of d in fsys, the benchmark's unpacked directory or
// its archive opened with zip.NewReader: DATASET.jsonl, or DATASET_e.jsonl for LongBench-E,
// at the root or in data/.
func OpenInputs(fsys fs.FS, b Benchmark, d Dataset) (file fs.File, name string, err error) {
	base := d.Name
	if b == LongBenchE {
		base += "_e"
	}
	for _, dir := range []string{".", "data"} {
		name = path.Join(dir, base+".jsonl")
		if file, err = fsys.Open(name); err == nil {
			return file, name, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, "", err
		}
	}
	return nil, "", fmt.Errorf("%s has no %s.jsonl: %w; unpack the benchmark's data.zip or fetch it with `starter fetch longbench`", b, base, fs.ErrNotExist)
}

// Prompts holds the benchmark's prompt formats and generation limits, from its
// own dataset2prompt.json and dataset2maxlen.json.
type Prompts struct {
	formats map[string]string
	maxNew  map[string]int
}

// The benchmark's configuration files.
const (
	PromptFile = "dataset2prompt.json"
	MaxLenFile = "dataset2maxlen.json"
)

// LoadPrompts reads the two files from fsys, at the root or in config/.
func LoadPrompts(fsys fs.FS) (*Prompts, error) {
	p := new(Prompts)
	if err := readConfig(fsys, PromptFile, &p.formats); err != nil {
		return nil, err
	}
	if err := readConfig(fsys, MaxLenFile, &p.maxNew); err != nil {
		return nil, err
	}
	for name, n := range p.maxNew {
		if n <= 0 {
			return nil, fmt.Errorf("%s: %s may generate %d tokens; want a positive number", MaxLenFile, name, n)
		}
	}
	for name, format := range p.formats {
		if _, err := fill(format, "", ""); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", PromptFile, name, err)
		}
	}
	return p, nil
}

func readConfig(fsys fs.FS, name string, to any) error {
	raw, err := fs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		raw, err = fs.ReadFile(fsys, path.Join("config", name))
	}
	if err != nil {
		return fmt.Errorf("%w; it comes with the benchmark (LongBench/config)", err)
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Prompt is the user message for a sample and the number of tokens the model may
// generate.
func (p *Prompts) Prompt(d Dataset, in Input) (text string, maxNewTokens int, err error) {
	format, ok := p.formats[d.Name]
	if !ok {
		return "", 0, fmt.Errorf("%s has no prompt for %s", PromptFile, d.Name)
	}
	maxNewTokens, ok = p.maxNew[d.Name]
	if !ok {
		return "", 0, fmt.Errorf("%s has no length for %s", MaxLenFile, d.Name)
	}
	text, err = fill(format, in.Context, in.Input)
	return text, maxNewTokens, err
}

// fill is Python's format.format(context=…, input=…), of which the benchmark uses
// plain fields and doubled braces. Braces in the values are left alone.
func fill(format, context, input string) (string, error) {
	var b strings.Builder
	b.Grow(len(format) + len(context) + len(input))
	for format != "" {
		i := strings.IndexAny(format, "{}")
		if i < 0 {
			b.WriteString(format)
			break
		}
		b.WriteString(format[:i])
		rest := format[i:]
		field, after, closed := strings.Cut(rest[1:], "}")
		switch {
		case strings.HasPrefix(rest, "{{"), strings.HasPrefix(rest, "}}"):
			b.WriteByte(rest[0])
			format = rest[2:]
			continue
		case rest[0] == '}' || !closed:
			return "", errors.New("prompt with a single brace; double it to mean a brace")
		case field == "context":
			b.WriteString(context)
		case field == "input":
			b.WriteString(input)
		default:
			return "", fmt.Errorf("prompt with field {%s}; samples have {context} and {input}", field)
		}
		format = after
	}
	return b.String(), nil
}

// Tokenizer turns text into the model's tokens and back. Encode adds no special
// tokens; Decode leaves them out.
type Tokenizer interface {
	Encode(text string) []int32
	Decode(ids []int32) string
}

// Truncate shortens a prompt to the model's window of maxTokens by cutting out its
// middle: instructions stand at both ends. As in the reference, the first and the last
// maxTokens/2 tokens are kept and decoded to text, so that a template can be put
// around it; encoded again, that text may be a few tokens longer or shorter.
// The window is for the prompt alone: leave room for template and answer.
func Truncate(tok Tokenizer, prompt string, maxTokens int) (text string, truncated bool) {
	ids := tok.Encode(prompt)
	if len(ids) <= maxTokens {
		return prompt, false
	}
	half := max(maxTokens/2, 0)
	return tok.Decode(ids[:half]) + tok.Decode(ids[len(ids)-half:]), true
}
