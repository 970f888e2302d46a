package activities

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSignalsAreFewAndEarlyOnesCloser(t *testing.T) {
	for name, tt := range map[string]struct {
		shards bool
		want   []int // seconds at which the first are sent
		most   int
	}{
		"a stage": {false, []int{0, 10, 20, 30, 40, 50}, 200},
		"a shard": {true, []int{20, 60, 140, 300, 620, 1260}, 6},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSignaller(tt.shards)
			start := time.Now()
			if tt.shards {
				start = s.last
			}
			var sent []int
			for second := range 48 * 3600 {
				if s.due(start.Add(time.Duration(second) * time.Second)) {
					sent = append(sent, second)
				}
			}
			if diff := cmp.Diff(tt.want, sent[:6]); diff != "" {
				t.Error(diff)
			}
			if len(sent) != tt.most {
				t.Errorf("%d signals in two days, want %d", len(sent), tt.most)
			}
		})
	}
}
