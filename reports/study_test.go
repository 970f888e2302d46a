package reports

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// demoStudy is a made-up study with the shape of the demo: four methods, three seeds, and
// all that can be missing. Weighting lowers the loss at short answers and raises it at long
// ones; naive, sorted and weighted packing differ by noise alone.
func demoStudy() *Study {
	s := &Study{
		ID: "demo-3f2a91c07d1b", Name: "demo", Kind: KindDemo, Title: "Loss weighting on a tiny model",
		Description: "Four ways to batch the same data, three seeds each. Made-up numbers for tests.",
		Started:     time.Date(2024, 2, 1, 10, 0, 0, 0, time.UTC), Finished: time.Date(2024, 2, 1, 10, 7, 30, 0, time.UTC),
		Status: artifact.Completed, Code: artifact.Code{Revision: "0123456789abcdef", Dirty: true},
		Spec:    json.RawMessage(`{"method":["naive","sorted","packing","weighted"],"seeds":[1,2,3]}`),
		Methods: []Method{{Name: "naive"}, {Name: "sorted"}, {Name: "packing", Label: "packing, no weights"}, {Name: "weighted", Label: "packing + weights"}},
		Buckets: []Bucket{{1, 7}, {8, 63}, {64, 0}}, Baseline: "packing", Resamples: 200, Marks: []string{NoteTiny, NoteSynthetic},
		Missing: map[string]string{"method=sorted,seed=3": "out of memory at step 12"},
		Expected: []Expectation{
			{Text: "Without weights, long answers get a larger share of the loss.", Metric: "share/64+", A: "packing", B: "weighted", Direction: ExpectHigher},
			{Text: "Weights lower the held-out loss at short answers.", Metric: "loss/1-7", A: "weighted", B: "packing", Direction: ExpectLower},
			{Text: "Weights raise the held-out loss at long answers.", Metric: "loss/64+", A: "weighted", B: "packing", Direction: ExpectHigher},
			{Text: "Weighted packing and naive batching have the same objective and agree.", Metric: "loss", A: "weighted", B: "naive", Direction: ExpectEqual},
			{Text: "Weights make the model use the needle more.", Metric: "needle", A: "weighted", B: "packing", Direction: ExpectHigher},
			{Text: "Packing is faster than naive batching.", Metric: "seconds", A: "packing", B: "naive", Direction: ExpectLower},
			{Text: "MMLU stays the same.", Metric: "MMLU", A: "packing", B: "naive", Direction: ExpectEqual},
		},
		Data: &DataSummary{
			Documents: []Count{{Name: "Go packages", N: 412, Tokens: 310_220, HeldOut: 40}, {Name: "language specification", N: 1, Tokens: 31_877}},
			Dropped:   []Count{{Name: "duplicate", N: 37}, {Name: "longer than the context", N: 12}, {Name: "not UTF-8", N: 1}},
			Instances: []TaskCount{{"name the function", 240, 24, 5}, {"doc comment", 180, 18, 61}, {"look-up", 60, 18, 12}},
			GivenUp:   []Count{{Name: "refused", N: 4}},
			LeftOut:   []Count{{Name: "answer cut off whole", N: 7}}, CutOff: 3,
			InputLengths: nil, Marks: []string{NoteSynthetic}, Sources: []string{"instructions/" + strings.Repeat("b", 12) + "/1"},
		},
		Charges: []Charge{
			{What: "teacher", By: "teacher-2024-01", Paid: true, Results: 1, Requests: 1_012, InputTokens: 3_400_000, OutputTokens: 210_000, USD: 2.65,
				Forecast: &Bounds{1.9, 4.2}, Seconds: 340, Sources: []string{"instructions/" + strings.Repeat("b", 12) + "/1"}},
			{What: "tuning", By: "one processor", Results: 11, Seconds: 505.5, Forecasted: 10, ForecastSeconds: 420, TookSeconds: 462, Sources: []string{"checkpoint/" + strings.Repeat("c", 12) + "/1"}},
		},
	}
	rng := rand.New(rand.NewPCG(7, 7))
	lengths := make([]int, 60)
	for i := range lengths {
		lengths[i] = 3 + i%5
		if i%3 == 1 {
			lengths[i] = 8 + i
		} else if i%3 == 2 {
			lengths[i] = 64 + 5*i
		}
		s.Data.AnswerLengths = append(s.Data.AnswerLengths, lengths[i], lengths[i]+2)
		s.Data.InputLengths = append(s.Data.InputLengths, lengths[i]+40+i*i/8, lengths[i]+300)
	}
	shares := map[string][]float64{"naive": {.34, .33, .33}, "sorted": {.34, .33, .33}, "packing": {.06, .22, .72}, "weighted": {.34, .33, .33}}
	stages := stageChain(s)
	for _, m := range s.Methods {
		for seed := 1; seed <= 3; seed++ {
			if m.Name == "sorted" && seed == 3 {
				continue
			}
			scores := stages(m.Name, seed)
			c := CellData{Method: m.Name, Seed: seed, Scores: map[string]ScoreSet{}, ShareSources: []string{"batches/" + scores[7:]},
				TimingSources: []string{"checkpoint/" + scores[7:]}, CurveSources: []string{"checkpoint/" + scores[7:]}}
			loss, needle, exact, f1 := ScoreSet{Sources: []string{scores}}, ScoreSet{Sources: []string{scores}, Wanted: 18}, ScoreSet{Sources: []string{scores}}, ScoreSet{Sources: []string{scores}}
			for i, l := range lengths {
				v := 2 + 0.4*math.Sin(float64(i)) + 0.02*rng.NormFloat64()
				if m.Name == "packing" && l < 8 {
					v += 0.25
				} else if m.Name == "packing" && l >= 64 {
					v -= 0.12
				}
				id := fmt.Sprintf("held-out-%02d", i)
				sample := Sample{ID: id, Value: v, Length: l}
				if m.Name == "naive" && seed == 2 && i == 5 {
					sample = Sample{ID: id, Length: l, Failed: true}
				}
				loss.Samples = append(loss.Samples, sample)
				exact.Samples = append(exact.Samples, Sample{ID: id, Truncated: i == 7})
				f1.Samples = append(f1.Samples, Sample{ID: id, Value: 3 * rng.Float64()})
				if i < 18 && (m.Name != "sorted" || i < 11) {
					needle.Samples = append(needle.Samples, Sample{ID: id, Value: 0.3 + 0.4*rng.NormFloat64()})
				}
			}
			c.Scores[MetricLoss], c.Scores[MetricNeedle], c.Scores[MetricExact], c.Scores[MetricF1] = loss, needle, exact, f1
			for i, b := range s.Buckets {
				c.LossShare = append(c.LossShare, Share{Bucket: b, Sequences: 160, Targets: []int64{900, 5_400, 32_000}[i],
					Share: shares[m.Name][i]})
			}
			padded := map[string]int64{"naive": 241_000, "sorted": 92_000, "packing": 84_000, "weighted": 84_000}[m.Name]
			c.Timing = &Timing{Steps: 40, Sequences: 480, SequencesPerStepMean: 12, SequencesPerStepSD: 1.7, RealTokens: 80_120, PaddedTokens: padded,
				TargetTokens: 38_300, Seconds: float64(padded)/2500 + rng.Float64(), TokensPerSecond: 80_120 / (float64(padded) / 2500), Device: "host"}
			if m.Name != "weighted" {
				c.Timing.Simulated = &Simulation{Devices: 8, Seconds: float64(padded) / 18_000, Idle: 0.1 + float64(len(m.Name))/50}
			}
			for step := range 40 {
				c.Curve = append(c.Curve, CurvePoint{Step: step, Loss: 2 + 2*math.Exp(-float64(step)/9) + 0.1*rng.NormFloat64()})
			}
			if m.Name == "weighted" && seed == 1 {
				c.Needle = &NeedleGrid{Lengths: []int{128, 256, 512, 1024}, Depths: []float64{0, 50, 100}, Low: -1, High: 1, Unit: "nats",
					Scores: [][]float64{{.9, .5, .2, 0}, {.4, .2, -.1, -.3}, {.8, .6, .5, 0}}, N: [][]int{{3, 3, 3, 3}, {3, 3, 3, 3}, {3, 3, 3, 0}}, Sources: []string{scores}}
			}
			s.Cells = append(s.Cells, c)
		}
	}
	return s
}

