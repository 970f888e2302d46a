package llama_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/testenv/refdata"
)

func TestAPretrainedModelContinuesAsKnown(t *testing.T) {
	dir := refdata.Path(t, "cases", "stories260K")
	data, err := os.ReadFile(filepath.Join(dir, "greedy.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		IDs []int32 `json:"greedy_ids"`
	}
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	m, err := llama.Load(dir, openHost(t), gpu.Float32)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	// The second prompt is the first one's own beginning: both run together and must not disturb each other.
	out, err := m.Generate(context.Background(), []llama.Request{
		{Prompt: want.IDs[:1], MaxNewTokens: len(want.IDs) - 1},
		{Prompt: want.IDs[:40], MaxNewTokens: len(want.IDs) - 40},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.IDs[1:], out[0].IDs); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want.IDs[40:], out[1].IDs); diff != "" {
		t.Error(diff)
	}
}

func smallModel(t *testing.T) *llama.Model {
	return randomModel(t, parse(t, base.with(fields{"initializer_range": 0.8})), openHost(t), gpu.Float32)
}

func generate(t *testing.T, m *llama.Model, reqs ...llama.Request) []llama.Completion {
	t.Helper()
	out, err := m.Generate(context.Background(), reqs)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGenerationRepeatsBySeedAndAloneAsTogether(t *testing.T) {
	m := smallModel(t)
	var reqs []llama.Request
	for i := range 20 { // more than run together
		reqs = append(reqs, llama.Request{Prompt: []int32{1, int32(i)}, MaxNewTokens: 3 + i, Temperature: 0.9, TopP: 0.9, Seed: uint64(i), EOS: []int32{}})
	}
	together := generate(t, m, reqs...)
	for i, r := range reqs {
		alone := generate(t, m, r)
		if !slices.Equal(alone[0].IDs, together[i].IDs) || len(alone[0].IDs) != 3+i {
			t.Errorf("request %d: %v alone, %v together", i, alone[0].IDs, together[i].IDs)
		}
	}
	reqs[19].Seed = 1000
	if other := generate(t, m, reqs[19]); slices.Equal(other[0].IDs, together[19].IDs) {
		t.Error("another seed drew the same 22 tokens")
	}
}

func TestGenerationEnds(t *testing.T) {
	m := smallModel(t)
	free := generate(t, m, llama.Request{Prompt: []int32{1}, MaxNewTokens: 12, EOS: []int32{}})[0]
	if free.Finish != llama.FinishLength || len(free.IDs) != 12 {
		t.Fatalf("%+v", free)
	}
	at := slices.Index(free.IDs, free.IDs[4])
	for name, tt := range map[string]struct {
		req  llama.Request
		want int
	}{
		"at EOS, which belongs to the text": {llama.Request{EOS: []int32{free.IDs[4]}}, at + 1},
		"when Stop says so":                 {llama.Request{EOS: []int32{}, Stop: func(ids []int32) bool { return len(ids) == 3 }}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			tt.req.Prompt, tt.req.MaxNewTokens = []int32{1}, 12
			got := generate(t, m, tt.req)[0]
			if diff := cmp.Diff(free.IDs[:tt.want], got.IDs); diff != "" || got.Finish != llama.FinishStop {
				t.Errorf("%s, finish %q", diff, got.Finish)
			}
		})
	}
}

func TestLogProbabilitiesOfAContinuationAreThoseOfItsGeneration(t *testing.T) {
	m := smallModel(t)
	got := generate(t, m, llama.Request{Prompt: []int32{1, 5}, MaxNewTokens: 9, EOS: []int32{}})[0]
	sum, each, err := m.LogProb([]int32{1, 5}, got.IDs)
	if err != nil {
		t.Fatal(err)
	}
	var want float64
	for i, lp := range got.LogProbs {
		want += lp
		if math.Abs(lp-each[i]) > 1e-5 { // float32, other blocks of the same sums
			t.Errorf("token %d: %v and %v", i, lp, each[i])
		}
	}
	if math.Abs(sum-want) > 1e-4 {
		t.Errorf("sum %v, want %v", sum, want)
	}
}

func TestPromptsThatDoNotFit(t *testing.T) {
	m := smallModel(t)
	long := make([]int32, 100)
	for i := range long {
		long[i] = int32(i % 23)
	}
	_, err := m.Generate(context.Background(), []llama.Request{{Prompt: []int32{1}, MaxNewTokens: 2}, {Prompt: long, MaxNewTokens: 4}})
	var pe *llama.PromptError
	if !errors.As(err, &pe) || pe.Request != 1 || pe.Tokens != 100 || pe.Context != 64 {
		t.Errorf("got %v", err)
	}
	_, err = m.Generate(context.Background(), []llama.Request{{Prompt: long, MaxNewTokens: 64, TruncateMiddle: true}})
	if err == nil || !strings.Contains(err.Error(), "no room for a prompt") || strings.Contains(err.Error(), "truncation") {
		t.Errorf("cut in the middle, as many new tokens as the context holds: %v", err)
	}
	got := generate(t, m, llama.Request{Prompt: long, MaxNewTokens: 4, TruncateMiddle: true, EOS: []int32{}})[0]
	want := generate(t, m, llama.Request{Prompt: append(slices.Clone(long[:30]), long[70:]...), MaxNewTokens: 4, EOS: []int32{}})[0]
	if got.TruncatedTokens != 40 || !slices.Equal(got.IDs, want.IDs) {
		t.Errorf("%d cut, %v; want 40, %v", got.TruncatedTokens, got.IDs, want.IDs)
	}
	for name, r := range map[string]llama.Request{
		"an empty prompt":               {MaxNewTokens: 1},
		"no new tokens":                 {Prompt: []int32{1}},
		"a negative temperature":        {Prompt: []int32{1}, MaxNewTokens: 1, Temperature: -1},
		"a top-p above 1":               {Prompt: []int32{1}, MaxNewTokens: 1, TopP: 1.5},
		"an ID outside the vocabulary":  {Prompt: []int32{23}, MaxNewTokens: 1},
		"a negative ID in the prompt":   {Prompt: []int32{-1}, MaxNewTokens: 1},
		"a context without room at all": {Prompt: []int32{1}, MaxNewTokens: 64, TruncateMiddle: true},
	} {
		if _, err := m.Generate(context.Background(), []llama.Request{r}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := m.Device().Sync(); err != nil {
		t.Errorf("the device failed: %v", err)
	}
}

func TestGenerationStopsWhenTheCallerGoesAway(t *testing.T) {
	m := smallModel(t)
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	_, err := m.Generate(ctx, []llama.Request{{Prompt: []int32{1}, MaxNewTokens: 50, EOS: []int32{}, Stop: func([]int32) bool {
		if n++; n == 5 {
			cancel()
		}
		return false
	}}})
	if !errors.Is(err, context.Canceled) || n > 6 {
		t.Errorf("%v after %d tokens", err, n)
	}
}

func TestSamplingKeepsTopP(t *testing.T) {
	logits := []float64{math.Log(0.1), math.Log(0.5), math.Log(0.3), math.Log(0.1)}
	count := map[int32]int{}
	s := llama.NewSampler(1, 0.7, 11)
	for range 4000 {
		id, _ := s.Next(logits)
		count[id]++
	}
	// 0.5 alone is too little, 0.5 + 0.3 is enough: IDs 1 and 2 at 5 : 3. 2,500 ± 31 (one standard deviation) draws of ID 1.
	if len(count) != 2 || math.Abs(float64(count[1])-2500) > 150 {
		t.Errorf("draws by ID: %v", count)
	}
	if id, lp := llama.NewSampler(0, 0, 0).Next([]float64{1, 3, 3}); id != 1 || math.Abs(lp-(3-llama.LogSumExp([]float64{1, 3, 3}))) > 1e-15 {
		t.Errorf("greedy takes ID %d with %v, want the first of the likeliest", id, lp)
	}
}

func TestLogitsThatAreNotFiniteAreAnErrorNotATextOfZeros(t *testing.T) {
	m := smallModel(t)
	weights := make([]float32, m.Weights().Len())
	for i := range weights {
		weights[i] = float32(math.NaN())
	}
	m.Device().Upload(m.Weights(), weights)
	_, err := m.Generate(t.Context(), []llama.Request{{Prompt: []int32{1, 5}, MaxNewTokens: 3}})
	var notFinite *llama.NotFiniteError
	if !errors.As(err, &notFinite) || notFinite.Token != 2 {
		t.Errorf("got %v, want that the logits of token 2 are not finite", err)
	}
}
