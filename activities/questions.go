package activities

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/longbench"
	"github.com/longalign/longalign-go/datasets/longbenchchat"
	"github.com/longalign/longalign-go/datasets/mtbench"
	"github.com/longalign/longalign-go/datasets/needle"
	"github.com/longalign/longalign-go/datasets/tokenizer"
)

// questionsStage reads a benchmark's files. Outputs: questions.jsonl.zst (what a model is asked), references.jsonl.zst (what is needed to
// score its answers), and the benchmark's judge prompt. Later stages need no file outside of the store.
var questionsStage = stage{name: "questions", version: 2, describe: describeQuestions, outside: questionFiles, run: runQuestions}

// Files of the questions stage.
const (
	questionsFile  = "questions.jsonl.zst"
	referencesFile = "references.jsonl.zst"
	chatPromptFile = "judge-prompt.txt"
	mtPromptsFile  = "judge-prompts.jsonl"
)

// The files of MT-Bench, as FastChat names them.
const (
	mtQuestions  = "question.jsonl"
	mtReferences = "reference_answer/gpt-4.jsonl"
	mtPrompts    = "judge_prompts.jsonl"
)

// errEnough ends the reading of a file of which only the first samples are wanted.
var errEnough = errors.New("enough samples")

func decodeQuestions(raw json.RawMessage) (datasets.QuestionsParams, error) {
	p, err := decodeParams[datasets.QuestionsParams](raw)
	if err != nil {
		return p, err
	}
	switch p.Benchmark {
	case datasets.BenchmarkLongBench, datasets.BenchmarkLongBenchE:
		names := p.Datasets
		p.Datasets = nil
		for _, name := range names {
			d, err := longbench.Lookup(suite(p.Benchmark), name)
			if err != nil {
				return p, badConfig("benchmarks.%s.datasets: %w", p.Benchmark, err)
			}
			p.Datasets = append(p.Datasets, d.Name)
		}
		if len(names) == 0 {
			for _, d := range longbench.Datasets(suite(p.Benchmark)) {
				p.Datasets = append(p.Datasets, d.Name)
			}
		}
	case datasets.BenchmarkNeedle:
		n := datasets.NeedleParams{}
		if p.Needle != nil {
			n = *p.Needle
		}
		grid, test := needle.PaperGrid(), needle.Test{Needle: n.Needle, Question: n.Question, Expected: n.Expected}
		if len(n.Lengths) == 0 {
			n.Lengths = grid.Lengths
		}
		if len(n.Depths) == 0 {
			n.Depths = grid.Depths
		}
		if n.Question == "" {
			if test, err = needle.Lookup(cmp.Or(n.Needle, needle.Paper)); err != nil {
				return p, badConfig("benchmarks.needle: %w", err)
			}
			n.Needle, n.Question, n.Expected = test.Needle, test.Question, test.Expected
		}
		if n.MaxNewTokens == 0 {
			n.MaxNewTokens = 64
		}
		if err := errors.Join(test.Validate(), needle.Grid{Lengths: n.Lengths, Depths: n.Depths}.Validate()); err != nil {
			return p, badConfig("benchmarks.needle: %w", err)
		}
		p.Needle = &n
	case datasets.BenchmarkLongBenchChat, datasets.BenchmarkMTBench, datasets.BenchmarkEnQA:
	default:
		return p, badConfig("benchmark %q is not known to this worker", p.Benchmark)
	}
	return p, nil
}

func describeQuestions(raw json.RawMessage) (json.RawMessage, error) {
	p, err := decodeQuestions(raw)
	if err != nil {
		return nil, err
	}
	return meaning(p)
}

// suite is LongBench's own name of a benchmark.
func suite(benchmark string) longbench.Benchmark {
	if benchmark == datasets.BenchmarkLongBenchE {
		return longbench.LongBenchE
	}
	return longbench.LongBench
}

