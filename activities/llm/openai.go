package llm

import (
	"context"
	"errors"
	"net/http"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/longalign/longalign-go/datasets"
)

// openAI asks a chat completions API.
type openAI struct {
	params datasets.EndpointParams
	chat   openai.ChatCompletionService
}

func newOpenAI(p datasets.EndpointParams, client *http.Client) *openAI {
	base := p.BaseURL
	if base == "" {
		base = "https://api.openai.com/v1"
	}
	// The service alone takes nothing from the environment, which openai.NewClient would. Retries are counted here.
	return &openAI{p, openai.NewChatCompletionService(option.WithBaseURL(base), option.WithHTTPClient(client), option.WithMaxRetries(0))}
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
	var options []option.RequestOption
	if key != "" {
		options = append(options, option.WithAPIKey(key))
	}
	r, err := o.chat.New(ctx, body, options...)
	if err != nil {
		var api *openai.Error
		if errors.As(err, &api) {
			var header http.Header
			if api.Response != nil {
				header = api.Response.Header
			}
			message := api.Message
			if message == "" {
				message = api.RawJSON()
			}
			e := statusError(api.StatusCode, header, api.Code+" "+message)
			if e.Problem == Rejected && api.Code == "content_filter" {
				return datasets.TeacherReply{Finish: finishRefusal}, nil
			}
			return datasets.TeacherReply{}, e
		}
		return datasets.TeacherReply{}, err
	}
	if len(r.Choices) == 0 {
		return datasets.TeacherReply{}, &CallError{Problem: Malformed, Message: "the reply has no choices"}
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
	return reply, nil
}

// How replies end, in datasets.TeacherReply.Finish.
const (
	finishStop    = "stop"
	finishLength  = "length"
	finishRefusal = "refusal"
)
