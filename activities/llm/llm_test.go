package llm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/instructions"
)

func TestEachProblemIsHandledAndCounted(t *testing.T) {
	// then gives the problem first, and a good reply at the request after.
	then := func(times int, problem func(int, http.ResponseWriter, *http.Request)) func(int, http.ResponseWriter, *http.Request) {
		return func(n int, w http.ResponseWriter, r *http.Request) {
			if n <= times {
				problem(n, w, r)
				return
			}
			good(w, "fine", "stop")
		}
	}
	hang := func(_ int, _ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
		case <-time.After(2 * time.Second):
		}
	}
	broken := func(_ int, w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			c.Close()
		}
	}
	for name, tt := range map[string]struct {
		answer   func(int, http.ResponseWriter, *http.Request)
		change   func(*datasets.EndpointParams)
		requests int
		problems map[Problem]int
		is       error // nil: a reply
		fatal    bool
		finish   string
	}{
		"a good reply":                                  {requests: 1, finish: "stop"},
		"429 is tried again":                            {answer: then(2, status(429, `{"error":{"message":"slow down"}}`)), requests: 3, problems: map[Problem]int{RateLimited: 2}, finish: "stop"},
		"429 waits as long as it is told":               {answer: then(1, status(429, `{}`, "retry-after-ms", "30")), requests: 2, problems: map[Problem]int{RateLimited: 1}, finish: "stop"},
		"500 and 503 are tried again":                   {answer: then(1, status(503, `oops`)), requests: 2, problems: map[Problem]int{ServerError: 1}, finish: "stop"},
		"a service that stays down is given up for now": {answer: status(500, `{}`), requests: defaultTries + 1, problems: map[Problem]int{ServerError: defaultTries + 1}, is: &CallError{}},
		"a time-out is tried again": {answer: then(1, hang), change: func(p *datasets.EndpointParams) { p.Timeout = "100ms" }, requests: 2,
			problems: map[Problem]int{TimedOut: 1}, finish: "stop"},
		"a broken connection is tried again":      {answer: then(1, broken), requests: 2, problems: map[Problem]int{Unreachable: 1}, finish: "stop"},
		"no JSON is tried again":                  {answer: then(1, status(200, `<html>`)), requests: 2, problems: map[Problem]int{Malformed: 1}, finish: "stop"},
		"no choices is tried three times":         {answer: status(200, `{"choices":[]}`), requests: 3, problems: map[Problem]int{Malformed: 3}, is: instructions.ErrMalformed},
		"a rejected request is not tried again":   {answer: status(400, `{"error":{"message":"too long"}}`), requests: 1, problems: map[Problem]int{Rejected: 1}, is: instructions.ErrRejected},
		"a wrong key ends it":                     {answer: status(401, `{"error":{"message":"bad key"}}`), requests: 1, problems: map[Problem]int{Denied: 1}, is: &CallError{}, fatal: true},
		"an unknown model ends it":                {answer: status(404, `{"error":{"message":"no such model"}}`), requests: 1, problems: map[Problem]int{Denied: 1}, is: &CallError{}, fatal: true},
		"a used up quota ends it":                 {answer: status(429, `{"error":{"code":"insufficient_quota","message":"pay"}}`), requests: 1, problems: map[Problem]int{Denied: 1}, is: &CallError{}, fatal: true},
		"a reply that was cut off says so":        {answer: func(_ int, w http.ResponseWriter, _ *http.Request) { good(w, "half", "length") }, requests: 1, finish: "length"},
		"a filtered reply is a refusal":           {answer: func(_ int, w http.ResponseWriter, _ *http.Request) { good(w, "", "content_filter") }, requests: 1, finish: "refusal"},
		"a filtered request is a refusal as well": {answer: status(400, `{"error":{"code":"content_filter","message":"no"}}`), requests: 1, finish: "refusal"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, tt.answer)
			u := teacher(f.endpoint(t, tt.change), memory(t), 0, "a")
			reply, err := u.Ask(t.Context(), request(1))
			var call *CallError
			switch {
			case tt.is == nil && err != nil:
				t.Fatal(err)
			case tt.is != nil && err == nil:
				t.Fatalf("no error, reply %+v", reply)
			case tt.is == instructions.ErrMalformed || tt.is == instructions.ErrRejected:
				if !errors.Is(err, tt.is) {
					t.Errorf("error %v, want %v", err, tt.is)
				}
			case tt.is != nil && (!errors.As(err, &call) || call.Fatal() != tt.fatal):
				t.Errorf("error %v, fatal should be %v", err, tt.fatal)
			}
			if reply.Finish != tt.finish {
				t.Errorf("finish %q, want %q", reply.Finish, tt.finish)
			}
			if f.count() != tt.requests || u.Usage().Requests != tt.requests {
				t.Errorf("%d requests came, %d were counted, want %d", f.count(), u.Usage().Requests, tt.requests)
			}
			if diff := cmp.Diff(tt.problems, u.Usage().Problems); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnthropicSpeaksItsOwnProtocol(t *testing.T) {
	for name, tt := range map[string]struct {
		stop, finish string
	}{
		"a reply":          {"end_turn", "stop"},
		"a truncated one":  {"max_tokens", "length"},
		"a refusal":        {"refusal", "refusal"},
		"the context full": {"model_context_window_exceeded", "length"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, func(_ int, w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("x-api-key") != planted || r.URL.Path != "/v1/messages" {
					w.WriteHeader(401)
					return
				}
				w.Header().Set("content-type", "application/json")
				fmt.Fprintf(w, `{"id":"x","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"an "},{"type":"text","text":"answer"}],"stop_reason":%q,"usage":{"input_tokens":7,"output_tokens":3}}`, tt.stop)
			})
			e := f.endpoint(t, func(p *datasets.EndpointParams) { p.Kind, p.BaseURL = datasets.EndpointAnthropic, f.URL })
			reply, err := teacher(e, memory(t), 0, "a").Ask(t.Context(), request(1))
			if err != nil {
				t.Fatal(err)
			}
			want := datasets.TeacherReply{Text: "an answer", InputTokens: 7, OutputTokens: 3, Finish: tt.finish}
			if diff := cmp.Diff(want, reply); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("overloaded is tried again", func(t *testing.T) {
		f := newFake(t, status(529, `{"type":"error","error":{"type":"overloaded_error","message":"later"}}`))
		e := f.endpoint(t, func(p *datasets.EndpointParams) { p.Kind, p.BaseURL = datasets.EndpointAnthropic, f.URL })
		_, err := teacher(e, memory(t), 0, "a").Ask(t.Context(), request(1))
		var call *CallError
		if !errors.As(err, &call) || call.Problem != ServerError || call.Message != "later" || f.count() != defaultTries+1 { // and a probe
			t.Errorf("error %v after %d requests", err, f.count())
		}
	})
}

func TestARequestIsPaidOnce(t *testing.T) {
	f, s := newFake(t, nil), memory(t)
	e := f.endpoint(t, nil)
	first := teacher(e, s, 0, "first attempt")
	a, err := first.Ask(t.Context(), request(1))
	if err != nil {
		t.Fatal(err)
	}
	second := teacher(e, s, 0, "second attempt")
	b, err := second.Ask(t.Context(), request(1))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, b); diff != "" || f.count() != 1 {
		t.Errorf("%d requests; %s", f.count(), diff)
	}
	// 1,000 tokens in for 1 USD a million, 500 out for 2.
	want := Usage{Journaled: 1, InputTokens: 1000, OutputTokens: 500, SpentUSD: 0.002}
	if diff := cmp.Diff(want, second.Usage()); diff != "" {
		t.Error(diff)
	}
	other := request(1)
	other.Sample = 1
	if _, err := second.Ask(t.Context(), other); err != nil || f.count() != 2 {
		t.Errorf("another sample is another request: %d requests, %v", f.count(), err)
	}
}

func TestTheBudgetIsAHardCap(t *testing.T) {
	f, s := newFake(t, nil), memory(t)
	e := f.endpoint(t, nil)
	// Each reply costs 0.002, and could have cost a little above 0.001 before it is there.
	const cap = 0.0095
	u := teacher(e, s, cap, "a")
	var budget *BudgetError
	n := 0
	for ; n < 100; n++ {
		if _, err := u.Ask(t.Context(), request(n)); errors.As(err, &budget) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if budget == nil || f.count() != 4+1 && f.count() != 4 || u.Usage().SpentUSD > cap+0.002 {
		t.Fatalf("after %d requests and %.4f USD: %v", f.count(), u.Usage().SpentUSD, budget)
	}
	paid := f.count()
	// Raised, it goes on with what is missing.
	u = teacher(e, s, 1, "b")
	for i := range n + 2 {
		if _, err := u.Ask(t.Context(), request(i)); err != nil {
			t.Fatal(err)
		}
	}
	if f.count() != n+2 || u.Usage().Journaled != paid {
		t.Errorf("%d requests for %d questions, %d of %d from the journal", f.count(), n+2, u.Usage().Journaled, paid)
	}
}

func TestShardsShareABudget(t *testing.T) {
	s := memory(t)
	one, two := NewBudget(s, "k", "0", 1), NewBudget(s, "k", "1", 1)
	if err := one.promise(t.Context(), 0.7); err != nil {
		t.Fatal(err)
	}
	var over *BudgetError
	if err := two.promise(t.Context(), 0.4); !errors.As(err, &over) {
		t.Fatalf("the second shard got 0.4 of what was 0.3: %v", err)
	}
	one.settle(0.7, 0.1)
	if err := one.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := two.promise(t.Context(), 0.85); err != nil {
		t.Errorf("what the first shard gave back is not there: %v", err)
	}
	// What a shard was allowed when it was cut off may have been spent.
	again := NewBudget(s, "k", "1", 1)
	if err := again.promise(t.Context(), 0.85); !errors.As(err, &over) {
		t.Errorf("a shard's second attempt may spend what the first may have spent: %v", err)
	}
	if err := again.promise(t.Context(), 0.03); err != nil {
		t.Errorf("a shard's second attempt: %v", err)
	}
}

// Stages of a run that ask one endpoint spend from one ledger, whatever their sampling; another run has its own. Attempts that were cut
// off, and what the journal holds, are no way around it.
func TestStagesOfARunShareOneCap(t *testing.T) {
	f, s := newFake(t, nil), memory(t)
	const cap = 0.0201 // ten replies of 0.002, which are foreseen at half of that
	open := func(run, stage string, temperature float64) *Teacher {
		e := f.endpoint(t, func(p *datasets.EndpointParams) { p.Temperature, p.MaxCostUSD = &temperature, cap })
		return NewTeacher(e, s, NewBudget(s, Ledger(run, e.Params()), stage, cap), stage, nil)
	}
	var over *BudgetError
	for attempt := range 8 {
		for stage := range 3 {
			u := open("run", fmt.Sprint("stage ", stage), float64(stage))
			for n := range attempt + 2 {
				if _, err := u.Ask(t.Context(), request(n)); err != nil && !errors.As(err, &over) {
					t.Fatal(err)
				}
			}
			if attempt%2 == 1 { // the others are killed
				if err := u.budget.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if paid := 0.002 * float64(f.count()); over == nil || paid > cap+0.001 || f.count() < 7 {
		t.Errorf("%.4f USD were paid under a cap of %.4f: %v", paid, cap, over)
	}
	before := f.count()
	u := open("another run", "stage 0", 0)
	for n := range 9 {
		if _, err := u.Ask(t.Context(), request(n)); err != nil {
			t.Fatal(err)
		}
	}
	if usage := u.Usage(); usage.Journaled == 0 || usage.Journaled+f.count()-before != 9 {
		t.Errorf("another run: %+v", usage)
	}
}

func TestSecretsAreNowhere(t *testing.T) {
	for name, body := range map[string]func(w http.ResponseWriter, key string){
		"in an error that repeats them": func(w http.ResponseWriter, key string) {
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"error":{"message":"what is %s","code":"%s"}}`, key, key)
		},
		"in a reply that repeats them": func(w http.ResponseWriter, key string) { good(w, "your key is "+key, "stop") },
		"in a page that is no JSON":    func(w http.ResponseWriter, key string) { fmt.Fprintf(w, "<html>%s", key) },
		"in a server error":            func(w http.ResponseWriter, key string) { w.WriteHeader(500); fmt.Fprint(w, key) },
		"in a refusal of the key": func(w http.ResponseWriter, key string) {
			w.WriteHeader(401)
			fmt.Fprintf(w, `{"error":{"message":"incorrect API key provided: %s"}}`, key)
		},
	} {
		for _, kind := range []datasets.EndpointKind{datasets.EndpointOpenAI, datasets.EndpointAnthropic} {
			t.Run(name+"/"+string(kind), func(t *testing.T) {
				seen := false
				f := newFake(t, func(_ int, w http.ResponseWriter, r *http.Request) {
					seen = seen || strings.Contains(r.Header.Get("authorization")+r.Header.Get("x-api-key"), planted)
					body(w, planted)
				})
				e := f.endpoint(t, func(p *datasets.EndpointParams) { p.Kind = kind })
				s := memory(t)
				u := teacher(e, s, 0, "a")
				reply, err := u.Ask(t.Context(), request(1))
				if !seen {
					t.Error("the service was not given the key")
				}
				all := fmt.Sprintf("%+v %v %+v %+v", reply, err, u.Usage(), e.Params())
				for info := range s.Backend().List(t.Context(), "") {
					r, _, err := s.Backend().Get(t.Context(), info.Key)
					if err != nil {
						t.Fatal(err)
					}
					data, _ := io.ReadAll(r)
					r.Close()
					all += info.Key + string(data)
				}
				if strings.Contains(all, planted) {
					t.Errorf("the key is in: %s", all)
				}
			})
		}
	}
}

func TestKeysAreReferences(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := datasets.EndpointParams{Model: "m"}
	with := func(f func(*datasets.EndpointParams)) datasets.EndpointParams { p := base; f(&p); return p }
	for name, tt := range map[string]struct {
		p    datasets.EndpointParams
		want string // part of the error; empty: none
	}{
		"none is needed":              {base, ""},
		"a file":                      {with(func(p *datasets.EndpointParams) { p.KeyFile = write("key", planted+"\n") }), ""},
		"a file that is not there":    {with(func(p *datasets.EndpointParams) { p.KeyFile = filepath.Join(dir, "none") }), "cannot be read"},
		"an empty file":               {with(func(p *datasets.EndpointParams) { p.KeyFile = write("empty", "") }), "is not one line"},
		"a variable that is not set":  {with(func(p *datasets.EndpointParams) { p.KeyEnv = "NOT_SET_ANYWHERE" }), "is not set"},
		"the key itself as variable":  {with(func(p *datasets.EndpointParams) { p.KeyEnv = planted }), "take it out of the file"},
		"the key in the address":      {with(func(p *datasets.EndpointParams) { p.BaseURL = "https://u:" + planted + "@x/v1" }), "neither password nor query"},
		"the key in the query":        {with(func(p *datasets.EndpointParams) { p.BaseURL = "https://x/v1?key=" + planted }), "neither password nor query"},
		"both variable and file":      {with(func(p *datasets.EndpointParams) { p.KeyEnv, p.KeyFile = "A", "b" }), "name one of them"},
		"a cap without prices":        {with(func(p *datasets.EndpointParams) { p.MaxCostUSD = 1 }), "needs price_in"},
		"an address that is a secret": {with(func(p *datasets.EndpointParams) { p.BaseURL = planted }), "no http"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(tt.p, 1)
			switch {
			case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q", err, tt.want)
			case err != nil && strings.Contains(err.Error(), planted):
				t.Errorf("the error repeats the key: %v", err)
			}
		})
	}
}

func TestNothingComesFromTheEnvironment(t *testing.T) {
	for _, name := range []string{"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_ORG_ID"} {
		t.Setenv(name, planted)
	}
	t.Setenv("OPENAI_BASE_URL", "http://127.0.0.1:1")
	t.Setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
	for _, kind := range []datasets.EndpointKind{datasets.EndpointOpenAI, datasets.EndpointAnthropic} {
		var headers string
		f := newFake(t, func(_ int, w http.ResponseWriter, r *http.Request) {
			headers = fmt.Sprint(r.Header)
			w.WriteHeader(400)
		})
		e := f.endpoint(t, func(p *datasets.EndpointParams) { p.Kind, p.KeyEnv = kind, "" })
		if _, err := teacher(e, memory(t), 0, "a").Ask(t.Context(), request(1)); !errors.Is(err, instructions.ErrRejected) {
			t.Errorf("%s: %v", kind, err)
		}
		if strings.Contains(headers, planted) {
			t.Errorf("%s sends a key it was not told of: %s", kind, headers)
		}
	}
}

func TestAskingEndsWithItsContext(t *testing.T) {
	f := newFake(t, status(500, `{}`))
	e := f.endpoint(t, nil)
	e.first = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := teacher(e, memory(t), 0, "a").Ask(ctx, request(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestAReplyThatWasPaidForIsKeptAtTheEnd(t *testing.T) {
	arrived := make(chan struct{})
	f := newFake(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		time.Sleep(50 * time.Millisecond)
		good(w, "late", "stop")
	})
	s := memory(t)
	u := teacher(f.endpoint(t, nil), s, 0, "a")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if reply, err := u.Ask(ctx, request(1)); err != nil || reply.Text != "late" {
		t.Fatalf("reply %q, error %v", reply.Text, err)
	}
	u.Wait()
	if _, err := u.Ask(t.Context(), request(2)); !errors.Is(err, ErrClosed) {
		t.Errorf("asked after the end: %v", err)
	}
	if reply, err := teacher(f.endpoint(t, nil), s, 0, "b").Ask(t.Context(), request(1)); err != nil || reply.Text != "late" || f.count() != 1 {
		t.Errorf("reply %q after %d requests, error %v", reply.Text, f.count(), err)
	}
}
