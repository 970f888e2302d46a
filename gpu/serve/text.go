package serve

import (
	"strings"

	"github.com/longalign/longalign-go/datasets/tokenizer"
)

// writer turns new tokens into text and holds back what might be the beginning of a stop string.
type writer struct {
	stream *tokenizer.Stream
	stops  []string
	held   string
	ended  bool
}

// newWriter continues the text of the prompt, so that a space between prompt and answer is part of the answer. Nil begins afresh.
func newWriter(tok *tokenizer.Tokenizer, prompt []int32, stops []string) *writer {
	w := &writer{stream: tok.NewStream(true), stops: stops}
	for _, id := range prompt[max(0, len(prompt)-8):] {
		w.stream.Next(id)
	}
	if len(prompt) > 0 {
		w.stream.Flush()
	}
	return w
}

// next takes a token and returns the text that is certain with it. Once a stop string has come, ended is true.
func (w *writer) next(id int32) string { return w.add(w.stream.Next(id)) }

// flush returns the rest.
func (w *writer) flush() string {
	if w.ended {
		return ""
	}
	text := w.add(w.stream.Flush())
	if !w.ended {
		text += w.held
		w.held = ""
	}
	return text
}

func (w *writer) add(text string) string {
	if w.ended {
		return ""
	}
	text = w.held + text
	w.held = ""
	cut := -1
	for _, s := range w.stops {
		if at := strings.Index(text, s); at >= 0 && (cut < 0 || at < cut) {
			cut = at
		}
	}
	if cut >= 0 {
		w.ended = true
		text = text[:cut]
	} else {
		keep := 0
		for _, s := range w.stops {
			for n := min(len(s)-1, len(text)); n > keep; n-- {
				if strings.HasSuffix(text, s[:n]) {
					keep = n
					break
				}
			}
		}
		w.held = text[len(text)-keep:]
		text = text[:len(text)-keep]
	}
	return text
}

// spelling is how a token is written in lists of log-probabilities: its text, or its number where that
// is not text by itself, so that different tokens stay different.
func (s *Server) spelling(id int32) string {
	text := s.tok.Decode([]int32{id}, false)
	if strings.Contains(text, "\uFFFD") || text == "" {
		return "token_id:" + itoa(id)
	}
	// Decoders drop the space that begins a text; inside one it belongs to the token.
	if raw := s.tok.Token(id); strings.HasPrefix(raw, "▁") && !strings.HasPrefix(text, " ") {
		return " " + text
	}
	return text
}
