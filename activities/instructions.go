package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"go.temporal.io/sdk/activity"

	"github.com/longalign/longalign-go/activities/llm"
	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/instructions"
)

// instructionsStage asks a teacher about each document. Outputs: instances.jsonl.zst (training), held-out.jsonl.zst, report.json; of a
// teacher that is a language model also requests.json (what asking took), and dead-letters.jsonl where instances were given up.
var instructionsStage = stage{
	name: "instructions", version: 2, describe: describeInstructions, run: runInstructions,
	division: &division{size: documentsInShard, items: func(ctx context.Context, j *job) (iter.Seq2[any, error], error) {
		return anyOf(j.documents(ctx)), nil
	}, join: joinInstructions},
}

// Files of the instructions stage.
const (
	trainFile       = "instances.jsonl.zst"
	heldOutFile     = "held-out.jsonl.zst"
	deadLettersFile = "dead-letters.jsonl"
	requestsFile    = "requests.json"
)

// Counts of money, in millionths of a USD: what the replies cost, and the range that was forecast for the whole stage.
const (
	spentCount         = "spent (0.000001 USD)"
	forecastLeastCount = "forecast, at least (0.000001 USD)"
	forecastMostCount  = "forecast, at most (0.000001 USD)"
)

// describeInstructions leaves out what the user calls an endpoint. The prompts' digest stands for the templates, built-in ones too: an edited one is
// another prompt. That language models are asked about each copy of an up-sampled document apart was not always so: results from before
// have other keys.
func describeInstructions(raw json.RawMessage) (json.RawMessage, error) {
	p, err := decodeParams[datasets.InstructionsStageParams](raw)
	if err != nil {
		return nil, err
	}
	if p.PromptsDir != "" {
		return nil, badConfig("instructions.prompts_dir: %s was not read when the run was started; it can stand in the file's own instructions only, not in a cell's", p.PromptsDir)
	}
	prompts, err := instructions.NewPrompts(p.Prompts)
	if err != nil {
		return nil, badConfig("instructions: %w", err)
	}
	p.Prompts = nil
	described := struct {
		datasets.InstructionsStageParams
		PromptsDigest string `json:"prompts_digest"`
		Samples       string `json:"samples,omitempty"`
	}{p, prompts.Digest(), ""}
	if p.Endpoint != nil {
		described.Teacher, described.Samples = "endpoint", "by copy"
	}
	return meaning(described)
}

// Sizes of shards. A teacher that costs time and money is asked some 200 times in one; rules do thousands of documents in a second.
const (
	requestsInShard         = 200
	offlineDocumentsInShard = 20_000
)

func documentsInShard(raw json.RawMessage) (int, error) {
	p, err := decodeParams[datasets.InstructionsStageParams](raw)
	if err != nil {
		return 0, err
	}
	if p.Endpoint == nil {
		return offlineDocumentsInShard, nil
	}
	return max(1, requestsInShard/(2*max(p.PerDocument, p.PerHeldOut))), nil
}

func anyOf[T any](seq iter.Seq2[T, error]) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		for v, err := range seq {
			if !yield(v, err) {
				return
			}
		}
	}
}

// RequestsReport is what asking a language model took, against what was forecast. It differs from attempt to attempt.
type RequestsReport struct {
	Model    string       `json:"model"`
	Usage    llm.Usage    `json:"usage"`
	Forecast llm.Forecast `json:"forecast"` // of the whole stage
	CapUSD   float64      `json:"cap_usd,omitempty"`
}

func runInstructions(ctx context.Context, j *job) error {
	p, err := decodeParams[datasets.InstructionsStageParams](j.call.Params)
	if err != nil {
		return err
	}
	teacher, err := j.teacher(ctx, p)
	if err != nil {
		return err
	}
	report, err := j.ask(ctx, p, teacher)
	if closeErr := teacher.close(ctx); err == nil {
		err = closeErr
	}
	if err != nil {
		return teacherError(err)
	}
	if teacher.model != nil {
		if err := j.putRequests(ctx, RequestsReport{Model: teacher.Describe(), Usage: teacher.model.Usage(), Forecast: teacher.forecast, CapUSD: p.Endpoint.MaxCostUSD}); err != nil {
			return err
		}
	}
	return j.putInstructionsReport(ctx, report)
}

