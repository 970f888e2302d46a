package llama

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama/safetensors"
)

// carried are the files beside the weights that go where the model goes. Code is not carried.
var carried = []string{
	"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
	"vocab.json", "merges.txt", "vocab.txt", "chat_template.jinja", "chat_template.json", "generation_config.json",
}

// maxShard bounds a weights file made anew, as in Hugging Face.
const maxShard = 5 << 30

// files remembers how a model was stored: saving it in the same type gives the same bytes.
type files struct {
	weights []weightsFile
	index   []byte // model.safetensors.index.json, nil for a single file
	beside  map[string][]byte
}

type weightsFile struct {
	name    string
	header  []byte
	meta    map[string]string
	tensors []storedTensor
}

type storedTensor struct {
	name  string
	dtype safetensors.DType
	shape []int
	extra []byte // bytes of a tensor that is not a parameter (precomputed rotary frequencies)
}

// LoadOption changes how Load reads a model.
type LoadOption func(*loading)

type loading struct {
	ropeScale    float64
	maxPositions int
}

// WithRopeThetaScale multiplies the rotary base for context extension and sets the context, 0 keeping it.
func WithRopeThetaScale(scale float64, maxPositions int) LoadOption {
	return func(l *loading) { l.ropeScale, l.maxPositions = scale, maxPositions }
}

// Load reads the Hugging Face model directory dir onto a device.
func Load(dir string, dev gpu.Device, dtype gpu.DType, opts ...LoadOption) (*Model, error) {
	var o loading
	for _, opt := range opts {
		opt(&o)
	}
	c, err := ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	if o.ropeScale != 0 || o.maxPositions != 0 {
		if o.ropeScale == 0 {
			o.ropeScale = 1
		}
		if c, err = c.ScaleRope(o.ropeScale, o.maxPositions); err != nil {
			return nil, err
		}
	}
	m, err := newModel(c, dev, dtype)
	if err != nil {
		return nil, err
	}
	if err := m.read(dir, m.weights); err != nil {
		m.Close()
		return nil, err
	}
	m.dir = dir
	return m, nil
}

// read uploads the weights of dir into a flat buffer.
func (m *Model) read(dir string, flat gpu.Buffer) error {
	names, index, err := weightFiles(dir)
	if err != nil {
		return err
	}
	m.files = &files{index: index, beside: map[string][]byte{}}
	want := map[string]int{}
	for i, p := range m.plan.params {
		want[p.Name] = i
	}
	found := map[string]bool{}
	for _, name := range names {
		if err := m.readFile(dir, name, flat, want, found); err != nil {
			return err
		}
	}
	for _, p := range m.plan.params {
		if !found[p.Name] {
			return fmt.Errorf("%s: tensor %q of the model is in none of the files %v", dir, p.Name, names)
		}
	}
	for _, name := range carried {
		data, err := os.ReadFile(filepath.Join(dir, name))
		switch {
		case err == nil:
			m.files.beside[name] = data
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return m.dev.Sync()
}

func (m *Model) readFile(dir, name string, flat gpu.Buffer, want map[string]int, found map[string]bool) error {
	path := filepath.Join(dir, name)
	f, err := safetensors.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	wf := weightsFile{name: name, header: f.Header(), meta: f.Metadata()}
	for _, t := range f.Tensors() {
		st := storedTensor{name: t.Name, dtype: t.DType, shape: t.Shape}
		i, ok := want[t.Name]
		switch {
		case found[t.Name]:
			return fmt.Errorf("%s: tensor %q is in another file too", path, t.Name)
		case ok:
			p := m.plan.params[i]
			if !slices.Equal(t.Shape, p.Shape) {
				return fmt.Errorf("%s: tensor %q is %v, config.json asks for %v", path, t.Name, t.Shape, p.Shape)
			}
			if err := m.upload(m.paramView(flat, i), t); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		case m.cfg.Tied && t.Name == m.cfg.headName():
			// A tied head stored again; it is written from the embedding.
			if e, ok := f.Tensor(m.plan.params[m.plan.embed.param].Name); ok && string(e.Data) != string(t.Data) {
				return fmt.Errorf("%s: tie_word_embeddings is true but %q differs from the embedding", path, t.Name)
			}
		case strings.HasSuffix(t.Name, ".inv_freq"):
			st.extra = slices.Clone(t.Data)
		default:
			return fmt.Errorf("%s: tensor %q %v belongs to no part of a %s model; config.json may be another model's", path, t.Name, t.Shape, m.cfg.Family)
		}
		found[t.Name] = true
		wf.tensors = append(wf.tensors, st)
	}
	m.files.weights = append(m.files.weights, wf)
	return nil
}

func (m *Model) upload(dst gpu.Buffer, t safetensors.Tensor) error {
	if m.dtype == gpu.Float64 {
		x, err := t.Float64()
		if err == nil {
			m.dev.Upload64(dst, x)
		}
		return err
	}
	x, err := t.Float32()
	if err == nil {
		m.dev.Upload(dst, x)
	}
	return err
}

// weightFiles names the safetensors files of a model directory.
func weightFiles(dir string) (names []string, index []byte, err error) {
	if _, err := os.Stat(filepath.Join(dir, "model.safetensors")); err == nil {
		return []string{"model.safetensors"}, nil, nil
	}
	path := filepath.Join(dir, "model.safetensors.index.json")
	index, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s holds neither model.safetensors nor model.safetensors.index.json; pickled weights (.bin) are not read, convert them to safetensors", dir)
	}
	if err != nil {
		return nil, nil, err
	}
	var f struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(index, &f); err != nil || len(f.WeightMap) == 0 {
		return nil, nil, fmt.Errorf("%s has no weight_map: %v", path, err)
	}
	for tensor, name := range f.WeightMap {
		if name != filepath.Base(name) || !filepath.IsLocal(name) || !strings.HasSuffix(name, ".safetensors") {
			return nil, nil, fmt.Errorf("%s: tensor %q lies in %q, which is not a safetensors file of this directory", path, tensor, name)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, index, nil
}

// Files names the files of dir that make up a model: configuration, weights, tokenizer. Those
// of the tokenizer need not exist.
func Files(dir string) ([]string, error) {
	names, index, err := weightFiles(dir)
	if err != nil {
		return nil, err
	}
	names = append([]string{"config.json"}, names...)
	if index != nil {
		names = append(names, "model.safetensors.index.json")
	}
	return append(names, carried...), nil
}

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
