package activities

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/chat"
	"github.com/longalign/longalign-go/datasets/longbench"
	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

// Files of the predictions stage when it answers a benchmark's questions: a row an answer, and the exact prompts as little-endian
// 32-bit token IDs.
const (
	answersFile = "predictions.jsonl"
	promptsFile = "prompts.bin"
)

// groupTokens bounds the prompts and answers that are in memory, and on the device, at once: several short questions or one long.
const groupTokens = 32768

// runAnswers answers a benchmark's questions, in their order. Answers that are there when the stage is stopped or killed are kept.
func runAnswers(ctx context.Context, j *job, p datasets.PredictionsStageParams) error {
	if p.Answer.Endpoint != nil {
		if err := answerByEndpoint(ctx, j, p); err != nil {
			return teacherError(err)
		}
		return nil
	}
	tok, err := j.tokenizer(ctx, "checkpoint")
	if err != nil {
		return err
	}
	template, err := chat.Resolve(p.Template, tok)
	if err != nil {
		return badConfig("benchmarks.template: %w", err)
	}
	if p.Answer.Benchmark == datasets.BenchmarkShortTasks {
		return runHarness(ctx, j, p, tok, template)
	}
	dev, err := j.a.device(ctx, p.Device, j.call.Class)
	if err != nil {
		return err
	}
	defer dev.Close()
	if info := dev.Info(); info.Kind != "host" {
		j.manifest.Platform.GPU, j.manifest.Platform.Driver = info.Name, info.Driver
	}
	dir, err := j.fetch(ctx, "checkpoint")
	if err != nil {
		return err
	}
	model, err := llama.Load(dir, dev, gpu.Float32)
	if err != nil {
		return badData("%w", err)
	}
	defer model.Close()
	window := model.Config().MaxPositions
	if p.MaxLength > 0 {
		window = min(window, p.MaxLength)
	}
	e := &engine{j: j, tok: tok, template: template, model: model, window: window, seed: p.Answer.Seed}
	if err := e.answerAll(ctx, p.Answer.Every); err != nil {
		return err
	}
	j.note("chat template %s; window of %d tokens, longer questions lose their middle; greedy but for questions that say a temperature, which draw from the whole distribution (top-p 1) with seed %d", template.Name(), window, p.Answer.Seed)
	return nil
}

// engine answers questions with one model.
type engine struct {
	j        *job
	tok      *tokenizer.Tokenizer
	template *chat.Template
	model    *llama.Model
	window   int // tokens of prompt and answer together
	seed     uint64
}

// asked is a question on its way to an answer.
type asked struct {
	question datasets.Question
	messages []datasets.Message
	answer   datasets.Answer
	prompts  [][]int32
	cut      []int
}

func (e *engine) answerAll(ctx context.Context, every int) error {
	log, err := e.j.openAnswerLog(ctx)
	if err != nil {
		return err
	}
	total, err := e.j.counted(ctx, "questions", "questions")
	if err != nil {
		return err
	}
	var group []*asked
	tokens, n := 0, int64(0)
	flush := func() error {
		if err := e.answer(ctx, group); err != nil {
			return err
		}
		for _, a := range group {
			log.add(a)
		}
		group, tokens = nil, 0
		e.j.report(ctx, Progress{Done: log.done(), Total: total, Unit: "answer"})
		if log.pending() < every {
			return nil
		}
		return log.save(ctx)
	}
	for q, err := range lines[datasets.Question](ctx, e.j, "questions", questionsFile) {
		if err != nil {
			return err
		}
		if n++; n <= log.done() {
			continue // answered before the stage was stopped
		}
		select {
		case <-e.j.stopping(ctx):
			if err := log.save(context.WithoutCancel(ctx)); err != nil {
				return err
			}
			return handover("the worker is stopping; %d answers are kept", log.done())
		default:
		}
		a := e.begin(q)
		size := q.MaxNewTokens
		for _, p := range a.prompts {
			size += len(p)
		}
		// Groups depend on the questions alone, so that a resumed stage forms the same ones: greedily, from where the last ended.
		if len(group) > 0 && (tokens+size > groupTokens || len(group) >= every) {
			if err := flush(); err != nil {
				return err
			}
		}
		group, tokens = append(group, a), tokens+size
	}
	if err := flush(); err != nil {
		return err
	}
	return log.finish(ctx)
}

// begin renders the first turn. What is wrong with a question is its answer's failure.
func (e *engine) begin(q datasets.Question) *asked {
	a := &asked{question: q, answer: datasets.Answer{ID: q.ID, Dataset: q.Dataset}}
	if !q.Completion {
		a.answer.Template = e.template.Name()
	}
	e.turn(a)
	return a
}

// turn adds the next turn's prompt.
func (e *engine) turn(a *asked) {
	a.messages = append(a.messages, datasets.Message{Role: datasets.RoleUser, Content: a.question.Turns[len(a.prompts)]})
	ids, cut, err := e.prompt(a.question, a.messages)
	if err != nil {
		a.answer.Failed = err.Error()
		return
	}
	a.prompts, a.cut = append(a.prompts, ids), append(a.cut, cut)
	a.answer.Truncated = a.answer.Truncated || cut > 0
}

