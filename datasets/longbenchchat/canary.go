package longbenchchat

import (
	"errors"
	"fmt"
	"math"

	"github.com/longalign/longalign-go/datasets/bootstrap"
)

// Drift compares ratings of the same fixed answers by one judge at two times. A judge
// behind an address may change while its name does not; the canary answers
// tell.
type Drift struct {
	// Compared answers were rated both times; Missing only once.
	Compared, Missing int
	// Shift is the mean of now − then with its 95 % interval and P.
	Shift bootstrap.PairedResult
	// Largest is the largest change of one answer, up or down, and LargestID its id.
	Largest   float64
	LargestID string
	// Moved says that the judge is no longer the same: see CompareCanary.
	Moved bool
}

// Tolerance is how far ratings may move before a judge is flagged.
type Tolerance struct {
	// Mean bounds the mean shift, Single the change of one answer, both in ratings.
	Mean, Single float64
}

// DefaultTolerance allows what repeated judging at temperature 0 shows: half a
// rating in the mean, two ratings for one answer.
var DefaultTolerance = Tolerance{Mean: 0.5, Single: 2}

// CompareCanary compares the canary's ratings now with those recorded then. The
// judge has moved when the mean shift exceeds tol.Mean or one answer moved by more than
// tol.Single. It is an error when no answer was rated both times: then nothing is known.
func CompareCanary(then, now []bootstrap.Sample, tol Tolerance, seed uint64) (Drift, error) {
	m, err := bootstrap.Match(now, then)
	if err != nil {
		return Drift{}, fmt.Errorf("canary: %w", err)
	}
	d := Drift{Compared: len(m.IDs), Missing: len(m.OnlyA) + len(m.OnlyB)}
	if d.Compared == 0 {
		return d, errors.New("canary: no answer was rated both times; drift cannot be told")
	}
	d.Shift = bootstrap.Paired(m.A, m.B, seed, 0)
	for i, id := range m.IDs {
		if change := m.A[i] - m.B[i]; math.Abs(change) > math.Abs(d.Largest) {
			d.Largest, d.LargestID = change, id
		}
	}
	d.Moved = math.Abs(d.Shift.Diff) > tol.Mean || math.Abs(d.Largest) > tol.Single
	return d, nil
}
