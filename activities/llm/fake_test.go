package llm

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// planted is the API key of every test. It must not turn up anywhere.
const planted = "sk-planted-5f0c1d7e9a"

// fake is a service that counts requests and answers as told.
type fake struct {
	*httptest.Server
	mu       sync.Mutex
	requests int
	bodies   []string
	// answer writes the response to request number n, from 1; nil is always a good reply.
	answer func(n int, w http.ResponseWriter, r *http.Request)
}

func newFake(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *fake {
	t.Helper()
	f := &fake{answer: answer}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body strings.Builder
		var sent struct {
			Messages []struct{ Content json.RawMessage }
		}
		if err := json.NewDecoder(r.Body).Decode(&sent); err == nil && len(sent.Messages) > 0 {
			body.Write(sent.Messages[len(sent.Messages)-1].Content)
		}
		f.mu.Lock()
		f.requests++
		n := f.requests
		f.bodies = append(f.bodies, body.String())
		f.mu.Unlock()
		if f.answer == nil {
			good(w, fmt.Sprintf("reply %d", n), "stop")
			return
		}
		f.answer(n, w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

// good is a reply of the chat completions API: 1,000 tokens in, 500 out.
func good(w http.ResponseWriter, text, finish string) {
	w.Header().Set("content-type", "application/json")
	fmt.Fprintf(w, `{"id":"x","object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":%q,"message":{"role":"assistant","content":%q}}],"usage":{"prompt_tokens":1000,"completion_tokens":500,"total_tokens":1500}}`, finish, text)
}

func status(code int, body string, headers ...string) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("content-type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// endpoint opens a fast endpoint at the fake.
func (f *fake) endpoint(t *testing.T, change func(*datasets.EndpointParams)) *Endpoint {
	t.Helper()
	t.Setenv("PLANTED_KEY", planted)
	p := datasets.EndpointParams{Kind: datasets.EndpointOpenAI, BaseURL: f.URL + "/v1", Model: "m", KeyEnv: "PLANTED_KEY", MaxTokens: 500, Timeout: "5s", PriceIn: 1, PriceOut: 2}
	if change != nil {
		change(&p)
	}
	e, err := Open(p, 1)
	if err != nil {
		t.Fatal(err)
	}
	e.first = time.Millisecond
	return e
}

func request(n int) datasets.TeacherRequest {
	return datasets.TeacherRequest{Messages: []datasets.Message{{Role: datasets.RoleUser, Content: fmt.Sprintf("question %d", n)}}}
}

func memory(t *testing.T) *artifact.Store {
	return artifact.New(artifact.NewMemory(), "mem://"+t.Name())
}

func teacher(e *Endpoint, s *artifact.Store, cap float64, attempt string) *Teacher {
	return NewTeacher(e, s, NewBudget(s, "0123", "whole", cap), attempt, nil)
}
