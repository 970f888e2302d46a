package llm

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
)

func TestHeadersHoldRequestsBack(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	for name, tt := range map[string]struct {
		h    http.Header
		want time.Duration
	}{
		"nothing said":                     {header(), 0},
		"requests left":                    {header("x-ratelimit-remaining-requests", "1", "x-ratelimit-reset-requests", "9s"), 0},
		"no request left":                  {header("x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "1m3s"), 63 * time.Second},
		"a reset in milliseconds":          {header("x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "20ms"), 20 * time.Millisecond},
		"too few tokens left":              {header("x-ratelimit-remaining-tokens", "99", "x-ratelimit-reset-tokens", "2.5"), 2500 * time.Millisecond},
		"enough tokens left":               {header("x-ratelimit-remaining-tokens", "100", "x-ratelimit-reset-tokens", "6s"), 0},
		"Anthropic's times":                {header("anthropic-ratelimit-tokens-remaining", "0", "anthropic-ratelimit-tokens-reset", "2026-01-02T03:04:15Z"), 10 * time.Second},
		"a day is five minutes at most":    {header("x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "24h"), longestPause},
		"a reset that is gone":             {header("anthropic-ratelimit-requests-remaining", "0", "anthropic-ratelimit-requests-reset", "2026-01-02T03:04:00Z"), 0},
		"what is no number says nothing":   {header("x-ratelimit-remaining-requests", "none", "x-ratelimit-reset-requests", "9s"), 0},
		"what is no duration says nothing": {header("x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "soon"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLimits(datasets.EndpointParams{}, 1)
			l.observe(tt.h, now)
			if got := l.hold(100, now); got != tt.want {
				t.Errorf("held for %v, want %v", got, tt.want)
			}
		})
	}
}

func TestWhatIsLeftIsUsedUp(t *testing.T) {
	now := time.Now()
	l := newLimits(datasets.EndpointParams{}, 1)
	h := http.Header{}
	h.Set("x-ratelimit-remaining-requests", "2")
	h.Set("x-ratelimit-reset-requests", "10s")
	l.observe(h, now)
	var waits []bool
	for range 3 {
		waits = append(waits, l.hold(1, now) > 0)
	}
	if diff := cmp.Diff([]bool{false, false, true}, waits); diff != "" {
		t.Error(diff)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, tt := range map[string]struct {
		key, value string
		want       time.Duration
	}{
		"seconds":            {"retry-after", "7", 7 * time.Second},
		"parts of a second":  {"retry-after", "0.5", 500 * time.Millisecond},
		"a date":             {"retry-after", now.Add(time.Minute).Format(http.TimeFormat), time.Minute},
		"a date that is old": {"retry-after", now.Add(-time.Minute).Format(http.TimeFormat), 0},
		"milliseconds":       {"retry-after-ms", "250", 250 * time.Millisecond},
		"nonsense":           {"retry-after", "later", 0},
		"negative":           {"retry-after", "-3", 0},
		"nothing":            {"x", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{}
			h.Set(tt.key, tt.value)
			if got := retryAfter(h, now); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add("0", "1s", "7")
	f.Add("-1", "2026-01-02T03:04:05Z", "Fri, 02 Jan 2026 03:04:05 GMT")
	f.Add("9223372036854775807", "1e300", "1e300")
	f.Fuzz(func(t *testing.T, remaining, reset, after string) {
		now := time.Now()
		h := http.Header{}
		h.Set("x-ratelimit-remaining-tokens", remaining)
		h.Set("x-ratelimit-reset-tokens", reset)
		h.Set("retry-after", after)
		l := newLimits(datasets.EndpointParams{}, 1)
		l.observe(h, now)
		if d := l.hold(1000, now); d < 0 || d > longestPause {
			t.Errorf("held for %v", d)
		}
		if d := retryAfter(h, now); d < 0 {
			t.Errorf("come back %v ago", d)
		}
	})
}

func TestAWorkerTakesItsShareOfTheLimits(t *testing.T) {
	p := datasets.EndpointParams{RequestsPerMinute: 600, TokensPerMinute: 60_000}
	l := newLimits(p, 0.25)
	if got := float64(l.requests.Limit()); got != 2.5 {
		t.Errorf("%v requests a second, want 2.5", got)
	}
	if got := float64(l.tokens.Limit()); got != 250 {
		t.Errorf("%v tokens a second, want 250", got)
	}
	if l.tokens.Burst() != 2500 {
		t.Errorf("a burst of %d tokens, want ten seconds' worth, 2500", l.tokens.Burst())
	}
}

func TestForecastsHoldWhatWasUsed(t *testing.T) {
	e := datasets.EndpointParams{Model: "m", PriceIn: 1, PriceOut: 2, MaxTokens: 500}
	w := Workload{Instances: Range{10, 10}, Tokens: Range{10 * 9000, 10 * 9000}}
	f := Estimate(e, datasets.InstructionsParams{}, w)
	// Ten instances, each asked twice about 9,000 tokens, with 100 and 300 tokens of replies.
	used := Forecast{Requests: Range{20, 20}, InputTokens: Range{20 * 9100, 20 * 9100}, OutputTokens: Range{10 * 400, 10 * 400}}
	used.USD = used.InputTokens.times(1e-6).plus(used.OutputTokens.times(2e-6))
	for name, pair := range map[string][2]Range{
		"requests": {f.Requests, used.Requests}, "input": {f.InputTokens, used.InputTokens}, "output": {f.OutputTokens, used.OutputTokens}, "usd": {f.USD, used.USD},
	} {
		if pair[0].Low > pair[1].Low || pair[0].High < pair[1].High {
			t.Errorf("%s: %v does not hold %v", name, pair[0], pair[1].Low)
		}
	}
}
