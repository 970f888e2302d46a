package reports

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// Study is what the stored manifests say about one study (or one experiment: a study
// with one cell). All tables and figures are functions of it.
type Study struct {
	// ID is the run's ID, Name what its specification calls it.
	ID   string `json:"id"`
	Name string `json:"name"`
	// Kind chooses the tables: KindDemo or KindPaper.
	Kind        string `json:"kind"`
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	// Dates come from the run record, never from a clock.
	Started  time.Time       `json:"started,omitzero"`
	Finished time.Time       `json:"finished,omitzero"`
	Status   artifact.Status `json:"status,omitempty"`
	Code     artifact.Code   `json:"code,omitzero"`
	// Spec is the run's specification with defaults filled in.
	Spec json.RawMessage `json:"spec,omitempty"`
	// Methods fixes the order of methods; those not named follow as they come.
	Methods []Method `json:"methods,omitempty"`
	// Baseline is the method that paired differences are taken against; empty means the
	// first of several.
	Baseline string `json:"baseline,omitempty"`
	// Buckets are the ranges of answer length; nil means DefaultBuckets.
	Buckets []Bucket `json:"buckets,omitempty"`
	// Seed and Resamples are of the bootstrap; Resamples 0 means the default.
	Seed      uint64 `json:"seed,omitempty"`
	Resamples int    `json:"resamples,omitempty"`
	// Marks are footnotes that hold for every result of the study, such as NoteTiny.
	Marks []string `json:"marks,omitempty"`
	// Footnotes define marks that are not standard ones.
	Footnotes []Footnote `json:"footnotes,omitempty"`
	Cells     []CellData `json:"cells"`
	// Data is what the first cell was trained and tested on, OtherData what those were whose data differ.
	Data      *DataSummary  `json:"data,omitempty"`
	OtherData []DataSummary `json:"other_data,omitempty"`
	Expected  []Expectation `json:"expected,omitempty"`
	// Missing says which cells have no result, and why: "method=sorted,seed=2": "…".
	Missing map[string]string `json:"missing,omitempty"`
	// Problems are what could not be read from the store; the rest is reported all the same.
	Problems []string `json:"problems,omitempty"`
	// Stages are the results that the study used, reused ones too.
	Stages []StageUse `json:"stages,omitempty"`
	// Charges are what the results took: money and time.
	Charges []Charge `json:"charges,omitempty"`
	// Ratings hold Table 1's input, where there is one.
	Ratings *Ratings `json:"ratings,omitempty"`
}

// Kinds of studies.
const (
	KindDemo  = "demo"
	KindPaper = "paper"
)

// Method names a way of training for people.
type Method struct {
	Name string `json:"name"`
	// Label is what tables print; empty means Name.
	Label string `json:"label,omitempty"`
	// Published is the name that the published tables use: "naive", "sorted", "packing",
	// "packing+loss weighting"; empty if there is none.
	Published string `json:"published,omitempty"`
	// Dataset is the published name of what it was trained on, where methods differ in that.
	Dataset string `json:"dataset,omitempty"`
}

// CellData is one cell of the study's grid: one trained model and what was measured of it.
type CellData struct {
	Method string `json:"method"`
	Seed   int    `json:"seed"`
	// Model and Dataset are as published ("Llama-2-7B-64k", "LongAlign-10k") where the
	// cell is to be compared with a published one.
	Model   string `json:"model,omitempty"`
	Dataset string `json:"dataset,omitempty"`
	// Scores by metric. The demo's metrics are MetricLoss, MetricNeedle, MetricExact and
	// MetricF1; the paper's are the column names of its tables ("LongBench-Chat", "MMLU").
	Scores map[string]ScoreSet `json:"scores,omitempty"`
	Timing *Timing             `json:"timing,omitempty"`
	// LossShare is the share of the loss by answer length, exact from the plan.
	LossShare []Share      `json:"loss_share,omitempty"`
	Curve     []CurvePoint `json:"curve,omitempty"`
	Needle    *NeedleGrid  `json:"needle,omitempty"`
	// ShareSources, TimingSources and CurveSources refer to the artifacts behind them.
	ShareSources  []string `json:"share_sources,omitempty"`
	TimingSources []string `json:"timing_sources,omitempty"`
	CurveSources  []string `json:"curve_sources,omitempty"`
}

// Metrics of the demo.
const (
	// MetricLoss is the mean cross-entropy of a held-out answer's tokens, a sample a sequence.
	MetricLoss = "loss"
	// MetricNeedle is log p(answer | needle present) − log p(answer | needle absent), a sample a needle.
	MetricNeedle = "needle"
	// MetricExact is 100 when the generated answer equals the reference, else 0.
	MetricExact = "exact_match"
	// MetricF1 is the token F1 of the generated answer, 0 to 100.
	MetricF1 = "f1"
)

