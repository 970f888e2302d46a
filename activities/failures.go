package activities

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// mostReasons bounds the reasons that a result's warnings tell.
const mostReasons = 5

// whyFailed warns of what failed in a benchmark, the most frequent reason first: tables tell only how many.
func (s *benchmarkScores) whyFailed() {
	found := map[string][]string{} // the samples, by reason
	for _, refs := range s.references {
		for _, r := range refs {
			if sample, a := s.sample(r); sample.Failed {
				reason := "no answer: " + a.Failed
				found[reason] = append(found[reason], r.ID)
			}
		}
	}
	for _, m := range s.judgments {
		if m.Failed == "" || strings.HasPrefix(m.Failed, nothingToRate) {
			continue
		}
		why, _, _ := strings.Cut(m.Failed, "; its reply ends") // which differs from reply to reply
		reason := "no rating: " + why
		found[reason] = append(found[reason], m.ID)
	}
	reasons := slices.SortedFunc(maps.Keys(found), func(x, y string) int {
		return cmp.Or(len(found[y])-len(found[x]), strings.Compare(x, y))
	})
	var told []string
	for i, reason := range reasons {
		if i == mostReasons {
			told = append(told, fmt.Sprintf("%s: %d other reasons for failures", s.p.Benchmark, len(reasons)-i))
			break
		}
		told = append(told, fmt.Sprintf("%s: %s (%d samples, such as %s)", s.p.Benchmark, reason, len(found[reason]), slices.Min(found[reason])))
	}
	s.j.manifest.Warnings = append(told, s.j.manifest.Warnings...)
}
