package artifact

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"time"
)

// PointerVersion is the newest pointer format this program writes and reads.
const PointerVersion = 1

// Pointer is a small value that changes: where the newest checkpoint of an unfinished training is.
type Pointer struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	// Epoch counts acquisitions. A lease with an older epoch can no longer set the value.
	Epoch int64 `json:"epoch"`
	// Owner says who acquired the epoch, for people.
	Owner string `json:"owner"`
	// Token is drawn for each acquisition. It tells an owner its own put, repeated by a client that never saw the
	// first answer, from another owner's.
	Token string          `json:"token"`
	Value json.RawMessage `json:"value"` // null until it is set
	// Updated is when it was written, by the writer's clock.
	Updated time.Time `json:"updated"`
}

func pointerKey(name string) (string, error) {
	key := "pointers/" + name + ".json"
	if err := CheckKey(key); err != nil || name == "" {
		return "", fmt.Errorf("pointer %.100q: %w", name, ErrKey)
	}
	return key, nil
}

// ReadPointer returns a pointer's present state; ErrNotFound when nobody has acquired it yet.
func (s *Store) ReadPointer(ctx context.Context, name string) (Pointer, error) {
	p, _, err := s.readPointer(ctx, name)
	return p, err
}

func (s *Store) readPointer(ctx context.Context, name string) (Pointer, string, error) {
	key, err := pointerKey(name)
	if err != nil {
		return Pointer{}, "", err
	}
	data, info, err := s.read(ctx, key, maxDocument)
	if err != nil {
		return Pointer{}, "", err
	}
	var p Pointer
	if err := s.unseal(key, data, &p); err != nil {
		return Pointer{}, "", err
	}
	if p.Version > PointerVersion {
		return Pointer{}, "", &NewerError{Object: key, Version: p.Version, Known: PointerVersion}
	}
	if p.Name != name {
		return Pointer{}, "", &CorruptError{Store: s.uri, Object: key, Want: "pointer " + name, Got: "pointer " + p.Name}
	}
	return p, info.ETag, nil
}

// Pointers yields every pointer whose name begins with prefix. One that cannot be read is an error beside a Pointer
// that has only its name, and the iteration goes on.
func (s *Store) Pointers(ctx context.Context, prefix string) iter.Seq2[Pointer, error] {
	return func(yield func(Pointer, error) bool) {
		for info, err := range s.backend.List(ctx, "pointers/"+prefix) {
			if err != nil {
				yield(Pointer{}, err)
				return
			}
			name, ok := strings.CutSuffix(strings.TrimPrefix(info.Key, "pointers/"), ".json")
			if !ok {
				continue
			}
			p, err := s.ReadPointer(ctx, name)
			if errors.Is(err, ErrNotFound) {
				continue // deleted since
			}
			p.Name = name
			if !yield(p, err) {
				return
			}
		}
	}
}

func (s *Store) putPointer(ctx context.Context, p *Pointer, cond Condition) (etag string, err error) {
	key, err := pointerKey(p.Name)
	if err != nil {
		return "", err
	}
	p.Updated = time.Now().UTC()
	data, err := seal(p)
	if err != nil {
		return "", fmt.Errorf("pointer %s: %w", p.Name, err)
	}
	return s.backend.Put(ctx, key, bytes.NewReader(data), int64(len(data)), cond)
}

// Lease is the right to set a pointer's value, until somebody acquires the pointer again. It is safe for concurrent use.
type Lease struct {
	s       *Store
	mu      sync.Mutex
	pointer Pointer
	etag    string
}

