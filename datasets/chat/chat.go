// Package chat renders conversations as a model's training text and prompts.
//
// A template turns messages into parts: control tokens, which have an ID and no
// spelling, and text. Text is never read for control tokens, so a document that
// contains "</s>" or "<|im_end|>" cannot end a turn. Labels follow the parts: what the
// assistant says in each of its turns is a target, its end token included, and
// nothing else. They are Hugging Face aligned (labels[t] labels token t, IgnoreIndex on
// the rest). Every assistant turn ends with a real end-of-turn token in the input.
//
// Prompts and answers are tokenized separately, so that Prompt of the messages before
// an answer is a prefix of Encode: training sees what generation sees.
package chat

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/tokenizer"
)

// Message is one turn of a conversation.
type Message = datasets.Message

// Template renders conversations. It is immutable and safe for concurrent use.
type Template struct {
	name   string
	render func(tok *tokenizer.Tokenizer, messages []Message, generate bool) ([]Part, error)
}

// Part is a piece of a rendered conversation.
type Part struct {
	// Text is the text, or of a control token what it is called in the vocabulary.
	Text string
	// Token is the control token's ID; -1 for text.
	Token int32
	// Fresh text is tokenized as if after a control token, whatever is before it.
	Fresh bool
	// Message is the index of the message the part belongs to, -1 for none.
	Message int
	// Target parts are trained on.
	Target bool
}

// MessageError says what is wrong with a conversation.
type MessageError struct {
	Template string // the template's name
	Message  int    // index of the message, -1 for the whole conversation
	Err      error
}

func (e *MessageError) Error() string {
	if e.Message < 0 {
		return fmt.Sprintf("chat template %s: %v", e.Template, e.Err)
	}
	return fmt.Sprintf("chat template %s: message %d: %v", e.Template, e.Message, e.Err)
}

// Unwrap returns the cause.
func (e *MessageError) Unwrap() error { return e.Err }

// ErrNoMessages means a conversation is empty.
var ErrNoMessages = errors.New("no messages")

// Name returns the name the template was looked up by.
func (t *Template) Name() string { return t.name }

// Render returns the parts of a conversation; with generate, those of a prompt that ends
// where the assistant begins to speak. messages alternate between user and assistant
// after at most one system message; a prompt ends with the user's turn.
func (t *Template) Render(tok *tokenizer.Tokenizer, messages []Message, generate bool) ([]Part, error) {
	if err := t.check(messages, generate); err != nil {
		return nil, err
	}
	parts, err := t.render(tok, messages, generate)
	if err != nil {
		var known *MessageError
		if errors.As(err, &known) {
			return nil, err
		}
		return nil, &MessageError{t.name, -1, err}
	}
	return parts, nil
}

func (t *Template) check(messages []Message, generate bool) error {
	fail := func(i int, format string, args ...any) error {
		return &MessageError{t.name, i, fmt.Errorf(format, args...)}
	}
	if len(messages) == 0 {
		return &MessageError{t.name, -1, ErrNoMessages}
	}
	want := datasets.RoleUser
	for i, m := range messages {
		switch {
		case !slices.Contains([]string{datasets.RoleSystem, datasets.RoleUser, datasets.RoleAssistant}, m.Role):
			return fail(i, "unknown role %q; use system, user or assistant", m.Role)
		case m.Role == datasets.RoleSystem && i > 0:
			return fail(i, "a system message must come first")
		case m.Role == datasets.RoleSystem:
		case m.Role != want:
			return fail(i, "role %q where %q is expected; user and assistant must alternate, beginning with user", m.Role, want)
		case want == datasets.RoleUser:
			want = datasets.RoleAssistant
		default:
			want = datasets.RoleUser
		}
	}
	last := messages[len(messages)-1].Role
	if generate && last != datasets.RoleUser {
		return fail(len(messages)-1, "role %q at the end of a prompt; the user speaks last", last)
	}
	return nil
}

// Encode returns the token IDs of a conversation for training and their labels.
func (t *Template) Encode(tok *tokenizer.Tokenizer, messages []Message) (ids, labels []int32, err error) {
	parts, err := t.Render(tok, messages, false)
	if err != nil {
		return nil, nil, err
	}
	ids, labels = encodeParts(tok, parts)
	return ids, labels, nil
}

// Prompt returns the token IDs of a conversation up to where the assistant begins its
// next turn.
func (t *Template) Prompt(tok *tokenizer.Tokenizer, messages []Message) ([]int32, error) {
	parts, err := t.Render(tok, messages, true)
	if err != nil {
		return nil, err
	}
	ids, _ := encodeParts(tok, parts)
	return ids, nil
}

// encodeParts tokenizes neighbouring texts as one unless a turn of the assistant begins
// or ends between them.
func encodeParts(tok *tokenizer.Tokenizer, parts []Part) (ids, labels []int32) {
	var text strings.Builder
	at := tokenizer.AtStart
	add := func(target bool, tokens ...int32) {
		ids = append(ids, tokens...)
		for _, id := range tokens {
			if !target || len(labels) == 0 { // a sequence's first token is never a target
				id = datasets.IgnoreIndex
			}
			labels = append(labels, id)
		}
	}
	for i, p := range parts {
		if p.Token >= 0 {
			add(p.Target, p.Token)
			at = tokenizer.AfterSpecial
			continue
		}
		if p.Fresh {
			at = tokenizer.AfterSpecial
		}
		text.WriteString(p.Text)
		if i+1 < len(parts) {
			if next := parts[i+1]; next.Token < 0 && !next.Fresh && next.Target == p.Target {
				continue
			}
		}
		if text.Len() > 0 {
			add(p.Target, tok.EncodePart(text.String(), at)...)
			at = tokenizer.AfterText
			text.Reset()
		}
	}
	return ids, labels
}

// Text returns the parts as one string, control tokens spelled out: what a model's card
// would show. It must not be tokenized.
func Text(parts []Part) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.Text)
	}
	return b.String()
}
