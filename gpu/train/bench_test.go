package train_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
	"github.com/longalign/longalign-go/testenv/refdata"
)

// benchShape is a shape that speed is quoted for.
type benchShape struct {
	name                            string
	dim, layers, heads, kvHeads, ff int
	vocab                           int
}

var (
	shape5M  = benchShape{"5M", 256, 4, 4, 2, 688, 4096}    // 5.0 M parameters, the default
	shape58M = benchShape{"58M", 512, 8, 8, 8, 1376, 32000} // 58 M parameters
)

// benchTrainer trains the default shape.
func benchTrainer(b *testing.B) *train.Trainer { return shape5M.trainer(b) }

func (s benchShape) trainer(b *testing.B) *train.Trainer {
	b.Helper()
	c, err := llama.Shape{Dim: s.dim, Layers: s.layers, Heads: s.heads, KVHeads: s.kvHeads, FeedForward: s.ff, Vocab: s.vocab, Context: 8192}.Config()
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
// attend one by one or in blocks of queries, whichever is faster. It reports the median ratio of the speeds. Both sides
// use the same instruction set, the best of the processor or what LONGALIGN_KERNELS says (avx2, avx512). On a loaded
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
	environment := append(os.Environ(), pyTorchKernels(openHost(b).Info().Class)...)
	for _, c := range []struct {
		shape          benchShape
		tokens, length int
	}{{shape5M, 4096, 512}, {shape5M, 4096, 2048}, {shape5M, 8192, 8192}, {shape58M, 2048, 512}} {
		b.Run(fmt.Sprintf("%s/%d", c.shape.name, c.length), func(b *testing.B) {
			tr, packs := c.shape.trainer(b), []datasets.Pack{benchPack(c.tokens, c.length)}
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
					p := exec.CommandContext(b.Context(), python, script, "bench", "--attn", form, "--reps", "3")
					for flag, v := range map[string]int{"tokens": c.tokens, "seqlen": c.length, "threads": runtime.NumCPU(), "dim": c.shape.dim,
						"layers": c.shape.layers, "heads": c.shape.heads, "kv": c.shape.kvHeads, "ff": c.shape.ff, "vocab": c.shape.vocab} {
						p.Args = append(p.Args, "--"+flag, fmt.Sprint(v))
					}
					p.Env = environment
					out, err := p.Output()
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

// pyTorchKernels returns the environment in which PyTorch and its OpenBLAS are at their best with the instruction set
// of a host device's class. OpenBLAS of that age does not know newer processors' AVX-512 and takes its AVX2 kernels
// where it is not told; and spinning OpenMP threads slow PyTorch on few cores.
func pyTorchKernels(class string) []string {
	env := []string{"OMP_WAIT_POLICY=passive"}
	switch {
	case strings.HasSuffix(class, "/avx512"):
		env = append(env, "OPENBLAS_CORETYPE=SkylakeX", "ATEN_CPU_CAPABILITY=avx512")
	case strings.HasSuffix(class, "/avx2"):
		env = append(env, "OPENBLAS_CORETYPE=Haswell", "ATEN_CPU_CAPABILITY=avx2")
	}
	return env
}
