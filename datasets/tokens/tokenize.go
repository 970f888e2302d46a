package tokens

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/longalign/longalign-go/datasets"
)

// Encoder turns a conversation into token IDs and labels of equal length: a chat template
// with a tokenizer. It is safe for concurrent use.
type Encoder interface {
	Encode(messages []datasets.Message) (ids, labels []int32, err error)
}

// EncoderFunc is a function that is an Encoder.
type EncoderFunc func(messages []datasets.Message) (ids, labels []int32, err error)

// Encode calls f.
func (f EncoderFunc) Encode(messages []datasets.Message) (ids, labels []int32, err error) {
	return f(messages)
}

// ErrNoSequences is a tokens stage that kept nothing.
var ErrNoSequences = errors.New("no sequence is left to train on")

// Reasons in TokensReport.Dropped.
const (
	DroppedEmpty      = "no reply with text"
	DroppedOverLength = "over-long"
	DroppedCutAnswer  = "answer cut off in part"
	DroppedNoTarget   = "answer cut off whole"
)

// zeroWidth are the characters the paper removes from replies.
var zeroWidth = strings.NewReplacer("\u200b", "", "\u200c", "", "\u200d", "", "\ufeff", "")

// Clean removes zero-width characters from replies, empty replies together with the
// user's message before, and a trailing message that has no reply. It returns the number
// of replies removed; the messages given are not changed.
func Clean(messages []datasets.Message) (cleaned []datasets.Message, removed int) {
	cleaned = make([]datasets.Message, 0, len(messages))
	for _, m := range messages {
		if m.Role != datasets.RoleAssistant {
			cleaned = append(cleaned, m)
			continue
		}
		m.Content = zeroWidth.Replace(m.Content)
		if strings.TrimSpace(m.Content) != "" {
			cleaned = append(cleaned, m)
			continue
		}
		removed++
		if n := len(cleaned); n > 0 && cleaned[n-1].Role == datasets.RoleUser {
			cleaned = cleaned[:n-1]
		}
	}
	for n := len(cleaned); n > 0 && cleaned[n-1].Role != datasets.RoleAssistant; n-- {
		cleaned = cleaned[:n-1]
	}
	return cleaned, removed
}

// outcome is what became of one instance.
type outcome struct {
	seq     datasets.Sequence
	length  int // before truncation
	removed int
	cut     bool
	drop    string
	err     error
}

// Tokenize encodes instances on all cores and writes their sequences, in order, to w, which it
// does not close. first is the number of the first instance, for a shard that starts inside a file. Memory is
// bounded by a few hundred instances.
func Tokenize(ctx context.Context, instances iter.Seq2[datasets.Instance, error], first int, enc Encoder, p datasets.TokensParams, w *Writer) (datasets.TokensReport, error) {
	p = p.Defaults()
	report := datasets.TokensReport{}
	if err := p.Validate(); err != nil {
		return report, fmt.Errorf("tokens: %w", err)
	}
	chunk := make([]datasets.Instance, 0, 64*runtime.GOMAXPROCS(0))
	flush := func() error {
		outcomes, err := encodeAll(ctx, chunk, enc, p)
		if err != nil {
			return err
		}
		for i, o := range outcomes {
			number := first + report.Instances
			report.Instances++
			if o.err != nil {
				return fmt.Errorf("tokens: instance %d%s: %w", number, origin(chunk[i]), o.err)
			}
			if err := enter(&report, o, number, w); err != nil {
				return err
			}
		}
		chunk = chunk[:0]
		return nil
	}
	for instance, err := range instances {
		if err != nil {
			return report, fmt.Errorf("tokens: %w", err)
		}
		if chunk = append(chunk, instance); len(chunk) == cap(chunk) {
			if err := flush(); err != nil {
				return report, err
			}
		}
	}
	if err := flush(); err != nil {
		return report, err
	}
	return report, report.Ledger.Balance()
}

