package chat

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/builtins/control_structures"
	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"
	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/parser"
	"github.com/nikolalohinski/gonja/v2/tokens"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/tokenizer"
)

// FromJinja compiles a model's own chat_template, named in errors by name.
//
// It renders through gonja what gonja renders as Jinja does: if, for, set, break, continue,
// raw; the filters, tests and methods listed in this file; operators as Python computes them
// (jinjanodes.go). A template that executes anything else is refused with an error that names it and
// the types of its operands, as is one that rewrites a message
// beyond stripping white space around it, since its text could then not be told from
// the template's own. Variables are those Hugging Face gives: messages,
// add_generation_prompt, tools (none) and the special tokens; not today's date, so
// that templates with a fallback for it render the same every day.
//
// Targets begin where the prompt for the answer ends and end with the end token the
// template writes after it, or else with EOS, which is then added. What the template
// writes after the last answer is left out.
func FromJinja(src, name string) (*Template, error) {
	j := &jinja{name: name, src: src}
	compiled, err := j.compile()
	if err != nil {
		return nil, fmt.Errorf("chat template %s: cannot be compiled exactly: %w", name, shorten(err))
	}
	j.compiled.Put(compiled)
	return &Template{name: name, render: j.parts}, nil
}

// jinja renders one template. gonja does not promise that a compiled template may be
// executed concurrently, so each execution has one of its own.
type jinja struct {
	name     string
	src      string
	compiled sync.Pool
}

func (j *jinja) compile() (t *exec.Template, err error) {
	defer recovered(&err)
	c := config.New()
	c.TrimBlocks, c.LeftStripBlocks = true, true
	const root, whole = "/chat_template", "template"
	parsed, err := parser.NewParser(root, tokens.LexAll(j.src, c), c, loaders.MustNewMemoryLoader(nil), statements).Parse()
	if err != nil {
		return nil, err
	}
	w := &rewriter{src: j.src, functions: map[string]any{"namespace": globals["namespace"], "range": globals["range"]}, done: map[nodes.Node]nodes.Node{}}
	w.nodes(parsed.Nodes)
	loader, err := loaders.NewShiftedLoader(root, strings.NewReader("{% "+whole+" %}"), loaders.MustNewMemoryLoader(nil))
	if err != nil {
		return nil, err
	}
	return exec.NewTemplate(root, c, loader, &exec.Environment{
		Context: exec.NewContext(w.functions),
		Filters: filters,
		Tests:   tests,
		ControlStructures: exec.NewControlStructureSet(map[string]parser.ControlStructureParser{whole: func(p, _ *parser.Parser) (nodes.ControlStructure, error) {
			return &document{p.Current(), &nodes.Wrapper{Nodes: parsed.Nodes}}, nil
		}}),
		Methods: exec.Methods{
			Bool: exec.NewMethodSet[bool](nil), Str: stringMethods, Int: exec.NewMethodSet[int](nil), Float: exec.NewMethodSet[float64](nil),
			Dict: exec.NewMethodSet(keep([]string{"get"}, builtins.Methods.Dict.Get)), List: exec.NewMethodSet[[]any](nil),
		},
	})
}

// recovered turns a panic of the template engine into an error.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("template engine: %v", r)
	}
}

// refusesConversation begins what a template's own raise_exception says.
const refusesConversation = "the template refuses the conversation: "

// shorten leaves the template's source out of gonja's errors, and gonja's words out of ours.
func shorten(err error) error {
	text := err.Error()
	if i := strings.LastIndex(text, refusal); i >= 0 {
		return errors.New(text[i+len(refusal):])
	}
	if i := strings.LastIndex(text, refusesConversation); i >= 0 {
		return errors.New(text[i:])
	}
	if i := strings.LastIndex(text, "': "); i >= 0 && strings.HasPrefix(text, "failed to parse template") {
		text = text[i+3:]
	}
	return errors.New(text)
}

func (j *jinja) execute(tok *tokenizer.Tokenizer, messages []Message, generate bool) (text string, err error) {
	defer recovered(&err)
	t, _ := j.compiled.Get().(*exec.Template)
	if t == nil {
		if t, err = j.compile(); err != nil {
			return "", err
		}
	}
	list := make([]any, len(messages))
	for i, m := range messages {
		list[i] = map[string]any{"role": m.Role, "content": m.Content}
	}
	vars := map[string]any{
		"messages": list, "add_generation_prompt": generate, "tools": nil, "documents": nil,
		"raise_exception": func(message string) (string, error) {
			return "", errors.New(refusesConversation + message)
		},
	}
	for _, key := range []string{"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"} {
		if text := tok.NamedToken(key); text != "" {
			vars[key] = text
		}
	}
	text, err = t.ExecuteToString(exec.NewContext(vars))
	if err != nil {
		return "", shorten(err)
	}
	j.compiled.Put(t)
	return text, nil
}

