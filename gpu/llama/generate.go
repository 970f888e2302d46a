package llama

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
)

// Request asks for the continuation of one prompt.
type Request struct {
	Prompt       []int32
	MaxNewTokens int
	// Temperature 0 is greedy: the likeliest token, the smallest ID among equals.
	Temperature float64
	// TopP keeps the likeliest tokens that together reach this probability; 0 and 1 keep all.
	TopP float64
	Seed uint64
	// EOS ends the continuation and belongs to it; nil means the model's own.
	EOS []int32
	// Stop, if not nil, sees the new tokens after each one and ends the continuation by returning true (stop strings).
	Stop func(ids []int32) bool
	// TruncateMiddle cuts the middle out of a prompt that does not fit the context together
	// with MaxNewTokens. Otherwise such a prompt is a *PromptError.
	TruncateMiddle bool
}

// FinishReason says why a continuation ended.
type FinishReason string

// Reasons to end.
const (
	FinishStop   FinishReason = "stop"   // EOS or Stop
	FinishLength FinishReason = "length" // MaxNewTokens
)

// Completion is a continuation.
type Completion struct {
	IDs      []int32   // the new tokens, EOS included
	LogProbs []float64 // log-probability of each under the model, before temperature and top-p
	Finish   FinishReason
	// TruncatedTokens were cut out of the prompt.
	TruncatedTokens int
}

// PromptError says that a prompt does not fit.
type PromptError struct {
	Request, Tokens, MaxNewTokens, Context int
}

func (e *PromptError) Error() string {
	if e.MaxNewTokens >= e.Context {
		return fmt.Sprintf("prompt %d: %d new tokens leave no room for a prompt in the model's context of %d; ask for fewer", e.Request, e.MaxNewTokens, e.Context)
	}
	return fmt.Sprintf("prompt %d: %d tokens and %d new ones exceed the model's context of %d; shorten the prompt, ask for fewer tokens or allow middle truncation",
		e.Request, e.Tokens, e.MaxNewTokens, e.Context)
}

// CutMiddle shortens ids to n tokens by cutting out the middle, as LongBench does: the first half and the last half stay.
func CutMiddle(ids []int32, n int) []int32 {
	if len(ids) <= n {
		return ids
	}
	half := n / 2
	return append(slices.Clone(ids[:half]), ids[len(ids)-(n-half):]...)
}

// Fit checks request i against a context and returns its prompt, shortened if the request allows it.
func (r *Request) Fit(i, context int) (prompt []int32, truncated int, err error) {
	switch {
	case len(r.Prompt) == 0:
		return nil, 0, fmt.Errorf("prompt %d is empty; it needs at least one token (usually BOS)", i)
	case r.MaxNewTokens < 1:
		return nil, 0, fmt.Errorf("prompt %d: max new tokens is %d; it must be positive", i, r.MaxNewTokens)
	case r.Temperature < 0 || math.IsNaN(r.Temperature) || math.IsInf(r.Temperature, 0):
		return nil, 0, fmt.Errorf("prompt %d: temperature is %v; it must be 0 (greedy) or positive", i, r.Temperature)
	case r.TopP < 0 || r.TopP > 1 || math.IsNaN(r.TopP):
		return nil, 0, fmt.Errorf("prompt %d: top-p is %v; it lies between 0 and 1", i, r.TopP)
	}
	room := context - r.MaxNewTokens
	if len(r.Prompt) <= room {
		return r.Prompt, 0, nil
	}
	if !r.TruncateMiddle || room < 1 {
		return nil, 0, &PromptError{i, len(r.Prompt), r.MaxNewTokens, context}
	}
	return CutMiddle(r.Prompt, room), len(r.Prompt) - room, nil
}

// Sampler draws tokens from logits.
type Sampler struct {
	temperature, topP float64
	rng               *rand.Rand
	order             []int
	prob              []float64
}

// NewSampler returns the sampler of a request. The same seed draws the same tokens from the same logits.
func NewSampler(temperature, topP float64, seed uint64) *Sampler {
	return &Sampler{temperature: temperature, topP: topP, rng: rand.New(rand.NewPCG(seed, 0x6c6f6e67616c6967))}
}

// Next draws a token and returns its log-probability under the logits.
func (s *Sampler) Next(logits []float64) (id int32, logProb float64) {
	best := 0
	for i, l := range logits {
		if l > logits[best] {
			best = i
		}
	}
	pick := best
	if s.temperature > 0 {
		pick = s.draw(logits, logits[best])
	}
	return int32(pick), logits[pick] - LogSumExp(logits)
}

// NotFiniteError says that a model's logits hold NaN or infinity.
type NotFiniteError struct {
	Token int // which token of the sequence was to be drawn, from 0
}

func (e *NotFiniteError) Error() string {
	return fmt.Sprintf("the logits of token %d are not finite: the model's weights are damaged, or its training diverged; use another checkpoint", e.Token)
}

// LogSumExp returns log Σ exp x.
func LogSumExp(x []float64) float64 {
	m := math.Inf(-1)
	for _, v := range x {
		m = max(m, v)
	}
	var sum float64
	for _, v := range x {
		sum += math.Exp(v - m)
	}
	return m + math.Log(sum)
}

