package activities

import (
	"archive/zip"
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

	"github.com/longalign/longalign-go/datasets"
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

// openBenchmark opens a benchmark's directory, archive, or single file.
func openBenchmark(p datasets.QuestionsParams) (*benchmarkFiles, error) {
	where := "benchmarks." + p.Benchmark
	var err error
	for _, place := range []*string{&p.Path, &p.Config} {
		if *place, err = localPath(*place); err != nil {
			return nil, badData("%s: %w", where, err)
		}
	}
	info, err := os.Stat(p.Path)
	if err != nil {
		return nil, badData("%s: %w", where, err)
	}
	f, beside := &benchmarkFiles{}, p.Path
	switch {
	case info.IsDir():
		f.data = os.DirFS(p.Path)
	case strings.EqualFold(filepath.Ext(p.Path), ".zip"):
		z, err := zip.OpenReader(p.Path)
		if err != nil {
			return nil, badData("%s: %s: %w", where, p.Path, err)
		}
		f.data, f.archive, beside = z, z, filepath.Dir(p.Path)
	default:
		f.data, beside = os.DirFS(filepath.Dir(p.Path)), filepath.Dir(p.Path)
	}
	f.config = f.data
	if p.Config != "" {
		f.config = os.DirFS(p.Config)
	} else if _, err := longbench.LoadPrompts(f.data); errors.Is(err, fs.ErrNotExist) {
		f.config = os.DirFS(beside)
	}
	return f, nil
}

// localPath finds a file or directory on this machine: $FETCHED is where starter fetch puts files, other variables are the environment's.
func localPath(path string) (string, error) {
	if strings.Contains(path, "://") {
		return "", fmt.Errorf("%s: benchmarks are read from the worker's own disk; copy it there, or use starter fetch and $FETCHED", path)
	}
	expanded, err := fetch.Expand(path)
	if err != nil || expanded != path {
		return expanded, err
	}
	return os.ExpandEnv(path), nil
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
		for _, name := range p.Datasets {
			d, err := longbench.Lookup(suite(p.Benchmark), name)
			if err != nil {
				return nil, badConfig("%w", err)
			}
			file, found, err := longbench.OpenInputs(f.data, suite(p.Benchmark), d)
			if err != nil {
				return nil, badData("benchmarks.%s: %w; or name those you have in datasets", p.Benchmark, err)
			}
			file.Close()
			add(f.data, found)
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
			return nil, badData("benchmarks.needle.haystack: %w", err)
		}
		if len(all) == 0 {
			return nil, badData("benchmarks.needle.haystack: %w", needle.ErrNoText)
		}
	}
	return all, nil
}

// questionFiles hashes a benchmark's files by name, so that an archive and its unpacked directory are the same.
func questionFiles(ctx context.Context, _ *Activities, raw json.RawMessage) (map[string]string, error) {
	p, err := decodeQuestions(raw)
	if err != nil {
		return nil, err
	}
	files, err := openBenchmark(p)
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
			return nil, badData("benchmarks.%s: %w; it is one of the benchmark's own files", p.Benchmark, err)
		}
		h := sha256.New()
		_, err = io.Copy(h, file)
		file.Close()
		if err != nil {
			return nil, badData("benchmarks.%s: %w", p.Benchmark, err)
		}
		digests[path.Base(f.name)] = "sha256:" + hex.EncodeToString(h.Sum(nil))
		if p.Benchmark == datasets.BenchmarkNeedle { // two texts may have one base name
			digests[f.name] = digests[path.Base(f.name)]
		}
	}
	return digests, nil
}
