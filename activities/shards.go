package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// Large stages are divided:
//
//	split   the stage's activity writes its input in parts (a manifest of their own) and answers how many there are
//	shards  each part is worked on by an activity; its result is a manifest, found again by key after a crash
//	join    the stage's activity, called again, makes the one result
//
// The joined result is byte for byte what one activity would have made, so that no key knows of shards.

// Shards says how a stage's work was divided, and in workflows that continue as new how far it is.
type Shards struct {
	Count int `json:"count"` // parts
	Size  int `json:"size"`  // items in each but the last
	// Window is how many shards are under way at once. All of them are done before a workflow continues as new.
	Window int `json:"window"`
	// Next is the first shard not done; Done and SpentUSD tell of those before.
	Next     int     `json:"next,omitempty"`
	Done     int64   `json:"done,omitempty"`
	SpentUSD float64 `json:"spent_usd,omitempty"`
}

// Outcome is what a stage's activity answers: its result, or that the work is too much for one activity.
type Outcome struct {
	artifact.Ref
	Shards *Shards `json:"shards,omitempty"`
}

// ShardCall asks for one shard.
type ShardCall struct {
	Call
	Index int `json:"index"`
}

// ShardDone is what a shard's activity answers: little, since histories hold one for each.
type ShardDone struct {
	Done     int64   `json:"done"` // instances or sequences
	SpentUSD float64 `json:"spent_usd,omitempty"`
}

// ShardName is the name of the activity that makes shards of a stage.
func ShardName(stage string) string { return stage + "-shard" }

// Divisible tells whether a stage's work may be divided.
func Divisible(name string) bool {
	s, err := stageNamed(name)
	return err == nil && s.division != nil
}

// shardsAtOnce is the most shards of a stage that are under way: what one part of a workflow's history can hold.
const shardsAtOnce = 200

// division says how a stage's work is divided.
type division struct {
	// size is how many items make a shard.
	size func(params json.RawMessage) (int, error)
	// items are what is divided, in order.
	items func(ctx context.Context, j *job) (iter.Seq2[any, error], error)
	// join makes the stage's outputs from those of its shards.
	join func(ctx context.Context, j *job, shards []*artifact.Manifest) error
}

// shardSize is how many items make a shard, by a division's own size.
func (a *Activities) shardSize(size func(json.RawMessage) (int, error), params json.RawMessage) (int, error) {
	if a.ShardItems > 0 {
		return a.ShardItems, nil
	}
	return size(params)
}

// shard is the part of a stage's work that a job does.
type shard struct {
	Shards
	index int
}

const partsRole = "parts"

func (s *shard) file() string { return partName(s.index) }

func partName(index int) string { return fmt.Sprintf("%06d.jsonl.zst", index) }

// first is the number of the shard's first item.
func (s *shard) first() int {
	if s == nil {
		return 0
	}
	return s.index * s.Size
}

// name tells the parts of a stage's work apart, in ledgers and messages.
func (s *shard) name() string {
	if s == nil {
		return "whole"
	}
	return fmt.Sprintf("%d-of-%d", s.index, s.Count)
}

// partAction names the parts of a stage's input, and with an index one shard's result.
func partAction(s stage, call Call, kind string, size, index int) artifact.Action {
	return artifact.Action{Stage: s.name + "-" + kind, StageVersion: s.version, Params: struct {
		Of    string `json:"of"` // the stage's action key
		Size  int    `json:"size"`
		Index int    `json:"index"`
	}{call.Key, size, index}}
}

// RunDivisible is Run for stages whose work may be divided. Work that is small is done at once; else the answer says into how
// many shards it was split. Called with Shards, it joins them.
func (a *Activities) RunDivisible(ctx context.Context, call Call) (Outcome, error) {
	o, err := a.runDivisible(ctx, call)
	return o, boundary(ctx, call.Stage, err)
}

func (a *Activities) runDivisible(ctx context.Context, call Call) (Outcome, error) {
	s, err := stageNamed(call.Stage)
	if err != nil {
		return Outcome{}, err
	}
	whole := func() (Outcome, error) {
		ref, err := a.runStage(ctx, call)
		return Outcome{Ref: ref}, err
	}
	if s.division == nil || call.Shards != nil {
		return whole()
	}
	if m, err := a.Store.FindManifest(ctx, call.Stage, call.Key); err == nil {
		return Outcome{Ref: m.Ref()}, nil
	}
	size, err := a.shardSize(s.division.size, call.Params)
	if err != nil {
		return Outcome{}, err
	}
	parts, err := a.split(ctx, s, call, size)
	if err != nil {
		return Outcome{}, err
	}
	if parts == nil {
		return whole()
	}
	window := shardsAtOnce
	if a.ShardWindow > 0 {
		window = min(a.ShardWindow, shardsAtOnce)
	}
	return Outcome{Shards: &Shards{Count: len(parts.Outputs), Size: size, Window: window}}, nil
}

var errSmall = errors.New("fits into one shard")

