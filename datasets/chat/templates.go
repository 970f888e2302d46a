package chat

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/tokenizer"
)

// Lookup returns a built-in template:
//
//	longalign          [INST]question[/INST]answer, turns joined by a blank line
//	longalign-chatglm  [Round 1]\n\n问：question\n\n答：answer, likewise
//	llama2             [INST] <<SYS>>…<</SYS>> question [/INST] answer; BOS before each exchange, as Llama 2 has it
//	llama3             header tokens and <|eot_id|>
//	mistral            [INST] question [/INST]answer; with the tokens [INST] where the vocabulary has them
//	chatml             <|im_start|> and <|im_end|>
//	chatglm3           <|user|> and <|assistant|>
//	vicuna             USER: question ASSISTANT: answer
//	plain              the texts alone, a blank line after each question
//
// Each begins with what the tokenizer puts before a text (BOS, [gMASK] sop), once,
// and each turn of the assistant ends with the tokenizer's EOS or the template's own end
// token. A system message stands where the model's format has a place for one, else
// before the first question, with a blank line between.
func Lookup(name string) (*Template, error) {
	write, ok := builtin[name]
	if !ok {
		return nil, fmt.Errorf("chat template %q is not known; use %s (the model's own) or one of %s", name, OwnTemplate, strings.Join(Names(), ", "))
	}
	return &Template{name: name, render: func(tok *tokenizer.Tokenizer, messages []Message, generate bool) ([]Part, error) {
		w := &writer{tok: tok}
		write(w, messages, generate)
		return w.parts, w.err
	}}, nil
}

// OwnTemplate is the name under which Resolve finds the model's own chat template.
const OwnTemplate = "model"

// Resolve is Lookup with one more name: OwnTemplate is the Jinja template of tok.
func Resolve(name string, tok *tokenizer.Tokenizer) (*Template, error) {
	if name != OwnTemplate {
		return Lookup(name)
	}
	if tok.ChatTemplate() == "" {
		return nil, fmt.Errorf("the model directory has no chat template of its own; use one of %s", strings.Join(Names(), ", "))
	}
	return FromJinja(tok.ChatTemplate(), name)
}

// Names returns the names of the built-in templates, sorted.
func Names() []string { return slices.Sorted(maps.Keys(builtin)) }

var builtin = map[string]func(w *writer, messages []Message, generate bool){
	"longalign":         writeLongAlign,
	"longalign-chatglm": writeRounds,
	"llama2":            writeLlama2,
	"llama3":            writeLlama3,
	"mistral":           writeMistral,
	"chatml":            writeChatML,
	"chatglm3":          writeChatGLM3,
	"vicuna":            writeVicuna,
	"plain":             writePlain,
}

// writer collects parts. message and target apply to what is written next.
type writer struct {
	tok     *tokenizer.Tokenizer
	parts   []Part
	message int
	target  bool
	err     error
}

func (w *writer) add(p Part) {
	p.Message, p.Target = w.message, w.target
	w.parts = append(w.parts, p)
}

func (w *writer) text(s string) { w.add(Part{Text: s, Token: -1}) }

// fresh writes text that the model's own code tokenizes by itself.
func (w *writer) fresh(s string) { w.add(Part{Text: s, Token: -1, Fresh: true}) }

func (w *writer) control(name string) {
	id, ok := w.tok.TokenID(name)
	if !ok {
		w.fail(fmt.Errorf("the tokenizer has no token %q; use the template the model was made with", name))
	}
	w.add(Part{Text: name, Token: id})
}

func (w *writer) token(id int32) { w.add(Part{Text: w.tok.Token(id), Token: id}) }

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// begin writes what starts every text of the model: the tokens of its post-processor, or
// else BOS, unless that is only another name of EOS.
func (w *writer) begin() {
	w.message, w.target = -1, false
	prefix, _ := w.tok.SpecialTokens()
	if len(prefix) == 0 {
		bos, ok := w.tok.BOS()
		if eos, same := w.tok.EOS(); ok && !(same && eos == bos) {
			prefix = []int32{bos}
		}
	}
	for _, id := range prefix {
		w.token(id)
	}
}

func (w *writer) eos() {
	id, ok := w.tok.EOS()
	if !ok {
		w.fail(fmt.Errorf("the tokenizer names no EOS, which must end each answer; set eos_token in tokenizer_config.json"))
		return
	}
	w.token(id)
}

// exchange is a question and its answer, if there is one.
type exchange struct {
	question, answer string
	at               int // index of the question's message; the answer's is the next
	answered         bool
}

// exchanges pairs the messages up and takes out the system message.
func exchanges(messages []Message) (system string, list []exchange) {
	for i, m := range messages {
		switch m.Role {
		case datasets.RoleSystem:
			system = m.Content
		case datasets.RoleUser:
			list = append(list, exchange{question: m.Content, at: i})
		default:
			last := &list[len(list)-1]
			last.answer, last.answered = m.Content, true
		}
	}
	return system, list
}

