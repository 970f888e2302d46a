package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// storedManifest is the path of a stored manifest of a stage, and the path of one of its outputs.
func storedManifest(t *testing.T, dir, stage, output string) (manifest, blob string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "actions", stage, "*", "1.json"))
	if err != nil || len(paths) == 0 {
		t.Fatal(stage, err)
	}
	for _, manifest = range paths {
		data, err := os.ReadFile(manifest)
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
			if o.Name == output {
				hex := strings.TrimPrefix(o.Blob.Digest, "sha256:")
				return manifest, filepath.Join(dir, "blobs", "sha256", hex[:2], hex)
			}
		}
	}
	if output != "" {
		t.Fatalf("no %s holds %s", stage, output)
	}
	return paths[0], ""
}

// rewrite changes a file's text, whoever may write it.
func rewrite(t *testing.T, path string, change func(string) string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(change(string(data))), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func flip(s string) string { return s[:len(s)/2] + "\x00" + s[len(s)/2+1:] }

// checkDamage tries every command of the store on every kind of damage: each says what is wrong, makes the rest, and what can be
// recomputed is the same after a repair.
func checkDamage(t *testing.T, r *remote, id string) {
	whole, _ := r.do(exitDone, r.local("report", id)...)
	for name, tt := range map[string]struct {
		damage func(t *testing.T, dir string)
		verify int      // exit code
		says   []string // what verify says
		stderr []string // what report says beside the tables
		mended string   // how the repair says it did it; empty: it cannot
		left   []string // what is said then
	}{
		"a missing blob of scores": {
			func(t *testing.T, dir string) {
				_, blob := storedManifest(t, dir, "scores", "scores.json")
				remove(t, blob)
			},
			exitFailed, []string{"BAD", "missing", "--repair makes it again"}, nil, "made again", nil},
		"corrupt tokens": {
			func(t *testing.T, dir string) {
				m, _ := storedManifest(t, dir, "tokens", "")
				_, blob := storedManifest(t, dir, "tokens", firstOutput(t, m))
				rewrite(t, blob, flip)
			}, exitFailed, []string{"BAD", "is corrupt", "--repair makes it again"}, nil, "made again", nil},
		"curves of a training that are lost": {
			func(t *testing.T, dir string) {
				_, blob := storedManifest(t, dir, "checkpoint", "metrics.jsonl")
				remove(t, blob)
			}, exitFailed, []string{"BAD", "missing", "making it again takes a training", "--costly"}, nil, "", []string{"--costly"}},
		"a corrupt manifest of scores": {
			func(t *testing.T, dir string) { m, _ := storedManifest(t, dir, "scores", ""); rewrite(t, m, flip) },
			exitFailed, []string{"BAD", "another copy of its manifest", "--repair puts it in its place"}, []string{"is corrupt"}, "another copy of its manifest", nil},
		"a missing manifest of a training": {
			func(t *testing.T, dir string) {
				m, _ := storedManifest(t, dir, "checkpoint", "metrics.jsonl")
				remove(t, m)
			},
			exitFailed, []string{"BAD", "missing", "another copy of its manifest"}, []string{"not found"}, "another copy of its manifest", nil},
		"a corrupt manifest of the tables": {
			func(t *testing.T, dir string) { m, _ := storedManifest(t, dir, "tables", ""); rewrite(t, m, flip) },
			exitFailed, []string{"BAD", "nor is there a copy of it", "by the run's specification"}, []string{"is corrupt", "made from what its tables were made from"}, "made again by the run's specification", nil},
		"a missing manifest of the tables": {
			func(t *testing.T, dir string) { m, _ := storedManifest(t, dir, "tables", ""); remove(t, m) },
			exitFailed, []string{"BAD", "missing"}, []string{"made from what its tables were made from"}, "made again by the run's specification", nil},
		"a missing blob of the tables": {
			func(t *testing.T, dir string) {
				_, blob := storedManifest(t, dir, "tables", "study.json")
				remove(t, blob)
			},
			exitFailed, []string{"BAD", "study.json"}, []string{"made from what its tables were made from"}, "made again", nil},
		"a manifest of a newer version": {
			func(t *testing.T, dir string) {
				m, _ := storedManifest(t, dir, "batches", "")
				rewriteSealed(t, m, func(v map[string]any) { v["version"] = 99 })
			}, exitFailed, []string{"BAD", "version 99", "a newer version of this program"}, []string{"version 99"}, "", []string{"left as it is"}},
		"tables of a newer version": {
			func(t *testing.T, dir string) {
				m, _ := storedManifest(t, dir, "tables", "")
				rewriteSealed(t, m, func(v map[string]any) { v["version"] = 99 })
			}, exitFailed, []string{"BAD", "version 99"}, []string{"version 99", "made from what its tables were made from"}, "", []string{"left as it is"}},
		"tables of an older program, whose keys today's does not derive": {
			func(t *testing.T, dir string) {
				m, _ := storedManifest(t, dir, "tables", "")
				remove(t, m)
				rewriteRun(t, dir, func(v map[string]any) { v["tables"].(map[string]any)["key"] = strings.Repeat("7", 64) })
			}, exitFailed, []string{"BAD", "missing"}, []string{"made from what its tables were made from"}, "", []string{"start the run again"}},
		"scores that were replaced by others under their name": {
			func(t *testing.T, dir string) {
				paths, err := filepath.Glob(filepath.Join(dir, "actions", "scores", "*", "1.json"))
				if err != nil || len(paths) < 2 {
					t.Fatal(paths, err)
				}
				var other map[string]any
				data, err := os.ReadFile(paths[1])
				if err == nil {
					err = json.Unmarshal(data, &other)
				}
				if err != nil {
					t.Fatal(err)
				}
				rewriteSealed(t, paths[0], func(v map[string]any) { v["outputs"] = other["outputs"] })
			}, exitFailed, []string{"BAD       tables/", "is now", "was replaced after it had been used", "delete actions/scores/"}, nil, "", []string{"was replaced"}},
		"a run that ended before its tables": {
			func(t *testing.T, dir string) {
				rewriteRun(t, dir, func(v map[string]any) { delete(v, "tables"); v["status"] = "failed" })
			}, exitDone, []string{"all match"}, []string{"has no tables: it is failed", "made from what its tables were made from"}, "", nil},
		"a run record without a stage": {
			func(t *testing.T, dir string) {
				rewriteRun(t, dir, func(v map[string]any) {
					var kept []any
					for _, s := range v["stages"].([]any) {
						if s.(map[string]any)["stage"] != "scores" {
							kept = append(kept, s)
						}
					}
					v["stages"] = kept
				})
			}, exitDone, []string{"all match"}, []string{"record does not list scores/"}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.t = t
			dir := filepath.Join(t.TempDir(), "export")
			r.do(exitDone, r.local("export", id, "--out", dir)...)
			tt.damage(t, dir)
			at := func(args ...string) []string { return append(args, "--store", dir) }
			reported := exitDone // by what the report has to read
			if len(tt.stderr) > 0 {
				reported = exitIncomplete
			}
			out, stderr := r.do(reported, at("report", id)...)
			contains(t, "report", stderr, tt.stderr...)
			// What a report makes anew from what is left may differ in times alone.
			if firstLines(out) != firstLines(whole) {
				t.Errorf("the report differs:\n%s", out)
			}
			out, _ = r.do(tt.verify, at("verify", id)...)
			contains(t, "verify", out, tt.says...)
			for _, command := range [][]string{{"list"}, {"explain", id}, {"lineage", id}, {"lineage", id, "--table", "method"}} {
				r.do(exitDone, at(command...)...)
			}
			for _, command := range [][]string{{"report", id, "--format", "html"}, {"report", id, id}, {"report", id, "--out", filepath.Join(t.TempDir(), "report")}} {
				r.do(reported, at(command...)...)
			}
			if code, out, stderr := starterRun(t.Context(), at("gc")...); code != exitDone && code != exitIncomplete && !strings.Contains(stderr, "version 99") {
				t.Errorf("gc: exit %d: %s%s", code, out, stderr)
			}
			code, out, stderr := starterRun(t.Context(), at("verify", id, "--repair")...)
			if tt.mended == "" {
				contains(t, "repair", out+stderr, tt.left...)
				return
			}
			contains(t, "repair", out, "repaired", tt.mended)
			if code != exitDone {
				t.Errorf("repair: exit %d: %s%s", code, out, stderr)
			}
			r.do(exitDone, at("verify", id)...)
			r.do(exitDone, at("verify", id, "--level", "derived")...)
			out, _ = r.do(exitDone, at("report", id)...)
			if firstLines(out) != firstLines(whole) {
				t.Errorf("the report differs after the repair:\n%s", out)
			}
		})
	}
}