// parts renders the conversation with placeholders for the contents, so that the
// template's own text and that of the messages are told apart, and checks that the
// contents put back give what the template renders.
func (j *jinja) parts(tok *tokenizer.Tokenizer, messages []Message, generate bool) ([]Part, error) {
	marks, marked := placeholders(messages)
	skeleton, err := j.execute(tok, marked, generate)
	if err != nil {
		return nil, err
	}
	text, err := j.execute(tok, messages, generate)
	if err != nil {
		return nil, err
	}
	pieces, err := j.fill(skeleton, text, marks, messages)
	if err != nil {
		return nil, err
	}
	var starts []int // of the answers in skeleton
	for k, m := range messages {
		if m.Role != datasets.RoleAssistant {
			continue
		}
		prompt, err := j.execute(tok, marked[:k], true)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(skeleton, prompt) {
			return nil, &MessageError{j.name, k, errors.New("what the template renders before this answer is not the prompt for it; use a built-in template")}
		}
		starts = append(starts, len(prompt))
	}
	return assemble(tok, pieces, starts, generate)
}

// placeholders returns a mark for each message that occurs in none of them, and the
// messages with the marks as contents.
func placeholders(messages []Message) (marks []string, marked []Message) {
	marked = slices.Clone(messages)
	for nonce := 0; ; nonce++ {
		stem := fmt.Sprintf("\uE000%d\uE001", nonce)
		if slices.ContainsFunc(messages, func(m Message) bool { return strings.Contains(m.Content, stem) }) {
			continue
		}
		for i := range messages {
			marks = append(marks, fmt.Sprintf("%s%d\uE002", stem, i))
			marked[i].Content = marks[i]
		}
		return marks, marked
	}
}

// piece is text of the template (message -1) or of a message, at an offset of the skeleton.
type piece struct {
	text    string
	message int
	offset  int
}

// fill splits the skeleton at the marks and finds each message's text as the template
// renders it: as it is, or without white space around it.
func (j *jinja) fill(skeleton, text string, marks []string, messages []Message) ([]piece, error) {
	var out []piece
	for offset := 0; ; {
		at, which := len(skeleton)-offset, -1
		for i, mark := range marks {
			if k := strings.Index(skeleton[offset:], mark); k >= 0 && k < at {
				at, which = k, i
			}
		}
		own := skeleton[offset : offset+at]
		if !strings.HasPrefix(text, own) {
			return nil, j.rewritten(out)
		}
		if own != "" {
			out = append(out, piece{own, -1, offset})
		}
		text, offset = text[len(own):], offset+at
		if which < 0 {
			if text != "" {
				return nil, j.rewritten(out)
			}
			return out, nil
		}
		next := skeleton[offset+len(marks[which]):]
		for _, mark := range marks {
			next, _, _ = strings.Cut(next, mark)
		}
		content, ok := rendering(text, messages[which].Content, next)
		if !ok {
			return nil, j.rewritten(append(out, piece{message: which}))
		}
		out = append(out, piece{content, which, offset})
		text, offset = text[len(content):], offset+len(marks[which])
	}
}

func (j *jinja) rewritten(before []piece) error {
	at := -1
	if n := len(before); n > 0 {
		at = before[n-1].message
	}
	return &MessageError{j.name, at, errors.New("the template renders this text depending on what it says, beyond stripping white space; use a built-in template")}
}

// rendering returns the form of content that text begins with, followed by next.
func rendering(text, content, next string) (string, bool) {
	for _, form := range []string{content, strip(content, both, ""), strip(content, left, ""), strip(content, right, "")} {
		if rest, ok := strings.CutPrefix(text, form); ok && strings.HasPrefix(rest, next) {
			return form, true
		}
	}
	return "", false
}

// endTokens end a turn in the formats of public models; the tokenizer's EOS does too.
var endTokens = []string{
	"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<end_of_turn>",
	"<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>", "</s>", "<eos>", "<｜end▁of▁sentence｜>", "<|eot|>", "<|return|>",
}

