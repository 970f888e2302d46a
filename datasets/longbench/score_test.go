package longbench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets/longbench/jieba"
)

func noJieba() (*jieba.Dictionary, error) { return nil, jieba.ErrNotFound }

func file(lines ...string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(strings.Join(lines, "\n") + "\n")}
}

func TestScoreDirRefusesBadFiles(t *testing.T) {
	const good = `{"pred":"x","answers":["x"],"all_classes":null,"length":5}`
	for name, tt := range map[string]struct {
		files fstest.MapFS
		bench Benchmark
		want  string
	}{
		"no predictions at all":          {fstest.MapFS{"result.json": file("{}")}, LongBench, "no *.jsonl"},
		"a file that is no dataset":      {fstest.MapFS{"squad.jsonl": file(good)}, LongBench, `dataset "squad" is not part of longbench`},
		"a dataset of the other suite":   {fstest.MapFS{"musique.jsonl": file(good)}, LongBenchE, "not part of longbench-e"},
		"an empty file":                  {fstest.MapFS{"qasper.jsonl": file("")}, LongBench, "qasper.jsonl has no rows"},
		"a row that is no JSON":          {fstest.MapFS{"qasper.jsonl": file(good, "{")}, LongBench, "qasper.jsonl:2:"},
		"a row cut off in UTF-8":         {fstest.MapFS{"qasper.jsonl": file(good, "{\"pred\":\"\xe5\"}")}, LongBench, "qasper.jsonl:2: the line is not valid UTF-8"},
		"a row without answers":          {fstest.MapFS{"qasper.jsonl": file(`{"pred":"x","answers":[]}`)}, LongBench, `qasper.jsonl:1: no "answers"`},
		"a row without prediction":       {fstest.MapFS{"qasper.jsonl": file(good, "", `{"answers":["x"]}`)}, LongBench, `qasper.jsonl:3: no "pred"`},
		"a row without length":           {fstest.MapFS{"qasper.jsonl": file(`{"pred":"x","answers":["x"]}`)}, LongBenchE, `qasper.jsonl:1: no "length"`},
		"a class row without classes":    {fstest.MapFS{"trec.jsonl": file(good)}, LongBench, `trec.jsonl:1: no "all_classes"`},
		"a language that does not match": {fstest.MapFS{"qasper.jsonl": file(`{"pred":"x","answers":["x"],"language":"zh"}`)}, LongBench, "do not mix languages"},
		"a row of another dataset":       {fstest.MapFS{"qasper.jsonl": file(`{"pred":"x","answers":["x"],"dataset":"musique"}`)}, LongBench, `row of dataset "musique"`},
		"Chinese without dictionary":     {fstest.MapFS{"dureader.jsonl": file(good)}, LongBench, "starter fetch jieba"},
		"a prediction of another type":   {fstest.MapFS{"qasper.jsonl": file(good, `{"pred":["x"],"answers":["x"]}`)}, LongBench, `qasper.jsonl:2: "pred" is ["x"]; want a text`},
		"answers that are one text":      {fstest.MapFS{"qasper.jsonl": file(`{"pred":"x","answers":"x"}`)}, LongBench, `"answers" is "x"; want a list of texts`},
		"one dataset in two files":       {fstest.MapFS{"qasper.jsonl": file(good), "qasper_e.jsonl": file(good)}, LongBenchE, "both dataset qasper"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ScoreDir(tt.bench, tt.files, noJieba)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v does not mention %q", err, tt.want)
			}
		})
	}
}

func TestIncompleteFilesAreScoredAndSaidSo(t *testing.T) {
	report, err := ScoreDir(LongBench, fstest.MapFS{
		"qasper.jsonl": file(
			`{"_id":"a","pred":"x","answers":["x"],"truncated":true}`,
			`{"_id":"a","pred":"y","answers":["x"]}`,
			`{"_id":"b","answers":["x"],"failed":"the endpoint gave no answer"}`),
	}, noJieba)
	if err != nil {
		t.Fatal(err)
	}
	res := report.Results[0]
	got := []any{res.Compat, res.Corrected, res.N, res.Failed, res.Truncated, res.Samples[1].Reason}
	if diff := cmp.Diff([]any{50.0, 100.0, 2, 1, 1, DuplicateRow}, got); diff != "" {
		t.Error(diff)
	}
	warnings := strings.Join(report.Warnings(), "\n")
	for _, want := range []string{"no predictions for narrativeqa, multifieldqa_en", "3 rows, longbench has 200",
		"lines 1 and 2 both have _id a", "1 samples failed"} {
		if !strings.Contains(warnings, want) {
			t.Errorf("%q is not warned about in:\n%s", want, warnings)
		}
	}
}

