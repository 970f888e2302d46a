package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/longalign/longalign-go/datasets"
)

func itoa(id int32) string { return strconv.Itoa(int(id)) }

// sampling are the parameters that both endpoints share.
type sampling struct {
	Model               string   `json:"model"`
	MaxTokens           *int     `json:"max_tokens"`
	MaxCompletionTokens *int     `json:"max_completion_tokens"`
	Temperature         *float64 `json:"temperature"`
	TopP                *float64 `json:"top_p"`
	Seed                *int64   `json:"seed"`
	N                   *int     `json:"n"`
	Stop                stopList `json:"stop"`
	Stream              bool     `json:"stream"`
	StreamOptions       struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

type completionRequest struct {
	sampling
	Prompt   promptList `json:"prompt"`
	Echo     bool       `json:"echo"`
	LogProbs *int       `json:"logprobs"`
}

type chatRequest struct {
	sampling
	Messages    []chatMessage `json:"messages"`
	LogProbs    bool          `json:"logprobs"`
	TopLogProbs *int          `json:"top_logprobs"`
}

// ignored parameters do not change what a model says.
var ignored = map[string]bool{
	"user": true, "store": true, "metadata": true, "service_tier": true, "parallel_tool_calls": true, "prompt_cache_key": true,
	"safety_identifier": true, "prompt_cache_retention": true,
}

// neutral parameters are accepted at the value that means "do nothing".
var neutral = map[string][]string{
	"frequency_penalty": {"0", "0.0"}, "presence_penalty": {"0", "0.0"}, "repetition_penalty": {"1", "1.0"}, "logit_bias": {"{}"},
	"best_of": {"1"}, "suffix": {`""`}, "top_k": {"-1", "0"}, "min_p": {"0", "0.0"}, "tools": {"[]"}, "functions": {"[]"}, "tool_choice": {`"none"`},
	"response_format": {`{"type":"text"}`}, "modalities": {`["text"]`}, "add_special_tokens": {"true"}, "skip_special_tokens": {"true"},
}

// decodeRequest reads a body into v and refuses parameters that v does not have and that could change the answer.
func decodeRequest(body []byte, v any, known []string) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return badRequest("", "the body is not a JSON object: %v", err)
	}
	if fields == nil {
		return badRequest("", "the body is null, not a JSON object")
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		raw := fields[name]
		if slices.Contains(known, name) || ignored[name] || string(raw) == "null" {
			continue
		}
		var compact bytes.Buffer
		if values, ok := neutral[name]; ok && json.Compact(&compact, raw) == nil && slices.Contains(values, compact.String()) {
			continue
		}
		return badRequest(name, "%s is not supported by this server; leave it out", name)
	}
	err := json.Unmarshal(body, v)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		field := wrong.Field[strings.LastIndex(wrong.Field, ".")+1:]
		return badRequest(field, "%s is a %s; it must be a %s", field, wrong.Value, kindNames[wrong.Type.Kind()])
	}
	if err != nil {
		return badRequest("", "%v", err)
	}
	return nil
}

// kindNames are the kinds of JSON values that fields of requests take.
var kindNames = map[reflect.Kind]string{
	reflect.Bool: "boolean", reflect.Int: "whole number", reflect.Int64: "whole number", reflect.Float64: "number", reflect.String: "string",
	reflect.Slice: "list", reflect.Struct: "object",
}

