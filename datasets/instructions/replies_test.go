package instructions

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
)

func TestQuestionsAreFoundInUnusualLists(t *testing.T) {
	two := []string{"What A?", "What B?"}
	for reply, want := range map[string][]string{
		"3.5 million people live there; my questions:\n1. What A?\n2. What B?":            two,
		"1. What A? 2. What B? 3. What C?":                                                {"What A?", "What B?", "What C?"},
		"1. Summarize it. 2. What B?":                                                     {"Summarize it.", "What B?"},
		"### Question 1\nWhat A?\n### Question 2\nWhat B?":                                two,
		"**Question 1**\nWhat A?\n\n**Question 2**\nWhat B?":                              two,
		"**Question 1:**\nWhat A?\n\n**Question 2:**\nWhat B?":                            two,
		"Question #1: What A?\nQuestion #2: What B?":                                      two,
		"1 - What A?\n2 - What B?":                                                        two,
		"① What A?\n② What B?":                                                            two,
		"一、什么A？\n二、什么B？":                                                                  {"什么A？", "什么B？"},
		"问题一：什么A？\n问题二：什么B？":                                                              {"什么A？", "什么B？"},
		"第1个问题：什么A？\n第2个问题：什么B？":                                                          {"什么A？", "什么B？"},
		"第一题：什么A？\n第二题：什么B？":                                                              {"什么A？", "什么B？"},
		"1：什么A？2：什么B？":                                                                    {"什么A？", "什么B？"},
		"Q1. What A?\nA1. The answer.\nQ2. What B?\nAnswer 2: No.":                        two,
		"1. What happened in\n1945. And why?\n2. What B?":                                 {"What happened in 1945. And why?", "What B?"},
		"1. What is the value of\n3.14 in the text?\n2. What B?":                          {"What is the value of 3.14 in the text?", "What B?"},
		"1. What was in chapter\n12. And why?\n2. What B?":                                {"What was in chapter 12. And why?", "What B?"},
		"1. What A?\n   - hint one\n2. What B?":                                           {"What A? - hint one", "What B?"},
		"1. What A?\n2. What B?\nLet me know if you need more!":                           two,
		"1. What A?\n2. Sum it up.\nI hope these help.":                                   {"What A?", "Sum it up."},
		"1. What A?\n2. What B?\n（以上问题均来自原文）":                                             two,
		"- What A?\n- What B?":                                                            two,
		"<question>1: What A?</question>\n<question>2: What B?</question>":                two,
		"<question id=\"1\">\nWhat\nA?\n</question><question id=\"2\">What B?</question>": two,
		"| 1 | What A? |\n| 2 | What B? |":                                                two,
		"1\\. What A?\n2\\. What B?":                                                      two,
		"```\n1: What A?\n2: What B?\n```":                                                two,
		"10:30 was when\n1: What A?\n2: What B?":                                          two,
		"(a) What A?\n(b) What B?":                                                        two,
		"1. What A?\n1. What B?":                                                          two,
		"1. What A?\n3. What B?":                                                          two,
		`["What A?", "What B?"]`:                                                          two,
		"```json\n[\"1. What A?\", \"2. What B?\"]\n```":                                  two,
		`{"questions": [{"question": "What A?"}, {"question": "What B?"}]}`:               two,
		`{"1": "What A?", "2": "What B?"}`:                                                two,
		"１. What A?\n２. What B?":                                                          two,
		"十一、不是\n一、什么A？\n二、什么B？":                                                           {"什么A？", "什么B？"},
		"1. What A?\n2. I'm sorry, I cannot think of more":                                {"What A?"},
		"Here are 3 questions about 1. FC Köln\n1. What A?\n2. What B?":                   two,
		"1. Which holds: (a) x, (b) y?\n2. What B?":                                       {"Which holds: (a) x, (b) y?", "What B?"},
		"1. Which of these?\n(a) x\n(b) y\n2. What B?":                                    {"Which of these?", "What B?"},
		"1. Rank by version 2.0 and 3.0. Why?\n2. What B?":                                {"Rank by version 2.0 and 3.0. Why?", "What B?"},
	} {
		got, err := ParseQuestions(reply)
		if err != nil {
			t.Errorf("%q: %v", reply, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", reply, diff)
		}
	}
	for reply, want := range map[string]error{
		"I'm sorry, but as an AI I cannot. I can:\n1. Summarise\n2. Translate": ErrRefused,
		"1. I'm sorry, I cannot answer\n":                                      ErrRefused,
		"3.5 million people live there":                                        ErrNoQuestions,
		"10:30 was when it began":                                              ErrNoQuestions,
		"- What A?":                                                            ErrNoQuestions,
		`{"error": "none"}`:                                                    ErrNoQuestions,
		`[1, 2]`:                                                               ErrNoQuestions,
	} {
		if got, err := ParseQuestions(reply); !errors.Is(err, want) {
			t.Errorf("%q: %q, %v, want %v", reply, got, err, want)
		}
	}
}

func TestReasoningIsRemovedAndCounted(t *testing.T) {
	teacher := &script{replies: []datasets.TeacherReply{
		{Text: "<think>\n1. Should I ask why not?\n</think>\n\n1. Why?"}, {Text: "hm, so…</think>Because."},
		{Text: "1. Why?"}, {Text: "<think>without an end"}, {Text: "1. Why?"}, {Text: "Be\x00cause."}, {Text: "1. Why?"}, {Text: "Because."},
	}}
	m := Maker{Teacher: teacher, Params: datasets.InstructionsParams{Attempts: 3}}
	var got []datasets.Message
	report, err := m.Make(t.Context(), documents(2), 0, func(i datasets.Instance) error { got = append(got, i.Messages...); return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range got {
		if strings.Contains(message.Content, "think>") || strings.Contains(message.Content, "why not") || strings.Contains(message.Content, "\x00") {
			t.Errorf("%q", message.Content)
		}
	}
	if len(got) != 4 || got[1].Content != "Because." || !strings.HasSuffix(got[0].Content, "\n\nWhy?") {
		t.Errorf("%d messages: %q", len(got), got)
	}
	if report.Reasoning != 3 {
		t.Errorf("%d replies with reasoning, want 3", report.Reasoning)
	}
	if diff := cmp.Diff(map[string]int{"cut off": 1, "control characters": 1}, report.Retried); diff != "" {
		t.Error(diff)
	}
}

func TestChineseDocumentsGetChinesePromptsHoweverTheyAreTagged(t *testing.T) {
	for lang, want := range map[string]string{
		"zh": "zh", "zh-CN": "zh", "zh_TW": "zh", "ZH": "zh", "zh-Hant-HK": "zh", "cmn": "zh", "Chinese": "zh", "en": "en", "en-GB": "en", "": "en", "zha": "en", "de": "en",
	} {
		if got := promptLang(lang); got != want {
			t.Errorf("%q: %s, want %s", lang, got, want)
		}
	}
	zh := func(yield func(datasets.Document, error) bool) {
		yield(datasets.Document{ID: "1", Text: "港口在1709年结冰了。", Lang: "zh-CN", Split: datasets.SplitTrain}, nil)
	}
	teacher := &script{replies: []datasets.TeacherReply{{Text: "1：为什么？"}, {Text: "因为。"}}}
	m := Maker{Teacher: teacher}
	if report, err := m.Make(t.Context(), zh, 0, func(datasets.Instance) error { return nil }); err != nil || report.Langs["zh"] != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	if teacher.asked[0].Lang != "zh" || !strings.ContainsAny(teacher.asked[0].Messages[0].Content, "问题任务") {
		t.Errorf("asked %q", teacher.asked[0].Messages)
	}
}

func TestPromptsAreWrittenEditedAndReadBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "prompts")
	if err := WritePrompts(dir); err != nil {
		t.Fatal(err)
	}
	builtin, err := NewPrompts(nil)
	if err != nil {
		t.Fatal(err)
	}
	digest := func() string {
		t.Helper()
		read, err := ReadPrompts(dir)
		if err != nil {
			t.Fatal(err)
		}
		p, err := NewPrompts(read)
		if err != nil {
			t.Fatal(err)
		}
		return p.Digest()
	}
	if digest() != builtin.Digest() {
		t.Error("templates as written out are other templates than the built-in ones")
	}
	if err := WritePrompts(dir); err == nil {
		t.Error("templates that were there were overwritten")
	}
	path := filepath.Join(dir, "propose", "summary", "en.txt")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(path, "{{.Document}}\n\nSum up in {{.Questions}} ways.\n")
	if digest() == builtin.Digest() {
		t.Error("an edited template has the built-in ones' digest")
	}
	write(path, "{{.Nothing}}")
	if _, err := ReadPrompts(dir); err == nil || !strings.Contains(err.Error(), "propose/summary/en") {
		t.Errorf("a template with an unknown field: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "propose", "summary.txt"), "x")
	if _, err := ReadPrompts(dir); err == nil || !strings.Contains(err.Error(), `"propose/summary"`) {
		t.Errorf("a template of no use: %v", err)
	}
	if _, err := ReadPrompts(t.TempDir()); err == nil || !strings.Contains(err.Error(), "starter prompts") {
		t.Errorf("an empty directory: %v", err)
	}
}

// crowd is a teacher that counts who asks it at once. An ask waits until as many do as are wanted.
type crowd struct {
	Offline
	want       int
	full       chan struct{} // closed when want ask at once
	once       sync.Once
	mu         sync.Mutex
	asking     int
	overfilled bool
}

func (c *crowd) Ask(ctx context.Context, r datasets.TeacherRequest) (datasets.TeacherReply, error) {
	c.mu.Lock()
	c.asking++
	c.overfilled = c.overfilled || c.asking > c.want
	if c.asking == c.want {
		c.once.Do(func() { close(c.full) })
	}
	c.mu.Unlock()
	<-c.full
	runtime.Gosched() // lets one more begin, were it allowed to
	defer func() { c.mu.Lock(); c.asking--; c.mu.Unlock() }()
	return c.Offline.Ask(ctx, r)
}

func TestAsManyDocumentsAreAskedAboutAtOnceAsConcurrencySays(t *testing.T) {
	for _, n := range []int{1, 2, 5} {
		teacher := &crowd{want: n, full: make(chan struct{})}
		m := Maker{Teacher: teacher, Concurrency: n}
		if _, err := m.Make(t.Context(), documents(30), 0, func(datasets.Instance) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if teacher.overfilled {
			t.Errorf("more than %d documents were asked about at once", n)
		}
	}
}
