package llama

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

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

// Save writes the model as a Hugging Face directory: config.json, weights, tokenizer files. A model that is there already is
// replaced: all files are written beside it first, and while they take its place there is no config.json, so that a directory
// holds one whole model or none, never parts of two.
func (m *Model) Save(dir string, opts ...SaveOption) error {
	var o saving
	for _, opt := range opts {
		opt(&o)
	}
	if o.dtype != "" && !o.dtype.Float() {
		return fmt.Errorf("save: dtype %q is not one of F32, BF16, F16, F64", o.dtype)
	}
	config, err := m.configAs(o.dtype)
	if err != nil {
		return err
	}
	if err := m.dev.Sync(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	r := replacement{dir: dir}
	wfs, index := m.saveLayout(o.dtype)
	for _, wf := range wfs {
		r.add(wf.name, func(w io.Writer) error { return m.writeWeights(w, wf) })
	}
	if index != nil {
		r.add(indexName, bytesTo(index))
	}
	if m.files != nil {
		for _, name := range slices.Sorted(maps.Keys(m.files.beside)) {
			r.add(name, bytesTo(m.files.beside[name]))
		}
	}
	r.add("config.json", bytesTo(config))
	if r.err != nil {
		r.abandon()
		return fmt.Errorf("save: %w", r.err)
	}
	return r.commit()
}

const indexName = "model.safetensors.index.json"

// replacement is a set of files that takes the place of a model.
type replacement struct {
	dir   string
	names []string // the last is config.json
	err   error
}

func (r *replacement) partial(name string) string { return filepath.Join(r.dir, "."+name+".partial") }

// add writes a file beside its place.
func (r *replacement) add(name string, write func(io.Writer) error) {
	if r.err == nil {
		r.names = append(r.names, name)
		r.err = safetensors.WriteFile(r.partial(name), write)
	}
}

func (r *replacement) abandon() {
	for _, name := range r.names {
		_ = os.Remove(r.partial(name)) // the error that matters is the one before
	}
}

// commit puts the files in place, config.json last. Weights of the model before, which might be taken for this one's, go.
func (r *replacement) commit() error {
	remove := func(name string) error {
		if err := os.Remove(filepath.Join(r.dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := remove("config.json"); err != nil {
		return err
	}
	if err := syncDirectory(r.dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		weights := strings.HasPrefix(name, "model") && strings.HasSuffix(name, ".safetensors") || name == indexName
		if weights && !slices.Contains(r.names, name) {
			if err := remove(name); err != nil {
				return err
			}
		}
	}
	for i, name := range r.names {
		if i == len(r.names)-1 { // the rest is there for good before config.json is
			if err := syncDirectory(r.dir); err != nil {
				return err
			}
		}
		if err := os.Rename(r.partial(name), filepath.Join(r.dir, name)); err != nil {
			return err
		}
	}
	return syncDirectory(r.dir)
}

// syncDirectory flushes a directory's entries.
func syncDirectory(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// configAs returns config.json for weights stored in a type, "" for the one they were read in.
func (m *Model) configAs(dtype safetensors.DType) ([]byte, error) {
	cfg := m.cfg
	if name, ok := torchNames[dtype]; ok && cfg.DType != name {
		changed := *cfg
		field := "torch_dtype"
		if _, ok := cfg.fields["dtype"]; ok {
			field = "dtype"
		}
		if err := changed.set(field, name); err != nil {
			return nil, err
		}
		cfg = &changed
	}
	return cfg.JSON()
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

func (m *Model) writeWeights(w io.Writer, wf weightsFile) error {
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
	if wf.header != nil {
		return safetensors.WriteWithHeader(w, wf.header, entries)
	}
	return safetensors.Write(w, wf.meta, entries)
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
