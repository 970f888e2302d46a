package datasets

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// EndpointKind is the protocol of an endpoint.
type EndpointKind string

// The kinds of endpoints.
const (
	// EndpointOpenAI is the chat completions API, which vLLM, llama.cpp, Ollama and starter serve have as well.
	EndpointOpenAI EndpointKind = "openai"
	// EndpointAnthropic is the messages API.
	EndpointAnthropic EndpointKind = "anthropic"
)

// EndpointParams describe a language model that is asked over HTTP. What the replies mean depends on model, temperature,
// top_p and max_tokens; where the model is, how fast it is asked and what it costs do not change a result's key.
//
// A secret is named, never written: by environment variable or file of the worker.
type EndpointParams struct {
	// Kind is the protocol; default openai.
	Kind EndpointKind `json:"kind,omitempty" key:"-"`
	// BaseURL is where the API begins, such as http://localhost:8000/v1; default the kind's own service.
	BaseURL string `json:"base_url,omitempty" key:"-"`
	// Model is the model's name there.
	Model string `json:"model"`
	// Temperature and TopP are left to the service when unset.
	Temperature *float64 `json:"temperature,omitempty"`
	TopP        *float64 `json:"top_p,omitempty"`
	// MaxTokens bounds a reply; default 2,048.
	MaxTokens int `json:"max_tokens"`
	// KeyEnv and KeyFile name the environment variable or the file that holds the API key; neither for a service without keys.
	KeyEnv  string `json:"key_env,omitempty" key:"-"`
	KeyFile string `json:"key_file,omitempty" key:"-"`
	// RequestsPerMinute and TokensPerMinute are the account's limits, of which each worker takes its share; 0 is no limit
	// besides what the service answers.
	RequestsPerMinute float64 `json:"requests_per_minute,omitempty" key:"-"`
	TokensPerMinute   float64 `json:"tokens_per_minute,omitempty" key:"-"`
	// Concurrency is how many requests a worker has under way; default 8.
	Concurrency int `json:"concurrency,omitempty" key:"-"`
	// PriceIn and PriceOut are USD for a million tokens of input and output.
	PriceIn  float64 `json:"price_in,omitempty" key:"-"`
	PriceOut float64 `json:"price_out,omitempty" key:"-"`
	// MaxCostUSD stops a run before the request that could pass it: all stages of a run that ask this endpoint spend from it together,
	// over restarts as well. Finished results that are in the store cost nothing. 0 is no cap.
	MaxCostUSD float64 `json:"max_cost_usd,omitempty" key:"-"`
	// Timeout bounds one request, such as 2m; default 10m.
	Timeout string `json:"timeout,omitempty" key:"-"`
}

// Defaults returns p with unset fields filled in.
func (p EndpointParams) Defaults() EndpointParams {
	setDefault(&p.Kind, EndpointOpenAI)
	setDefault(&p.MaxTokens, 2048)
	setDefault(&p.Concurrency, 8)
	setDefault(&p.Timeout, "10m")
	return p
}

// environmentName is narrower than systems are: keys of several services (hf_…, gsk_…) would be names with small letters.
var environmentName = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)

// keyPrefix begins the keys of well-known services.
var keyPrefix = regexp.MustCompile(`^(?i:sk|rk|pk)[-_]|^(?:hf_|gsk_|xai-|pplx-|r8_|nvapi-|glpat-|ghp_|gho_|github_pat_|AIza|AKIA|ASIA|eyJ|fw_|tgp_|dsk-|co-|Bearer\b)`)

// keyRun is what keys consist of, as long as they are at least.
var keyRun = regexp.MustCompile(`^[A-Za-z0-9_+/=-]{24,}$`)

// looksLikeKey tells that s is probably a secret and not the name of a variable or file: it begins as keys of well-known services do, or is a long
// mixture of letters and digits.
func looksLikeKey(s string) bool {
	s = strings.TrimSpace(s)
	if keyPrefix.MatchString(s) {
		return len(s) >= 12
	}
	if !keyRun.MatchString(s) || strings.Contains(s, "/") && !strings.ContainsAny(s, "+=") {
		return false
	}
	digits := strings.ContainsAny(s, "0123456789")
	upper, lower := strings.ToLower(s) != s, strings.ToUpper(s) != s
	words := strings.ContainsAny(s, "_-")
	return digits && (upper && lower || lower && !words || upper && !words)
}

