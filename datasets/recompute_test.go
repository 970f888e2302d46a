package datasets

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestRecomputationIsNamedOrATruthValue(t *testing.T) {
	for text, want := range map[string]Recompute{
		`true`: "layer", `false`: "", `"true"`: "layer", `"false"`: "", `null`: "", `"auto"`: "auto", `"selective"`: "selective",
	} {
		var p TrainParams
		if err := json.Unmarshal([]byte(`{"recompute":`+text+`}`), &p); err != nil || p.Recompute != want {
			t.Errorf("%s is %q, %v; want %q", text, p.Recompute, err, want)
		}
	}
	if err := json.Unmarshal([]byte(`{"recompute":[1]}`), new(TrainParams)); err == nil {
		t.Error("a list is no recomputation")
	}
}

func TestMemoryKeysThatMeanNothingAreRefused(t *testing.T) {
	for key, p := range map[string]TrainParams{
		"recompute": {Recompute: "all"}, "offload": {Offload: "optimizer, weights"}, "optimizer_states": {OptimizerStates: "4bit"},
	} {
		var e *ParamError
		if err := p.Defaults().Validate(); !errors.As(err, &e) || e.Field != key {
			t.Errorf("%s: got %v", key, err)
		}
	}
	for _, p := range []TrainParams{{}, {Recompute: "auto", Offload: "auto", OptimizerStates: "f32"}, {Recompute: "layer", Offload: "activations, gradients,optimizer", OptimizerStates: "8bit"}} {
		if err := p.Defaults().Validate(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