// ask makes the instances and stores them.
func (j *job) ask(ctx context.Context, p datasets.InstructionsStageParams, teacher *stageTeacher) (datasets.InstructionsReport, error) {
	var none datasets.InstructionsReport
	tok, err := j.tokenizer(ctx, "tokenizer")
	if err != nil {
		return none, err
	}
	// The teacher's description goes wherever its answers are shown.
	j.note("teacher: %s", teacher.Describe())
	train, err := newLines(filepath.Join(j.dir, trainFile))
	if err != nil {
		return none, err
	}
	defer train.close()
	heldOut, err := newLines(filepath.Join(j.dir, heldOutFile))
	if err != nil {
		return none, err
	}
	defer heldOut.close()
	dead, err := os.Create(filepath.Join(j.dir, deadLettersFile))
	if err != nil {
		return none, err
	}
	defer dead.Close()
	letters := json.NewEncoder(dead)
	given := 0
	maker := instructions.Maker{Teacher: teacher, Params: p.InstructionsParams, Count: tok.Count, Concurrency: teacher.concurrency, DeadLetter: func(d datasets.DeadLetter) error {
		given++
		return letters.Encode(d)
	}}
	if err := maker.Init(); err != nil {
		return none, badConfig("%w", err)
	}
	n := int64(0)
	report, err := maker.Make(ctx, j.documents(ctx), j.shard.first(), func(i datasets.Instance) error {
		if n++; n%100 == 0 || teacher.model != nil {
			j.report(ctx, teacher.progress(n))
		}
		if i.Meta != nil && i.Meta.Split == datasets.SplitHeldOut {
			return heldOut.add(i)
		}
		return train.add(i)
	})
	if err != nil {
		return none, err
	}
	if err := j.putInstances(ctx, train, heldOut); err != nil {
		return none, err
	}
	if err := dead.Close(); err != nil || given == 0 {
		return report, err
	}
	return report, j.putDeadLetters(ctx, filepath.Join(j.dir, deadLettersFile))
}

func (j *job) putInstances(ctx context.Context, train, heldOut *lineWriter) error {
	for _, f := range []struct {
		name string
		w    *lineWriter
	}{{trainFile, train}, {heldOutFile, heldOut}} {
		if err := f.w.close(); err != nil {
			return err
		}
		if err := j.putFile(ctx, f.name, "application/zstd", filepath.Join(j.dir, f.name)); err != nil {
			return err
		}
	}
	return nil
}

// putDeadLetters stores what was given up. No later stage reads it, so no later key contains it.
func (j *job) putDeadLetters(ctx context.Context, path string) error {
	blob, err := j.a.Store.PutFile(ctx, path)
	if err != nil {
		return fmt.Errorf("store %s: %w", deadLettersFile, err)
	}
	j.addOutput(artifact.Output{Name: deadLettersFile, MediaType: "application/jsonl", Blob: blob, Volatile: true})
	return nil
}

func (j *job) putRequests(ctx context.Context, r RequestsReport) error {
	if j.call.Shards == nil || j.shard != nil { // joined counts are the shards' sums already
		j.count("requests", int64(r.Usage.Requests))
		j.count("replies journaled before", int64(r.Usage.Journaled))
		j.count("requests repeated", int64(r.Usage.Repeated))
		j.count(spentCount, int64(r.Usage.SpentUSD*1e6+0.5))
		for problem, n := range r.Usage.Problems {
			j.count("requests "+string(problem), int64(n))
		}
		j.count("replies without numbers of tokens, estimated", int64(r.Usage.Estimated))
		j.count("tries charged without a reply, at most", int64(r.Usage.Lost))
		j.count("probes", int64(r.Usage.Probes))
		j.count("replies truncated", int64(r.Usage.Truncated))
		j.count("replies refused", int64(r.Usage.Refused))
	}
	if j.shard == nil {
		j.count(forecastLeastCount, int64(r.Forecast.USD.Low*1e6+0.5))
		j.count(forecastMostCount, int64(r.Forecast.USD.High*1e6+0.5))
		j.note("asking took %d requests and %.2f USD, forecast were %s", r.Usage.Requests, r.Usage.SpentUSD, r.Forecast)
	}
	return j.putMeasured(ctx, requestsFile, r)
}

