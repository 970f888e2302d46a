package llm

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/instructions"
)

// about gives requests whose prompt holds word a problem, and all others good replies.
func about(t *testing.T, word string, problem func(int, http.ResponseWriter, *http.Request)) *fake {
	t.Helper()
	var f *fake
	f = newFake(t, func(n int, w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		body := f.bodies[n-1]
		f.mu.Unlock()
		if strings.Contains(body, word) {
			problem(n, w, r)
			return
		}
		good(w, "fine", "stop")
	})
	return f
}

func bad() datasets.TeacherRequest {
	return datasets.TeacherRequest{Messages: []datasets.Message{{Role: datasets.RoleUser, Content: "a poisoned prompt"}}}
}

func TestOnePromptThatFailsDoesNotBlockTheOthers(t *testing.T) {
	for name, tt := range map[string]struct {
		problem func(int, http.ResponseWriter, *http.Request)
		change  func(*datasets.EndpointParams)
		want    error
		tries   int
		lost    int // tries that may be charged for
	}{
		"JSON that stops in its middle": {status(200, `{"choices": [ {"mess`), nil, instructions.ErrMalformed, 3, 3},
		"an error with status 200":      {status(200, `{"error":{"message":"upstream lost its mind"}}`), nil, instructions.ErrMalformed, 3, 3},
		"5xx":                           {status(500, `{}`), nil, instructions.ErrUnanswered, defaultTries, 0},
		"time-outs": {func(_ int, _ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			select {
			case <-r.Context().Done():
			case <-time.After(2 * time.Second):
			}
		}, func(p *datasets.EndpointParams) { p.Timeout = "60ms" }, instructions.ErrUnanswered, defaultTries, defaultTries},
	} {
		for _, alone := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, alone %v", name, alone), func(t *testing.T) {
				f, s := about(t, "poisoned", tt.problem), memory(t)
				u := teacher(f.endpoint(t, tt.change), s, 0, "stage/run/activity/1")
				var g errgroup.Group
				if !alone {
					for n := range 3 {
						g.Go(func() error { _, err := u.Ask(t.Context(), request(n)); return err })
					}
				}
				_, err := u.Ask(t.Context(), bad())
				if !errors.Is(err, tt.want) {
					t.Fatalf("error %v, want %v", err, tt.want)
				}
				if err := g.Wait(); err != nil {
					t.Fatal(err)
				}
				if name == "an error with status 200" && !strings.Contains(err.Error(), "upstream lost its mind") {
					t.Errorf("the service's words are lost: %v", err)
				}
				usage, before := u.Usage(), f.count()
				if tries := usage.Requests - usage.Replies - usage.Probes; tries != tt.tries || usage.Lost != tt.lost {
					t.Errorf("%d tries and %d lost, want %d and %d", tries, usage.Lost, tt.tries, tt.lost)
				}
				// Another attempt at the stage finds the failure in the journal, with its cost; another run asks again.
				second := teacher(f.endpoint(t, tt.change), s, 0, "stage/run/activity/2")
				if _, err := second.Ask(t.Context(), bad()); !errors.Is(err, tt.want) || f.count() != before {
					t.Errorf("asked again: %v after %d more requests", err, f.count()-before)
				}
				if got := second.Usage().LostUSD; math.Abs(got-usage.LostUSD) > 1e-9 || (got > 0) != (tt.lost > 0) {
					t.Errorf("the second attempt knows of %v lost, the first of %v", got, usage.LostUSD)
				}
				if _, err := teacher(f.endpoint(t, tt.change), s, 0, "stage/later/activity/1").Ask(t.Context(), bad()); !errors.Is(err, tt.want) || f.count() == before {
					t.Errorf("another run did not ask: %v", err)
				}
			})
		}
	}
}

