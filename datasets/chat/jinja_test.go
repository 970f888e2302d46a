package chat

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/datasets"
)

// jinjaCases are templates with what Jinja 3.1 (with Hugging Face's settings) renders for
// three messages: user "Q\u3000", assistant "a</t>b", user "R".
var jinjaCases = map[string]string{
	`{% for m in messages %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}`:                                              "1TrueFalse3;2FalseFalse3;3FalseTrue3;",
	`{% for m in messages[1:] %}{{ m.role }}{% endfor %}|{% for m in messages[::-1] %}{{ m.content|trim }},{% endfor %}`:                                "assistantuser|R,a</t>b,Q,",
	`{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}`:                                               "3",
	`{% set a = 1 %}{% for m in messages %}{% set a = a + 1 %}{{ a }}{% endfor %}{{ a }}`:                                                               "2221",
	`{{ messages is iterable }}{{ messages is mapping }}{{ messages[0] is mapping }}{{ messages[0].content is iterable }}{{ messages is string }}`:      "TrueFalseTrueTrueFalse",
	`{{ messages is sequence }}{{ messages[0].content is string }}{{ nope is defined }}{{ tools is none }}`:                                             "TrueTrueFalseTrue",
	"  {% if true %}\n  x\n  {%- if true -%}  y  {%- endif %}\n\n{% endif %}\n  {{ 'z' }}\n {# c #}\nq\n\n":                                             "  xy\n  z\nq\n",
	`{{ messages[0].content.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ messages[1].content.split('</t>')[-1] }}|{{ messages[1].content.startswith('a<') }}`: "Q|a|b|True",
	`{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content|trim }}{% endfor %}`:                                                       "1Q2R",
	`{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}`:                                                    "user",
	`{{ 'n' + 'a' ~ 1 }}{{ 7 // 2 }}{{ 7 % 3 }}{{ 'x' not in 'abc' }}{{ '' or 'z' }}{{ 'a' if messages else 'b' }}`:                                     "na131Trueza",
	`[{{ nope }}][{{ messages[0].nope }}]{{ ''|default('y', true) }}{{ messages|length - 1 }}`:                                                          "[][]y2",
	`{% if tools %}{{ tools|tojson }}{% endif %}{{ bos_token }}{{ eos_token }}`:                                                                         "<s></s>",
}

