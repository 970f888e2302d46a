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
	"sync"
	"sync/atomic"
	"weak"

	"github.com/klauspost/compress/zstd"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/documents"
)

// documentsStage reads, filters and splits documents. Outputs: documents.jsonl.zst, report.json. Of a large corpus, shards find out what does
// not depend on other documents, group of files by group; joining decides.
var documentsStage = stage{
	name: "documents", version: 1, describe: describeParams[datasets.DocumentsParams], outside: documentFiles, run: runDocuments,
	division: &division{size: func(json.RawMessage) (int, error) { return 1, nil }, items: documentGroups, join: joinDocuments},
}

// groupBytes is how much of a corpus is looked at in one shard: some minutes' work of a machine. A larger file is a shard by itself.
const groupBytes = 1 << 30

// Files of the documents stage; those of its shards hold documents.Facts.
const (
	documentsFile = "documents.jsonl.zst"
	factsFile     = "facts.jsonl.zst"
)

// documentEntries are the files of each source, by their role in the stage's key.
type documentEntries struct {
	sources, against              []documents.Source
	sourceEntries, againstEntries [][]documents.Entry
}

func listDocuments(ctx context.Context, raw json.RawMessage) (list documentEntries, err error) {
	p, err := decodeParams[datasets.DocumentsParams](raw)
	if err != nil {
		return list, err
	}
	if list.sources, err = openSources(ctx, p.Sources); err != nil {
		return list, err
	}
	if list.against, err = openSources(ctx, p.Decontaminate); err != nil {
		return list, err
	}
	for _, set := range []struct {
		sources []documents.Source
		to      *[][]documents.Entry
	}{{list.sources, &list.sourceEntries}, {list.against, &list.againstEntries}} {
		for _, s := range set.sources {
			entries, err := documents.Entries(ctx, s)
			if err != nil {
				return list, inputError(err)
			}
			*set.to = append(*set.to, entries)
		}
	}
	return list, nil
}

// hash fills in the entries' digests and returns those of the sources: the documents' key is what they are, not where they lie.
func (l documentEntries) hash(ctx context.Context, moved func(int)) (map[string]string, error) {
	digests := map[string]string{}
	for _, set := range []struct {
		role    string
		sources []documents.Source
		entries [][]documents.Entry
	}{{"source", l.sources, l.sourceEntries}, {"decontaminate", l.against, l.againstEntries}} {
		for i, s := range set.sources {
			s.Moved = moved
			if err := documents.Hash(ctx, s, set.entries[i]); err != nil {
				return nil, inputError(err)
			}
			digests[fmt.Sprintf("%s %d", set.role, i)] = documents.Digest(set.entries[i])
		}
	}
	return digests, nil
}

func documentFiles(ctx context.Context, _ *Activities, raw json.RawMessage) (map[string]string, error) {
	list, err := listDocuments(ctx, raw)
	if err != nil {
		return nil, err
	}
	return list.hash(ctx, nil)
}

// documentGroups divides the corpus into groups of files. They are hashed, and a shard looks at nothing else: what is kept under this
// stage's key is about the very files that the key is of.
func documentGroups(ctx context.Context, j *job) (iter.Seq2[any, error], error) {
	list, err := listDocuments(ctx, j.call.Params)
	if err != nil {
		return nil, err
	}
	bytes := int64(groupBytes)
	if j.a.ShardItems > 0 {
		bytes = 0 // a file each
	}
	if len(documents.Groups(list.sourceEntries, bytes)) > 1 {
		if _, err := list.hash(ctx, j.reading()); err != nil {
			return nil, err
		}
	}
	groups := documents.Groups(list.sourceEntries, bytes)
	return func(yield func(any, error) bool) {
		for _, g := range groups {
			if !yield(g, nil) {
				return
			}
		}
	}, nil
}

