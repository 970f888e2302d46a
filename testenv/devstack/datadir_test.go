package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func openTestDir(t *testing.T, files map[string]string) *dataDir {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d, err := openDataDir(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

func TestCredentials(t *testing.T) {
	t.Run("are generated once, long and different in every directory", func(t *testing.T) {
		d := openTestDir(t, nil)
		first, err := d.credentials()
		if err != nil {
			t.Fatal(err)
		}
		again, err := d.credentials()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, again); diff != "" {
			t.Error(diff)
		}
		other, err := openTestDir(t, nil).credentials()
		if err != nil {
			t.Fatal(err)
		}
		if len(first.SecretAccessKey) < 40 || first == other {
			t.Errorf("weak or repeated credentials: %+v, %+v", first, other)
		}
	})
	t.Run("of a file that others can read are narrowed", func(t *testing.T) {
		d := openTestDir(t, map[string]string{"credentials.json": `{"access_key_id":"k","secret_access_key":"s"}`})
		got, err := d.credentials()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(keyPair{"k", "s"}, got); diff != "" {
			t.Error(diff)
		}
		fi, err := os.Stat(d.path("credentials.json"))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, want 0600", fi.Mode().Perm())
		}
	})
	for name, content := range map[string]string{"cut short": `{"access_key_id":`, "without a secret": `{"access_key_id":"k"}`} {
		t.Run(name+" are an error that says what to do", func(t *testing.T) {
			_, err := openTestDir(t, map[string]string{"credentials.json": content}).credentials()
			if err == nil || !strings.Contains(err.Error(), "remove it") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAnEndpointLeftBehindMeansACrash(t *testing.T) {
	for name, files := range map[string]map[string]string{"crashed": {"endpoint.json": "{}"}, "clean": {}} {
		d := openTestDir(t, files)
		if d.crashed != (name == "crashed") {
			t.Errorf("%s: crashed is %v", name, d.crashed)
		}
		if _, err := os.Stat(d.path("endpoint.json")); err == nil {
			t.Errorf("%s: the stale endpoint is still there", name)
		}
	}
}

func TestALongLogIsSetAside(t *testing.T) {
	d := openTestDir(t, map[string]string{"devstack.log": strings.Repeat("x", maxLogBytes+1)})
	fi, err := d.log.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if fi.Size() != 0 {
		t.Errorf("the new log has %d bytes", fi.Size())
	}
}

func TestLayout(t *testing.T) {
	var works, fails = func(string) error { return nil }, func(string) error { return errors.New("not supported") }
	for name, tt := range map[string]struct {
		files   map[string]string
		try     func(string) error
		sidecar bool
		fails   string
	}{
		"a filesystem with attributes keeps them there":           {try: works},
		"one without gets a sidecar":                              {try: fails, sidecar: true},
		"a sidecar is kept to on any filesystem":                  {files: map[string]string{"metadata/x": ""}, try: works, sidecar: true},
		"objects that lost their attributes are not served":       {files: map[string]string{"s3/longalign/x": ""}, try: fails, fails: "cp -a"},
		"objects with attributes are served where they still are": {files: map[string]string{"s3/longalign/x": ""}, try: works},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := openLayout(openTestDir(t, tt.files), "longalign", tt.try)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Fatalf("got %v, want %q in it", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := l.sidecar != ""; got != tt.sidecar {
				t.Errorf("sidecar %v, want %v", got, tt.sidecar)
			}
		})
	}
}

func TestRepairTouchesOnlyWhatWasNeverAcknowledged(t *testing.T) {
	keep := []string{
		"s3/longalign/a/object", "s3/longalign/.hidden", "s3/longalign/.sgwtmp/multipart/0123/upload-1/1",
		"metadata/longalign/a/object/meta/etag", "metadata/longalign/.sgwtmp/multipart/0123/upload-1/1/meta/etag",
	}
	for from, want := range map[string]string{
		"s3/longalign/.sgwtmp/abcd.123":                                             "",
		"s3/longalign/.sgwtmp/multipart/0123/abcd.9":                                "",
		"s3/longalign/a/.object.sgwtmp.17":                                          "",
		"metadata/longalign/a/never/meta/etag":                                      "",
		"s3/longalign/.sgwtmp/multipart/0123/upload-2.ff-2.inprogress/1":            "s3/longalign/.sgwtmp/multipart/0123/upload-2/1",
		"metadata/longalign/.sgwtmp/multipart/0123/upload-2.ff-2.inprogress/meta/x": "",
	} {
		t.Run(from, func(t *testing.T) {
			files := map[string]string{from: "x"}
			for _, name := range keep {
				files[name] = "x"
			}
			d := openTestDir(t, files)
			n, err := layout{root: d.path("s3"), sidecar: d.path("metadata")}.repair()
			if err != nil || n == 0 {
				t.Fatalf("repaired %d, %v", n, err)
			}
			if _, err := os.Stat(d.path(from)); err == nil {
				t.Errorf("%s is still there", from)
			}
			for _, name := range append(slices.Clone(keep), want) {
				if _, err := os.Stat(d.path(name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestOptionsAreRefusedWithTheReason(t *testing.T) {
	for want, args := range map[string][]string{
		"--dir is required":     nil,
		"unexpected argument":   {"--dir", "d", "extra"},
		"want 0 to 65535":       {"--dir", "d", "--s3-port", "70000"},
		"must not be empty":     {"--dir", "d", "--bucket", ""},
		"flag provided but not": {"--dir", "d", "--nonsense"},
	} {
		var usage usageError
		_, err := parseOptions(args, &strings.Builder{})
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q as wrong usage", args, err, want)
		}
	}
}