// Other programs add fields of their own, write numbers for ids and lengths with a point.
func TestOtherProgramsFilesAreRead(t *testing.T) {
	d, err := Lookup(LongBenchE, "qasper")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := ReadPredictions(strings.NewReader(`{"_id":12,"pred":"x","Pred":"y","PRED":[1],"answers":["x"],"Answers":null,"all_classes":null,"length":4096.0,"Length":"long","language":null,"extra":{"n":[1e400]}}`), "f", d)
	if err != nil {
		t.Fatal(err)
	}
	length := 4096
	if diff := cmp.Diff([]Prediction{{ID: "12", Pred: "x", Answers: []string{"x"}, Length: &length, Line: 1}}, rows); diff != "" {
		t.Error(diff)
	}
}

func TestAMissingValueAsPythonWritesItIsNone(t *testing.T) {
	d, err := Lookup(LongBench, "qasper")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := ReadPredictions(strings.NewReader(`{"pred":"NaN","answers":["x"],"all_classes":NaN,"length":NaN}`), "f", d)
	if diff := cmp.Diff([]Prediction{{Pred: "NaN", Answers: []string{"x"}, Line: 1}}, rows); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if _, err := ReadPredictions(strings.NewReader(`{"pred":NaN,"answers":["x"]}`), "f", d); err == nil || !strings.Contains(err.Error(), `no "pred"`) {
		t.Error("no prediction:", err)
	}
}

