package train_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longalign/longalign-go/gpu/train"
)

// spoilWeights makes one weight NaN, as an update that overflows does.
func spoilWeights(tr *train.Trainer) {
	w := tr.Model().Master()
	tr.Model().Device().Upload(w.Slice(0, 1), []float32{float32(math.NaN())})
}

func TestWeightsThatAreNotFiniteAreNeverKept(t *testing.T) {
	store := train.Checkpoints{Dir: t.TempDir(), Keep: 1}
	tr := tinyTrainer(t, tinyOptions(4))
	err := tr.Run(bg, tinySource(t), train.LoopOptions{CheckpointEvery: 2, Checkpoint: store.Save, OnStep: func(m train.Metrics) error {
		if m.Step == 3 { // the last step: no loss would tell
			spoilWeights(tr)
		}
		return nil
	}})
	var de *train.DivergedError
	if !errors.As(err, &de) || !de.Taken || de.Step != 3 || de.Kept != 2 || len(de.Sequences) == 0 || !strings.Contains(err.Error(), "checkpoint is that after 2 steps") {
		t.Fatalf("got %v", err)
	}
	s, err := store.Latest(nil)
	if err != nil || s.Step != 2 {
		t.Fatalf("%+v, %v: the good checkpoint is gone", s, err)
	}
	s.Release()
}

func TestADivergenceSaysWhatIsKept(t *testing.T) {
	for name, tt := range map[string]struct {
		spoilAfter, every int
		kept              int
		want              string
	}{
		"in the first step":                 {-1, 0, -1, "there is no checkpoint"},
		"between checkpoints":               {2, 2, 2, "the newest checkpoint is that after 2 steps"},
		"of the weights, with nothing kept": {1, 0, -1, "there is no checkpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := tinyTrainer(t, tinyOptions(6))
			if tt.spoilAfter < 0 {
				spoilWeights(tr)
			}
			var kept []int
			o := tinySource(t)
			err := tr.Run(bg, o, train.LoopOptions{CheckpointEvery: tt.every, Checkpoint: func(s *train.State) error { kept = append(kept, s.Step); return nil },
				OnStep: func(m train.Metrics) error {
					if m.Step == tt.spoilAfter {
						spoilWeights(tr)
						if err := tr.Model().MasterChanged(); err != nil {
							return err
						}
					}
					return nil
				}})
			var de *train.DivergedError
			if !errors.As(err, &de) || de.Kept != tt.kept || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, kept %v", err, kept)
			}
			if len(kept) > 0 && slices.Max(kept) > max(0, tt.kept) {
				t.Errorf("kept %v", kept)
			}
		})
	}
}

