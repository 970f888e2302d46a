package longbenchchat

import (
	"errors"
	"fmt"
	"math"
)

const (
	// MaxTries is how often a judge is asked for one rating.
	MaxTries = 5
	// Rounds is how often each answer is judged; its rating is the mean.
	Rounds = 2
)

// Judging collects the replies for one answer until it is rated or given up. The
// caller asks the judge and passes what it says:
//
//	for j := NewJudging(Chat); !j.Done(); {
//		reply, err := ask(ctx, prompt, j.Round(), j.Try())
//		…
//		j.Reply(reply)
//	}
//
// It holds no clock and makes no calls, so that replaying stored replies gives the same
// result.
type Judging struct {
	scale   Scale
	ratings []float64
	tries   int
	err     error
}

// NewJudging starts the judging of one answer.
func NewJudging(scale Scale) *Judging { return &Judging{scale: scale} }

// Round is the judgment being asked for, from 0, and Try the attempt at it, from 0.
// Together they name a request: a repeated try must not be answered from a cache.
func (j *Judging) Round() int { return len(j.ratings) }

// Try is the attempt at the current round.
func (j *Judging) Try() int { return j.tries }

// Done reports whether no further reply is wanted.
func (j *Judging) Done() bool { return len(j.ratings) == Rounds || j.tries >= MaxTries }

// Reply takes a judge's reply. A reply without rating uses up a try.
func (j *Judging) Reply(text string) {
	if j.Done() {
		return
	}
	v, err := j.scale.Parse(text)
	if err != nil {
		j.err, j.tries = err, j.tries+1
		return
	}
	j.ratings, j.tries, j.err = append(j.ratings, v), 0, nil
}

// Rating is the mean of the rounds. An answer for which a round never got a rating
// has failed: the error wraps the last *RatingError. It is not a zero.
func (j *Judging) Rating() (float64, error) {
	if len(j.ratings) == Rounds {
		var sum float64
		for _, r := range j.ratings {
			sum += r
		}
		return sum / Rounds, nil
	}
	if j.tries >= MaxTries {
		return 0, fmt.Errorf("judgment %d of %d failed %d times: %w", len(j.ratings)+1, Rounds, j.tries, j.err)
	}
	return 0, errors.New("judging is not finished")
}

// Rated is one answer's outcome.
type Rated struct {
	ID        string  `json:"_id"`
	Rating    float64 `json:"rating"`
	Failed    string  `json:"failed,omitempty"`
	Truncated bool    `json:"truncated,omitempty"`
}

// Total is the score of a model.
type Total struct {
	// Mean is the mean rating, NaN without any. PointWise is the leaderboard's
	// point-wise rate: Mean × 10.
	Mean, PointWise float64
	// N answers have a rating; Failed have none and count nowhere.
	N, Failed, Truncated int
}

// Summarize averages ratings. With Failed > 0 the score is incomplete, but
// one failure does not void the others, as it does in the reference.
func Summarize(rated []Rated) Total {
	var t Total
	for _, r := range rated {
		if r.Truncated {
			t.Truncated++
		}
		if r.Failed != "" {
			t.Failed++
			continue
		}
		t.N++
		t.Mean += r.Rating
	}
	if t.N == 0 {
		t.Mean, t.PointWise = math.NaN(), math.NaN()
		return t
	}
	t.Mean /= float64(t.N)
	t.PointWise = 10 * t.Mean
	return t
}