// prompt renders a conversation within the window. The message that is longest loses its middle first, so that templates stay whole,
// as in the reference; what tokenizing it anew adds is taken away in a second pass.
func (e *engine) prompt(q datasets.Question, messages []datasets.Message) (ids []int32, cut int, err error) {
	room := e.window - q.MaxNewTokens
	if room < 16 {
		return nil, 0, fmt.Errorf("the answer may have %d tokens, the window has %d: nothing is left for the question", q.MaxNewTokens, e.window)
	}
	whole := 0
	messages = slices.Clone(messages)
	for range 5 {
		if ids, err = e.encode(q, messages); err != nil {
			return nil, 0, err
		}
		if whole == 0 {
			whole = len(ids)
		}
		over := len(ids) - room
		if over <= 0 {
			return ids, whole - len(ids), nil
		}
		longest := 0
		for i, m := range messages {
			if len(m.Content) > len(messages[longest].Content) {
				longest = i
			}
		}
		keep := e.tok.Count(messages[longest].Content) - over
		if keep < 2 {
			break
		}
		messages[longest].Content, _ = longbench.Truncate(ordinary{e.tok}, messages[longest].Content, keep&^1)
	}
	// Text that is no longer text (a model's random bytes) grows each time it is tokenized anew: its tokens are cut as they are.
	return llama.CutMiddle(ids, room), whole - room, nil
}

// encode gives the prompt's tokens. Special tokens come from the template or the tokenizer alone, once: what looks like one in a
// benchmark's text is text.
func (e *engine) encode(q datasets.Question, messages []datasets.Message) ([]int32, error) {
	if !q.Completion {
		return e.template.Prompt(e.tok, messages)
	}
	prefix, _ := e.tok.SpecialTokens()
	return append(slices.Clone(prefix), e.tok.EncodeOrdinary(messages[0].Content)...), nil
}

// answer generates the texts of a group, turn by turn.
func (e *engine) answer(ctx context.Context, group []*asked) error {
	for turn := 0; ; turn++ {
		var requests []llama.Request
		var of []*asked
		for _, a := range group {
			if a.answer.Failed == "" && turn < len(a.question.Turns) {
				requests = append(requests, e.request(a, turn))
				of = append(of, a)
			}
		}
		if len(requests) == 0 {
			return nil
		}
		made, err := e.model.Generate(ctx, requests)
		if err != nil {
			return err
		}
		for i, c := range made {
			a := of[i]
			text := e.tok.Decode(c.IDs, true)
			if a.question.StopAtNewline {
				text = firstLine(text)
			}
			a.answer.Texts, a.answer.Finish = append(a.answer.Texts, text), append(a.answer.Finish, string(c.Finish))
			if turn+1 < len(a.question.Turns) {
				a.messages = append(a.messages, datasets.Message{Role: datasets.RoleAssistant, Content: text})
				e.turn(a)
			}
		}
	}
}

func (e *engine) request(a *asked, turn int) llama.Request {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s %d", e.seed, a.question.ID, turn)
	r := llama.Request{Prompt: a.prompts[turn], MaxNewTokens: a.question.MaxNewTokens, Temperature: a.question.Temperature, Seed: h.Sum64()}
	r.Stop = func(ids []int32) bool {
		e.j.moves.Add(1) // a long answer is no standstill
		return a.question.StopAtNewline && strings.Contains(strings.TrimLeft(e.tok.Decode(ids, true), "\n"), "\n")
	}
	return r
}

// firstLine is the first line of a text that has one. The reference forbids the model to begin with a line break; here such ones are skipped.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimLeft(text, "\n"), "\n")
	return line
}

// counted is a count in the manifest of an input.
func (j *job) counted(ctx context.Context, role, name string) (int64, error) {
	m, err := j.input(ctx, role)
	if err != nil {
		return 0, err
	}
	return m.Counts[name], nil
}

func (j *job) countAnswer(a datasets.Answer) {
	if a.Failed != "" {
		j.count("failed", 1)
	}
	if a.Truncated {
		j.count("truncated", 1)
	}
}

// readAnswers reads the answers of a benchmark by ID.
func (j *job) readAnswers(ctx context.Context) (map[string]datasets.Answer, error) {
	r, err := j.open(ctx, "predictions", answersFile)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	all := map[string]datasets.Answer{}
	err = eachLine(r, answersFile, func(a datasets.Answer) error {
		if _, twice := all[a.ID]; twice {
			return fmt.Errorf("two answers have _id %s", a.ID)
		}
		all[a.ID] = a
		return nil
	})
	return all, err
}

// packTokens appends token IDs as they are in prompts.bin.
func packTokens(b []byte, ids []int32) []byte {
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return b
}
