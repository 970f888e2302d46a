package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"

	"github.com/longalign/longalign-go/activities/llm"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu"
)

// Activities carries what the stages need of the outside world. It is filled in once, by worker.
type Activities struct {
	Store *artifact.Store
	// OpenDevice opens the device that training and predictions run on.
	OpenDevice gpu.Opener
	// DeviceLost is told of a failure after which this process cannot use its device any more; nil tells nobody.
	DeviceLost func(error)
	// Scratch is a local directory for copies of artifacts; everything in it can be made anew.
	Scratch string
	// Endpoints are the language models that stages ask.
	Endpoints llm.Pool
	// ShardItems and ShardWindow replace the stages' own sizes of shards, and how many of them are under way at once; 0 keeps them.
	// What is in a result does not depend on them; token sequences are in as many files as shards of that size.
	ShardItems, ShardWindow int
	// Temporal is asked whether the owner of a stage still runs, and told of progress.
	Temporal client.Client

	evaluation evaluationTexts
}

// Call asks for one stage's result. It is kept in workflow history, so it holds
// references and small parameters only.
type Call struct {
	Stage  string                  `json:"stage"`
	Params json.RawMessage         `json:"params"`
	Inputs map[string]artifact.Ref `json:"inputs,omitempty"` // by role
	// Class is the device class, for stages whose results differ by it.
	Class string `json:"class,omitempty"`
	// Key is the action key, filled in by Resolve.
	Key string `json:"key,omitempty"`
	// Shards is set when the stage's work was divided: its activity then joins what the shards made.
	Shards *Shards `json:"shards,omitempty"`
	// Label says to people which cells of a study asked for it; it means nothing to the result.
	Label string `json:"label,omitempty"`
	// Run is the workflow ID of the run that has the result made and pays for it, filled in then.
	Run string `json:"run,omitempty"`
}

// Resolved is what Resolve found out about a call.
type Resolved struct {
	Key string       `json:"key"`
	Hit bool         `json:"hit"`           // the store has the result already
	Ref artifact.Ref `json:"ref,omitempty"` // set when Hit
}

// stage is how one kind of result is made.
type stage struct {
	name string
	// version is raised by hand when the same inputs and parameters give another result.
	version int
	// describe returns what the parameters mean, defaults filled in: their share of the action key.
	describe func(params json.RawMessage) (json.RawMessage, error)
	// outside returns digests of inputs that are not artifacts (files on the worker), by role. May be nil.
	outside func(ctx context.Context, a *Activities, params json.RawMessage) (map[string]string, error)
	// run makes the result: it reads inputs from the job and puts outputs into it.
	run func(ctx context.Context, j *job) error
	// division says how large work is divided; nil for stages that are one activity always.
	division *division
}

// Stages names all stages in the order data flows through them.
var Stages = []string{"documents", "tokenizer", "instructions", "tokens", "batches", "checkpoint", "questions", "predictions", "judgments", "scores", "tables"}

func stageNamed(name string) (stage, error) {
	for _, s := range []stage{documentsStage, tokenizerStage, instructionsStage, tokensStage, batchesStage, checkpointStage, questionsStage, predictionsStage, judgmentsStage, scoresStage, tablesStage} {
		if s.name == name {
			return s, nil
		}
	}
	return stage{}, badConfig("stage %q is not known to this worker, which may be older than the starter", name)
}

// Resolve computes a call's action key and looks for its result in the store.
func (a *Activities) Resolve(ctx context.Context, call Call) (Resolved, error) {
	action, err := a.action(ctx, call)
	if err != nil {
		return Resolved{}, boundary(ctx, "resolve "+call.Stage, err)
	}
	key, _, err := action.Key()
	if err != nil {
		return Resolved{}, boundary(ctx, "resolve "+call.Stage, err)
	}
	m, err := a.Store.FindManifest(ctx, call.Stage, key)
	if unmade(err) {
		return Resolved{Key: key}, nil
	}
	if err != nil {
		return Resolved{}, boundary(ctx, "resolve "+call.Stage, err)
	}
	return Resolved{Key: key, Hit: true, Ref: m.Ref()}, nil
}

// unmade tells from FindManifest's error that a result must be made: there is none, or its manifest is damaged, and with it the
// knowledge of where the result is.
func unmade(err error) bool {
	var corrupt *artifact.CorruptError
	return errors.Is(err, artifact.ErrNotFound) || errors.As(err, &corrupt)
}

