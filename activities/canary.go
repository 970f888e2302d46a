package activities

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/bootstrap"
	"github.com/longalign/longalign-go/datasets/longbench"
	"github.com/longalign/longalign-go/datasets/longbenchchat"
)

// CanaryReport compares a judge's ratings of fixed answers with its first ones in this store.
type CanaryReport struct {
	Now  []bootstrap.Sample `json:"now"`
	Then []bootstrap.Sample `json:"then,omitempty"` // nil: this was the first time
	// Since is when the first ratings were given.
	Since   time.Time `json:"since"`
	Shift   float64   `json:"shift"`
	Largest float64   `json:"largest"`
	Moved   bool      `json:"moved"`
	Failed  []string  `json:"failed,omitempty"`
}

// canary are fixed questions with answers that are good, middling and bad: what a judge rates differently when it is no longer the same.
var canary = []struct{ id, question, reference, answer string }{
	{"right", "In which year was the bridge opened?", "1932", "The bridge was opened in 1932."},
	{"partly", "Who wrote the report, and when?", "Ada Brown wrote it in March 1998.", "Ada Brown wrote it; no date is given."},
	{"wrong", "What did the committee decide?", "It postponed the vote to the autumn session.", "It approved the plan at once and without debate."},
	{"padded", "How many samples failed?", "Three samples failed.", "Many things can fail in such a procedure, which has several steps. Of the samples, three failed. Failure is common."},
	{"hedged", "Is the second method faster?", "Yes, by a factor of two.", "It may or may not be; the text can be read either way."},
}

// canaryJournal keeps the first ratings of each judge.
const canaryJournal = "canary"

type canaryEntry struct {
	Ratings []bootstrap.Sample `json:"ratings"`
	At      time.Time          `json:"at"`
}

// canaryRound numbers the canary's requests: those of one run and day are the same, so that a run's stages and attempts share the replies
// and pay for them once.
func canaryRound(run string, now time.Time) int {
	sum := sha256.Sum256([]byte(run + " " + now.Format(time.DateOnly)))
	return int(binary.BigEndian.Uint64(sum[:]) >> 8) // room for the tries beside it
}

// askCanary has the judge rate the canary anew, and says when the ratings have moved.
func (j *job) askCanary(ctx context.Context, who judge, p datasets.EndpointParams) error {
	scale, err := longbenchchat.ScaleOf(longbench.SingleDocQA)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	report := CanaryReport{Since: now}
	for _, c := range canary {
		user, err := longbenchchat.TaskPrompt(longbench.SingleDocQA, c.question, []string{c.reference}, c.answer)
		if err != nil {
			return err
		}
		made, err := who.rate(ctx, toRate{id: c.id, rounds: 1, parse: scale.Parse, messages: []datasets.Message{
			{Role: datasets.RoleSystem, Content: longbenchchat.System}, {Role: datasets.RoleUser, Content: user},
		}}, canaryRound(cmp.Or(j.call.Run, j.call.Key), now))
		if err != nil {
			return err
		}
		if made.Failed != "" {
			report.Failed = append(report.Failed, c.id)
			continue
		}
		report.Now = append(report.Now, bootstrap.Sample{ID: c.id, Score: made.Rating})
	}
	if err := j.compareCanary(ctx, &report, p); err != nil {
		return err
	}
	if len(report.Now) == 0 {
		j.note("the judge rated none of the canary's answers, so that nobody knows whether it has changed")
	}
	if report.Moved {
		j.manifest.Flags = append(j.manifest.Flags, flagMoved)
		j.manifest.Warnings = append(j.manifest.Warnings, "the judge rates fixed answers differently, or no longer, than on "+report.Since.Format(time.DateOnly)+": its ratings are not comparable with earlier ones")
	}
	return j.putMeasured(ctx, canaryFile, report)
}

func (j *job) compareCanary(ctx context.Context, report *CanaryReport, p datasets.EndpointParams) error {
	identity := sha256.Sum256(mustMarshal([]any{p.Model, p.Sampling()}))
	name := hex.EncodeToString(identity[:])
	if len(report.Now) > 0 { // a judge that rates nothing is no measure for later ones
		err := j.a.Store.AddEntry(ctx, canaryJournal, name, canaryEntry{report.Now, report.Since})
		if !errors.Is(err, artifact.ErrExists) {
			return err
		}
	}
	var first canaryEntry
	err := j.a.Store.Entry(ctx, canaryJournal, name, &first)
	if errors.Is(err, artifact.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	report.Then, report.Since = first.Ratings, first.At
	for _, then := range first.Ratings { // what it rated once, and rates no longer, has moved as far as can be
		if slices.Contains(report.Failed, then.ID) {
			report.Moved = true
		}
	}
	drift, err := longbenchchat.CompareCanary(first.Ratings, report.Now, canaryTolerance, 0)
	if err != nil {
		return nil // no answer was rated both times: the report shows it
	}
	report.Shift, report.Largest, report.Moved = drift.Shift.Diff, drift.Largest, drift.Moved || report.Moved
	return nil
}

// canaryTolerance is for ratings from 1 to 3: a quarter of a rating in the mean, and one answer by one.
var canaryTolerance = longbenchchat.Tolerance{Mean: 0.25, Single: 1}
