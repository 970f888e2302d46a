package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/longalign/longalign-go/datasets/chat"
	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
	"github.com/longalign/longalign-go/gpu/llama"
)

// fixture is a random model behind an HTTP server.
type fixture struct {
	model  *llama.Model
	tok    *tokenizer.Tokenizer
	server *Server
	http   *httptest.Server
	client openai.Client
}

var bg = context.Background()

const testToken = "not-a-real-secret"

func newFixture(t *testing.T, context int, change func(*Options)) *fixture {
	t.Helper()
	tj, cj, _, err := tokenizer.Train(slices.Values([]string{strings.Repeat("the cat sat on the mat, and the dog ran. ", 20)}),
		tokenizer.Options{VocabSize: 300, SpecialTokens: []string{"<unk>", "<s>", "</s>"}, BOS: "<s>", EOS: "</s>"})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{}
	if f.tok, err = tokenizer.Parse(tj, cj); err != nil {
		t.Fatal(err)
	}
	shape := llama.Shape{Dim: 16, Layers: 2, Heads: 2, KVHeads: 1, FeedForward: 24, Vocab: f.tok.VocabSize(), Context: context, BOS: 1, EOS: 2}
	c, err := shape.Config()
	if err != nil {
		t.Fatal(err)
	}
	c.InitStd = 0.7
	dev, err := host.Open(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f.model, err = llama.New(c, dev, gpu.Float32, 3); err != nil {
		t.Fatal(err)
	}
	template, err := chat.Lookup("longalign")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Name: "tiny", Template: template, Token: testToken}
	if change != nil {
		change(&o)
	}
	if f.server, err = New(f.model, f.tok, o); err != nil {
		t.Fatal(err)
	}
	f.http = httptest.NewServer(f.server)
	t.Cleanup(func() {
		f.http.Close()
		f.server.Close()
		f.model.Close()
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	f.client = openai.NewClient(option.WithBaseURL(f.http.URL+"/v1"), option.WithAPIKey(testToken), option.WithMaxRetries(0))
	return f
}

// expected is the greedy continuation computed without the server.
func (f *fixture) expected(t *testing.T, prompt []int32, n int) llama.Completion {
	t.Helper()
	// A second model on a second device: the server owns the first.
	dev, err := host.Open(host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	m, err := llama.New(f.model.Config(), dev, gpu.Float32, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	out, err := m.Generate(bg, []llama.Request{{Prompt: prompt, MaxNewTokens: n}})
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

func TestOpenAIClientCompletes(t *testing.T) {
	f := newFixture(t, 128, nil)
	prompt := f.tok.Encode("the cat", true)
	want := f.expected(t, prompt, 12)
	got, err := f.client.Completions.New(bg, openai.CompletionNewParams{
		Model: "tiny", Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("the cat")},
		MaxTokens: openai.Int(12), Temperature: openai.Float(0), Logprobs: openai.Int(3),
	})
	if err != nil {
		t.Fatal(err)
	}
	choice := got.Choices[0]
	all := f.tok.Decode(append(slices.Clone(prompt), want.IDs...), true)
	if text := strings.TrimPrefix(all, f.tok.Decode(prompt, true)); choice.Text != text {
		t.Errorf("text %q, want %q", choice.Text, text)
	}
	if diff := cmp.Diff(want.LogProbs, choice.Logprobs.TokenLogprobs); diff != "" {
		t.Error(diff)
	}
	if string(choice.FinishReason) != string(want.Finish) || got.Usage.PromptTokens != int64(len(prompt)) || got.Usage.CompletionTokens != int64(len(want.IDs)) {
		t.Errorf("finish %s, usage %+v", choice.FinishReason, got.Usage)
	}
	for i, top := range choice.Logprobs.TopLogprobs {
		if len(top) != 3 || math.Abs(top[choice.Logprobs.Tokens[i]]-want.LogProbs[i]) > 1e-12 {
			t.Errorf("token %d: top %v", i, top)
		}
	}
}

func TestOpenAIClientChatsAndStreams(t *testing.T) {
	f := newFixture(t, 128, nil)
	params := openai.ChatCompletionNewParams{
		Model: "tiny", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("the dog ran")},
		MaxTokens: openai.Int(20), Temperature: openai.Float(0.8), TopP: openai.Float(0.95), Seed: openai.Int(4), N: openai.Int(2),
		Logprobs: openai.Bool(true), TopLogprobs: openai.Int(2),
	}
	whole, err := f.client.Chat.Completions.New(bg, params)
	if err != nil {
		t.Fatal(err)
	}
	if len(whole.Choices) != 2 || whole.Choices[0].Message.Content == whole.Choices[1].Message.Content {
		t.Fatalf("two choices should differ: %+v", whole.Choices)
	}
	params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream := f.client.Chat.Completions.NewStreaming(bg, params)
	acc := openai.ChatCompletionAccumulator{}
	for stream.Next() {
		if !acc.AddChunk(stream.Current()) {
			t.Fatal("the client could not add a chunk")
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		a, b := whole.Choices[i], acc.Choices[i]
		if a.Message.Content != b.Message.Content || a.FinishReason != b.FinishReason || len(a.Logprobs.Content) != len(b.Logprobs.Content) {
			t.Errorf("choice %d: %q %s whole, %q %s streamed", i, a.Message.Content, a.FinishReason, b.Message.Content, b.FinishReason)
		}
	}
	if acc.Usage.TotalTokens != whole.Usage.TotalTokens || acc.Usage.TotalTokens == 0 {
		t.Errorf("usage %+v and %+v", acc.Usage, whole.Usage)
	}
}

func TestOpenAIClientListsTheModel(t *testing.T) {
	f := newFixture(t, 64, nil)
	page, err := f.client.Models.List(bg)
	if err != nil || len(page.Data) != 1 || page.Data[0].ID != "tiny" {
		t.Fatalf("%+v, %v", page, err)
	}
	if m, err := f.client.Models.Get(bg, "tiny"); err != nil || m.ID != "tiny" {
		t.Errorf("%+v, %v", m, err)
	}
}

// post sends a body as lm-evaluation-harness does and returns the status and the answer.
func (f *fixture) post(t *testing.T, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, f.http.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// TestEchoGivesTheLogLikelihoodsThatHarnessesRead sends lm-evaluation-harness's log-likelihood request: token prompts, echo, one
// new token; it reads token_logprobs[len(context):-1] and whether each token is the likeliest.
func TestEchoGivesTheLogLikelihoodsThatHarnessesRead(t *testing.T) {
	f := newFixture(t, 128, nil)
	prompt := []int32{1, 40, 41, 42, 43}
	greedy := f.expected(t, prompt, 3)
	if len(greedy.IDs) != 3 {
		t.Fatal("the fixture's model ends at once; use another seed")
	}
	for name, tt := range map[string]struct {
		continuation []int32
		greedy       bool
	}{
		"the greedy continuation": {greedy.IDs, true},
		"another":                 {[]int32{50, 51}, false},
	} {
		t.Run(name, func(t *testing.T) {
			ids := append(slices.Clone(prompt), tt.continuation...)
			request, err := json.Marshal(map[string]any{
				"model": "tiny", "prompt": [][]int32{ids}, "max_tokens": 1, "logprobs": 1, "echo": true, "temperature": 0, "seed": 1234,
			})
			if err != nil {
				t.Fatal(err)
			}
			status, body := f.post(t, "/v1/completions", string(request))
			var got struct {
				Choices []struct {
					LogProbs completionLogProbs `json:"logprobs"`
				} `json:"choices"`
			}
			if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			l := got.Choices[0].LogProbs
			if len(l.Tokens) != len(ids)+1 || l.TokenLogProbs[0] != nil || l.TopLogProbs[0] != nil {
				t.Fatalf("%d tokens for a prompt of %d: %s", len(l.Tokens), len(ids), body)
			}
			var sum float64
			isGreedy := true
			for i := len(prompt); i < len(l.Tokens)-1; i++ {
				sum += *l.TokenLogProbs[i]
				if _, first := l.TopLogProbs[i][l.Tokens[i]]; !first {
					isGreedy = false
				}
			}
			dev, err := host.Open(host.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer dev.Close()
			m, err := llama.New(f.model.Config(), dev, gpu.Float32, 3)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			want, _, err := m.LogProb(prompt, tt.continuation)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(sum-want) > 1e-4 || isGreedy != tt.greedy { // float32
				t.Errorf("log-likelihood %v, want %v; greedy %v", sum, want, isGreedy)
			}
		})
	}
}

func TestStopStringsEndTheTextAndAreNotPartOfIt(t *testing.T) {
	f := newFixture(t, 256, nil)
	free := f.expected(t, f.tok.Encode("mat", true), 60)
	prompt := f.tok.Encode("mat", true)
	text := strings.TrimPrefix(f.tok.Decode(append(slices.Clone(prompt), free.IDs...), true), "mat")
	runes := []rune(text)
	if len(runes) < 12 {
		t.Fatalf("the fixture's model says only %q", text)
	}
	stop := string(runes[6:9])
	want := text[:strings.Index(text, stop)]
	for _, stream := range []bool{false, true} {
		params := openai.CompletionNewParams{
			Model: "tiny", Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("mat")}, MaxTokens: openai.Int(60),
			Temperature: openai.Float(0), Stop: openai.CompletionNewParamsStopUnion{OfStringArray: []string{"never said", stop}},
		}
		var got, finish string
		if stream {
			s := f.client.Completions.NewStreaming(bg, params)
			for s.Next() {
				got += s.Current().Choices[0].Text
				finish = string(s.Current().Choices[0].FinishReason)
			}
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
		} else {
			c, err := f.client.Completions.New(bg, params)
			if err != nil {
				t.Fatal(err)
			}
			got, finish = c.Choices[0].Text, string(c.Choices[0].FinishReason)
		}
		if got != want || finish != "stop" {
			t.Errorf("stream %v: %q (%s), want %q", stream, got, finish, want)
		}
	}
}

func TestRequestsThatCannotBeAnsweredAsAskedAreRefused(t *testing.T) {
	f := newFixture(t, 32, nil)
	for name, tt := range map[string]struct {
		path, body string
		status     int
		want       string
	}{
		"no JSON":                        {"/v1/completions", `x`, 400, "not a JSON object"},
		"null":                           {"/v1/completions", `null`, 400, "the body is null"},
		"a temperature in words":         {"/v1/completions", `{"prompt":"a","temperature":"hot"}`, 400, "temperature is a string; it must be a number"},
		"chat's logprobs of completions": {"/v1/completions", `{"prompt":"a","logprobs":true}`, 400, "logprobs is a bool; it must be a whole number"},
		"half a token":                   {"/v1/completions", `{"prompt":"a","max_tokens":1.5}`, 400, "max_tokens is a number 1.5; it must be a whole number"},
		"messages that are text":         {"/v1/chat/completions", `{"messages":"a"}`, 400, "messages is a string; it must be a list"},
		"more choices than can be":       {"/v1/completions", `{"prompt":"a","n":500}`, 400, "n is 500"},
		"a message that says nothing":    {"/v1/chat/completions", `{"messages":[{"role":"user","content":null}]}`, 400, "no content"},
		"a call of a tool":               {"/v1/chat/completions", `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}]}`, 400, "tools"},
		"another model":                  {"/v1/completions", `{"model":"gpt","prompt":"a"}`, 404, "not served"},
		"a penalty":                      {"/v1/completions", `{"prompt":"a","frequency_penalty":0.5}`, 400, "frequency_penalty"},
		"an unknown parameter":           {"/v1/completions", `{"prompt":"a","mirostat":2}`, 400, "mirostat"},
		"tools":                          {"/v1/chat/completions", `{"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function"}]}`, 400, "tools"},
		"an image":                       {"/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, 400, "image_url"},
		"a conversation that ends wrong": {"/v1/chat/completions", `{"messages":[{"role":"assistant","content":"a"}]}`, 400, "user"},
		"no messages":                    {"/v1/chat/completions", `{"messages":[]}`, 400, "no messages"},
		"a negative temperature":         {"/v1/completions", `{"prompt":"a","temperature":-1}`, 400, "temperature"},
		"top_p above 1":                  {"/v1/completions", `{"prompt":"a","top_p":2}`, 400, "top_p"},
		"too many choices":               {"/v1/completions", `{"prompt":["a","b"],"n":100}`, 400, "128 sequences"},
		"no prompt":                      {"/v1/completions", `{"model":"tiny"}`, 400, "prompt"},
		"an empty list of tokens":        {"/v1/completions", `{"prompt":[[]]}`, 400, "empty"},
		"a token outside the vocabulary": {"/v1/completions", `{"prompt":[5,99999]}`, 400, "vocabulary"},
		"a negative token":               {"/v1/completions", `{"prompt":[-5]}`, 400, "not a token"},
		"a prompt beyond the context":    {"/v1/completions", `{"prompt":[1,2,3,4,5,6,7,8,9,10],"max_tokens":30}`, 400, "context of 32"},
		"a list with nothing in it":      {"/v1/completions", `{"prompt":[[5],null]}`, 400, "neither text nor tokens"},
		"no room for an answer":          {"/v1/chat/completions", `{"messages":[{"role":"user","content":"` + strings.Repeat("a b c ", 40) + `"}]}`, 400, "no room for an answer"},
		"more than can ever wait":        {"/v1/completions", `{"prompt":[1,2],"n":128}`, 400, "68 that this server takes"},
		"no new tokens":                  {"/v1/completions", `{"prompt":"a","max_tokens":0}`, 400, "max_tokens"},
		"an empty stop string":           {"/v1/completions", `{"prompt":"a","stop":""}`, 400, "stop"},
		"too many likeliest tokens":      {"/v1/completions", `{"prompt":"a","logprobs":50}`, 400, "logprobs"},
		"another path":                   {"/v1/embeddings", `{}`, 404, "no such path"},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := f.post(t, tt.path, tt.body)
			var e struct {
				Error struct {
					Message string `json:"message"`
				} `json:"error"`
			}
			if err := json.Unmarshal([]byte(body), &e); err != nil || status != tt.status || !strings.Contains(e.Error.Message, tt.want) {
				t.Errorf("%d %s, want %d with %q", status, body, tt.status, tt.want)
			}
		})
	}
	if status, body := f.post(t, "/v1/completions", `{"prompt":"a","frequency_penalty":0,"user":"me","logit_bias":{},"max_tokens":2}`); status != 200 {
		t.Errorf("neutral parameters: %d %s", status, body)
	}
}

func TestALongPromptIsCutInTheMiddleWhereTheServerAllowsIt(t *testing.T) {
	f := newFixture(t, 16, func(o *Options) { o.TruncateMiddle = true })
	status, long := f.post(t, "/v1/completions", `{"prompt":[1,2,3,4,5,6,9,9,9,9,9,10,11,12,13,14,15],"max_tokens":4,"temperature":0}`)
	_, cut := f.post(t, "/v1/completions", `{"prompt":[1,2,3,4,5,6,10,11,12,13,14,15],"max_tokens":4,"temperature":0}`)
	answer := func(body string) (a struct {
		Choices []struct{ Text string }
		Usage   usage
	}) {
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		return a
	}
	if diff := cmp.Diff(answer(cut), answer(long)); diff != "" || status != 200 {
		t.Errorf("%d (-cut by hand +cut by the server):\n%s", status, diff)
	}
	if status, body := f.post(t, "/v1/completions", `{"prompt":[1,2,3,4,5,6,9,9,9,9,9,10,11,12,13,14,15],"max_tokens":1,"logprobs":1,"echo":true}`); status != 400 {
		t.Errorf("an echoed prompt was cut: %d %s", status, body)
	}
}

func TestTheBearerTokenIsAskedFor(t *testing.T) {
	f := newFixture(t, 64, nil)
	wrong := openai.NewClient(option.WithBaseURL(f.http.URL+"/v1"), option.WithAPIKey("wrong"), option.WithMaxRetries(0))
	_, err := wrong.Models.List(bg)
	var api *openai.Error
	if !errors.As(err, &api) || api.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %v", err)
	}
	resp, err := http.Get(f.http.URL + "/health")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("health: %d", resp.StatusCode)
	}
}

// endless makes completions run to their last token, so that long takes a while.
func (f *fixture) endless() { f.server.eos = nil }

const long = `{"prompt":[1,2],"max_tokens":30000,"temperature":1,"n":4,"seed":9}`

func TestAFullQueueSaysSo(t *testing.T) {
	f := newFixture(t, 1<<15, func(o *Options) { o.Slots, o.Queue = 1, 3 })
	f.endless()
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	started := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.http.URL+"/v1/completions", bytes.NewReader([]byte(strings.Replace(long, "{", `{"stream":true,"stop":["\u0000\u0000\u0000"],`, 1))))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+testToken)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			close(started)
			return
		}
		defer resp.Body.Close()
		var b [1]byte
		_, _ = resp.Body.Read(b[:])
		close(started)
		<-ctx.Done()
	}()
	<-started
	status, body := f.post(t, "/v1/completions", long)
	if status != http.StatusTooManyRequests || !strings.Contains(body, "rate_limit") {
		t.Errorf("%d %s", status, body)
	}
	// When the client goes away its places are free again.
	cancel()
	<-ended
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if status, _ = f.post(t, "/v1/completions", `{"prompt":[1,2],"max_tokens":2,"n":4}`); status == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %d after the client went away", status)
		}
	}
}

