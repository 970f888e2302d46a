package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"

	"github.com/longalign/longalign-go/datasets"
)

// lengths fills a pack as LongAlign's data does: mostly short conversations, now and then a text of 8k tokens up to the pack's length.
// The same tokens give the same pack, here and in the rival.
func lengths(tokens int) []int {
	r := rand.New(rand.NewPCG(uint64(tokens), 64))
	var all []int
	for left := tokens; left > 0; {
		n := 100 + int(r.ExpFloat64()*900)
		if r.Float64() < 0.15 {
			n = 8192 + int(r.Float64()*float64(max(1, tokens-8192)))
		}
		n = min(n, left)
		all = append(all, n)
		left -= n
	}
	return all
}

// pack has random tokens; the first half of each sequence is prompt.
func pack(tokens, vocab int) datasets.Pack {
	r := rand.New(rand.NewPCG(uint64(tokens), 7))
	p := datasets.Pack{CuSeqlens: []int32{0}}
	for _, n := range lengths(tokens) {
		for i := range n {
			id := int32(r.IntN(vocab))
			p.InputIDs = append(p.InputIDs, id)
			if i < n/2 {
				id = datasets.IgnoreIndex
			}
			p.Labels = append(p.Labels, id)
		}
		p.CuSeqlens = append(p.CuSeqlens, int32(len(p.InputIDs)))
		p.Weights = append(p.Weights, 1)
	}
	return p
}

// packs prints the lengths of the pack's sequences as JSON.
func packs(_ context.Context, s settings) error {
	return json.NewEncoder(s.out).Encode(lengths(s.tokens))
}
