package llama_test

import (
	"bytes"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/llama/safetensors"
)

// savedModel writes a small model and returns its directory.
func savedModel(t *testing.T, f fields) string {
	t.Helper()
	dir := t.TempDir()
	m := randomModel(t, parse(t, f), openHost(t), gpu.Float32)
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// entriesOf reads a weights file into memory.
func entriesOf(t *testing.T, path string) []safetensors.Entry {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	var out []safetensors.Entry
	for _, x := range f.Tensors() {
		out = append(out, safetensors.Entry{Name: x.Name, DType: x.DType, Shape: x.Shape, Read: func() ([]byte, error) { return x.Data, nil }})
	}
	return out
}

func writeEntries(t *testing.T, path string, entries []safetensors.Entry) {
	t.Helper()
	err := safetensors.WriteFile(path, func(w io.Writer) error { return safetensors.Write(w, map[string]string{"format": "pt"}, entries) })
	if err != nil {
		t.Fatal(err)
	}
}

// shard replaces the weights of dir by two files, a and b, and their index.
func shard(t *testing.T, dir string, a, b []safetensors.Entry) {
	t.Helper()
	writeEntries(t, filepath.Join(dir, "a.safetensors"), a)
	writeEntries(t, filepath.Join(dir, "b.safetensors"), b)
	var index bytes.Buffer
	index.WriteString(`{"metadata": {}, "weight_map": {`)
	for i, x := range append(slices.Clone(a), b...) {
		if i > 0 {
			index.WriteString(", ")
		}
		index.WriteString(`"` + x.Name + `": "` + map[bool]string{true: "a", false: "b"}[i < len(a)] + `.safetensors"`)
	}
	index.WriteString("}}")
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), index.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
}

func TestModelDirectoriesThatDoNotFitAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, dir string)
		want  string
	}{
		"a shape that config.json contradicts": {func(t *testing.T, dir string) {
			e := entriesOf(t, filepath.Join(dir, "model.safetensors"))
			e[3].Shape = []int{16, 8} // k_proj, transposed
			writeEntries(t, filepath.Join(dir, "model.safetensors"), e)
		}, "config.json asks for"},
		"a missing tensor": {func(t *testing.T, dir string) {
			e := entriesOf(t, filepath.Join(dir, "model.safetensors"))
			writeEntries(t, filepath.Join(dir, "model.safetensors"), e[:len(e)-1])
		}, "is in none of the files"},
		"a tensor of another model": {func(t *testing.T, dir string) {
			e := entriesOf(t, filepath.Join(dir, "model.safetensors"))
			e[2].Name = "model.layers.0.self_attn.q_proj.lora_A"
			writeEntries(t, filepath.Join(dir, "model.safetensors"), e)
		}, "belongs to no part"},
		"integer weights": {func(t *testing.T, dir string) {
			e := entriesOf(t, filepath.Join(dir, "model.safetensors"))
			e[0].DType = "I32"
			writeEntries(t, filepath.Join(dir, "model.safetensors"), e)
		}, "does not hold floating-point"},
		"truncated weights": {func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "model.safetensors"), 4000); err != nil {
				t.Fatal(err)
			}
		}, "truncated"},
		"no weights": {func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "model.safetensors")); err != nil {
				t.Fatal(err)
			}
		}, "convert them to safetensors"},
		"an index that leaves the directory": {func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "model.safetensors")); err != nil {
				t.Fatal(err)
			}
			index := `{"weight_map":{"lm_head.weight":"../../etc/x.safetensors"}}`
			if err := os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), []byte(index), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a safetensors file of this directory"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := savedModel(t, base)
			tt.spoil(t, dir)
			_, err := llama.Load(dir, openHost(t), gpu.Float32)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestShardsAndExtraTensorsRoundTrip(t *testing.T) {
	dir := savedModel(t, base)
	e := entriesOf(t, filepath.Join(dir, "model.safetensors"))
	freq, err := safetensors.Encode(safetensors.F32, []float32{1, 0.1})
	if err != nil {
		t.Fatal(err)
	}
	// Old LLaMA files hold the rotary frequencies too, and any order of tensors is valid.
	slices.Reverse(e)
	second := append(slices.Clone(e[5:]), safetensors.Entry{Name: "model.layers.0.self_attn.rotary_emb.inv_freq", DType: safetensors.F32, Shape: []int{2}, Read: func() ([]byte, error) { return freq, nil }})
	shard(t, dir, e[:5], second)
	m, err := llama.Load(dir, openHost(t), gpu.Float32)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	out := t.TempDir()
	if err := m.Save(out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readDir(t, dir), readDir(t, out)); diff != "" {
		t.Error(diff)
	}
}

func TestATiedHeadStoredAgainFollowsTheEmbedding(t *testing.T) {
	dir := savedModel(t, families["llama, tied"])
	path := filepath.Join(dir, "model.safetensors")
	e := entriesOf(t, path)
	head := e[0]
	head.Name = "lm_head.weight"
	writeEntries(t, path, append(e, head))
	dev := openHost(t)
	m, err := llama.Load(dir, dev, gpu.Float32)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	x := make([]float32, m.Params()[0].Len())
	x[0] = 42
	dev.Upload(m.Params()[0].Weight, x)
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	after := entriesOf(t, path)
	a, err := after[0].Read()
	if err != nil {
		t.Fatal(err)
	}
	b, err := after[len(after)-1].Read()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) || after[len(after)-1].Name != "lm_head.weight" {
		t.Error("the stored head differs from the embedding it is tied to")
	}
	b[0] ^= 1
	after[len(after)-1].Read = func() ([]byte, error) { return b, nil }
	writeEntries(t, path, after)
	if _, err := llama.Load(dir, dev, gpu.Float32); err == nil || !strings.Contains(err.Error(), "tie_word_embeddings") {
		t.Errorf("a head that contradicts tie_word_embeddings: %v", err)
	}
	// In a file of its own, too.
	shard(t, dir, after[:len(after)-1], after[len(after)-1:])
	if _, err := llama.Load(dir, dev, gpu.Float32); err == nil || !strings.Contains(err.Error(), "b.safetensors: tie_word_embeddings") {
		t.Errorf("a head in another file that contradicts tie_word_embeddings: %v", err)
	}
	b[0] ^= 1
	shard(t, dir, after[:len(after)-1], after[len(after)-1:])
	again, err := llama.Load(dir, dev, gpu.Float32)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestWeightsDependOnTheSeedAlone(t *testing.T) {
	sum := func(seed uint64) float64 {
		dev := openHost(t)
		m, err := llama.New(parse(t, base), dev, gpu.Float64, seed)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		x := make([]float64, m.Params()[0].Len())
		dev.Download64(x, m.Params()[0].Weight)
		var sum, squares float64
		for _, v := range x {
			sum += v
			squares += v * v
		}
		if sd := math.Sqrt(squares / float64(len(x))); sd < 0.25 || sd > 0.35 {
			t.Errorf("standard deviation %v, config says 0.3", sd)
		}
		return sum
	}
	if a, b, c := sum(1), sum(1), sum(2); a != b || a == c {
		t.Errorf("sums %v %v of one seed, %v of another", a, b, c)
	}
}
