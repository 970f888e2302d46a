package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/longalign/longalign-go/activities"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
	"github.com/longalign/longalign-go/workflows"
)

// result is what a run left in its store.
type result struct {
	id          string
	took        time.Duration
	checkpoints map[string]checkpoint // by cell and role
	tables      map[string]string     // rendered, by name
}

// checkpoint is a trained model.
type checkpoint struct {
	sha256   string
	attempts []activities.Attempt
	every    int // steps between checkpoints
}

// withEnv sets the variables of env in this process: the AWS and Temporal clients read them there.
func withEnv(env []string) {
	for _, kv := range env {
		if name, value, ok := strings.Cut(kv, "="); ok && (strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "TEMPORAL_") || name == "LONGALIGN_STORE") {
			os.Setenv(name, value)
		}
	}
}

func dial(ctx context.Context, env []string) (client.Client, error) {
	withEnv(env)
	return activities.Connection{}.Dial(ctx, time.Minute, nil)
}

// unavailable tells whether Temporal was merely away.
func unavailable(err error) bool {
	var away *serviceerror.Unavailable
	var late *serviceerror.DeadlineExceeded
	return errors.As(err, &away) || errors.As(err, &late)
}

func readResult(ctx context.Context, env []string, id string) (*result, error) {
	withEnv(env)
	store, err := activities.Connection{}.OpenStore(ctx)
	if err != nil {
		return nil, err
	}
	run, err := store.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	if run.Status != artifact.Completed || run.Tables == nil || len(run.Failed) > 0 {
		return nil, fmt.Errorf("run %s is %s, failed cells: %v", id, run.Status, run.Failed)
	}
	spec, err := workflows.RecordedSpec(run.Spec)
	if err != nil {
		return nil, err
	}
	r := &result{id: id, checkpoints: map[string]checkpoint{}, tables: map[string]string{}}
	for _, call := range run.Stages {
		if call.Stage != "checkpoint" {
			continue
		}
		c, err := readCheckpoint(ctx, store, call.Ref)
		if err != nil {
			return nil, err
		}
		c.every = spec.Train.CheckpointEvery
		if call.Role == "base" && spec.Pretrain != nil {
			c.every = spec.Pretrain.Train.CheckpointEvery
		}
		r.checkpoints[call.Role+" of "+call.Cell] = c
	}
	// The longest run of this study in the store is the one that was not answered from it.
	for other, err := range store.Runs(ctx) {
		if err == nil && other.ID == id && other.Finished.Sub(other.Started) > r.took {
			r.took = other.Finished.Sub(other.Started)
		}
	}
	study, err := activities.ReadStudy(ctx, store, *run.Tables, nil)
	if err != nil {
		return nil, err
	}
	for _, t := range reports.Tables(study) {
		if slices.Contains(t.Marks, reports.NoteMeasured) || slices.ContainsFunc(t.Columns, func(c reports.Column) bool { return slices.Contains(c.Marks, reports.NoteMeasured) }) {
			continue // seconds measured on this machine differ from run to run
		}
		b, err := reports.Render(reports.CSV, t)
		if err != nil {
			return nil, err
		}
		r.tables[t.Name] = string(b)
	}
	return r, nil
}

func readCheckpoint(ctx context.Context, store *artifact.Store, ref artifact.Ref) (checkpoint, error) {
	m, err := store.Manifest(ctx, ref)
	if err != nil {
		return checkpoint{}, err
	}
	var c checkpoint
	weights, ok := m.Output("model.safetensors")
	if !ok {
		return c, fmt.Errorf("%s holds no weights", ref)
	}
	c.sha256 = strings.TrimPrefix(weights.Blob.Digest, "sha256:")
	if out, ok := m.Output("attempts.json"); ok {
		if err := store.ReadJSON(ctx, out.Blob, &c.attempts); err != nil {
			return c, err
		}
	}
	return c, nil
}

// compare says what is equal, and fails when anything is not.
func compare(calm, rough *result, say func(string, ...any)) error {
	var wrong []string
	interruptions, worst, total := 0, 0, 0
	for _, name := range slices.Sorted(maps.Keys(calm.checkpoints)) {
		a, b := calm.checkpoints[name], rough.checkpoints[name]
		if a.sha256 != b.sha256 {
			wrong = append(wrong, fmt.Sprintf("checkpoint %s: %.16s undisturbed, %.16s disturbed", name, a.sha256, b.sha256))
		}
	}
	counted := map[string]bool{} // a base shared by many cells counts once
	for _, name := range slices.Sorted(maps.Keys(rough.checkpoints)) {
		c := rough.checkpoints[name]
		if counted[c.sha256] {
			continue
		}
		counted[c.sha256] = true
		for _, a := range c.attempts[min(1, len(c.attempts)):] {
			interruptions++
			worst, total = max(worst, a.Recomputed), total+a.Recomputed
			if a.Recomputed > c.every {
				wrong = append(wrong, fmt.Sprintf("%s: %d steps were computed again, a checkpoint is made every %d", name, a.Recomputed, c.every))
			}
			say("%s was taken up again at step %d (it had told of step %d): %d steps computed again", name, a.From, a.Reached, a.Recomputed)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(calm.tables)) {
		if calm.tables[name] != rough.tables[name] {
			wrong = append(wrong, fmt.Sprintf("table %s differs:\n--- undisturbed\n%s\n--- disturbed\n%s", name, calm.tables[name], rough.tables[name]))
		}
	}
	say("%d checkpoints and %d tables compared; tables of measured seconds left out", len(calm.checkpoints), len(calm.tables))
	say("%d interruptions fell into trainings; %d steps computed again in all, %d at most", interruptions, total, worst)
	if len(wrong) > 0 {
		return fmt.Errorf("the disturbed run is not the undisturbed one:\n%s", strings.Join(wrong, "\n"))
	}
	say("every checkpoint's sha256 and every table is equal")
	return nil
}