// split writes the stage's input in parts; nil when it fits into one.
func (a *Activities) split(ctx context.Context, s stage, call Call, size int) (*artifact.Manifest, error) {
	action := partAction(s, call, partsRole, size, 0)
	key, _, err := action.Key()
	if err != nil {
		return nil, err
	}
	if m, err := a.Store.FindManifest(ctx, action.Stage, key); err == nil {
		return m, nil
	}
	writing := s
	writing.run = func(ctx context.Context, j *job) error { return writeParts(ctx, j, s.division, size) }
	m, err := a.make(ctx, writing, action, call)
	if errors.Is(err, errSmall) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// Parts of files that have changed would be found again under this key when the files are back.
	if s.outside != nil {
		now, err := a.action(ctx, call)
		if err != nil {
			return nil, err
		}
		if err := sameKey(now, call); err != nil {
			return nil, err
		}
	}
	return a.Store.PutManifest(ctx, m)
}

func writeParts(ctx context.Context, j *job, d *division, size int) error {
	items, err := d.items(ctx, j)
	if err != nil {
		return err
	}
	n := 0
	// One look ahead is cheap: most inputs are small.
	for _, err := range items {
		if err != nil {
			return err
		}
		if n++; n > size {
			break
		}
	}
	if n <= size {
		return errSmall
	}
	var w *lineWriter
	path := filepath.Join(j.dir, "part")
	n, part := 0, 0
	flush := func() error {
		if err := w.close(); err != nil {
			return err
		}
		w = nil
		if err := j.putFile(ctx, partName(part), "application/zstd", path); err != nil {
			return err
		}
		part++
		return os.Remove(path)
	}
	defer func() {
		if w != nil {
			_ = w.close()
		}
	}()
	for item, err := range items {
		if err != nil {
			return err
		}
		if w == nil {
			if w, err = newLines(path); err != nil {
				return err
			}
		}
		if err := w.add(item); err != nil {
			return err
		}
		j.moves.Add(1)
		if n++; n%size == 0 {
			j.report(ctx, Progress{Done: int64(n), Unit: "item", Note: "dividing the work"})
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if w != nil {
		return flush()
	}
	return nil
}

// RunShard makes one shard of a stage that RunDivisible has split.
func (a *Activities) RunShard(ctx context.Context, call ShardCall) (ShardDone, error) {
	m, err := a.runShard(ctx, call)
	if err != nil {
		a.watch(err)
		return ShardDone{}, boundary(ctx, fmt.Sprintf("%s, shard %d", call.Stage, call.Index), err)
	}
	return ShardDone{Done: m.Counts["instances"] + m.Counts["sequences"], SpentUSD: float64(m.Counts[spentCount]) / 1e6}, nil
}

func (a *Activities) runShard(ctx context.Context, call ShardCall) (*artifact.Manifest, error) {
	s, err := stageNamed(call.Stage)
	if err != nil {
		return nil, err
	}
	if s.division == nil || call.Shards == nil || call.Index < 0 || call.Index >= call.Shards.Count {
		return nil, badConfig("the %s stage has no shard %d", call.Stage, call.Index)
	}
	action := partAction(s, call.Call, "shard", call.Shards.Size, call.Index)
	key, _, err := action.Key()
	if err != nil {
		return nil, err
	}
	if m, err := a.Store.FindManifest(ctx, action.Stage, key); err == nil {
		return m, nil
	} else if !errors.Is(err, artifact.ErrNotFound) {
		return nil, err
	}
	parts, err := a.findPart(ctx, partAction(s, call.Call, partsRole, call.Shards.Size, 0))
	if err != nil {
		return nil, err
	}
	in := map[string]artifact.Ref{partsRole: parts.Ref()}
	for role, ref := range call.Inputs {
		in[role] = ref
	}
	call.Inputs = in
	m, err := a.makePart(ctx, s, action, call.Call, &shard{Shards: *call.Shards, index: call.Index})
	if err != nil {
		return nil, err
	}
	return a.Store.PutManifest(ctx, m)
}

func (a *Activities) findPart(ctx context.Context, action artifact.Action) (*artifact.Manifest, error) {
	key, _, err := action.Key()
	if err != nil {
		return nil, err
	}
	m, err := a.Store.FindManifest(ctx, action.Stage, key)
	if errors.Is(err, artifact.ErrNotFound) {
		return nil, fmt.Errorf("%s: %w", action.Stage, err)
	}
	return m, err
}

// joinShards makes the stage's result from its shards'.
func joinShards(ctx context.Context, j *job, s stage) error {
	// What splitting counted is true of the whole.
	parts, err := j.a.findPart(ctx, partAction(s, j.call, partsRole, j.call.Shards.Size, 0))
	if err != nil {
		return err
	}
	all := []*artifact.Manifest{parts}
	for i := range j.call.Shards.Count {
		m, err := j.a.findPart(ctx, partAction(s, j.call, "shard", j.call.Shards.Size, i))
		if err != nil {
			return err
		}
		all = append(all, m)
		for _, note := range m.Notes {
			j.note("%s", note)
		}
	}
	for _, m := range all {
		// The result took as long as its shards did, not as long as joining them.
		if m.Started.Before(j.manifest.Started) {
			j.manifest.Started = m.Started
		}
		for name, n := range m.Counts {
			j.count(name, n)
		}
		j.manifest.Warnings = append(j.manifest.Warnings, m.Warnings...)
	}
	return s.division.join(ctx, j, all[1:])
}

// output reads a shard's JSON output.
func (j *job) output(ctx context.Context, m *artifact.Manifest, name string, v any) error {
	out, ok := m.Output(name)
	if !ok {
		return badData("shard %s has no output %q", m.Ref(), name)
	}
	return j.a.Store.ReadJSON(ctx, out.Blob, v)
}
