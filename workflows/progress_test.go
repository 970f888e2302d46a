package workflows

import (
	"strings"
	"testing"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
)

func TestTheTemporalUILeadsFromAResultToWhatItWasMadeOf(t *testing.T) {
	key := strings.Repeat("0123456789abcdef", 4)
	tokens := artifact.Ref{Stage: "tokens", Key: key, Generation: 1}
	call := activities.Call{Stage: "batches", Key: strings.Repeat("f", 64), Inputs: map[string]artifact.Ref{"tokens": tokens}}
	maker := stageWorkflowID(activities.Call{Stage: "tokens", Key: key})
	if got, want := stageDetails(call, "a team"), "- tokens: [tokens/0123456789ab/1](namespaces/a%20team/workflows/"+maker+")\n"; !strings.Contains(got, want) {
		t.Errorf("a stage's details lack %q:\n%s", want, got)
	}
	run := RunProgress{Stages: []StageCount{{Stage: "batches"}}, Running: []RunningCall{
		{Stage: "batches", Label: "a|b", WorkflowID: "stage-batches-f"}, {Stage: "batches", Label: "resolving"}}}
	got := tablesDetails(run, artifact.Ref{Stage: "tables", Key: key, Generation: 2}, "default")
	for _, want := range []string{
		`| batches | 0 | 0 | [a\|b](namespaces/default/workflows/stage-batches-f); resolving |`,
		"Tables: [tables/0123456789ab/2](namespaces/default/workflows/stage-tables-0123456789abcdef).",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("a run's details lack %q:\n%s", want, got)
		}
	}
}
