package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/train"
)

// growthRow is a step of equally many tokens in sequences of one length.
type growthRow struct {
	Length           int     `json:"length"`
	Tokens           int     `json:"tokens"`
	Pairs            float64 `json:"pairs"` // of tokens that see each other, over all layers
	TokensPerSecond  float64 `json:"tokens_per_second"`
	LinearSeconds    float64 `json:"linear_seconds"`
	AttentionSeconds float64 `json:"attention_seconds"`
}

// measureGrowth takes f.steps steps with each length after one to warm up and keeps the best of each figure.
func measureGrowth(ctx context.Context, t *train.Trainer, profiler gpu.Profiler, f benchFlags) ([]growthRow, error) {
	var rows []growthRow
	for _, length := range f.growth {
		lengths := fill([]int{length}, f.tokens)
		c := t.Model().Config()
		packs := []datasets.Pack{benchPack(lengths, c.Vocab)}
		var total, linear, attention []float64
		for i := range f.steps + 1 {
			profiler.StartProfile()
			began := time.Now()
			if _, err := t.Gradient(ctx, packs); err != nil {
				return nil, err
			}
			seconds := time.Since(began).Seconds()
			var l, a float64
			for _, s := range profiler.StopProfile() {
				if strings.HasPrefix(s.Op, "Attention") {
					a += s.Seconds
				} else {
					l += s.Seconds
				}
			}
			if i > 0 {
				total, linear, attention = append(total, seconds), append(linear, l), append(attention, a)
			}
		}
		rows = append(rows, growthRow{
			Length: length, Tokens: f.tokens, Pairs: attendedPairs(c, lengths), TokensPerSecond: float64(f.tokens) / slices.Min(total),
			LinearSeconds: slices.Min(linear), AttentionSeconds: slices.Min(attention),
		})
	}
	return rows, nil
}

func printGrowth(w io.Writer, rows []growthRow) {
	fmt.Fprintf(w, "\n%d tokens in sequences of equal length, forward and backward:\n", rows[0].Tokens)
	fmt.Fprintf(w, "%8s %9s %10s %9s %12s %13s %10s\n", "length", "tokens/s", "linear ms", "µs/token", "attention ms", "million pairs", "ns/pair")
	for _, r := range rows {
		fmt.Fprintf(w, "%8d %9.0f %10.1f %9.2f %12.1f %13.1f %10.2f\n", r.Length, r.TokensPerSecond, 1e3*r.LinearSeconds,
			1e6*r.LinearSeconds/float64(r.Tokens), 1e3*r.AttentionSeconds, r.Pairs/1e6, 1e9*r.AttentionSeconds/r.Pairs)
	}
}