// checkUnreadableRecord tries the record of a newer version, alone and beside another execution's that can be read.
func checkUnreadableRecord(t *testing.T, r *remote, id string) {
	dir := filepath.Join(t.TempDir(), "export")
	r.do(exitDone, r.local("export", id, "--out", dir)...)
	records, err := filepath.Glob(filepath.Join(dir, "runs", "*", "*.json"))
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	readable, err := os.ReadFile(records[0])
	if err != nil {
		t.Fatal(err)
	}
	rewriteRun(t, dir, func(v map[string]any) { v["version"] = 99 })
	for _, command := range [][]string{{"list"}, {"report", id}, {"verify", id}, {"explain", id}, {"gc", "--delete"}} {
		_, stderr := r.do(exitFailed, append(command, "--store", dir)...)
		contains(t, command[0], stderr, "version 99", "use the version that wrote it")
		if strings.Contains(stderr, "no runs") {
			t.Errorf("%s says that there is no run: %s", command[0], stderr)
		}
	}
	other := filepath.Join(filepath.Dir(records[0]), "other.json")
	if err := os.WriteFile(other, readable, 0o600); err != nil {
		t.Fatal(err)
	}
	rewriteSealed(t, other, func(v map[string]any) { v["run_id"] = "other" })
	for _, command := range [][]string{{"report", id}, {"verify", id}} {
		_, stderr := r.do(exitDone, append(command, "--store", dir)...)
		contains(t, command[0], stderr, "the record of another cannot be read", "version 99")
	}
}

// rewriteRun changes the only run's record.
func rewriteRun(t *testing.T, dir string, change func(map[string]any)) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "runs", "*", "*.json"))
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	rewriteSealed(t, paths[0], change)
}

// firstLines are those before the table of what the study took, which tells of times.
func firstLines(report string) string {
	before, _, _ := strings.Cut(report, "Cost of training")
	return before
}

// firstOutput is the name of a manifest's first output.
func firstOutput(t *testing.T, manifest string) string {
	t.Helper()
	data, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	var m artifact.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m.Outputs[0].Name
}

// rewriteSealed changes a stored document and its sum with it, as a program of another version may have written it.
func rewriteSealed(t *testing.T, path string, change func(map[string]any)) {
	t.Helper()
	rewrite(t, path, func(text string) string {
		var v map[string]any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		change(v)
		delete(v, "sha256")
		canonical, err := artifact.CanonicalJSON(v)
		if err != nil {
			t.Fatal(err)
		}
		v["sha256"] = fmt.Sprintf("sha256:%x", sha256.Sum256(canonical))
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	})
}
