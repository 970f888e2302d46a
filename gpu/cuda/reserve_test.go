package cuda

import (
	"testing"

	"github.com/longalign/longalign-go/gpu"
)

// The sums of the fast gradient stay within what Info takes off for them, whatever the shape: a group of heads that has no room for
// them goes without.
func TestSumsOfTheFastGradientStayWithinTheirReserve(t *testing.T) {
	for _, tt := range []struct{ tokens, heads, kv, width, want int }{
		{8192, 16, 16, 128, 16},
		{65536, 32, 32, 128, 8},
		{65536, 32, 4, 128, 1},
		{131072, 32, 4, 128, 0},
	} {
		s := gpu.AttentionShape{Heads: tt.heads, KVHeads: tt.kv, HeadDim: tt.width}
		got, fast := fastHeads(tt.tokens, s)
		if got != tt.want || fast != min(1, tt.want) || 4*tt.tokens*got*tt.heads/tt.kv*tt.width > fastBytes {
			t.Errorf("%+v: %d heads at once, fast %d", tt, got, fast)
		}
	}
}