var (
	samplingFields   = []string{"model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "n", "stop", "stream", "stream_options"}
	completionFields = append(slices.Clone(samplingFields), "prompt", "echo", "logprobs")
	chatFields       = append(slices.Clone(samplingFields), "messages", "logprobs", "top_logprobs")
)

// maxChoices bounds the sequences of one request, maxTop the likeliest tokens reported.
const (
	maxChoices = 128
	maxTop     = 20
)

func (r *sampling) check(model string) error {
	switch {
	case r.Model != model && r.Model != "":
		return &apiError{http.StatusNotFound, "invalid_request_error", "model", fmt.Sprintf("the model %q is not served here; use %q", r.Model, model)}
	case r.MaxTokens != nil && r.MaxCompletionTokens != nil && *r.MaxTokens != *r.MaxCompletionTokens:
		return badRequest("max_tokens", "max_tokens and max_completion_tokens differ")
	case r.Temperature != nil && !(*r.Temperature >= 0 && *r.Temperature <= 100):
		return badRequest("temperature", "is %v; it lies between 0 and 100", *r.Temperature)
	case r.TopP != nil && !(*r.TopP >= 0 && *r.TopP <= 1):
		return badRequest("top_p", "is %v; it lies between 0 and 1", *r.TopP)
	case r.N != nil && (*r.N < 1 || *r.N > maxChoices):
		return badRequest("n", "n is %d; it lies between 1 and %d", *r.N, maxChoices)
	case len(r.Stop) > 64:
		return badRequest("stop", "%d stop strings; at most 64", len(r.Stop))
	}
	for _, s := range r.Stop {
		if s == "" {
			return badRequest("stop", "an empty stop string stops everything")
		}
	}
	return nil
}

func (r *sampling) maxNew(otherwise int) int {
	switch {
	case r.MaxCompletionTokens != nil:
		return *r.MaxCompletionTokens
	case r.MaxTokens != nil:
		return *r.MaxTokens
	}
	return otherwise
}

func (r *sampling) choices() int {
	if r.N == nil {
		return 1
	}
	return *r.N
}

// stopList is a string or a list of strings.
type stopList []string

// UnmarshalJSON accepts both.
func (s *stopList) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil && string(b) != "null" {
		*s = stopList{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil {
		return fmt.Errorf("stop is neither a string nor a list of strings")
	}
	*s = many
	return nil
}

// prompt is text or tokens.
type prompt struct {
	text string
	ids  []int32
}

// promptList is a string, strings, tokens, or lists of tokens.
type promptList []prompt

// UnmarshalJSON accepts the four forms.
func (p *promptList) UnmarshalJSON(b []byte) error {
	if len(bytes.TrimSpace(b)) > 0 && bytes.TrimSpace(b)[0] == '"' {
		var one string
		err := json.Unmarshal(b, &one)
		*p = promptList{{text: one}}
		return err
	}
	var items []json.RawMessage
	if err := json.Unmarshal(b, &items); err != nil {
		return fmt.Errorf("prompt is neither text nor tokens")
	}
	if len(items) > 0 && !bytes.ContainsAny(items[0][:1], `"[`) {
		ids, err := tokens(b)
		*p = promptList{{ids: ids}}
		return err
	}
	for _, item := range items {
		if item[0] == '"' {
			var text string
			if err := json.Unmarshal(item, &text); err != nil {
				return err
			}
			*p = append(*p, prompt{text: text})
			continue
		}
		ids, err := tokens(item)
		if err != nil {
			return err
		}
		if ids == nil {
			return fmt.Errorf("prompt: %s is neither text nor tokens", item)
		}
		*p = append(*p, prompt{ids: ids})
	}
	return nil
}

func tokens(b []byte) ([]int32, error) {
	var wide []int64
	if err := json.Unmarshal(b, &wide); err != nil {
		return nil, fmt.Errorf("prompt is neither text nor tokens")
	}
	if wide == nil { // null
		return nil, nil
	}
	ids := make([]int32, len(wide))
	for i, id := range wide {
		if id < 0 || id > math.MaxInt32 {
			return nil, fmt.Errorf("prompt: %d is not a token ID", id)
		}
		ids[i] = int32(id)
	}
	return ids, nil
}

// chatMessage is a message whose content is text or a list of text parts.
type chatMessage struct {
	datasets.Message
}

// UnmarshalJSON accepts both forms and refuses what is not text.
func (m *chatMessage) UnmarshalJSON(b []byte) error {
	var raw struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
		Tools   json.RawMessage `json:"tool_calls"`
		Call    json.RawMessage `json:"function_call"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	m.Role = raw.Role
	if m.Role == "developer" {
		m.Role = datasets.RoleSystem // OpenAI's newer name
	}
	for _, call := range []json.RawMessage{raw.Tools, raw.Call} {
		if s := string(call); s != "" && s != "null" && s != "[]" {
			return fmt.Errorf("messages: calls of tools are not supported; this model reads text")
		}
	}
	if len(raw.Content) == 0 || string(raw.Content) == "null" {
		return fmt.Errorf("messages: a message has no content")
	}
	if json.Unmarshal(raw.Content, &m.Content) == nil {
		return nil
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if err := json.Unmarshal(raw.Content, &parts); err != nil {
		return fmt.Errorf("messages: content is neither text nor a list of text parts")
	}
	var b2 strings.Builder
	for _, p := range parts {
		if p.Type != "text" {
			return fmt.Errorf("messages: content of type %q is not supported; this model reads text", p.Type)
		}
		b2.WriteString(p.Text)
	}
	m.Content = b2.String()
	return nil
}