// failedCounts reads "malformed 2, refused 68".
func failedCounts(failed map[string]int) string {
	var said []string
	for _, reason := range slices.Sorted(maps.Keys(failed)) {
		said = append(said, fmt.Sprintf("%s %d", reason, failed[reason]))
	}
	return strings.Join(said, ", ")
}

func (j *job) putInstructionsReport(ctx context.Context, report datasets.InstructionsReport) error {
	if j.shard == nil && report.Instances-report.HeldOut == 0 {
		return badData("the teacher gave no usable answer to any of the training documents: %s", failedCounts(report.Failed))
	}
	if j.call.Shards == nil || j.shard != nil {
		j.count("instances", int64(report.Instances))
		j.count("held_out", int64(report.HeldOut))
		if report.Reasoning > 0 {
			j.count("replies without their reasoning", int64(report.Reasoning))
		}
		for reason, n := range report.Failed {
			j.count("failed: "+reason, int64(n))
		}
	}
	return j.putJSON(ctx, "report.json", report)
}

// joinInstructions puts the shards' instances one after the other.
func joinInstructions(ctx context.Context, j *job, shards []*artifact.Manifest) error {
	train, err := newLines(filepath.Join(j.dir, trainFile))
	if err != nil {
		return err
	}
	defer train.close()
	heldOut, err := newLines(filepath.Join(j.dir, heldOutFile))
	if err != nil {
		return err
	}
	defer heldOut.close()
	path := filepath.Join(j.dir, deadLettersFile)
	dead, err := os.Create(path)
	if err != nil {
		return err
	}
	defer dead.Close()
	var report datasets.InstructionsReport
	var requests RequestsReport
	given := false
	for n, m := range shards {
		var r datasets.InstructionsReport
		if err := j.output(ctx, m, "report.json", &r); err != nil {
			return err
		}
		report.Add(r)
		for _, f := range []struct {
			name string
			to   io.Writer
		}{{trainFile, train.z}, {heldOutFile, heldOut.z}, {deadLettersFile, dead}, {requestsFile, nil}} {
			out, ok := m.Output(f.name)
			if !ok {
				continue
			}
			if f.to == nil {
				var q RequestsReport
				if err := j.a.Store.ReadJSON(ctx, out.Blob, &q); err != nil {
					return err
				}
				q.Usage.Add(requests.Usage)
				requests = q
				continue
			}
			given = given || f.name == deadLettersFile
			if err := j.appendBlob(ctx, f.to, out.Blob, f.name != deadLettersFile); err != nil {
				return err
			}
		}
		j.report(ctx, Progress{Done: int64(n + 1), Total: int64(len(shards)), Unit: "shard", Note: "joining"})
	}
	if err := j.putInstances(ctx, train, heldOut); err != nil {
		return err
	}
	if err := dead.Close(); err != nil {
		return err
	}
	if given {
		if err := j.putDeadLetters(ctx, path); err != nil {
			return err
		}
	}
	if requests.Model != "" {
		if err := j.putRequests(ctx, requests); err != nil {
			return err
		}
	}
	return j.putInstructionsReport(ctx, report)
}

// appendBlob copies a blob, uncompressed.
func (j *job) appendBlob(ctx context.Context, to io.Writer, b artifact.Blob, compressed bool) error {
	r, err := j.a.Store.OpenBlob(ctx, b)
	if err != nil {
		return err
	}
	defer r.Close()
	var from io.Reader = r
	if compressed {
		z, err := zstd.NewReader(r)
		if err != nil {
			return err
		}
		defer z.Close()
		from = z
	}
	_, err = io.Copy(to, from)
	return err
}

// stageTeacher is the teacher of a running stage.
type stageTeacher struct {
	datasets.Teacher
	concurrency int
	stopping    <-chan struct{} // closed when the worker is being stopped
	// model, budget and forecast are of language models only.
	model    *llm.Teacher
	budget   *llm.Budget
	forecast llm.Forecast
}

// progress is what is told after n instances.
func (t *stageTeacher) progress(n int64) Progress {
	p := Progress{Done: n, Unit: "instance"}
	if t.model != nil {
		p.Spent = t.model.Usage().SpentUSD
	}
	return p
}

