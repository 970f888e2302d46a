package train_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
	"github.com/longalign/longalign-go/testenv/refdata"
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

// benchPack is tokens tokens in sequences of length.
func benchPack(tokens, length int) datasets.Pack {
	p := datasets.Pack{CuSeqlens: []int32{0}}
	for t := range tokens {
		p.InputIDs = append(p.InputIDs, int32(t*7919%4096))
		if (t+1)%length == 0 {
			p.CuSeqlens = append(p.CuSeqlens, int32(t+1))
		}
	}
	return p
}

// median sorts x.
func median(x []float64) float64 {
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

// BenchmarkStep trains the default bench shape; it reports tokens a second.
func BenchmarkStep(b *testing.B) {
	tr, packs := benchTrainer(b), []datasets.Pack{benchPack(4096, 512)}
	if _, err := tr.Step(bg, packs); err != nil { // allocates what all steps use
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tr.Step(bg, packs); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(4096*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

// BenchmarkAgainstPyTorch takes training steps by turns with a plain PyTorch model of the same shape, whose sequences
// attend one by one or in blocks of queries, whichever is faster. It reports the median ratio of the speeds. On a loaded
// machine the two do not meet the same conditions, so it refuses.
func BenchmarkAgainstPyTorch(b *testing.B) {
	script := refdata.Path(b, "oracle", "torch_llama.py")
	python := "/usr/bin/python3"
	if err := exec.CommandContext(b.Context(), python, "-c", "import torch").Run(); err != nil {
		b.Skip("no PyTorch is here to compare with")
	}
	var load float64
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		if _, err := fmt.Sscan(string(text), &load); err != nil {
			b.Fatal(err)
		}
	}
	if load > 0.7 {
		b.Skipf("the load average is %.2f; wait until the machine is quiet", load)
	}
	tr := benchTrainer(b)
	for _, length := range []int{512, 2048, 8192} {
		b.Run(fmt.Sprint(length), func(b *testing.B) {
			tokens := max(4096, length)
			packs := []datasets.Pack{benchPack(tokens, length)}
			ours := func() float64 {
				var best float64
				for range 3 {
					mt, err := tr.Step(bg, packs)
					if err != nil {
						b.Fatal(err)
					}
					best = max(best, mt.TokensPerSecond)
				}
				return best
			}
			theirs := func() (best float64) {
				for _, form := range []string{"loop", "chunk"} {
					c := exec.CommandContext(b.Context(), python, script, "bench", "--tokens", fmt.Sprint(tokens), "--seqlen", fmt.Sprint(length),
						"--attn", form, "--reps", "3", "--threads", fmt.Sprint(runtime.NumCPU()))
					c.Env = append(os.Environ(), "OMP_WAIT_POLICY=passive") // spinning threads slow it on few cores
					out, err := c.Output()
					if err != nil {
						b.Fatal(err)
					}
					var r struct {
						Speed float64 `json:"tok_s_wall"`
					}
					if err := json.Unmarshal(out, &r); err != nil {
						b.Fatal(err)
					}
					best = max(best, r.Speed)
				}
				return best
			}
			ours() // warms up
			var we, they, ratio []float64
			for b.Loop() {
				w, t := ours(), theirs()
				we, they, ratio = append(we, w), append(they, t), append(ratio, w/t)
			}
			b.ReportMetric(median(we), "tokens/s")
			b.ReportMetric(median(they), "pytorch-tokens/s")
			b.ReportMetric(median(ratio), "times-pytorch")
		})
	}
}
