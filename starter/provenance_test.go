package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/activities"
)

// checkProvenance tries every command that works from the store alone on a finished run.
func checkProvenance(t *testing.T, r *remote, id string) {
	t.Run("doctor finds all it needs", func(t *testing.T) {
		out, _ := r.do(exitDone, r.remote("doctor", "study.yaml")...)
		contains(t, "doctor", out, "Temporal", "search attributes", "queue gpu", "refuses conflicting writes", "device", "free")
		out, _ = r.do(exitFailed, r.local("doctor", "--address", "127.0.0.1:1", "--json")...)
		var report struct {
			OK     bool
			Checks []diagnosis
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil || report.OK || report.Checks[0].Verdict != failing || report.Checks[0].Do == "" {
			t.Errorf("%v, %+v", err, report)
		}
	})
	t.Run("a sound run is verified", func(t *testing.T) {
		out, _ := r.do(exitDone, r.local("verify", id)...)
		contains(t, "bytes", out, "all match", "hashed")
		out, _ = r.do(exitDone, r.local("verify", id, "--level", "derived")...)
		contains(t, "derived", out, "recomputed", "all match", "a training")
	})
	t.Run("an exported run is the same elsewhere", func(t *testing.T) {
		dir, other := filepath.Join(t.TempDir(), "export"), "file://"+filepath.Join(t.TempDir(), "other")
		r.do(exitDone, r.local("export", id, "--out", dir)...)
		for _, name := range []string{"ro-crate-metadata.json", "CITATION.cff", "report/report.html", "runs", "actions", "blobs"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
		var crate any
		if data, err := os.ReadFile(filepath.Join(dir, "ro-crate-metadata.json")); err != nil || json.Unmarshal(data, &crate) != nil {
			t.Errorf("the description is no JSON: %v", err)
		}
		_, stderr := r.do(exitUsage, r.local("export", id, "--out", dir)...)
		contains(t, "export into a full directory", stderr, "not empty")
		r.do(exitDone, "import", dir, "--store", other)
		here, _ := r.do(exitDone, r.local("report", id, "--format", "json")...)
		for where, store := range map[string]string{"in place": dir, "imported": other} {
			if there, _ := r.do(exitDone, "report", id, "--format", "json", "--store", store); there != here {
				t.Errorf("%s, the report differs", where)
			}
			r.do(exitDone, "verify", id, "--store", store)
		}
		r.do(exitUsage, "import", t.TempDir(), "--store", other)
	})
	t.Run("damage is found, named and repaired", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "export")
		r.do(exitDone, r.local("export", id, "--out", dir)...)
		before, _ := r.do(exitDone, "report", id, "--format", "json", "--store", dir)
		damaged := damageOutput(t, dir, "scores.json")
		out, _ := r.do(exitFailed, "verify", id, "--store", dir, "--json")
		var v activities.Verification
		if err := json.Unmarshal([]byte(out), &v); err != nil || len(v.Findings) == 0 || v.Findings[0].Output != "scores.json" || !strings.Contains(v.Findings[0].Problem, damaged) {
			t.Errorf("%v, %+v", err, v)
		}
		out, _ = r.do(exitDone, "verify", id, "--store", dir, "--repair")
		contains(t, "repair", out, "repaired", "scores.json")
		r.do(exitDone, "verify", id, "--store", dir)
		if after, _ := r.do(exitDone, "report", id, "--format", "json", "--store", dir); after != before {
			t.Error("the report changed with the repair")
		}
	})
	t.Run("whatever is damaged, the rest is told", func(t *testing.T) { checkDamage(t, r, id) })
	t.Run("a record that cannot be read is told", func(t *testing.T) { checkUnreadableRecord(t, r, id) })
	t.Run("lineage leads both ways", func(t *testing.T) {
		out, _ := r.do(exitDone, r.local("lineage", id, "--cell", "packing/seed=1")...)
		contains(t, "lineage", out, "checkpoint (tuned)", "trained in step", "held-out")
		var traces []activities.CellTrace
		out, _ = r.do(exitDone, r.local("lineage", id, "--json")...)
		if err := json.Unmarshal([]byte(out), &traces); err != nil || len(traces) != 2 {
			t.Fatalf("%v, %d cells", err, len(traces))
		}
		document := traces[0].Documents[0].Document
		out, _ = r.do(exitDone, r.local("lineage", id, "--document", document)...)
		contains(t, "lineage of a document", out, document, "packing/seed=1", "naive/seed=1")
		contains(t, "lineage of a document", out, "bears on", "documents ")
		out, _ = r.do(exitDone, r.local("lineage", id, "--table", "method", "--row", "naive", "--column", "all")...)
		contains(t, "lineage of a table's value", out, "method, naive", "computed from  scores/", "tokens/", "documents/", "for training")
		_, stderr := r.do(exitUsage, r.local("lineage", id, "--table", "method", "--row", "none")...)
		contains(t, "a row that is not there", stderr, "its rows are", "naive")
		r.do(exitUsage, r.local("lineage", id, "--row", "naive")...)
		r.do(exitFailed, r.local("lineage", id, "--sample", "none")...)
		out, _ = r.do(exitDone, r.local("lineage", traces[0].Chain[0].Ref.String())...)
		contains(t, "lineage of a result", out, "for ", "run ", id)
		_, stderr = r.do(exitUsage, r.local("lineage", id, "--cell", "none")...)
		contains(t, "a cell that is not there", stderr, "packing/seed=1")
		r.do(exitFailed, r.local("lineage", id, "--document", "none")...)
	})
	t.Run("gc removes nothing that is young or used", func(t *testing.T) {
		out, _ := r.do(exitDone, r.local("gc")...)
		contains(t, "gc", out, "stays", "younger")
		out, _ = r.do(exitDone, r.local("gc", "--delete", "--older-than", "1ns", "--json")...)
		var report struct{ Deleted bool }
		if err := json.Unmarshal([]byte(out), &report); err != nil || !report.Deleted {
			t.Errorf("%v: %s", err, out)
		}
		r.do(exitDone, r.local("verify", id)...)
	})
}

