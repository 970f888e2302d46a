package llm

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	// InputTokens, OutputTokens and SpentUSD are those of all replies, journaled ones included; PaidUSD of the new ones.
	InputTokens  int64   `json:"input_tokens"`
	OutputTokens int64   `json:"output_tokens"`
	SpentUSD     float64 `json:"spent_usd"`
	PaidUSD      float64 `json:"paid_usd"`
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
// requests that another one left under way; changed, which may be nil, is told of each reply.
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
		t.budget.settle(0, p.Cost(known.Reply.InputTokens, known.Reply.OutputTokens))
		t.note(func(u *Usage) { u.Journaled++; u.reply(p, known.Reply) })
		return known.Reply, nil
	}
	if !errors.Is(err, artifact.ErrNotFound) {
		return datasets.TeacherReply{}, err
	}
	// A request is under way until its reply is in the journal: no more than the endpoint's concurrency can be lost at once.
	if err := t.endpoint.enter(ctx); err != nil {
		return datasets.TeacherReply{}, err
	}
	defer t.endpoint.leave()
	most := p.Cost(2*estimateTokens(r.Messages), p.MaxTokens)
	if err := t.budget.promise(ctx, most); err != nil {
		return datasets.TeacherReply{}, err
	}
	cost := 0.0
	defer func() { t.budget.settle(most, cost) }()
	if err := t.begin(ctx, name); err != nil {
		return datasets.TeacherReply{}, err
	}
	reply, err := t.endpoint.ask(ctx, r.Messages, func() { t.note(func(u *Usage) { u.Requests++ }) }, func(p Problem) {
		t.note(func(u *Usage) {
			if u.Problems == nil {
				u.Problems = map[Problem]int{}
			}
			u.Problems[p]++
		})
	})
	if err != nil {
		return reply, t.failed(ctx, name, err)
	}
	// A reply that is there is kept even when the stage is being stopped: it is paid for.
	saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err = t.store.AddEntry(saving, Journal, name, entry{Model: p.Model, Reply: reply, At: time.Now().UTC()})
	cost = p.Cost(reply.InputTokens, reply.OutputTokens)
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

// begin marks the request as under way. A mark of another attempt without a reply is a request that was cut off.
func (t *Teacher) begin(ctx context.Context, name string) error {
	err := t.store.AddEntry(ctx, Journal, name+".asked", mark{Attempt: t.attempt, At: time.Now().UTC()})
	if !errors.Is(err, artifact.ErrExists) {
		return err
	}
	var m mark
	if err := t.store.Entry(ctx, Journal, name+".asked", &m); err != nil && !errors.Is(err, artifact.ErrNotFound) {
		return err
	}
	if m.Attempt != t.attempt {
		t.note(func(u *Usage) { u.Repeated++ })
	}
	return nil
}

// failed clears the mark of a request that the service answered, and says what the failure means for the instance.
func (t *Teacher) failed(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return err // it may have been charged for: the mark stays
	}
	var call *CallError
	if !errors.As(err, &call) {
		return err
	}
	if call.Problem != TimedOut {
		if err := t.store.DropEntry(ctx, Journal, name+".asked"); err != nil {
			return err
		}
	}
	switch call.Problem {
	case Rejected:
		return fmt.Errorf("%w: %w", instructions.ErrRejected, call)
	case Malformed:
		return fmt.Errorf("%w: %w", instructions.ErrMalformed, call)
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
	switch r.Finish {
	case finishLength:
		u.Truncated++
	case finishRefusal:
		u.Refused++
	}
}
