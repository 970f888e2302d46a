package artifact

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// memory is a Backend for tests and small dry runs. It lives as long as the process.
type memory struct {
	mu      sync.Mutex
	objects map[string]memoryObject
	version int64
}

type memoryObject struct {
	data     []byte // never modified once stored
	etag     string
	modified time.Time
}

// NewMemory returns an empty in-memory backend.
func NewMemory() Backend { return &memory{objects: map[string]memoryObject{}} }

func (m *memory) Put(ctx context.Context, key string, r io.Reader, size int64, cond Condition) (string, error) {
	if err := CheckKey(key); err != nil {
		return "", err
	}
	data, err := io.ReadAll(Body(ctx, r, size))
	if err != nil {
		return "", fmt.Errorf("put %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, found := m.objects[key]
	if cond.IfNoneMatch && found {
		return "", fmt.Errorf("put %s: %w", key, ErrExists)
	}
	if cond.IfMatch != "" && (!found || old.etag != cond.IfMatch) {
		return "", fmt.Errorf("put %s: %w", key, ErrChanged)
	}
	m.version++
	etag := strconv.FormatInt(m.version, 10)
	m.objects[key] = memoryObject{data: data, etag: etag, modified: time.Now().UTC()}
	return etag, nil
}

func (m *memory) object(ctx context.Context, op, key string) (memoryObject, Info, error) {
	if err := CheckKey(key); err != nil {
		return memoryObject{}, Info{}, err
	}
	if err := ctx.Err(); err != nil {
		return memoryObject{}, Info{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[key]
	if !ok {
		return memoryObject{}, Info{}, fmt.Errorf("%s %s: %w", op, key, ErrNotFound)
	}
	return o, Info{Key: key, Size: int64(len(o.data)), ETag: o.etag, Modified: o.modified}, nil
}

func (m *memory) Get(ctx context.Context, key string) (io.ReadCloser, Info, error) {
	o, info, err := m.object(ctx, "get", key)
	if err != nil {
		return nil, Info{}, err
	}
	return io.NopCloser(bytes.NewReader(o.data)), info, nil
}

func (m *memory) GetRange(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	o, info, err := m.object(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	if off < 0 || n < 0 {
		return nil, fmt.Errorf("get %s: range of %d bytes from %d", key, n, off)
	}
	off = min(off, info.Size)
	return io.NopCloser(bytes.NewReader(o.data[off : min(info.Size-off, n)+off])), nil
}

func (m *memory) Head(ctx context.Context, key string) (Info, error) {
	_, info, err := m.object(ctx, "head", key)
	return info, err
}

func (m *memory) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := checkPrefix(prefix); err != nil {
			yield(Info{}, err)
			return
		}
		m.mu.Lock()
		keys := slices.Sorted(maps.Keys(m.objects))
		m.mu.Unlock()
		for _, key := range keys {
			if !strings.HasPrefix(key, prefix) {
				continue
			}
			_, info, err := m.object(ctx, "list", key)
			if err != nil && ctx.Err() == nil {
				continue // deleted since
			}
			if !yield(info, err) || err != nil {
				return
			}
		}
	}
}

func (m *memory) Delete(ctx context.Context, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}
