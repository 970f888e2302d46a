package train

import (
	"fmt"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu/llama"
)

// CheckPack returns an error where p cannot go through a model of configuration c, and the number of its tokens from which the
// options' loss learns. All data can so be checked before the first step.
func CheckPack(c *llama.Config, o Options, p *datasets.Pack) (targets int, err error) {
	packs := objective(o.Objective, []datasets.Pack{*p})
	p = &packs[0]
	if err := p.Validate(c.Vocab); err != nil {
		return 0, err
	}
	for i := range p.Sequences() {
		if n := int(p.CuSeqlens[i+1] - p.CuSeqlens[i]); n > c.MaxPositions {
			return 0, &llama.LengthError{Sequence: i, Tokens: n, Max: c.MaxPositions}
		}
	}
	_, counts := p.Targets()
	for i, n := range counts {
		if o.Loss == datasets.LossLongAlign && p.Weights != nil && p.Weights[i] == 0 {
			continue
		}
		targets += n
	}
	return targets, nil
}

// NoTargetsError says that data would teach a model nothing.
type NoTargetsError struct{ Of string }

func (e *NoTargetsError) Error() string {
	return fmt.Sprintf("%s: no sequence has both a target and a weight above 0, so that nothing would be learned; look at labels and weights", e.Of)
}
