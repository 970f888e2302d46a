package main

import (
	"strings"
	"testing"

	"github.com/longalign/longalign-go/activities/llm"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/workflows"
)

func TestADryRunNeverCallsPaidWorkFree(t *testing.T) {
	priced := map[string]datasets.EndpointParams{"judge": {Model: "j", PriceIn: 1, PriceOut: 2, MaxCostUSD: 20}}
	for name, tt := range map[string]struct {
		d         dryRun
		endpoints map[string]datasets.EndpointParams
		want      string
	}{
		"no endpoint is asked":                      {dryRun{}, priced, "nothing is paid for"},
		"a judge with a price":                      {dryRun{Unpriced: true}, priced, "0.00 USD or more"},
		"its cap":                                   {dryRun{Unpriced: true}, priced, "20.00 USD (max_cost_usd)"},
		"a failure before anything is asked":        {dryRun{Failed: map[string]string{"a": "no"}}, priced, "not known: what comes after a failure"},
		"and where all that is wrong is told":       {dryRun{Failed: map[string]string{"a": "no"}}, priced, "starter doctor FILE"},
		"a judge without a price":                   {dryRun{Unpriced: true}, map[string]datasets.EndpointParams{"judge": {Model: "j"}}, "not known"},
		"a teacher whose questions can be foretold": {dryRun{Money: llm.Range{Low: 1, High: 2}}, priced, "1.00 to 2.00 USD"},
		"such a teacher, and a judge":               {dryRun{Money: llm.Range{Low: 1, High: 2}, Unpriced: true}, priced, "1.00 USD or more"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := tt.d.print(&out, workflows.Spec{Name: "s", Endpoints: tt.endpoints}); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), tt.want) {
				t.Errorf("want %q in:\n%s", tt.want, &out)
			}
		})
	}
}
