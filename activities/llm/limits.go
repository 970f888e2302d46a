package llm

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"github.com/longalign/longalign-go/datasets"
)

// limits hold requests back: by the configured requests and tokens a minute, and by what the service's headers say.
type limits struct {
	requests, tokens *rate.Limiter // nil for none

	mu    sync.Mutex
	until time.Time // nobody asks before
	// left is what the service said is left, until it is full again.
	left map[string]allowance
}

type allowance struct {
	remaining int
	reset     time.Time
}

// longestPause bounds every wait for a service, so that a wrong header does not stop a run for a day.
const longestPause = 5 * time.Minute

func newLimits(p datasets.EndpointParams, share float64) *limits {
	l := &limits{left: map[string]allowance{}}
	perMinute := func(n float64) *rate.Limiter {
		if n <= 0 {
			return nil
		}
		perSecond := n * share / 60
		// Ten seconds' worth at once: services count minutes, and a full minute at once would be two in the first.
		return rate.NewLimiter(rate.Limit(perSecond), max(1, int(math.Ceil(10*perSecond))))
	}
	l.requests, l.tokens = perMinute(p.RequestsPerMinute), perMinute(p.TokensPerMinute)
	return l
}

// wait returns when a request of so many tokens may be sent.
func (l *limits) wait(ctx context.Context, tokens int) error {
	if l.requests != nil {
		if err := l.requests.Wait(ctx); err != nil {
			return err
		}
	}
	for n := tokens; l.tokens != nil && n > 0; n -= l.tokens.Burst() {
		// A long document may be more than the burst: it takes several turns.
		if err := l.tokens.WaitN(ctx, min(n, l.tokens.Burst())); err != nil {
			return err
		}
	}
	for {
		d := l.hold(tokens, time.Now())
		if d <= 0 {
			return ctx.Err()
		}
		t := time.NewTimer(d)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// hold says how long a request of so many tokens has to wait for what the service said, and takes it from what is left if not at all.
func (l *limits) hold(tokens int, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait := l.until.Sub(now)
	for name, a := range l.left {
		if !now.Before(a.reset) {
			delete(l.left, name)
			continue
		}
		if a.remaining < need(name, tokens) {
			wait = max(wait, a.reset.Sub(now))
		}
	}
	if wait > 0 {
		return min(wait, longestPause)
	}
	for name, a := range l.left {
		a.remaining -= need(name, tokens)
		l.left[name] = a
	}
	return 0
}

func need(name string, tokens int) int {
	if name == "requests" {
		return 1
	}
	return tokens
}

// pause holds all requests back after the service refused one.
func (l *limits) pause(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := time.Now().Add(min(d, longestPause)); until.After(l.until) {
		l.until = until
	}
}

// correct takes what a request used beyond its estimate.
func (l *limits) correct(estimate, used int) {
	if l.tokens != nil && used > estimate {
		l.tokens.ReserveN(time.Now(), min(used-estimate, l.tokens.Burst()))
	}
}

// observe notes what the headers of a response say is left.
func (l *limits) observe(h http.Header, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, headers := range map[string][2]string{
		"requests": {"x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"},
		"tokens":   {"x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"},
	} {
		l.note(name, h.Get(headers[0]), h.Get(headers[1]), now)
	}
	for _, name := range []string{"requests", "tokens"} {
		l.note(name, h.Get("anthropic-ratelimit-"+name+"-remaining"), h.Get("anthropic-ratelimit-"+name+"-reset"), now)
	}
}

func (l *limits) note(name, remaining, reset string, now time.Time) {
	n, err := strconv.Atoi(strings.TrimSpace(remaining))
	if err != nil {
		return
	}
	at, ok := resetTime(reset, now)
	if !ok || n > 1<<40 {
		return
	}
	// Only what is nearly used up matters: a token limit that is far away would only be counted down in vain.
	l.left[name] = allowance{remaining: max(n, 0), reset: minTime(at, now.Add(longestPause))}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// resetTime reads 1s, 6m0s, 20ms, a number of seconds, or a time.
func resetTime(s string, now time.Time) (time.Time, bool) {
	s = strings.TrimSpace(s)
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(d), true
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 0 && f < 1e6 {
		return now.Add(time.Duration(f * float64(time.Second))), true
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, true
	}
	return time.Time{}, false
}

// retryAfter is when the service said to come back; 0 when it did not.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("retry-after-ms"), 64); err == nil && ms > 0 && ms < 1e9 {
		return time.Duration(ms * float64(time.Millisecond))
	}
	s := strings.TrimSpace(h.Get("retry-after"))
	if f, err := strconv.ParseFloat(s, 64); err == nil && f > 0 && f < 1e6 {
		return time.Duration(f * float64(time.Second))
	}
	if t, err := http.ParseTime(s); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

// estimateUsage fills in what a service does not say about its reply: it may be billed all the same. hidden is text that was made and is not
// part of the reply.
func estimateUsage(r *datasets.TeacherReply, messages []datasets.Message, hidden string) {
	if r.InputTokens == 0 {
		r.InputTokens, r.Estimated = estimateTokens(messages), true
	}
	if r.OutputTokens == 0 && r.Text+hidden != "" {
		r.OutputTokens, r.Estimated = estimateTokens([]datasets.Message{{Content: r.Text + hidden}}), true
	}
}

// estimateTokens guesses a prompt's length without its model's tokenizer: four ASCII bytes make a token, other characters are one each.
func estimateTokens(messages []datasets.Message) int {
	n := 0
	for _, m := range messages {
		runes := utf8.RuneCountInString(m.Content)
		ascii := 0
		for i := range len(m.Content) {
			if m.Content[i] < utf8.RuneSelf {
				ascii++
			}
		}
		n += ascii/4 + runes - ascii + 4
	}
	return n
}