// ScoreSet is one metric of one cell: its samples, or, where another program scored
// them, their mean.
type ScoreSet struct {
	Samples []Sample `json:"samples,omitempty"`
	// Wanted is how many samples there should be; fewer make the cell incomplete. 0
	// means as many as there are, failed ones included.
	Wanted int `json:"wanted,omitempty"`
	// Mean, N, Low and High are used when Samples is empty and N > 0.
	Mean float64 `json:"mean,omitempty"`
	N    int     `json:"n,omitempty"`
	Low  float64 `json:"low,omitempty"`
	High float64 `json:"high,omitempty"`
	// Failed and Truncated are used when Samples is empty.
	Failed    int      `json:"failed,omitempty"`
	Truncated int      `json:"truncated,omitempty"`
	Marks     []string `json:"marks,omitempty"`
	Sources   []string `json:"sources,omitempty"`
	// AnsweredBy is who answered in place of the cell's model, "" for that model.
	AnsweredBy string `json:"answered_by,omitempty"`
}

// Sample is the score of one sample.
type Sample struct {
	// ID pairs the samples of different methods.
	ID    string  `json:"id"`
	Value float64 `json:"value"`
	// Length is the answer's length in target tokens; it decides the bucket.
	Length int `json:"length,omitempty"`
	// Group is set in averages of averages: each group, such as a dataset, weighs alike whatever its number of samples.
	Group string `json:"group,omitempty"`
	// Cluster is set in samples that belong together, such as the turns of a conversation: intervals draw them together.
	Cluster string `json:"cluster,omitempty"`
	// Failed samples have no value and count nowhere but among the failed.
	Failed    bool `json:"failed,omitempty"`
	Truncated bool `json:"truncated,omitempty"`
}

// Timing is what one training cost. Counts are exact; seconds were measured on Device.
type Timing struct {
	Steps     int `json:"steps"`
	Sequences int `json:"sequences"`
	// SequencesPerStepMean and SD are over the steps.
	SequencesPerStepMean float64 `json:"sequences_per_step_mean"`
	SequencesPerStepSD   float64 `json:"sequences_per_step_sd"`
	// RealTokens are those of the sequences; PaddedTokens is what the device computes.
	RealTokens   int64   `json:"real_tokens"`
	PaddedTokens int64   `json:"padded_tokens"`
	TargetTokens int64   `json:"target_tokens,omitempty"`
	Seconds      float64 `json:"seconds,omitempty"`
	// TokensPerSecond counts real tokens.
	TokensPerSecond float64 `json:"tokens_per_second,omitempty"`
	Device          string  `json:"device,omitempty"`
	// Simulated is the same training on several devices, from measured micro-batch times.
	Simulated *Simulation `json:"simulated,omitempty"`
}

// Simulation is data-parallel training on Devices devices that wait for each other at
// the end of every step.
type Simulation struct {
	Devices int `json:"devices"`
	// Seconds is the whole training, Idle the share of device time spent waiting, 0 to 1.
	Seconds float64 `json:"seconds"`
	Idle    float64 `json:"idle"`
}

// Share is the part of the loss that answers of one length range have.
type Share struct {
	Bucket    Bucket `json:"bucket"`
	Sequences int    `json:"sequences"`
	Targets   int64  `json:"targets"`
	// Share is the sum of the loss coefficients of the range's target tokens, 0 to 1.
	Share float64 `json:"share"`
}

// CurvePoint is the loss of one optimizer step, in nats a token.
type CurvePoint struct {
	Step int     `json:"step"`
	Loss float64 `json:"loss"`
	// HeldOut is the loss on held-out instructions after the step, where it was measured.
	HeldOut *float64 `json:"held_out,omitempty"`
}

// NeedleGrid is the needle test over context lengths and depths.
type NeedleGrid struct {
	// Lengths are in tokens, Depths in percent from the start of the context.
	Lengths []int     `json:"lengths"`
	Depths  []float64 `json:"depths"`
	// Scores[d][l] is the mean score at Depths[d] and Lengths[l]; N the samples
	// behind it, 0 where there is none.
	Scores [][]float64 `json:"scores"`
	N      [][]int     `json:"n"`
	// Low and High bound the colour scale: 1 and 10 for the paper's judge.
	Low     float64  `json:"low"`
	High    float64  `json:"high"`
	Unit    string   `json:"unit,omitempty"`
	Sources []string `json:"sources,omitempty"`
	// AnsweredBy is who answered in place of the cell's model, "" for that model.
	AnsweredBy string `json:"answered_by,omitempty"`
}

