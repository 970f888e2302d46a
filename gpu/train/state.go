package train

import (
	"bytes"
	"cmp"
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
	"sync"

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

// State is all that the rest of a run depends on: a trainer that restores it goes on with the same bits. Release gives back what
// it holds: memory of the trainer, or the file that it was read from.
type State struct {
	Record
	tensors  []stateTensor
	arriving []gpu.Event // copies from the device under way
	lent     bool        // some tensors are the trainer's own memory
	release  func()
}

// Release ends the use of a state; it can be called more than once. A state that was released cannot be written or restored.
func (s *State) Release() {
	s.tensors = nil
	if s.release != nil {
		s.release()
	}
}

// settle waits for the state to be whole, on any goroutine.
func (s *State) settle() error {
	for _, e := range s.arriving {
		if err := e.Wait(); err != nil {
			return err
		}
	}
	s.arriving = nil
	if len(s.tensors) == 0 {
		return errors.New("the state was released, or holds no tensors")
	}
	return nil
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

// stateTensor is a tensor as its little-endian bytes, wherever they lie.
type stateTensor struct {
	name  string
	dtype safetensors.DType
	shape []int
	data  []byte
}

// ResumeError says that a checkpoint belongs to a run with another configuration.
type ResumeError struct {
	Field   string
	Is, Was any // of this run, of the checkpoint
}

func (e *ResumeError) Error() string {
	return fmt.Sprintf("resume: %s is %v, the checkpoint was made with %v; set it back, or start a new run", e.Field, e.Is, e.Was)
}

// comparable returns the options that a result depends on, by JSON name. The device, what is recomputed and what
// lies in host memory do not change a bit within a device class, which is compared by itself.
func (o Options) comparable() (map[string]any, error) {
	data, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, err
	}
	for _, name := range []string{"device", "recompute", "offload", "parity", "max_loss"} {
		delete(out, name)
	}
	out["optimizer_states"] = string(cmp.Or(o.States, StatesF32))
	return out, nil
}

// sameRun returns a *ResumeError unless other, of a checkpoint, was made with the options and inputs of r.
func (r Record) sameRun(other Record) error {
	is, err := r.Options.comparable()
	if err != nil {
		return err
	}
	was, err := other.Options.comparable()
	if err != nil {
		return err
	}
	names := maps.Clone(is)
	maps.Copy(names, was)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if is[name] != was[name] {
			return &ResumeError{name, is[name], was[name]}
		}
	}
	inputs := maps.Clone(r.Inputs)
	if inputs != nil { // the checkpoint's alone are no contradiction where none are said
		maps.Copy(inputs, other.Inputs)
	}
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		if r.Inputs[name] != other.Inputs[name] {
			return &ResumeError{name, inputName(r.Inputs[name]), inputName(other.Inputs[name])}
		}
	}
	return nil
}

// inputName is what messages call an input: the start of a digest is enough to tell two apart.
func inputName(input string) string {
	switch len(input) {
	case 0:
		return "none"
	case 64:
		return "sha256 " + input[:12] + "…"
	}
	return input
}

