package serve

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
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
	// TruncateMiddle cuts the middle out of a prompt that does not fit the context together with the tokens asked for;
	// otherwise it is refused. An echoed prompt is never cut: its log-probabilities are those of the whole.
	TruncateMiddle bool
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
	bodies  atomic.Int64  // bytes of the requests that are being read and made tokens
	grace   time.Duration // beyond opts.Timeout, for a client to take its answer
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
	s := &Server{opts: o, model: model, tok: tok, mux: http.NewServeMux(), started: time.Now(), grace: 10 * time.Second}
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
	// A client that stops reading must not hold its connection for ever. Not every writer can; net/http's can.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.opts.Timeout + s.grace))
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

// readBody reads a request's body. release gives its share of what all bodies may take together back; it is never nil.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	held := &heldReader{r: http.MaxBytesReader(w, r.Body, s.opts.MaxBody), all: &s.bodies, most: 2 * s.opts.MaxBody}
	body, err = io.ReadAll(held)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		err = &apiError{http.StatusRequestEntityTooLarge, "invalid_request_error", "", fmt.Sprintf("the request exceeds %d bytes", tooLarge.Limit)}
	}
	return body, held.release, err
}

// heldReader counts what it reads into what all requests hold, and refuses to pass the most. A prompt takes some twenty times its size
// while it becomes tokens, so that a few large ones at once would take a server's memory.
type heldReader struct {
	r    io.Reader
	all  *atomic.Int64
	most int64
	own  int64
}

func (h *heldReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.own += int64(n)
	if h.all.Add(int64(n)) > h.most {
		return n, ErrBusy
	}
	return n, err
}

func (h *heldReader) release() {
	h.all.Add(-h.own)
	h.own = 0
}

func (s *Server) completions(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.opts.Timeout)
	defer cancel()
	body, release, err := s.readBody(w, r)
	defer release()
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
	req := &request{sampling: q.sampling, release: release, prompts: q.Prompt, eos: s.eos, echo: q.Echo, top: top, maxNew: func(int) int { return q.maxNew(16) }}
	s.answer(ctx, w, req, &completionFormat{server: s, logProbs: q.LogProbs != nil})
}

func (s *Server) chatCompletions(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.opts.Timeout)
	defer cancel()
	body, release, err := s.readBody(w, r)
	defer release()
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
	req := &request{sampling: q.sampling, release: release, prompts: []prompt{{ids: ids}}, eos: s.chatEOS, fresh: true, top: top, maxNew: func(n int) int {
		return q.maxNew(s.engine.room(n))
	}}
	s.answer(ctx, w, req, &chatFormat{server: s, logProbs: q.LogProbs})
}
