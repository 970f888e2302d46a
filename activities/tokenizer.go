package activities

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/tokenizer"
)

// tokenizerStage reads a tokenizer from a directory, or trains one on the documents. Outputs: the
// tokenizer's files under their Hugging Face names.
var tokenizerStage = stage{name: "tokenizer", version: 1, describe: describeParams[datasets.TokenizerParams], outside: tokenizerFiles, run: runTokenizer}

// tokenizerNames are the files that make up a tokenizer.
var tokenizerNames = []string{"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"}

// Special tokens of tokenizers trained here.
const (
	bosToken = "<|bos|>"
	eosToken = "<|eos|>"
	padToken = "<|pad|>"
)

func tokenizerFiles(_ context.Context, _ *Activities, raw json.RawMessage) (map[string]string, error) {
	p, err := decodeParams[datasets.TokenizerParams](raw)
	if err != nil || p.Path == "" {
		return nil, err
	}
	return fileDigests(p.Path, tokenizerNames)
}

// fileDigests hashes those of the named files that exist in dir.
func fileDigests(dir string, names []string) (map[string]string, error) {
	digests := map[string]string{}
	for _, name := range names {
		d, err := fileDigest(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		digests[name] = d
	}
	if len(digests) == 0 {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, badData("there is no directory %s on this machine", dir)
		}
		return nil, badData("%s holds none of %s", dir, strings.Join(names, ", "))
	}
	return digests, nil
}

func runTokenizer(ctx context.Context, j *job) error {
	p, err := decodeParams[datasets.TokenizerParams](j.call.Params)
	if err != nil {
		return err
	}
	if p.Path != "" {
		return importTokenizer(ctx, j, p.Path)
	}
	texts, err := trainingTexts(ctx, j, p.MaxBytes)
	if err != nil {
		return err
	}
	data, config, stats, err := tokenizer.Train(texts.each, tokenizer.Options{
		VocabSize: p.VocabSize, SpecialTokens: []string{padToken, bosToken, eosToken}, BOS: bosToken, EOS: eosToken, Pad: padToken,
	})
	if err != nil {
		return badData("%w", err)
	}
	j.count("vocabulary", int64(stats.VocabSize))
	j.count("bytes", stats.Bytes)
	if stats.VocabSize < p.VocabSize {
		j.note("the documents have too few pairs to merge: the vocabulary has %d tokens instead of %d", stats.VocabSize, p.VocabSize)
	}
	if err := j.put(ctx, "tokenizer.json", "application/json", bytes.NewReader(data)); err != nil {
		return err
	}
	return j.put(ctx, "tokenizer_config.json", "application/json", bytes.NewReader(config))
}

func importTokenizer(ctx context.Context, j *job, dir string) error {
	t, err := tokenizer.Load(dir)
	if err != nil {
		return badData("%w", err)
	}
	j.count("vocabulary", int64(t.VocabSize()))
	for _, name := range tokenizerNames {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := j.putFile(ctx, name, "application/octet-stream", path); err != nil {
			return err
		}
	}
	return nil
}

// sample is a part of the training documents, spread evenly over all of them.
type sample []string

func (s sample) each(yield func(string) bool) {
	for _, t := range s {
		if !yield(t) {
			return
		}
	}
}

// trainingTexts takes about maxBytes of training documents: every k-th one.
func trainingTexts(ctx context.Context, j *job, maxBytes int64) (sample, error) {
	var total int64
	for d, err := range j.documents(ctx) {
		if err != nil {
			return nil, err
		}
		if d.Split == datasets.SplitTrain {
			total += int64(len(d.Text))
		}
	}
	every := max(1, int((total+maxBytes-1)/maxBytes))
	var s sample
	i := 0
	for d, err := range j.documents(ctx) {
		if err != nil {
			return nil, err
		}
		if d.Split != datasets.SplitTrain {
			continue
		}
		if i%every == 0 {
			s = append(s, d.Text)
		}
		i++
	}
	if len(s) == 0 {
		return nil, badData("there are no training documents to train a tokenizer on")
	}
	return s, nil
}

// tokenizer loads the tokenizer that is an input of the stage (or lies beside an input's weights).
func (j *job) tokenizer(ctx context.Context, role string) (*tokenizer.Tokenizer, error) {
	files, err := j.tokenizerFiles(ctx, role)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(j.dir, "tokenizer-of-"+role)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return nil, err
		}
	}
	t, err := tokenizer.Load(dir)
	if err != nil {
		return nil, badData("tokenizer: %w", err)
	}
	return t, nil
}

// tokenizerFiles returns an input's tokenizer files by name.
func (j *job) tokenizerFiles(ctx context.Context, role string) (map[string][]byte, error) {
	m, err := j.input(ctx, role)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, name := range tokenizerNames {
		out, ok := m.Output(name)
		if !ok {
			continue
		}
		data, err := j.a.Store.ReadBlob(ctx, out.Blob)
		if err != nil {
			return nil, fmt.Errorf("%s of input %s: %w", name, role, err)
		}
		files[name] = data
	}
	if len(files) == 0 {
		return nil, badData("input %s (%s) holds no tokenizer", role, m.Ref())
	}
	return files, nil
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
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
