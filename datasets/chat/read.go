package chat

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets"
)

// LineError says which line of a chat file is wrong.
type LineError struct {
	File string
	Line int // from 1, where the conversation begins
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

// Unwrap returns the cause.
func (e *LineError) Unwrap() error { return e.Err }

// Read yields the conversations of a file of JSON lines, or of one JSON array, in any
// of these forms, which may be mixed:
//
//	{"messages":[{"role":"user","content":"…"},…]}          content may be a list of {"type":"text"} parts
//	{"conversations":[{"from":"human","value":"…"},…]}      ShareGPT, with "system" or without
//	{"instruction":"…","input":"…","output":"…"}            LLaMA-Factory, with "history" and "system" or without
//	{"context":"…","query":"…","answer":"…"}                document and question
//
// A conversation that cannot be read (broken JSON, another form, an unknown role, roles
// that do not alternate, no answer at the end) yields a *LineError and reading goes on
// with the next; the caller counts it or stops. Texts are yielded as they stand in the file. ShareGPT's conversations often begin
// with a reply or end with a question, having been cut out of longer ones: such messages are left out and counted as Instance.Unpaired.
// So does one of more than maxBytes, which is passed over in bounded memory; in an array it ends the reading, as
// an error of r does and an array that is broken.
func Read(r io.Reader, name string, maxBytes int64) iter.Seq2[datasets.Instance, error] {
	return func(yield func(datasets.Instance, error) bool) {
		lines := &lineReader{in: bufio.NewReaderSize(r, 1<<16), limit: maxBytes}
		first, err := lines.peekText()
		switch {
		case err == io.EOF:
		case err != nil:
			yield(datasets.Instance{}, &LineError{name, lines.line, err})
		case first == '[':
			readArray(lines, name, yield)
		default:
			readLines(lines, name, yield)
		}
	}
}

// lineReader counts lines. line is that of the next byte to read, from 1.
type lineReader struct {
	in    *bufio.Reader
	line  int
	limit int64
}

// next returns the rest of the line and its end. Of a line longer than limit it keeps nothing, and returns a *tooLong.
func (l *lineReader) next() ([]byte, error) {
	var line []byte
	long := false
	for {
		part, err := l.in.ReadSlice('\n')
		if long = long || int64(len(line)+len(part)) > l.limit+1; long {
			line = nil
		} else {
			line = append(line, part...)
		}
		switch {
		case err == bufio.ErrBufferFull:
		case long && (err == nil || err == io.EOF):
			return nil, &tooLong{l.limit, err}
		default:
			return line, err
		}
	}
}

// tooLong is a conversation of more than limit bytes; next is what else reading it met.
type tooLong struct {
	limit int64
	next  error
}

func (e *tooLong) Error() string {
	return fmt.Sprintf("the conversation is longer than max_bytes (%d); raise it", e.limit)
}

// peekText skips white space and a byte-order mark and returns the byte after it.
func (l *lineReader) peekText() (byte, error) {
	l.line = 1
	if mark, err := l.in.Peek(3); err == nil && string(mark) == "\ufeff" {
		if _, err := l.in.Discard(3); err != nil {
			return 0, err
		}
	}
	for {
		b, err := l.in.ReadByte()
		switch {
		case err != nil:
			return 0, err
		case b == '\n':
			l.line++
		case b != ' ' && b != '\t' && b != '\r':
			return b, l.in.UnreadByte()
		}
	}
}

func readLines(l *lineReader, name string, yield func(datasets.Instance, error) bool) {
	for ; ; l.line++ {
		raw, err := l.next()
		var long *tooLong
		if errors.As(err, &long) {
			if !yield(datasets.Instance{}, &LineError{name, l.line, long}) {
				return
			}
			err = long.next
		}
		if err != nil && err != io.EOF {
			yield(datasets.Instance{}, &LineError{name, l.line, fmt.Errorf("the file cannot be read from here on: %w", err)})
			return
		}
		if raw = bytes.TrimSpace(raw); len(raw) > 0 {
			i, bad := parseInstance(raw)
			if bad != nil {
				bad = &LineError{name, l.line, bad}
			}
			if !yield(i, bad) {
				return
			}
		}
		if err == io.EOF {
			return
		}
	}
}

// newlines remembers where the lines of what was read began.
type newlines struct {
	r      io.Reader
	read   int64
	starts []int64 // offsets of newlines not yet passed
	line   int     // of the last offset asked for
	// A conversation begins at from or later; reading more than limit from there fails.
	from, limit int64
}

func (n *newlines) Read(p []byte) (int, error) {
	if n.read-n.from > n.limit {
		return 0, &tooLong{limit: n.limit}
	}
	k, err := n.r.Read(p)
	for i, b := range p[:k] {
		if b == '\n' {
			n.starts = append(n.starts, n.read+int64(i))
		}
	}
	n.read += int64(k)
	return k, err
}

// at returns the line of an offset; offsets must not decrease.
func (n *newlines) at(offset int64) int {
	passed := 0
	for passed < len(n.starts) && n.starts[passed] < offset {
		passed++
	}
	n.starts = append(n.starts[:0], n.starts[passed:]...)
	n.line += passed
	return n.line
}

func readArray(l *lineReader, name string, yield func(datasets.Instance, error) bool) {
	// What the decoder has read ahead counts too, so that a little more than the limit is held.
	count := &newlines{r: l.in, line: l.line, limit: l.limit + 1<<16}
	dec := json.NewDecoder(count)
	fatal := func(err error) {
		at := dec.InputOffset()
		var syntax *json.SyntaxError
		var long *tooLong
		switch {
		case errors.As(err, &long):
			long.limit = l.limit
			err = fmt.Errorf("the rest of the array is lost, lines of JSON would not be: %w", err)
		case err == io.EOF, err == io.ErrUnexpectedEOF: // as the decoder says it; the reader's own error may wrap it
			at, err = count.read, io.ErrUnexpectedEOF
		case errors.As(err, &syntax):
			at = max(at, syntax.Offset)
		}
		yield(datasets.Instance{}, &LineError{name, count.at(at), fmt.Errorf("broken JSON array: %w", err)})
	}
	if _, err := dec.Token(); err != nil {
		fatal(err)
		return
	}
	for k := 1; ; k++ {
		count.from = dec.InputOffset()
		if !dec.More() {
			break
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			fatal(err)
			return
		}
		line := count.at(dec.InputOffset() - int64(len(raw)) + 1)
		i, bad := parseInstance(raw)
		if bad != nil {
			// Arrays are often on one line.
			bad = &LineError{name, line, fmt.Errorf("conversation %d: %w", k, bad)}
		}
		if !yield(i, bad) {
			return
		}
	}
	if _, err := dec.Token(); err != nil {
		fatal(err)
	}
}

// record is a conversation in any of the forms.
type record struct {
	Messages      []turn      `json:"messages"`
	Conversations []turn      `json:"conversations"`
	System        string      `json:"system"`
	Instruction   *string     `json:"instruction"`
	Input         string      `json:"input"`
	Output        *string     `json:"output"`
	History       [][2]string `json:"history"`
	Context       *string     `json:"context"`
	Query         *string     `json:"query"`
	Answer        *string     `json:"answer"`
	// Meta is ours; it survives being read.
	Meta *datasets.InstanceMeta `json:"meta"`
}

type turn struct {
	Role       string   `json:"role"`
	From       string   `json:"from"`
	Content    *content `json:"content"`
	Value      *content `json:"value"`
	LossWeight *float64 `json:"loss_weight"`
}

// content is a string or a list of parts of type text.
type content string

// UnmarshalJSON reads either form.
func (c *content) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err == nil {
		*c = content(s)
		return nil
	}
	var parts []struct{ Type, Text, Value string }
	if err := json.Unmarshal(b, &parts); err != nil {
		return errors.New("content is neither a string nor a list of parts")
	}
	for _, p := range parts {
		if p.Type != "text" {
			return fmt.Errorf("content has a part of type %q; only text can be trained on", p.Type)
		}
		*c += content(p.Text + p.Value)
	}
	return nil
}

