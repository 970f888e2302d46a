package activities

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/datasets/longbench"
)

// zipped makes an archive of the files, below a directory of it unless top is "".
func zipped(t *testing.T, files map[string]string, top string) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for name, text := range files {
		if w, err := z.Create(top + name); err != nil {
			t.Fatal(err)
		} else if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// upload puts files into a bucket in memory and returns its address.
func upload(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	uri := "mem://" + strings.ReplaceAll(t.Name(), "/", "-") + "-" + name
	store, err := artifact.Open(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	for key, text := range files {
		if _, err := store.Backend().Put(t.Context(), key, strings.NewReader(text), int64(len(text)), artifact.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	return uri
}

// A benchmark's questions are the same result wherever its files lie: in a directory, an archive, a bucket.
func TestBenchmarksAreReadThroughEveryDoor(t *testing.T) {
	essays := map[string]string{"a.txt": strings.Repeat("The river is wide. ", 90), "more/b.txt": strings.Repeat("A signal came. ", 90)}
	book := map[string]string{longbench.EnQAFile: `{"id":3,"context":"The clock is slow.","input":"What is slow?","answer":["the clock"]}` + "\n"}
	for benchmark, tt := range map[string]struct {
		files  map[string]string
		params datasets.QuestionsParams
		single string
	}{
		datasets.BenchmarkLongBench:     {smallLongBench(), datasets.QuestionsParams{Datasets: smallDatasets}, ""},
		datasets.BenchmarkLongBenchE:    {everyDataset(longbench.LongBenchE), datasets.QuestionsParams{}, ""},
		datasets.BenchmarkLongBenchChat: {smallChat(), datasets.QuestionsParams{}, ""},
		datasets.BenchmarkMTBench:       {smallMTBench(), datasets.QuestionsParams{}, ""},
		datasets.BenchmarkNeedle:        {essays, datasets.QuestionsParams{Needle: &datasets.NeedleParams{Lengths: []int{120}, Depths: []float64{0.5}}}, ""},
		datasets.BenchmarkEnQA:          {book, datasets.QuestionsParams{}, longbench.EnQAFile},
	} {
		t.Run(benchmark, func(t *testing.T) {
			p := newTiny(t)
			var in refs
			if benchmark == datasets.BenchmarkNeedle {
				documents := p.make("documents", p.documentsParams(), nil)
				in = refs{"tokenizer": p.make("tokenizer", tokenizerParams, refs{"documents": documents})}
			}
			dir := write(t, tt.files)
			archives := write(t, map[string]string{"plain.zip": string(zipped(t, tt.files, "")), "below.ZIP": string(zipped(t, tt.files, "LongBench-main/files/"))})
			uri := upload(t, "files", tt.files)
			places := map[string]string{
				"a directory": dir, "its address": "file://" + dir, "a variable": "$BENCHMARK_DIR", "an archive": filepath.Join(archives, "plain.zip"),
				"a bucket": uri, "a bucket's directory": uri + "/", "an archive in a bucket": upload(t, "zips", map[string]string{"data.zip": string(zipped(t, tt.files, ""))}) + "/data.zip",
			}
			if benchmark != datasets.BenchmarkNeedle { // a text's place in the haystack is part of what the haystack is
				places["an archive of a directory"] = filepath.Join(archives, "below.ZIP")
			}
			if tt.single != "" {
				places["the file"], places["the file in a bucket"] = filepath.Join(dir, tt.single), uri+"/"+tt.single
			}
			t.Setenv("BENCHMARK_DIR", dir)
			q := tt.params
			q.Benchmark, q.Path = benchmark, dir
			want := p.call("questions", q, in)
			made := p.output(p.make("questions", q, in), questionsFile)
			for name, path := range places {
				q.Path = path
				call := p.call("questions", q, in)
				if call.Key != want.Key {
					t.Errorf("%s: another key", name)
				}
				// Made anew, in a store that has the inputs and not the result.
				raw, err := json.Marshal(q)
				if err != nil {
					t.Fatal(err)
				}
				s, err := stageNamed("questions")
				if err != nil {
					t.Fatal(err)
				}
				action, err := p.action(t.Context(), Call{Stage: "questions", Params: raw, Inputs: in})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				m, err := p.Activities.make(t.Context(), s, action, call)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if o, _ := m.Output(questionsFile); o.Blob.Digest != made.Digest {
					t.Errorf("%s: other questions", name)
				}
			}
		})
	}
}

func TestPromptsMayLieBesideAnArchive(t *testing.T) {
	files := smallLongBench()
	config := map[string]string{longbench.PromptFile: files[longbench.PromptFile], longbench.MaxLenFile: files[longbench.MaxLenFile]}
	delete(files, longbench.PromptFile)
	delete(files, longbench.MaxLenFile)
	archive := string(zipped(t, files, ""))
	beside := map[string]string{"data.zip": archive}
	for name, text := range config {
		beside[name] = text
	}
	p := newTiny(t)
	for name, q := range map[string]datasets.QuestionsParams{
		"beside it":           {Path: filepath.Join(write(t, beside), "data.zip")},
		"beside it, far away": {Path: upload(t, "beside", beside) + "/data.zip"},
		"elsewhere":           {Path: filepath.Join(write(t, map[string]string{"data.zip": archive}), "data.zip"), Config: upload(t, "config", config)},
	} {
		q.Benchmark, q.Datasets = datasets.BenchmarkLongBench, smallDatasets
		if ref := p.make("questions", q, nil); p.manifest(ref).Counts["questions"] != 5 {
			t.Errorf("%s: %v", name, p.manifest(ref).Counts)
		}
	}
}

func TestPlacesThatHoldNoBenchmarkAreTold(t *testing.T) {
	p := newTiny(t)
	t.Setenv("LONGALIGN_FETCHED", t.TempDir())
	for name, tt := range map[string]struct{ path, config, says string }{
		"nothing there":         {"/nowhere/longbench", "", "/nowhere/longbench"},
		"an empty bucket":       {"mem://" + t.Name() + "-empty", "", "check the bucket and the prefix"},
		"another scheme":        {"gopher://host/longbench", "", "no backend for gopher"},
		"no archive":            {filepath.Join(write(t, map[string]string{"data.zip": "PK"}), "data.zip"), "", "data.zip"},
		"a file as config":      {write(t, smallLongBench()), filepath.Join(write(t, map[string]string{"c.json": "{}"}), "c.json"), "names the directory of"},
		"what was not fetched":  {"$FETCHED/longbench", "", "starter fetch"},
		"a directory of others": {write(t, map[string]string{"x.jsonl": "{}"}), "", "narrativeqa"},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := json.Marshal(datasets.QuestionsParams{Benchmark: datasets.BenchmarkLongBench, Path: tt.path, Config: tt.config})
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.Resolve(t.Context(), Call{Stage: "questions", Params: raw})
			wantType(t, err, BadData, tt.says)
		})
	}
}

// A bucket that is away for a while is asked again later, and is not taken for bad data.
func TestABucketThatIsAwayIsNoBadData(t *testing.T) {
	err := placeError("benchmarks.needle", &os.PathError{Op: "open", Path: "x", Err: artifact.ErrUnavailable})
	wantType(t, boundary(t.Context(), "questions", err), StoreUnavailable, "benchmarks.needle")
}

// Reads of any size and place give what is there, whatever the blocks are.
func TestBlocksReadWhatIsThere(t *testing.T) {
	text := make([]byte, 2*blockBytes+4321)
	for i := range text {
		text[i] = byte(i * 7 >> 3)
	}
	b := &blocks{r: bytes.NewReader(text), size: int64(len(text))}
	if err := iotest.TestReader(io.NewSectionReader(b, 0, b.size), text); err != nil {
		t.Error(err)
	}
	far := make([]byte, 100)
	if n, err := b.ReadAt(far, blockBytes-50); n != 100 || err != nil || !bytes.Equal(far, text[blockBytes-50:blockBytes+50]) {
		t.Errorf("across a border: %d bytes, %v", n, err)
	}
}
