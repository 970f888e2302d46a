package train_test

import (
	"slices"
	"testing"
	"time"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
)

// benchTrainer trains the shape that speed is quoted for: 5.0 M parameters.
func benchTrainer(b *testing.B) *train.Trainer {
	b.Helper()
	c, err := llama.Shape{Dim: 256, Layers: 4, Heads: 4, KVHeads: 2, FeedForward: 688, Vocab: 4096, Context: 8192}.Config()
	if err != nil {
		b.Fatal(err)
	}
	m, err := llama.New(c, openHost(b), gpu.Float32, 1)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(m.Close)
	tr, err := train.New(m, tinyOptions(1<<30))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(tr.Close)
	return tr
}

// benchPack is 4,096 tokens in sequences of length.
func benchPack(length int) datasets.Pack {
	p := datasets.Pack{CuSeqlens: []int32{0}}
	for t := range 4096 {
		p.InputIDs = append(p.InputIDs, int32(t*7919%4096))
		if (t+1)%length == 0 {
			p.CuSeqlens = append(p.CuSeqlens, int32(t+1))
		}
	}
	return p
}

// BenchmarkCheckpointOverhead trains stretches of steps by turns without a checkpoint and with one that is taken in the
// middle and written behind the steps that follow. It reports the median cost of the checkpoint as a share of its
// stretch, on the wall and in processor time; the latter is right on a busy machine too. The file system is the
// temporary folder's.
func BenchmarkCheckpointOverhead(b *testing.B) {
	const stretch = 10 // steps; the command line's and the experiments' default are 20 to 50
	tr := benchTrainer(b)
	src, err := train.Cycle([]datasets.Pack{benchPack(512)}, 1)
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

func median(x []float64) float64 {
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}