// action describes completely what the call's result means.
func (a *Activities) action(ctx context.Context, call Call) (artifact.Action, error) {
	defer beating(ctx, call.Stage)()
	s, err := stageNamed(call.Stage)
	if err != nil {
		return artifact.Action{}, err
	}
	params, err := s.describe(call.Params)
	if err != nil {
		return artifact.Action{}, err
	}
	inputs := map[string]string{}
	for _, role := range slices.Sorted(maps.Keys(call.Inputs)) {
		m, err := a.Store.Current(ctx, call.Inputs[role])
		if err != nil {
			return artifact.Action{}, fmt.Errorf("input %s: %w", role, err)
		}
		inputs[role] = m.Digest()
	}
	if s.outside != nil {
		digests, err := s.outside(ctx, a, call.Params)
		if err != nil {
			return artifact.Action{}, err
		}
		maps.Copy(inputs, digests)
	}
	return artifact.Action{Stage: s.name, StageVersion: s.version, Params: params, Inputs: inputs, DeviceClass: call.Class}, nil
}

// check looks for what is wrong with a call itself, whatever its inputs are: with its parameters, and with the files that it reads.
func (a *Activities) check(ctx context.Context, call Call) error {
	call.Inputs = nil
	_, err := a.action(ctx, call)
	return boundary(ctx, "resolve "+call.Stage, err)
}

// Run makes the result of a resolved call, unless the store has it by now.
// Workflows know it by the stage's name.
func (a *Activities) Run(ctx context.Context, call Call) (artifact.Ref, error) {
	ref, err := a.runStage(ctx, call)
	a.watch(err)
	return ref, boundary(ctx, call.Stage, err)
}

func (a *Activities) runStage(ctx context.Context, call Call) (artifact.Ref, error) {
	s, err := stageNamed(call.Stage)
	if err != nil {
		return artifact.Ref{}, err
	}
	if m, err := a.Store.FindManifest(ctx, call.Stage, call.Key); err == nil {
		return m.Ref(), nil
	} else if !unmade(err) {
		return artifact.Ref{}, err
	}
	action, err := a.action(ctx, call)
	if err != nil {
		return artifact.Ref{}, err
	}
	if err := sameKey(action, call); err != nil {
		return artifact.Ref{}, err
	}
	if call.Shards != nil && s.division != nil {
		whole := s
		s.run = func(ctx context.Context, j *job) error { return joinShards(ctx, j, whole) }
	}
	manifest, err := a.make(ctx, s, action, call)
	if err != nil {
		return artifact.Ref{}, err
	}
	winner, err := a.Store.PutManifest(ctx, manifest)
	var corrupt *artifact.CorruptError
	if errors.As(err, &corrupt) {
		// The manifest that is there is damaged. It stays; this one goes beside it.
		newest, listErr := a.Store.Generations(ctx, call.Stage, call.Key)
		if listErr != nil {
			return artifact.Ref{}, listErr
		}
		manifest.Generation = newest + 1
		winner, err = a.Store.PutManifest(ctx, manifest)
	}
	if err != nil {
		return artifact.Ref{}, err
	}
	return winner.Ref(), nil
}

// sameKey fails if action is another one than call was resolved to.
func sameKey(action artifact.Action, call Call) error {
	key, _, err := action.Key()
	if err == nil && key != call.Key {
		err = badData("the files that the %s stage reads changed while the run was under way; start it again", call.Stage)
	}
	return err
}

// make makes a stage's result and returns its manifest, which is not stored yet.
func (a *Activities) make(ctx context.Context, s stage, action artifact.Action, call Call) (*artifact.Manifest, error) {
	return a.makePart(ctx, s, action, call, nil)
}

// makePart is make for one shard of the stage, or nil for all of it.
func (a *Activities) makePart(ctx context.Context, s stage, action artifact.Action, call Call, part *shard) (*artifact.Manifest, error) {
	dir, err := os.MkdirTemp(a.Scratch, call.Stage+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	manifest, err := artifact.NewManifest(action)
	if err != nil {
		return nil, err
	}
	manifest.Inputs, manifest.Started, manifest.Counts = call.Inputs, time.Now().UTC(), map[string]int64{}
	j := &job{a: a, call: call, dir: dir, manifest: manifest, shard: part, signals: newSignaller(part != nil)}
	if activity.IsActivity(ctx) {
		info := activity.GetInfo(ctx)
		j.manifest.Workflow = artifact.Workflow{ID: info.WorkflowExecution.ID, RunID: info.WorkflowExecution.RunID}
		go j.heartbeats(ctx, stop, info.HeartbeatTimeout)
	}
	if err := s.run(ctx, j); err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			return nil, cause
		}
		return nil, err
	}
	j.manifest.Finished = time.Now().UTC()
	return j.manifest, nil
}

// job is one running stage: what it reads, what it has put out so far, how far it is.
type job struct {
	a        *Activities
	call     Call
	dir      string // removed when the stage ends
	manifest *artifact.Manifest
	own      *ownResults // of the run that is told of; nil while results are made
	shard    *shard      // the part of the stage's work that this is; nil for all of it
	signals  signaller
	progress atomic.Pointer[Progress]
	moves    atomic.Int64 // grows with each report of progress
}

