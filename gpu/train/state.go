package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/llama/safetensors"
)

// Names of a state's files.
const (
	StateTensors = "state.safetensors"
	StateRecord  = "state.json"
)

const stateVersion = 1

// State is all that the rest of a run depends on: a trainer that restores it goes on with the same bits. It
// shares no memory with the trainer.
type State struct {
	Record
	tensors []stateTensor
}

// Record is the readable part of a State. The plan position is Step: sources are asked by step number.
type Record struct {
	Version     int               `json:"version"`
	Step        int               `json:"step"` // steps taken
	Options     Options           `json:"options"`
	Inputs      map[string]string `json:"inputs,omitempty"`
	DeviceClass string            `json:"device_class"`
	ModelConfig json.RawMessage   `json:"model_config"`
	Metrics     []Metrics         `json:"metrics"`
	// TensorsSHA256 is the digest of the tensors' file.
	TensorsSHA256 string `json:"tensors_sha256,omitempty"`
}

type stateTensor struct {
	name  string
	shape []int
	f32   []float32
	f64   []float64
}

// groups of tensors: the prefix of their names.
var groups = [3]string{"weights/", "m/", "v/"}

func (t *Trainer) flats() [3]gpu.Buffer { return [3]gpu.Buffer{t.model.Master(), t.m, t.v} }

// Snapshot copies the state, so that it can be written while training goes on.
func (t *Trainer) Snapshot() (*State, error) {
	cfg, err := t.model.Config().JSON()
	if err != nil {
		return nil, err
	}
	s := &State{Record: Record{
		Version: stateVersion, Step: t.step, Options: t.opts, Inputs: maps.Clone(t.inputs), DeviceClass: t.dev.Info().Class,
		ModelConfig: cfg, Metrics: slices.Clone(t.history),
	}}
	for g, flat := range t.flats() {
		var f32 []float32
		var f64 []float64
		if flat.DType() == gpu.Float64 {
			f64 = make([]float64, flat.Len())
			t.dev.Download64(f64, flat)
		} else {
			f32 = make([]float32, flat.Len())
			t.dev.Download(f32, flat)
		}
		for _, p := range t.model.Params() {
			st := stateTensor{name: groups[g] + p.Name, shape: p.Shape}
			if from, to := p.Offset(), p.Offset()+p.Len(); f64 != nil {
				st.f64 = f64[from:to]
			} else {
				st.f32 = f32[from:to]
			}
			s.tensors = append(s.tensors, st)
		}
	}
	return s, t.dev.Sync()
}

// ResumeError says that a checkpoint belongs to a run with another configuration.
type ResumeError struct {
	Field   string
	Is, Was any // of this run, of the checkpoint
}

func (e *ResumeError) Error() string {
	return fmt.Sprintf("resume: %s is %v, the checkpoint was made with %v; set it back, or start a new run", e.Field, e.Is, e.Was)
}

// comparable returns the options that a result depends on, by JSON name. The device and what is recomputed
// do not change a bit within a device class, which is compared by itself.
func (o Options) comparable() (map[string]any, error) {
	data, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, err
	}
	for _, name := range []string{"device", "recompute", "parity", "max_loss"} {
		delete(out, name)
	}
	return out, nil
}

// check compares the run of s with the trainer's.
func (t *Trainer) check(s *State) error {
	if s.Version != stateVersion {
		return &ResumeError{"checkpoint version", stateVersion, s.Version}
	}
	is, err := t.opts.comparable()
	if err != nil {
		return err
	}
	was, err := s.Options.comparable()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(is)) {
		if is[name] != was[name] {
			return &ResumeError{name, is[name], was[name]}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.inputs)) {
		if t.inputs[name] != s.Inputs[name] {
			return &ResumeError{name, t.inputs[name], s.Inputs[name]}
		}
	}
	if class := t.dev.Info().Class; class != s.DeviceClass {
		return &ResumeError{"device class", class, s.DeviceClass}
	}
	cfg, err := t.model.Config().JSON()
	if err != nil {
		return err
	}
	var a, b map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(cfg, &a), json.Unmarshal(s.ModelConfig, &b)); err != nil {
		return fmt.Errorf("resume: model config: %w", err)
	}
	names := map[string]bool{}
	for n := range a {
		names[n] = true
	}
	for n := range b {
		names[n] = true
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		x, y := compact(a[n]), compact(b[n])
		if x != y {
			return &ResumeError{"model config " + n, x, y}
		}
	}
	return nil
}

func compact(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return "absent"
	}
	return b.String()
}

