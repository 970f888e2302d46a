package documents

import (
	"context"
	"fmt"
	"iter"

	"github.com/longalign/longalign-go/datasets"
)

// A corpus is worked on in groups of files: Groups divides it, Look finds out about the documents of one group what does not depend
// on others, and Decide makes of all groups' facts, in order, what Build would have made.

// Group is some files of one source.
type Group struct {
	Source  int     `json:"source"` // its number among the sources
	Entries []Entry `json:"entries"`
}

// Groups divides the entries of sources, in their order, into groups whose files have at most bytes bytes, or are one file.
func Groups(sources [][]Entry, bytes int64) []Group {
	var groups []Group
	for i, entries := range sources {
		size := int64(0)
		for k, e := range entries {
			if size += e.Size; k == 0 || size > bytes {
				groups, size = append(groups, Group{Source: i}), e.Size
			}
			last := &groups[len(groups)-1]
			last.Entries = append(last.Entries, e)
		}
	}
	return groups
}

// Look reads groups and gives write the facts about every document that nothing is wrong with by itself. The report counts the others.
// Files that are not what they were when they were hashed are ErrChanged.
func Look(ctx context.Context, sources []Source, groups []Group, p datasets.DocumentsParams, count func(text string) int, eval *Evaluation, write func(Facts) error) (datasets.DocumentsReport, error) {
	sources, err := prepare(sources, &p)
	if err != nil {
		return datasets.DocumentsReport{}, err
	}
	l := newLooker(p, count, eval, write)
	for _, g := range groups {
		if g.Source < 0 || g.Source >= len(sources) {
			return l.report, fmt.Errorf("documents: there is no source %d", g.Source)
		}
		s := sources[g.Source]
		files, err := readEntries(ctx, s, g.Entries, p.MaxBytes, l.offer, l.bad)
		l.report.Files += files
		if err != nil {
			return l.report, fmt.Errorf("documents: source %s: %w", s.Name, err)
		}
	}
	if err := l.settle(0); err != nil {
		return l.report, fmt.Errorf("documents: %w", err)
	}
	return l.report, nil
}

// Decide is the rest of Build, after Look: reports are those of all groups, facts what they gave, both in order.
func Decide(p datasets.DocumentsParams, reports []datasets.DocumentsReport, facts iter.Seq2[Facts, error], write func(datasets.Document) error) (datasets.DocumentsReport, error) {
	f := newFilter(p, write)
	for _, r := range reports {
		f.add(r)
	}
	for found, err := range facts {
		if err == nil && len(found.Digest) != 16 {
			err = fmt.Errorf("the facts about %s have no digest", found.ID)
		}
		if err == nil {
			err = f.decide(found)
		}
		if err != nil {
			return f.report, fmt.Errorf("documents: %w", err)
		}
	}
	return f.report, f.finish()
}
