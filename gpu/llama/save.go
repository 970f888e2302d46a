package llama

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama/safetensors"
)

// maxShard bounds a weights file made anew, as in Hugging Face.
const maxShard = 5 << 30

// SaveOption changes how Save writes a model.
type SaveOption func(*saving)

type saving struct {
	dtype safetensors.DType
}

// WithDType stores the weights in another type than they were read in (float32 for a model made from nothing).
func WithDType(t safetensors.DType) SaveOption { return func(s *saving) { s.dtype = t } }

// CarryFiles adds files (tokenizer.json and its companions) that Save writes beside the weights.
func (m *Model) CarryFiles(byName map[string][]byte) {
	if m.files == nil {
		m.files = &files{beside: map[string][]byte{}}
	}
	for name, data := range byName {
		m.files.beside[filepath.Base(name)] = data
	}
}

// Save writes the model as a Hugging Face directory: config.json, weights, tokenizer
// files. Each file appears whole or not at all; config.json comes last.
func (m *Model) Save(dir string, opts ...SaveOption) error {
	var o saving
	for _, opt := range opts {
		opt(&o)
	}
	if o.dtype != "" && !o.dtype.Float() {
		return fmt.Errorf("save: dtype %q is not one of F32, BF16, F16, F64", o.dtype)
	}
	if err := m.dev.Sync(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	wfs, index := m.saveLayout(o.dtype)
	for _, wf := range wfs {
		if err := m.writeWeights(dir, wf); err != nil {
			return err
		}
	}
	if index != nil {
		if err := replaceFile(dir, "model.safetensors.index.json", bytesTo(index)); err != nil {
			return err
		}
	}
	if m.files != nil {
		for name, data := range m.files.beside {
			if err := replaceFile(dir, name, bytesTo(data)); err != nil {
				return err
			}
		}
	}
	cfg := m.cfg
	if name, ok := torchNames[o.dtype]; ok && cfg.DType != name {
		changed := *cfg
		field := "torch_dtype"
		if _, ok := cfg.fields["dtype"]; ok {
			field = "dtype"
		}
		if err := changed.set(field, name); err != nil {
			return err
		}
		cfg = &changed
	}
	data, err := cfg.JSON()
	if err != nil {
		return err
	}
	return replaceFile(dir, "config.json", bytesTo(data))
}

var torchNames = map[safetensors.DType]string{"F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16"}

// saveLayout says which tensors go into which file: as they were stored, or in Hugging Face's order, in shards.
func (m *Model) saveLayout(dtype safetensors.DType) ([]weightsFile, []byte) {
	if m.files != nil && len(m.files.weights) > 0 {
		same := true
		var out []weightsFile
		for _, wf := range m.files.weights {
			wf.tensors = slices.Clone(wf.tensors)
			for i := range wf.tensors {
				t := &wf.tensors[i]
				if t.extra == nil && dtype != "" && t.dtype != dtype {
					t.dtype, same = dtype, false
				}
			}
			out = append(out, wf)
		}
		if same {
			return out, m.files.index
		}
	}
	if dtype == "" {
		dtype = safetensors.F32
	}
	var shards []weightsFile
	total, inShard := int64(0), int64(maxShard)
	weightMap := map[string]int{}
	for _, p := range m.plan.params {
		n := int64(p.Len()) * int64(dtype.Size())
		if inShard+n > maxShard {
			shards = append(shards, weightsFile{meta: map[string]string{"format": "pt"}})
			inShard = 0
		}
		s := &shards[len(shards)-1]
		s.tensors = append(s.tensors, storedTensor{name: p.Name, dtype: dtype, shape: p.Shape})
		weightMap[p.Name] = len(shards) - 1
		inShard += n
		total += n
	}
	if len(shards) == 1 {
		shards[0].name = "model.safetensors"
		return shards, nil
	}
	names := map[string]string{}
	for i := range shards {
		shards[i].name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
	}
	for tensor, i := range weightMap {
		names[tensor] = shards[i].name
	}
	index, err := json.MarshalIndent(map[string]any{"metadata": map[string]any{"total_size": total}, "weight_map": names}, "", "  ")
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return shards, append(index, '\n')
}

func (m *Model) writeWeights(dir string, wf weightsFile) error {
	byName := map[string]Param{}
	for i, p := range m.plan.params {
		p.Weight = m.paramView(m.Master(), i)
		byName[p.Name] = p
	}
	byName[m.cfg.headName()] = func() Param {
		head := m.plan.params[m.plan.head.param]
		head.Weight = m.paramView(m.Master(), m.plan.head.param)
		return head
	}()
	entries := make([]safetensors.Entry, len(wf.tensors))
	for i, t := range wf.tensors {
		entries[i] = safetensors.Entry{Name: t.name, DType: t.dtype, Shape: t.shape, Read: func() ([]byte, error) {
			if t.extra != nil {
				return t.extra, nil
			}
			return m.encode(byName[t.name], t.dtype)
		}}
	}
	return replaceFile(dir, wf.name, func(w io.Writer) error {
		if wf.header != nil {
			return safetensors.WriteWithHeader(w, wf.header, entries)
		}
		return safetensors.Write(w, wf.meta, entries)
	})
}

func (m *Model) encode(p Param, t safetensors.DType) ([]byte, error) {
	if m.dtype == gpu.Float64 {
		x := make([]float64, p.Len())
		m.dev.Download64(x, p.Weight)
		if err := m.dev.Sync(); err != nil {
			return nil, err
		}
		return safetensors.Encode64(t, x)
	}
	x := make([]float32, p.Len())
	m.dev.Download(x, p.Weight)
	if err := m.dev.Sync(); err != nil {
		return nil, err
	}
	return safetensors.Encode(t, x)
}

func bytesTo(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

// replaceFile writes dir/name whole or not at all.
func replaceFile(dir, name string, write func(io.Writer) error) error {
	tmp := filepath.Join(dir, "."+name+".partial")
	if err := safetensors.WriteFile(tmp, write); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, name))
}
