package train

import (
	"errors"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

// Fit prepares model for training in the fastest mode that opts allow and that fits, with the memory of load taken. Where memory
// runs out all the same, because it is in pieces or others take some, it goes on to the next mode that takes less. A run that
// does not fit is a *MemoryError.
func Fit(model *llama.Model, opts Options, load Load) (*Trainer, Memory, error) {
	if err := opts.Validate(); err != nil {
		return nil, Memory{}, err
	}
	c, info := model.Config(), model.Device().Info()
	plan, err := PlanMemory(c, opts, load, info)
	if err != nil {
		return nil, plan, err
	}
	all, err := plans(c, opts, load, info)
	if err != nil {
		return nil, plan, err
	}
	var full error
	for _, m := range all {
		if !m.Fits() || full != nil && m.Total >= plan.Total && m.HostTotal >= plan.HostTotal {
			continue
		}
		plan = m
		t, err := New(model, m.Apply(opts))
		if err == nil {
			if err = model.ReserveTraining(load.Tokens); err == nil {
				return t, m, nil
			}
			t.Close()
		}
		model.DisableTraining()
		if full = err; !errors.Is(err, gpu.ErrOutOfMemory) {
			break
		}
	}
	return nil, plan, full
}
