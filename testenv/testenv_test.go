package testenv_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"

	"github.com/longalign/longalign-go/testenv"
)

func TestReadEndpoint(t *testing.T) {
	want := testenv.Endpoint{Temporal: "h:1", Namespace: "n", S3: "http://h:2", Bucket: "b", Region: "r", Credentials: "c", Data: "d", PID: 3}
	const text = `{"ready":true,"temporal":"h:1","namespace":"n","s3":"http://h:2","bucket":"b","region":"r","credentials":"c","data":"d","pid":3}`
	file := filepath.Join(t.TempDir(), "endpoint.json")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"the readiness line": text, "endpoint.json": file} {
		got, err := testenv.ReadEndpoint(from)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for name, from := range map[string]string{
		"a missing file": file + ".missing", "cut short": text[:20], "another object": `{"ready":true}`, "nothing": "",
	} {
		if _, err := testenv.ReadEndpoint(from); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func FuzzReadEndpoint(f *testing.F) {
	f.Add(`{"temporal":"h:1","s3":"http://h:2","bucket":"b","credentials":"c"}`)
	f.Add(`{"temporal":1}`)
	f.Add(` {`)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := testenv.ReadEndpoint("{" + text)
		if err == nil && (e.Temporal == "" || e.S3 == "" || e.Bucket == "" || e.Credentials == "") {
			t.Errorf("incomplete endpoint accepted: %+v", e)
		}
	})
}

func TestStoreURI(t *testing.T) {
	e := testenv.Endpoint{Bucket: "b"}
	for prefix, want := range map[string]string{"": "s3://b", "p": "s3://b/p", "/p/q/": "s3://b/p/q"} {
		if got := e.StoreURI(prefix); got != want {
			t.Errorf("StoreURI(%q) = %q, want %q", prefix, got, want)
		}
	}
}

func TestUniqueNamesAreDifferentShortAndPlain(t *testing.T) {
	t.Run("a Long näme/with ünusual characters, longer than is good for an identifier", func(t *testing.T) {
		a, b := testenv.Unique(t), testenv.Unique(t)
		if a == b || len(a) > 48 || strings.Trim(a, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.HasPrefix(a, "-") {
			t.Errorf("%q, %q", a, b)
		}
	})
}

// TestEnvIsAllThatTheSDKsNeed goes the way of any program that is pointed at a real Temporal and a real object store.
func TestEnvIsAllThatTheSDKsNeed(t *testing.T) {
	e := testenv.Shared(t)
	env, err := e.Env()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_SESSION_TOKEN", "left over from a real account")
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key := testenv.Unique(t) + "/object"
	_, err = s3.NewFromConfig(cfg).PutObject(t.Context(), &s3.PutObjectInput{Bucket: &e.Bucket, Key: &key, Body: strings.NewReader("x")})
	if err != nil {
		t.Errorf("S3: %v", err)
	}
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(options)
	if err != nil {
		t.Fatalf("Temporal: %v", err)
	}
	defer c.Close()
	if _, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: testenv.Unique(t), TaskQueue: testenv.Unique(t)}, "None"); err != nil {
		t.Errorf("Temporal: %v", err)
	}
}

func TestAPrivateStackRestartsWhereItWas(t *testing.T) {
	first := testenv.Private(t)
	if _, err := first.Restart(t.Context()); err == nil {
		t.Fatal("a running devstack was started again")
	}
	put(t, first.Endpoint(), "k")
	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	<-first.Exited()
	if first.Wait() == nil {
		t.Error("a killed devstack reports a clean end")
	}
	second, err := first.Restart(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := second.Endpoint()
	if diff := cmp.Diff(first.Endpoint(), e, cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "PID" }, cmp.Ignore())); diff != "" {
		t.Error(diff)
	}
	if _, err := s3Client(t, e).HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &e.Bucket, Key: aws.String("k")}); err != nil {
		t.Errorf("the object is gone: %v", err)
	}
	if err := second.Stop(); err != nil {
		t.Error(err)
	}
	if c, err := net.DialTimeout("tcp", e.Temporal, time.Second); err == nil {
		c.Close()
		t.Error("it still answers")
	}
	if err := second.Stop(); err != nil {
		t.Errorf("stopping it twice: %v", err)
	}
}

func TestAFailedStartSaysWhy(t *testing.T) {
	running := testenv.Private(t).Endpoint()
	bin := binary(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tt := range map[string]struct {
		ctx  context.Context
		o    testenv.Options
		want string
	}{
		"no such program":        {t.Context(), testenv.Options{Bin: filepath.Join(t.TempDir(), "none"), Dir: t.TempDir()}, "no such file"},
		"no directory":           {t.Context(), testenv.Options{Bin: bin}, "Dir"},
		"a file for a directory": {t.Context(), testenv.Options{Bin: bin, Dir: file}, "not a directory"},
		"a directory in use":     {t.Context(), testenv.Options{Bin: bin, Dir: running.Data, AnyPorts: true}, "in use by"},
		"a wrong flag":           {t.Context(), testenv.Options{Bin: bin, Dir: t.TempDir(), Args: []string{"--nonsense"}}, "nonsense"},
		"given up":               {expired, testenv.Options{Bin: bin, Dir: t.TempDir(), AnyPorts: true}, "context canceled"},
		"another program":        {t.Context(), testenv.Options{Bin: "/bin/echo", Dir: t.TempDir()}, "endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := testenv.Start(tt.ctx, tt.o)
			if err == nil {
				s.Kill()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestNoticesReachPeople(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	var notices bytes.Buffer
	s, err := testenv.Start(t.Context(), testenv.Options{
		Bin: binary(t), Dir: t.TempDir(), Headless: true, Notices: &notices,
		Args: []string{"--port", port, "--s3-port", "0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(notices.String(), "port "+port+" is taken") {
		t.Errorf("notices: %q", notices.String())
	}
}

func TestFind(t *testing.T) {
	t.Setenv(testenv.BinVariable, "")
	dir := t.TempDir()
	if _, err := testenv.Find("", dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want an error that says where it looked", err)
	}
	bin := filepath.Join(dir, "devstack")
	if err := os.WriteFile(bin, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := testenv.Find("", dir); err != nil || got != bin {
		t.Errorf("got %q, %v", got, err)
	}
	t.Setenv(testenv.BinVariable, "/elsewhere")
	if got, err := testenv.Find(dir); err != nil || got != "/elsewhere" {
		t.Errorf("got %q, %v", got, err)
	}
}

func s3Client(t *testing.T, e testenv.Endpoint) *s3.Client {
	t.Helper()
	pair, err := e.KeyPair()
	if err != nil {
		t.Fatal(err)
	}
	return s3.New(s3.Options{
		BaseEndpoint: &e.S3, UsePathStyle: true, Region: e.Region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: pair.AccessKeyID, SecretAccessKey: pair.SecretAccessKey}, nil
		}),
	})
}

func put(t *testing.T, e testenv.Endpoint, key string) {
	t.Helper()
	if _, err := s3Client(t, e).PutObject(t.Context(), &s3.PutObjectInput{Bucket: &e.Bucket, Key: &key, Body: strings.NewReader("x")}); err != nil {
		t.Fatal(err)
	}
}

func binary(t *testing.T) string {
	t.Helper()
	bin, err := testenv.Cached(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return bin
}
