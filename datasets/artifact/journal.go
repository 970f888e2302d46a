package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Journals keep what must not be done twice, such as paid requests: small documents that are written once, as soon as
// they are known, under a name that says what they answer. GC leaves them alone.

func journalKey(journal, name string) (string, error) {
	key := "journal/" + journal + "/" + name + ".json"
	if err := CheckKey(key); err != nil || journal == "" || name == "" {
		return "", fmt.Errorf("journal %.50q, entry %.100q: %w", journal, name, ErrKey)
	}
	return key, nil
}

// AddEntry stores a journal entry. The first one of a name wins: later ones fail with ErrExists.
func (s *Store) AddEntry(ctx context.Context, journal, name string, v any) error {
	key, err := journalKey(journal, name)
	if err != nil {
		return err
	}
	data, err := seal(v)
	if err != nil {
		return fmt.Errorf("journal entry %s: %w", key, err)
	}
	_, err = s.backend.Put(ctx, key, bytes.NewReader(data), int64(len(data)), Condition{IfNoneMatch: true})
	return err
}

// Entry reads a journal entry; ErrNotFound when there is none.
func (s *Store) Entry(ctx context.Context, journal, name string, v any) error {
	key, err := journalKey(journal, name)
	if err != nil {
		return err
	}
	data, _, err := s.read(ctx, key, maxDocument)
	if err != nil {
		return err
	}
	return s.unseal(key, data, v)
}

// DropEntry removes an entry that turned out to stand for nothing; no error when there is none.
func (s *Store) DropEntry(ctx context.Context, journal, name string) error {
	key, err := journalKey(journal, name)
	if err != nil {
		return err
	}
	return s.backend.Delete(ctx, key)
}

// UpdateEntry changes an entry that several processes write, such as a ledger: it reads the entry into v, which is left as it is
// when there is none, calls change, which alters what v points to, and stores that if nobody else has written meanwhile; else it
// begins again. An error of change ends it without a write.
func UpdateEntry[T any](ctx context.Context, s *Store, journal, name string, change func(*T) error) error {
	key, err := journalKey(journal, name)
	if err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		var v T
		cond := Condition{IfNoneMatch: true}
		data, info, err := s.read(ctx, key, maxDocument)
		switch {
		case err == nil:
			cond = Condition{IfMatch: info.ETag}
			if err := s.unseal(key, data, &v); err != nil {
				return err
			}
		case !errors.Is(err, ErrNotFound):
			return err
		}
		if err := change(&v); err != nil {
			return err
		}
		if data, err = seal(v); err != nil {
			return fmt.Errorf("journal entry %s: %w", key, err)
		}
		_, err = s.backend.Put(ctx, key, bytes.NewReader(data), int64(len(data)), cond)
		if !errors.Is(err, ErrExists) && !errors.Is(err, ErrChanged) && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err := pause(ctx, attempt); err != nil {
			return fmt.Errorf("journal entry %s: %w", key, err)
		}
	}
}