func runQuestions(ctx context.Context, j *job) error {
	p, err := decodeQuestions(j.call.Params)
	if err != nil {
		return err
	}
	files, err := openBenchmark(ctx, p)
	if err != nil {
		return err
	}
	defer files.Close()
	w, err := j.newQuestionWriter(ctx)
	if err != nil {
		return err
	}
	defer w.close()
	switch p.Benchmark {
	case datasets.BenchmarkLongBench, datasets.BenchmarkLongBenchE:
		err = readLongBench(files, p, w)
	case datasets.BenchmarkEnQA:
		err = readEnQA(files, p, w)
	case datasets.BenchmarkLongBenchChat:
		err = readLongBenchChat(files, p, w)
	case datasets.BenchmarkMTBench:
		err = readMTBench(files, p, w)
	case datasets.BenchmarkNeedle:
		var tok *tokenizer.Tokenizer
		if tok, err = j.tokenizer(ctx, "tokenizer"); err == nil {
			err = readNeedle(files, p, tok, w)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return placeError("benchmarks."+p.Benchmark, err)
	}
	return w.finish()
}

// questionWriter takes questions with their references, one at a time.
type questionWriter struct {
	ctx                   context.Context
	j                     *job
	questions, references *lineWriter
	n                     int64
}

func (j *job) newQuestionWriter(ctx context.Context) (*questionWriter, error) {
	q, err := newLines(filepath.Join(j.dir, questionsFile))
	if err != nil {
		return nil, err
	}
	r, err := newLines(filepath.Join(j.dir, referencesFile))
	if err != nil {
		return nil, errors.Join(err, q.close())
	}
	return &questionWriter{ctx: ctx, j: j, questions: q, references: r}, nil
}

func (w *questionWriter) close() { w.questions.close(); w.references.close() }

func (w *questionWriter) add(q datasets.Question, r datasets.Reference) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	r.ID, r.Dataset = q.ID, q.Dataset
	w.n++
	w.j.count(q.Dataset, 1)
	if w.n%50 == 0 {
		w.j.report(w.ctx, Progress{Done: w.n, Unit: "question"})
	}
	return errors.Join(w.questions.add(q), w.references.add(r))
}

// putText stores a judge prompt that comes with the benchmark.
func (w *questionWriter) putText(name string, text []byte) error {
	return w.j.put(w.ctx, name, "text/plain", bytes.NewReader(text))
}

