package serve

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/longalign/longalign-go/datasets/chat"
	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/gpu/llama"
)

// Options configure a Server. Zero values mean the defaults named.
type Options struct {
	// Name is the model's name in requests.
	Name string
	// Template renders chats; nil refuses chat completions.
	Template *chat.Template
	// Token must be sent as "Authorization: Bearer …"; "" asks for none.
	Token string
	// Slots is how many sequences are decoded together (4); Queue how many more wait (64).
	Slots, Queue int
	// Timeout ends a request (10 minutes).
	Timeout time.Duration
	// CacheBytes bounds the keys and values of all sequences; 0 is a quarter of the device's memory.
	CacheBytes int64
	// MaxBody bounds a request's bytes (32 MiB).
	MaxBody int64
}

// Server is an http.Handler. Close it before the model.
type Server struct {
	opts    Options
	model   *llama.Model
	tok     *tokenizer.Tokenizer
	engine  *engine
	eos     []int32
	chatEOS []int32
	mux     *http.ServeMux
	started time.Time
}

// New returns a server of model, whose device it owns until Close.
func New(model *llama.Model, tok *tokenizer.Tokenizer, o Options) (*Server, error) {
	setDefault(&o.Slots, 4)
	setDefault(&o.Queue, 64)
	setDefault(&o.Timeout, 10*time.Minute)
	setDefault(&o.MaxBody, 32<<20)
	if o.CacheBytes == 0 {
		if o.CacheBytes = model.Device().Info().Memory / 4; o.CacheBytes == 0 {
			o.CacheBytes = 1 << 30
		}
	}
	if o.Slots < 0 || o.Queue < 0 || o.Timeout < 0 || o.CacheBytes < 0 {
		return nil, errors.New("serve: slots, queue, timeout and memory must be positive")
	}
	if n := tok.VocabSize(); n > model.Config().Vocab {
		return nil, fmt.Errorf("serve: the tokenizer has %d tokens, the model only %d; they do not belong together", n, model.Config().Vocab)
	}
	s := &Server{opts: o, model: model, tok: tok, mux: http.NewServeMux(), started: time.Now()}
	for _, id := range model.Config().EOS {
		s.eos = append(s.eos, int32(id))
	}
	if id, ok := tok.EOS(); ok {
		s.eos = append(s.eos, id)
	}
	s.chatEOS = slices.Clone(s.eos)
	if o.Template != nil {
		// The end of an assistant's turn is the last target of any conversation.
		ids, _, err := o.Template.Encode(tok, []chat.Message{{Role: "user", Content: "a"}, {Role: "assistant", Content: "b"}})
		if err != nil {
			return nil, fmt.Errorf("serve: %w", err)
		}
		s.chatEOS = append(s.chatEOS, ids[len(ids)-1])
	}
	s.engine = newEngine(model, o.Slots, o.Slots+o.Queue, o.CacheBytes)
	s.mux.HandleFunc("GET /v1/models", s.models)
	s.mux.HandleFunc("GET /v1/models/{id...}", s.modelByID)
	s.mux.HandleFunc("POST /v1/completions", s.completions)
	s.mux.HandleFunc("POST /v1/chat/completions", s.chatCompletions)
	s.mux.HandleFunc("GET /health", s.health)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, &apiError{http.StatusNotFound, "invalid_request_error", "", "no such path: " + r.Method + " " + r.URL.Path})
	})
	return s, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Close ends running requests and the use of the model.
func (s *Server) Close() { s.engine.close() }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.opts.Token != "" && r.URL.Path != "/health" {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || subtle.ConstantTimeCompare([]byte(given), []byte(s.opts.Token)) != 1 {
			writeError(w, &apiError{http.StatusUnauthorized, "invalid_request_error", "", "the bearer token is missing or wrong"})
			return
		}
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	if err := s.engine.failure(); err != nil {
		writeError(w, &apiError{http.StatusServiceUnavailable, "server_error", "", err.Error()})
		return
	}
	writeJSON(w, map[string]string{"status": "ok"})
}

type modelObject struct {
	ID            string `json:"id"`
	Object        string `json:"object"`
	Created       int64  `json:"created"`
	OwnedBy       string `json:"owned_by"`
	MaxModelLen   int    `json:"max_model_len"`
	ParameterSize int    `json:"parameters"`
}

func (s *Server) object() modelObject {
	return modelObject{s.opts.Name, "model", s.started.Unix(), "longalign", s.model.Config().MaxPositions, s.model.NumParams()}
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{"object": "list", "data": []modelObject{s.object()}})
}

func (s *Server) modelByID(w http.ResponseWriter, r *http.Request) {
	if id := r.PathValue("id"); id != s.opts.Name {
		writeError(w, &apiError{http.StatusNotFound, "invalid_request_error", "model", fmt.Sprintf("the model %q is not served here; use %q", id, s.opts.Name)})
		return
	}
	writeJSON(w, s.object())
}

// task is one choice of a request.
type task struct {
	prompt []int32
	text   *writer
	echo   string
	tokens []Token // reported so far, the prompt's too when echoed
	count  int     // new tokens
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
}