// Ask asks no more when the worker is being stopped: what is under way is waited for and journaled, the rest is the next attempt's.
func (t *stageTeacher) Ask(ctx context.Context, r datasets.TeacherRequest) (datasets.TeacherReply, error) {
	select {
	case <-t.stopping:
		return datasets.TeacherReply{}, handover("the worker is stopping; replies so far are kept")
	default:
		return t.Teacher.Ask(ctx, r)
	}
}

func (t *stageTeacher) close(ctx context.Context) error {
	if t.budget == nil {
		return nil
	}
	t.model.Wait()
	return t.budget.Close(context.WithoutCancel(ctx))
}

// teacher returns the one that the parameters name.
func (j *job) teacher(ctx context.Context, p datasets.InstructionsStageParams) (*stageTeacher, error) {
	if p.Endpoint == nil {
		return &stageTeacher{Teacher: instructions.Offline{}, concurrency: 2, stopping: j.stopping(ctx)}, nil
	}
	e, err := j.a.Endpoints.Endpoint(*p.Endpoint)
	if err != nil {
		return nil, badConfig("instructions.teacher %s: %w", p.Teacher, err)
	}
	t := &stageTeacher{concurrency: e.Params().Concurrency, stopping: j.stopping(ctx)}
	if t.forecast, err = j.forecast(ctx, p); err != nil {
		return nil, err
	}
	if most := p.Endpoint.MaxCostUSD; most > 0 && t.forecast.USD.Low > most {
		return nil, &problem{BudgetExceeded, fmt.Errorf("the instructions cost at least %.2f USD by forecast, max_cost_usd is %.2f: raise it, or take fewer documents", t.forecast.USD.Low, most)}
	}
	attempt := fmt.Sprintf("process %d", os.Getpid())
	if activity.IsActivity(ctx) {
		info := activity.GetInfo(ctx)
		attempt = fmt.Sprintf("%s/%s/%s/%d", info.WorkflowExecution.ID, info.WorkflowExecution.RunID, info.ActivityID, info.Attempt)
	}
	t.budget = j.budget(*p.Endpoint, j.shard.name())
	t.model = llm.NewTeacher(e, j.a.Store, t.budget, attempt, func(u llm.Usage) {
		j.advance(Progress{Done: int64(u.Replies + u.Journaled), Unit: "reply", Spent: u.SpentUSD})
	})
	t.Teacher = t.model
	return t, nil
}

// forecast is what the whole stage will take, by the documents that are there.
func (j *job) forecast(ctx context.Context, p datasets.InstructionsStageParams) (llm.Forecast, error) {
	var d datasets.DocumentsReport
	if err := j.readJSON(ctx, "documents", "report.json", &d); err != nil {
		return llm.Forecast{}, err
	}
	return llm.Estimate(*p.Endpoint, p.InstructionsParams, workload(d, p.InstructionsParams)), nil
}

// workload is what documents ask of a teacher: instances, and the tokens of the documents they are about, copies of
// long ones among both.
func workload(d datasets.DocumentsReport, p datasets.InstructionsParams) llm.Workload {
	training := d.Kept - d.HeldOut + d.Copies
	instances := float64(training*p.PerDocument + d.HeldOut*p.PerHeldOut)
	tokens := float64(d.Tokens) / float64(max(training+d.HeldOut, 1)) * instances
	return llm.Workload{
		Instances: llm.Range{Low: instances, High: instances}, Tokens: llm.Range{Low: tokens, High: tokens},
	}
}

// teacherError types what stopped the asking.
func teacherError(err error) error {
	var budget *llm.BudgetError
	var key *llm.KeyError
	var call *llm.CallError
	switch {
	case errors.As(err, &budget):
		return &problem{BudgetExceeded, err}
	case errors.As(err, &key):
		return badConfig("%w", err)
	case errors.As(err, &call) && call.Fatal():
		return badConfig("%w; check model, base_url, the key and the account", err)
	case errors.As(err, &call):
		return &problem{EndpointUnavailable, fmt.Errorf("%w; replies so far are kept, and the stage goes on by itself when the endpoint answers", err)}
	}
	return err
}

// instances streams the conversations of an input's file.
func (j *job) instances(ctx context.Context, role, file string) iter.Seq2[datasets.Instance, error] {
	return lines[datasets.Instance](ctx, j, role, file)
}
