package activities

import (
	"archive/zip"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/fetch"
	"github.com/longalign/longalign-go/datasets/longbench"
	"github.com/longalign/longalign-go/datasets/longbenchchat"
	"github.com/longalign/longalign-go/datasets/needle"
)

// benchmarkFiles are where a benchmark's files are read from. data and config are often the same.
type benchmarkFiles struct {
	data, config fs.FS
	archive      io.Closer // nil for a directory
}

func (f *benchmarkFiles) Close() error {
	if f.archive == nil {
		return nil
	}
	return f.archive.Close()
}

// openBenchmark opens a benchmark's directory, archive, or single file, on this machine or behind an address.
func openBenchmark(ctx context.Context, p datasets.QuestionsParams) (*benchmarkFiles, error) {
	bad := func(err error) error { return placeError("benchmarks."+p.Benchmark, err) }
	at, err := openPlace(ctx, p.Path)
	if err != nil {
		return nil, bad(err)
	}
	f := &benchmarkFiles{data: at.files}
	if strings.EqualFold(path.Ext(at.name), ".zip") {
		z, closer, err := openArchive(at.files, at.name)
		if err != nil {
			return nil, bad(fmt.Errorf("%s: %w", p.Path, err))
		}
		f.data, f.archive = z, closer
	}
	f.config = f.data
	if p.Config != "" {
		c, err := openPlace(ctx, p.Config)
		if err == nil && c.name != "" {
			err = fmt.Errorf("%s is a file; config names the directory of %s and %s", p.Config, longbench.PromptFile, longbench.MaxLenFile)
		}
		if err != nil {
			return nil, errors.Join(bad(err), f.Close())
		}
		f.config = c.files
	} else if _, err := longbench.LoadPrompts(f.data); errors.Is(err, fs.ErrNotExist) {
		f.config = at.files // beside an archive
	}
	return f, nil
}

// place is a directory, or the file name in one.
type place struct {
	files fs.FS
	name  string
}

// openPlace finds a file or a directory: on this machine, where $FETCHED is the directory of starter fetch and other variables are the
// environment's, or below s3://bucket/prefix.
func openPlace(ctx context.Context, where string) (place, error) {
	expanded, err := fetch.Expand(where)
	if err != nil {
		return place{}, err
	}
	if expanded == where {
		expanded = os.ExpandEnv(where)
	}
	if local, ok := strings.CutPrefix(expanded, "file://"); ok || !strings.Contains(expanded, "://") {
		info, err := os.Stat(local)
		switch {
		case err != nil:
			return place{}, err
		case info.IsDir():
			return place{files: os.DirFS(local)}, nil
		}
		return place{os.DirFS(filepath.Dir(local)), filepath.Base(local)}, nil
	}
	expanded = strings.TrimSuffix(expanded, "/")
	if parent, name := path.Split(expanded); !strings.HasSuffix(parent, "://") {
		store, err := artifact.Open(ctx, strings.TrimSuffix(parent, "/"))
		if err != nil {
			return place{}, err
		}
		switch _, err := store.Backend().Head(ctx, name); {
		case err == nil:
			return place{artifact.Files(ctx, store.Backend(), ""), name}, nil
		case !errors.Is(err, artifact.ErrNotFound) && !errors.Is(err, artifact.ErrKey):
			return place{}, err
		}
	}
	store, err := artifact.Open(ctx, expanded)
	if err != nil {
		return place{}, err
	}
	files := artifact.Files(ctx, store.Backend(), "")
	switch entries, err := fs.ReadDir(files, "."); {
	case err != nil:
		return place{}, err
	case len(entries) == 0: // a mistyped prefix is no empty directory
		return place{}, fmt.Errorf("%s: there are no objects; check the bucket and the prefix", where)
	}
	return place{files: files}, nil
}

// placeError is the failure to open what a parameter names.
func placeError(parameter string, err error) error {
	if errors.Is(err, artifact.ErrUnavailable) {
		return &problem{StoreUnavailable, fmt.Errorf("%s: %w", parameter, err)}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return badData("%s: %w; mend the path: it must be there for every cpu worker", parameter, err)
	}
	return badData("%s: %w", parameter, err)
}

// openArchive opens a zip file. One directory that holds everything else is gone into.
func openArchive(files fs.FS, name string) (fs.FS, io.Closer, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, nil, err
	}
	r, ok := f.(io.ReaderAt)
	info, err := f.Stat()
	if !ok && err == nil {
		err = errors.New("it cannot be read as an archive")
	}
	var z *zip.Reader
	if err == nil {
		z, err = zip.NewReader(&blocks{r: r, size: info.Size()}, info.Size())
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	var inside fs.FS = z
	for {
		entries, err := fs.ReadDir(inside, ".")
		if err != nil || len(entries) != 1 || !entries[0].IsDir() {
			return inside, f, nil
		}
		if inside, err = fs.Sub(inside, entries[0].Name()); err != nil {
			return nil, nil, errors.Join(err, f.Close())
		}
	}
}

// blockBytes is what is read of an archive at once: it may be an object far away, and its directory and members are read in small pieces.
const blockBytes = 1 << 20

// blocks reads in blocks and keeps the last one.
type blocks struct {
	r    io.ReaderAt
	size int64

	mu   sync.Mutex
	at   int64
	held []byte
}

