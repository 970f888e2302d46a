package datasets

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTargetsAreShiftedInsideEachSequence(t *testing.T) {
	for name, tt := range map[string]struct {
		pack        Pack
		wantTargets []int32
		wantCounts  []int
	}{
		"labels": {
			Pack{InputIDs: []int32{1, 2, 3, 4, 5}, CuSeqlens: []int32{0, 3, 5}, Labels: []int32{ig, ig, 3, ig, 5}},
			[]int32{ig, 3, ig, 5, ig}, []int{1, 1},
		},
		"the first token is never a target": {
			Pack{InputIDs: []int32{1, 2, 3}, CuSeqlens: []int32{0, 1, 3}, Labels: []int32{1, 2, 3}},
			[]int32{ig, 3, ig}, []int{0, 1},
		},
		"without labels every token is its own": {
			Pack{InputIDs: []int32{1, 2, 3}, CuSeqlens: []int32{0, 3}},
			[]int32{2, 3, ig}, []int{2},
		},
	} {
		t.Run(name, func(t *testing.T) {
			targets, counts := tt.pack.Targets()
			if diff := cmp.Diff(tt.wantTargets, targets); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.wantCounts, counts); diff != "" {
				t.Error(diff)
			}
			for i := range counts {
				s := Sequence{IDs: tt.pack.InputIDs[tt.pack.CuSeqlens[i]:tt.pack.CuSeqlens[i+1]]}
				if tt.pack.Labels != nil {
					s.Labels = tt.pack.Labels[tt.pack.CuSeqlens[i]:tt.pack.CuSeqlens[i+1]]
				}
				if s.Targets() != counts[i] {
					t.Errorf("sequence %d by itself has %d targets", i, s.Targets())
				}
			}
		})
	}
}

func TestMalformedPacksAreRefused(t *testing.T) {
	good := Pack{InputIDs: []int32{1, 2, 3}, CuSeqlens: []int32{0, 1, 3}, Labels: []int32{ig, ig, 3}, Weights: []float64{1, 2}}
	if err := good.Validate(4); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Pack){
		"must start at 0":         func(p *Pack) { p.CuSeqlens = []int32{1, 3} },
		"at least one sequence":   func(p *Pack) { p.CuSeqlens = []int32{0} },
		"ends at 2":               func(p *Pack) { p.CuSeqlens = []int32{0, 2} },
		"does not exceed":         func(p *Pack) { p.CuSeqlens = []int32{0, 0, 3} },
		"labels for":              func(p *Pack) { p.Labels = p.Labels[:2] },
		"weights for":             func(p *Pack) { p.Weights = p.Weights[:1] },
		"finite and not negative": func(p *Pack) { p.Weights = []float64{1, math.NaN()} },
		"outside the vocabulary":  func(p *Pack) { p.InputIDs = []int32{1, 2, 4} },
		"neither -100 nor inside": func(p *Pack) { p.Labels = []int32{ig, -1, 3} },
	} {
		bad := good
		change(&bad)
		if err := bad.Validate(4); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func FuzzPack(f *testing.F) {
	f.Add(`{"input_ids":[1,2,3],"cu_seqlens":[0,1,3],"labels":[-100,-100,3],"weights":[1,2]}`)
	f.Add(`{"input_ids":[1],"cu_seqlens":[0,1]}`)
	f.Add(`{"input_ids":[1],"cu_seqlens":[0,-1,1]}`)
	f.Add(`{"input_ids":[],"cu_seqlens":[0,0]}`)
	f.Add(`{"cu_seqlens":[0,2147483647,1]}`)
	f.Fuzz(func(t *testing.T, s string) {
		var p Pack
		if json.Unmarshal([]byte(s), &p) != nil || p.Validate(100) != nil {
			return
		}
		targets, counts := p.Targets()
		n := 0
		for _, target := range targets {
			if target != IgnoreIndex {
				n++
			}
		}
		for _, c := range counts {
			n -= c
		}
		if n != 0 || len(targets) != len(p.InputIDs) {
			t.Fatalf("%s: %d targets are not counted", s, n)
		}
	})
}
