// Package paper holds the numbers published in LongAlign (arXiv 2401.18058), so that
// reports can print them beside ours. They are facts read off the paper's tables; the
// series of Figure 5 are matched to methods by the text. Leaderboard rows come from a third-party
// page about the paper that does not state its models and definitions.
//
// Units: LongBench-Chat and MT-Bench 1–10, all other scores percent, times hours on
// eight A800 GPUs.
package paper

// Metrics in the order of the paper's tables.
const (
	LongBenchChat = "LongBench-Chat"
	SingleDocQA   = "S-Doc QA"
	MultiDocQA    = "M-Doc QA"
	Summary       = "Summ"
	MTBench       = "MT-Bench"
	ARC           = "ARC"
	HellaSwag     = "HellaSwag"
	TruthfulQA    = "TruthfulQA"
	MMLU          = "MMLU"
)

// Models, data sets and methods as the paper names them.
const (
	ChatGLM3  = "ChatGLM3-6B-64k"
	Llama7B   = "Llama-2-7B-64k"
	Llama13B  = "Llama-2-13B-64k"
	Naive     = "naive"
	Sorted    = "sorted"
	Packing   = "packing"
	Weighting = "packing+loss weighting"
)

// Metrics lists the columns of Tables 2 and 3: long tasks, then general ones.
func Metrics() []string {
	return []string{LongBenchChat, SingleDocQA, MultiDocQA, Summary, MTBench, ARC, HellaSwag, TruthfulQA, MMLU}
}

// LongMetrics are those on long inputs.
func LongMetrics() []string { return Metrics()[:4] }

// Agreement is a row of Table 1.
type Agreement struct{ Spearman, Kendall float64 }

// JudgeCorrelation is Table 1: people with each other ("human"), and GPT-4 without and
// with scored examples with people. 300 responses, two annotators of 200 each.
func JudgeCorrelation() map[string]Agreement {
	return map[string]Agreement{
		"human":          {0.817, 0.694},
		"gpt-4":          {0.788, 0.656},
		"gpt-4+few-shot": {0.844, 0.716},
	}
}

// Row is a row of Tables 2 to 4. Scores are in the order of Metrics; Table 4 has the
// first five.
type Row struct {
	Model, Dataset, Method string
	Scores                 []float64
}

// Score returns the row's score of a metric.
func (r Row) Score(metric string) (float64, bool) {
	for i, m := range Metrics() {
		if m == metric && i < len(r.Scores) {
			return r.Scores[i], true
		}
	}
	return 0, false
}

// Table2 compares training data on ChatGLM3-6B-64k, trained with packing and loss weighting.
func Table2() []Row {
	return []Row{
		{ChatGLM3, "LongAlign-0k", Weighting, []float64{3.73, 58.7, 41.1, 38.4, 5.34, 50.3, 74.7, 51.6, 45.5}},
		{ChatGLM3, "LongAlign-5k", Weighting, []float64{5.97, 61.8, 42.1, 42.0, 5.51, 50.3, 75.1, 52.5, 46.6}},
		{ChatGLM3, "LongAlign-10k", Weighting, []float64{6.21, 64.0, 44.4, 44.2, 5.50, 50.5, 74.9, 52.5, 45.5}},
		{ChatGLM3, "LongAlpaca-12k", Weighting, []float64{4.46, 65.8, 45.6, 44.1, 4.93, 51.5, 75.4, 53.2, 47.1}},
	}
}

// Table3 compares training methods on LongAlign-10k. ChatGLM3 with naive and sorted
// batching was trained on data cut to 56k.
func Table3() []Row {
	const d = "LongAlign-10k"
	return []Row{
		{ChatGLM3, d, Naive, []float64{5.87, 65.4, 45.0, 44.8, 5.61, 50.7, 74.7, 52.8, 46.0}},
		{ChatGLM3, d, Sorted, []float64{5.40, 66.2, 46.3, 43.7, 5.76, 51.3, 74.8, 51.9, 46.3}},
		{ChatGLM3, d, Packing, []float64{5.76, 65.0, 45.1, 42.8, 5.64, 50.9, 74.8, 50.5, 47.2}},
		{ChatGLM3, d, Weighting, []float64{6.21, 64.0, 44.4, 44.2, 5.50, 50.5, 74.9, 52.5, 45.5}},
		{Llama7B, d, Naive, []float64{5.95, 62.8, 42.7, 41.6, 5.52, 48.9, 74.8, 45.3, 43.6}},
		{Llama7B, d, Sorted, []float64{6.38, 63.4, 42.2, 41.3, 5.51, 49.5, 74.8, 48.0, 44.3}},
		{Llama7B, d, Packing, []float64{5.89, 61.7, 40.4, 42.0, 5.58, 48.1, 74.9, 46.1, 43.9}},
		{Llama7B, d, Weighting, []float64{6.10, 60.8, 41.3, 43.1, 5.60, 48.4, 74.5, 47.4, 43.3}},
	}
}

// Table4 scales to 13B.
func Table4() []Row {
	const d = "LongAlign-10k"
	return []Row{
		{Llama13B, d, Weighting, []float64{6.79, 68.0, 40.3, 43.6, 6.12}},
		{Llama13B, d, Sorted, []float64{7.02, 66.1, 43.9, 45.3, 6.02}},
	}
}

// Hours is one bar of Figure 5.
type Hours struct {
	Model, Method string
	Hours         float64
}

// Figure5 is the training time on eight A800 GPUs.
func Figure5() []Hours {
	return []Hours{
		{ChatGLM3, Naive, 45.4}, {ChatGLM3, Sorted, 19.1}, {ChatGLM3, Packing, 20.5},
		{Llama7B, Naive, 67.2}, {Llama7B, Sorted, 23.3}, {Llama7B, Packing, 23.4},
		{Llama13B, Naive, 117.2}, {Llama13B, Sorted, 44.5}, {Llama13B, Packing, 41.2},
	}
}

// LeaderboardRow is one line of the third-party page.
type LeaderboardRow struct {
	Benchmark, Metric string
	Value             float64
}

// Key names the row: "MuSiQue F1 Score".
func (r LeaderboardRow) Key() string { return r.Benchmark + " " + r.Metric }

// Leaderboard lists the rows of the third-party page.
func Leaderboard() []LeaderboardRow {
	return []LeaderboardRow{
		{"LongBench (test)", "Avg Score", 27.5},
		{"LongBench", "Overall Average Score", 56.6},
		{"MFQA en", "SubEM", 27.33},
		{"En.QA", "SubEM", 32.19},
		{"NarrativeQA", "SubEM", 18.5},
		{"2WikiMQA", "SubEM", 69},
		{"MuSiQue", "SubEM", 37.5},
		{"MuSiQue", "F1 Score", 28.76},
		{"Average Overall", "SubEM", 33.99},
		{"LongBench-Chat", "Point-wise Rate", 69.8},
	}
}

// NeedleColours are the ends and the middle of Figure 4's scale, low to high.
func NeedleColours() [3]string { return [3]string{"#F0496E", "#EBB839", "#0CD79F"} }