func (s *Sampler) draw(logits []float64, top float64) int {
	s.prob = slices.Grow(s.prob[:0], len(logits))[:len(logits)]
	var sum float64
	for i, l := range logits {
		s.prob[i] = math.Exp((l - top) / s.temperature)
		sum += s.prob[i]
	}
	s.order = slices.Grow(s.order[:0], len(logits))[:len(logits)]
	for i := range s.order {
		s.order[i] = i
	}
	keep := len(s.order)
	if s.topP > 0 && s.topP < 1 {
		sort.SliceStable(s.order, func(a, b int) bool { return s.prob[s.order[a]] > s.prob[s.order[b]] })
		var mass float64
		for k, i := range s.order {
			mass += s.prob[i]
			if mass >= s.topP*sum {
				keep, sum = k+1, mass
				break
			}
		}
	}
	u := s.rng.Float64() * sum
	for _, i := range s.order[:keep] {
		if u -= s.prob[i]; u < 0 {
			return i
		}
	}
	return s.order[0]
}

// Generate continues all prompts, several at once. A failing request fails the call before anything is computed.
func (m *Model) Generate(ctx context.Context, reqs []Request) ([]Completion, error) {
	out := make([]Completion, len(reqs))
	prompts := make([][]int32, len(reqs))
	for i := range reqs {
		var err error
		if prompts[i], out[i].TruncatedTokens, err = reqs[i].Fit(i, m.cfg.MaxPositions); err != nil {
			return nil, err
		}
		for at, id := range prompts[i] {
			if id < 0 || int(id) >= m.cfg.Vocab {
				return nil, fmt.Errorf("prompt %d: token %d, number %d of it, is outside the model's vocabulary of %d; the tokenizer may be another model's", i, id, at, m.cfg.Vocab)
			}
		}
	}
	d, err := m.NewDecoder()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	type running struct {
		i       int
		seq     *Sequence
		sampler *Sampler
		last    int32
	}
	var active []*running
	defer func() {
		for _, r := range active {
			r.seq.Close()
		}
	}()
	// take records a drawn token and reports whether the continuation goes on.
	take := func(r *running, id int32, lp float64) (more bool, err error) {
		q, c := &reqs[r.i], &out[r.i]
		if math.IsNaN(lp) {
			return false, &NotFiniteError{Token: len(prompts[r.i]) + len(c.IDs)}
		}
		r.last = id
		c.IDs, c.LogProbs = append(c.IDs, id), append(c.LogProbs, lp)
		switch {
		case m.ends(id, q.EOS) || q.Stop != nil && q.Stop(c.IDs):
			c.Finish = FinishStop
		case len(c.IDs) >= q.MaxNewTokens:
			c.Finish = FinishLength
		}
		return c.Finish == "", nil
	}
	next := 0
	for next < len(reqs) || len(active) > 0 {
		for next < len(reqs) && len(active) < maxTogether {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			seq, err := d.Open(len(prompts[next]) + reqs[next].MaxNewTokens)
			if err != nil {
				if len(active) > 0 {
					break // no room yet; a sequence that ends makes some
				}
				return nil, err
			}
			r := &running{i: next, seq: seq, sampler: NewSampler(reqs[next].Temperature, reqs[next].TopP, reqs[next].Seed)}
			next++
			var more bool
			err = seq.Feed(prompts[r.i], false, func(_ int, logits []float64) (err error) {
				id, lp := r.sampler.Next(logits)
				more, err = take(r, id, lp)
				return err
			})
			if err != nil {
				seq.Close()
				return nil, err
			}
			if more {
				active = append(active, r)
			} else {
				seq.Close()
			}
		}
		if len(active) == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		seqs, ids := make([]*Sequence, len(active)), make([]int32, len(active))
		greedy := true
		for k, r := range active {
			seqs[k], ids[k] = r.seq, r.last
			greedy = greedy && reqs[r.i].Temperature == 0
		}
		ended := map[int]bool{}
		accept := func(k int, id int32, lp float64) error {
			more, err := take(active[k], id, lp)
			ended[k] = !more
			return err
		}
		if greedy {
			err = d.Greedy(seqs, ids, accept)
		} else {
			err = d.Step(seqs, ids, func(k int, logits []float64) error {
				id, lp := active[k].sampler.Next(logits)
				return accept(k, id, lp)
			})
		}
		if err != nil {
			return nil, err
		}
		keep := active[:0:0]
		for k, r := range active {
			if ended[k] {
				r.seq.Close()
			} else {
				keep = append(keep, r)
			}
		}
		active = keep
	}
	return out, nil
}

// maxTogether bounds how many sequences are decoded at once.
const maxTogether = 16

// ends reports whether id ends a text; nil eos means the model's own.
func (m *Model) ends(id int32, eos []int32) bool {
	if eos != nil {
		return slices.Contains(eos, id)
	}
	return slices.Contains(m.cfg.EOS, int(id))
}
