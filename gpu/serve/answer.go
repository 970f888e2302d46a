package serve

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/longalign/longalign-go/gpu/llama"
)

// task is one choice of a request.
type task struct {
	prompt []int32
	text   *writer
	echo   string
	tokens []Token // reported so far, the prompt's too when echoed
}

// event is what happened to a choice.
type event struct {
	choice int
	text   string
	tokens []Token
	finish llama.FinishReason
	done   bool
	err    error
}

// request is what the two endpoints hand to answer.
type request struct {
	sampling
	prompts []prompt
	eos     []int32
	fresh   bool // answers do not continue the prompt's text
	echo    bool
	top     int
	maxNew  func(promptLen int) int
	release func() // its body is not needed any more
}

// launch checks a request and queues its choices.
func (s *Server) launch(ctx context.Context, r *request) ([]*task, *mailbox, error) {
	if err := r.check(s.opts.Name); err != nil {
		return nil, nil, err
	}
	if len(r.prompts) == 0 {
		return nil, nil, badRequest("prompt", "prompt is missing or an empty list")
	}
	if len(r.prompts)*r.choices() > maxChoices {
		return nil, nil, badRequest("prompt", "%d prompts with %d choices each; a request has between 1 and %d sequences", len(r.prompts), r.choices(), maxChoices)
	}
	if most, n := cap(s.engine.queue), len(r.prompts)*r.choices(); n > most {
		return nil, nil, badRequest("prompt", "%d sequences, more than the %d that this server takes at a time (slots and queue); send fewer in a request", n, most)
	}
	seed := randomSeed()
	if r.Seed != nil {
		seed = uint64(*r.Seed)
	}
	temperature, topP := 1.0, 1.0
	if r.Temperature != nil {
		temperature = *r.Temperature
	}
	if r.TopP != nil {
		topP = max(*r.TopP, math.SmallestNonzeroFloat64) // 0 leaves the likeliest token only; the sampler's 0 means all
	}
	var tasks []*task
	var jobs []*job
	for _, p := range r.prompts {
		ids := p.ids
		if ids == nil {
			ids = s.tok.Encode(p.text, true)
		}
		if len(ids) == 0 {
			return nil, nil, badRequest("prompt", "the prompt is empty; it needs at least one token")
		}
		for _, id := range ids {
			if int(id) >= s.model.Config().Vocab {
				return nil, nil, badRequest("prompt", "token %d is outside the vocabulary of %d", id, s.model.Config().Vocab)
			}
		}
		n := r.maxNew(len(ids))
		if n == 0 && r.MaxTokens == nil && r.MaxCompletionTokens == nil { // an answer gets what is left, and that is nothing
			return nil, nil, badRequest("prompt", "%d tokens leave no room for an answer in the context of %d and the server's memory; shorten the prompt, or name max_tokens where the server cuts long prompts",
				len(ids), s.model.Config().MaxPositions)
		}
		if n < 0 || n == 0 && !r.echo {
			return nil, nil, badRequest("max_tokens", "is %d for a prompt of %d tokens and a context of %d; it must be positive", n, len(ids), s.model.Config().MaxPositions)
		}
		if room := s.model.Config().MaxPositions - min(n, s.model.Config().MaxPositions); s.opts.TruncateMiddle && !r.echo && room > 0 {
			ids = llama.CutMiddle(ids, room)
		}
		if err := s.engine.check(len(ids), n); err != nil {
			return nil, nil, badRequest("prompt", "%v", err)
		}
		for range r.choices() {
			t := &task{prompt: ids}
			if r.fresh {
				t.text = newWriter(s.tok, nil, r.Stop)
			} else {
				t.text = newWriter(s.tok, ids, r.Stop)
			}
			if r.echo {
				t.echo = p.text
				if p.ids != nil {
					t.echo = s.tok.Decode(ids, true)
				}
			}
			tasks = append(tasks, t)
			jobs = append(jobs, &job{
				ctx: ctx, prompt: ids, maxNew: n, temperature: temperature, topP: topP, seed: seed + uint64(len(jobs)),
				eos: r.eos, top: r.top, echo: r.echo,
			})
		}
	}
	events := newMailbox() // the engine never waits for a slow client
	for i, j := range jobs {
		t := tasks[i]
		j.onPrompt = func(tokens []Token) { events.put(event{choice: i, text: t.echo, tokens: tokens}) }
		j.emit = func(tok Token) bool {
			e := event{choice: i, tokens: []Token{tok}}
			if !tok.End {
				e.text = t.text.next(tok.ID)
			}
			events.put(e)
			return !t.text.ended
		}
		j.done = func(finish llama.FinishReason, err error) {
			events.put(event{choice: i, text: t.text.flush(), finish: finish, done: true, err: err})
		}
	}
	if err := s.engine.submit(jobs); err != nil {
		return nil, nil, err
	}
	return tasks, events, nil
}