func TestClientsThatGoAwayWhileTheyWaitLeaveTheirPlaces(t *testing.T) {
	f := newFixture(t, 1<<15, func(o *Options) { o.Slots, o.Queue = 1, 2 })
	started := make(chan struct{}, 1)
	newJob := func(ctx context.Context) (*job, chan error) {
		ended := make(chan error, 1)
		return &job{ctx: ctx, prompt: []int32{1, 2}, maxNew: 30000, top: -1,
			emit: func(Token) bool {
				select {
				case started <- struct{}{}:
				default:
				}
				return true
			},
			done: func(_ llama.FinishReason, err error) { ended <- err }}, ended
	}
	running, stop := context.WithCancel(bg)
	defer stop()
	first, _ := newJob(running)
	if err := f.server.engine.submit([]*job{first}); err != nil {
		t.Fatal(err)
	}
	<-started
	waiting, leave := context.WithCancel(bg)
	var gone []chan error
	for i := range 3 { // as many as may wait and run
		ctx := waiting
		if i == 1 {
			ctx = running
		}
		j, ended := newJob(ctx)
		if err := f.server.engine.submit([]*job{j}); err != nil {
			t.Fatal(err)
		}
		if i != 1 {
			gone = append(gone, ended)
		}
	}
	two := func() []*job {
		a, _ := newJob(running)
		b, _ := newJob(running)
		return []*job{a, b}
	}
	if err := f.server.engine.submit(two()); !errors.Is(err, ErrBusy) {
		t.Fatalf("a full queue: %v", err)
	}
	leave()
	if err := f.server.engine.submit(two()); err != nil {
		t.Errorf("two clients went away, but for two others there is no place: %v", err)
	}
	for _, ended := range gone {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("one who went away: %v", err)
		}
	}
}

