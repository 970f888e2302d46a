package llm

import (
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
)

func TestTheListOfModelsTellsWhetherAServiceIsThere(t *testing.T) {
	anthropic := func(p *datasets.EndpointParams) { p.Kind = datasets.EndpointAnthropic }
	const list = `{"object":"list","data":[{"id":"m","object":"model"},{"id":"n","object":"model"}]}`
	for name, tt := range map[string]struct {
		answer func(int, http.ResponseWriter, *http.Request)
		change func(*datasets.EndpointParams)
		want   []string
		is     Problem
	}{
		"a list":                               {answer: status(200, list), want: []string{"m", "n"}},
		"a list whose aliases are left out":    {answer: status(200, list), change: anthropic},
		"a service without a list":             {answer: status(404, `not found`)},
		"a service that lets nobody read it":   {answer: status(405, `{}`)},
		"a key that is refused":                {answer: status(401, `{"error":{"message":"no such key `+planted+`"}}`), is: Denied},
		"a key that is refused by the other":   {answer: status(401, `{"error":{"message":"no such key"}}`), change: anthropic, is: Denied},
		"a service in trouble":                 {answer: status(503, `{}`), is: ServerError},
		"an address where nothing listens":     {change: func(p *datasets.EndpointParams) { p.BaseURL = "http://127.0.0.1:1/v1" }, is: Unreachable},
		"a page of somebody else's web server": {answer: status(200, `<html>`), is: Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, func(n int, w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.Path != "/v1/models" && r.URL.Path != "/v1/v1/models" {
					t.Errorf("%s %s is asked for", r.Method, r.URL.Path)
				}
				tt.answer(n, w, r)
			})
			got, err := f.endpoint(t, tt.change).Models(t.Context())
			var call *CallError
			if errors.As(err, &call) != (tt.is != "") || call != nil && call.Problem != tt.is {
				t.Errorf("got %v, want %q", err, tt.is)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if err != nil && cmp.Diff(err.Error(), clean(err.Error(), planted)) != "" {
				t.Errorf("the key is told: %v", err)
			}
		})
	}
}
