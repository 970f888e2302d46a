package documents

import (
	"bufio"
	"crypto/sha256"
	"runtime"
	"strings"

	"github.com/longalign/longalign-go/datasets"
)

// Facts are what is found out about a document by itself, if nothing is wrong with it by itself.
type Facts struct {
	datasets.Document
	// Digest are 16 bytes of the text's sha256, white space aside.
	Digest []byte `json:"digest"`
	// Overlaps says that it shares an n-gram with Benchmark.
	Overlaps  bool   `json:"overlaps,omitempty"`
	Benchmark string `json:"benchmark,omitempty"`
	// Signature is nil for texts without words, and where nobody asks for near duplicates.
	Signature *signature `json:"signature,omitempty"`
}

// looker finds out about several documents at once what takes time and does not depend on others.
type looker struct {
	p     datasets.DocumentsParams
	count func(string) int
	eval  *Evaluation
	// give is given the facts about documents that nothing is wrong with, in the order read.
	give    func(Facts) error
	report  datasets.DocumentsReport
	pending []chan looked // under way, in the order read
}

type looked struct {
	Facts
	reason string // why it is not kept, whatever came before
}

func newLooker(p datasets.DocumentsParams, count func(string) int, eval *Evaluation, give func(Facts) error) *looker {
	return &looker{p: p, count: count, eval: eval, give: give, report: datasets.DocumentsReport{Dropped: map[string]int{}}}
}

func (l *looker) bad(e *InputError) error {
	if l.p.BadInput == datasets.BadInputFail {
		return e
	}
	l.report.Read++
	l.report.Dropped[DroppedUnreadable]++
	if len(l.report.BadInput) < maxBadInput {
		l.report.BadInput = append(l.report.BadInput, e.Error())
	}
	return nil
}

// offer has d looked at beside others, and passes on the first of those under way once there are enough of them.
func (l *looker) offer(d datasets.Document) error {
	found := make(chan looked, 1)
	go func() { found <- l.look(d) }()
	l.pending = append(l.pending, found)
	return l.settle(2 * runtime.GOMAXPROCS(0))
}

// settle passes documents on in the order read until at most rest are under way.
func (l *looker) settle(rest int) error {
	for len(l.pending) > rest {
		d := <-l.pending[0]
		l.pending = l.pending[1:]
		if d.reason != "" {
			l.report.Read++
			l.report.Dropped[d.reason]++
			continue
		}
		if err := l.give(d.Facts); err != nil {
			return err
		}
	}
	return nil
}

// look runs beside itself.
func (l *looker) look(d datasets.Document) looked {
	found := looked{Facts: Facts{Document: d}}
	if strings.TrimSpace(d.Text) == "" {
		found.reason = DroppedEmpty
		return found
	}
	found.Tokens = l.count(d.Text)
	switch {
	case found.Tokens < l.p.MinTokens:
		found.reason = DroppedShort
		return found
	case l.p.MaxTokens > 0 && found.Tokens > l.p.MaxTokens:
		found.reason = DroppedLong
		return found
	}
	found.Facts.Digest = spaceless(d.Text)
	if l.p.DecontaminationNGram > 0 {
		found.Benchmark, found.Overlaps = l.eval.overlap(d.Text)
	}
	if l.p.NearDuplicates > 0 {
		if s, words := minHash(d.Text); words {
			found.Signature = &s
		}
	}
	return found
}

// spaceless is the digest of a text whose runs of white space count as one space, those around it as none.
func spaceless(text string) []byte {
	sum := sha256.New()
	w := bufio.NewWriter(sum) // hashes do not fail
	first := true
	for field := range strings.FieldsSeq(text) {
		if !first {
			w.WriteByte(' ')
		}
		first = false
		w.WriteString(field)
	}
	w.Flush()
	return sum.Sum(nil)[:16]
}
