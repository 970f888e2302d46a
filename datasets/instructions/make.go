package instructions

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sync/errgroup"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// RequestKey names a request for journals: the sha256 in hexadecimal of the canonical JSON of {model, parameters,
// messages, sample}. Equal keys ask for the same text.
func RequestKey(model string, parameters any, messages []datasets.Message, sample int) (string, error) {
	b, err := artifact.CanonicalJSON(struct {
		Model      string             `json:"model"`
		Parameters any                `json:"parameters"`
		Messages   []datasets.Message `json:"messages"`
		Sample     int                `json:"sample"`
	}{model, parameters, messages, sample})
	if err != nil {
		return "", fmt.Errorf("request key: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// Maker makes instances from documents.
type Maker struct {
	Teacher datasets.Teacher
	Params  datasets.InstructionsParams
	// Count measures texts in tokens; nil leaves the lengths out.
	Count func(text string) int
	// Concurrency is how many documents are worked on at once; default 1. The result does not depend on it.
	Concurrency int
	// DeadLetter is told of each instance that was given up, in the documents' order; nil tells nobody.
	DeadLetter func(datasets.DeadLetter) error

	prompts *Prompts
}

// Init fills in defaults and checks everything that can be wrong before the first request.
func (m *Maker) Init() error {
	m.Params = m.Params.Defaults()
	if err := m.Params.Validate(); err != nil {
		return fmt.Errorf("instructions: %w", err)
	}
	prompts, err := NewPrompts(m.Params.Prompts)
	if err != nil {
		return fmt.Errorf("instructions: %w", err)
	}
	m.prompts = prompts
	return nil
}

// result is what one document gave.
type result struct {
	instances []datasets.Instance
	dead      []datasets.DeadLetter
	report    datasets.InstructionsReport
	err       error
}

// Make asks about every document and gives write the instances in the documents' order. first is the number of the
// first document, for a shard. A question that fails after all attempts is counted and left out; an error of the teacher's that is none
// of this package's (a lost connection, a spent budget) ends it.
func (m *Maker) Make(ctx context.Context, documents iter.Seq2[datasets.Document, error], first int, write func(datasets.Instance) error) (datasets.InstructionsReport, error) {
	report := datasets.InstructionsReport{Teacher: m.Teacher.Describe()}
	if m.prompts == nil {
		if err := m.Init(); err != nil {
			return report, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Each document has a channel of its own, in a queue that keeps their order and bounds how many are begun: those in
	// the queue, and the one whose result is awaited.
	queue := make(chan chan result, max(1, m.Concurrency)-1)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(queue)
		number := first
		for d, err := range documents {
			if err != nil {
				return fmt.Errorf("instructions: %w", err)
			}
			done := make(chan result, 1)
			select {
			case queue <- done:
			case <-ctx.Done():
				return ctx.Err()
			}
			n := number
			go func() { done <- m.one(ctx, d, n) }()
			number++
		}
		return nil
	})
	group.Go(func() error {
		for done := range queue {
			r := <-done
			report.Add(r.report)
			if r.err != nil {
				return r.err
			}
			for _, d := range r.dead {
				if m.DeadLetter == nil {
					break
				}
				if err := m.DeadLetter(d); err != nil {
					return fmt.Errorf("instructions: %w", err)
				}
			}
			for _, i := range r.instances {
				if err := write(i); err != nil {
					return fmt.Errorf("instructions: %w", err)
				}
			}
		}
		return nil
	})
	return report, group.Wait()
}

// one makes the instances of one document.
func (m *Maker) one(ctx context.Context, d datasets.Document, number int) result {
	var r result
	per := m.Params.PerDocument
	if d.Split == datasets.SplitHeldOut {
		per = m.Params.PerHeldOut
	}
	d.Lang = promptLang(d.Lang)
	for k := range per {
		instance, err := m.ask(ctx, d, k, &r.report)
		if reason, ok := unusable(err); ok {
			count(&r.report.Failed, reason)
			r.dead = append(r.dead, datasets.DeadLetter{Document: d.ID, Copy: d.Copy, Instance: m.number(number, k), Lang: d.Lang, Reason: reason, Error: err.Error()})
			continue
		}
		if err != nil {
			r.err = fmt.Errorf("instructions: document %s: %w", d.ID, err)
			return r
		}
		instance.Meta.ID = m.number(number, k)
		r.instances = append(r.instances, instance)
		r.report.Instances++
		if d.Split == datasets.SplitHeldOut {
			r.report.HeldOut++
		}
		count(&r.report.Tasks, instance.Meta.Task)
		count(&r.report.Langs, d.Lang)
	}
	return r
}

// promptLang is the language of the templates for documents of a language: zh for Chinese however it is tagged (zh-CN, zh_Hant, cmn, yue, Chinese), else en.
func promptLang(lang string) string {
	primary, _, _ := strings.Cut(strings.ReplaceAll(strings.ToLower(strings.TrimSpace(lang)), "_", "-"), "-")
	switch primary {
	case "zh", "zho", "chi", "cmn", "yue", "chinese", "mandarin", "cantonese", "中文", "汉语":
		return "zh"
	}
	return "en"
}

// number is that of instance k of a document among all possible ones.
func (m *Maker) number(document, k int) int {
	return document*max(m.Params.PerDocument, m.Params.PerHeldOut) + k
}

// ask makes instance k of a document, with new samples while replies cannot be used.
func (m *Maker) ask(ctx context.Context, d datasets.Document, k int, report *datasets.InstructionsReport) (datasets.Instance, error) {
	rng := m.rand(d, k)
	task := m.Params.Tasks[rng.IntN(len(m.Params.Tasks))]
	request := datasets.TeacherRequest{Task: task, Lang: d.Lang, Document: d, Seed: rng.Uint64n(1 << 63)}
	var last error
	for attempt := range m.Params.Attempts {
		if last != nil {
			reason, _ := unusable(last)
			count(&report.Retried, reason)
		}
		// Instances of one document that drew the same task ask with different samples too, and so do copies: of an up-sampled document each
		// one is asked about independently.
		request.Sample = (d.Copy*m.Params.PerDocument+k)*m.Params.Attempts + attempt
		var instance datasets.Instance
		if instance, last = m.attempt(ctx, request, rng, report); last == nil {
			return instance, nil
		}
		if _, ok := unusable(last); !ok || errors.Is(last, ErrRejected) || errors.Is(last, ErrMalformed) || errors.Is(last, ErrUnanswered) {
			// Each was tried several times already, or cannot be served at all.
			return datasets.Instance{}, last
		}
	}
	return datasets.Instance{}, last
}

func (m *Maker) attempt(ctx context.Context, request datasets.TeacherRequest, rng *datasets.Rand, report *datasets.InstructionsReport) (datasets.Instance, error) {
	d := request.Document
	ask := func() (datasets.TeacherReply, error) {
		reply, err := m.Teacher.Ask(ctx, request)
		report.InputTokens += int64(reply.InputTokens)
		report.OutputTokens += int64(reply.OutputTokens)
		if err != nil {
			return reply, err
		}
		// What the offline teacher quotes from a document stays as it is there.
		if reply.QuestionKind == "" {
			rest, had, err := StripReasoning(reply.Text)
			if had {
				report.Reasoning++
			}
			if err != nil {
				return reply, err
			}
			reply.Text = rest
			if strings.ContainsFunc(reply.Text, func(r rune) bool { return r < ' ' && !unicode.IsSpace(r) || r == 0x7f }) {
				return reply, ErrControl
			}
		}
		switch {
		case reply.Finish == "refusal":
			return reply, ErrRefused
		case strings.TrimSpace(reply.Text) == "":
			return reply, ErrEmptyReply
		case reply.Finish == "length":
			return reply, ErrCutOff
		}
		return reply, nil
	}
	var err error
	request.Kind = datasets.RequestPropose
	if request.Messages, err = m.prompts.Propose(d, request.Task, m.Params.Questions); err != nil {
		return datasets.Instance{}, err
	}
	proposal, err := ask()
	if err != nil {
		return datasets.Instance{}, err
	}
	questions, err := ParseQuestions(proposal.Text)
	if err != nil {
		return datasets.Instance{}, err
	}
	request.Kind = datasets.RequestAnswer
	request.Question = questions[rng.IntN(len(questions))]
	if request.Messages, err = m.prompts.Answer(d, request.Question); err != nil {
		return datasets.Instance{}, err
	}
	answer, err := ask()
	if err != nil {
		return datasets.Instance{}, err
	}
	if Refused(answer.Text) {
		return datasets.Instance{}, ErrRefused
	}
	text := strings.TrimSpace(answer.Text)
	meta := &datasets.InstanceMeta{
		Document: d.ID, Split: d.Split, Task: request.Task, Lang: d.Lang, Teacher: m.Teacher.Describe(),
		Kind: answer.QuestionKind, Needle: answer.Needle, DocumentTokens: d.Tokens,
	}
	if m.Count != nil {
		meta.AnswerTokens = m.Count(text)
	}
	messages := append(request.Messages, datasets.Message{Role: datasets.RoleAssistant, Content: text})
	return datasets.Instance{Messages: messages, Meta: meta}, nil
}

// rand returns the randomness of instance k of a document: the first 16 bytes of the sha256 of seed, ID, copy and k.
func (m *Maker) rand(d datasets.Document, k int) *datasets.Rand {
	sum := sha256.Sum256([]byte(strings.Join([]string{"instructions", strconv.FormatUint(m.Params.Seed, 10), d.ID, strconv.Itoa(d.Copy), strconv.Itoa(k)}, "\x00")))
	return datasets.NewRand(binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:]))
}

// unusable says in a report's words why a reply cannot be used; ok is false for other errors.
func unusable(err error) (reason string, ok bool) {
	for reason, target := range map[string]error{
		"refused": ErrRefused, "no question": ErrNoQuestions, "cut off": ErrCutOff, "empty": ErrEmptyReply,
		"malformed": ErrMalformed, "rejected": ErrRejected, "control characters": ErrControl, "unanswered": ErrUnanswered,
	} {
		if errors.Is(err, target) {
			return reason, true
		}
	}
	return "", false
}

func count[K comparable](counts *map[K]int, k K) {
	if *counts == nil {
		*counts = map[K]int{}
	}
	(*counts)[k]++
}