// Validate says what is wrong with p, after Defaults. Its errors never repeat what may be a secret.
func (p EndpointParams) Validate() error {
	if p.BaseURL != "" {
		u, err := url.Parse(p.BaseURL)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return paramError("base_url", "it is no http:// or https:// address")
		}
		if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return paramError("base_url", "it must hold neither password nor query: name the key's variable in key_env or its file in key_file")
		}
	}
	switch {
	case p.Kind != EndpointOpenAI && p.Kind != EndpointAnthropic:
		return paramError("kind", "%q is not known; use openai or anthropic", p.Kind)
	case p.Model == "":
		return paramError("model", "name the model as its service does")
	case p.MaxTokens < 1:
		return paramError("max_tokens", "%d must be at least 1", p.MaxTokens)
	case p.Temperature != nil && !(*p.Temperature >= 0 && *p.Temperature <= 2):
		return paramError("temperature", "%v is not between 0 and 2", *p.Temperature)
	case p.TopP != nil && !(*p.TopP > 0 && *p.TopP <= 1):
		return paramError("top_p", "%v is not above 0 and at most 1", *p.TopP)
	case p.KeyEnv != "" && p.KeyFile != "":
		return paramError("key_env", "there is key_file, too; name one of them")
	case p.KeyEnv != "" && (!environmentName.MatchString(p.KeyEnv) || len(p.KeyEnv) > 64 || looksLikeKey(p.KeyEnv)):
		return paramError("key_env", "it is no name of an environment variable in capitals, such as OPENAI_API_KEY; if it is the key itself, take it out of the file and replace the key")
	case p.KeyFile != "" && looksLikeKey(p.KeyFile):
		return paramError("key_file", "it looks like a key, not like the path of a file; if it is the key itself, take it out of the file and replace the key; a file that is called so can be written with its directory, ./ for the current one")
	case !(p.RequestsPerMinute >= 0):
		return paramError("requests_per_minute", "a limit cannot be negative; leave it out for none")
	case !(p.TokensPerMinute >= 0):
		return paramError("tokens_per_minute", "a limit cannot be negative; leave it out for none")
	case p.Concurrency < 1:
		return paramError("concurrency", "%d must be at least 1", p.Concurrency)
	case !(p.PriceIn >= 0):
		return paramError("price_in", "a price cannot be negative")
	case !(p.PriceOut >= 0):
		return paramError("price_out", "a price cannot be negative")
	case !(p.MaxCostUSD >= 0):
		return paramError("max_cost_usd", "a cap cannot be negative; leave it out for none")
	case p.MaxCostUSD > 0 && p.PriceIn == 0 && p.PriceOut == 0:
		return paramError("max_cost_usd", "a cap needs price_in and price_out, USD for a million tokens")
	}
	if d, err := time.ParseDuration(p.Timeout); err != nil || d <= 0 {
		return paramError("timeout", "%q is no duration such as 90s or 10m", p.Timeout)
	}
	return nil
}

// RequestTimeout is Timeout as a duration.
func (p EndpointParams) RequestTimeout() time.Duration {
	d, err := time.ParseDuration(p.Timeout)
	if err != nil {
		return 10 * time.Minute
	}
	return d
}

// Cost is the price in USD of that many tokens.
func (p EndpointParams) Cost(input, output int) float64 {
	return (float64(input)*p.PriceIn + float64(output)*p.PriceOut) / 1e6
}

// Sampling is what of p determines the distribution that replies are drawn from: a part of each request's key.
func (p EndpointParams) Sampling() any {
	return struct {
		Temperature *float64 `json:"temperature,omitempty"`
		TopP        *float64 `json:"top_p,omitempty"`
		MaxTokens   int      `json:"max_tokens"`
	}{p.Temperature, p.TopP, p.MaxTokens}
}

// Describe names the model in manifests and tables.
func (p EndpointParams) Describe() string {
	if p.Temperature != nil {
		return fmt.Sprintf("%s (temperature %g)", p.Model, *p.Temperature)
	}
	return p.Model
}

// InstructionsStageParams are what the instructions stage is called with: the user's parameters, and the
// endpoint that the teacher's name stands for.
type InstructionsStageParams struct {
	InstructionsParams
	// Endpoint is nil for the offline teacher.
	Endpoint *EndpointParams `json:"endpoint,omitempty"`
}

// Defaults returns p with unset fields filled in.
func (p InstructionsStageParams) Defaults() InstructionsStageParams {
	p.InstructionsParams = p.InstructionsParams.Defaults()
	if p.Endpoint != nil {
		e := p.Endpoint.Defaults()
		p.Endpoint = &e
	}
	return p
}

// Validate says what is wrong with p, after Defaults.
func (p InstructionsStageParams) Validate() error {
	if err := p.InstructionsParams.Validate(); err != nil {
		return err
	}
	switch {
	case p.Endpoint != nil:
		return p.Endpoint.Validate()
	case p.Teacher != OfflineTeacher:
		return paramError("teacher", "%q is no endpoint of this file; add it under endpoints:, or use %s", p.Teacher, OfflineTeacher)
	}
	return nil
}

// OfflineTeacher is the name of the teacher that needs no network.
const OfflineTeacher = "offline"
