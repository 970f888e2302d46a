package documents

import (
	"bufio"
	"cmp"
	"container/heap"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/longalign/longalign-go/datasets"
)

// Reasons in DocumentsReport.Dropped.
const (
	DroppedEmpty         = "empty"
	DroppedShort         = "too short"
	DroppedLong          = "too long"
	DroppedDuplicate     = "duplicate"
	DroppedNearDuplicate = "near duplicate"
	DroppedContaminated  = "overlaps evaluation"
	DroppedNotDrawn      = "not drawn"
	DroppedUnreadable    = "unreadable"
)

// maxBadInput bounds the places a report names; the count has them all.
const maxBadInput = 20

// ErrNoDocuments is a documents stage that kept nothing.
var ErrNoDocuments = errors.New("no training document is left")

// Build runs the documents stage: it reads sources in order and gives write every document kept, in
// the order read, copies of an up-sampled one together. count measures texts in
// tokens, and must be safe for concurrent use. eval may be nil.
func Build(ctx context.Context, sources []Source, p datasets.DocumentsParams, count func(text string) int, eval *Evaluation, write func(datasets.Document) error) (datasets.DocumentsReport, error) {
	p = p.Defaults()
	f := &filter{p: p, count: count, eval: eval, write: write, exact: map[[16]byte]struct{}{}}
	f.report.Dropped = map[string]int{}
	if err := p.Validate(); err != nil {
		return f.report, fmt.Errorf("documents: %w", err)
	}
	if len(sources) != len(p.Sources) {
		return f.report, fmt.Errorf("documents: %d sources are open, the parameters name %d", len(sources), len(p.Sources))
	}
	if p.NearDuplicates > 0 {
		f.near = newNearIndex(p.NearDuplicates)
	}
	for i, s := range sources {
		include := s.Include
		s.DocumentSource = p.Sources[i]
		s.Include = include // Local narrows it to a single file
		files, err := Read(ctx, s, p.MaxBytes, f.offer, f.bad)
		f.report.Files += files
		if err != nil {
			return f.report, fmt.Errorf("documents: source %s: %w", s.Name, err)
		}
	}
	if err := f.finish(); err != nil {
		return f.report, fmt.Errorf("documents: %w", err)
	}
	if f.report.Kept-f.report.HeldOut == 0 {
		return f.report, fmt.Errorf("documents: %w: %s; check the sources' paths and patterns, min_tokens, max_tokens and held_out", ErrNoDocuments, Summary(f.report))
	}
	return f.report, nil
}

// Summary says in a line what a report counts.
func Summary(r datasets.DocumentsReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d files, %d documents read, %d kept (%d held out)", r.Files, r.Read, r.Kept, r.HeldOut)
	reasons := make([]string, 0, len(r.Dropped))
	for reason := range r.Dropped {
		reasons = append(reasons, reason)
	}
	slices.Sort(reasons)
	for _, reason := range reasons {
		fmt.Fprintf(&b, ", %d %s", r.Dropped[reason], reason)
	}
	return b.String()
}

// filter looks at several documents at once and decides about one after the other.
type filter struct {
	p      datasets.DocumentsParams
	count  func(string) int
	eval   *Evaluation
	write  func(datasets.Document) error
	exact  map[[16]byte]struct{}
	near   *nearIndex
	drawn  [2]draw // training, held out
	serial int
	report datasets.DocumentsReport
	// pending are the documents under way, in the order read.
	pending []chan facts
}

func (f *filter) bad(e *InputError) error {
	if f.p.BadInput == datasets.BadInputFail {
		return e
	}
	f.report.Read++
	f.report.Dropped[DroppedUnreadable]++
	if len(f.report.BadInput) < maxBadInput {
		f.report.BadInput = append(f.report.BadInput, e.Error())
	}
	return nil
}

// facts are what is found out about a document by itself.
type facts struct {
	datasets.Document
	reason    string // why it is not kept, whatever came before
	digest    [16]byte
	benchmark string // that it overlaps with, if it does
	overlaps  bool
	words     bool // there are some, so that signature says something
	signature signature
}

// offer has d looked at beside others, and decides about the first of those under way once there are enough of them.
func (f *filter) offer(d datasets.Document) error {
	found := make(chan facts, 1)
	go func() { found <- f.look(d) }()
	f.pending = append(f.pending, found)
	return f.settle(2 * runtime.GOMAXPROCS(0))
}

// settle decides about documents in the order read until at most rest are under way.
func (f *filter) settle(rest int) error {
	for len(f.pending) > rest {
		d := <-f.pending[0]
		f.pending = f.pending[1:]
		if err := f.decide(d); err != nil {
			return err
		}
	}
	return nil
}

