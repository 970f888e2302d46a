package activities

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/longbench"
	"github.com/longalign/longalign-go/datasets/longbenchchat"
	"github.com/longalign/longalign-go/datasets/mtbench"
	"github.com/longalign/longalign-go/datasets/needle"
	"github.com/longalign/longalign-go/datasets/shorttasks"
	"github.com/longalign/longalign-go/reports"
	"github.com/longalign/longalign-go/reports/paper"
)

// scoreFiles are what scores depend on outside of the store: jieba's dictionary for Chinese, and the harness's results.
func scoreFiles(ctx context.Context, _ *Activities, raw json.RawMessage) (map[string]string, error) {
	p, err := decodeParams[datasets.ScoresStageParams](raw)
	if err != nil || p.Benchmark == nil {
		return nil, err
	}
	b := p.Benchmark
	if b.Results != "" {
		f, err := openResults(ctx, b.Results)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return nil, placeError("benchmarks.short_tasks.results", err)
		}
		return map[string]string{"results": "sha256:" + hex.EncodeToString(h.Sum(nil))}, nil
	}
	if !slices.ContainsFunc(wantedDatasets(*b), longbench.Dataset.NeedsJieba) {
		return nil, nil
	}
	words, err := openJieba()
	if err != nil {
		return nil, badConfig("benchmarks.%s: %w; or leave the Chinese datasets out of datasets", b.Benchmark, err)
	}
	return map[string]string{"jieba": words.Digest()}, nil
}

func runBenchmarkScores(ctx context.Context, j *job, p datasets.BenchmarkScoresParams) error {
	s := &benchmarkScores{j: j, p: p, scores: Scores{Metrics: map[string]reports.ScoreSet{}, AnsweredBy: p.AnsweredBy}}
	if p.Benchmark == datasets.BenchmarkShortTasks {
		if err := s.shortTasks(ctx); err != nil {
			return err
		}
		return s.put(ctx)
	}
	if err := s.load(ctx); err != nil {
		return err
	}
	var err error
	switch p.Benchmark {
	case datasets.BenchmarkLongBench, datasets.BenchmarkLongBenchE:
		err = s.longBench()
	case datasets.BenchmarkEnQA:
		s.leaderboard(longbench.EnQA, longbench.EnQARows)
	case datasets.BenchmarkLongBenchChat:
		s.longBenchChat()
	case datasets.BenchmarkMTBench:
		s.mtBench()
	case datasets.BenchmarkNeedle:
		s.needle()
	default:
		err = badConfig("benchmark %q is not known to this worker", p.Benchmark)
	}
	if err != nil {
		return err
	}
	s.whyFailed()
	return s.put(ctx)
}

// benchmarkScores are one benchmark's in the making.
type benchmarkScores struct {
	j      *job
	p      datasets.BenchmarkScoresParams
	scores Scores
	// references are by dataset, in the benchmark's order; answers by ID.
	references map[string][]datasets.Reference
	answers    map[string]datasets.Answer
	judgments  map[string]datasets.Judgment // by ID and turn
	judge      *JudgeReport
}

func (s *benchmarkScores) load(ctx context.Context) (err error) {
	s.references = map[string][]datasets.Reference{}
	known := map[string]bool{}
	for r, err := range lines[datasets.Reference](ctx, s.j, "questions", referencesFile) {
		if err != nil {
			return err
		}
		s.references[r.Dataset] = append(s.references[r.Dataset], r)
		known[r.ID] = true
	}
	if s.answers, err = s.j.readAnswers(ctx); err != nil {
		return err
	}
	for id := range s.answers {
		if !known[id] {
			return badData("the prediction with _id %q answers no question of the benchmark", id)
		}
	}
	if !s.j.hasInput("judgments") {
		return nil
	}
	s.judge, s.judgments = &JudgeReport{}, map[string]datasets.Judgment{}
	if err := s.j.readJSON(ctx, "judgments", judgeFile, s.judge); err != nil {
		return err
	}
	s.scores.JudgedBy = s.judge.Name
	for m, err := range lines[datasets.Judgment](ctx, s.j, "judgments", judgmentsFile) {
		if err != nil {
			return err
		}
		s.judgments[judgmentKey(m.ID, m.Turn)] = m
	}
	return nil
}

func judgmentKey(id string, turn int) string { return fmt.Sprintf("%s#%d", id, turn) }

func (s *benchmarkScores) put(ctx context.Context) error {
	for name, set := range s.scores.Metrics {
		failed := set.Failed
		for _, sample := range set.Samples {
			if sample.Failed {
				failed++
			}
		}
		s.j.count(name, int64(len(set.Samples)))
		if failed > 0 {
			s.j.count("failed: "+name, int64(failed))
		}
	}
	return s.j.putJSON(ctx, "scores.json", s.scores)
}

// wanted is how many of a dataset's rows there should be, and the mark of a score over fewer than the benchmark's.
func (s *benchmarkScores) wanted(rows int) (n int, marks []string) {
	if s.p.MaxSamples > 0 && s.p.MaxSamples < rows {
		return s.p.MaxSamples, []string{reports.NoteSubset}
	}
	return rows, nil
}