// CheckReport returns an error that explains why nothing is left, if nothing is.
func CheckReport(r datasets.TokensReport) error {
	switch {
	case r.Sequences > 0:
		return nil
	case AllTruncated(r):
		return fmt.Errorf("tokens: %w: every one of the %d is longer than max_length; raise tokens.max_length, take shorter documents, or set tokens.over_length: truncate-middle", ErrNoSequences, r.Instances)
	}
	return fmt.Errorf("tokens: %w: %d instances, dropped %v; raise max_length or look at the instructions", ErrNoSequences, r.Instances, r.Dropped)
}

// AllTruncated tells that not one of several sequences was read whole: seldom what is meant.
func AllTruncated(r datasets.TokensReport) bool { return r.Instances > 1 && r.Truncated == r.Instances }

func origin(i datasets.Instance) string {
	if i.Meta == nil || i.Meta.Document == "" {
		return ""
	}
	return " (document " + i.Meta.Document + ")"
}

func encodeAll(ctx context.Context, chunk []datasets.Instance, enc Encoder, p datasets.TokensParams) ([]outcome, error) {
	outcomes := make([]outcome, len(chunk))
	group, ctx := errgroup.WithContext(ctx)
	workers := runtime.GOMAXPROCS(0)
	for worker := range workers {
		group.Go(func() error {
			for i := worker; i < len(chunk); i += workers {
				if err := ctx.Err(); err != nil {
					return err
				}
				outcomes[i] = encode(chunk[i], enc, p)
			}
			return nil
		})
	}
	return outcomes, group.Wait()
}

func encode(instance datasets.Instance, enc Encoder, p datasets.TokensParams) outcome {
	messages, removed := Clean(instance.Messages)
	o := outcome{removed: removed}
	if len(messages) == 0 {
		o.drop = DroppedEmpty
		return o
	}
	if o.err = (datasets.Instance{Messages: messages}).Check(); o.err != nil {
		return o
	}
	ids, labels, err := enc.Encode(messages)
	if err == nil && (len(ids) == 0 || len(labels) != len(ids)) {
		err = fmt.Errorf("the template gave %d tokens and %d labels", len(ids), len(labels))
	}
	if err != nil {
		o.err = err
		return o
	}
	full := datasets.Sequence{IDs: ids, Labels: labels}
	o.length = len(ids)
	seq, keep, err := full.Truncate(p.MaxLength, p.OverLength)
	switch {
	case err != nil:
		o.err = err
	case !keep:
		o.drop = DroppedOverLength
	default:
		o.seq = seq
		before, after := full.Targets(), seq.Targets()
		o.cut = after < before
		switch {
		case after == 0 && before == 0:
			o.drop = DroppedEmpty
		case o.cut && p.CutAnswers == datasets.CutAnswersError:
			o.err = fmt.Errorf("%d of %d target tokens lie beyond max_length %d; raise it, or set cut_answers: keep or drop", before-after, before, p.MaxLength)
		case after == 0:
			o.drop = DroppedNoTarget
		case o.cut && p.CutAnswers == datasets.CutAnswersDrop:
			o.drop = DroppedCutAnswer
		}
	}
	return o
}

// enter counts an outcome and writes its sequence.
func enter(r *datasets.TokensReport, o outcome, number int, w *Writer) error {
	r.EmptyReplies += o.removed
	if o.drop == DroppedOverLength || len(o.seq.IDs) < o.length && len(o.seq.IDs) > 0 {
		r.Truncated++
	}
	if o.cut {
		r.CutAnswers++
	}
	if o.drop != "" {
		if r.Dropped == nil {
			r.Dropped = map[string]int{}
		}
		r.Dropped[o.drop]++
		r.Ledger.Drop(o.length)
		return nil
	}
	r.Sequences++
	r.Ledger.Kept(o.length, o.seq)
	r.Lengths = bump(r.Lengths, len(o.seq.IDs))
	r.Answers = bump(r.Answers, o.seq.Targets())
	return w.Add(o.seq, number, 1)
}

// bump counts n in a histogram of powers of two.
func bump(histogram []int, n int) []int {
	b := bits.Len(uint(max(n, 1) - 1))
	for len(histogram) <= b {
		histogram = append(histogram, 0)
	}
	histogram[b]++
	return histogram
}
