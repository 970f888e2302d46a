package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/tokenizer"
	"github.com/longalign/longalign-go/gpu/llama"
	"github.com/longalign/longalign-go/gpu/train"
)

// trainInputs are what a training reads, checked against each other.
type trainInputs struct {
	packs, held packFile
	config      *llama.Config // with the context extended
	model       string        // digest of its files
}

// packFile is a file of packs.
type packFile struct {
	path   string
	packs  []datasets.Pack
	lines  []int // of each pack, from 1
	digest string
}

func readTrainInputs(f trainFlags, o train.Options) (in trainInputs, err error) {
	if in.config, err = llama.ReadConfig(f.model, f.loadOptions()...); err != nil {
		return in, err
	}
	// A tokenizer that cannot be read hinders nobody from training on IDs.
	if tok, err := tokenizer.Load(f.model); err == nil && tok.VocabSize() > in.config.Vocab {
		return in, fmt.Errorf("%s: the tokenizer has %d tokens, the model only %d; they do not belong together", f.model, tok.VocabSize(), in.config.Vocab)
	}
	if in.packs, err = readPacks(f.packs); err != nil {
		return in, err
	}
	if err := in.packs.check(in.config, o); err != nil {
		return in, err
	}
	if f.held != "" {
		if in.held, err = readPacks(f.held); err != nil {
			return in, err
		}
		if err := in.held.check(in.config, o); err != nil {
			return in, err
		}
	}
	in.model, err = modelDigest(f.model)
	return in, err
}

// readPacks reads a file of packs, one a line; empty lines are passed over.
func readPacks(path string) (packFile, error) {
	file := packFile{path: path}
	f, err := os.Open(path)
	if err != nil {
		return file, fmt.Errorf("packs: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	r := bufio.NewReaderSize(io.TeeReader(f, h), 1<<20)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return file, fmt.Errorf("packs: %w", err)
		}
		if len(bytes.TrimSpace(line)) > 0 {
			p, err := decodePack(line)
			if err != nil {
				return file, fmt.Errorf("%s:%d: pack %d: %w", path, n, len(file.packs), err)
			}
			file.packs, file.lines = append(file.packs, p), append(file.lines, n)
		}
		if err != nil {
			break
		}
	}
	if len(file.packs) == 0 {
		return file, fmt.Errorf("%s holds no packs", path)
	}
	file.digest = hex.EncodeToString(h.Sum(nil))
	return file, nil
}

func decodePack(line []byte) (p datasets.Pack, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the line ends inside the object; each pack is one line")
		}
		return p, err
	}
	if d.More() {
		return p, errors.New("more follows on the line; each pack is one line")
	}
	return p, p.Validate(0)
}

// check refuses packs that do not go through the model, before anything is computed.
func (f packFile) check(c *llama.Config, o train.Options) error {
	targets := 0
	for i := range f.packs {
		n, err := train.CheckPack(c, o, &f.packs[i])
		if err != nil {
			return fmt.Errorf("%s:%d: pack %d: %w", f.path, f.lines[i], i, err)
		}
		targets += n
	}
	if targets == 0 {
		return &train.NoTargetsError{Of: f.path}
	}
	return nil
}

// largest returns the tokens of the largest pack and of the longest sequence.
func (f packFile) largest() (tokens, sequence int) {
	for i := range f.packs {
		p := &f.packs[i]
		tokens = max(tokens, len(p.InputIDs))
		for k := range p.Sequences() {
			sequence = max(sequence, int(p.CuSeqlens[k+1]-p.CuSeqlens[k]))
		}
	}
	return tokens, sequence
}

// named makes messages name sequences by their place in the file.
func (f packFile) named(src train.Source, perStep int) train.Source {
	return train.SourceFunc(func(step int) (train.Batch, error) {
		b, err := src.Batch(step)
		b.Name = func(microBatch, sequence int) string {
			return fmt.Sprintf("%s:%d sequence %d", f.path, f.lines[(step*perStep+microBatch)%len(f.lines)], sequence)
		}
		return b, err
	})
}

// modelDigest is that of the names and bytes of a model's files.
func modelDigest(dir string) (string, error) {
	names, err := llama.Files(dir)
	if err != nil {
		return "", err
	}
	all := sha256.New()
	for _, name := range names {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the tokenizer's may be absent
		}
		if err != nil {
			return "", err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return "", err
		}
		fmt.Fprintf(all, "%s %x\n", name, h.Sum(nil))
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}