// damageOutput changes a byte of the first stored output of that name and returns a part of its digest.
func damageOutput(t *testing.T, store, output string) string {
	t.Helper()
	manifests, err := filepath.Glob(filepath.Join(store, "actions", "*", "*", "1.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range manifests {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var m struct {
			Outputs []struct {
				Name string
				Blob struct{ Digest string }
			}
		}
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		for _, o := range m.Outputs {
			if o.Name != output {
				continue
			}
			hex := strings.TrimPrefix(o.Blob.Digest, "sha256:")
			blob := filepath.Join(store, "blobs", "sha256", hex[:2], hex)
			bytes, err := os.ReadFile(blob)
			if err != nil {
				t.Fatal(err)
			}
			bytes[len(bytes)/2] ^= 1
			if err := os.Chmod(blob, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(blob, bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			return hex[:16]
		}
	}
	t.Fatalf("%s holds no %s", store, output)
	return ""
}

func TestTableOneComesFromRatings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ratings.csv")
	if err := os.WriteFile(file, []byte("anna,ben,judge,same,tokens\n1,2,1,3,10\n3,3,4,3,200\n5,4,5,3,90\n2,2,3,3,40\n7,,8,3,500\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		code int
		want []string
	}{
		"people and judges": {[]string{"--humans", "anna,ben", "--judges", "judge=gpt-4+few-shot", "--length", "tokens", "--format", "markdown"}, exitDone,
			[]string{"anna – ben", "judge – people", "long third"}},
		"a constant judge keeps its row, with the reason": {[]string{"--humans", "anna", "--judges", "same"}, exitDone, []string{"same – people", "all ratings are 3"}},
		"nobody human":                    {[]string{"--judges", "judge"}, exitUsage, []string{"--humans"}},
		"a column that is not there":      {[]string{"--humans", "anna,carl"}, exitFailed, []string{`no column "carl"`}},
		"a judge that is not published":   {[]string{"--humans", "anna", "--judges", "judge=GPT-4"}, exitUsage, []string{`"GPT-4" is not a published judge`, "gpt-4+few-shot"}},
		"a format that is not known":      {[]string{"--humans", "anna", "--format", "word"}, exitUsage, []string{"word"}},
		"not beside columns to correlate": {[]string{"--humans", "anna", "--csv", file}, exitUsage, []string{"csv", "ratings"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := starterRun(t.Context(), append([]string{"correlate", "--ratings", file}, tt.args...)...)
			if code != tt.code {
				t.Errorf("exit %d, want %d: %s", code, tt.code, stderr)
			}
			contains(t, name, stdout+stderr, tt.want...)
		})
	}
}
