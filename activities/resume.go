package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"go.temporal.io/sdk/activity"

	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/gpu/train"
)

// savedState is what the checkpoint pointer of an unfinished training holds.
type savedState struct {
	Step    int           `json:"step"`
	Tensors artifact.Blob `json:"tensors"`
	Record  artifact.Blob `json:"record"`
	// Attempts tell how often the training was taken up, and what each interruption cost.
	Attempts []Attempt `json:"attempts"`
	// ForecastSeconds is what the first attempt expected the whole training to take.
	ForecastSeconds float64 `json:"forecast_seconds,omitempty"`
	// Parity is the loss-parity certificate of the first step, made before it by the first attempt.
	Parity *train.Certificate `json:"parity,omitempty"`
}

// Attempt is one time a training was started or taken up again.
type Attempt struct {
	Epoch int64 `json:"epoch"` // of the checkpoint pointer
	From  int   `json:"from"`  // steps done in the checkpoint it began with
	// Reached is the last step the attempt before had told of; Recomputed what of it had not been saved.
	Reached    int    `json:"reached"`
	Recomputed int    `json:"recomputed"`
	Worker     string `json:"worker,omitempty"`
}

// pointer is the checkpoint pointer held by this attempt.
type pointer struct {
	lease *artifact.Lease
	mu    sync.Mutex
	state savedState
}

// PointerName is the name of a training's checkpoint pointer.
func PointerName(actionKey string) string { return "checkpoint/" + actionKey }

// acquire takes the checkpoint pointer, which refuses all earlier attempts from now on, and restores the
// state it names.
func (j *job) acquire(ctx context.Context, trainer *train.Trainer) (*pointer, error) {
	owner := fmt.Sprintf("attempt on process %d", os.Getpid())
	var before Progress
	if activity.IsActivity(ctx) {
		info := activity.GetInfo(ctx)
		owner = fmt.Sprintf("%s attempt %d", info.WorkflowExecution.ID, info.Attempt)
		if activity.HasHeartbeatDetails(ctx) {
			_ = activity.GetHeartbeatDetails(ctx, &before) // only for the record of attempts
		}
	}
	lease, err := j.a.Store.AcquirePointer(ctx, PointerName(j.call.Key), owner)
	if err != nil {
		return nil, err
	}
	p := &pointer{lease: lease}
	if v := lease.Value(); len(v) > 0 && string(v) != "null" {
		if err := json.Unmarshal(v, &p.state); err != nil {
			return nil, badData("checkpoint pointer: %w", err)
		}
		if p.state.Step > 0 {
			if err := j.restore(ctx, trainer, p.state); err != nil {
				return nil, err
			}
		}
	}
	p.state.Attempts = append(p.state.Attempts, Attempt{
		Epoch: lease.Epoch(), From: p.state.Step, Reached: int(before.Done), Recomputed: max(0, int(before.Done)-p.state.Step), Worker: owner,
	})
	return p, lease.Set(ctx, p.state)
}

func (j *job) restore(ctx context.Context, trainer *train.Trainer, s savedState) error {
	dir := filepath.Join(j.dir, "resume")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := j.a.Store.FetchBlob(ctx, s.Tensors, filepath.Join(dir, train.StateTensors)); err != nil {
		return err
	}
	if err := j.a.Store.FetchBlob(ctx, s.Record, filepath.Join(dir, train.StateRecord)); err != nil {
		return err
	}
	state, err := train.ReadState(dir)
	if err != nil {
		return badData("%w", err)
	}
	defer state.Release()
	if err := trainer.Restore(state); err != nil {
		return badData("%w", err)
	}
	j.note("taken up at step %d", s.Step)
	return nil
}

// save stores a state and then moves the pointer to it. Until the pointer has moved, the state before is the checkpoint.
func (p *pointer) save(ctx context.Context, j *job, s *train.State) error {
	dir := filepath.Join(j.dir, fmt.Sprintf("state-%d", s.Step))
	if err := s.WriteTo(dir); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tensors, err := j.a.Store.PutFile(ctx, filepath.Join(dir, train.StateTensors))
	if err != nil {
		return err
	}
	record, err := j.a.Store.PutFile(ctx, filepath.Join(dir, train.StateRecord))
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Step, p.state.Tensors, p.state.Record = s.Step, tensors, record
	return p.lease.Set(ctx, p.state)
}

// certify keeps the loss-parity certificate for the manifest.
func (p *pointer) certify(ctx context.Context, c train.Certificate) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Parity = &c
	return p.lease.Set(ctx, p.state)
}

// Timings are what a training cost on the machine it ran on.
type Timings struct {
	Device  string  `json:"device"`
	Seconds float64 `json:"seconds"` // in optimizer steps
	// ForecastSeconds is what they were expected to be when the training began, by the speed of an earlier one; 0 where there was none.
	ForecastSeconds float64 `json:"forecast_seconds,omitempty"`
	// Steps are the seconds of each step, MicroBatches those of each of its micro-batches.
	Steps        []float64   `json:"steps"`
	MicroBatches [][]float64 `json:"micro_batches,omitempty"`
}

// putMetrics stores what the training was like: what every run would repeat in metrics.jsonl, what was measured apart.
func (j *job) putMetrics(ctx context.Context, history []train.Metrics, report BatchesReport, p *pointer) error {
	t := Timings{Device: j.manifest.Platform.CPU, ForecastSeconds: p.state.ForecastSeconds}
	if j.manifest.Platform.GPU != "" {
		t.Device = j.manifest.Platform.GPU
	}
	var lines strings.Builder
	var computed, targets int64
	for _, m := range history {
		t.Seconds += m.Seconds
		t.Steps = append(t.Steps, m.Seconds)
		t.MicroBatches = append(t.MicroBatches, m.MicroBatchSeconds)
		computed += int64(m.Tokens)
		targets += int64(m.Targets)
		m.Seconds, m.TokensPerSecond, m.MicroBatchSeconds = 0, 0, nil
		line, err := json.Marshal(m)
		if err != nil {
			return err
		}
		lines.Write(append(line, '\n'))
	}
	if err := report.Ledger.Confirm(computed, targets); err != nil {
		return badData("%w", err)
	}
	j.count("steps", int64(len(history)))
	j.count("tokens", computed)
	if err := j.put(ctx, "metrics.jsonl", "application/jsonl", strings.NewReader(lines.String())); err != nil {
		return err
	}
	if err := j.putMeasured(ctx, "timings.json", t); err != nil {
		return err
	}
	if p.state.Parity != nil {
		if err := j.putMeasured(ctx, "parity.json", p.state.Parity); err != nil {
			return err
		}
	}
	return j.putMeasured(ctx, "attempts.json", p.state.Attempts)
}