// roleNames are what files call the roles.
var roleNames = map[string]string{
	"system": datasets.RoleSystem,
	"user":   datasets.RoleUser, "human": datasets.RoleUser,
	"assistant": datasets.RoleAssistant, "gpt": datasets.RoleAssistant, "chatgpt": datasets.RoleAssistant,
	"bing": datasets.RoleAssistant, "bard": datasets.RoleAssistant,
}

func parseInstance(raw []byte) (datasets.Instance, error) {
	if err := datasets.CheckJSONText(raw); err != nil {
		return datasets.Instance{}, err
	}
	var rec record
	if err := json.Unmarshal(raw, &rec); err != nil {
		return datasets.Instance{}, datasets.ExplainJSON(err)
	}
	messages, err := rec.messages()
	if err != nil {
		return datasets.Instance{}, err
	}
	for k, m := range messages {
		if strings.ContainsRune(m.Content, 0) {
			return datasets.Instance{}, fmt.Errorf("message %d has a NUL character, so it is no text", k)
		}
	}
	unpaired := 0
	if rec.Messages == nil && rec.Conversations != nil {
		messages, unpaired = paired(messages)
	}
	i := datasets.Instance{Messages: messages, Meta: rec.Meta, Unpaired: unpaired}
	if len(messages) == 0 {
		return i, ErrNoMessages
	}
	if err := (&Template{name: "any"}).check(messages, false); err != nil {
		var bad *MessageError
		if errors.As(err, &bad) && bad.Message >= 0 {
			return i, fmt.Errorf("message %d: %w", bad.Message, bad.Err)
		}
		return i, err
	}
	return i, i.Check()
}