// launch checks a request and queues its choices.
func (s *Server) launch(ctx context.Context, r *request) ([]*task, <-chan event, error) {
	if err := r.check(s.opts.Name); err != nil {
		return nil, nil, err
	}
	if len(r.prompts) == 0 || len(r.prompts)*r.choices() > maxChoices {
		return nil, nil, badRequest("prompt", "%d prompts with %d choices each; a request has between 1 and %d sequences", len(r.prompts), r.choices(), maxChoices)
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
		topP = *r.TopP
	}
	var tasks []*task
	var jobs []*job
	room := 0
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
		if n < 0 || n == 0 && !r.echo {
			return nil, nil, badRequest("max_tokens", "is %d for a prompt of %d tokens and a context of %d; it must be positive", n, len(ids), s.model.Config().MaxPositions)
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
			room += n + 3
		}
	}
	events := make(chan event, room) // so that the engine never waits for a slow client
	for i, j := range jobs {
		t := tasks[i]
		j.onPrompt = func(tokens []Token) { events <- event{choice: i, text: t.echo, tokens: tokens} }
		j.emit = func(tok Token) bool {
			e := event{choice: i, tokens: []Token{tok}}
			if !tok.End {
				e.text = t.text.next(tok.ID)
			}
			events <- e
			return !t.text.ended
		}
		j.done = func(finish llama.FinishReason, err error) {
			events <- event{choice: i, text: t.text.flush(), finish: finish, done: true, err: err}
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

func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.opts.MaxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, &apiError{http.StatusRequestEntityTooLarge, "invalid_request_error", "", fmt.Sprintf("the request exceeds %d bytes", tooLarge.Limit)}
	}
	return body, err
}

func (s *Server) completions(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.opts.Timeout)
	defer cancel()
	body, err := s.readBody(w, r)
	var q completionRequest
	if err == nil {
		err = decodeRequest(body, &q, completionFields)
	}
	if err == nil && q.LogProbs != nil && (*q.LogProbs < 0 || *q.LogProbs > maxTop) {
		err = badRequest("logprobs", "is %d; it lies between 0 and %d", *q.LogProbs, maxTop)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	top := -1
	if q.LogProbs != nil {
		top = *q.LogProbs
	}
	req := &request{sampling: q.sampling, prompts: q.Prompt, eos: s.eos, echo: q.Echo, top: top, maxNew: func(int) int { return q.maxNew(16) }}
	s.answer(ctx, w, req, &completionFormat{server: s, logProbs: q.LogProbs != nil})
}

func (s *Server) chatCompletions(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.opts.Timeout)
	defer cancel()
	body, err := s.readBody(w, r)
	var q chatRequest
	if err == nil {
		err = decodeRequest(body, &q, chatFields)
	}
	var ids []int32
	switch {
	case err != nil:
	case s.opts.Template == nil:
		err = badRequest("messages", "this server has no chat template; use /v1/completions, or start it with one")
	case q.TopLogProbs != nil && (*q.TopLogProbs < 0 || *q.TopLogProbs > maxTop || !q.LogProbs):
		err = badRequest("top_logprobs", "is %d; it lies between 0 and %d and needs logprobs", *q.TopLogProbs, maxTop)
	default:
		messages := make([]chat.Message, len(q.Messages))
		for i, m := range q.Messages {
			messages[i] = m.Message
		}
		if ids, err = s.opts.Template.Prompt(s.tok, messages); err != nil {
			err = badRequest("messages", "%v", err)
		}
	}
	if err != nil {
		writeError(w, err)
		return
	}
	top := -1
	if q.LogProbs {
		top = 0
		if q.TopLogProbs != nil {
			top = *q.TopLogProbs
		}
	}
	req := &request{sampling: q.sampling, prompts: []prompt{{ids: ids}}, eos: s.chatEOS, fresh: true, top: top, maxNew: func(n int) int {
		return q.maxNew(max(0, s.model.Config().MaxPositions-n))
	}}
	s.answer(ctx, w, req, &chatFormat{server: s, logProbs: q.LogProbs})
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
		var e event
		select {
		case e = <-events:
		case <-ctx.Done():
			e.err = ctx.Err()
		}
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

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // fails only when the client has gone
}

// asAPI gives every error a status.
func asAPI(err error) *apiError {
	var api *apiError
	switch {
	case errors.As(err, &api):
		return api
	case errors.Is(err, ErrBusy):
		return &apiError{http.StatusTooManyRequests, "rate_limit_exceeded", "", err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &apiError{http.StatusGatewayTimeout, "timeout", "", "the request took longer than the server allows; ask for fewer tokens"}
	case errors.Is(err, context.Canceled):
		return &apiError{499, "canceled", "", "the client went away"}
	case errors.Is(err, errClosed):
		return &apiError{http.StatusServiceUnavailable, "server_error", "", err.Error()}
	}
	return &apiError{http.StatusInternalServerError, "server_error", "", err.Error()}
}

func errorBody(err error) any {
	api := asAPI(err)
	body := map[string]any{"message": api.message, "type": api.kind, "param": nil, "code": nil}
	if api.param != "" {
		body["param"] = api.param
	}
	return map[string]any{"error": body}
}

func writeError(w http.ResponseWriter, err error) {
	api := asAPI(err)
	w.Header().Set("Content-Type", "application/json")
	if api.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(api.status)
	_ = json.NewEncoder(w).Encode(errorBody(err)) // fails only when the client has gone
}