func randomSeed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.LittleEndian.Uint64(b[:])
}

// format writes the two endpoints' objects.
type format interface {
	object(stream bool) string
	// whole is a finished choice, chunk a part of one.
	whole(index int, text string, tokens []Token, finish llama.FinishReason) any
	chunk(index int, first bool, text string, tokens []Token, offset int, finish llama.FinishReason) any
}

type usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

type response struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	Model   string `json:"model"`
	Choices []any  `json:"choices"`
	Usage   *usage `json:"usage,omitempty"`
}

// answer runs a request and writes its outcome, at once or as a stream.
func (s *Server) answer(ctx context.Context, w http.ResponseWriter, r *request, f format) {
	// Ends the jobs when the handler returns early.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tasks, events, err := s.launch(ctx, r)
	r.release()
	if err != nil {
		writeError(w, err)
		return
	}
	out := response{ID: "cmpl-" + requestID(), Object: f.object(r.Stream), Created: time.Now().Unix(), Model: s.opts.Name}
	u := &usage{}
	for i := 0; i < len(tasks); i += r.choices() {
		u.PromptTokens += len(tasks[i].prompt)
	}
	var stream *eventStream
	if r.Stream {
		stream = &eventStream{w: w}
	}
	texts := make([]strings.Builder, len(tasks))
	offsets := make([]int, len(tasks))
	first := make([]bool, len(tasks))
	out.Choices = make([]any, len(tasks))
	for left := len(tasks); left > 0; {
		e := events.next(ctx)
		if e.err != nil {
			if stream != nil && stream.begun {
				stream.send(errorBody(e.err))
			} else {
				writeError(w, e.err)
			}
			return
		}
		t := tasks[e.choice]
		for _, tok := range e.tokens {
			if len(t.tokens) >= len(t.prompt) || !r.echo {
				u.CompletionTokens++
			}
			t.tokens = append(t.tokens, tok)
		}
		if e.done {
			left--
		}
		if stream == nil {
			texts[e.choice].WriteString(e.text)
			if e.done {
				out.Choices[e.choice] = f.whole(e.choice, texts[e.choice].String(), t.tokens, e.finish)
			}
			continue
		}
		part := out
		part.Choices = []any{f.chunk(e.choice, !first[e.choice], e.text, e.tokens, offsets[e.choice], e.finish)}
		first[e.choice] = true
		for _, tok := range e.tokens {
			offsets[e.choice] += len([]rune(s.spelling(tok.ID)))
		}
		if !stream.send(part) {
			return
		}
	}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	out.Usage = u
	if stream == nil {
		writeJSON(w, out)
		return
	}
	if r.StreamOptions.IncludeUsage {
		out.Choices = []any{}
		stream.send(out)
	}
	stream.end()
}

func requestID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// eventStream writes server-sent events.
type eventStream struct {
	w     http.ResponseWriter
	begun bool
}

func (s *eventStream) send(v any) bool {
	if !s.begun {
		s.w.Header().Set("Content-Type", "text/event-stream")
		s.w.Header().Set("Cache-Control", "no-cache")
		s.begun = true
	}
	data, err := json.Marshal(v)
	if err == nil {
		_, err = fmt.Fprintf(s.w, "data: %s\n\n", data)
	}
	return err == nil && http.NewResponseController(s.w).Flush() == nil
}

func (s *eventStream) end() {
	if _, err := io.WriteString(s.w, "data: [DONE]\n\n"); err == nil {
		_ = http.NewResponseController(s.w).Flush() // a client that has gone needs no end
	}
}
