package host

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// job is an operation cut into parts that may run in any order and at the same time.
type job interface {
	// part computes part i with the scratch memory of the given worker.
	part(worker, i int)
}

// pool runs jobs on goroutines that live as long as it does. Workers that run out of work look
// for the next job for some microseconds before they sleep, because the operations of a training step follow
// each other closely.
type pool struct {
	threads int
	job     job
	parts   int64
	next    atomic.Int64 // the next part to be taken
	epoch   atomic.Uint64
	running atomic.Int64 // workers that have not finished the epoch
	closing atomic.Bool
	workers []worker
	ended   sync.WaitGroup
	waiting atomic.Bool // the caller sleeps until running is 0
	done    chan struct{}
}

type worker struct {
	asleep atomic.Bool
	wake   chan struct{}
	_      [40]byte // keeps the flags of two workers on two cache lines
}

// Rounds of looking before sleeping; the processor is offered to others every yieldEvery.
const (
	spinRounds = 4000
	yieldEvery = 200
)

func newPool(threads int) *pool {
	p := &pool{threads: threads, workers: make([]worker, threads), done: make(chan struct{}, 1)}
	for w := 1; w < threads; w++ {
		p.workers[w].wake = make(chan struct{}, 1)
		p.ended.Add(1)
		go p.loop(w)
	}
	return p
}

// run executes all parts of j and returns when they are done. The caller computes as worker 0.
func (p *pool) run(j job, parts int) {
	if parts <= 0 {
		return
	}
	if p.threads == 1 || parts == 1 {
		for i := range parts {
			j.part(0, i)
		}
		return
	}
	p.job, p.parts = j, int64(parts)
	p.next.Store(0)
	p.running.Store(int64(p.threads - 1))
	p.epoch.Add(1)
	for w := 1; w < p.threads; w++ {
		p.rouse(w)
	}
	p.work(0)
	for round := 1; p.running.Load() != 0; round++ {
		if round%yieldEvery == 0 {
			runtime.Gosched()
		}
		if round < spinRounds {
			continue
		}
		p.waiting.Store(true)
		if p.running.Load() != 0 || !p.waiting.CompareAndSwap(true, false) {
			<-p.done
		}
		// Look again: a worker that was held up between its last part of the run before and its look at
		// waiting has answered for that run, and this one is still under way.
	}
	p.job = nil
}

func (p *pool) work(w int) {
	for {
		i := p.next.Add(1) - 1
		if i >= p.parts {
			return
		}
		p.job.part(w, int(i))
	}
}

func (p *pool) rouse(w int) {
	if s := &p.workers[w]; s.asleep.Load() && s.asleep.CompareAndSwap(true, false) {
		s.wake <- struct{}{}
	}
}

func (p *pool) loop(w int) {
	defer p.ended.Done()
	var seen uint64
	s := &p.workers[w]
	for {
		for round := 1; p.epoch.Load() == seen; round++ {
			if round%yieldEvery == 0 {
				runtime.Gosched()
			}
			if round < spinRounds {
				continue
			}
			s.asleep.Store(true)
			if p.epoch.Load() != seen && s.asleep.CompareAndSwap(true, false) {
				break
			}
			<-s.wake
			round = 0
		}
		seen++
		if p.closing.Load() {
			return
		}
		p.work(w)
		if p.running.Add(-1) == 0 && p.waiting.CompareAndSwap(true, false) {
			p.done <- struct{}{}
		}
	}
}

func (p *pool) close() {
	p.closing.Store(true)
	p.epoch.Add(1)
	for w := 1; w < p.threads; w++ {
		p.rouse(w)
	}
	p.ended.Wait()
}
