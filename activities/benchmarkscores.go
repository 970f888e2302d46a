package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/longbench"
	"github.com/longalign/longalign-go/datasets/longbench/jieba"
	"github.com/longalign/longalign-go/datasets/longbenchchat"
	"github.com/longalign/longalign-go/datasets/mtbench"
	"github.com/longalign/longalign-go/datasets/needle"
	"github.com/longalign/longalign-go/datasets/shorttasks"
	"github.com/longalign/longalign-go/reports"
	"github.com/longalign/longalign-go/reports/paper"
)

// openJieba loads jieba's dictionary once a process: it takes a second.
var openJieba = sync.OnceValues(func() (*jieba.Dictionary, error) { return jieba.Open("") })

// scoreFiles are what scores depend on outside of the store: jieba's dictionary for Chinese, and the harness's results.
func scoreFiles(_ context.Context, _ *Activities, raw json.RawMessage) (map[string]string, error) {
	p, err := decodeParams[datasets.ScoresStageParams](raw)
	if err != nil || p.Benchmark == nil {
		return nil, err
	}
	b := p.Benchmark
	if b.Results != "" {
		path, err := localPath(b.Results)
		if err != nil {
			return nil, badData("benchmarks.short_tasks.results: %w", err)
		}
		d, err := fileDigest(path)
		if err != nil {
			return nil, badData("benchmarks.short_tasks.results: %w", err)
		}
		return map[string]string{"results": d}, nil
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

// wantedDatasets are those of LongBench that were asked for.
func wantedDatasets(p datasets.BenchmarkScoresParams) []longbench.Dataset {
	if p.Benchmark != datasets.BenchmarkLongBench && p.Benchmark != datasets.BenchmarkLongBenchE {
		return nil
	}
	all := longbench.Datasets(suite(p.Benchmark))
	if len(p.Datasets) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(d longbench.Dataset) bool {
		return !slices.ContainsFunc(p.Datasets, func(name string) bool {
			w, err := longbench.Lookup(suite(p.Benchmark), name)
			return err == nil && w.Name == d.Name
		})
	})
}

func runBenchmarkScores(ctx context.Context, j *job, p datasets.BenchmarkScoresParams) error {
	s := &benchmarkScores{j: j, p: p, scores: Scores{Metrics: map[string]reports.ScoreSet{}}}
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
			sample.ID = fmt.Sprintf("%s/turn-%d", r.ID, turn)
		}
		if sample.Failed = sample.Failed || !ok || m.Failed != ""; !sample.Failed {
			sample.Value = value(m.Rating)
		}
		out = append(out, sample)
	}
	return out
}

func same(v float64) float64 { return v }

// predictionRows are a dataset's answers as LongBench's scorer reads them. Samples are matched by ID.
func (s *benchmarkScores) predictionRows(dataset string) []longbench.Prediction {
	var rows []longbench.Prediction
	for i, r := range s.references[dataset] {
		sample, a := s.sample(r)
		length := r.Length
		row := longbench.Prediction{ID: r.ID, Answers: r.Answers, AllClasses: r.AllClasses, Length: &length, Failed: a.Failed, Truncated: sample.Truncated, Line: i + 1}
		if a.Failed == "" {
			row.Pred = a.Texts[0]
		}
		rows = append(rows, row)
	}
	return rows
}

// longBench scores all datasets, their averages, and the leaderboard's rows among them.
func (s *benchmarkScores) longBench() error {
	b := suite(s.p.Benchmark)
	results := map[string]longbench.Result{}
	for _, d := range wantedDatasets(s.p) {
		rows := s.predictionRows(d.Name)
		if len(rows) == 0 {
			continue
		}
		var words *jieba.Dictionary
		if d.NeedsJieba() {
			var err error
			if words, err = openJieba(); err != nil {
				return badConfig("%w", err)
			}
			if !words.Standard() {
				s.j.note("jieba's dictionary is not that of version 0.42.1: Chinese scores are not comparable with published ones")
			}
		}
		result, err := longbench.Score(b, d, rows, words)
		if err != nil {
			return badData("%w", err)
		}
		results[d.Name] = result
		s.j.manifest.Warnings = append(s.j.manifest.Warnings, result.Warnings...)
		wanted, marks := s.wanted(d.RowsIn(b))
		for _, v := range longBenchVariants {
			s.set(longBenchMetric(b, d.Name, v), samplesOf(&result, v, nil), wanted, marks)
			if b != longbench.LongBenchE {
				continue
			}
			for _, bucket := range longbench.Buckets() { // how many samples a bucket should have is not known
				in := func(x longbench.Sample) bool { return x.Bucket == bucket }
				if samples := samplesOf(&result, v, in); len(samples) > 0 {
					s.set(longBenchMetric(b, d.Name+":"+string(bucket), v), samples, 0, marks)
				}
			}
		}
	}
	s.averages(b, results)
	if b == longbench.LongBench {
		for _, name := range longbench.LeaderboardDatasets() {
			if d, err := longbench.Lookup(b, name); err == nil && len(s.references[name]) > 0 {
				s.leaderboard(name, d.Rows)
			}
		}
	}
	if s.judge != nil {
		s.judgedLongBench(b)
	}
	return nil
}

