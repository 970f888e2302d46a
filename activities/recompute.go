package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/reports"
)

// Cost says what making a result again would take besides processor time: "" for nothing, else a
// teacher, a training or a model on a device.
func Cost(stage string, params json.RawMessage) string {
	switch stage {
	case "instructions":
		// Of a call, or of a manifest, in which the prompts' digest stands for them.
		var p struct {
			Teacher  string
			Endpoint json.RawMessage
		}
		if json.Unmarshal(params, &p) != nil || p.Endpoint != nil || p.Teacher != "" && p.Teacher != datasets.OfflineTeacher {
			return "a teacher"
		}
	case "predictions":
		p, err := decodeParams[datasets.PredictionsStageParams](params)
		if err == nil && p.Answer != nil && p.Answer.Endpoint != nil {
			return "a language model"
		}
		return "a model on a device"
	case "judgments":
		p, err := decodeParams[datasets.JudgmentsParams](params)
		if err != nil || p.Endpoint != nil {
			return "a judge"
		}
	case "checkpoint":
		p, err := recordedParams[datasets.CheckpointParams](params)
		if err != nil || p.Objective != datasets.ObjectiveImport {
			return "a training"
		}
	}
	return ""
}

// NotReproducibleError says that a result cannot be made again from what is known of it.
type NotReproducibleError struct {
	Ref    artifact.Ref
	Reason string
}

// Error says why.
func (e *NotReproducibleError) Error() string {
	return fmt.Sprintf("%s cannot be made again here: %s", e.Ref, e.Reason)
}

// recomputation makes stored results again. The run it is for knows what manifests leave out on
// purpose: the paths of what was read from outside of the store.
type recomputation struct {
	a   *Activities
	run *artifact.RunRecord
	// asIs makes a result from what its inputs are now, though its key says that they were others.
	asIs bool
}

// again makes the result of m again, from the inputs it was made from, and returns the manifest of what came out,
// not stored.
func (r recomputation) again(ctx context.Context, m *artifact.Manifest) (*artifact.Manifest, error) {
	s, err := stageNamed(m.Stage)
	if err != nil {
		return nil, err
	}
	if s.version != m.StageVersion {
		return nil, &NotReproducibleError{m.Ref(), fmt.Sprintf("version %d of its stage made it, this program has version %d", m.StageVersion, s.version)}
	}
	call := Call{Stage: m.Stage, Inputs: m.Inputs, Key: m.Key}
	var described artifact.Action
	if err := json.Unmarshal(m.ActionKeyInput, &described); err != nil {
		return nil, fmt.Errorf("%s: action: %w", m.Ref(), err)
	}
	call.Class = described.DeviceClass
	var reason error
	all, remove, err := r.storedRatings(ctx, m, r.params(m))
	if err != nil {
		return nil, err
	}
	defer remove()
	for _, params := range all {
		call.Params = params
		action, err := r.a.action(ctx, call)
		if err != nil {
			reason = err
			continue
		}
		key, _, err := action.Key()
		if err != nil {
			return nil, err
		}
		if key != m.Key && !r.asIs {
			reason = errors.New("its inputs are no longer the same: files outside of the store, or a result made anew with another outcome")
			continue
		}
		return r.a.make(ctx, s, action, call)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, &NotReproducibleError{m.Ref(), reason.Error()}
}

// params are the parameters the result may have been asked for with: the manifest's, and, with paths, those of the run.
func (r recomputation) params(m *artifact.Manifest) []json.RawMessage {
	all := []json.RawMessage{m.Params}
	if r.run == nil {
		return all
	}
	var spec struct {
		Documents, Tokenizer, Model json.RawMessage
		Instructions                datasets.InstructionsParams
		Endpoints                   map[string]json.RawMessage
		Benchmarks                  *datasets.BenchmarksParams
		Tables                      reports.Params
		Tokens                      struct{ Mix json.RawMessage }
		Study                       struct {
			Methods []struct{ Set map[string]json.RawMessage }
		}
	}
	if json.Unmarshal(r.run.Spec, &spec) != nil {
		return all
	}
	with := func(p json.RawMessage) {
		if p != nil {
			all = append([]json.RawMessage{p}, all...)
		}
	}
	switch m.Stage {
	case "documents":
		with(spec.Documents)
	case "tokenizer":
		with(spec.Tokenizer)
	case "instructions":
		return askedInstructions(m.Params, spec.Instructions.Prompts, spec.Endpoints[spec.Instructions.Teacher])
	case "tokens":
		mixes := []json.RawMessage{spec.Tokens.Mix}
		for _, method := range spec.Study.Methods {
			mixes = append(mixes, method.Set["tokens.mix"])
		}
		for _, mix := range mixes {
			var p map[string]json.RawMessage
			if mix != nil && json.Unmarshal(m.Params, &p) == nil && p["mix"] != nil {
				p["mix"] = mix
				with(mustMarshal(p))
			}
		}
	case "questions":
		for _, b := range planned(spec.Benchmarks, m, r.run.Cells) {
			if b.Questions != nil {
				with(mustMarshal(b.Questions))
			}
		}
	case "scores":
		for _, b := range planned(spec.Benchmarks, m, r.run.Cells) {
			if p, err := decodeParams[datasets.ScoresStageParams](m.Params); err == nil && b.Scores.Results != "" {
				p.Benchmark = &b.Scores
				with(mustMarshal(p))
			}
		}
	case "tables":
		if spec.Tables.Ratings != nil {
			with(withRatingsPath(m.Params, spec.Tables.Ratings.Path))
		}
	case "checkpoint":
		var p map[string]json.RawMessage
		if spec.Model != nil && json.Unmarshal(m.Params, &p) == nil && p["model"] != nil {
			p["model"] = spec.Model
			with(mustMarshal(p))
		}
	}
	return all
}

// askedInstructions are the parameters that instructions may have been asked for with. Their manifests hold the digest of the prompts alone, and
// of an endpoint what its answers depend on: the prompts are the built-in ones or the run's, the endpoint is the run's.
func askedInstructions(described json.RawMessage, prompts map[string]string, endpoint json.RawMessage) []json.RawMessage {
	var p map[string]json.RawMessage
	if json.Unmarshal(described, &p) != nil {
		return []json.RawMessage{described}
	}
	delete(p, "prompts_digest")
	delete(p, "samples")
	if p["endpoint"] != nil && endpoint != nil {
		p["endpoint"] = endpoint
	}
	all := []json.RawMessage{mustMarshal(p)}
	if len(prompts) > 0 {
		p["prompts"] = mustMarshal(prompts)
		all = append(all, mustMarshal(p))
	}
	return all
}

// storedRatings adds the parameters with which tables are made from the copy of Table 1's input that they keep, wherever its file has gone.
func (r recomputation) storedRatings(ctx context.Context, m *artifact.Manifest, all []json.RawMessage) (with []json.RawMessage, remove func(), err error) {
	remove = func() {}
	kept, ok := m.Output(ratingsOutput)
	if !ok || m.Stage != "tables" {
		return all, remove, nil
	}
	f, err := os.CreateTemp(r.a.Scratch, "ratings-*.csv")
	if err != nil {
		return nil, remove, err
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name()), r.a.Store.FetchBlob(ctx, kept.Blob, f.Name())); err != nil {
		return all, remove, nil // the file that the run names may still be there
	}
	// The manifest's own parameters lack the path, without which they cannot be used.
	all = slices.DeleteFunc(all, func(p json.RawMessage) bool { return bytes.Equal(p, m.Params) })
	return append(all, withRatingsPath(m.Params, f.Name())), func() { os.Remove(f.Name()) }, nil
}

