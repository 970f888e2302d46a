package bootstrap

import (
	"fmt"
	"slices"
	"strings"
)

// Sample is the score of one sample, named by its benchmark id.
type Sample struct {
	ID    string
	Score float64
}

// Matched holds two methods' scores on the samples both have, ordered by id.
type Matched struct {
	IDs  []string
	A, B []float64
	// OnlyA and OnlyB are the ids that one method lacks, because it failed on them
	// or never saw them. They are not compared; report their number.
	OnlyA, OnlyB []string
}

// Match pairs the scores of two methods by sample id, never by position. An empty
// or repeated id is an error: it would pair the wrong samples.
func Match(a, b []Sample) (Matched, error) {
	a, err := sortedByID("first", a)
	if err != nil {
		return Matched{}, err
	}
	b, err = sortedByID("second", b)
	if err != nil {
		return Matched{}, err
	}
	var m Matched
	for len(a) > 0 && len(b) > 0 {
		switch strings.Compare(a[0].ID, b[0].ID) {
		case -1:
			m.OnlyA = append(m.OnlyA, a[0].ID)
			a = a[1:]
		case 1:
			m.OnlyB = append(m.OnlyB, b[0].ID)
			b = b[1:]
		default:
			m.IDs = append(m.IDs, a[0].ID)
			m.A = append(m.A, a[0].Score)
			m.B = append(m.B, b[0].Score)
			a, b = a[1:], b[1:]
		}
	}
	for _, s := range a {
		m.OnlyA = append(m.OnlyA, s.ID)
	}
	for _, s := range b {
		m.OnlyB = append(m.OnlyB, s.ID)
	}
	return m, nil
}

func sortedByID(which string, samples []Sample) ([]Sample, error) {
	s := slices.Clone(samples)
	slices.SortFunc(s, func(x, y Sample) int { return strings.Compare(x.ID, y.ID) })
	for i := range s {
		if s[i].ID == "" {
			return nil, fmt.Errorf("match: the %s method has a sample without an id; score it with the benchmark's inputs", which)
		}
		if i > 0 && s[i].ID == s[i-1].ID {
			return nil, fmt.Errorf("match: the %s method has two samples with id %q; remove the duplicate rows", which, s[i].ID)
		}
	}
	return s, nil
}
