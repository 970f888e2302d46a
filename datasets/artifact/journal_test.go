package artifact_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets/artifact"
)

func TestTheFirstJournalEntryWins(t *testing.T) {
	s := artifact.New(artifact.NewMemory(), "mem://journal")
	type reply struct{ Text string }
	if err := s.AddEntry(t.Context(), "replies", "ab/abc", reply{"first"}); err != nil {
		t.Fatal(err)
	}
	if err := s.AddEntry(t.Context(), "replies", "ab/abc", reply{"second"}); !errors.Is(err, artifact.ErrExists) {
		t.Errorf("second entry: %v", err)
	}
	var got reply
	if err := s.Entry(t.Context(), "replies", "ab/abc", &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(reply{"first"}, got); diff != "" {
		t.Error(diff)
	}
	if err := s.DropEntry(t.Context(), "replies", "ab/abc"); err != nil {
		t.Fatal(err)
	}
	if err := s.Entry(t.Context(), "replies", "ab/abc", &got); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("dropped entry: %v", err)
	}
	for _, name := range []string{"", "../x", "a//b"} {
		if err := s.AddEntry(t.Context(), "replies", name, reply{}); !errors.Is(err, artifact.ErrKey) {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestUpdatesOfOneEntryLoseNothing(t *testing.T) {
	s := artifact.New(artifact.NewMemory(), "mem://updates")
	type ledger struct{ By map[string]int }
	const writers, each = 8, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				err := artifact.UpdateEntry(t.Context(), s, "ledgers", "one", func(l *ledger) error {
					if l.By == nil {
						l.By = map[string]int{}
					}
					l.By[fmt.Sprint(w)] = n + 1
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var got ledger
	if err := s.Entry(t.Context(), "ledgers", "one", &got); err != nil {
		t.Fatal(err)
	}
	for w := range writers {
		if got.By[fmt.Sprint(w)] != each {
			t.Errorf("writer %d: %d of %d", w, got.By[fmt.Sprint(w)], each)
		}
	}
	refused := errors.New("refused")
	if err := artifact.UpdateEntry(t.Context(), s, "ledgers", "one", func(*ledger) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("refused update: %v", err)
	}
}