func TestAServiceThatIsAwayAltogetherIsWaitedFor(t *testing.T) {
	for name, problem := range map[string]func(int, http.ResponseWriter, *http.Request){"5xx": status(503, `{}`), "429": status(429, `{}`)} {
		f := newFake(t, problem)
		_, err := teacher(f.endpoint(t, nil), memory(t), 0, "a").Ask(t.Context(), request(1))
		var call *CallError
		if !errors.As(err, &call) || call.Alone || !call.Waits() || errors.Is(err, instructions.ErrUnanswered) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRepliesWithoutUsageAreEstimatedAndCapped(t *testing.T) {
	for _, kind := range []datasets.EndpointKind{datasets.EndpointOpenAI, datasets.EndpointAnthropic} {
		f := newFake(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("content-type", "application/json")
			text := strings.Repeat("word ", 800) // a thousand tokens
			if kind == datasets.EndpointAnthropic {
				fmt.Fprintf(w, `{"type":"message","role":"assistant","content":[{"type":"text","text":%q}],"stop_reason":"end_turn"}`, text)
				return
			}
			fmt.Fprintf(w, `{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":%q}}]}`, text)
		})
		const cap = 0.01 // five replies at 2 USD a million
		u := teacher(f.endpoint(t, func(p *datasets.EndpointParams) { p.Kind = kind }), memory(t), cap, "a")
		var over *BudgetError
		for n := 0; n < 20 && over == nil; n++ {
			if _, err := u.Ask(t.Context(), request(n)); err != nil && !errors.As(err, &over) {
				t.Fatal(err)
			}
		}
		usage := u.Usage()
		if over == nil || usage.Estimated != usage.Replies || usage.Estimated == 0 || usage.SpentUSD < cap/2 || usage.SpentUSD > cap+0.002 {
			t.Errorf("%s: %+v, %v", kind, usage, over)
		}
	}
}

func TestTriesWithoutAReplyCountAgainstTheCap(t *testing.T) {
	f := newFake(t, status(200, `<html>`))
	// Each try may have cost 500 tokens of output at 2 USD a million, and a few of input.
	const cap = 0.0025
	u := teacher(f.endpoint(t, nil), memory(t), cap, "a")
	var over *BudgetError
	if _, err := u.Ask(t.Context(), request(1)); !errors.As(err, &over) {
		t.Errorf("a third try was made: %v", err)
	}
	if usage := u.Usage(); f.count() != 2 || usage.Lost != 2 || usage.SpentUSD < 0.002 || usage.SpentUSD > cap {
		t.Errorf("%d requests, %+v", f.count(), usage)
	}
}

func TestTheCapHoldsOverAttempts(t *testing.T) {
	const cap = 10.0
	spend := func(b *Budget, most int) (spent float64) {
		for range most {
			if b.promise(t.Context(), 1) != nil {
				break
			}
			b.settle(1, 1)
			spent++
		}
		return spent
	}
	t.Run("when new requests come before replies from the journal", func(t *testing.T) {
		s := memory(t)
		first := spend(NewBudget(s, "key", "A", cap), 5) // and is killed
		again := NewBudget(s, "key", "A", cap)
		total := first + spend(again, 3)
		total += spend(NewBudget(s, "key", "B", cap), 20)
		for range int(first) {
			again.replay(1)
		}
		total += spend(again, 20)
		if total > cap || total < cap-1 {
			t.Errorf("%v of %v spent", total, cap)
		}
	})
	t.Run("when an attempt ends before it read its journal", func(t *testing.T) {
		s := memory(t)
		total := spend(NewBudget(s, "key", "A", cap), 20)
		if err := NewBudget(s, "key", "A", cap).Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if total += spend(NewBudget(s, "key", "B", cap), 20); total > cap {
			t.Errorf("%v of %v spent", total, cap)
		}
	})
	t.Run("when two attempts at a part overlap", func(t *testing.T) {
		s := memory(t)
		lost, next := NewBudget(s, "key", "A", cap), NewBudget(s, "key", "A", cap)
		total := spend(lost, 2) + spend(next, 2) + spend(lost, 2) + spend(next, 2)
		if err := errors.Join(lost.Close(t.Context()), next.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
		if total += spend(NewBudget(s, "key", "B", cap), 20); total != cap {
			t.Errorf("%v of %v spent", total, cap)
		}
	})
}