// DataSummary says what cells were trained and tested on.
type DataSummary struct {
	// Name tells it from the study's other data: data sets, or methods; empty where all cells have the same.
	Name      string  `json:"name,omitempty"`
	Documents []Count `json:"documents,omitempty"` // kept, by kind or source
	Dropped   []Count `json:"dropped,omitempty"`   // by reason
	// Instances by task, for training and held out.
	Instances []TaskCount `json:"instances,omitempty"`
	// GivenUp are instances that the teacher gave no usable question or answer for, by reason, of both sides of the split.
	GivenUp []Count `json:"given_up,omitempty"`
	// Drawn are the training conversations by where they come from, where instructions were mixed with files.
	Drawn []Count `json:"drawn,omitempty"`
	// LeftOut are conversations drawn that are not trained on, by reason; CutOff are those trained on without the end of an answer.
	LeftOut []Count `json:"left_out,omitempty"`
	CutOff  int     `json:"cut_off,omitempty"`
	// AnswerLengths and InputLengths are of the training sequences, in tokens.
	AnswerLengths []int    `json:"answer_lengths,omitempty"`
	InputLengths  []int    `json:"input_lengths,omitempty"`
	Marks         []string `json:"marks,omitempty"`
	Sources       []string `json:"sources,omitempty"`
}

// Count is a number of documents and their tokens (0 when not counted).
type Count struct {
	Name   string `json:"name"`
	N      int    `json:"n"`
	Tokens int64  `json:"tokens,omitempty"`
	// HeldOut are those of them that no training sees.
	HeldOut int `json:"held_out,omitempty"`
}

// TaskCount is the number of instances of one task.
type TaskCount struct {
	Task    string `json:"task"`
	Train   int    `json:"train"`
	HeldOut int    `json:"held_out"`
	// MedianAnswer is the median answer length in tokens.
	MedianAnswer int `json:"median_answer,omitempty"`
}

// StageUse is one result that the study used.
type StageUse struct {
	Manifest *artifact.Manifest `json:"manifest"`
	// Cells are the cells that used it, empty for all; Role says what for.
	Cells  []string `json:"cells,omitempty"`
	Role   string   `json:"role,omitempty"`
	Reused bool     `json:"reused,omitempty"`
}

// Source returns the string that Sources hold for the result ref names.
func Source(ref artifact.Ref) string { return ref.String() }

// Bucket is a range of lengths in tokens, both ends included; To 0 means no end.
type Bucket struct {
	From int `json:"from"`
	To   int `json:"to,omitempty"`
}

// DefaultBuckets are the answer lengths that the demo tells apart.
func DefaultBuckets() []Bucket { return []Bucket{{1, 7}, {8, 31}, {32, 127}, {128, 0}} }

// Contains reports whether length n is in b.
func (b Bucket) Contains(n int) bool { return n >= b.From && (b.To == 0 || n <= b.To) }

// String is "8–31" or "≥ 128".
func (b Bucket) String() string {
	switch {
	case b.To == 0:
		return fmt.Sprintf("≥ %d", b.From)
	case b.To == b.From:
		return fmt.Sprint(b.From)
	}
	return fmt.Sprintf("%d–%d", b.From, b.To)
}

// buckets returns the study's buckets.
func (s *Study) buckets() []Bucket {
	if s.Buckets != nil {
		return s.Buckets
	}
	return DefaultBuckets()
}

// methods returns every method of the study in order.
func (s *Study) methods() []Method {
	out := slices.Clone(s.Methods)
	for _, c := range s.Cells {
		if !slices.ContainsFunc(out, func(m Method) bool { return m.Name == c.Method }) {
			out = append(out, Method{Name: c.Method})
		}
	}
	return out
}

// data are all data that the study's cells were trained and tested on.
func (s *Study) data() []*DataSummary {
	if s.Data == nil {
		return nil
	}
	out := []*DataSummary{s.Data}
	for i := range s.OtherData {
		out = append(out, &s.OtherData[i])
	}
	return out
}

// of is "name: part", or part alone where all cells have the same data.
func (d *DataSummary) of(part string) string {
	if d.Name == "" {
		return part
	}
	return d.Name + ": " + part
}

// baseline returns the method that others are compared with, "" if there is but one.
func (s *Study) baseline() string {
	methods := s.methods()
	if s.Baseline != "" || len(methods) < 2 {
		return s.Baseline
	}
	return methods[0].Name
}

func (m Method) label() string {
	if m.Label != "" {
		return m.Label
	}
	return m.Name
}

// label returns what tables call the method named name.
func (s *Study) label(name string) string {
	for _, m := range s.Methods {
		if m.Name == name {
			return m.label()
		}
	}
	return name
}

// of returns the cells of one method, ordered by seed.
func (s *Study) of(method string) []CellData {
	var out []CellData
	for _, c := range s.Cells {
		if c.Method == method {
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b CellData) int { return a.Seed - b.Seed })
	return out
}
