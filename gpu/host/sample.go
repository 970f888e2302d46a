package host

import (
	"fmt"
	"math"
	"math/bits"
	"sort"

	"github.com/longalign/longalign-go/gpu"
)

var _ gpu.Sampler = (*Device)(nil)

// Sample draws tokens; see gpu.Sampler.
func (d *Device) Sample(ids []int32, logProbs []float64, logits gpu.Buffer, vocab int, draws []gpu.Draw) {
	if d.err != nil {
		return
	}
	if logits == nil || vocab < 1 || len(ids) != len(draws) || len(logProbs) != len(draws) || logits.Len() != len(draws)*vocab {
		d.fail("Sample", fmt.Errorf("%d ids, %d log-probabilities and %d draws from logits of a vocabulary of %d", len(ids), len(logProbs), len(draws), vocab))
		return
	}
	row := make([]float32, vocab)
	for i, draw := range draws {
		d.Download(row, logits.Slice(i*vocab, (i+1)*vocab))
		if d.err != nil {
			return
		}
		ids[i] = drawToken(row, draw)
		var sum float64
		top := row[0]
		for _, l := range row {
			top = max(top, l)
		}
		for _, l := range row {
			sum += math.Exp(float64(l - top))
		}
		logProbs[i] = float64(row[ids[i]]-top) - math.Log(sum)
	}
}

// drawToken sorts, which the card does not: the two ways check each other.
func drawToken(logits []float32, d gpu.Draw) int32 {
	best := 0
	for i, l := range logits {
		if l > logits[best] {
			best = i
		}
	}
	if !(d.Temperature >= gpu.MinTemperature) {
		return int32(best)
	}
	scale := gpu.DrawScale(d.Temperature)
	weights, order := make([]uint64, len(logits)), make([]int, len(logits))
	var total uint64
	for i, l := range logits {
		weights[i], order[i] = gpu.DrawWeight(logits[best]-l, scale), i
		total += weights[i]
	}
	sort.SliceStable(order, func(a, b int) bool { return weights[order[a]] > weights[order[b]] })
	high, low := bits.Mul64(total, d.KeptShare())
	wanted := max(1, high<<32|low>>32)
	var kept uint64
	n := 0
	for ; kept < wanted; n++ {
		kept += weights[order[n]]
	}
	order = order[:n]
	sort.Ints(order)
	r, _ := bits.Mul64(d.DrawRandom(), kept)
	for _, i := range order {
		if r < weights[i] {
			return int32(i)
		}
		r -= weights[i]
	}
	return int32(best)
}