// reading returns what tells of bytes read.
func (j *job) reading() func(bytes int) {
	var read atomic.Int64
	return func(n int) { j.advance(Progress{Done: read.Add(int64(n)) >> 20, Unit: "MiB"}) }
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
	moved := j.reading()
	for i := range sources {
		sources[i].Moved = moved
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
	evaluation, err := j.evaluation(ctx, p, moved)
	if err != nil {
		return err
	}
	if j.shard != nil {
		return j.lookAtDocuments(ctx, sources, p, count, evaluation)
	}
	return j.putDocuments(ctx, func(write func(datasets.Document) error) (datasets.DocumentsReport, error) {
		return documents.Build(ctx, sources, p, count, evaluation, write)
	})
}

// evaluation reads the evaluation texts, if there are any. Shards of a stage in one process share them: they may be large.
func (j *job) evaluation(ctx context.Context, p datasets.DocumentsParams, moved func(int)) (*documents.Evaluation, error) {
	if len(p.Decontaminate) == 0 {
		return nil, nil
	}
	known := &j.a.evaluation
	known.Lock()
	defer known.Unlock()
	if e := known.texts.Value(); e != nil && known.key == j.call.Key && j.call.Key != "" {
		return e, nil
	}
	against, err := openSources(ctx, p.Decontaminate)
	if err != nil {
		return nil, err
	}
	for i := range against {
		against[i].Moved = moved
	}
	e, err := documents.ReadEvaluation(ctx, against, p.DecontaminationNGram, p.MaxBytes)
	if err != nil {
		return nil, inputError(err)
	}
	known.key, known.texts = j.call.Key, weak.Make(e)
	return e, nil
}

// evaluationTexts are those of the documents stage with this key, for as long as any of its activities holds them.
type evaluationTexts struct {
	sync.Mutex
	key   string
	texts weak.Pointer[documents.Evaluation]
}

// lookAtDocuments makes a shard: the facts about the documents of its files.
func (j *job) lookAtDocuments(ctx context.Context, sources []documents.Source, p datasets.DocumentsParams, count func(string) int, evaluation *documents.Evaluation) error {
	var groups []documents.Group
	for g, err := range lines[documents.Group](ctx, j, partsRole, j.shard.file()) {
		if err != nil {
			return err
		}
		groups = append(groups, g)
	}
	path := filepath.Join(j.dir, factsFile)
	w, err := newLines(path)
	if err != nil {
		return err
	}
	defer w.close()
	report, err := documents.Look(ctx, sources, groups, p, count, evaluation, func(f documents.Facts) error { return w.add(f) })
	if err != nil {
		return documentsError(ctx, err)
	}
	if err := w.close(); err != nil {
		return err
	}
	if err := j.putFile(ctx, factsFile, "application/zstd", path); err != nil {
		return err
	}
	return j.putJSON(ctx, "report.json", report)
}

// joinDocuments decides about the documents that the shards looked at.
func joinDocuments(ctx context.Context, j *job, shards []*artifact.Manifest) error {
	p, err := decodeParams[datasets.DocumentsParams](j.call.Params)
	if err != nil {
		return err
	}
	reports := make([]datasets.DocumentsReport, len(shards))
	for i, m := range shards {
		if err := j.output(ctx, m, "report.json", &reports[i]); err != nil {
			return err
		}
	}
	facts := func(yield func(documents.Facts, error) bool) {
		for i, m := range shards {
			for f, err := range outputLines[documents.Facts](ctx, j, m, factsFile) {
				j.moves.Add(1) // those dropped or drawn later are no standstill
				if !yield(f, err) {
					return
				}
			}
			j.report(ctx, Progress{Done: int64(i + 1), Total: int64(len(shards)), Unit: "shard", Note: "joining"})
		}
	}
	return j.putDocuments(ctx, func(write func(datasets.Document) error) (datasets.DocumentsReport, error) {
		return documents.Decide(p, reports, facts, write)
	})
}

// putDocuments stores the documents that build gives, and their report.
func (j *job) putDocuments(ctx context.Context, build func(write func(datasets.Document) error) (datasets.DocumentsReport, error)) error {
	path := filepath.Join(j.dir, documentsFile)
	w, err := newLines(path)
	if err != nil {
		return err
	}
	defer w.close()
	report, err := build(func(d datasets.Document) error {
		j.moves.Add(1) // what was drawn is written when all is read
		return w.add(d)
	})
	if err != nil {
		return documentsError(ctx, err)
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
	if err := j.putFile(ctx, documentsFile, "application/zstd", path); err != nil {
		return err
	}
	return j.putJSON(ctx, "report.json", report)
}

func documentsError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.As(err, new(*documents.InputError)) {
		err = fmt.Errorf("%w; mend the file, or set documents.bad_input: skip", err)
	}
	return inputError(err)
}

// documents streams the documents of the input "documents".
func (j *job) documents(ctx context.Context) iter.Seq2[datasets.Document, error] {
	if j.shard != nil {
		return lines[datasets.Document](ctx, j, partsRole, j.shard.file())
	}
	return lines[datasets.Document](ctx, j, "documents", documentsFile)
}

// lines streams the values of a zstd-compressed JSON-lines output of an input.
func lines[T any](ctx context.Context, j *job, role, name string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		m, err := j.input(ctx, role)
		if err != nil {
			var zero T
			yield(zero, err)
			return
		}
		outputLines[T](ctx, j, m, name)(yield)
	}
}

// outputLines is lines of a manifest's output.
func outputLines[T any](ctx context.Context, j *job, m *artifact.Manifest, name string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		out, ok := m.Output(name)
		if !ok {
			yield(zero, badData("%s has no output %q", m.Ref(), name))
			return
		}
		r, err := j.a.Store.OpenBlob(ctx, out.Blob)
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
