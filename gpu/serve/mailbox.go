package serve

import (
	"context"
	"sync"
)

// mailbox holds what the engine has told a request, until the request's handler takes it. Putting never blocks, and it holds no more
// than what was put: a request for many tokens costs nothing before they are made.
type mailbox struct {
	mu     sync.Mutex
	events []event
	filled chan struct{} // holds one when events may have come
}

func newMailbox() *mailbox { return &mailbox{filled: make(chan struct{}, 1)} }

func (m *mailbox) put(e event) {
	m.mu.Lock()
	m.events = append(m.events, e)
	m.mu.Unlock()
	select {
	case m.filled <- struct{}{}:
	default:
	}
}

// next waits for an event; the end of ctx is one with its error.
func (m *mailbox) next(ctx context.Context) event {
	for {
		m.mu.Lock()
		if len(m.events) > 0 {
			e := m.events[0]
			m.events = m.events[1:]
			m.mu.Unlock()
			return e
		}
		m.mu.Unlock()
		select {
		case <-m.filled:
		case <-ctx.Done():
			return event{err: ctx.Err()}
		}
	}
}