func TestClassesOfTheLastRowRuleInTheOriginal(t *testing.T) {
	d, err := Lookup(LongBench, "trec")
	if err != nil {
		t.Fatal(err)
	}
	rows := []Prediction{
		{Pred: "A and B", Answers: []string{"A"}, AllClasses: []string{"A", "B"}},
		{Pred: "A\nB", Answers: []string{"A"}, AllClasses: []string{"A"}},
	}
	res, err := Score(LongBench, d, rows, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := res.Samples[0]; s.Compat != 1 || s.Corrected != 0.5 || s.Reason != SkippedClass {
		t.Errorf("%+v", s)
	}
	if s := res.Samples[1]; s.Compat != 1 {
		t.Errorf("only the first line counts: %+v", s)
	}
}

func TestBucketsGoByLength(t *testing.T) {
	d, err := Lookup(LongBenchE, "qasper_e")
	if err != nil {
		t.Fatal(err)
	}
	var rows []Prediction
	for _, length := range []int{3999, 4000, 3} {
		rows = append(rows, Prediction{Pred: "x", Answers: []string{"x"}, Length: &length})
	}
	rows[2].Pred = "y"
	res, err := Score(LongBenchE, d, rows, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(res.CompatJSON())
	if diff := cmp.Diff(`{"0-4k":50,"4-8k":100,"8k+":null}`, string(raw)); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestPercentagesRoundAsPythonAndNumPy(t *testing.T) {
	// 2.675 is below the half in binary, so that Python gives 2.67 and NumPy,
	// which multiplies first, 2.68.
	if got := round2(2.675); got != 2.67 {
		t.Error("round2:", got)
	}
	if got := meanPercent([]float64{0.02675}); got != 2.68 {
		t.Error("meanPercent:", got)
	}
	x := make([]float64, 300)
	sum := 0.0
	for i := range x {
		x[i] = 1 / float64(i+1)
		sum += x[i]
	}
	if got := pairwiseSum(x); math.Abs(got-sum) > 1e-12 {
		t.Error("pairwise sum:", got)
	}
}

func TestAverages(t *testing.T) {
	report := &Report{Benchmark: LongBench}
	for i, d := range Datasets(LongBench) {
		report.Results = append(report.Results, Result{Dataset: d, Compat: float64(i), Corrected: float64(i) + 1})
	}
	a := report.Averages()
	want := []Average{
		{"single-doc QA", 1.5, 2.5, 4, 0}, {"multi-doc QA", 5.5, 6.5, 4, 0}, {"summarization", 9.5, 10.5, 4, 0},
		{"few-shot learning", 13.5, 14.5, 4, 0}, {"synthetic tasks", 17, 18, 3, 0}, {"code completion", 19.5, 20.5, 2, 0},
	}
	if diff := cmp.Diff(want, a.Categories); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Average{"overall", 10, 11, 21, 0}, a.Overall); diff != "" {
		t.Error(diff)
	}
	// 14 English and 5 Chinese datasets, and the 2 of code in both.
	if en, zh := a.Languages[0].Datasets, a.Languages[1].Datasets; en != 16 || zh != 7 {
		t.Errorf("%d English and %d Chinese datasets", en, zh)
	}
	report.Results = slices.DeleteFunc(report.Results, func(r Result) bool { return r.Dataset.Category == Code })
	if a = report.Averages(); a.Overall.Missing != 2 || !math.IsNaN(a.Categories[5].Compat) {
		t.Errorf("missing datasets are not counted: %+v", a)
	}
}

func TestReadInputsRefusesBadRows(t *testing.T) {
	const good = `{"_id":"1","input":"q","context":"c","answers":["a"],"length":3,"dataset":"qasper","language":"en"}`
	d, err := Lookup(LongBench, "qasper")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ data, want string }{
		"no rows":             {"\n", "f has no rows"},
		"a duplicate":         {good + "\n" + good, "f:2: _id 1 was on line 1"},
		"no id":               {`{"context":"c","answers":["a"]}`, `no "_id"`},
		"a predictions file":  {`{"_id":"1","pred":"x","answers":["a"]}`, `no "context"`},
		"no answers":          {`{"_id":"1","context":"c"}`, `no "answers"`},
		"another language":    {strings.Replace(good, `"en"`, `"zh"`, 1), "do not mix languages"},
		"another dataset":     {strings.Replace(good, `"qasper"`, `"lcc"`, 1), "row of dataset"},
		"answers of one text": {`{"_id":"1","context":"c","answers":"a"}`, "f:1:"},
	} {
		t.Run(name, func(t *testing.T) {
			err := ReadInputs(strings.NewReader(tt.data), "f", d, func(Input) error { return nil })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v does not mention %q", err, tt.want)
			}
		})
	}
	if _, _, err := OpenInputs(fstest.MapFS{}, LongBenchE, d); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "qasper_e.jsonl") {
		t.Error("missing file:", err)
	}
}

