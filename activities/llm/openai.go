package llm

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/longalign/longalign-go/datasets"
)

// openAI asks a chat completions API.
type openAI struct {
	params datasets.EndpointParams
	chat   openai.ChatCompletionService
	list   openai.ModelService
}

func newOpenAI(p datasets.EndpointParams, client *http.Client) *openAI {
	base := p.BaseURL
	if base == "" {
		base = "https://api.openai.com/v1"
	}
	// The services alone take nothing from the environment, which openai.NewClient would. Retries are counted here.
	options := []option.RequestOption{option.WithBaseURL(base), option.WithHTTPClient(client), option.WithMaxRetries(0)}
	return &openAI{p, openai.NewChatCompletionService(options...), openai.NewModelService(options...)}
}

// models lists the service's models.
func (o *openAI) models(ctx context.Context, key string) (names []string, err error) {
	page, err := o.list.List(ctx, openAIKey(key)...)
	if err != nil {
		return nil, openAIError(err)
	}
	for _, m := range page.Data {
		names = append(names, m.ID)
	}
	return names, nil
}

func openAIKey(key string) []option.RequestOption {
	if key == "" {
		return nil
	}
	return []option.RequestOption{option.WithAPIKey(key)}
}

// openAIError is what the SDK's error means: a *CallError for what the service answers.
func openAIError(err error) error {
	var api *openai.Error
	if !errors.As(err, &api) {
		return err
	}
	var header http.Header
	if api.Response != nil {
		header = api.Response.Header
	}
	message := api.Message
	if message == "" {
		message = api.RawJSON()
	}
	return statusError(api.StatusCode, header, api.Code+" "+message)
}

func (o *openAI) complete(ctx context.Context, key string, messages []datasets.Message) (datasets.TeacherReply, error) {
	body := openai.ChatCompletionNewParams{Model: o.params.Model}
	if o.params.BaseURL == "" {
		// The service's newer models refuse the field that all compatible ones know.
		body.MaxCompletionTokens = openai.Int(int64(o.params.MaxTokens))
	} else {
		body.MaxTokens = openai.Int(int64(o.params.MaxTokens))
	}
	if o.params.Temperature != nil {
		body.Temperature = openai.Float(*o.params.Temperature)
	}
	if o.params.TopP != nil {
		body.TopP = openai.Float(*o.params.TopP)
	}
	for _, m := range messages {
		switch m.Role {
		case datasets.RoleSystem:
			body.Messages = append(body.Messages, openai.SystemMessage(m.Content))
		case datasets.RoleAssistant:
			body.Messages = append(body.Messages, openai.AssistantMessage(m.Content))
		default:
			body.Messages = append(body.Messages, openai.UserMessage(m.Content))
		}
	}
	r, err := o.chat.New(ctx, body, openAIKey(key)...)
	if err != nil {
		said := openAIError(err)
		var api *openai.Error
		var call *CallError
		if errors.As(said, &call) && call.Problem == Rejected && errors.As(err, &api) && api.Code == "content_filter" {
			return datasets.TeacherReply{Finish: finishRefusal}, nil
		}
		return datasets.TeacherReply{}, said
	}
	if len(r.Choices) == 0 {
		return datasets.TeacherReply{}, noChoices(r.RawJSON())
	}
	c := r.Choices[0]
	reply := datasets.TeacherReply{Text: c.Message.Content, InputTokens: int(r.Usage.PromptTokens), OutputTokens: int(r.Usage.CompletionTokens)}
	switch {
	case c.Message.Refusal != "", c.FinishReason == "content_filter":
		reply.Finish = finishRefusal
	case c.FinishReason == "length":
		reply.Finish = finishLength
	default:
		reply.Finish = finishStop
	}
	// Tokens of reasoning are billed as output and stand in no text.
	estimateUsage(&reply, messages, c.Message.JSON.ExtraFields["reasoning_content"].Raw()+c.Message.JSON.ExtraFields["reasoning"].Raw())
	return reply, nil
}

// noChoices is a reply of status 200 without a reply in it. Routers in front of several services answer so when one of them fails, in
// words that say why, and sometimes with the status it should have had.
func noChoices(raw string) *CallError {
	var body struct {
		Error json.RawMessage `json:"error"`
	}
	var said struct {
		Message string          `json:"message"`
		Code    json.RawMessage `json:"code"`
	}
	e := &CallError{Problem: Malformed, Message: "the reply has no choices", Billed: true}
	if json.Unmarshal([]byte(raw), &body) != nil || len(body.Error) == 0 || string(body.Error) == "null" {
		return e
	}
	if json.Unmarshal(body.Error, &said) != nil || said.Message == "" {
		said.Message = string(body.Error)
	}
	if code, err := strconv.Atoi(strings.Trim(string(said.Code), `"`)); err == nil && code >= 400 && code < 600 {
		e = statusError(code, nil, said.Message)
		e.Billed = true
		return e
	}
	e.Message = "the reply holds an error instead of choices: " + said.Message
	return e
}

// How replies end, in datasets.TeacherReply.Finish.
const (
	finishStop    = "stop"
	finishLength  = "length"
	finishRefusal = "refusal"
)
