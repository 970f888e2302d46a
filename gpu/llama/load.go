package llama

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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

// WithRopeThetaScale multiplies the rotary base for context extension (1 keeps it) and extends the context to at least maxPositions.
func WithRopeThetaScale(scale float64, maxPositions int) LoadOption {
	return func(l *loading) { l.ropeScale, l.maxPositions = scale, maxPositions }
}

// Load reads the Hugging Face model directory dir onto a device.
func Load(dir string, dev gpu.Device, dtype gpu.DType, opts ...LoadOption) (*Model, error) {
	c, err := ReadConfig(dir, opts...)
	if err != nil {
		return nil, err
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
	if m.cfg.Tied && found[m.cfg.headName()] {
		if err := m.checkTiedHead(dir); err != nil {
			return err
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
			// A tied head stored again; it is written from the embedding, with which checkTiedHead compares it.
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

// checkTiedHead compares a head that is stored although it is tied with the embedding, which may lie in another file.
func (m *Model) checkTiedHead(dir string) error {
	var path string
	var data [2][]byte
	for i, name := range []string{m.plan.params[m.plan.embed.param].Name, m.cfg.headName()} {
		at := slices.IndexFunc(m.files.weights, func(wf weightsFile) bool {
			return slices.ContainsFunc(wf.tensors, func(t storedTensor) bool { return t.name == name })
		})
		path = filepath.Join(dir, m.files.weights[at].name)
		f, err := safetensors.Open(path)
		if err != nil {
			return err
		}
		defer f.Close() // after the comparison of what it maps
		t, _ := f.Tensor(name)
		data[i] = t.Data
	}
	if !bytes.Equal(data[0], data[1]) {
		return fmt.Errorf("%s: tie_word_embeddings is true but %q differs from the embedding", path, m.cfg.headName())
	}
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
	path := filepath.Join(dir, indexName)
	index, err = os.ReadFile(path)
	if _, dirErr := os.Stat(dir); errors.Is(dirErr, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("there is no directory %s on this machine", dir)
	}
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
		names = append(names, indexName)
	}
	return append(names, carried...), nil
}
