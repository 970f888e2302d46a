package serve

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"sync"

	"github.com/longalign/longalign-go/gpu/llama"
)

// ErrBusy means that the queue is full.
var ErrBusy = errors.New("the queue is full; try again later")

// errClosed means that the engine has ended.
var errClosed = errors.New("the server is shutting down")

// feedBlock is how many prompt tokens pass before the engine looks whether their client is still there.
const feedBlock = 512

// TokenProb is a token and its log-probability.
type TokenProb struct {
	ID      int32
	LogProb float64
}

// Token is one step of an answer, or of an echoed prompt.
type Token struct {
	ID      int32
	LogProb float64 // of ID under the model
	First   bool    // a prompt's first token, which has no probability
	End     bool    // it ends the text and is not part of it
	Top     []TokenProb
}

// job is one sequence to continue.
type job struct {
	ctx         context.Context
	prompt      []int32
	maxNew      int
	temperature float64
	topP        float64
	seed        uint64
	eos         []int32
	top         int  // number of likeliest tokens to report; -1: no log-probabilities
	echo        bool // report the prompt's tokens too

	// emit gets each new token and returns whether to go on. It must not block for long.
	emit func(Token) bool
	// onPrompt gets the tokens of an echoed prompt.
	onPrompt func([]Token)
	// done gets the outcome, once.
	done func(finish llama.FinishReason, err error)

	seq     *llama.Sequence
	sampler *llama.Sampler
	next    int32
	count   int
	err     error // why it cannot go on
}

// engine owns the model and its device.
type engine struct {
	model  *llama.Model
	slots  int
	budget int64 // bytes of keys and values
	queue  chan *job
	quit   chan struct{}
	ended  chan struct{}

	mu   sync.Mutex
	fail error // the device is lost
}

func newEngine(model *llama.Model, slots, queue int, budget int64) *engine {
	e := &engine{model: model, slots: slots, budget: budget, queue: make(chan *job, queue), quit: make(chan struct{}), ended: make(chan struct{})}
	go e.run()
	return e
}

// close ends the engine after the tokens in flight; running jobs fail.
func (e *engine) close() {
	close(e.quit)
	<-e.ended
}

// failure returns why the engine no longer works, or nil.
func (e *engine) failure() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fail
}

// submit queues jobs, all or none.
func (e *engine) submit(jobs []*job) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fail != nil {
		return e.fail
	}
	if len(jobs) > cap(e.queue)-len(e.queue) {
		e.dropGone()
	}
	if len(jobs) > cap(e.queue)-len(e.queue) {
		return ErrBusy
	}
	for _, j := range jobs {
		e.queue <- j // does not block: only submit adds, under the lock
	}
	return nil
}

// dropGone takes the jobs whose clients have gone out of the queue; the others keep their order. The caller holds the lock.
func (e *engine) dropGone() {
	var stay []*job
	for {
		select {
		case j := <-e.queue:
			if err := j.ctx.Err(); err != nil {
				j.done("", err)
			} else {
				stay = append(stay, j)
			}
			continue
		default:
		}
		break
	}
	for _, j := range stay {
		e.queue <- j // there is room: only submit adds, under the lock
	}
}

// check refuses a job that could never run.
func (e *engine) check(promptLen, maxNew int) error {
	if context := e.model.Config().MaxPositions; promptLen > context || maxNew > context-promptLen {
		return &llama.PromptError{Tokens: promptLen, MaxNewTokens: maxNew, Context: context}
	}
	if need := e.model.CacheBytes(promptLen + maxNew); need > e.budget {
		return fmt.Errorf("%d prompt and %d new tokens need %d MiB of keys and values, the server has %d; use a shorter prompt or fewer new tokens",
			promptLen, maxNew, need>>20, e.budget>>20)
	}
	return nil
}

// room returns how many new tokens a prompt may have at most: what the context and the memory for keys and values allow.
func (e *engine) room(promptLen int) int {
	most := max(0, e.model.Config().MaxPositions-promptLen)
	return sort.Search(most, func(n int) bool { return e.model.CacheBytes(promptLen+n+1) > e.budget })
}

