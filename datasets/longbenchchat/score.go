package longbenchchat

import (
	"errors"
	"fmt"
)

const (
	// MaxTries is how often a judge is asked for one rating.
	MaxTries = 5
	// Rounds is how often each answer to LongBench-Chat is judged; its rating is the mean.
	Rounds = 2
)

// Judging collects the replies for one answer until it is rated or given up. The
// caller asks the judge and passes what it says:
//
//	for j := NewJudging(Chat.Parse, Rounds); !j.Done(); {
//		reply, err := ask(ctx, prompt, j.Round(), j.Try())
//		…
//		j.Reply(reply)
//	}
//
// It holds no clock and makes no calls, so that replaying stored replies gives the same
// result.
type Judging struct {
	parse   func(reply string) (float64, error)
	rounds  int
	ratings []float64
	tries   int
	err     error
}

// NewJudging starts the judging of one answer, whose rating will be the mean of several rounds. parse reads the rating
// from a reply.
func NewJudging(parse func(reply string) (float64, error), rounds int) *Judging {
	return &Judging{parse: parse, rounds: rounds}
}

// Round is the judgment being asked for, from 0, and Try the attempt at it, from 0.
// Together they name a request: a repeated try must not be answered from a cache.
func (j *Judging) Round() int { return len(j.ratings) }

// Try is the attempt at the current round.
func (j *Judging) Try() int { return j.tries }

// Done reports whether no further reply is wanted.
func (j *Judging) Done() bool { return len(j.ratings) == j.rounds || j.tries >= MaxTries }

// Reply takes a judge's reply. A reply without rating uses up a try.
func (j *Judging) Reply(text string) {
	if j.Done() {
		return
	}
	v, err := j.parse(text)
	if err != nil {
		j.Fail(err)
		return
	}
	j.ratings, j.tries, j.err = append(j.ratings, v), 0, nil
}

// Fail uses up a try that brought no reply at all.
func (j *Judging) Fail(err error) {
	if !j.Done() {
		j.err, j.tries = err, j.tries+1
	}
}

// Rating is the mean of the rounds. An answer for which a round never got a rating
// has failed: the error wraps the last *RatingError. It is not a zero.
func (j *Judging) Rating() (float64, error) {
	if len(j.ratings) == j.rounds {
		var sum float64
		for _, r := range j.ratings {
			sum += r
		}
		return sum / float64(j.rounds), nil
	}
	if j.tries >= MaxTries {
		return 0, fmt.Errorf("judgment %d of %d failed %d times: %w", len(j.ratings)+1, j.rounds, j.tries, j.err)
	}
	return 0, errors.New("judging is not finished")
}
