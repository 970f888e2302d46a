package llama_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

var smallShape = llama.Shape{Dim: 16, Layers: 1, Heads: 2, KVHeads: 1, FeedForward: 24, Vocab: 30, Context: 64, BOS: 1, EOS: 2}

func seededModel(t *testing.T, seed uint64) *llama.Model {
	t.Helper()
	c, err := smallShape.Config()
	if err != nil {
		t.Fatal(err)
	}
	m, err := llama.New(c, openHost(t), gpu.Float32, seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func masterOf(t *testing.T, m *llama.Model) []float32 {
	t.Helper()
	x := make([]float32, m.Master().Len())
	m.Device().Download(x, m.Master())
	if err := m.Device().Sync(); err != nil {
		t.Fatal(err)
	}
	return x
}

// shards splits a model directory's weights over two files.
func shards(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "model.safetensors")
	e := entriesOf(t, path)
	var index bytes.Buffer
	index.WriteString(`{"weight_map":{`)
	for i, part := range [][2]int{{0, len(e) / 2}, {len(e) / 2, len(e)}} {
		name := fmt.Sprintf("model-%05d-of-00002.safetensors", i+1)
		writeEntries(t, filepath.Join(dir, name), e[part[0]:part[1]])
		for k := part[0]; k < part[1]; k++ {
			if k > 0 {
				index.WriteByte(',')
			}
			fmt.Fprintf(&index, "%q:%q", e[k].Name, name)
		}
	}
	index.WriteString("}}")
	if err := os.WriteFile(path+".index.json", index.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestAModelTakesThePlaceOfTheOneBefore(t *testing.T) {
	sharded, used := t.TempDir(), t.TempDir()
	want := seededModel(t, 2)
	if err := want.Save(sharded); err != nil {
		t.Fatal(err)
	}
	shards(t, sharded)
	m, err := llama.Load(sharded, openHost(t), gpu.Float32)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for name, before := range map[string]*llama.Model{"a single file": seededModel(t, 1), "shards": m} {
		if err := before.Save(used); err != nil {
			t.Fatal(err)
		}
		for _, next := range []*llama.Model{m, want, m} {
			if err := next.Save(used); err != nil {
				t.Fatal(err)
			}
			got, err := llama.Load(used, openHost(t), gpu.Float32)
			if err != nil {
				t.Fatalf("over %s: %v", name, err)
			}
			if !slices.Equal(masterOf(t, got), masterOf(t, want)) {
				t.Errorf("over %s the weights are another model's", name)
			}
			got.Close()
		}
	}
}

func TestASaveThatFailsLeavesTheOldModelOrNone(t *testing.T) {
	for name, tt := range map[string]struct {
		file  string // a directory that stands in the way
		whole bool
	}{
		"while writing":           {".tokenizer.json.partial", true},
		"while taking its places": {"tokenizer.json", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			old := seededModel(t, 1)
			if err := old.Save(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(dir, tt.file, "x"), 0o755); err != nil {
				t.Fatal(err)
			}
			next := seededModel(t, 2)
			next.CarryFiles(map[string][]byte{"tokenizer.json": []byte("{}")})
			if err := next.Save(dir); err == nil {
				t.Fatal("no error")
			}
			if err := os.RemoveAll(filepath.Join(dir, tt.file)); err != nil {
				t.Fatal(err)
			}
			got, err := llama.Load(dir, openHost(t), gpu.Float32)
			if (err == nil) != tt.whole {
				t.Fatalf("loading afterwards: %v", err)
			}
			if err == nil {
				if !slices.Equal(masterOf(t, got), masterOf(t, old)) {
					t.Error("the old model has changed")
				}
				got.Close()
			}
		})
	}
}