// withRatingsPath puts the path of Table 1's input, which manifests leave out, into the parameters of tables.
func withRatingsPath(params json.RawMessage, path string) json.RawMessage {
	var p, ratings map[string]json.RawMessage
	if json.Unmarshal(params, &p) != nil || json.Unmarshal(p["ratings"], &ratings) != nil || ratings == nil {
		return params
	}
	ratings["path"] = mustMarshal(path)
	p["ratings"] = mustMarshal(ratings)
	return mustMarshal(p)
}

// planned lists the benchmarks of a run that a result may belong to.
func planned(p *datasets.BenchmarksParams, m *artifact.Manifest, cells []string) []datasets.BenchmarkPlan {
	if p == nil {
		return nil
	}
	var of struct{ Benchmark json.RawMessage }
	if json.Unmarshal(m.Params, &of) != nil || of.Benchmark == nil {
		return nil
	}
	// Results of another program may be one file for each cell.
	var all []datasets.BenchmarkPlan
	for _, cell := range append([]string{"/seed=0"}, cells...) {
		method, seed, _ := strings.Cut(cell, "/seed=")
		n, err := strconv.ParseUint(seed, 10, 64)
		if err != nil {
			continue
		}
		for _, b := range p.Plans(method, n) {
			if strings.Contains(string(of.Benchmark), strconv.Quote(b.Name)) {
				all = append(all, b)
			}
		}
	}
	return all
}

// aside returns activities that read the store and write elsewhere: to a directory that remove removes.
func (a *Activities) aside() (copyOf *Activities, remove func() error, err error) {
	dir, err := os.MkdirTemp(a.Scratch, "aside-")
	if err != nil {
		return nil, nil, err
	}
	top, err := artifact.NewDirectory(dir)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	store := artifact.New(artifact.Overlay(a.Store.Backend(), top), a.Store.URI())
	return &Activities{Store: store, OpenDevice: a.OpenDevice, Scratch: a.Scratch, ShardItems: a.ShardItems}, func() error { return os.RemoveAll(dir) }, nil
}