// report tells how far the stage is.
func (j *job) report(ctx context.Context, p Progress) {
	j.tell(ctx, j.moved(p))
}

// advance is report for what is called at every reply and from many goroutines: heartbeats show it.
func (j *job) advance(p Progress) {
	j.moved(p)
}

// moved keeps the progress for whoever asks.
func (j *job) moved(p Progress) Progress {
	p.Stage = j.call.Stage
	if j.shard != nil {
		p.Shard = j.shard.index + 1
	}
	j.progress.Store(&p)
	j.moves.Add(1)
	return p
}

// stopping is closed when the worker was asked to stop: a long stage saves and hands over.
func (j *job) stopping(ctx context.Context) <-chan struct{} {
	if !activity.IsActivity(ctx) {
		return nil
	}
	return activity.GetWorkerStopChannel(ctx)
}

func (j *job) count(name string, n int64) { j.manifest.Counts[name] += n }

func (j *job) note(format string, args ...any) {
	n := fmt.Sprintf(format, args...)
	if !slices.Contains(j.manifest.Notes, n) {
		j.manifest.Notes = append(j.manifest.Notes, n)
	}
}

// input returns the manifest of the input with this role.
func (j *job) input(ctx context.Context, role string) (*artifact.Manifest, error) {
	ref, ok := j.call.Inputs[role]
	if !ok {
		return nil, badConfig("the %s stage was called without its input %q", j.call.Stage, role)
	}
	return j.a.Store.Current(ctx, ref)
}

func (j *job) hasInput(role string) bool { _, ok := j.call.Inputs[role]; return ok }

func (j *job) inputBlob(ctx context.Context, role, name string) (artifact.Blob, error) {
	m, err := j.input(ctx, role)
	if err != nil {
		return artifact.Blob{}, err
	}
	out, ok := m.Output(name)
	if !ok {
		return artifact.Blob{}, badData("input %s (%s %s) has no output %q", role, m.Stage, m.Key, name)
	}
	return out.Blob, nil
}

// open streams one output of an input.
func (j *job) open(ctx context.Context, role, name string) (io.ReadCloser, error) {
	blob, err := j.inputBlob(ctx, role, name)
	if err != nil {
		return nil, err
	}
	r, err := j.a.Store.OpenBlob(ctx, blob)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", name, j.call.Inputs[role], err)
	}
	return r, nil
}

func (j *job) readJSON(ctx context.Context, role, name string, v any) error {
	blob, err := j.inputBlob(ctx, role, name)
	if err != nil {
		return err
	}
	if err := j.a.Store.ReadJSON(ctx, blob, v); err != nil {
		return fmt.Errorf("%s of %s: %w", name, j.call.Inputs[role], err)
	}
	return nil
}

// fetch copies all outputs of an input into a directory and returns it: a Hugging Face directory, say.
func (j *job) fetch(ctx context.Context, role string) (string, error) {
	m, err := j.input(ctx, role)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(j.dir, role)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, out := range m.Outputs {
		if !filepath.IsLocal(out.Name) {
			return "", badData("input %s: output name %q leaves its directory", role, out.Name)
		}
		path := filepath.Join(dir, out.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := j.a.Store.FetchBlob(ctx, out.Blob, path); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// put stores bytes as an output of the stage.
func (j *job) put(ctx context.Context, name, mediaType string, r io.Reader) error {
	blob, err := j.a.Store.PutBlob(ctx, r)
	if err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	j.addOutput(artifact.Output{Name: name, MediaType: mediaType, Blob: blob})
	return nil
}

func (j *job) putFile(ctx context.Context, name, mediaType, path string) error {
	blob, err := j.a.Store.PutFile(ctx, path)
	if err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	j.addOutput(artifact.Output{Name: name, MediaType: mediaType, Blob: blob})
	return nil
}

func (j *job) putJSON(ctx context.Context, name string, v any) error {
	blob, err := j.a.Store.PutJSON(ctx, v)
	if err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	j.addOutput(artifact.Output{Name: name, MediaType: "application/json", Blob: blob})
	return nil
}

// putMeasured stores what was measured (seconds, attempts): it differs from run to
// run, so that no later stage's key contains it.
func (j *job) putMeasured(ctx context.Context, name string, v any) error {
	blob, err := j.a.Store.PutJSON(ctx, v)
	if err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	j.addOutput(artifact.Output{Name: name, MediaType: "application/json", Blob: blob, Volatile: true})
	return nil
}

func (j *job) addOutput(o artifact.Output) { j.manifest.Outputs = append(j.manifest.Outputs, o) }
