// Package llm asks language models over HTTP: OpenAI-compatible services and Anthropic's. It stands behind
// datasets.Teacher for the instructions stage.
//
// Order of one request: journal → budget → limits → HTTP, again after what may mend itself → journal.
//
//	Pool      one Endpoint for each configuration of a process, so that all stages share its limits
//	Endpoint  a model at an address: key, limits, retries
//	Teacher   an Endpoint with a journal in the artifact store and a budget
//
// Prices are USD for a million tokens, costs USD. Every problem of every request is counted by kind (the Problem constants).
//
// A reply is stored under instructions.RequestKey the moment it is there. Whoever asks the same again, after a crash or in another run,
// gets the stored reply: only requests under way when a process was killed are sent again, and they are counted.
//
// Secrets are read from the environment or a file for each request and are in nothing that this package returns: texts of
// errors and replies are cleaned of them.
package llm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/longalign/longalign-go/datasets"
)

// Problem is what went wrong with a request, in a report's words.
type Problem string

// The problems.
const (
	RateLimited Problem = "rate limited" // 429; tried again when the service says
	ServerError Problem = "server error" // 408, 409 and 5xx; tried again
	TimedOut    Problem = "timed out"    // no reply within the endpoint's timeout; tried again
	Unreachable Problem = "unreachable"  // no connection, or one that broke; tried again
	// When every try ends in one of those three while the service answers other requests, it is this request: CallError.Alone.

	Malformed Problem = "malformed" // a reply that is none; tried again
	Rejected  Problem = "rejected"  // this request cannot be served, for example as too long; not tried again
	Denied    Problem = "denied"    // key, model or account; no request can be served
)

// CallError is a request that got no reply that can be used.
type CallError struct {
	Problem Problem
	Status  int           // HTTP status, 0 without a response
	Message string        // the service's, without secrets
	After   time.Duration // when the service said to come back; 0 when it did not
	Tries   int
	// Billed tells that the service may have charged for the try: it had begun to answer, or was not waited for.
	Billed bool
	// Alone tells that the service answers others: waiting would not help this request.
	Alone bool
}

// Error reads "the endpoint rejected the request (400): …".
func (e *CallError) Error() string {
	var b strings.Builder
	b.WriteString("request " + string(e.Problem))
	if e.Status != 0 {
		fmt.Fprintf(&b, " (status %d)", e.Status)
	}
	if e.Tries > 1 {
		fmt.Fprintf(&b, " after %d tries", e.Tries)
	}
	if e.Alone {
		b.WriteString(", while the service answers others")
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	return b.String()
}

// Fatal tells that no request to the endpoint can succeed until a person changes something.
func (e *CallError) Fatal() bool { return e.Problem == Denied }

// Waits tells that the same request may succeed later.
func (e *CallError) Waits() bool {
	switch e.Problem {
	case RateLimited, ServerError, TimedOut, Unreachable:
		return true
	}
	return false
}

// mayBeAlone tells that the request itself may be what the service fails at, and not the service.
func (e *CallError) mayBeAlone() bool { return e.Waits() && e.Problem != RateLimited }

// completer is one service's way to be asked once. It returns *CallError for what the service answers.
type completer interface {
	complete(ctx context.Context, key string, messages []datasets.Message) (datasets.TeacherReply, error)
	models(ctx context.Context, key string) ([]string, error)
}

// Endpoint is a model at an address. It is safe for concurrent use.
type Endpoint struct {
	params datasets.EndpointParams
	client completer
	// prober asks for a few tokens only, to learn whether the service answers anything.
	prober completer
	limits *limits
	// answered counts replies to whomever.
	answered atomic.Int64
	slots    chan struct{} // one for each request that may be under way
	// first and tries are the wait before the second try, and how many there are.
	first time.Duration
	tries int
	// farewell is how long replies to what was sent are waited for after the end.
	farewell time.Duration
}

// defaultTries, with waits that double from a second to a minute, outlast some minutes of trouble. Longer ones are waited
// out by the workflow, which can say so.
const defaultTries = 8

// Open prepares an endpoint, with share of its limits (1: all). It reads the key once, to say early when it is not there.
func Open(p datasets.EndpointParams, share float64) (*Endpoint, error) {
	p = p.Defaults()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	e := &Endpoint{params: p, limits: newLimits(p, share), slots: make(chan struct{}, p.Concurrency), first: time.Second, tries: defaultTries, farewell: 20 * time.Second}
	if _, err := e.key(); err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &transport{http.DefaultTransport, e.limits}}
	open := func(p datasets.EndpointParams) completer { return newOpenAI(p, client) }
	if p.Kind == datasets.EndpointAnthropic {
		open = func(p datasets.EndpointParams) completer { return newAnthropic(p, client) }
	}
	e.client = open(p)
	p.MaxTokens = min(p.MaxTokens, probeTokens)
	e.prober = open(p)
	return e, nil
}

