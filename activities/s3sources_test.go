package activities

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
	_ "github.com/longalign/longalign-go/datasets/artifact/s3"
	"github.com/longalign/longalign-go/testenv"
)

// TestDocumentsComeFromAnS3Gateway reads every format, plain and compressed, from a real S3 server: a bucket's prefix, one object, objects
// chosen by patterns; and says what is wrong with addresses that lead nowhere.
func TestDocumentsComeFromAnS3Gateway(t *testing.T) {
	if testing.Short() {
		t.Skip("needs servers")
	}
	e := testenv.Shared(t)
	env, err := e.Env()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range env {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, value)
		}
	}
	corpus, err := artifact.Open(t.Context(), e.StoreURI(testenv.Unique(t)))
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	fmt.Fprintln(z, `{"text":"of the compressed lines the first"}`)
	fmt.Fprintln(z, `{"text":"of the compressed lines the second"}`)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var columns bytes.Buffer
	if err := parquet.Write(&columns, []struct {
		Text string `parquet:"text"`
		ID   string `parquet:"id"`
	}{{"a row of a table", "row-1"}, {"another row of the table", "row-2"}}); err != nil {
		t.Fatal(err)
	}
	// Larger than the range that a listing or a small read would take.
	long := strings.Repeat("A long text goes on and on, and never says the same thing twice in its number.\n", 100_000)
	for name, body := range map[string][]byte{
		"plain/one.txt":            []byte("the first text"),
		"plain/deep/er/two.md":     []byte("# Title\n\nthe second text"),
		"plain/three.html":         []byte("<html><head><title>T</title></head><body><p>the third text</p></body></html>"),
		"plain/with blank +&ä.txt": []byte("a name with everything"),
		"long.txt":                 []byte(long),
		"lines/some.jsonl.gz":      zipped.Bytes(),
		"lines/more.txt.zst":       encoder.EncodeAll([]byte("a compressed text"), nil),
		"tables/rows.parquet":      columns.Bytes(),
		"broken/b.jsonl":           []byte("{\"text\":\"fine\"}\n{\"text\":\n"),
	} {
		if _, err := corpus.Backend().Put(t.Context(), name, bytes.NewReader(body), int64(len(body)), artifact.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	p := newTiny(t)
	resolve := func(path string, change func(*datasets.DocumentSource)) (Call, error) {
		s := datasets.DocumentSource{Name: "gateway", Path: path}
		if change != nil {
			change(&s)
		}
		raw, err := json.Marshal(datasets.DocumentsParams{Sources: []datasets.DocumentSource{s}, NearDuplicates: -1})
		if err != nil {
			t.Fatal(err)
		}
		call := Call{Stage: "documents", Params: raw}
		r, err := p.Resolve(t.Context(), call)
		call.Key = r.Key
		return call, err
	}
	for name, tt := range map[string]struct {
		path   string
		change func(*datasets.DocumentSource)
		want   []string
	}{
		"a prefix":          {"/plain", nil, []string{"deep/er/two.md", "one.txt", "three.html", "with blank +&ä.txt"}},
		"a prefix with a /": {"/plain/", nil, []string{"deep/er/two.md", "one.txt", "three.html", "with blank +&ä.txt"}},
		"one object":        {"/plain/one.txt", nil, []string{"one.txt"}},
		"a long object":     {"/long.txt", nil, []string{"long.txt"}},
		"by patterns": {"", func(s *datasets.DocumentSource) {
			s.Include = []string{"plain/**"}
			s.Exclude = []string{"**/*.html", "**/w*"}
		}, []string{"plain/deep/er/two.md", "plain/one.txt"}},
		"compressed objects": {"/lines", nil, []string{"more.txt.zst", "some.jsonl.gz:1", "some.jsonl.gz:2"}},
		"a table":            {"/tables", nil, []string{"row-1", "row-2"}},
	} {
		t.Run(name, func(t *testing.T) {
			call, err := resolve(corpus.URI()+tt.path, tt.change)
			if err != nil {
				t.Fatal(err)
			}
			ref, err := p.Run(t.Context(), call)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			j := &job{a: p.Activities, call: Call{Inputs: map[string]artifact.Ref{"documents": ref}}}
			for d, err := range j.documents(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, d.ID)
				if d.ID == "long.txt" && d.Text != long {
					t.Errorf("the long text came as %d bytes, not %d", len(d.Text), len(long))
				}
			}
			if diff := cmp.Diff(tt.want, ids); diff != "" {
				t.Error(diff)
			}
		})
	}
	call, err := resolve(corpus.URI()+"/broken", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Run(t.Context(), call)
	wantType(t, err, BadData, "b.jsonl:2")
	bucket, _, _ := strings.Cut(strings.TrimPrefix(corpus.URI(), "s3://"), "/")
	for path, words := range map[string]string{
		corpus.URI() + "/nothing":                          "no objects",
		"s3://" + bucket + "-that-is-not-there/a/b":        "check the address",
		strings.Replace(corpus.URI(), "s3://", "s4://", 1): "s4",
	} {
		_, err := resolve(path, nil)
		wantType(t, err, BadData, words)
	}
}
