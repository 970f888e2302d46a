package activities

import (
	"context"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/chat"
	"github.com/longalign/longalign-go/gpu/llama"
)

// heldOut encodes the first held-out instructions as predictions do, each in a pack of its own, for the loss that is measured during
// training. Those that predictions would fail on are left out.
func (j *job) heldOut(ctx context.Context, p datasets.CheckpointParams, c *llama.Config) ([]datasets.Pack, error) {
	if p.Train.EvalEvery == 0 {
		return nil, nil
	}
	tok, err := j.tokenizer(ctx, "tokenizer")
	if err != nil {
		return nil, err
	}
	template, err := chat.Resolve(p.Template, tok)
	if err != nil {
		return nil, badConfig("tokens.template: %w", err)
	}
	pr := &predictor{template: template, tok: tok, room: min(p.MaxLength, c.MaxPositions)}
	var packs []datasets.Pack
	asked, unfit := 0, 0
	for i, err := range j.instances(ctx, "held_out", heldOutFile) {
		if err != nil {
			return nil, err
		}
		if asked == p.Train.EvalInstances {
			break
		}
		asked++
		if i.Check() != nil {
			unfit++
			continue
		}
		prompt, answer, _, err := pr.encode(i.Messages)
		if err != nil {
			unfit++
			continue
		}
		packs = append(packs, datasets.Continuation(prompt, answer))
	}
	switch {
	case len(packs) == 0 && asked == 0:
		j.note("nothing is held out, so that no held-out loss is measured during training: documents.held_out")
	case len(packs) == 0:
		j.note("none of the %d held-out instructions fits the context, so that no held-out loss is measured during training", asked)
	case unfit > 0:
		j.note("the held-out loss during training leaves out %d of %d instructions, which the predictions count as failed", unfit, asked)
	}
	return packs, nil
}