func (e *engine) run() {
	defer close(e.ended)
	d, err := e.model.NewDecoder()
	if err != nil {
		e.lost(err, nil)
		return
	}
	defer d.Close()
	var active []*job
	var waiting *job // taken from the queue, but without room yet
	var used int64
	for {
		// Admit until full; wait for work only when there is none.
		for len(active) < e.slots {
			if waiting == nil {
				if len(active) == 0 {
					select {
					case waiting = <-e.queue:
					case <-e.quit:
						e.lost(errClosed, active)
						return
					}
				} else {
					select {
					case waiting = <-e.queue:
					default:
					}
				}
			}
			if waiting == nil {
				break
			}
			need := e.model.CacheBytes(len(waiting.prompt) + waiting.maxNew)
			if used+need > e.budget && len(active) > 0 {
				break
			}
			j := waiting
			waiting = nil
			if e.start(d, j) {
				used += need
				active = append(active, j)
			}
			if err := e.model.Device().Sync(); err != nil {
				e.lost(err, append(active, waitingJobs(waiting)...))
				return
			}
		}
		select {
		case <-e.quit:
			e.lost(errClosed, append(active, waitingJobs(waiting)...))
			return
		default:
		}
		active = slices.DeleteFunc(active, func(j *job) bool {
			if err := j.ctx.Err(); err != nil {
				used -= e.finish(j, "", err)
				return true
			}
			return false
		})
		if len(active) == 0 {
			continue
		}
		seqs, ids := make([]*llama.Sequence, len(active)), make([]int32, len(active))
		for i, j := range active {
			seqs[i], ids[i] = j.seq, j.next
		}
		more := make([]bool, len(active))
		reasons := make([]llama.FinishReason, len(active))
		var err error
		if slices.ContainsFunc(active, func(j *job) bool { return j.temperature > 0 || j.top >= 0 }) { // who wants more than the likeliest token
			err = d.Step(seqs, ids, func(i int, logits []float64) error {
				more[i], reasons[i] = active[i].take(logits)
				return nil
			})
		} else {
			err = d.Greedy(seqs, ids, func(i int, id int32, logProb float64) error {
				more[i], reasons[i] = active[i].accept(Token{ID: id, LogProb: logProb})
				return nil
			})
		}
		if err != nil {
			e.lost(err, append(active, waitingJobs(waiting)...))
			return
		}
		keep := active[:0]
		for i, j := range active {
			if more[i] {
				keep = append(keep, j)
			} else {
				used -= e.finish(j, reasons[i], j.err)
			}
		}
		active = keep
	}
}

func waitingJobs(j *job) []*job {
	if j == nil {
		return nil
	}
	return []*job{j}
}

// start runs a job's prompt and draws its first token; it reports whether the job goes on.
func (e *engine) start(d *llama.Decoder, j *job) bool {
	if err := j.ctx.Err(); err != nil {
		j.done("", err)
		return false
	}
	seq, err := d.Open(max(1, len(j.prompt)+j.maxNew))
	if err != nil {
		j.done("", err)
		return false
	}
	j.seq, j.sampler = seq, llama.NewSampler(j.temperature, j.topP, j.seed)
	more, reason := true, llama.FinishReason("")
	var echoed []Token
	if j.echo {
		echoed = append(echoed, Token{ID: j.prompt[0], First: true})
	}
	for from := 0; from < len(j.prompt); from += feedBlock {
		if err := j.ctx.Err(); err != nil {
			e.finish(j, "", err)
			return false
		}
		block := j.prompt[from:min(len(j.prompt), from+feedBlock)]
		err := seq.Feed(block, j.echo, func(i int, logits []float64) error {
			switch at := from + i; {
			case at < len(j.prompt)-1:
				if j.echo {
					echoed = append(echoed, describe(logits, j.prompt[at+1], j.top))
				}
			case j.maxNew > 0:
				if j.echo {
					j.onPrompt(echoed)
				}
				more, reason = j.take(logits)
			default:
				j.onPrompt(echoed)
				more, reason = false, llama.FinishLength
			}
			return nil
		})
		if err != nil {
			e.finish(j, "", err)
			return false
		}
	}
	if !more {
		e.finish(j, reason, j.err)
	}
	return more
}

// take draws a token and reports whether the job goes on, and if not why.
func (j *job) take(logits []float64) (bool, llama.FinishReason) {
	id, lp := j.sampler.Next(logits)
	t := Token{ID: id, LogProb: lp}
	if j.top >= 0 {
		t = describe(logits, id, j.top)
	}
	return j.accept(t)
}

// accept appends a token and reports whether the job goes on, and if not why.
func (j *job) accept(t Token) (bool, llama.FinishReason) {
	if math.IsNaN(t.LogProb) {
		j.err = &llama.NotFiniteError{Token: len(j.prompt) + j.count}
		return false, ""
	}
	j.next = t.ID
	j.count++
	t.End = slices.Contains(j.eos, t.ID)
	switch goOn := j.emit(t); {
	case t.End || !goOn:
		return false, llama.FinishStop
	case j.count >= j.maxNew:
		return false, llama.FinishLength
	}
	return true, ""
}

// describe returns a token's log-probability and the likeliest tokens in its place.
func describe(logits []float64, id int32, top int) Token {
	z := llama.LogSumExp(logits)
	t := Token{ID: id, LogProb: logits[id] - z}
	for i, l := range logits {
		if top < 1 || len(t.Top) == top && l-z <= t.Top[top-1].LogProb {
			continue
		}
		at := sort.Search(len(t.Top), func(k int) bool { return t.Top[k].LogProb < l-z })
		t.Top = slices.Insert(t.Top, at, TokenProb{int32(i), l - z})
		t.Top = t.Top[:min(top, len(t.Top))]
	}
	return t
}

// finish frees a job's place and tells its owner. It returns the bytes freed.
func (e *engine) finish(j *job, reason llama.FinishReason, err error) int64 {
	j.seq.Close()
	j.done(reason, err)
	return e.model.CacheBytes(len(j.prompt) + j.maxNew)
}

// lost ends all jobs with err, those in the queue too.
func (e *engine) lost(err error, active []*job) {
	e.mu.Lock()
	e.fail = err
	e.mu.Unlock()
	for _, j := range active {
		if j.seq != nil {
			j.seq.Close()
		}
		j.done("", err)
	}
	for {
		select {
		case j := <-e.queue:
			j.done("", err)
		default:
			return
		}
	}
}
