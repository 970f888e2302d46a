package main

import (
	"testing"

	"github.com/longalign/longalign-go/datasets"
)

func TestThePapersRecipeIsAnExperiment(t *testing.T) {
	spec, err := readSpec("examples/paper.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if e := spec.Endpoints[spec.Instructions.Teacher]; e.Model == "" || e.MaxCostUSD == 0 || e.KeyEnv == "" {
		t.Errorf("the teacher is %+v", e)
	}
	for name, sets := range map[string][]string{
		"the 5k suite": {"tokens.instances=5000"},
		"the 0k suite": {"tokens.only_mix=true", "tokens.instances=0"},
		"the published instructions": {"tokens.only_mix=true", "tokens.instances=0",
			"tokens.mix=[{name: longalign, path: $FETCHED/longalign-10k}, {name: sharegpt, path: $FETCHED/sharegpt, bad_input: skip}]"},
		"by weights": {"tokens.instances=0", "tokens.mix_total=20000", "tokens.weight=2"},
	} {
		if _, err := readSpec("examples/paper.yaml", sets); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if spec.Train.Loss != datasets.LossLongAlign || spec.Tokens.MaxLength != 65536 || spec.Train.LearningRate != 2e-5 || spec.Batches.Epochs != 2 {
		t.Errorf("not the paper's: %+v %+v %+v", spec.Train, spec.Tokens, spec.Batches)
	}
}