// Params returns the endpoint's parameters with defaults filled in.
func (e *Endpoint) Params() datasets.EndpointParams { return e.params }

// KeyError is an API key that is not where the endpoint says.
type KeyError struct{ Where, Reason string }

func (e *KeyError) Error() string {
	return fmt.Sprintf("API key: %s %s; set it where the worker runs", e.Where, e.Reason)
}

// key reads the secret. It does so for each request, so that a replaced key is used at once.
func (e *Endpoint) key() (string, error) {
	switch {
	case e.params.KeyEnv != "":
		k := strings.TrimSpace(os.Getenv(e.params.KeyEnv))
		if k == "" {
			return "", &KeyError{"environment variable " + e.params.KeyEnv, "is not set"}
		}
		return k, nil
	case e.params.KeyFile != "":
		b, err := os.ReadFile(e.params.KeyFile)
		if err != nil {
			return "", &KeyError{"file " + e.params.KeyFile, "cannot be read"}
		}
		k := strings.TrimSpace(string(b))
		if k == "" || strings.ContainsAny(k, "\r\n") {
			return "", &KeyError{"file " + e.params.KeyFile, "is not one line with the key"}
		}
		return k, nil
	}
	return "", nil
}

// Ask sends a conversation and returns the reply. What may mend itself is tried again, with growing waits or when the service
// said; failed is told of every try that gave no reply, and sent is called before each: its error ends the asking.
func (e *Endpoint) Ask(ctx context.Context, messages []datasets.Message, sent func(context.Context) error, failed func(*CallError)) (datasets.TeacherReply, error) {
	if err := e.enter(ctx); err != nil {
		return datasets.TeacherReply{}, err
	}
	defer e.leave()
	return e.ask(ctx, messages, sent, failed)
}

// enter waits until one more request may be under way; leave ends it.
func (e *Endpoint) enter(ctx context.Context) error {
	select {
	case e.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *Endpoint) leave() { <-e.slots }

func (e *Endpoint) ask(ctx context.Context, messages []datasets.Message, sent func(context.Context) error, failed func(*CallError)) (datasets.TeacherReply, error) {
	tries, malformed := 0, 0
	var last *CallError
	policy := backoff.NewExponentialBackOff()
	policy.InitialInterval, policy.MaxInterval = e.first, 60*e.first
	reply, err := backoff.Retry(ctx, func() (datasets.TeacherReply, error) {
		tries++
		reply, err := e.once(ctx, e.client, messages, e.params.MaxTokens, sent)
		var call *CallError
		if !errors.As(err, &call) {
			if err != nil {
				err = backoff.Permanent(err)
			}
			return reply, err
		}
		call.Tries, last = tries, call
		failed(call)
		if call.Problem == Malformed {
			malformed++
		}
		switch {
		case call.Problem == Malformed && malformed < 3, call.Waits():
			if call.After > 0 {
				// The limits hold back every request until then; this one joins the queue.
				return reply, &backoff.RetryAfterError{Duration: min(call.After, e.first)}
			}
			return reply, call
		}
		return reply, backoff.Permanent(call)
	}, backoff.WithBackOff(policy), backoff.WithMaxTries(uint(e.tries)), backoff.WithMaxElapsedTime(0))
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		err = permanent.Unwrap()
	}
	var after *backoff.RetryAfterError
	if errors.As(err, &after) { // it hides what the service said last
		err = last
	}
	return reply, err
}

// Of a probe: what is asked, and how many tokens its reply may have.
const (
	probeText   = "Say yes."
	probeTokens = 16
)

// probe asks the service for a word, once.
func (e *Endpoint) probe(ctx context.Context, messages []datasets.Message, sent func(context.Context) error) (datasets.TeacherReply, error) {
	return e.once(ctx, e.prober, messages, probeTokens, sent)
}

func (e *Endpoint) once(ctx context.Context, client completer, messages []datasets.Message, maxTokens int, sent func(context.Context) error) (datasets.TeacherReply, error) {
	key, err := e.key()
	if err != nil {
		return datasets.TeacherReply{}, err
	}
	estimate := estimateTokens(messages) + maxTokens
	if err := e.limits.wait(ctx, estimate); err != nil {
		return datasets.TeacherReply{}, err
	}
	if err := sent(ctx); err != nil {
		return datasets.TeacherReply{}, err
	}
	timed, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.params.RequestTimeout())
	defer cancel()
	// What was sent is paid for: its reply is waited for a little longer than anybody wants it, to be journaled.
	defer context.AfterFunc(ctx, func() {
		select {
		case <-timed.Done():
		case <-time.After(e.farewell):
			cancel()
		}
	})()
	reply, err := client.complete(timed, key, messages)
	if err == nil {
		e.answered.Add(1)
		e.limits.correct(estimate, reply.InputTokens+reply.OutputTokens)
		reply.Text = clean(reply.Text, key)
		return reply, nil
	}
	if ctx.Err() != nil {
		return reply, ctx.Err()
	}
	call := transportError(err)
	call.Message = short(clean(call.Message, key))
	if call.After > 0 {
		e.limits.pause(call.After)
	}
	return reply, call
}

