package activities

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/longbench"
	"github.com/longalign/longalign-go/datasets/longbench/jieba"
	"github.com/longalign/longalign-go/reports"
)

// ownJieba installs a word list and a model of our own making, so that Chinese is scored on any machine.
func ownJieba(t *testing.T) {
	t.Helper()
	t.Setenv(jieba.EnvDir, write(t, map[string]string{
		jieba.DictFile:  "钟表 10 n\n走得 8 v\n很 100 d\n慢 9 a\n河流 10 n\n宽 5 a\n会议 20 n\n推迟 8 v\n到 90 p\n秋天 7 t\n体育 9 n\n新闻 9 n\n段落 5 n\n",
		jieba.StartFile: "P={'B': -0.5,\n 'E': -3.14e+100,\n 'M': -3.14e+100,\n 'S': -1.5}\n",
		jieba.TransFile: "P={'B': {'E': -0.1, 'M': -3.0},\n 'E': {'B': -0.1, 'S': -3.0},\n 'M': {'E': -0.1, 'M': -3.0},\n 'S': {'B': -0.5, 'S': -1.0}}\n",
		jieba.EmitFile:  "P={'B': {'钟': -1.0},\n 'E': {'表': -1.0},\n 'M': {'表': -2.0},\n 'S': {'慢': -5.0}}\n",
	}))
	forget := func() {
		loadedJieba.Lock()
		defer loadedJieba.Unlock()
		loadedJieba.words = nil
	}
	forget()
	t.Cleanup(forget)
}

// sampleOf is a right answer to a dataset's questions, a partly right one, and the classes.
func sampleOf(d longbench.Dataset) (right, partly string, classes []string) {
	switch d.Metric {
	case longbench.QAF1Chinese, longbench.RougeLChinese:
		return "钟表走得很慢", "河流很宽，钟表很慢。", nil
	case longbench.Classification:
		if d.Language == longbench.Chinese {
			return "体育新闻", "体育新闻、天气", []string{"体育", "体育新闻", "天气"}
		}
		return "Sport news", "Sport news or Weather", []string{"Sport", "Sport news", "Weather"}
	case longbench.Retrieval:
		return "Paragraph 7", "Paragraph 7 or 9", nil
	case longbench.RetrievalChinese:
		return "段落7", "段落7或9", nil
	case longbench.Count:
		return "7", "7 or 9", nil
	case longbench.CodeSimilarity:
		return "x := open(harbor)", "# a note\ny := close(harbor)", nil
	}
	return "the clock is slow", "the river is wide and the clock is slow", nil
}

// everyDataset has all files of a suite, three rows each: one is answered rightly, one partly, and the third's context is too long for the
// model's window. Prompts say what they are of, so that the service that answers knows.
func everyDataset(b longbench.Benchmark) map[string]string {
	prompts, lengths := map[string]string{}, map[string]int{}
	files := map[string]string{}
	for _, d := range longbench.Datasets(b) {
		prompts[d.Name], lengths[d.Name] = "<"+d.Name+">\n{context}\n{input}", 8
		name, language := d.Name, string(d.Language)
		if b == longbench.LongBenchE {
			name += "_e"
		}
		if d.Language == longbench.CodeLanguage {
			language = "python"
		}
		right, _, classes := sampleOf(d)
		var rows strings.Builder
		for i, context := range []string{"The clock is slow. 钟表走得很慢。", "The river is wide. 河流很宽。", strings.Repeat("The queue of the harbor is long. 会议推迟到秋天。", 60)} {
			rows.Write(mustMarshal(map[string]any{
				"_id": fmt.Sprintf("%s-%d", d.Name, i), "input": fmt.Sprintf("row %d?", i), "context": context, "answers": []string{right},
				"length": []int{100, 5000, 9000}[i], "dataset": name, "language": language, "all_classes": classes,
			}))
			rows.WriteByte('\n')
		}
		files["data/"+name+".jsonl"] = rows.String()
	}
	files[longbench.PromptFile], files[longbench.MaxLenFile] = string(mustMarshal(prompts)), string(mustMarshal(lengths))
	return files
}

