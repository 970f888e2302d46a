package llm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/instructions"
)

// Usage is what asking cost: requests and replies, money and trouble.
type Usage struct {
	// Requests were sent, tries included; Replies came back; Journaled replies were there from before.
	Requests  int `json:"requests"`
	Replies   int `json:"replies"`
	Journaled int `json:"journaled"`
	// Repeated requests were under way when an earlier attempt was cut off: the service may have charged for them twice.
	Repeated int `json:"repeated"`
	// Problems counts tries without a usable reply by kind, Truncated and Refused the replies that ended so.
	Problems  map[Problem]int `json:"problems,omitempty"`
	Truncated int             `json:"truncated,omitempty"`
	Refused   int             `json:"refused,omitempty"`
	// Estimated replies came without their numbers of tokens, which are guessed. Lost tries gave no reply and may have been charged for.
	// Probes were sent to tell a request that cannot be served from a service that is away.
	Estimated int `json:"estimated,omitempty"`
	Lost      int `json:"lost,omitempty"`
	Probes    int `json:"probes,omitempty"`
	// InputTokens and OutputTokens are those of all replies, journaled ones included; SpentUSD is what they cost and LostUSD. PaidUSD is
	// the share of this attempt's requests.
	InputTokens  int64   `json:"input_tokens"`
	OutputTokens int64   `json:"output_tokens"`
	SpentUSD     float64 `json:"spent_usd"`
	PaidUSD      float64 `json:"paid_usd"`
	// LostUSD is the most that lost tries can have cost, in SpentUSD too.
	LostUSD float64 `json:"lost_usd,omitempty"`
}

// Add adds o, of another shard, to u.
func (u *Usage) Add(o Usage) {
	u.Requests += o.Requests
	u.Replies += o.Replies
	u.Journaled += o.Journaled
	u.Repeated += o.Repeated
	u.Truncated += o.Truncated
	u.Refused += o.Refused
	u.InputTokens += o.InputTokens
	u.OutputTokens += o.OutputTokens
	u.Estimated += o.Estimated
	u.Lost += o.Lost
	u.Probes += o.Probes
	u.LostUSD += o.LostUSD
	u.SpentUSD += o.SpentUSD
	u.PaidUSD += o.PaidUSD
	for p, n := range o.Problems {
		if u.Problems == nil {
			u.Problems = map[Problem]int{}
		}
		u.Problems[p] += n
	}
}

// Journal is the name of the journal of teachers' replies.
const Journal = "instructions"

// Teacher is an endpoint that never pays for the same request twice. It is safe for concurrent use.
type Teacher struct {
	endpoint *Endpoint
	store    *artifact.Store
	budget   *Budget
	attempt  string
	changed  func(Usage)

	mu    sync.Mutex
	usage Usage
	// closed refuses new requests; underWay are those that Wait waits for.
	closed   bool
	underWay sync.WaitGroup
}

// ErrClosed is a request to a teacher that was told to end.
var ErrClosed = errors.New("no more requests: the teacher was told to end")

// Wait refuses new requests and returns when those under way are journaled or lost.
func (t *Teacher) Wait() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.underWay.Wait()
}

func (t *Teacher) start() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrClosed
	}
	t.underWay.Add(1)
	return nil
}

// NewTeacher returns a teacher with its journal in the store. attempt tells this attempt at the stage from others, for recognising
// requests that another one left under way; what stands before its last slash names the run that attempts it. changed, which may be nil,
// is told of each reply.
func NewTeacher(e *Endpoint, store *artifact.Store, budget *Budget, attempt string, changed func(Usage)) *Teacher {
	return &Teacher{endpoint: e, store: store, budget: budget, attempt: attempt, changed: changed}
}

// Describe names the model.
func (t *Teacher) Describe() string { return t.endpoint.params.Describe() }

// Usage is what was used so far.
func (t *Teacher) Usage() Usage {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.usage
	u.Problems = maps.Clone(u.Problems)
	return u
}

// entry is a reply in the journal. Only what the reply is and cost is kept: prompts are in the documents.
type entry struct {
	Model string                `json:"model"`
	Reply datasets.TeacherReply `json:"reply"`
	At    time.Time             `json:"at"`
	// Tokens of tries before the reply that may have been charged for.
	LostInput  int `json:"lost_input_tokens,omitempty"`
	LostOutput int `json:"lost_output_tokens,omitempty"`
}

// mark says in the journal that a request is under way.
type mark struct {
	Attempt string    `json:"attempt"`
	At      time.Time `json:"at"`
}