// assemble turns pieces into parts. Between an answer's start and the end token after
// its text, all is target.
func assemble(tok *tokenizer.Tokenizer, pieces []piece, starts []int, generate bool) ([]Part, error) {
	var out []Part
	eos, hasEOS := tok.EOS()
	target, spoken := false, false // inside an answer; its text has been written
	end := 0                       // of the last answer in out
	closeAnswer := func() {
		target, spoken, end = false, false, len(out)
	}
	addEOS := func() error {
		if !hasEOS {
			return errors.New("neither the template nor the tokenizer names a token to end answers with; set eos_token in tokenizer_config.json")
		}
		out = append(out, Part{Text: tok.Token(eos), Token: eos, Message: -1, Target: true})
		closeAnswer()
		return nil
	}
	isEnd := func(span tokenizer.Span) bool {
		return span.ID >= 0 && (hasEOS && span.ID == eos || slices.Contains(endTokens, span.Text))
	}
	own := func(text string) error {
		spans := tok.SplitAdded(text)
		if target && spoken {
			first := slices.IndexFunc(spans, func(s tokenizer.Span) bool { return s.ID >= 0 })
			if first < 0 || !isEnd(spans[first]) {
				if err := addEOS(); err != nil {
					return err
				}
			}
		}
		for _, span := range spans {
			out = append(out, Part{Text: span.Text, Token: span.ID, Message: -1, Target: target})
			if target && spoken && isEnd(span) {
				closeAnswer()
			}
		}
		return nil
	}
	for _, p := range pieces {
		if p.message >= 0 {
			if target && spoken { // the template writes nothing to end the answer
				if err := addEOS(); err != nil {
					return nil, err
				}
			}
			target = target || len(starts) > 0 && starts[0] == p.offset
			if target {
				spoken = true
				if len(starts) > 0 && starts[0] <= p.offset {
					starts = starts[1:]
				}
			}
			out = append(out, Part{Text: p.text, Token: -1, Message: p.message, Target: target})
			continue
		}
		// An answer may begin inside the template's text, such as before an opening tag.
		rest, offset := p.text, p.offset
		for len(starts) > 0 && starts[0] >= offset && starts[0] < offset+len(rest) {
			cut := starts[0] - offset
			if err := own(rest[:cut]); err != nil {
				return nil, err
			}
			rest, offset, starts = rest[cut:], starts[0], starts[1:]
			target, spoken = true, false
		}
		if err := own(rest); err != nil {
			return nil, err
		}
	}
	if target {
		if err := addEOS(); err != nil {
			return nil, err
		}
	}
	if !generate && end > 0 {
		out = out[:end]
	}
	return out, nil
}

var globals = map[string]any{
	"namespace": global("namespace"),
	"range":     global("range"),
}

func global(name string) any {
	f, _ := builtins.GlobalFunctions.Get(name)
	return f
}

// keep selects what gonja renders as Jinja does.
func keep[F any](names []string, get func(string) (F, bool)) map[string]F {
	out := map[string]F{}
	for _, name := range names {
		if f, ok := get(name); ok {
			out[name] = f
		}
	}
	return out
}

var statements = exec.NewControlStructureSet(keep[parser.ControlStructureParser](
	[]string{"if", "for", "break", "continue", "raw"}, controlStructures.All.Get)).Update(
	exec.NewControlStructureSet(map[string]parser.ControlStructureParser{"set": parseAssignment}))

var tests = func() *exec.TestSet {
	set := exec.NewTestSet(keep(
		[]string{"defined", "undefined", "none", "string", "number", "boolean", "true", "false", "eq", "equalto", "==", "ne", "!=", "in", "odd", "even"},
		builtins.Tests.Get))
	return set.Update(exec.NewTestSet(map[string]exec.TestFunction{
		"mapping":  kindTest(reflect.Map),
		"iterable": kindTest(reflect.Map, reflect.Slice, reflect.Array, reflect.String),
		"sequence": kindTest(reflect.Map, reflect.Slice, reflect.Array, reflect.String),
	}))
}()

// kindTest replaces gonja's tests of kinds, which answer otherwise for strings and lists.
func kindTest(kinds ...reflect.Kind) exec.TestFunction {
	return func(_ *exec.Context, in *exec.Value, _ *exec.VarArgs) (bool, error) {
		v := in.Val
		for v.IsValid() && (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) {
			v = v.Elem()
		}
		return v.IsValid() && slices.Contains(kinds, v.Kind()), nil
	}
}

var filters = func() *exec.FilterSet {
	set := exec.NewFilterSet(keep(
		[]string{"length", "count", "first", "last", "lower", "upper", "default", "d", "string", "join", "list", "safe", "int"},
		builtins.Filters.Get))
	all := map[string]exec.FilterFunction{"trim": filterTrim}
	// The others are known to the parser, since templates mention them in branches that
	// are never taken here (tools), but cannot be executed.
	for _, name := range []string{"tojson", "items", "dictsort", "map", "select", "selectattr", "reject", "rejectattr", "replace", "indent", "sort", "unique", "reverse", "capitalize", "title", "round", "abs", "max", "min", "sum", "slice", "batch", "format", "escape", "e"} {
		all[name] = func(*exec.Evaluator, *exec.Value, *exec.VarArgs) *exec.Value {
			return exec.AsValue(fmt.Errorf("filter %q is not rendered exactly here; use a built-in template", name))
		}
	}
	return set.Update(exec.NewFilterSet(all))
}()

func filterTrim(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	if in.IsError() {
		return in
	}
	if len(params.Args)+len(params.KwArgs) > 0 {
		return exec.AsValue(errors.New(`filter "trim" with arguments is not rendered exactly here; use a built-in template`))
	}
	return exec.AsValue(strip(in.String(), both, ""))
}