// wantedOf is how many of a dataset's rows there should be in a part of it whose size is not known beforehand: those that are, and all that
// the dataset lacks of the rows it should have.
func (s *benchmarkScores) wantedOf(refs []datasets.Reference, rows int, in func(datasets.Reference) bool) int {
	n := max(0, rows-len(refs))
	for _, r := range refs {
		if in(r) {
			n++
		}
	}
	return n
}

func (s *benchmarkScores) set(name string, samples []reports.Sample, wanted int, marks []string) {
	s.scores.Metrics[name] = reports.ScoreSet{Samples: samples, Wanted: wanted, Marks: marks}
}

// judgeMarks are the footnotes of ratings.
func (s *benchmarkScores) judgeMarks() []string {
	var marks []string
	switch {
	case s.judge.Offline:
		marks = append(marks, reports.NoteOffline)
	case !s.judge.Dated:
		marks = append(marks, reports.NoteUndated)
	}
	if s.judge.OwnPrompt {
		marks = append(marks, reports.NoteOwnPrompt)
	}
	return marks
}

// sample is a score's sample before its value is known.
func (s *benchmarkScores) sample(r datasets.Reference) (reports.Sample, datasets.Answer) {
	a, ok := s.answers[r.ID]
	if !ok {
		a.Failed = "there is no prediction"
	}
	return reports.Sample{ID: r.ID, Length: r.Length, Failed: a.Failed != "", Truncated: a.Truncated}, a
}

// rated are the samples of a judged dataset; value maps ratings to scores.
func (s *benchmarkScores) rated(refs []datasets.Reference, turn int, value func(float64) float64) []reports.Sample {
	var out []reports.Sample
	for _, r := range refs {
		sample, _ := s.sample(r)
		m, ok := s.judgments[judgmentKey(r.ID, turn)]
		if turn > 0 {
			sample.ID, sample.Cluster = fmt.Sprintf("%s/turn-%d", r.ID, turn), r.ID
		}
		if sample.Failed = sample.Failed || !ok || m.Failed != ""; !sample.Failed {
			sample.Value = value(m.Rating)
		}
		out = append(out, sample)
	}
	return out
}

func same(v float64) float64 { return v }

// Leaderboard metrics.
const (
	metricSubEM   = "SubEM"
	metricF1Score = "F1 Score"
)

// chatCases is the number of LongBench-Chat's queries.
const chatCases = 50

func (s *benchmarkScores) longBenchChat() {
	wanted, marks := s.wanted(chatCases)
	refs := s.references[datasets.BenchmarkLongBenchChat]
	marks = unionOf(s.judgeMarks(), marks)
	s.set(paper.LongBenchChat, s.rated(refs, 0, same), wanted, marks)
	s.set("LongBench-Chat Point-wise Rate", s.rated(refs, 0, func(v float64) float64 { return 10 * v }), wanted, marks)
	s.scores.Judged = []string{paper.LongBenchChat, "LongBench-Chat Point-wise Rate"}
	for _, lang := range []string{"en", "zh"} {
		in := func(r datasets.Reference) bool { return r.Category == lang }
		of := slices.DeleteFunc(slices.Clone(refs), func(r datasets.Reference) bool { return !in(r) })
		if len(of) > 0 {
			s.set("longbench-chat:"+lang, s.rated(of, 0, same), s.wantedOf(refs, wanted, in), marks)
			s.scores.Judged = append(s.scores.Judged, "longbench-chat:"+lang)
		}
	}
}

// mtQuestionsCount is the number of MT-Bench's questions.
const mtQuestionsCount = 80

func (s *benchmarkScores) mtBench() {
	wanted, marks := s.wanted(mtQuestionsCount)
	marks = unionOf(s.judgeMarks(), marks)
	refs := s.references[datasets.BenchmarkMTBench]
	var all []reports.Sample
	categories := map[string][]reports.Sample{}
	for turn := 1; turn <= mtbench.Turns; turn++ {
		rated := s.rated(refs, turn, same)
		s.set(fmt.Sprintf("mt-bench:turn %d", turn), rated, wanted, marks)
		for i, r := range refs {
			categories[r.Category] = append(categories[r.Category], rated[i])
		}
		all = append(all, rated...)
	}
	s.set(paper.MTBench, all, mtbench.Turns*wanted, marks)
	for c, samples := range categories {
		rows := s.wantedOf(refs, wanted, func(r datasets.Reference) bool { return r.Category == c })
		s.set("mt-bench:"+c, samples, mtbench.Turns*rows, marks)
	}
	s.scores.Judged = slices.Sorted(maps.Keys(s.scores.Metrics))
}