// What ends a training from outside, be it data or a reader that went away, costs no step.
func TestNoStepIsLostToWhatIsNotTheTrainings(t *testing.T) {
	broken := errors.New("broken")
	for name, lo := range map[string]struct {
		src    func(train.Source) train.Source
		onStep func(train.Metrics) error
	}{
		"data that cannot be read": {src: func(src train.Source) train.Source {
			return train.SourceFunc(func(step int) (train.Batch, error) {
				if step == 3 {
					return train.Batch{}, broken
				}
				return src.Batch(step)
			})
		}},
		"data outside the vocabulary": {src: func(src train.Source) train.Source {
			return train.SourceFunc(func(step int) (train.Batch, error) {
				if step == 3 {
					p := tinyPacks(1)
					p[0].InputIDs[0] = 1000
					return train.Batch{MicroBatches: p}, nil
				}
				return src.Batch(step)
			})
		}},
		"a reader that went away": {onStep: func(m train.Metrics) error {
			if m.Step == 2 {
				return broken
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := tinyTrainer(t, tinyOptions(6))
			src := tinySource(t)
			if lo.src != nil {
				src = lo.src(src)
			}
			var kept []int
			err := tr.Run(bg, src, train.LoopOptions{OnStep: lo.onStep, Checkpoint: func(s *train.State) error { kept = append(kept, s.Step); return nil }})
			if err == nil || !slices.Equal(kept, []int{3}) {
				t.Errorf("%v, kept %v, want the state after 3 steps", err, kept)
			}
		})
	}
}

func TestCheckpointsComeByTimeToo(t *testing.T) {
	tr := tinyTrainer(t, tinyOptions(3))
	var kept []int
	if err := tr.Run(bg, tinySource(t), train.LoopOptions{CheckpointInterval: time.Nanosecond, Checkpoint: func(s *train.State) error { kept = append(kept, s.Step); return nil }}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(kept, []int{1, 2, 3}) {
		t.Errorf("kept %v", kept)
	}
}

func TestAnInterruptedRunSaysThatItsStateWasNotKept(t *testing.T) {
	ctx, cancel := context.WithCancel(bg)
	tr := tinyTrainer(t, tinyOptions(6))
	err := tr.Run(ctx, tinySource(t), train.LoopOptions{OnStep: func(train.Metrics) error { cancel(); return nil }, Checkpoint: func(*train.State) error { return errors.New("disk full") }})
	var ce *train.CheckpointError
	if !errors.Is(err, context.Canceled) || !errors.As(err, &ce) || ce.Steps != 1 {
		t.Errorf("got %v", err)
	}
}

func TestCheckpointsOfAnotherRunAreNotTakenForThisOnes(t *testing.T) {
	store := train.Checkpoints{Dir: t.TempDir(), Keep: 1}
	run := func(lr float64, steps int) error {
		o := tinyOptions(4)
		o.LR = lr
		return tinyTrainer(t, o).Run(bg, tinySource(t), train.LoopOptions{CheckpointEvery: 1, StopAfter: steps, Checkpoint: store.Save})
	}
	if err := run(1e-3, 2); err != nil {
		t.Fatal(err)
	}
	// The step before the old run's: its own checkpoint is not deleted for the later number of another's.
	var re *train.ResumeError
	if err := run(1e-4, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(store.Dir, "step-00000001")); err != nil {
		t.Error("a run deleted its own checkpoint")
	}
	if err := run(1e-4, 2); !errors.As(err, &re) || re.Field != "lr" {
		t.Errorf("got %v", err)
	}
}

func TestOneTrainingWritesToADirectory(t *testing.T) {
	store := train.Checkpoints{Dir: filepath.Join(t.TempDir(), "checkpoints")}
	unlock, err := store.Lock()
	if err != nil {
		t.Fatal(err)
	}
	var le *train.LockedError
	if _, err := store.Lock(); !errors.As(err, &le) || le.Dir != store.Dir {
		t.Errorf("got %v", err)
	}
	unlock()
	again, err := store.Lock()
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestARunWhoseCheckpointsAreAllDamagedIsNotBegunAgain(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"a step below zero":       func(r map[string]any) { r["step"] = -3 },
		"a step beyond the run":   func(r map[string]any) { r["step"] = 99 },
		"fewer metrics":           func(r map[string]any) { r["metrics"] = []any{} },
		"another tensors' digest": func(r map[string]any) { r["tensors_sha256"] = "00" },
	} {
		t.Run(name, func(t *testing.T) {
			store := train.Checkpoints{Dir: t.TempDir(), Keep: 2}
			if err := tinyTrainer(t, tinyOptions(4)).Run(bg, tinySource(t), train.LoopOptions{StopAfter: 2, Checkpoint: store.Save}); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(store.Dir, "step-00000002", train.StateRecord)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var r map[string]any
			if err := json.Unmarshal(data, &r); err != nil {
				t.Fatal(err)
			}
			change(r)
			if data, err = json.Marshal(r); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			var damaged []error
			s, err := store.Latest(func(err error) { damaged = append(damaged, err) })
			if err == nil || s != nil || len(damaged) != 1 {
				t.Errorf("%v, %v, damaged %v", s, err, damaged)
			}
		})
	}
}