func TestPromptsComeFromTheBenchmarksFiles(t *testing.T) {
	files := fstest.MapFS{
		"config/" + PromptFile: file(`{"qasper":"{{x}} Text: {context}\nQ: {input}\nA:"}`),
		"config/" + MaxLenFile: file(`{"qasper":128}`),
	}
	p, err := LoadPrompts(files)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := Lookup(LongBench, "qasper")
	text, limit, err := p.Prompt(d, Input{Context: "{input} stays", Input: "why?"})
	if diff := cmp.Diff("{x} Text: {input} stays\nQ: why?\nA:", text); diff != "" || limit != 128 || err != nil {
		t.Error(diff, limit, err)
	}
	lcc, _ := Lookup(LongBench, "lcc")
	if _, _, err := p.Prompt(lcc, Input{}); err == nil {
		t.Error("a dataset without prompt has one")
	}
	for name, tt := range map[string]struct{ prompt, maxLen string }{
		"an unknown field": {`{"qasper":"{question}"}`, `{"qasper":1}`},
		"a single brace":   {`{"qasper":"} {context}"}`, `{"qasper":1}`},
		"no tokens at all": {`{"qasper":"{context}"}`, `{"qasper":0}`},
		"no JSON":          {`{`, `{"qasper":1}`},
	} {
		if _, err := LoadPrompts(fstest.MapFS{PromptFile: file(tt.prompt), MaxLenFile: file(tt.maxLen)}); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := LoadPrompts(fstest.MapFS{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error("missing files:", err)
	}
}

// letters is a tokenizer with one token a character.
type letters struct{}

func (letters) Encode(text string) []int32 { return []int32(text) }

func (letters) Decode(ids []int32) string { return string(ids) }

func TestTruncateCutsTheMiddle(t *testing.T) {
	for name, tt := range map[string]struct {
		max       int
		want      string
		truncated bool
	}{
		"a prompt that fits is left alone":  {6, "abcdef", false},
		"half from each end":                {4, "abef", true},
		"an odd window loses its odd token": {5, "abef", true},
		"no window leaves nothing":          {1, "", true},
	} {
		if got, truncated := Truncate(letters{}, "abcdef", tt.max); got != tt.want || truncated != tt.truncated {
			t.Errorf("%s: %q, %v", name, got, truncated)
		}
	}
}

func TestReadEnQA(t *testing.T) {
	data := `{"id":0,"context":"a novel","input":"who?","answer":["X","Y"],"options":[]}
{"id":1,"context":"a novel","input":"who?","answer":"Z"}`
	var got []string
	err := ReadEnQA(strings.NewReader(data), "f", func(in Input) error {
		got = append(got, fmt.Sprint(in.ID, in.Answers))
		return nil
	})
	if diff := cmp.Diff([]string{"0[X Y]", "1[Z]"}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for name, bad := range map[string]string{
		"no id":        `{"context":"c","input":"q","answer":["X"]}`,
		"no answer":    `{"id":1,"context":"c","input":"q"}`,
		"no question":  `{"id":1,"context":"c","answer":["X"]}`,
		"a duplicate":  data + "\n" + data,
		"no rows":      "",
		"a null id":    `{"id":null,"context":"c","input":"q","answer":["X"]}`,
		"a wrong type": `{"id":1,"context":["c"],"input":"q","answer":["X"]}`,
	} {
		if ReadEnQA(strings.NewReader(bad), "f", func(Input) error { return nil }) == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func FuzzReadPredictions(f *testing.F) {
	f.Add([]byte(`{"pred":"x","answers":["x"],"all_classes":["a"],"length":5}`))
	f.Add([]byte("{\"pred\":null}\n\n{}"))
	d := Datasets(LongBench)[0]
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := ReadPredictions(strings.NewReader(string(data)), "f", d)
		if err == nil && (len(rows) == 0 || slices.ContainsFunc(rows, func(p Prediction) bool { return len(p.Answers) == 0 || p.Line == 0 })) {
			t.Errorf("accepted %q as %+v", data, rows)
		}
	})
}

func FuzzReadInputs(f *testing.F) {
	f.Add([]byte(`{"_id":"1","input":"q","context":"c","answers":["a"],"length":3}`))
	f.Add([]byte(`{"id":0,"context":"a novel","input":"who?","answer":"X"}`))
	d := Datasets(LongBench)[0]
	f.Fuzz(func(t *testing.T, data []byte) {
		check := func(in Input) error {
			if in.ID == "" || in.Context == "" || len(in.Answers) == 0 {
				t.Errorf("accepted %+v", in)
			}
			return nil
		}
		_ = ReadInputs(strings.NewReader(string(data)), "f", d, check)
		_ = ReadEnQA(strings.NewReader(string(data)), "f", check)
	})
}

func FuzzFill(f *testing.F) {
	f.Add("{{x}} {context} {input}", "c", "i")
	f.Fuzz(func(t *testing.T, format, context, input string) {
		if out, err := fill(format, "", ""); err == nil {
			if long, err := fill(format, context, input); err != nil || len(long) < len(out) {
				t.Errorf("%q: %q, %v", format, long, err)
			}
		}
	})
}

func TestTheBucketsOfLongBenchEHoldAllItsSamples(t *testing.T) {
	for _, d := range Datasets(LongBenchE) {
		n := 0
		for _, b := range Buckets() {
			n += d.BucketRows(b)
		}
		if n != d.RowsE {
			t.Errorf("%s has %d samples in its buckets, %d in all", d.Name, n, d.RowsE)
		}
	}
	if d, _ := Lookup(LongBench, "narrativeqa"); d.BucketRows(Short) != 0 {
		t.Errorf("narrativeqa is not part of LongBench-E")
	}
}