// longBenchVariants are the compatible score and the one without the reference scorer's defects.
var longBenchVariants = []string{"", ":corrected"}

func longBenchMetric(b longbench.Benchmark, name, variant string) string {
	return string(b) + ":" + name + variant
}

// samplesOf are the samples of one dataset that in accepts, in percent.
func samplesOf(r *longbench.Result, variant string, in func(longbench.Sample) bool) []reports.Sample {
	var out []reports.Sample
	for _, x := range r.Samples {
		if in != nil && !in(x) {
			continue
		}
		v := x.Compat
		if variant != "" {
			v = x.Corrected
		}
		sample := reports.Sample{ID: x.ID, Failed: x.Failed, Truncated: x.Truncated}
		if !x.Failed {
			sample.Value = 100 * v
		}
		if !math.IsNaN(v) { // a repeated row has no corrected score
			out = append(out, sample)
		}
	}
	return out
}

// averages are the benchmark's means over datasets: every dataset counts alike, whatever its number of samples.
func (s *benchmarkScores) averages(b longbench.Benchmark, results map[string]longbench.Result) {
	add := func(name string, in func(longbench.Dataset) bool) {
		for _, variant := range longBenchVariants {
			var samples []reports.Sample
			var marks []string
			wanted := 0
			for _, d := range longbench.Datasets(b) {
				if !in(d) {
					continue
				}
				n, m := s.wanted(d.RowsIn(b))
				wanted += n
				if r, ok := results[d.Name]; ok {
					marks = unionOf(marks, m)
					for _, x := range samplesOf(&r, variant, nil) {
						x.Group = d.Name
						samples = append(samples, x)
					}
				}
			}
			if len(samples) == 0 {
				continue
			}
			s.set(longBenchMetric(b, name, variant), samples, wanted, marks)
			if name == "overall" && b == longbench.LongBench && variant == "" {
				s.set("LongBench Overall Average Score", samples, wanted, marks)
			}
		}
	}
	for _, c := range longBenchCategories {
		add(string(c), func(d longbench.Dataset) bool { return d.Category == c })
	}
	for _, l := range []longbench.Language{longbench.English, longbench.Chinese} {
		add(string(l), func(d longbench.Dataset) bool { return d.Language == l || d.Language == longbench.CodeLanguage })
	}
	add("overall", func(longbench.Dataset) bool { return true })
}

var longBenchCategories = []longbench.Category{longbench.SingleDocQA, longbench.MultiDocQA, longbench.Summarization, longbench.FewShot, longbench.Synthetic, longbench.Code}

// judgedLongBench are the paper's columns: ratings of answers to questions and of summaries, mapped to 0 to 100.
func (s *benchmarkScores) judgedLongBench(b longbench.Benchmark) {
	for _, column := range []struct {
		name     string
		category longbench.Category
	}{{paper.SingleDocQA, longbench.SingleDocQA}, {paper.MultiDocQA, longbench.MultiDocQA}, {paper.Summary, longbench.Summarization}} {
		scale, err := longbenchchat.ScaleOf(column.category)
		if err != nil {
			continue
		}
		var samples []reports.Sample
		marks := s.judgeMarks()
		wanted := 0
		for _, d := range longbench.Datasets(b) {
			if d.Category != column.category {
				continue
			}
			n, m := s.wanted(d.RowsIn(b))
			wanted += n
			rated := s.rated(s.references[d.Name], 0, scale.Percent)
			if len(rated) == 0 {
				continue
			}
			marks = unionOf(marks, m)
			s.set(longBenchMetric(b, d.Name, ":judged"), rated, n, unionOf(s.judgeMarks(), m))
			for _, x := range slices.Clone(rated) {
				x.Group = d.Name
				samples = append(samples, x)
			}
		}
		if len(samples) > 0 && b == longbench.LongBench {
			s.set(column.name, samples, wanted, marks)
			s.scores.Judged = append(s.scores.Judged, column.name)
		}
	}
	for name := range s.scores.Metrics {
		if b := len(name) - len(":judged"); b > 0 && name[b:] == ":judged" {
			s.scores.Judged = append(s.scores.Judged, name)
		}
	}
	slices.Sort(s.scores.Judged)
}

// leaderboardNames are the leaderboard's names of datasets.
var leaderboardNames = map[string]string{
	"multifieldqa_en": "MFQA en", longbench.EnQA: "En.QA", "narrativeqa": "NarrativeQA", "2wikimqa": "2WikiMQA", "musique": "MuSiQue",
}

// Leaderboard metrics.
const (
	metricSubEM   = "SubEM"
	metricF1Score = "F1 Score"
)