func TestARequestThatTakesTooLongEnds(t *testing.T) {
	f := newFixture(t, 1<<15, func(o *Options) { o.Timeout = 30 * time.Millisecond })
	f.endless()
	status, body := f.post(t, "/v1/completions", long)
	if status != http.StatusGatewayTimeout {
		t.Errorf("%d %s", status, body)
	}
}

// A client that asks for a stream and then reads nothing is let go.
func TestAClientThatStopsReadingIsLetGo(t *testing.T) {
	f := newFixture(t, 1<<15, func(o *Options) { o.Timeout = time.Second })
	f.endless()
	f.server.grace = 10 * time.Millisecond
	done := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		f.server.ServeHTTP(w, r)
	}))
	server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if tcp, ok := c.(*net.TCPConn); ok && state == http.StateNew {
			_ = tcp.SetWriteBuffer(4 << 10) // so that little is written before the client's silence shows
		}
	}
	server.Start()
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	body := `{"stream":true,"logprobs":20,"prompt":[1,2],"max_tokens":30000,"n":4,"temperature":1,"seed":9}`
	if _, err := fmt.Fprintf(conn, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", testToken, len(body), body); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("the handler still waits for its client")
	}
}

// A stop string is found wherever tokens part it, and the text before it is handed out whole, in pieces that never hold
// a part of it.
func TestStopStringsAcrossTokens(t *testing.T) {
	f := newFixture(t, 64, nil)
	const text, stop = "the cat sat on the mat, and the dog ran.", "on the ma"
	ids := f.tok.Encode(text, false)
	parted := false
	for _, id := range ids {
		parted = parted || !strings.Contains(f.tok.Decode([]int32{id}, true), stop)
	}
	if !parted || len(ids) < 5 {
		t.Fatalf("the text is %d tokens; the stop string must be parted", len(ids))
	}
	w := newWriter(f.tok, nil, []string{"dog", stop, "xyz"})
	var got strings.Builder
	for _, id := range ids {
		got.WriteString(w.next(id))
		if w.ended {
			break
		}
	}
	got.WriteString(w.flush())
	if want := strings.TrimSpace(text[:strings.Index(text, stop)]); strings.TrimSpace(got.String()) != want || !w.ended {
		t.Errorf("%q, ended %v; want %q", got.String(), w.ended, want)
	}
	// What looked like a stop string and was none comes out in the end.
	w = newWriter(f.tok, nil, []string{"ran.!"})
	got.Reset()
	for _, id := range ids {
		got.WriteString(w.next(id))
	}
	if w.held == "" {
		t.Error("nothing is held back, though the text ends like the stop string begins")
	}
	got.WriteString(w.flush())
	if strings.TrimSpace(got.String()) != text {
		t.Errorf("%q, want %q", got.String(), text)
	}
}