// AcquirePointer takes the pointer over: it increments the epoch by conditional write, trying again while others do
// the same, so that every lease before this one is fenced off. owner says who holds it, for people: run and attempt.
func (s *Store) AcquirePointer(ctx context.Context, name, owner string) (*Lease, error) {
	token := strings.ToLower(rand.Text())
	for attempt := 0; ; attempt++ {
		current, etag, err := s.readPointer(ctx, name)
		cond := Condition{IfMatch: etag}
		switch {
		case err == nil && current.Token == token:
			// An earlier attempt succeeded although its answer was an error.
			return &Lease{s: s, pointer: current, etag: etag}, nil
		case errors.Is(err, ErrNotFound):
			cond = Condition{IfNoneMatch: true}
			current.Value = json.RawMessage("null")
		case err != nil:
			return nil, fmt.Errorf("acquire pointer %s: %w", name, err)
		}
		next := Pointer{Version: PointerVersion, Name: name, Epoch: current.Epoch + 1, Owner: owner, Token: token, Value: current.Value}
		etag, err = s.putPointer(ctx, &next, cond)
		if err == nil {
			return &Lease{s: s, pointer: next, etag: etag}, nil
		}
		if !errors.Is(err, ErrExists) && !errors.Is(err, ErrChanged) && !errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("acquire pointer %s: %w", name, err)
		}
		if err := pause(ctx, attempt); err != nil {
			return nil, fmt.Errorf("acquire pointer %s: %w", name, err)
		}
	}
}

// pause waits a random while that grows with the attempts, up to a second.
func pause(ctx context.Context, attempt int) error {
	limit := min(time.Second, 5*time.Millisecond<<min(attempt, 10))
	t := time.NewTimer(time.Duration(mathrand.Int64N(int64(limit)) + 1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Epoch returns the lease's epoch.
func (l *Lease) Epoch() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pointer.Epoch
}

// Value returns the value as this lease found it or set it last; JSON null when none was ever set.
func (l *Lease) Value() json.RawMessage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pointer.Value
}

// maxSets bounds how often Set tries to replace its own unseen writes.
const maxSets = 8

// Set stores a new value. It fails with a *FencedError when a newer epoch exists: the caller must stop at once, what
// it works on belongs to somebody else.
func (l *Lease) Set(ctx context.Context, v any) error {
	value, err := CanonicalJSON(v)
	if err != nil {
		return fmt.Errorf("pointer %s: %w", l.pointer.Name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for attempt := range maxSets {
		next := l.pointer
		next.Value = value
		etag, err := l.s.putPointer(ctx, &next, Condition{IfMatch: l.etag})
		if err == nil {
			l.pointer, l.etag = next, etag
			return nil
		}
		if !errors.Is(err, ErrChanged) && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("set pointer %s: %w", next.Name, err)
		}
		current, etag, err := l.s.readPointer(ctx, next.Name)
		if err != nil {
			return fmt.Errorf("set pointer %s: %w", next.Name, err)
		}
		if current.Token != next.Token {
			return &FencedError{Pointer: next.Name, Epoch: next.Epoch, Holder: current.Owner, Newer: current.Epoch}
		}
		// The change was our own: a put that was stored although its answer was an error, or that the client repeated.
		l.pointer, l.etag = current, etag
		if same, err := CanonicalJSON(current.Value); err == nil && bytes.Equal(same, value) {
			return nil
		}
		if err := pause(ctx, attempt); err != nil {
			return fmt.Errorf("set pointer %s: %w", next.Name, err)
		}
	}
	return fmt.Errorf("set pointer %s: %w although this lease holds it, %d times over", l.pointer.Name, ErrChanged, maxSets)
}

// Check tells whether the lease still holds the pointer: a *FencedError when not. Long work between two Sets uses it
// to end early.
func (l *Lease) Check(ctx context.Context) error {
	l.mu.Lock()
	mine := l.pointer
	l.mu.Unlock()
	current, err := l.s.ReadPointer(ctx, mine.Name)
	if err != nil {
		return fmt.Errorf("check pointer %s: %w", mine.Name, err)
	}
	if current.Token != mine.Token {
		return &FencedError{Pointer: mine.Name, Epoch: mine.Epoch, Holder: current.Owner, Newer: current.Epoch}
	}
	return nil
}
