package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/documents"
)

// documentsStage reads, filters and splits documents. Outputs: documents.jsonl.zst, report.json.
var documentsStage = stage{name: "documents", version: 1, describe: describeParams[datasets.DocumentsParams], outside: documentFiles, run: runDocuments}

// documentFiles hashes the files of each source: the documents' key is what they are, not where they lie.
func documentFiles(ctx context.Context, a *Activities, raw json.RawMessage) (map[string]string, error) {
	p, err := decodeParams[datasets.DocumentsParams](raw)
	if err != nil {
		return nil, err
	}
	sources, err := openSources(ctx, p.Sources)
	if err != nil {
		return nil, err
	}
	against, err := openSources(ctx, p.Decontaminate)
	if err != nil {
		return nil, err
	}
	digests := map[string]string{}
	for role, set := range map[string][]documents.Source{"source": sources, "decontaminate": against} {
		for i, s := range set {
			if digests[fmt.Sprintf("%s %d", role, i)], err = documents.Digest(ctx, s); err != nil {
				return nil, err
			}
		}
	}
	return digests, nil
}

func runDocuments(ctx context.Context, j *job) error {
	p, err := decodeParams[datasets.DocumentsParams](j.call.Params)
	if err != nil {
		return err
	}
	sources, err := openSources(ctx, p.Sources)
	if err != nil {
		return err
	}
	// Without a tokenizer of their own, documents are measured in bytes: four make about a token.
	count := func(text string) int { return (len(text) + 3) / 4 }
	if j.hasInput("tokenizer") {
		tok, err := j.tokenizer(ctx, "tokenizer")
		if err != nil {
			return err
		}
		count = tok.Count
	} else {
		j.note("lengths of documents are estimated as a quarter of their bytes: the tokenizer is trained on them")
	}
	path := filepath.Join(j.dir, "documents.jsonl.zst")
	w, err := newLines(path)
	if err != nil {
		return err
	}
	defer w.close()
	n := int64(0)
	var evaluation *documents.Evaluation
	if len(p.Decontaminate) > 0 {
		against, err := openSources(ctx, p.Decontaminate)
		if err != nil {
			return err
		}
		if evaluation, err = documents.ReadEvaluation(ctx, against, p.DecontaminationNGram, p.MaxBytes); err != nil {
			return inputError(err)
		}
	}
	report, err := documents.Build(ctx, sources, p, count, evaluation, func(d datasets.Document) error {
		if n++; n%200 == 0 {
			j.report(ctx, Progress{Done: n, Unit: "document"})
		}
		return w.add(d)
	})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return inputError(err)
	}
	if err := w.close(); err != nil {
		return err
	}
	j.count("documents", int64(report.Kept))
	j.count("held_out", int64(report.HeldOut))
	j.count("copies of long ones", int64(report.Copies))
	for reason, n := range report.Dropped {
		j.count("dropped: "+reason, int64(n))
	}
	for benchmark, n := range report.Contaminated {
		j.count("overlaps "+benchmark, int64(n))
	}
	j.manifest.Warnings = append(j.manifest.Warnings, report.BadInput...)
	if err := j.putFile(ctx, "documents.jsonl.zst", "application/zstd", path); err != nil {
		return err
	}
	return j.putJSON(ctx, "report.json", report)
}

// documents streams the documents of the input "documents".
func (j *job) documents(ctx context.Context) iter.Seq2[datasets.Document, error] {
	if j.shard != nil {
		return lines[datasets.Document](ctx, j, partsRole, j.shard.file())
	}
	return lines[datasets.Document](ctx, j, "documents", "documents.jsonl.zst")
}

// lines streams the values of a zstd-compressed JSON-lines output.
func lines[T any](ctx context.Context, j *job, role, name string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		r, err := j.open(ctx, role, name)
		if err != nil {
			yield(zero, err)
			return
		}
		defer r.Close()
		z, err := zstd.NewReader(r)
		if err != nil {
			yield(zero, err)
			return
		}
		defer z.Close()
		for d, n := json.NewDecoder(z), 1; ; n++ {
			var v T
			err := d.Decode(&v)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(zero, fmt.Errorf("%s, line %d: %w", name, n, err))
				return
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}

// lineWriter writes values as zstd-compressed JSON lines. Equal values give equal bytes.
type lineWriter struct {
	f      *os.File
	z      *zstd.Encoder
	e      *json.Encoder
	closed bool
}

func newLines(path string) (*lineWriter, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1))
	if err != nil {
		f.Close()
		return nil, err
	}
	e := json.NewEncoder(z)
	e.SetEscapeHTML(false)
	return &lineWriter{f: f, z: z, e: e}, nil
}

func (w *lineWriter) add(v any) error { return w.e.Encode(v) }

func (w *lineWriter) close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	return errors.Join(w.z.Close(), w.f.Close())
}