func TestClosingTheServerEndsWhatRuns(t *testing.T) {
	f := newFixture(t, 1<<15, nil)
	tasks, events, err := f.server.launch(bg, &request{prompts: []prompt{{ids: []int32{1}}}, top: -1, maxNew: func(int) int { return 30000 }})
	if err != nil || len(tasks) != 1 {
		t.Fatal(err)
	}
	f.server.engine.close()
	var last event
	for !last.done {
		last = events.next(t.Context())
	}
	if !errors.Is(last.err, errClosed) {
		t.Errorf("ended with %v", last.err)
	}
	if status, _ := f.post(t, "/v1/completions", `{"prompt":"a"}`); status != http.StatusServiceUnavailable {
		t.Errorf("a request after the end: %d", status)
	}
	f.server.engine = newEngine(f.model, 1, 1, 1<<20) // for the fixture's own Close
}

func TestMemoryOfKeysAndValuesIsPlanned(t *testing.T) {
	f := newFixture(t, 1<<15, func(o *Options) { o.CacheBytes = 100 << 10 })
	status, body := f.post(t, "/v1/completions", long)
	if status != 400 || !strings.Contains(body, "keys and values") {
		t.Errorf("%d %s", status, body)
	}
	// Together these exceed the budget, so some wait; all are answered.
	if status, body := f.post(t, "/v1/completions", `{"prompt":[1,2],"max_tokens":300,"n":8,"seed":2}`); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

func TestMoreTokensThanNumbersCanCountAreRefused(t *testing.T) {
	f := newFixture(t, 1<<15, nil)
	for _, request := range []struct{ path, body string }{
		{"/v1/completions", `{"prompt":[1],"max_tokens":9223372036854775807,"n":2}`},
		{"/v1/completions", `{"prompt":[1],"max_tokens":9223372036854775807}`},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"the cat"}],"max_tokens":9223372036854775807}`},
	} {
		if status, body := f.post(t, request.path, request.body); status != 400 {
			t.Errorf("%s: %d %s, want a bad request", request.path, status, body)
		}
	}
	if status, body := f.post(t, "/v1/completions", `{"prompt":[1],"max_tokens":1}`); status != 200 {
		t.Errorf("the next request: %d %s", status, body)
	}
}

func TestAChatThatNamesNoLengthGetsWhatFits(t *testing.T) {
	f := newFixture(t, 1<<15, func(o *Options) { o.CacheBytes = 100 << 10 })
	if status, body := f.post(t, "/v1/chat/completions", `{"messages":[{"role":"user","content":"the cat"}],"seed":1}`); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

func TestNoShareOfTheMassLeavesTheLikeliestToken(t *testing.T) {
	f := newFixture(t, 512, nil)
	_, greedy := f.post(t, "/v1/completions", `{"prompt":[1,5],"max_tokens":20,"temperature":0}`)
	_, drawn := f.post(t, "/v1/completions", `{"prompt":[1,5],"max_tokens":20,"temperature":1,"top_p":0,"seed":3}`)
	text := func(body string) (out struct{ Choices []struct{ Text string } }) {
		if err := json.Unmarshal([]byte(body), &out); err != nil {
			t.Fatalf("%v in %s", err, body)
		}
		return out
	}
	if diff := cmp.Diff(text(greedy), text(drawn)); diff != "" {
		t.Errorf("top_p 0 against greedy (-greedy +drawn):\n%s", diff)
	}
}

func TestAModelWhoseLogitsAreNotFiniteGivesAnErrorNotAText(t *testing.T) {
	f := newFixture(t, 512, func(o *Options) { o.Name = "damaged" })
	weights := make([]float32, f.model.Weights().Len())
	for i := range weights {
		weights[i] = float32(math.NaN())
	}
	f.model.Device().Upload(f.model.Weights(), weights)
	for path, request := range map[string]string{
		"/v1/completions":      `{"prompt":[1,5],"max_tokens":4,"logprobs":1}`,
		"/v1/chat/completions": `{"messages":[{"role":"user","content":"a"}],"max_tokens":4}`,
	} {
		if status, body := f.post(t, path, request); status != 500 || !strings.Contains(body, "not finite") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

func TestRequestsTogetherTakeBoundedMemory(t *testing.T) {
	f := newFixture(t, 512, func(o *Options) { o.MaxBody = 1 << 10 })
	f.server.bodies.Add(2<<10 - 10) // others are being read
	if status, body := f.post(t, "/v1/completions", `{"prompt":[1],"max_tokens":1}`); status != http.StatusTooManyRequests {
		t.Errorf("while others are read: %d %s", status, body)
	}
	f.server.bodies.Add(10 - 2<<10)
	if status, body := f.post(t, "/v1/completions", `{"prompt":[1],"max_tokens":1}`); status != 200 {
		t.Errorf("after them: %d %s", status, body)
	}
	if left := f.server.bodies.Load(); left != 0 {
		t.Errorf("%d bytes are still held", left)
	}
}

func FuzzRequests(f *testing.F) {
	f.Add(`{"prompt":[[1,2],"a",[]],"stop":["x"],"n":null}`)
	f.Add(`{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"stop":null}`)
	f.Add(`{"prompt":[ ]}`)
	f.Add(`{"prompt":[null]}`)
	f.Fuzz(func(t *testing.T, body string) {
		var c completionRequest
		if decodeRequest([]byte(body), &c, completionFields) == nil {
			for _, p := range c.Prompt {
				for _, id := range p.ids {
					if id < 0 {
						t.Errorf("token %d was accepted", id)
					}
				}
			}
		}
		var q chatRequest
		_ = decodeRequest([]byte(body), &q, chatFields)
	})
}