// Ask answers from the journal, or asks the endpoint and journals the reply before it returns it.
func (t *Teacher) Ask(ctx context.Context, r datasets.TeacherRequest) (datasets.TeacherReply, error) {
	if err := ctx.Err(); err != nil {
		return datasets.TeacherReply{}, err
	}
	if err := t.start(); err != nil {
		return datasets.TeacherReply{}, err
	}
	defer t.underWay.Done()
	p := t.endpoint.params
	key, err := instructions.RequestKey(p.Model, p.Sampling(), r.Messages, r.Sample)
	if err != nil {
		return datasets.TeacherReply{}, err
	}
	name := key[:2] + "/" + key
	var known entry
	err = t.store.Entry(ctx, Journal, name, &known)
	if err == nil {
		t.budget.replay(p.Cost(known.Reply.InputTokens, known.Reply.OutputTokens))
		if known.LostInput+known.LostOutput > 0 {
			t.repay(p.Cost(known.LostInput, known.LostOutput))
		}
		t.note(func(u *Usage) { u.Journaled++; u.reply(p, known.Reply) })
		return known.Reply, nil
	}
	if !errors.Is(err, artifact.ErrNotFound) {
		return datasets.TeacherReply{}, err
	}
	var failure failedEntry
	err = t.store.Entry(ctx, Journal, t.failedName(name), &failure)
	if err == nil {
		t.repay(p.Cost(failure.LostInput, failure.LostOutput))
		t.note(func(u *Usage) { u.Journaled++ })
		return datasets.TeacherReply{}, given(&failure.Error)
	}
	if !errors.Is(err, artifact.ErrNotFound) {
		return datasets.TeacherReply{}, err
	}
	// A request is under way until its reply is in the journal: no more than the endpoint's concurrency can be lost at once.
	if err := t.endpoint.enter(ctx); err != nil {
		return datasets.TeacherReply{}, err
	}
	defer t.endpoint.leave()
	answered := t.endpoint.answered.Load()
	b := &bill{t: t, name: name, input: estimateTokens(r.Messages), output: p.MaxTokens}
	defer b.end()
	reply, err := t.endpoint.ask(ctx, r.Messages, b.sent, b.failed)
	if err != nil {
		var call *CallError
		if errors.As(err, &call) && call.mayBeAlone() && ctx.Err() == nil {
			call.Alone = t.endpoint.answered.Load() > answered || t.probe(ctx)
		}
		return reply, t.failed(ctx, b, err)
	}
	// A reply that is there is kept even when the stage is being stopped: it is paid for.
	saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err = t.store.AddEntry(saving, Journal, name, entry{Model: p.Model, Reply: reply, At: time.Now().UTC(), LostInput: b.lostInput, LostOutput: b.lostOutput})
	cost := p.Cost(reply.InputTokens, reply.OutputTokens)
	b.settle(cost)
	t.note(func(u *Usage) { u.Replies++; u.PaidUSD += cost; u.reply(p, reply) })
	if errors.Is(err, artifact.ErrExists) {
		// Another document with the same text was asked about at the same time. Whoever reads the journal later finds the first reply.
		err = t.store.Entry(saving, Journal, name, &known)
		reply = known.Reply
	}
	if err != nil {
		return reply, fmt.Errorf("journal a reply: %w", err)
	}
	return reply, nil
}

// failedEntry is a request in the journal that cannot be served, with the tokens its tries may have cost.
type failedEntry struct {
	Error      CallError `json:"error"`
	At         time.Time `json:"at"`
	LostInput  int       `json:"lost_input_tokens,omitempty"`
	LostOutput int       `json:"lost_output_tokens,omitempty"`
}

// failedName is where this run keeps that a request failed for good. Another run of the stage, which somebody started after mending
// something, asks again.
func (t *Teacher) failedName(name string) string {
	run := t.attempt
	if at := strings.LastIndexByte(run, '/'); at > 0 {
		run = run[:at]
	}
	sum := sha256.Sum256([]byte(run))
	return name + ".failed-" + hex.EncodeToString(sum[:6])
}

// repay charges for what an earlier attempt lost.
func (t *Teacher) repay(usd float64) {
	t.budget.replay(usd)
	t.note(func(u *Usage) { u.SpentUSD += usd; u.LostUSD += usd })
}

// bill promises the most that each try of a request can cost, and settles it.
type bill struct {
	t             *Teacher
	name          string // in the journal; empty for a probe
	input, output int    // tokens of a try: estimated, and at most
	begun         bool
	open          float64 // USD promised to the try under way
	// Tokens of tries that may have been charged for without a reply.
	lostInput, lostOutput int
}

// sent is called before each try.
func (b *bill) sent(ctx context.Context) error {
	p := b.t.endpoint.params
	most := p.Cost(2*b.input, b.output)
	if err := b.t.budget.promise(ctx, most); err != nil {
		return err
	}
	b.open = most
	if !b.begun && b.name != "" {
		if err := b.t.begin(ctx, b); err != nil {
			b.settle(0)
			return err
		}
	}
	b.begun = true
	b.t.note(func(u *Usage) { u.Requests++ })
	return nil
}

