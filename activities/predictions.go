package activities

import (
	"context"
	"fmt"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/chat"
	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

// predictionsStage asks a checkpoint about the held-out instructions: the loss of each answer, with and
// without its needle, and for some the greedy answer itself. With a benchmark's questions it answers those (answers.go). Output:
// predictions.jsonl.
var predictionsStage = stage{name: "predictions", version: 4, describe: describeParams[datasets.PredictionsStageParams], run: runPredictions}

func runPredictions(ctx context.Context, j *job) error {
	p, err := decodeParams[datasets.PredictionsStageParams](j.call.Params)
	if err != nil {
		return err
	}
	if p.Answer != nil {
		return runAnswers(ctx, j, p)
	}
	var instances []datasets.Instance
	for i, err := range j.instances(ctx, "instructions", heldOutFile) {
		if err != nil {
			return err
		}
		if p.MaxInstances > 0 && len(instances) == p.MaxInstances {
			break
		}
		instances = append(instances, i)
	}
	if len(instances) == 0 {
		j.note("nothing is held out, so that there is no held-out loss: documents.held_out")
		return j.put(ctx, "predictions.jsonl", "application/jsonl", strings.NewReader(""))
	}
	tok, err := j.tokenizer(ctx, "checkpoint")
	if err != nil {
		return err
	}
	template, err := chat.Resolve(p.Template, tok)
	if err != nil {
		return badConfig("tokens.template: %w", err)
	}
	dev, err := j.a.device(ctx, p.Device, j.call.Class)
	if err != nil {
		return err
	}
	defer dev.Close()
	dir, err := j.fetch(ctx, "checkpoint")
	if err != nil {
		return err
	}
	model, err := llama.Load(dir, dev, gpu.Float32)
	if err != nil {
		return badData("%w", err)
	}
	defer model.Close()
	pr := &predictor{p: p, template: template, tok: tok, model: model, room: min(p.MaxLength, model.Config().MaxPositions)}
	var out strings.Builder
	for n, instance := range instances {
		select {
		case <-j.stopping(ctx):
			return handover("the worker is stopping; predictions start again")
		default:
		}
		made, err := pr.predict(ctx, instance, n < p.Generate)
		if err != nil {
			return fmt.Errorf("held-out instance %d: %w", n, err)
		}
		if made.Failed != "" {
			j.count("failed", 1)
		}
		if made.Truncated {
			j.count("truncated", 1)
		}
		out.Write(append(mustMarshal(made), '\n'))
		j.report(ctx, Progress{Done: int64(n + 1), Total: int64(len(instances)), Unit: "sample"})
	}
	j.count("predictions", int64(len(instances)))
	return j.put(ctx, "predictions.jsonl", "application/jsonl", strings.NewReader(out.String()))
}

// predictor asks one model.
type predictor struct {
	p        datasets.PredictionsStageParams
	template *chat.Template
	tok      *tokenizer.Tokenizer
	model    *llama.Model
	room     int // tokens of prompt and answer together
}

// predict asks about one instance. What is wrong with the instance is the prediction's failure; what is
// wrong with the model or the device is an error.
func (pr *predictor) predict(ctx context.Context, instance datasets.Instance, generate bool) (datasets.Prediction, error) {
	made := datasets.Prediction{}
	if instance.Meta != nil {
		made.ID, made.Task, made.Kind = fmt.Sprint(instance.Meta.ID), instance.Meta.Task, instance.Meta.Kind
	}
	if err := instance.Check(); err != nil {
		made.Failed = err.Error()
		return made, nil
	}
	last := len(instance.Messages) - 1
	made.Answer = instance.Messages[last].Content
	prompt, answer, truncated, err := pr.encode(instance.Messages)
	if err != nil {
		made.Failed = err.Error()
		return made, nil
	}
	made.PromptTokens, made.Targets, made.Truncated = len(prompt), len(answer), truncated
	sum, _, err := pr.model.LogProb(prompt, answer)
	if err != nil {
		return made, err
	}
	made.NLL = -sum
	if instance.Meta != nil && instance.Meta.Needle != "" {
		if err := pr.withoutNeedle(instance, &made); err != nil {
			return made, err
		}
	}
	if generate {
		c, err := pr.model.Generate(ctx, []llama.Request{{Prompt: prompt, MaxNewTokens: pr.p.MaxNewTokens, TruncateMiddle: true}})
		if err != nil {
			return made, err
		}
		text := pr.tok.Decode(c[0].IDs, true)
		made.Generated, made.Cut = &text, c[0].Finish == llama.FinishLength
	}
	return made, nil
}

// encode renders a conversation as prompt and answer. One that does not fit loses the middle of its prompt, as LongBench does.
func (pr *predictor) encode(messages []datasets.Message) (prompt, answer []int32, truncated bool, err error) {
	last := len(messages) - 1
	if prompt, err = pr.template.Prompt(pr.tok, messages[:last]); err != nil {
		return nil, nil, false, err
	}
	whole, _, err := pr.template.Encode(pr.tok, messages)
	if err != nil {
		return nil, nil, false, err
	}
	answer = whole[len(prompt):]
	if len(answer) == 0 {
		return nil, nil, false, fmt.Errorf("the answer has no tokens")
	}
	if len(whole) <= pr.room {
		return prompt, answer, false, nil
	}
	keep := pr.room - len(answer)
	if keep < 8 {
		return nil, nil, false, fmt.Errorf("the answer alone has %d tokens, the context %d", len(answer), pr.room)
	}
	return llama.CutMiddle(prompt, keep), answer, true, nil
}

// withoutNeedle measures how likely the answer is when the passage that holds it is taken out.
func (pr *predictor) withoutNeedle(instance datasets.Instance, made *datasets.Prediction) error {
	messages := append([]datasets.Message(nil), instance.Messages...)
	found := false
	for i := range messages[:len(messages)-1] {
		if strings.Contains(messages[i].Content, instance.Meta.Needle) {
			messages[i].Content = strings.Replace(messages[i].Content, instance.Meta.Needle, "", 1)
			found = true
			break
		}
	}
	if !found || made.Truncated { // a truncated prompt may not hold the needle in the first place
		return nil
	}
	prompt, answer, _, err := pr.encode(messages)
	if err != nil {
		return nil
	}
	sum, _, err := pr.model.LogProb(prompt, answer)
	if err != nil {
		return err
	}
	absent := -sum
	made.AbsentNLL = &absent
	return nil
}
