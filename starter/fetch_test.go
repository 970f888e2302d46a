package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/datasets/fetch"
)

func TestFetch(t *testing.T) {
	t.Setenv("LONGALIGN_FETCHED", filepath.Join(t.TempDir(), "fetched"))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/THUDM/LongAlign-10k/resolve/main/long.jsonl") {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte("{}\n"))
	}))
	t.Cleanup(s.Close)
	starter := func(args ...string) (code int, stdout, stderr string) {
		var out, errs bytes.Buffer
		code = run(t.Context(), args, strings.NewReader(""), &out, &errs)
		return code, out.String(), errs.String()
	}
	code, out, errs := starter("fetch", "longalign-10k", "--mirror", s.URL)
	if code != exitDone || !strings.Contains(out, "digests are recorded") {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	code, out, errs = starter("fetch", "longalign-10k", "--mirror", s.URL, "--json")
	var r fetch.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitDone || !r.Present || r.Files["long.jsonl"] == "" {
		t.Errorf("exit code %d, %q, %q, %v", code, out, errs, err)
	}
	if code, _, errs = starter("fetch", "longalign"); code != exitUsage || !strings.Contains(errs, "longalign-10k") {
		t.Errorf("an unknown name: exit code %d, %q", code, errs)
	}
	if code, _, errs = starter("fetch", "longbench", "--mirror", s.URL); code != exitFailed || !strings.Contains(errs, "404") {
		t.Errorf("a publisher without the file: exit code %d, %q", code, errs)
	}
	if code, out, _ = starter("fetch"); code != exitDone || !strings.Contains(out, "jieba") {
		t.Errorf("the list: exit code %d, %q", code, out)
	}
}
