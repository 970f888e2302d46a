package activities

import (
	"context"

	"github.com/longalign/longalign-go/activities/llm"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/longbenchchat"
)

// Tokens of the shortest replies: a rating alone, and an answer of a word.
const (
	shortestRating = 6
	shortestAnswer = 1
)

// answers forecasts what a benchmark's questions take: their number, and money where an endpoint with prices is asked.
func (r *Rehearsal) answers(ctx context.Context, j *job, p datasets.PredictionsStageParams, f *Foreseen) error {
	if !j.hasInput("questions") || r.imaginedInput(j, "questions") {
		return nil
	}
	var money llm.Forecast
	for q, err := range lines[datasets.Question](ctx, j, "questions", questionsFile) {
		if err != nil {
			return err
		}
		f.Forecast.Samples++
		bytes := 0
		for turn, text := range q.Turns {
			bytes += len(text)
			money.AskText(bytes, turn*q.MaxNewTokens, 1, shortestAnswer, q.MaxNewTokens)
		}
	}
	if e := p.Answer.Endpoint; e != nil && priced(*e) {
		money = money.Priced(*e)
		f.Forecast.Money = &money
	}
	return nil
}

// judgments forecasts what a judge takes: every answer as short or as long as it may be, and rated at the first try or the last.
func (r *Rehearsal) judgments(ctx context.Context, j *job, f *Foreseen) error {
	p, err := decodeParams[datasets.JudgmentsParams](j.call.Params)
	if err != nil || p.Endpoint == nil || !j.hasInput("questions") || r.imaginedInput(j, "questions") {
		return err
	}
	prompts, err := j.judgePrompts(ctx, p)
	if err != nil {
		return err
	}
	longest := map[string]int{}
	for q, err := range lines[datasets.Question](ctx, j, "questions", questionsFile) {
		if err != nil {
			return err
		}
		longest[q.ID] = q.MaxNewTokens
	}
	var money llm.Forecast
	for ref, err := range lines[datasets.Reference](ctx, j, "questions", referencesFile) {
		if err != nil {
			return err
		}
		items, err := prompts.items(ref, datasets.Answer{ID: ref.ID, Texts: []string{"", ""}})
		if err != nil {
			return badData("%s: %w", ref.ID, err)
		}
		for _, item := range items {
			f.Forecast.Samples++
			for range item.rounds {
				money.AskText(messageBytes(item.messages), max(1, item.turn)*longest[ref.ID], longbenchchat.MaxTries, shortestRating, p.Endpoint.MaxTokens)
			}
		}
	}
	for _, c := range canary {
		money.AskText(canaryBytes+len(c.question)+len(c.reference)+len(c.answer), 0, longbenchchat.MaxTries, shortestRating, p.Endpoint.MaxTokens)
	}
	if priced(*p.Endpoint) {
		money = money.Priced(*p.Endpoint)
		f.Forecast.Money = &money
	}
	return nil
}

// canaryBytes are about those of the prompt around a canary's question and answer.
const canaryBytes = 700

func messageBytes(messages []datasets.Message) (n int) {
	for _, m := range messages {
		n += len(m.Content)
	}
	return n
}

func priced(e datasets.EndpointParams) bool { return e.PriceIn > 0 || e.PriceOut > 0 }