// withSystem puts the system message before the first question, where a format has no
// other place for it.
func withSystem(messages []Message) []exchange {
	system, list := exchanges(messages)
	if system != "" && len(list) > 0 {
		list[0].question = system + "\n\n" + list[0].question
	}
	return list
}

// question and answer set what is written next.
func (w *writer) question(x exchange) { w.message, w.target = x.at, false }
func (w *writer) answer(x exchange)   { w.message, w.target = x.at+1, true }

// dialogue writes exchanges in formats made of text: before and after the question, and
// between the end token and the next exchange.
func (w *writer) dialogue(list []exchange, open func(i int) string, close, between, lead string) {
	for i, x := range list {
		w.question(x)
		sep := ""
		if i > 0 {
			sep = between
		}
		w.text(sep + open(i) + x.question + close)
		if x.answered {
			w.answer(x)
			w.text(lead + x.answer)
			w.eos()
		}
	}
}

func writeLongAlign(w *writer, messages []Message, _ bool) {
	w.begin()
	w.dialogue(withSystem(messages), func(int) string { return "[INST]" }, "[/INST]", "\n\n", "")
}

func writeRounds(w *writer, messages []Message, _ bool) {
	w.begin()
	w.dialogue(withSystem(messages), func(i int) string { return fmt.Sprintf("[Round %d]\n\n问：", i+1) }, "\n\n答：", "\n\n", "")
}

func writePlain(w *writer, messages []Message, _ bool) {
	w.begin()
	w.dialogue(withSystem(messages), func(int) string { return "" }, "\n\n", "\n\n", "")
}

const vicunaSystem = "A chat between a curious user and an artificial intelligence assistant. " +
	"The assistant gives helpful, detailed, and polite answers to the user's questions."

func writeVicuna(w *writer, messages []Message, _ bool) {
	w.begin()
	system, list := exchanges(messages)
	if system == "" {
		system = vicunaSystem
	}
	w.text(system + " ")
	w.dialogue(list, func(int) string { return "USER: " }, " ASSISTANT:", "", " ")
}

func writeLlama2(w *writer, messages []Message, _ bool) {
	system, list := exchanges(messages)
	for i, x := range list {
		w.begin()
		w.question(x)
		question := strip(x.question, both, "")
		if i == 0 && system != "" {
			question = strip("<<SYS>>\n"+system+"\n<</SYS>>\n\n"+x.question, both, "")
		}
		w.text("[INST] " + question + " [/INST]")
		if x.answered {
			w.answer(x)
			w.text(" " + strip(x.answer, both, "") + " ")
			w.eos()
		}
	}
}

func writeLlama3(w *writer, messages []Message, generate bool) {
	w.begin()
	header := func(role string) {
		w.control("<|start_header_id|>")
		w.text(role)
		w.control("<|end_header_id|>")
		w.text("\n\n")
	}
	for i, m := range messages {
		w.message, w.target = i, false
		header(m.Role)
		w.target = m.Role == datasets.RoleAssistant
		w.text(strip(m.Content, both, ""))
		w.control("<|eot_id|>")
	}
	if generate {
		w.message, w.target = len(messages), false
		header(datasets.RoleAssistant)
	}
}

func writeMistral(w *writer, messages []Message, _ bool) {
	w.begin()
	if _, ok := w.tok.TokenID("[INST]"); !ok {
		w.dialogue(withSystem(messages), func(int) string { return "[INST] " }, " [/INST]", "", "")
		return
	}
	for _, x := range withSystem(messages) {
		w.question(x)
		w.control("[INST]")
		w.text(" " + x.question)
		w.control("[/INST]")
		if x.answered {
			w.answer(x)
			w.text(" " + x.answer)
			w.eos()
		}
	}
}

func writeChatML(w *writer, messages []Message, generate bool) {
	w.begin()
	header := func(role string) {
		w.control("<|im_start|>")
		w.text(role + "\n")
	}
	for i, m := range messages {
		w.message, w.target = i, false
		header(m.Role)
		w.target = m.Role == datasets.RoleAssistant
		w.text(m.Content)
		w.control("<|im_end|>")
		w.target = false
		w.text("\n")
	}
	if generate {
		w.message = len(messages)
		header(datasets.RoleAssistant)
	}
}

// writeChatGLM3 follows ChatGLM3's code, which tokenizes the line after a role (empty
// for conversations) and the message each by itself; the model writes that line too.
func writeChatGLM3(w *writer, messages []Message, generate bool) {
	w.begin()
	for i, m := range messages {
		w.message, w.target = i, false
		w.control("<|" + m.Role + "|>")
		w.target = m.Role == datasets.RoleAssistant
		w.fresh("\n")
		w.fresh(m.Content)
		if w.target {
			w.eos()
		}
	}
	if generate {
		w.message, w.target = len(messages), false
		w.control("<|assistant|>")
	}
}