// answerTo replies rightly to the first row, partly to the second and with nothing to the third.
func answerTo(b longbench.Benchmark) func(user string) string {
	return func(user string) string {
		name, _, _ := strings.Cut(strings.TrimPrefix(user, "<"), ">")
		d, err := longbench.Lookup(b, name)
		if err != nil {
			return ""
		}
		right, partly, _ := sampleOf(d)
		switch {
		case strings.HasSuffix(user, "row 0?"):
			return "\n" + right + "\nand more"
		case strings.HasSuffix(user, "row 1?"):
			return partly
		}
		return "\n\n"
	}
}

// What the stages make of each dataset is what the command makes of a file with the same predictions.
func TestEveryDatasetGoesThroughEveryStage(t *testing.T) {
	for b, benchmark := range map[longbench.Benchmark]string{longbench.LongBench: datasets.BenchmarkLongBench, longbench.LongBenchE: datasets.BenchmarkLongBenchE} {
		t.Run(benchmark, func(t *testing.T) {
			ownJieba(t)
			p := newTiny(t)
			dir := write(t, everyDataset(b))
			s := newService(t, answerTo(b))
			questions := p.make("questions", datasets.QuestionsParams{Benchmark: benchmark, Path: dir}, nil)
			predictions := p.make("predictions", datasets.PredictionsStageParams{Answer: &datasets.AnswerParams{Benchmark: benchmark, Endpoint: s.endpoint("m")}}, refs{"questions": questions})
			judgments := p.make("judgments", datasets.JudgmentsParams{Benchmark: benchmark, Judge: datasets.OfflineJudge}, refs{"questions": questions, "predictions": predictions})
			metrics := p.scores(p.make("scores", scoreParams(benchmark), refs{"questions": questions, "predictions": predictions, "judgments": judgments})).Metrics
			want := scoreAsFiles(t, b, dir, p.answers(predictions))
			for _, d := range longbench.Datasets(b) {
				for variant, of := range map[string]func(longbench.Sample) float64{"": func(x longbench.Sample) float64 { return x.Compat }, ":corrected": func(x longbench.Sample) float64 { return x.Corrected }} {
					set, ok := metrics[longBenchMetric(b, d.Name, variant)]
					if !ok || set.Wanted != d.RowsIn(b) {
						t.Fatalf("%s%s: %+v", d.Name, variant, set)
					}
					var got, whole []float64
					for i, x := range set.Samples {
						got, whole = append(got, x.Value), append(whole, 100*of(want[d.Name].Samples[i]))
					}
					if diff := cmp.Diff(whole, got); diff != "" {
						t.Errorf("%s%s: %s", d.Name, variant, diff)
					}
					if first := 99.9; got[0] < first && d.FirstLine || got[1] <= 0 || got[1] > 100 || got[2] != 0 || len(got) != 3 {
						t.Errorf("%s%s: %v", d.Name, variant, got)
					}
				}
				judged, ok := metrics[longBenchMetric(b, d.Name, ":judged")]
				if rated := d.Category == longbench.SingleDocQA || d.Category == longbench.MultiDocQA || d.Category == longbench.Summarization; ok != rated {
					t.Errorf("%s is judged: %v", d.Name, ok)
				} else if rated && (judged.Samples[0].Value <= judged.Samples[2].Value || !slices.Contains(judged.Marks, reports.NoteOffline)) {
					t.Errorf("%s by the offline judge: %+v", d.Name, judged)
				}
			}
			averages := want.averages(b)
			for name, mean := range averages {
				if got := macroMean(metrics[longBenchMetric(b, name, "")].Samples); math.Abs(got-mean) > 0.006 { // the command rounds datasets to two decimals first
					t.Errorf("the mean of %s is %v, want %v", name, got, mean)
				}
			}
			_, scored := metrics[longBenchMetric(b, "zh", "")]
			if _, ok := averages["zh"]; ok != (b == longbench.LongBench) || scored != ok {
				t.Errorf("averages %v; Chinese in the scores: %v", averages, scored)
			}
		})
	}
}