// stageChain appends the manifests of one cell after the other to s and returns the
// reference of the cell's scores.
func stageChain(s *Study) func(method string, seed int) string {
	add := func(stage, key, cell, params string, inputs map[string]artifact.Ref) artifact.Ref {
		m := &artifact.Manifest{Version: 1, Stage: stage, StageVersion: 1, Key: strings.Repeat(key, 64/len(key)), Generation: 1,
			Params: json.RawMessage(params), Inputs: inputs,
			Outputs: []artifact.Output{{Name: stage + ".jsonl", MediaType: "application/jsonl",
				Blob: artifact.Blob{Digest: "sha256:" + strings.Repeat(key, 64/len(key)), Size: 123_456}}},
			ActionKeyInput: json.RawMessage(`{}`),
			Counts:         map[string]int64{"rows": 480}, Code: s.Code,
			Platform: artifact.Platform{OS: "linux", Arch: "amd64", CPU: "Example CPU", Go: "go1.26"},
			Workflow: artifact.Workflow{ID: s.ID, RunID: "run-1"}, Started: s.Started, Finished: s.Finished}
		if stage == "instructions" {
			m.Notes = []string{"offline teacher: rules, not a language model"}
		}
		use := StageUse{Manifest: m, Reused: stage == "documents"}
		if cell != "" {
			use.Cells = []string{cell}
		}
		s.Stages = append(s.Stages, use)
		return m.Ref()
	}
	documents := add("documents", "a", "", `{"roots":["go/src"]}`, nil)
	instructions := add("instructions", "b", "", `{"teacher":"offline"}`, map[string]artifact.Ref{"documents": documents})
	tokens := add("tokens", "c", "", `{"max_length":1024}`, map[string]artifact.Ref{"instructions": instructions})
	n := 0
	return func(method string, seed int) string {
		n++
		key := fmt.Sprintf("%02x", 16+n)
		cell := fmt.Sprintf("method=%s,seed=%d", method, seed)
		batches := add("batches", key, cell, fmt.Sprintf(`{"method":%q,"seed":%d}`, method, seed), map[string]artifact.Ref{"tokens": tokens})
		checkpoint := add("checkpoint", key, cell, `{"learning_rate":0.001}`, map[string]artifact.Ref{"batches": batches})
		predictions := add("predictions", key, cell, `{"max_new_tokens":32}`, map[string]artifact.Ref{"checkpoint": checkpoint, "tokens": tokens})
		scores := add("scores", key, cell, `{}`, map[string]artifact.Ref{"predictions": predictions})
		return scores.String()
	}
}