// paired leaves out replies before the first question and questions after the last reply, unless nothing would be left.
func paired(messages []Message) (kept []Message, left int) {
	from, to := 0, len(messages)
	if to > 0 && messages[0].Role == datasets.RoleSystem {
		from = 1
	}
	begin := from
	for begin < to && messages[begin].Role == datasets.RoleAssistant {
		begin++
	}
	for to > begin && messages[to-1].Role == datasets.RoleUser {
		to--
	}
	if left = begin - from + len(messages) - to; begin == to || left == 0 {
		return messages, 0
	}
	return slices.Concat(messages[:from], messages[begin:to]), left
}

func (rec *record) messages() ([]Message, error) {
	var out []Message
	add := func(role, text string) { out = append(out, Message{Role: role, Content: text}) }
	if rec.System != "" {
		add(datasets.RoleSystem, rec.System)
	}
	for _, h := range rec.History {
		add(datasets.RoleUser, h[0])
		add(datasets.RoleAssistant, h[1])
	}
	switch {
	case rec.Messages != nil:
		return appendTurns(out, rec.Messages)
	case rec.Conversations != nil:
		return appendTurns(out, rec.Conversations)
	case rec.Instruction != nil && rec.Output != nil:
		question := *rec.Instruction
		if rec.Input != "" {
			question += "\n" + rec.Input
		}
		add(datasets.RoleUser, question)
		add(datasets.RoleAssistant, *rec.Output)
	case rec.Context != nil && rec.Query != nil && rec.Answer != nil:
		add(datasets.RoleUser, *rec.Context+"\n\n"+*rec.Query)
		add(datasets.RoleAssistant, *rec.Answer)
	default:
		return nil, errors.New(`no conversation; expected "messages", "conversations", "instruction" with "output", or "context" with "query" and "answer"`)
	}
	return out, nil
}

func appendTurns(out []Message, turns []turn) ([]Message, error) {
	for i, t := range turns {
		name, text := t.Role, t.Content
		if name == "" {
			name = t.From
		}
		if text == nil {
			text = t.Value
		}
		role, ok := roleNames[name]
		switch {
		case name == "" || text == nil:
			return nil, fmt.Errorf(`message %d lacks "role" and "content" (or "from" and "value")`, i)
		case !ok:
			return nil, fmt.Errorf("message %d: unknown role %q; use system, user (human) or assistant (gpt)", i, name)
		case role == datasets.RoleAssistant && t.LossWeight != nil && *t.LossWeight == 0:
			return nil, fmt.Errorf("message %d: an answer with loss_weight 0 cannot be expressed; remove it or what precedes it", i)
		}
		out = append(out, Message{Role: role, Content: string(*text)})
	}
	return out, nil
}
