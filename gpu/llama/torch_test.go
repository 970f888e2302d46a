package llama_test

import (
	"bytes"
	"encoding/json"
	"math"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
)

// python returns an interpreter that has PyTorch, or skips. Debian's package is python3-torch.
func python(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if path, err := exec.LookPath(name); err == nil && exec.CommandContext(t.Context(), path, "-c", "import torch").Run() == nil {
			return path
		}
	}
	t.Skip("no python3 with torch is here to compare with")
	return ""
}

// Losses of every token and gradients of every parameter are those of another implementation, in PyTorch with autograd,
// that reads the same directory. Both compute in float64 on weights stored in float32.
func TestFamiliesEqualPyTorch(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an interpreter for each family")
	}
	py := python(t)
	script, err := filepath.Abs("testdata/families.py")
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dev := openHost(t)
			dir := t.TempDir()
			if err := randomModel(t, parse(t, f), dev, gpu.Float32).Save(dir); err != nil {
				t.Fatal(err)
			}
			m, err := llama.Load(dir, dev, gpu.Float64)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if err := m.EnableTraining(llama.Placement{}); err != nil {
				t.Fatal(err)
			}
			p := threeSequences(23)
			p.Labels = nil
			request, err := json.Marshal(map[string]any{"input_ids": p.InputIDs, "cu_seqlens": p.CuSeqlens, "coef": coef})
			if err != nil {
				t.Fatal(err)
			}
			c := exec.CommandContext(t.Context(), py, script, dir)
			var errs bytes.Buffer
			c.Stdin, c.Stderr = bytes.NewReader(request), &errs
			out, err := c.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, errs.Bytes())
			}
			var want struct {
				NLL   []float64
				Grads map[string][]float64
			}
			if err := json.Unmarshal(out, &want); err != nil {
				t.Fatal(err)
			}
			nll, err := m.NLL(&p)
			if err != nil {
				t.Fatal(err)
			}
			within(t, "nll", nll, want.NLL)
			_, grad := gradient(t, m, &p)
			seen := 0
			for _, q := range m.Params() {
				if g, ok := want.Grads[q.Name]; ok {
					within(t, q.Name, grad[q.Offset():q.Offset()+q.Len()], g)
					seen++
				}
			}
			if seen != len(m.Params()) || seen != len(want.Grads) {
				t.Errorf("%d parameters compared; the model has %d, PyTorch's %d", seen, len(m.Params()), len(want.Grads))
			}
		})
	}
}

// within compares to 1e-10 relative to the largest element.
func within(t *testing.T, name string, got, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d elements, want %d", name, len(got), len(want))
		return
	}
	scale := 0.0
	for _, w := range want {
		scale = max(scale, math.Abs(w))
	}
	for i, w := range want {
		if d := math.Abs(got[i] - w); !(d <= 1e-10*max(1e-3, scale)) {
			t.Errorf("%s[%d] is %.15g, want %.15g", name, i, got[i], w)
			return
		}
	}
}
