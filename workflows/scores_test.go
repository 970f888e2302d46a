package workflows

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets/artifact"
)

func TestTablesKnowWhatEachCellWasTrainedOnAndWhichPublishedRowItStandsBeside(t *testing.T) {
	for name, tt := range map[string]struct {
		study string
		rows  map[string]string // published row by method
		data  []string          // inputs that are a cell's own
	}{
		"one experiment is the recipe, not the row of packing without weights": {rows: map[string]string{"packing": "packing+loss weighting"}},
		"methods are known by how they batch and weight": {
			study: "{methods: [{name: a}, {name: b, set: {train.loss: pack}}, {name: c, set: {batches.method: sorted}}, {name: d, set: {train.loss: token}}]}",
			rows:  map[string]string{"a": "packing+loss weighting", "b": "packing", "c": "sorted", "d": ""}},
		"what the file says comes first": {
			study: "{methods: [{name: a, published: naive}]}", rows: map[string]string{"a": "naive"}},
		"methods that differ in something else stand beside none": {
			study: "{methods: [{name: slow}, {name: fast, set: {train.learning_rate: 1e-2}}]}", rows: map[string]string{"slow": "", "fast": ""}},
		"methods that differ in their data have them among the tables' inputs": {
			study: "{methods: [{name: ten}, {name: five, dataset: LongAlign-5k, set: {tokens.instances: 5}}]}",
			rows:  map[string]string{"ten": "packing+loss weighting", "five": "packing+loss weighting"}, data: []string{"tokens/five/seed=0"}},
	} {
		t.Run(name, func(t *testing.T) {
			sets := []string{"tables.kind=paper", "study=null"}
			if tt.study != "" {
				sets[1] = "study=" + tt.study
			}
			spec, err := ParseSpec("tiny.yaml", []byte(tinySpec), sets)
			if err != nil {
				t.Fatal(err)
			}
			cells, err := spec.Cells()
			if err != nil {
				t.Fatal(err)
			}
			scored := map[string]Scored{}
			for _, c := range cells {
				ref := func(of any) artifact.Ref { return artifact.Ref{Stage: "s", Key: fmt.Sprintf("%+v", of), Generation: 1} }
				scored[c.Name] = Scored{Documents: ref(c.Spec.Documents), Instructions: ref(c.Spec.Instructions), Tokens: ref(c.Spec.Tokens)}
			}
			p, in := tablesOf(spec, cells, scored, nil)
			rows := map[string]string{}
			for _, m := range p.Methods {
				rows[m.Name] = m.Published
			}
			if d := cmp.Diff(tt.rows, rows); d != "" {
				t.Errorf("published rows (-want +got):\n%s", d)
			}
			var data []string
			for _, c := range cells {
				for _, role := range []string{"documents", "instructions", "tokens"} {
					if _, ok := in[role+"/"+c.Name]; ok {
						data = append(data, role+"/"+c.Name)
					}
				}
			}
			if d := cmp.Diff(tt.data, data); d != "" {
				t.Errorf("inputs of single cells (-want +got):\n%s", d)
			}
		})
	}
}