// leaderboard scores one dataset as the leaderboard's rows want it.
func (s *benchmarkScores) leaderboard(dataset string, rows int) {
	var subEM, f1 []reports.Sample
	for _, r := range s.references[dataset] {
		sample, a := s.sample(r)
		x, y := sample, sample
		if !sample.Failed {
			x.Value, y.Value = 100*longbench.SubEM(a.Texts[0], r.Answers), 100*longbench.AnswerF1(a.Texts[0], r.Answers)
		}
		subEM, f1 = append(subEM, x), append(f1, y)
	}
	wanted, marks := s.wanted(rows)
	s.set(leaderboardNames[dataset]+" "+metricSubEM, subEM, wanted, marks)
	s.set(leaderboardNames[dataset]+" "+metricF1Score, f1, wanted, marks)
}

// leaderboardAverages adds the means over the leaderboard's five datasets, which two benchmarks hold.
func leaderboardAverages(metrics map[string]reports.ScoreSet) {
	for _, metric := range []string{metricSubEM, metricF1Score} {
		var all reports.ScoreSet
		found := 0
		for _, dataset := range longbench.LeaderboardDatasets() {
			rows := longbench.EnQARows
			if d, err := longbench.Lookup(longbench.LongBench, dataset); err == nil {
				rows = d.Rows
			}
			set, ok := metrics[leaderboardNames[dataset]+" "+metric]
			if !ok {
				all.Wanted += rows
				continue
			}
			found++
			all.Wanted += set.Wanted
			all.Marks, all.Sources = unionOf(all.Marks, set.Marks), unionOf(all.Sources, set.Sources)
			for _, x := range set.Samples {
				x.Group = dataset
				all.Samples = append(all.Samples, x)
			}
		}
		if found > 0 {
			metrics["Average Overall "+metric] = all
		}
	}
}

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
		of := slices.DeleteFunc(slices.Clone(refs), func(r datasets.Reference) bool { return r.Category != lang })
		if len(of) > 0 {
			s.set("longbench-chat:"+lang, s.rated(of, 0, same), 0, marks)
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
		s.set("mt-bench:"+c, samples, 0, marks)
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
	s.scores.Needle = needleGrid(refs, shown)
	s.scores.Needle.Low, s.scores.Needle.High, s.scores.Needle.Unit = low, high, unit
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
		path, err := localPath(s.p.Results)
		if err != nil {
			return badData("benchmarks.short_tasks.results: %w", err)
		}
		f, err := os.Open(path)
		if err != nil {
			return badData("benchmarks.short_tasks.results: %w", err)
		}
		defer f.Close()
		if results, err = shorttasks.Read(f); err != nil {
			return badData("benchmarks.short_tasks.results: %s: %w", s.p.Results, err)
		}
		if err := s.j.putFile(ctx, "results.json", "application/json", path); err != nil {
			return err
		}
	}
	s.j.note("short tasks by lm-evaluation-harness %s", results.Version)
	for _, r := range results.Scores {
		set := reports.ScoreSet{Mean: r.Value, N: max(r.N, 1), Wanted: r.Wanted, Marks: []string{reports.NoteImported}}
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

// BenchmarkRole names the input of the tables stage that holds a cell's scores in a benchmark.
func BenchmarkRole(cell, benchmark string) string { return "benchmarks/" + cell + "/" + benchmark }

// benchmarkRoles are the inputs that hold a cell's scores in benchmarks.
func (j *job) benchmarkRoles(c TablesCell) []string {
	var roles []string
	for role := range j.call.Inputs {
		if strings.HasPrefix(role, BenchmarkRole(c.Name, "")) {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return roles
}

// benchmarks adds a cell's scores in benchmarks to what the tables print.
func (j *job) benchmarks(ctx context.Context, c TablesCell, d *reports.CellData) error {
	for _, role := range j.benchmarkRoles(c) {
		var made Scores
		if err := j.readJSON(ctx, role, "scores.json", &made); err != nil {
			return err
		}
		moved, err := j.judgeMoved(ctx, role)
		if err != nil {
			return err
		}
		source := []string{reports.Source(j.call.Inputs[role])}
		for name, set := range made.Metrics {
			set.Sources = source
			if moved && slices.Contains(made.Judged, name) {
				set.Marks = unionOf(set.Marks, []string{reports.NoteMoved})
			}
			d.Scores[name] = set
		}
		if made.Needle != nil {
			d.Needle = made.Needle
			d.Needle.Sources = source
		}
	}
	leaderboardAverages(d.Scores)
	return nil
}

// judgeMoved tells whether the judge behind scores rates otherwise than it did at first. That was measured, and so is in the
// judgments' manifest alone.
func (j *job) judgeMoved(ctx context.Context, role string) (bool, error) {
	m, err := j.input(ctx, role)
	if err != nil {
		return false, err
	}
	ref, ok := m.Inputs["judgments"]
	if !ok {
		return false, nil
	}
	judgments, err := j.a.Store.Current(ctx, ref)
	if err != nil {
		return false, err
	}
	return slices.Contains(judgments.Flags, flagMoved), nil
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