func (w *questionWriter) finish() error {
	if err := errors.Join(w.questions.close(), w.references.close()); err != nil {
		return err
	}
	w.j.count("questions", w.n)
	for _, name := range []string{questionsFile, referencesFile} {
		if err := w.j.putFile(w.ctx, name, "application/zstd", filepath.Join(w.j.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// warn is told with the result.
func (w *questionWriter) warn(format string, args ...any) {
	w.j.manifest.Warnings = append(w.j.manifest.Warnings, fmt.Sprintf(format, args...))
}

func readLongBench(files *benchmarkFiles, p datasets.QuestionsParams, w *questionWriter) error {
	prompts, err := longbench.LoadPrompts(files.config)
	if err != nil {
		return err
	}
	for _, name := range p.Datasets {
		d, err := longbench.Lookup(suite(p.Benchmark), name)
		if err != nil {
			return err
		}
		file, found, err := longbench.OpenInputs(files.data, suite(p.Benchmark), d)
		if err != nil {
			return err
		}
		rows := 0
		err = longbench.ReadInputs(file, found, d, func(in longbench.Input) error {
			if p.MaxSamples > 0 && rows == p.MaxSamples {
				return errEnough
			}
			rows++
			text, most, err := prompts.Prompt(d, in)
			if err != nil {
				return err
			}
			q := datasets.Question{ID: d.Name + "/" + in.ID, Dataset: d.Name, Turns: []string{text}, Completion: d.Completion, StopAtNewline: d.StopAtNewline, MaxNewTokens: most}
			return w.add(q, datasets.Reference{Answers: in.Answers, AllClasses: in.AllClasses, Length: in.Length, Questions: []string{in.Input}})
		})
		file.Close()
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
		if want := d.RowsIn(suite(p.Benchmark)); rows != want && !errors.Is(err, errEnough) {
			w.warn("%s has %d rows, the benchmark's has %d: its score is incomplete or not comparable", found, rows, want)
		}
	}
	return nil
}

func readEnQA(files *benchmarkFiles, p datasets.QuestionsParams, w *questionWriter) error {
	file, err := files.data.Open(longbench.EnQAFile)
	if err != nil {
		return fmt.Errorf("%w; it comes with InfiniteBench", err)
	}
	defer file.Close()
	rows := 0
	err = longbench.ReadEnQA(file, longbench.EnQAFile, func(in longbench.Input) error {
		if p.MaxSamples > 0 && rows == p.MaxSamples {
			return errEnough
		}
		rows++
		q := datasets.Question{ID: longbench.EnQA + "/" + in.ID, Dataset: longbench.EnQA, Turns: []string{enQAPrompt(in)}, MaxNewTokens: longbench.EnQAMaxNewTokens}
		return w.add(q, datasets.Reference{Answers: in.Answers, Questions: []string{in.Input}})
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	w.j.note("asked with a prompt in our words: InfiniteBench's prompts are part of its program, not of its files")
	if rows != longbench.EnQARows && !errors.Is(err, errEnough) {
		w.warn("%s has %d rows, InfiniteBench's has %d: its score is incomplete or not comparable", longbench.EnQAFile, rows, longbench.EnQARows)
	}
	return nil
}

// enQAPrompt asks for a short answer, which both metrics want, in our words.
func enQAPrompt(in longbench.Input) string {
	return "Read the book and answer the question with a few words, as briefly as you can.\n\n" + in.Context + "\n\nQuestion: " + in.Input + "\nAnswer:"
}

// chatMaxNewTokens bounds an answer of LongBench-Chat, as its reference does.
const chatMaxNewTokens = 1024

func readLongBenchChat(files *benchmarkFiles, p datasets.QuestionsParams, w *questionWriter) error {
	cases, err := longbenchchat.Load(files.data)
	if err != nil {
		return err
	}
	text, err := fs.ReadFile(files.data, longbenchchat.PromptFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		w.warn("there is no %s: answers are judged with a prompt in our words, so that ratings are not comparable with published ones", longbenchchat.PromptFile)
	case err != nil:
		return err
	default:
		if _, err := longbenchchat.LoadTemplate(files.data); err != nil {
			return err
		}
		if err := w.putText(chatPromptFile, text); err != nil {
			return err
		}
	}
	for i, c := range cases {
		if p.MaxSamples > 0 && i == p.MaxSamples {
			break
		}
		r := datasets.Reference{Answers: []string{c.Answer}, Questions: []string{c.Query}, Category: c.Language, Index: c.Index}
		for _, e := range c.Examples {
			r.Examples = append(r.Examples, datasets.RatedExample{Answer: e.Answer, Rating: e.Score})
		}
		if err := w.add(datasets.Question{ID: c.ID(), Dataset: p.Benchmark, Turns: []string{c.Prompt}, MaxNewTokens: chatMaxNewTokens}, r); err != nil {
			return err
		}
	}
	return nil
}

// mtMaxNewTokens bounds an answer of MT-Bench, as the original does.
const mtMaxNewTokens = 1024

func readMTBench(files *benchmarkFiles, p datasets.QuestionsParams, w *questionWriter) error {
	questions, err := readFile(files.data, mtQuestions, mtbench.ReadQuestions)
	if err != nil {
		return err
	}
	file, err := files.data.Open(mtReferences)
	if err == nil {
		err = mtbench.AddReferences(questions, file, mtReferences)
		file.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, q := range questions {
		if q.NeedsReference() && len(q.Reference) < mtbench.Turns {
			return fmt.Errorf("question %d (%s) is judged against a reference and there is none, neither in %s nor in %s", q.ID, q.Category, mtQuestions, mtReferences)
		}
	}
	text, err := fs.ReadFile(files.data, mtPrompts)
	if err != nil {
		return fmt.Errorf("%w; it comes with MT-Bench", err)
	}
	if _, err := mtbench.ReadJudgePrompts(bytes.NewReader(text), mtPrompts); err != nil {
		return err
	}
	if err := w.putText(mtPromptsFile, text); err != nil {
		return err
	}
	for i, q := range questions {
		if p.MaxSamples > 0 && i == p.MaxSamples {
			break
		}
		err := w.add(datasets.Question{ID: fmt.Sprintf("mt-bench/%d", q.ID), Dataset: p.Benchmark, Turns: q.Turns, MaxNewTokens: mtMaxNewTokens, Temperature: q.Temperature()},
			datasets.Reference{Answers: q.Reference, Questions: q.Turns, Category: q.Category, Index: q.ID})
		if err != nil {
			return err
		}
	}
	return nil
}

func readFile[T any](fsys fs.FS, name string, read func(io.Reader, string) (T, error)) (T, error) {
	var zero T
	f, err := fsys.Open(name)
	if err != nil {
		return zero, err
	}
	defer f.Close()
	return read(f, name)
}

// ordinary is a tokenizer without special tokens, as texts are measured and cut.
type ordinary struct{ *tokenizer.Tokenizer }

func (t ordinary) Encode(text string) []int32 { return t.EncodeOrdinary(text) }

func (t ordinary) Decode(ids []int32) string { return t.Tokenizer.Decode(ids, true) }

func readNeedle(files *benchmarkFiles, p datasets.QuestionsParams, tok *tokenizer.Tokenizer, w *questionWriter) error {
	n := p.Needle
	hay, err := needle.Load(files.data, ordinary{tok}, slices.Max(n.Lengths))
	if err != nil {
		return err
	}
	test := needle.Test{Needle: n.Needle, Question: n.Question, Expected: n.Expected}
	for _, cell := range (needle.Grid{Lengths: n.Lengths, Depths: n.Depths}).Cells() {
		prompt, err := hay.Place(test, cell)
		if err != nil {
			return err
		}
		err = w.add(datasets.Question{ID: cell.ID(), Dataset: p.Benchmark, Turns: []string{prompt.Message(test)}, MaxNewTokens: n.MaxNewTokens},
			datasets.Reference{Answers: []string{n.Needle}, Questions: []string{n.Question}, Needle: &datasets.NeedlePlace{
				Length: cell.Length, Depth: cell.Depth, ActualDepth: prompt.ActualDepth, ActualTokens: prompt.ActualTokens, Needle: n.Needle, Expected: n.Expected,
			}})
		if err != nil {
			return err
		}
	}
	return nil
}