func (b *blocks) ReadAt(p []byte, off int64) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n < len(p) {
		if off >= b.size {
			return n, io.EOF
		}
		if off < b.at || off >= b.at+int64(len(b.held)) {
			b.at, b.held = off-off%blockBytes, nil
			block := make([]byte, min(blockBytes, b.size-b.at))
			if _, err := b.r.ReadAt(block, b.at); err != nil && !errors.Is(err, io.EOF) {
				return n, err
			}
			b.held = block
		}
		copied := copy(p[n:], b.held[off-b.at:])
		n, off = n+copied, off+int64(copied)
	}
	return n, nil
}

// namedFile is a file that a benchmark is read from.
type namedFile struct {
	from fs.FS
	name string
}

// list names the files whose bytes decide what the questions are. A benchmark's data file that is not there is an error.
func (f *benchmarkFiles) list(p datasets.QuestionsParams) ([]namedFile, error) {
	var all []namedFile
	add := func(from fs.FS, names ...string) {
		for _, n := range names {
			all = append(all, namedFile{from, n})
		}
	}
	switch p.Benchmark {
	case datasets.BenchmarkLongBench, datasets.BenchmarkLongBenchE:
		var there, missing []string
		var first error
		for _, name := range p.Datasets {
			d, err := longbench.Lookup(suite(p.Benchmark), name)
			if err != nil {
				return nil, badConfig("%w", err)
			}
			file, found, err := longbench.OpenInputs(f.data, suite(p.Benchmark), d)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				missing, first = append(missing, name), cmp.Or(first, err)
				continue
			case err != nil:
				return nil, placeError("benchmarks."+p.Benchmark, err)
			}
			file.Close()
			add(f.data, found)
			there = append(there, name)
		}
		if first != nil {
			return nil, placeError("benchmarks."+p.Benchmark, lacking(first, there, missing))
		}
		for _, name := range []string{longbench.PromptFile, longbench.MaxLenFile} {
			if _, err := fs.Stat(f.config, name); err != nil {
				name = path.Join("config", name)
			}
			add(f.config, name)
		}
	case datasets.BenchmarkLongBenchChat:
		add(f.data, longbenchchat.CasesFile, longbenchchat.ExamplesFile)
		if _, err := fs.Stat(f.data, longbenchchat.PromptFile); err == nil {
			add(f.data, longbenchchat.PromptFile)
		}
	case datasets.BenchmarkMTBench:
		add(f.data, mtQuestions, mtPrompts)
		if _, err := fs.Stat(f.data, mtReferences); err == nil {
			add(f.data, mtReferences)
		}
	case datasets.BenchmarkEnQA:
		add(f.data, longbench.EnQAFile)
	case datasets.BenchmarkNeedle:
		err := fs.WalkDir(f.data, ".", func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && path.Ext(name) == ".txt" {
				add(f.data, name)
			}
			return err
		})
		if err != nil {
			return nil, placeError("benchmarks.needle.haystack", err)
		}
		if len(all) == 0 {
			return nil, badData("benchmarks.needle.haystack: %w", needle.ErrNoText)
		}
	}
	return all, nil
}

// lacking says all that is missing at once, and how to go on with what is there. first is the error at the first dataset.
func lacking(first error, there, missing []string) error {
	if len(missing) > 1 {
		first = fmt.Errorf("%w (%d are missing: %s)", first, len(missing), strings.Join(missing, ", "))
	}
	if len(there) == 0 {
		return first
	}
	return fmt.Errorf("%w; or go on with those that are there, datasets: [%s]", first, strings.Join(there, ", "))
}

// questionFiles hashes a benchmark's files by name, so that an archive and its unpacked directory are the same.
func questionFiles(ctx context.Context, _ *Activities, raw json.RawMessage) (map[string]string, error) {
	p, err := decodeQuestions(raw)
	if err != nil {
		return nil, err
	}
	files, err := openBenchmark(ctx, p)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	all, err := files.list(p)
	if err != nil {
		return nil, err
	}
	digests := map[string]string{}
	for _, f := range all {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		file, err := f.from.Open(f.name)
		if err != nil {
			return nil, placeError("benchmarks."+p.Benchmark, fmt.Errorf("%w; it is one of the benchmark's own files", err))
		}
		h := sha256.New()
		_, err = io.Copy(h, file)
		file.Close()
		if err != nil {
			return nil, placeError("benchmarks."+p.Benchmark, err)
		}
		digests[path.Base(f.name)] = "sha256:" + hex.EncodeToString(h.Sum(nil))
		if p.Benchmark == datasets.BenchmarkNeedle { // two texts may have one base name
			digests[f.name] = digests[path.Base(f.name)]
		}
	}
	return digests, nil
}

// openResults opens lm-evaluation-harness's results file.
func openResults(ctx context.Context, where string) (fs.File, error) {
	at, err := openPlace(ctx, where)
	if err == nil && at.name == "" {
		err = fmt.Errorf("%s is a directory; name the results file in it", where)
	}
	var f fs.File
	if err == nil {
		f, err = at.files.Open(at.name)
	}
	if err != nil {
		return nil, placeError("benchmarks.short_tasks.results", err)
	}
	return f, nil
}