// failed is called after each try without a reply.
func (b *bill) failed(call *CallError) {
	if call.Billed {
		b.lose()
	} else {
		b.settle(0)
	}
	b.t.note(func(u *Usage) {
		if u.Problems == nil {
			u.Problems = map[Problem]int{}
		}
		u.Problems[call.Problem]++
	})
}

// lose settles a try that may have been charged for, by as much as it can have been: nobody says how much.
func (b *bill) lose() {
	usd := b.t.endpoint.params.Cost(b.input, b.output)
	b.settle(usd)
	b.lostInput, b.lostOutput = b.lostInput+b.input, b.lostOutput+b.output
	b.t.note(func(u *Usage) { u.Lost++; u.LostUSD += usd; u.SpentUSD += usd; u.PaidUSD += usd })
}

func (b *bill) settle(usd float64) {
	b.t.budget.settle(b.open, usd)
	b.open = 0
}

// end settles a try that was cut off.
func (b *bill) end() {
	if b.open > 0 {
		b.lose()
	}
}

// probe tells whether the service answers anything, after a request that it did not answer.
func (t *Teacher) probe(ctx context.Context) bool {
	messages := []datasets.Message{{Role: datasets.RoleUser, Content: probeText}}
	b := &bill{t: t, input: estimateTokens(messages), output: min(probeTokens, t.endpoint.params.MaxTokens)}
	defer b.end()
	reply, err := t.endpoint.probe(ctx, messages, b.sent)
	var call *CallError
	if errors.As(err, &call) {
		b.failed(call)
	}
	if err != nil {
		return false
	}
	p := t.endpoint.params
	cost := p.Cost(reply.InputTokens, reply.OutputTokens)
	b.settle(cost)
	t.note(func(u *Usage) { u.Probes++; u.PaidUSD += cost; u.reply(p, reply) })
	return true
}

// begin marks the request as under way. A mark of another attempt without a reply is a request that was cut off.
func (t *Teacher) begin(ctx context.Context, b *bill) error {
	err := t.store.AddEntry(ctx, Journal, b.name+".asked", mark{Attempt: t.attempt, At: time.Now().UTC()})
	if !errors.Is(err, artifact.ErrExists) {
		return err
	}
	var m mark
	if err := t.store.Entry(ctx, Journal, b.name+".asked", &m); err != nil && !errors.Is(err, artifact.ErrNotFound) {
		return err
	}
	if m.Attempt != t.attempt {
		t.note(func(u *Usage) { u.Repeated++ })
		t.repay(t.endpoint.params.Cost(b.input, b.output))
		b.lostInput, b.lostOutput = b.lostInput+b.input, b.lostOutput+b.output
	}
	return nil
}

// failed says what the failure means for the instance. One that is the request's own goes into the journal, so that another attempt
// does not pay for it anew; the mark of a request that the service may have charged for stays until then.
func (t *Teacher) failed(ctx context.Context, b *bill, err error) error {
	if ctx.Err() != nil {
		return err // it may have been charged for: the mark stays
	}
	var call *CallError
	if !errors.As(err, &call) {
		return err
	}
	alone := call.Problem == Rejected || call.Problem == Malformed || call.Alone
	if alone {
		e := failedEntry{Error: *call, At: time.Now().UTC(), LostInput: b.lostInput, LostOutput: b.lostOutput}
		if err := t.store.AddEntry(ctx, Journal, t.failedName(b.name), e); err != nil && !errors.Is(err, artifact.ErrExists) {
			return fmt.Errorf("journal a failure: %w", err)
		}
	}
	if alone || b.lostInput+b.lostOutput == 0 {
		if err := t.store.DropEntry(ctx, Journal, b.name+".asked"); err != nil {
			return err
		}
	}
	return given(call)
}

// given is a failure as the maker of instances knows it.
func given(call *CallError) error {
	switch {
	case call.Problem == Rejected:
		return fmt.Errorf("%w: %w", instructions.ErrRejected, call)
	case call.Problem == Malformed:
		return fmt.Errorf("%w: %w", instructions.ErrMalformed, call)
	case call.Alone:
		return fmt.Errorf("%w: %w", instructions.ErrUnanswered, call)
	}
	return call
}

func (t *Teacher) note(change func(*Usage)) {
	t.mu.Lock()
	change(&t.usage)
	t.mu.Unlock()
	if t.changed != nil {
		t.changed(t.Usage())
	}
}

func (u *Usage) reply(p datasets.EndpointParams, r datasets.TeacherReply) {
	u.InputTokens += int64(r.InputTokens)
	u.OutputTokens += int64(r.OutputTokens)
	u.SpentUSD += p.Cost(r.InputTokens, r.OutputTokens)
	if r.Estimated {
		u.Estimated++
	}
	switch r.Finish {
	case finishLength:
		u.Truncated++
	case finishRefusal:
		u.Refused++
	}
}