// look finds out what takes time and does not depend on other documents. It runs beside itself.
func (f *filter) look(d datasets.Document) facts {
	found := facts{Document: d}
	if strings.TrimSpace(d.Text) == "" {
		found.reason = DroppedEmpty
		return found
	}
	found.Tokens = f.count(d.Text)
	switch {
	case found.Tokens < f.p.MinTokens:
		found.reason = DroppedShort
		return found
	case f.p.MaxTokens > 0 && found.Tokens > f.p.MaxTokens:
		found.reason = DroppedLong
		return found
	}
	found.digest = spaceless(d.Text)
	if f.p.DecontaminationNGram > 0 {
		found.benchmark, found.overlaps = f.eval.overlap(d.Text)
	}
	if f.near != nil {
		found.signature, found.words = minHash(d.Text)
	}
	return found
}

// spaceless is the digest of a text whose runs of white space count as one space, those around it as none.
func spaceless(text string) [16]byte {
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
	return [16]byte(sum.Sum(nil)[:16])
}

func (f *filter) decide(found facts) error {
	f.report.Read++
	if reason := f.reject(&found); reason != "" {
		f.report.Dropped[reason]++
		return nil
	}
	d := found.Document
	d.Split = datasets.SplitTrain
	side, limit := &f.drawn[0], f.p.MaxDocuments
	if share(f.p.Seed, "split", d.Group) < f.p.HeldOut {
		d.Split = datasets.SplitHeldOut
		side, limit = &f.drawn[1], f.p.MaxHeldOut
	}
	if limit == 0 {
		return f.keep(d)
	}
	f.serial++
	heap.Push(side, drawnDocument{d, share(f.p.Seed, "draw", d.ID), f.serial})
	if side.Len() > limit {
		heap.Pop(side)
		f.report.Dropped[DroppedNotDrawn]++
	}
	return nil
}

// reject returns why a document is not kept.
func (f *filter) reject(found *facts) string {
	if found.reason != "" {
		return found.reason
	}
	if _, ok := f.exact[found.digest]; ok {
		return DroppedDuplicate
	}
	f.exact[found.digest] = struct{}{}
	// Contaminated texts come first, so that no later text is dropped for being like one.
	if found.overlaps {
		if f.report.Contaminated == nil {
			f.report.Contaminated = map[string]int{}
		}
		f.report.Contaminated[found.benchmark]++
		return DroppedContaminated
	}
	if found.words && f.near.add(&found.signature) {
		return DroppedNearDuplicate
	}
	return ""
}

// keep writes d, and its copies.
func (f *filter) keep(d datasets.Document) error {
	f.report.Kept++
	copies := 1
	if d.Split == datasets.SplitHeldOut {
		f.report.HeldOut++
	} else if f.p.UpsampleAbove > 0 && d.Tokens > f.p.UpsampleAbove {
		copies = f.p.UpsampleTimes
	}
	f.report.Copies += copies - 1
	for c := range copies {
		d.Copy = c
		f.report.Tokens += int64(d.Tokens)
		if err := f.write(d); err != nil {
			return err
		}
	}
	return nil
}

// finish decides about what is under way and writes what was drawn, in the order read.
func (f *filter) finish() error {
	if err := f.settle(0); err != nil {
		return err
	}
	all := slices.Concat(f.drawn[0], f.drawn[1])
	slices.SortFunc(all, func(a, b drawnDocument) int { return cmp.Compare(a.serial, b.serial) })
	for _, d := range all {
		if err := f.keep(d.Document); err != nil {
			return err
		}
	}
	return nil
}

// share maps a name to a number in [0, 1): the first 53 bits of the sha256 of purpose, seed and name, parted
// by NUL. Documents are held out by their group's share for "split", and drawn by lowest share for "draw".
func share(seed uint64, purpose, name string) float64 {
	sum := sha256.Sum256([]byte(purpose + "\x00" + strconv.FormatUint(seed, 10) + "\x00" + name))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}

// draw keeps the documents of lowest share: a heap with the highest on top.
type draw []drawnDocument

type drawnDocument struct {
	datasets.Document
	share  float64
	serial int
}

func (d draw) Len() int           { return len(d) }
func (d draw) Less(i, j int) bool { return d[i].share > d[j].share }
func (d draw) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }

// Push adds a drawnDocument.
func (d *draw) Push(x any) { *d = append(*d, x.(drawnDocument)) }

// Pop removes the last.
func (d *draw) Pop() any {
	old := *d
	last := old[len(old)-1]
	*d = old[:len(old)-1]
	return last
}