// Models asks the service for its list of models, which is paid for nowhere and tells whether it answers and takes the key. Without an
// error there is none where the service has no such list, or one of several pages. Errors are those of Open's key, and *CallError.
func (e *Endpoint) Models(ctx context.Context) ([]string, error) {
	key, err := e.key()
	if err != nil {
		return nil, err
	}
	models, err := e.client.models(ctx, key)
	if err == nil {
		return models, nil
	}
	call := transportError(err)
	if call.Status != 0 && call.Problem != ServerError && call.Status != http.StatusUnauthorized && call.Status != http.StatusForbidden {
		return nil, nil // it answers
	}
	call.Message = short(clean(call.Message, key))
	return nil, call
}

// clean removes a key that a service repeats.
func clean(text, key string) string {
	if key == "" {
		return text
	}
	return strings.ReplaceAll(text, key, "[key]")
}

// transportError finds out why there was no answer.
func transportError(err error) *CallError {
	var call *CallError
	var timeout net.Error
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &call):
		return call
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return &CallError{Problem: TimedOut, Message: "no reply within the endpoint's timeout", Billed: true}
	case strings.Contains(err.Error(), "error reading response body"):
		// The SDKs have no types for what follows. The answer had begun when the connection broke.
		return &CallError{Problem: Unreachable, Message: err.Error(), Billed: true}
	case strings.Contains(err.Error(), "error parsing response"), strings.Contains(err.Error(), "expected destination type"), strings.Contains(err.Error(), "invalid character"):
		// The whole body came and is not what it should be. JSON that stops in its middle is io.ErrUnexpectedEOF as well, so this comes
		// before the broken connections.
		return &CallError{Problem: Malformed, Message: err.Error(), Billed: true}
	case errors.As(err, &syntax), errors.As(err, &kind):
		return &CallError{Problem: Malformed, Message: err.Error(), Billed: true}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.As(err, &timeout):
		return &CallError{Problem: Unreachable, Message: err.Error()}
	}
	return &CallError{Problem: Unreachable, Message: err.Error()}
}

// statusError is what an HTTP status of 400 or more means.
func statusError(status int, header http.Header, message string) *CallError {
	e := &CallError{Status: status, Message: message, After: retryAfter(header, time.Now())}
	lower := strings.ToLower(message)
	switch {
	case status == http.StatusTooManyRequests && (strings.Contains(lower, "insufficient_quota") || strings.Contains(lower, "credit balance")):
		e.Problem = Denied
	case status == http.StatusTooManyRequests:
		e.Problem = RateLimited
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status >= 500:
		e.Problem = ServerError
	case status == http.StatusUnauthorized, status == http.StatusPaymentRequired, status == http.StatusForbidden, status == http.StatusNotFound, status == http.StatusMethodNotAllowed:
		e.Problem = Denied
	default:
		e.Problem = Rejected
	}
	return e
}

func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 400 {
		s = strings.ToValidUTF8(s[:400], "") + " …"
	}
	return s
}

// transport shows the responses' headers to the limits, and bounds bodies.
type transport struct {
	base   http.RoundTripper
	limits *limits
}

const maxBody = 64 << 20

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	t.limits.observe(resp.Header, time.Now())
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxBody), resp.Body}
	return resp, nil
}

// Pool keeps one Endpoint for each configuration, so that all requests of a process share its limits. The zero Pool is ready to use.
type Pool struct {
	// Share is this process's part of the endpoints' requests and tokens a minute; 0 means 1, all of them.
	Share float64

	mu   sync.Mutex
	open map[string]*Endpoint
}

// Endpoint returns the endpoint of that configuration, opening it at first.
func (p *Pool) Endpoint(params datasets.EndpointParams) (*Endpoint, error) {
	params = params.Defaults()
	name, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.open[string(name)]; e != nil {
		return e, nil
	}
	share := p.Share
	if share == 0 {
		share = 1
	}
	e, err := Open(params, share)
	if err != nil {
		return nil, err
	}
	if p.open == nil {
		p.open = map[string]*Endpoint{}
	}
	p.open[string(name)] = e
	return e, nil
}