// needle scores by exact match, and by the judge if there is one, whose ratings the figure then shows, as the paper's does.
func (s *benchmarkScores) needle() {
	refs := s.references[datasets.BenchmarkNeedle]
	var exact []reports.Sample
	for _, r := range refs {
		sample, a := s.sample(r)
		if !sample.Failed {
			sample.Value = 100 * needle.Test{Expected: r.Needle.Expected}.Found(a.Texts[0])
		}
		exact = append(exact, sample)
	}
	s.set("needle:exact match", exact, len(refs), nil)
	shown, low, high, unit := exact, 0.0, 100.0, "% of the needle's phrases"
	if s.judge != nil {
		shown, low, high, unit = s.rated(refs, 0, same), longbenchchat.MinRating, longbenchchat.MaxRating, "rating"
		s.set("needle:rating", shown, len(refs), s.judgeMarks())
		s.scores.Judged = []string{"needle:rating"}
		if s.judge.Offline {
			unit = "rating, " + longbenchchat.OfflineName
		}
	}
	var rated []reports.Sample
	if s.judge != nil {
		rated = shown
	}
	s.needleCells(refs, exact, rated)
	s.scores.Needle = needleGrid(refs, shown)
	s.scores.Needle.Low, s.scores.Needle.High, s.scores.Needle.Unit = low, high, unit
}

// needleCells lists the cells, and notes how far the needles lie from where they were asked to be.
func (s *benchmarkScores) needleCells(refs []datasets.Reference, exact, rated []reports.Sample) {
	value := func(x []reports.Sample, i int) *float64 {
		if x == nil || x[i].Failed {
			return nil
		}
		return &x[i].Value
	}
	away, far := 0.0, 0.0
	for i, r := range refs {
		n := r.Needle
		s.scores.NeedleCells = append(s.scores.NeedleCells, NeedleCell{ID: r.ID, Length: n.Length, Tokens: n.ActualTokens, Depth: n.Depth, ActualDepth: n.ActualDepth, Exact: value(exact, i), Rating: value(rated, i)})
		d := math.Abs(n.ActualDepth - n.Depth)
		away, far = away+d/float64(len(refs)), max(far, d)
	}
	s.j.note("needles lie at the sentence end nearest to the depth asked for: %.2f points from it in the mean, %.2f at most", 100*away, 100*far)
}

func needleGrid(refs []datasets.Reference, samples []reports.Sample) *reports.NeedleGrid {
	g := &reports.NeedleGrid{}
	for _, r := range refs {
		if depth := 100 * r.Needle.Depth; !slices.Contains(g.Depths, depth) {
			g.Depths = append(g.Depths, depth)
		}
		if !slices.Contains(g.Lengths, r.Needle.Length) {
			g.Lengths = append(g.Lengths, r.Needle.Length)
		}
	}
	slices.Sort(g.Depths)
	slices.Sort(g.Lengths)
	g.Scores, g.N = make([][]float64, len(g.Depths)), make([][]int, len(g.Depths))
	for d := range g.Depths {
		g.Scores[d], g.N[d] = make([]float64, len(g.Lengths)), make([]int, len(g.Lengths))
	}
	for i, r := range refs {
		if samples[i].Failed {
			continue
		}
		d, l := slices.Index(g.Depths, 100*r.Needle.Depth), slices.Index(g.Lengths, r.Needle.Length)
		n := float64(g.N[d][l])
		g.Scores[d][l] = (g.Scores[d][l]*n + samples[i].Value) / (n + 1)
		g.N[d][l]++
	}
	return g
}

// shortTasks takes over what lm-evaluation-harness computed.
func (s *benchmarkScores) shortTasks(ctx context.Context) error {
	var results *shorttasks.Results
	if s.j.hasInput("predictions") {
		for _, t := range shorttasks.Tasks() {
			r, err := s.j.open(ctx, "predictions", harnessFile(t))
			if err != nil {
				return err
			}
			one, err := shorttasks.Read(r)
			if err := errors.Join(err, r.Close()); err != nil {
				return badData("%s: %w", harnessFile(t), err)
			}
			if results != nil {
				one.Scores = append(results.Scores, one.Scores...)
			}
			results = one
		}
	} else {
		f, err := openResults(ctx, s.p.Results)
		if err != nil {
			return err
		}
		defer f.Close()
		var raw bytes.Buffer
		if results, err = shorttasks.Read(io.TeeReader(f, &raw)); err != nil {
			return badData("benchmarks.short_tasks.results: %s: %w", s.p.Results, err)
		}
		if err := s.j.put(ctx, "results.json", "application/json", &raw); err != nil {
			return err
		}
	}
	s.j.note("short tasks by lm-evaluation-harness %s", results.Version)
	for _, r := range results.Scores {
		set := reports.ScoreSet{Mean: r.Value, N: r.N, Wanted: r.Wanted, Marks: []string{reports.NoteImported}}
		if r.StdErr > 0 {
			set.Low, set.High = max(0, r.Value-1.96*r.StdErr), min(100, r.Value+1.96*r.StdErr)
		}
		if r.N < r.Wanted { // run with --limit
			set.Wanted = r.N
			set.Marks = append(set.Marks, reports.NoteSubset)
		}
		if r.Shots >= 0 && r.Shots != r.Task.Shots {
			set.Marks = append(set.Marks, reports.NoteShots)
			s.j.note("%s was run with %d shots, the leaderboard has %d", r.Task.Name, r.Shots, r.Task.Shots)
		}
		s.scores.Metrics[r.Task.Name] = set
	}
	return nil
}

func unionOf(a, b []string) []string {
	out := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}