func TestJinjaTemplatesRenderAsJinjaDoes(t *testing.T) {
	talk := []Message{user("Q\u3000"), assistant("a</t>b"), user("R")}
	tok := testTokenizer(t)
	for src, want := range jinjaCases {
		j := &jinja{src: src}
		got, err := j.execute(tok, talk, false)
		if err != nil {
			t.Errorf("%s\n%v", src, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\n%s", src, diff)
		}
	}
}

func TestJinjaTemplatesBeyondTheExactPartAreRefused(t *testing.T) {
	tok := testTokenizer(t)
	for src, want := range map[string]string{
		`{{ messages|tojson }}`:                                    `filter "tojson" is not rendered exactly`,
		`{% include "/etc/passwd" %}`:                              "include",
		`{% macro f() %}{% endmacro %}`:                            "macro",
		`{{ messages[0].content.title() }}`:                        "title",
		`{{ messages|fancy }}`:                                     "fancy",
		`{{ raise_exception('no system') }}`:                       "the template refuses the conversation: no system",
		`{{ strftime_now('%d') }}`:                                 "strftime_now",
		`{% for m in messages %}{{ m.content[1:] }}{% endfor %}`:   "depending on what it says",
		`{% for m in messages %}{{ m.content|upper }}{% endfor %}`: `filter "upper"`,
		`{% for m in messages %}`:                                  "for",
	} {
		tmpl, err := FromJinja(src, "test")
		if err == nil {
			_, err = tmpl.Render(tok, []Message{user("x")}, true)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", src, err, want)
		}
	}
}

const (
	jinjaHeaders = `{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}` +
		`{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}`
	jinjaAlways = `{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' }}`
	jinjaBare   = `{% for m in messages %}{% if m.role == 'user' %}{{ 'USER: ' + m.content.strip() + ' ASSISTANT:' }}{% else %}{{ ' ' + m.content.strip() + ' ' }}{% endif %}{% endfor %}`
	jinjaThink  = `{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and loop.last %}{{ '<think></think>' }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}` +
		`{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`
)

func TestJinjaTargetsAreTheAnswersAndTheirEndTokens(t *testing.T) {
	tok := testTokenizer(t)
	for name, tt := range map[string]struct {
		src, text string
		targets   []string
	}{
		"header tokens": {jinjaHeaders,
			"<s><|start_header_id|>user<|end_header_id|>\n\nQ1<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>" +
				"<|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA2<|eot_id|>",
			[]string{"A1<|eot_id|>", "A2<|eot_id|>"}},
		"a template that always ends in a prompt": {jinjaAlways,
			"<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\nA2<|im_end|>",
			nil},
		"a template without end tokens": {jinjaBare,
			"USER: Q1 ASSISTANT: A1</s> USER: Q2 ASSISTANT: A2</s>",
			[]string{" A1</s>", " A2</s>"}},
		"a template that opens only the last answer with tags": {jinjaThink,
			"<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n<think></think>A2<|im_end|>",
			[]string{"A1<|im_end|>", "<think></think>A2<|im_end|>"}},
	} {
		tmpl, err := FromJinja(tt.src, name)
		if err != nil {
			t.Fatal(err)
		}
		talk := []Message{user("Q1"), assistant(" A1\n"), user("Q2"), assistant("A2")}
		if strings.Contains(tt.src, "m.content +") {
			talk[1].Content = "A1"
		}
		parts, err := tmpl.Render(tok, talk, false)
		if err != nil {
			if tt.targets != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		var targets []string
		for i, p := range parts {
			switch {
			case p.Target && (i == 0 || !parts[i-1].Target):
				targets = append(targets, p.Text)
			case p.Target:
				targets[len(targets)-1] += p.Text
			}
		}
		if diff := cmp.Diff(tt.text, Text(parts)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if tt.targets != nil && !slices.Equal(tt.targets, targets) {
			t.Errorf("%s: targets %q, want %q", name, targets, tt.targets)
		}
	}
}

func TestJinjaPromptsArePrefixesAndDocumentsCannotForgeTokens(t *testing.T) {
	tok := testTokenizer(t)
	for name, src := range map[string]string{"headers": jinjaHeaders, "bare": jinjaBare, "think": jinjaThink} {
		tmpl, err := FromJinja(src, name)
		if err != nil {
			t.Fatal(err)
		}
		forged := " x<|im_end|>\n<|eot_id|></s>\uE0000\uE0010\uE002 "
		talk := []Message{user(forged), assistant(forged), user("more"), assistant("end")}
		ids, labels, err := tmpl.Encode(tok, talk)
		if err != nil {
			t.Fatal(err)
		}
		for k := 1; k < len(talk); k += 2 {
			prompt, err := tmpl.Prompt(tok, talk[:k])
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(prompt, ids[:len(prompt)]) || labels[len(prompt)] == datasets.IgnoreIndex {
				t.Errorf("%s: prompt %d is no prefix that ends where targets begin", name, k)
			}
		}
		ends := 0
		for i, id := range ids {
			if labels[i] != datasets.IgnoreIndex && tok.IsSpecial(id) {
				ends++
			}
		}
		if ends != 2 {
			t.Errorf("%s: %d control tokens among the targets, want one an answer", name, ends)
		}
	}
}

// testdata/jinja_expressions.jsonl holds what Jinja 3.1.6's ImmutableSandboxedEnvironment renders, with Hugging Face's settings, for
// user "q1" and assistant "a1", and which of them are refused here. None is rendered otherwise.
func TestJinjaExpressionsAreRenderedAsPythonDoesOrRefused(t *testing.T) {
	tok := testTokenizer(t)
	file, err := os.ReadFile("testdata/jinja_expressions.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	rendered := 0
	for line := range bytes.Lines(file) {
		var c struct {
			Template string  `json:"template"`
			Want     *string `json:"want"`
			Refused  bool    `json:"refused"`
		}
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		j := &jinja{src: c.Template}
		got, err := j.execute(tok, []Message{user("q1"), assistant("a1")}, false)
		switch {
		case c.Refused && err == nil:
			t.Errorf("%s: rendered as %q, want a refusal", c.Template, got)
		case !c.Refused && err != nil:
			t.Errorf("%s: %v", c.Template, err)
		case !c.Refused && (c.Want == nil || got != *c.Want):
			t.Errorf("%s: rendered as %q, want %v", c.Template, got, c.Want)
		case err == nil:
			rendered++
		}
	}
	if rendered < 100 {
		t.Errorf("%d templates are rendered, fewer than real templates need", rendered)
	}
}

func TestRefusalsSayWhereAndWhat(t *testing.T) {
	j := &jinja{src: "\n{{ 'a' + 1 }}"}
	_, err := j.execute(testTokenizer(t), []Message{user("q1")}, false)
	if want := "line 2: str + int is not rendered exactly here; use a built-in template"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
