package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu/train"
)

// errWritten ends a run of steps whose checkpoint is written.
var errWritten = errors.New("the checkpoint is written")

// checkpoint times the steps beside which a checkpoint is written, against others. It takes two and shows the second: the first
// pins the host's memory, once a run.
func checkpoint(ctx context.Context, s settings) error {
	d, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	_, t, p, err := s.trainer(d)
	if err != nil {
		return err
	}
	defer t.Model().Close()
	defer t.Close()
	dir, err := os.MkdirTemp("", "bench-checkpoint-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	store := train.Checkpoints{Dir: dir, Keep: 1}
	src, err := train.Cycle([]datasets.Pack{p}, 1)
	if err != nil {
		return err
	}
	var ends []time.Time
	if err := t.Run(ctx, src, train.LoopOptions{StopAfter: s.steps + 2, OnStep: func(train.Metrics) error {
		ends = append(ends, time.Now())
		return nil
	}}); err != nil {
		return err
	}
	var alone []float64
	for i := 2; i < len(ends); i++ {
		alone = append(alone, ends[i].Sub(ends[i-1]).Seconds())
	}
	slices.Sort(alone)
	step := alone[len(alone)/2]
	var write time.Duration
	for range 2 {
		var written atomic.Bool
		begun := false
		ends = ends[:0]
		err := t.Run(ctx, src, train.LoopOptions{
			CheckpointEvery: t.StepsDone() + 1, // that is after the first step of this run, and not soon again
			OnStep: func(train.Metrics) error {
				ends = append(ends, time.Now())
				if written.Load() && len(ends) > 1 {
					return errWritten
				}
				return nil
			},
			Checkpoint: func(state *train.State) error {
				if begun {
					return nil // the run's last
				}
				begun = true
				began := time.Now()
				err := store.Save(state)
				write = time.Since(began)
				written.Store(err == nil)
				return err
			},
		})
		if !errors.Is(err, errWritten) {
			return err
		}
	}
	var size int64
	if err := filepath.WalkDir(dir, func(_ string, f fs.DirEntry, err error) error {
		if err != nil || f.IsDir() {
			return err
		}
		i, err := f.Info()
		if err == nil {
			size += i.Size()
		}
		return err
	}); err != nil {
		return err
	}
	beside := len(ends) - 1
	cost := ends[beside].Sub(ends[0]).Seconds() - float64(beside)*step
	fmt.Fprintf(s.out, "checkpoint: %.3g GiB, written in %.3g s beside %d steps; they took %.3g s longer than as many others of %.3g s each: at most 2 %% of the time where %d steps or more lie between two\n",
		float64(size)/(1<<30), write.Seconds(), beside, cost, step, max(beside, int(math.Ceil(cost/(0.02*step)))))
	return nil
}
