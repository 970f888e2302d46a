package llm

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"github.com/longalign/longalign-go/datasets"
)

// claude asks Anthropic's messages API.
type claude struct {
	params   datasets.EndpointParams
	messages anthropic.MessageService
	list     anthropic.ModelService
}

func newAnthropic(p datasets.EndpointParams, client *http.Client) *claude {
	base := p.BaseURL
	if base == "" {
		base = "https://api.anthropic.com"
	}
	// The services alone take nothing from the environment, which anthropic.NewClient would. Retries are counted here.
	options := []option.RequestOption{option.WithBaseURL(base), option.WithHTTPClient(client), option.WithMaxRetries(0)}
	return &claude{p, anthropic.NewMessageService(options...), anthropic.NewModelService(options...)}
}

// models looks whether the service answers. Its list has no aliases, under which most models are asked for, so that it tells nothing.
func (c *claude) models(ctx context.Context, key string) ([]string, error) {
	_, err := c.list.List(ctx, anthropic.ModelListParams{}, anthropicKey(key)...)
	return nil, anthropicError(err)
}

func anthropicKey(key string) []option.RequestOption {
	if key == "" {
		return nil
	}
	return []option.RequestOption{option.WithAPIKey(key)}
}

// anthropicError is what the SDK's error means: a *CallError for what the service answers.
func anthropicError(err error) error {
	var api *anthropic.Error
	if !errors.As(err, &api) {
		return err
	}
	var header http.Header
	if api.Response != nil {
		header = api.Response.Header
	}
	var said struct{ Error struct{ Message string } }
	if json.Unmarshal([]byte(api.RawJSON()), &said) != nil || said.Error.Message == "" {
		said.Error.Message = api.RawJSON()
	}
	return statusError(api.StatusCode, header, said.Error.Message)
}

func (c *claude) complete(ctx context.Context, key string, messages []datasets.Message) (datasets.TeacherReply, error) {
	body := anthropic.MessageNewParams{Model: anthropic.Model(c.params.Model), MaxTokens: int64(c.params.MaxTokens)}
	if c.params.Temperature != nil {
		body.Temperature = anthropic.Float(*c.params.Temperature)
	}
	if c.params.TopP != nil {
		body.TopP = anthropic.Float(*c.params.TopP)
	}
	for _, m := range messages {
		switch m.Role {
		case datasets.RoleSystem:
			body.System = append(body.System, anthropic.TextBlockParam{Text: m.Content})
		case datasets.RoleAssistant:
			body.Messages = append(body.Messages, anthropic.NewAssistantMessage(anthropic.NewTextBlock(m.Content)))
		default:
			body.Messages = append(body.Messages, anthropic.NewUserMessage(anthropic.NewTextBlock(m.Content)))
		}
	}
	// The service's own limit for requests that are not streamed is derived from max_tokens; the endpoint's timeout stands instead.
	options := append(anthropicKey(key), option.WithRequestTimeout(c.params.RequestTimeout()))
	r, err := c.messages.New(ctx, body, options...)
	if err != nil {
		return datasets.TeacherReply{}, anthropicError(err)
	}
	var text strings.Builder
	for _, b := range r.Content {
		if b.Type == "text" {
			text.WriteString(b.Text)
		}
	}
	if len(r.Content) == 0 && r.StopReason == "" {
		e := noChoices(r.RawJSON())
		e.Message = strings.Replace(e.Message, "choices", "content", 1)
		return datasets.TeacherReply{}, e
	}
	reply := datasets.TeacherReply{
		Text: text.String(), Finish: finishStop, OutputTokens: int(r.Usage.OutputTokens),
		InputTokens: int(r.Usage.InputTokens + r.Usage.CacheCreationInputTokens + r.Usage.CacheReadInputTokens),
	}
	switch r.StopReason {
	case anthropic.StopReasonMaxTokens, anthropic.StopReasonModelContextWindowExceeded:
		reply.Finish = finishLength
	case anthropic.StopReasonRefusal:
		reply.Finish = finishRefusal
	}
	estimateUsage(&reply, messages, "")
	return reply, nil
}