// Every dataset's prompt is made for our engine as the benchmark says: a template or none, one begin token, a middle that is cut.
func TestEveryDatasetIsAskedAsTheBenchmarkSays(t *testing.T) {
	for b, benchmark := range map[longbench.Benchmark]string{longbench.LongBench: datasets.BenchmarkLongBench, longbench.LongBenchE: datasets.BenchmarkLongBenchE} {
		p := newTiny(t)
		base := p.upToBatches()
		questions := p.make("questions", datasets.QuestionsParams{Benchmark: benchmark, Path: write(t, everyDataset(b))}, nil)
		all := p.answers(p.make("predictions", answerParams(benchmark), refs{"questions": questions, "checkpoint": base.base}))
		if want := 3 * len(longbench.Datasets(b)); len(all) != want {
			t.Fatalf("%d answers, want %d", len(all), want)
		}
		for i, a := range all {
			d, err := longbench.Lookup(b, a.Dataset)
			if err != nil {
				t.Fatal(err)
			}
			if a.ID != fmt.Sprintf("%s/%s-%d", d.Name, d.Name, i%3) || a.Failed != "" || (a.Template == "") != d.Completion || a.Truncated != (i%3 == 2) || a.Prompts[0].Tokens+8 > 256 {
				t.Errorf("%+v", a)
			}
			if d.StopAtNewline && strings.Contains(a.Texts[0], "\n") {
				t.Errorf("%s goes on after a line break: %q", a.ID, a.Texts[0])
			}
		}
	}
}

type fileScores map[string]longbench.Result

// scoreAsFiles writes the answers as LongBench's prediction files and scores these.
func scoreAsFiles(t *testing.T, b longbench.Benchmark, inputs string, answers []datasets.Answer) fileScores {
	t.Helper()
	predicted := map[string]string{}
	for _, a := range answers {
		_, id, _ := strings.Cut(a.ID, "/")
		predicted[id] = a.Texts[0]
	}
	dir := t.TempDir()
	for _, d := range longbench.Datasets(b) {
		file, _, err := longbench.OpenInputs(os.DirFS(inputs), b, d)
		if err != nil {
			t.Fatal(err)
		}
		var rows []byte
		err = longbench.ReadInputs(file, d.Name, d, func(in longbench.Input) error {
			length := in.Length
			row, err := json.Marshal(longbench.Prediction{ID: in.ID, Pred: predicted[in.ID], Answers: in.Answers, AllClasses: in.AllClasses, Length: &length})
			rows = append(append(rows, row...), '\n')
			return err
		})
		file.Close()
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, d.Name+".jsonl"), rows, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	report, err := longbench.ScoreDir(b, os.DirFS(dir), openJieba)
	if err != nil {
		t.Fatal(err)
	}
	scores := fileScores{}
	for _, r := range report.Results {
		scores[r.Dataset.Name] = r
	}
	return scores
}

// averages are the means over datasets that the command's package computes, by the stages' names.
func (s fileScores) averages(b longbench.Benchmark) map[string]float64 {
	report := longbench.Report{Benchmark: b}
	for _, d := range longbench.Datasets(b) {
		report.Results = append(report.Results, s[d.Name])
	}
	a := report.Averages()
	means := map[string]float64{}
	for _, x := range slices.Concat(a.Categories, a.Languages, []longbench.Average{a.Overall}) {
		if x.Datasets > 0 {
			means[x.Name] = x.Compat
		}
	}
	return means
}

func macroMean(samples []reports.Sample) float64 {
	sums, ns := map[string]float64{}, map[string]float64{}
	for _, x := range samples {
		sums[x.Group] += x.Value
		ns[x.Group]++
	}
	mean := 0.0
	for g := range sums {
		mean += sums[g] / ns[g] / float64(len(sums))
	}
	return mean
}