// check compares the run of s with the trainer's.
func (t *Trainer) check(s *State) error {
	if s.Version != stateVersion {
		return &ResumeError{"checkpoint version", stateVersion, s.Version}
	}
	if err := (Record{Options: t.opts, Inputs: t.inputs}).sameRun(s.Record); err != nil {
		return err
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
	fields := maps.Clone(a)
	maps.Copy(fields, b)
	for _, n := range slices.Sorted(maps.Keys(fields)) {
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
	if err := s.settle(); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	params, flats := t.model.Params(), t.adam.states
	if len(s.tensors) != len(flats)*len(params) {
		return fmt.Errorf("resume: the checkpoint has %d tensors, the model asks for %d", len(s.tensors), len(flats)*len(params))
	}
	at := func(i int) gpu.Buffer {
		p := params[i%len(params)]
		return flats[i/len(params)].slice(p.Offset(), p.Offset()+p.Len())
	}
	for i, st := range s.tensors {
		p, f := params[i%len(params)], flats[i/len(params)]
		shape := p.Shape
		if f.per > 1 {
			shape = []int{at(i).Len()}
		}
		if st.name != f.group+p.Name || !slices.Equal(st.shape, shape) || st.dtype != storedTypes[f.rest.DType()] || len(st.data) != at(i).Len()*st.dtype.Size() {
			return fmt.Errorf("resume: the checkpoint's tensor %d is %q, %s %v, the model asks for %q %v", i, st.name, st.dtype, st.shape, f.group+p.Name, shape)
		}
	}
	if err := t.lent.wait(t.dev); err != nil {
		return err
	}
	for i, st := range s.tensors {
		if err := t.upload(at(i), st); err != nil {
			return err
		}
	}
	if err := t.model.MasterChanged(); err != nil {
		return err
	}
	if err := t.dev.Sync(); err != nil {
		return err
	}
	t.step, t.history, t.torn = s.Step, slices.Clone(s.Metrics), false
	return nil
}

func (t *Trainer) upload(dst gpu.Buffer, st stateTensor) error {
	switch st.dtype {
	case safetensors.F64:
		x, err := safetensors.Tensor{DType: st.dtype, Data: st.data}.Float64()
		if err == nil {
			t.dev.Upload64(dst, x)
		}
		return err
	case safetensors.U8:
		x := make([]float32, len(st.data))
		for i, c := range st.data {
			x[i] = float32(c)
		}
		t.dev.Upload(dst, x)
		return nil
	}
	x, err := safetensors.Tensor{DType: st.dtype, Data: st.data}.Float32()
	if err == nil {
		t.dev.Upload(dst, x)
	}
	return err
}

// WriteTo writes the state into dir, which must not exist: it appears complete or not at all. Of a trainer in the
// middle of a run it then releases the state, whose memory the next update waits for.
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
	if s.lent {
		s.Release()
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
	if err := s.settle(); err != nil {
		return err
	}
	entries := make([]safetensors.Entry, len(s.tensors))
	for i, st := range s.tensors {
		entries[i] = safetensors.Entry{Name: st.name, DType: st.dtype, Shape: st.shape, Read: func() ([]byte, error) { return st.data, nil }}
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

// readRecord reads a state's record.
func readRecord(dir string) (r Record, err error) {
	data, err := os.ReadFile(filepath.Join(dir, StateRecord))
	if err != nil {
		return r, fmt.Errorf("checkpoint: %w", err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	if r.Step < 0 || r.Step > r.Options.Steps || r.Step != len(r.Metrics) {
		return r, fmt.Errorf("checkpoint %s is corrupt: it is after %d of %d steps, with metrics of %d; use an earlier one", dir, r.Step, r.Options.Steps, len(r.Metrics))
	}
	return r, nil
}

// openState reads a state's record, verifies the tensors' digest and opens their file.
func openState(dir string) (Record, *safetensors.File, error) {
	r, err := readRecord(dir)
	if err != nil {
		return r, nil, err
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
func verifyState(dir string, step int) (Record, error) {
	r, f, err := openState(dir)
	if err != nil {
		return r, err
	}
	if err := f.Close(); err != nil {
		return r, err
	}
	if r.Step != step {
		return r, fmt.Errorf("checkpoint %s is of step %d, not %d", dir, r.Step, step)
	}
	return r, nil
}

// ReadState opens what WriteTo wrote and verifies its digest. The tensors stay in the file, which Release closes.
func ReadState(dir string) (*State, error) {
	r, f, err := openState(dir)
	if err != nil {
		return nil, err
	}
	s := &State{Record: r, release: sync.OnceFunc(func() { f.Close() })}
	for _, t := range f.Tensors() {
		s.tensors = append(s.tensors, stateTensor{t.Name, t.DType, t.Shape, t.Data})
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
