package train_test

import (
	"testing"
	"time"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu/train"
)

// BenchmarkCheckpointOverhead trains stretches of steps by turns without a checkpoint and with one that is taken in the
// middle and written behind the steps that follow. It reports the median cost of the checkpoint as a share of its
// stretch, on the wall and in processor time; the latter is right on a busy machine too. The file system is the
// temporary folder's.
func BenchmarkCheckpointOverhead(b *testing.B) {
	const stretch = 10 // steps; the command line's and the experiments' default are 20 to 50
	tr := benchTrainer(b)
	src, err := train.Cycle([]datasets.Pack{benchPack(4096, 512)}, 1)
	if err != nil {
		b.Fatal(err)
	}
	store := train.Checkpoints{Dir: b.TempDir(), Keep: 2}
	run := func(every int) (wall, cpu float64) {
		began, used := time.Now(), processorTime()
		taken := 0
		lo := train.LoopOptions{StopAfter: stretch, CheckpointEvery: every, OnStep: func(train.Metrics) error {
			if taken++; taken == stretch {
				wall, cpu = time.Since(began).Seconds(), (processorTime() - used).Seconds()
			}
			return nil
		}}
		if every > 0 {
			lo.Checkpoint = func(s *train.State) error {
				if taken >= stretch {
					return nil // the stretch is over
				}
				return store.Save(s)
			}
		}
		if err := tr.Run(bg, src, lo); err != nil {
			b.Fatal(err)
		}
		return wall, cpu
	}
	run(0) // allocates what all steps use
	var wall, cpu []float64
	for b.Loop() {
		w0, c0 := run(0)
		w1, c1 := run(stretch / 2)
		wall, cpu = append(wall, 100*(w1/w0-1)), append(cpu, 100*(c1/c0-1))
	}
	b.ReportMetric(median(wall), "wall-%")
	b.ReportMetric(median(cpu), "cpu-%")
}

// BenchmarkCheckpoint measures one checkpoint by itself: the snapshot, which the next step waits for, and the processor
// time of snapshot, writing, verifying and deleting, beside that of a step. Their ratio tells from which interval on a
// checkpoint costs less than a share of the training.
func BenchmarkCheckpoint(b *testing.B) {
	tr := benchTrainer(b)
	store := train.Checkpoints{Dir: b.TempDir(), Keep: 2}
	packs := []datasets.Pack{benchPack(4096, 512)}
	var step, snapshot, whole []float64
	milliseconds := func(d time.Duration) float64 { return d.Seconds() * 1e3 }
	for b.Loop() {
		used := processorTime()
		if _, err := tr.Step(bg, packs); err != nil {
			b.Fatal(err)
		}
		step = append(step, milliseconds(processorTime()-used))
		used = processorTime()
		began := time.Now()
		s, err := tr.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		snapshot = append(snapshot, milliseconds(time.Since(began)))
		if err := store.Save(s); err != nil {
			b.Fatal(err)
		}
		whole = append(whole, milliseconds(processorTime()-used))
	}
	b.ReportMetric(median(snapshot), "snapshot-ms")
	b.ReportMetric(median(whole), "checkpoint-cpu-ms")
	b.ReportMetric(median(step), "step-cpu-ms")
}
