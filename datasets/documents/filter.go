package documents

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
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
	f := newFilter(p, write)
	sources, err := prepare(sources, &f.p)
	if err != nil {
		return f.report, err
	}
	look := newLooker(f.p, count, eval, f.decide)
	for _, s := range sources {
		files, err := Read(ctx, s, f.p.MaxBytes, look.offer, look.bad)
		look.report.Files += files
		if err != nil {
			f.add(look.report)
			return f.report, fmt.Errorf("documents: source %s: %w", s.Name, err)
		}
	}
	err = look.settle(0)
	f.add(look.report)
	if err != nil {
		return f.report, fmt.Errorf("documents: %w", err)
	}
	return f.report, f.finish()
}

// prepare gives sources the parameters that p, with defaults filled in, has of them.
func prepare(sources []Source, p *datasets.DocumentsParams) ([]Source, error) {
	*p = p.Defaults()
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("documents: %w", err)
	}
	if len(sources) != len(p.Sources) {
		return nil, fmt.Errorf("documents: %d sources are open, the parameters name %d", len(sources), len(p.Sources))
	}
	prepared := slices.Clone(sources)
	for i := range prepared {
		include := prepared[i].Include
		prepared[i].DocumentSource = p.Sources[i]
		prepared[i].Include = include // Local narrows it to a single file
	}
	return prepared, nil
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

// filter decides about one document after the other.
type filter struct {
	p      datasets.DocumentsParams
	write  func(datasets.Document) error
	exact  map[[16]byte]struct{}
	near   *nearIndex
	drawn  [2]draw // training, held out
	serial int
	report datasets.DocumentsReport
}

func newFilter(p datasets.DocumentsParams, write func(datasets.Document) error) *filter {
	f := &filter{p: p.Defaults(), write: write, exact: map[[16]byte]struct{}{}}
	f.report.Dropped = map[string]int{}
	if f.p.NearDuplicates > 0 {
		f.near = newNearIndex(f.p.NearDuplicates)
	}
	return f
}

// add counts what was found out about documents by themselves.
func (f *filter) add(r datasets.DocumentsReport) {
	f.report.Files += r.Files
	f.report.Read += r.Read
	for reason, n := range r.Dropped {
		f.report.Dropped[reason] += n
	}
	f.report.BadInput = append(f.report.BadInput, r.BadInput...)
	f.report.BadInput = f.report.BadInput[:min(len(f.report.BadInput), maxBadInput)]
}

// decide is about a document that nothing is wrong with by itself.
func (f *filter) decide(found Facts) error {
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
func (f *filter) reject(found *Facts) string {
	digest := [16]byte(found.Digest)
	if _, ok := f.exact[digest]; ok {
		return DroppedDuplicate
	}
	f.exact[digest] = struct{}{}
	// Contaminated texts come first, so that no later text is dropped for being like one.
	if found.Overlaps {
		if f.report.Contaminated == nil {
			f.report.Contaminated = map[string]int{}
		}
		f.report.Contaminated[found.Benchmark]++
		return DroppedContaminated
	}
	if found.Signature != nil && f.near != nil && f.near.add(found.Signature) {
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

// finish writes what was drawn, in the order read.
func (f *filter) finish() error {
	all := slices.Concat(f.drawn[0], f.drawn[1])
	slices.SortFunc(all, func(a, b drawnDocument) int { return cmp.Compare(a.serial, b.serial) })
	for _, d := range all {
		if err := f.keep(d.Document); err != nil {
			return fmt.Errorf("documents: %w", err)
		}
	}
	if f.report.Kept-f.report.HeldOut == 0 {
		return fmt.Errorf("documents: %w: %s; check the sources' paths and patterns, min_tokens, max_tokens and held_out", ErrNoDocuments, Summary(f.report))
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
