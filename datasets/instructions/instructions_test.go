package instructions

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
)

func TestQuestionsAreParsedHoweverTheyAreNumbered(t *testing.T) {
	two := []string{"What is A?", "What is B?"}
	for name, tt := range map[string]struct {
		reply string
		want  []string
	}{
		"as asked for":                        {"1: What is A?\n2: What is B?", two},
		"with dots":                           {"1. What is A?\n2. What is B?\n", two},
		"with parentheses":                    {"(1) What is A?\n2) What is B?", two},
		"with brackets":                       {"[1] What is A?\n[2]: What is B?", two},
		"as questions":                        {"Question 1: What is A?\nQ2: What is B?", two},
		"in bold":                             {"**1.** What is A?\n**2: What is B?**", two},
		"the question in bold":                {"1. **What is A?**\n2: *What is B?*", two},
		"as a heading or quote":               {"### 1. What is A?\n> 2. What is B?", two},
		"in Chinese":                          {"1：甲是什么？\n２、乙是什么？\n问题3：丙是什么？\n（4）丁是什么？", []string{"甲是什么？", "乙是什么？", "丙是什么？", "丁是什么？"}},
		"after a preamble, before a farewell": {"Sure! Here are 2 questions:\n\n1: What is A?\n\n2: What is B?\n\nI hope these help.", two},
		"over several lines":                  {"1: What\nis A?\n2: What is B?", two},
		"on the line after the number":        {"1:\nWhat is A?\n\n2:\n\nWhat is B?", two},
		"repeated":                            {"1: What is A?\n2: What is A?\n3: What is B?", two},
		"with quotes":                         {"1: \"What is A?\"\n2: “What is B?”", two},
		"quotes inside stay":                  {"1: \"A\" and \"B\"?", []string{`"A" and "B"?`}},
		"with Windows line ends":              {"1: What is A?\r\n2: What is B?\r\n", two},
		"a number in the question":            {"1: In 1998: what?\n2: Why 3.5?", []string{"In 1998: what?", "Why 3.5?"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseQuestions(tt.reply)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for reply, want := range map[string]error{
		"":                             ErrNoQuestions,
		"What is A?":                   ErrNoQuestions,
		"1:\n2:\n":                     ErrNoQuestions,
		"I'm sorry, but I can't help.": ErrRefused,
		"很抱歉，我无法回答。":                   ErrRefused,
	} {
		if _, err := ParseQuestions(reply); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", reply, err, want)
		}
	}
}

func TestRefusalsAreRecognised(t *testing.T) {
	for text, want := range map[string]bool{
		"I'm sorry, but I can't assist with that.": true,
		"I’m really sorry — no.":                   true,
		"Sorry, I cannot answer.":                  true,
		"  \"I cannot find it.":                    true,
		"As an AI language model, I":               true,
		"Unfortunately, I am not able to":          true,
		"对不起，我不能":                                  true,
		"作为一个人工智能":                                 true,
		"The text says “I'm sorry” twice.":         false,
		"Sorry is the title of the song.":          false,
		"I can say that it returns an error.":      false,
		"As an airline, it":                        false,
		"":                                         false,
	} {
		if got := Refused(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func FuzzParseQuestions(f *testing.F) {
	for _, s := range []string{"1: a\n2: b", "", "**1.** **x**", "1：甲", "1)\n\n\nx", "Q1:Q2:", "1: \"\"", "１２. x\n\ny", "1: **"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, reply string) {
		questions, err := ParseQuestions(reply)
		if (err == nil) == (len(questions) == 0) {
			t.Fatalf("%d questions and error %v", len(questions), err)
		}
		for i, q := range questions {
			if strings.TrimSpace(q) != q || q == "" || strings.Contains(q, "\n") || slices.Contains(questions[:i], q) {
				t.Fatalf("question %q of %q", q, questions)
			}
		}
	})
}

const goDocument = `package bits

// Reverse returns the value of x with its bits in reversed order.
//
// It runs in constant time.
func Reverse(x uint, more ...int) uint { return x }

// Parse reads a number.
// It may fail, e.g. on letters.
func Parse(s string) (n uint, err error) {
	return 0, nil
}

// Sizes in bits.
const (
	UintSize = 32 << 1 // of uint
	Other    = "x"
)

// Pair is two of them.
type Pair struct{ A, B uint }`

func TestOfflineTeacherReadsGoExactly(t *testing.T) {
	got := map[string]string{}
	for _, q := range questionsAbout(datasets.Document{Text: goDocument, Kind: "go"}, "en") {
		got[q.question] = q.answer
		if q.needle != "" && !strings.Contains(goDocument, q.needle) {
			t.Errorf("%q: the needle %q is not in the document", q.question, q.needle)
		}
		if q.kind == "value" && !strings.Contains(q.needle, q.answer) {
			t.Errorf("%q: the needle %q does not hold the answer", q.question, q.needle)
		}
	}
	want := map[string]string{
		"Which package is this source from?":                                             "bits",
		"What is the signature of Reverse?":                                              "func Reverse(x uint, more ...int) uint",
		"How many parameters does Reverse take?":                                         "2",
		"What does the documentation of Reverse say?":                                    "Reverse returns the value of x with its bits in reversed order.\n\nIt runs in constant time.",
		"Name the function that returns the value of x with its bits in reversed order.": "Reverse",
		"What is the signature of Parse?":                                                "func Parse(s string) (n uint, err error)",
		"How many parameters does Parse take?":                                           "1",
		"What does the documentation of Parse say?":                                      "Parse reads a number.\nIt may fail, e.g. on letters.",
		"Name the function that reads a number.":                                         "Parse",
		"What is the value of UintSize?":                                                 "32 << 1",
		"What is the value of Other?":                                                    `"x"`,
		"What does the documentation of the type Pair say?":                              "Pair is two of them.",
		"How many fields does the type Pair have?":                                       "2",
		"Which functions and types are declared here, in order?":                         "Reverse, Parse, Pair",
		"How many functions and types are declared here?":                                "3",
		"Which functions here return an error?":                                          "Parse",
		"Summarize the declarations in one sentence each.":                               "Reverse: Reverse returns the value of x with its bits in reversed order.\nParse: Parse reads a number.\nPair: Pair is two of them.",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOfflineTeacherQuotesTextInBothLanguages(t *testing.T) {
	for lang, text := range map[string]string{
		"en": "The harbour froze in 1709. Ships waited outside for weeks.\n\nMerchants petitioned the governor about warehouses. He answered nobody.",
		"zh": "港口在1709年结冰了。船只在外面等待了好几个星期。\n\n商人们向总督请愿要求修建仓库。总督没有回答任何人的问题。",
	} {
		kinds := map[string]bool{}
		for _, q := range questionsAbout(datasets.Document{Text: text, Lang: lang}, lang) {
			kinds[q.kind] = true
			for _, line := range strings.Split(q.answer, "\n") {
				if q.kind != "count" && !strings.Contains(text, line) {
					t.Errorf("%s: %q is answered by %q, which is not in the text", lang, q.question, line)
				}
			}
			if q.needle != "" && !strings.Contains(text, q.needle) {
				t.Errorf("%s: the needle %q is not in the text", lang, q.needle)
			}
		}
		for _, kind := range []string{"sentence", "continue", "number", "opening", "outline", "paragraph", "count"} {
			if !kinds[kind] {
				t.Errorf("%s: no question of kind %s", lang, kind)
			}
		}
	}
}

func documents(n int) iter.Seq2[datasets.Document, error] {
	return func(yield func(datasets.Document, error) bool) {
		for i := range n {
			d := datasets.Document{ID: strconv.Itoa(i), Text: strings.ReplaceAll(goDocument, "bits", fmt.Sprintf("p%d", i)), Kind: "go", Lang: "en", Split: datasets.SplitTrain, Tokens: 90}
			if i%4 == 0 {
				d.Split = datasets.SplitHeldOut
			}
			if i%10 == 0 {
				d.Lang = "zh"
			}
			if !yield(d, nil) {
				return
			}
		}
	}
}

func instances(t *testing.T, m Maker, n int) ([]datasets.Instance, datasets.InstructionsReport, error) {
	t.Helper()
	var all []datasets.Instance
	report, err := m.Make(context.Background(), documents(n), 0, func(i datasets.Instance) error {
		all = append(all, i)
		return nil
	})
	return all, report, err
}

func TestOfflineInstancesAreCompleteAndSayWhatTheyAre(t *testing.T) {
	all, report, err := instances(t, Maker{Teacher: Offline{}, Params: datasets.InstructionsParams{PerDocument: 3}, Count: func(s string) int { return len(s) }}, 40)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 120 || report.Instances != 120 || report.HeldOut != 30 || report.Langs["zh"] != 12 || len(report.Tasks) != 4 {
		t.Errorf("%d instances, %+v", len(all), report)
	}
	if report.Teacher != "offline rules, not a language model" {
		t.Errorf("the teacher is called %q", report.Teacher)
	}
	ids := map[int]bool{}
	for _, i := range all {
		if err := i.Check(); err != nil {
			t.Error(err)
		}
		user, answer := i.Messages[0].Content, i.Messages[1].Content
		if !strings.HasPrefix(user, "package p"+i.Meta.Document+"\n") || !strings.Contains(user, "\n\n") || answer == "" {
			t.Errorf("document %s: %q, %q", i.Meta.Document, user, answer)
		}
		if ids[i.Meta.ID] || i.Meta.Teacher != OfflineDescription || i.Meta.Kind == "" || i.Meta.AnswerTokens != len(answer) || i.Meta.DocumentTokens != 90 {
			t.Errorf("got %+v", i.Meta)
		}
		ids[i.Meta.ID] = true
	}
}

func TestInstancesDoNotDependOnConcurrencyOrShards(t *testing.T) {
	p := datasets.InstructionsParams{PerDocument: 2, Seed: 5}
	one, _, err := instances(t, Maker{Teacher: Offline{}, Params: p}, 20)
	if err != nil {
		t.Fatal(err)
	}
	many, _, err := instances(t, Maker{Teacher: Offline{}, Params: p, Concurrency: 8}, 20)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(one, many); diff != "" {
		t.Error(diff)
	}
	var second []datasets.Instance
	m := Maker{Teacher: Offline{}, Params: p}
	skipTen := func(yield func(datasets.Document, error) bool) {
		n := 0
		for d, err := range documents(20) {
			if n++; n > 10 && !yield(d, err) {
				return
			}
		}
	}
	if _, err := m.Make(context.Background(), skipTen, 10, func(i datasets.Instance) error { second = append(second, i); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(one[20:], second); diff != "" {
		t.Error(diff)
	}
	other, _, err := instances(t, Maker{Teacher: Offline{}, Params: datasets.InstructionsParams{PerDocument: 2, Seed: 6}}, 20)
	if err != nil {
		t.Fatal(err)
	}
	if cmp.Equal(one, other) {
		t.Error("another seed gives the same instances")
	}
}

// script is a teacher that gives replies in turn.
type script struct {
	replies []datasets.TeacherReply
	errs    []error
	asked   []datasets.TeacherRequest
}

func (s *script) Describe() string { return "a script" }

func (s *script) Ask(_ context.Context, r datasets.TeacherRequest) (datasets.TeacherReply, error) {
	n := len(s.asked)
	s.asked = append(s.asked, r)
	if n < len(s.errs) && s.errs[n] != nil {
		return datasets.TeacherReply{}, s.errs[n]
	}
	return s.replies[min(n, len(s.replies)-1)], nil
}

func TestUnusableRepliesAreAskedAnewAndCounted(t *testing.T) {
	said := func(texts ...string) (replies []datasets.TeacherReply) {
		for _, text := range texts {
			replies = append(replies, datasets.TeacherReply{Text: text, InputTokens: 10, OutputTokens: 1})
		}
		return replies
	}
	lost := errors.New("connection lost")
	for name, tt := range map[string]struct {
		teacher         script
		failed, retried map[string]int
		instances       int
		err             error
	}{
		"a good one":                   {script{replies: said("1: Why?", "Because.")}, nil, nil, 1, nil},
		"a refused proposal":           {script{replies: said("I'm sorry, I can't.", "1: Why?", "Because.")}, nil, map[string]int{"refused": 1}, 1, nil},
		"a refused answer":             {script{replies: said("1: Why?", "I cannot say.", "1: Why?", "Because.")}, nil, map[string]int{"refused": 1}, 1, nil},
		"a proposal without questions": {script{replies: said("Well.", "1: Why?", "Because.")}, nil, map[string]int{"no question": 1}, 1, nil},
		"an empty answer":              {script{replies: said("1: Why?", " ", "1: Why?", "Because.")}, nil, map[string]int{"empty": 1}, 1, nil},
		"a cut answer":                 {script{replies: []datasets.TeacherReply{{Text: "1: Why?"}, {Text: "Bec", Finish: "length"}, {Text: "1: Why?"}, {Text: "Because."}}}, nil, map[string]int{"cut off": 1}, 1, nil},
		"only refusals":                {script{replies: said("I cannot.")}, map[string]int{"refused": 1}, map[string]int{"refused": 2}, 0, nil},
		"a lost connection":            {script{replies: said("1: Why?"), errs: []error{nil, lost}}, nil, nil, 0, lost},
	} {
		t.Run(name, func(t *testing.T) {
			all, report, err := instances(t, Maker{Teacher: &tt.teacher}, 1)
			if !errors.Is(err, tt.err) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.failed, report.Failed); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.retried, report.Retried); diff != "" {
				t.Error(diff)
			}
			if len(all) != tt.instances {
				t.Errorf("%d instances, want %d", len(all), tt.instances)
			}
			if tt.teacher.replies[0].InputTokens > 0 && tt.err == nil && report.InputTokens != int64(10*len(tt.teacher.asked)) {
				t.Errorf("%d input tokens of %d requests", report.InputTokens, len(tt.teacher.asked))
			}
			samples := map[int]bool{}
			for _, r := range tt.teacher.asked {
				if r.Kind == datasets.RequestPropose {
					if samples[r.Sample] {
						t.Errorf("sample %d was asked twice", r.Sample)
					}
					samples[r.Sample] = true
				}
			}
		})
	}
}

// asker notes each request and replies with its key.
type asker struct {
	mu   sync.Mutex
	keys map[string][]string // documents and instances by request
}

func (a *asker) Describe() string { return "asker" }

func (a *asker) Ask(_ context.Context, r datasets.TeacherRequest) (datasets.TeacherReply, error) {
	key, err := RequestKey("m", nil, r.Messages, r.Sample)
	if err != nil {
		return datasets.TeacherReply{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys[key] = append(a.keys[key], fmt.Sprintf("%s, copy %d, %s", r.Document.ID, r.Document.Copy, r.Kind))
	if r.Kind == datasets.RequestPropose {
		return datasets.TeacherReply{Text: "1: What of " + key + "?"}, nil
	}
	return datasets.TeacherReply{Text: "It is " + key}, nil
}

func TestCopiesAreAskedAboutIndependently(t *testing.T) {
	a := &asker{keys: map[string][]string{}}
	m := Maker{Teacher: a, Params: datasets.InstructionsParams{PerDocument: 2, Tasks: []datasets.TaskType{datasets.TaskSummary}}}
	questions := map[string]bool{}
	n := 0
	copies := func(yield func(datasets.Document, error) bool) {
		for c := range 4 {
			if !yield(datasets.Document{ID: "long", Text: "A long text.", Copy: c, Split: datasets.SplitTrain}, nil) {
				return
			}
		}
	}
	if _, err := m.Make(t.Context(), copies, 0, func(i datasets.Instance) error {
		n++
		questions[i.Messages[len(i.Messages)-2].Content] = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for key, from := range a.keys {
		if len(from) > 1 {
			t.Errorf("request %s was made for %q", key[:8], from)
		}
	}
	if n != 8 || len(questions) != n {
		t.Errorf("%d instances with %d different questions", n, len(questions))
	}
}

func TestCancellingEndsTheStage(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var written atomic.Int32
	m := Maker{Teacher: Offline{}, Concurrency: 4}
	_, err := m.Make(ctx, documents(100000), 0, func(datasets.Instance) error {
		if written.Add(1) == 5 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || written.Load() > 50 {
		t.Errorf("%d written, %v", written.Load(), err)
	}
	full := errors.New("disk full")
	if _, err := m.Make(context.Background(), documents(100), 0, func(datasets.Instance) error { return full }); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

func TestPrompts(t *testing.T) {
	p, err := NewPrompts(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range datasets.TaskTypes {
		for _, lang := range []string{"en", "zh"} {
			d := datasets.Document{Text: "THE DOCUMENT", Lang: lang}
			messages, err := p.Propose(d, task, 5)
			if err != nil {
				t.Fatal(err)
			}
			text := messages[0].Content
			if strings.Count(text, "THE DOCUMENT") != 1 || !strings.Contains(text, "5") || (datasetsLang(text) != lang) {
				t.Errorf("%s/%s: %q", task, lang, text)
			}
			answer, err := p.Answer(d, "Why?")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff("THE DOCUMENT\n\nWhy?", answer[0].Content); diff != "" {
				t.Error(diff)
			}
		}
	}
	for want, replaced := range map[string]map[string]string{
		"there is no \"propose/poem/en\"": {"propose/poem/en": "x"},
		"unclosed":                        {"answer/en": "{{"},
		"Authors":                         {"answer/en": "{{.Authors}}"},
	} {
		if _, err := NewPrompts(replaced); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v", replaced, err)
		}
	}
	p, err = NewPrompts(map[string]string{"answer/en": "Q: {{.Question}}"})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := p.Answer(datasets.Document{Lang: "en"}, "Why?"); err != nil || m[0].Content != "Q: Why?" {
		t.Errorf("got %v, %v", m, err)
	}
}

// datasetsLang tells the language of a prompt by its instruction.
func datasetsLang(text string) string {
	if strings.Contains(text, "文本") {
		return "zh"
	}
	return "en"
}

func TestRequestKeysNameTheWholeRequest(t *testing.T) {
	key := func(model string, params any, text string, sample int) string {
		k, err := RequestKey(model, params, []datasets.Message{{Role: datasets.RoleUser, Content: text}}, sample)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	type params struct {
		Temperature float64 `json:"temperature"`
	}
	base := key("m", params{1}, "x", 0)
	// This key must never change: journals of paid requests go by it.
	if want := "de175791189363215d16b3750833dba010420e183c62cd8fcec6247d4050a069"; base != want {
		t.Errorf("got %s, want %s", base, want)
	}
	for name, other := range map[string]string{
		"model": key("n", params{1}, "x", 0), "parameters": key("m", params{.5}, "x", 0), "messages": key("m", params{1}, "y", 0), "sample": key("m", params{1}, "x", 1),
	} {
		if other == base {
			t.Errorf("the key does not depend on the %s", name)
		}
	}
	if key("m", map[string]any{"temperature": 1}, "x", 0) != base {
		t.Error("the key depends on how parameters are represented")
	}
}

func TestSuitesAreNested(t *testing.T) {
	five, err := Prefix(10000, 5000, 1)
	if err != nil {
		t.Fatal(err)
	}
	nine, err := Prefix(10000, 9000, 1)
	if err != nil {
		t.Fatal(err)
	}
	in := map[int]bool{}
	for _, i := range nine {
		in[i] = true
	}
	for _, i := range five {
		if !in[i] {
			t.Fatalf("instance %d is in the 5k suite only", i)
		}
	}
	if len(five) != 5000 || !slices.IsSorted(five) {
		t.Error("a suite is not in order")
	}
	if none, err := Prefix(10, 0, 1); err != nil || len(none) != 0 {
		t.Error(none, err)
	}
	if _, err := Prefix(10, 11, 1); err == nil {
		t.Error("11 of 10 were given")
	}
}

func TestMixturesFollowTheirWeights(t *testing.T) {
	parts, err := Mixture([]int{100, 200, 50}, []float64{1, 2, 1}, 101, 3)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{25, 51, 25}, []int{len(parts[0]), len(parts[1]), len(parts[2])}); diff != "" {
		t.Error(diff)
	}
	for name, f := range map[string]func() ([][]int, error){
		"a part too small":  func() ([][]int, error) { return Mixture([]int{1, 100}, []float64{1, 1}, 50, 0) },
		"only zero weights": func() ([][]int, error) { return Mixture([]int{1}, []float64{0}, 1, 0) },
		"a negative weight": func() ([][]int, error) { return Mixture([]int{1}, []float64{-1}, 1, 0) },
		"no parts":          func() ([][]int, error) { return Mixture(nil, nil, 1, 0) },
	} {
		if _, err := f(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzOffline(f *testing.F) {
	f.Add(goDocument, "go", "en")
	f.Add("One sentence here. And 2 more!\n\nEnd of it.", "text", "en")
	f.Add("第一句话在这里。第二句有12个字！", "text", "zh")
	f.Fuzz(func(t *testing.T, text, kind, lang string) {
		for _, q := range questionsAbout(datasets.Document{Text: text, Kind: kind}, lang) {
			if q.needle != "" && !strings.Contains(text, q.needle) {
				t.Fatalf("the needle %q of %q is not in the document", q.needle, q.question)
			}
		}
	})
}
