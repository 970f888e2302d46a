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
	var e datasets.EndpointParams
	if p.Answer.Endpoint != nil {
		e = *p.Answer.Endpoint
	}
	money, n, err := j.answersForecast(ctx, e)
	if f.Forecast.Samples = n; priced(e) {
		f.Forecast.Money = &money
	}
	return err
}

// judgments forecasts what a judge takes.
func (r *Rehearsal) judgments(ctx context.Context, j *job, f *Foreseen) error {
	p, err := decodeParams[datasets.JudgmentsParams](j.call.Params)
	if err != nil || p.Endpoint == nil || !j.hasInput("questions") || r.imaginedInput(j, "questions") {
		return err
	}
	prompts, err := j.judgePrompts(ctx, p)
	if err != nil {
		return err
	}
	money, n, err := j.judgmentsForecast(ctx, *p.Endpoint, prompts)
	if f.Forecast.Samples = n; priced(*p.Endpoint) {
		f.Forecast.Money = &money
	}
	return err
}

// answersForecast is what asking an endpoint a benchmark's n questions should take, answers as short or as long as they may be.
func (j *job) answersForecast(ctx context.Context, e datasets.EndpointParams) (money llm.Forecast, n int, err error) {
	for q, err := range lines[datasets.Question](ctx, j, "questions", questionsFile) {
		if err != nil {
			return money, n, err
		}
		n++
		bytes := 0
		for turn, text := range q.Turns {
			bytes += len(text)
			money.AskText(bytes, turn*q.MaxNewTokens, 1, shortestAnswer, q.MaxNewTokens)
		}
	}
	return money.Priced(e), n, nil
}

// judgmentsForecast is what n judgments of a benchmark's answers should take: every answer as short or as long as it may be, and rated at
// the first try or the last.
func (j *job) judgmentsForecast(ctx context.Context, e datasets.EndpointParams, prompts *judgePrompts) (money llm.Forecast, n int, err error) {
	longest := map[string]int{}
	for q, err := range lines[datasets.Question](ctx, j, "questions", questionsFile) {
		if err != nil {
			return money, n, err
		}
		longest[q.ID] = q.MaxNewTokens
	}
	for ref, err := range lines[datasets.Reference](ctx, j, "questions", referencesFile) {
		if err != nil {
			return money, n, err
		}
		items, err := prompts.items(ref, datasets.Answer{ID: ref.ID, Texts: []string{"", ""}})
		if err != nil {
			return money, n, badData("%s: %w", ref.ID, err)
		}
		for _, item := range items {
			n++
			for range item.rounds {
				money.AskText(messageBytes(item.messages), max(1, item.turn)*longest[ref.ID], longbenchchat.MaxTries, shortestRating, e.MaxTokens)
			}
		}
	}
	for _, c := range canary {
		money.AskText(canaryBytes+len(c.question)+len(c.reference)+len(c.answer), 0, longbenchchat.MaxTries, shortestRating, e.MaxTokens)
	}
	return money.Priced(e), n, nil
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
