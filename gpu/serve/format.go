package serve

import "github.com/longalign/longalign-go/gpu/llama"

// completionFormat writes text completions.
type completionFormat struct {
	server   *Server
	logProbs bool
}

type completionChoice struct {
	Text     string              `json:"text"`
	Index    int                 `json:"index"`
	LogProbs *completionLogProbs `json:"logprobs"`
	Finish   *string             `json:"finish_reason"`
}

type completionLogProbs struct {
	Tokens        []string             `json:"tokens"`
	TokenLogProbs []*float64           `json:"token_logprobs"` // null for a prompt's first token
	TopLogProbs   []map[string]float64 `json:"top_logprobs"`
	TextOffset    []int                `json:"text_offset"`
}

func (f *completionFormat) object(bool) string { return "text_completion" }

func (f *completionFormat) whole(index int, text string, tokens []Token, finish llama.FinishReason) any {
	return f.chunk(index, true, text, tokens, 0, finish)
}

func (f *completionFormat) chunk(index int, _ bool, text string, tokens []Token, offset int, finish llama.FinishReason) any {
	c := completionChoice{Text: text, Index: index, Finish: reason(finish)}
	if !f.logProbs {
		return c
	}
	l := &completionLogProbs{Tokens: []string{}, TokenLogProbs: []*float64{}, TopLogProbs: []map[string]float64{}, TextOffset: []int{}}
	for _, t := range tokens {
		spelling := f.server.spelling(t.ID)
		l.Tokens = append(l.Tokens, spelling)
		l.TextOffset = append(l.TextOffset, offset)
		offset += len([]rune(spelling))
		if t.First {
			l.TokenLogProbs, l.TopLogProbs = append(l.TokenLogProbs, nil), append(l.TopLogProbs, nil)
			continue
		}
		top := make(map[string]float64, len(t.Top)+1)
		for _, p := range t.Top {
			top[f.server.spelling(p.ID)] = p.LogProb
		}
		l.TokenLogProbs, l.TopLogProbs = append(l.TokenLogProbs, &t.LogProb), append(l.TopLogProbs, top)
	}
	c.LogProbs = l
	return c
}

// chatFormat writes chat completions.
type chatFormat struct {
	server   *Server
	logProbs bool
}

type chatText struct {
	Role    string `json:"role,omitempty"`
	Content string `json:"content"`
}

type chatLogProbs struct {
	Content []chatToken `json:"content"`
}

type chatToken struct {
	chatProb
	Top []chatProb `json:"top_logprobs"`
}

type chatProb struct {
	Token   string  `json:"token"`
	LogProb float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

type chatChoice struct {
	Index    int           `json:"index"`
	Message  *chatText     `json:"message,omitempty"`
	Delta    *chatText     `json:"delta,omitempty"`
	LogProbs *chatLogProbs `json:"logprobs"`
	Finish   *string       `json:"finish_reason"`
}

func (f *chatFormat) object(stream bool) string {
	if stream {
		return "chat.completion.chunk"
	}
	return "chat.completion"
}

func (f *chatFormat) whole(index int, text string, tokens []Token, finish llama.FinishReason) any {
	return chatChoice{Index: index, Message: &chatText{"assistant", text}, LogProbs: f.list(tokens), Finish: reason(finish)}
}

func (f *chatFormat) chunk(index int, first bool, text string, tokens []Token, _ int, finish llama.FinishReason) any {
	c := chatChoice{Index: index, Delta: &chatText{Content: text}, LogProbs: f.list(tokens), Finish: reason(finish)}
	if first {
		c.Delta.Role = "assistant"
	}
	return c
}

func (f *chatFormat) list(tokens []Token) *chatLogProbs {
	if !f.logProbs {
		return nil
	}
	l := &chatLogProbs{Content: []chatToken{}}
	for _, t := range tokens {
		c := chatToken{chatProb: f.prob(t.ID, t.LogProb), Top: []chatProb{}}
		for _, p := range t.Top {
			c.Top = append(c.Top, f.prob(p.ID, p.LogProb))
		}
		l.Content = append(l.Content, c)
	}
	return l
}

func (f *chatFormat) prob(id int32, lp float64) chatProb {
	p := chatProb{Token: f.server.spelling(id), LogProb: lp, Bytes: []int{}}
	for _, b := range []byte(p.Token) {
		p.Bytes = append(p.Bytes, int(b))
	}
	return p
}

func reason(finish llama.FinishReason) *string {
	if finish == "" {
		return nil
	}
	s := string(finish)
	return &s
}