// Restore puts the trainer into state s. A state of another configuration is a *ResumeError and changes nothing.
func (t *Trainer) Restore(s *State) error {
	if err := t.check(s); err != nil {
		return err
	}
	params := t.model.Params()
	if len(s.tensors) != len(groups)*len(params) {
		return fmt.Errorf("resume: the checkpoint has %d tensors, the model asks for %d", len(s.tensors), len(groups)*len(params))
	}
	for i, st := range s.tensors {
		p := params[i%len(params)]
		if st.name != groups[i/len(params)]+p.Name || !slices.Equal(st.shape, p.Shape) || len(st.f32)+len(st.f64) != p.Len() {
			return fmt.Errorf("resume: the checkpoint's tensor %d is %q %v, the model asks for %q %v", i, st.name, st.shape, p.Name, p.Shape)
		}
	}
	for i, st := range s.tensors {
		p := params[i%len(params)]
		dst := t.flats()[i/len(params)].Slice(p.Offset(), p.Offset()+p.Len())
		if st.f64 != nil {
			t.dev.Upload64(dst, st.f64)
		} else {
			t.dev.Upload(dst, st.f32)
		}
	}
	t.model.MasterChanged()
	if err := t.dev.Sync(); err != nil {
		return err
	}
	t.step, t.history = s.Step, slices.Clone(s.Metrics)
	return nil
}

// WriteTo writes the state into dir, which must not exist: it appears complete or not at all.
func (s *State) WriteTo(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("checkpoint %s exists already: %v", dir, err)
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, ".partial-"+filepath.Base(dir)+"-")
	if err != nil {
		return err
	}
	if err := s.writeFiles(tmp); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, dir); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return syncDir(parent)
}

func (s *State) writeFiles(dir string) error {
	hash := sha256.New()
	err := safetensors.WriteFile(filepath.Join(dir, StateTensors), func(w io.Writer) error {
		return s.WriteTensors(io.MultiWriter(w, hash))
	})
	if err != nil {
		return err
	}
	r := s.Record
	r.TensorsSHA256 = hex.EncodeToString(hash.Sum(nil))
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	err = safetensors.WriteFile(filepath.Join(dir, StateRecord), func(w io.Writer) error {
		_, err := w.Write(append(data, '\n'))
		return err
	})
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// WriteTensors writes the tensors alone, as safetensors.
func (s *State) WriteTensors(w io.Writer) error {
	entries := make([]safetensors.Entry, len(s.tensors))
	for i, st := range s.tensors {
		e := safetensors.Entry{Name: st.name, DType: safetensors.F32, Shape: st.shape, Read: func() ([]byte, error) { return safetensors.Encode(safetensors.F32, st.f32) }}
		if st.f64 != nil {
			e.DType, e.Read = safetensors.F64, func() ([]byte, error) { return safetensors.Encode64(safetensors.F64, st.f64) }
		}
		entries[i] = e
	}
	return safetensors.Write(w, nil, entries)
}

// syncDir flushes a directory's entries, so that a rename survives a power cut.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// openState reads a state's record, verifies the tensors' digest and opens their file.
func openState(dir string) (Record, *safetensors.File, error) {
	var r Record
	data, err := os.ReadFile(filepath.Join(dir, StateRecord))
	if err != nil {
		return r, nil, fmt.Errorf("checkpoint: %w", err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, nil, fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	path := filepath.Join(dir, StateTensors)
	digest, err := fileDigest(path)
	if err != nil {
		return r, nil, fmt.Errorf("checkpoint: %w", err)
	}
	if digest != r.TensorsSHA256 {
		return r, nil, fmt.Errorf("checkpoint %s is corrupt: its sha256 is %s, the record says %s; use an earlier one", path, digest, r.TensorsSHA256)
	}
	f, err := safetensors.Open(path)
	return r, f, err
}

// verifyState checks that dir holds the whole state after step steps, without taking it into memory.
func verifyState(dir string, step int) error {
	r, f, err := openState(dir)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if r.Step != step {
		return fmt.Errorf("checkpoint %s is of step %d, not %d", dir, r.Step, step)
	}
	return nil
}

// ReadState reads what WriteTo wrote and verifies its digest.
func ReadState(dir string) (*State, error) {
	r, f, err := openState(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &State{Record: r}
	for _, t := range f.Tensors() {
		st := stateTensor{name: t.Name, shape: t.Shape}
		if t.DType == safetensors.F64 {
			st.f64, err = t.Float64()
		} else {
			st.f32, err = t.Float32()
		}
		if err != nil {
			return nil, err
		}
		s.tensors = append(s.tensors, st)
	}
	return s, nil
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// SaveModel writes the model of the trainer as a Hugging Face directory.
func (t *Trainer) SaveModel(dir string, opts ...llama.SaveOption) error {
	return t.model.Save(dir, opts...)
}
