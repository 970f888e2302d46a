package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
)

// asProgram makes the test binary be the program, so that tests start the very code they were built from.
const asProgram = "DEVSTACK_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is a devstack run as a child.
type process struct {
	endpoint
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr *bytes.Buffer
	exited chan error
}

// launch starts a devstack on any free ports and returns before it is ready.
func launch(t *testing.T, dir string, args ...string) (*process, *bufio.Reader) {
	t.Helper()
	args = append([]string{"--dir", dir, "--port", "0", "--ui-port", "0", "--s3-port", "0"}, args...)
	p := &process{cmd: exec.Command(os.Args[0], args...), stderr: &bytes.Buffer{}, exited: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stderr = p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // most have ended by now
		stdout.Close()
	})
	return p, bufio.NewReader(stdout)
}

// start starts a devstack and waits until it is ready.
func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p, stdout := launch(t, dir, args...)
	line, err := stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("no readiness line: %v\n%s\n%s", err, p.stderr, logOf(dir))
	}
	if err := json.Unmarshal([]byte(line), &p.endpoint); err != nil {
		t.Fatalf("readiness line %q: %v", line, err)
	}
	return p
}

// wait returns how the process ended.
func (p *process) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.exited:
		p.exited <- err
		return err
	case <-time.After(30 * time.Second):
		t.Fatalf("still running after 30 s\n%s", logOf(p.Data))
		return nil
	}
}

func (p *process) signal(t *testing.T, s syscall.Signal) error {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	return p.wait(t)
}

func (p *process) s3(t *testing.T) *s3.Client {
	t.Helper()
	var pair keyPair
	b, err := os.ReadFile(p.Credentials)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &pair); err != nil {
		t.Fatal(err)
	}
	return s3.New(s3.Options{
		BaseEndpoint: &p.S3, UsePathStyle: true, Region: p.Region, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(pair.AccessKeyID, pair.SecretAccessKey, ""),
	})
}

func (p *process) temporal(t *testing.T) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: p.Temporal, Namespace: p.Namespace})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (p *process) put(t *testing.T, key, body string) {
	t.Helper()
	_, err := p.s3(t).PutObject(t.Context(), &s3.PutObjectInput{Bucket: &p.Bucket, Key: &key, Body: strings.NewReader(body)})
	if err != nil {
		t.Fatal(err)
	}
}

func (p *process) get(t *testing.T, key string) string {
	t.Helper()
	out, err := p.s3(t).GetObject(t.Context(), &s3.GetObjectInput{Bucket: &p.Bucket, Key: &key})
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (p *process) list(t *testing.T) []string {
	t.Helper()
	out, err := p.s3(t).ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &p.Bucket})
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{}
	for _, o := range out.Contents {
		keys = append(keys, *o.Key)
	}
	return keys
}

func logOf(dir string) string {
	b, _ := os.ReadFile(filepath.Join(dir, "devstack.log")) // best effort: it explains a failure
	return string(b)
}

func TestReadyMeansThatEverythingAnswers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, dir)

	t.Run("the readiness line and endpoint.json say the same", func(t *testing.T) {
		b, err := os.ReadFile(filepath.Join(dir, "endpoint.json"))
		if err != nil {
			t.Fatal(err)
		}
		var file endpoint
		if err := json.Unmarshal(b, &file); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p.endpoint, file); diff != "" {
			t.Error(diff)
		}
		if !p.Ready || p.PID != p.cmd.Process.Pid || p.Data != dir {
			t.Errorf("readiness line: %+v", p.endpoint)
		}
	})
	t.Run("the namespace keeps closed runs for a month", func(t *testing.T) {
		ns, err := p.temporal(t).WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: "default"})
		if err != nil {
			t.Fatal(err)
		}
		if got := ns.Config.WorkflowExecutionRetentionTtl.AsDuration(); got != retention {
			t.Errorf("retention %v, want %v", got, retention)
		}
	})
	t.Run("runs can be found by search attributes", func(t *testing.T) {
		got, err := p.temporal(t).OperatorService().ListSearchAttributes(t.Context(), &operatorservice.ListSearchAttributesRequest{Namespace: "default"})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]enumspb.IndexedValueType{}
		for _, name := range []string{"experiment", "stage", "method", "model"} {
			want[name] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
		}
		if diff := cmp.Diff(want, got.CustomAttributes); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("the UI serves its page and the server's namespaces", func(t *testing.T) {
		for _, path := range []string{"/", "/api/v1/namespaces/default"} {
			if err := expectOK(t.Context(), p.UI+path); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("the gateway is healthy and keeps objects", func(t *testing.T) {
		if err := expectOK(t.Context(), p.S3+healthPath); err != nil {
			t.Error(err)
		}
		p.put(t, "a/b", "content")
		if got := p.get(t, "a/b"); got != "content" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("without credentials nothing is served", func(t *testing.T) {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
			req, err := http.NewRequestWithContext(t.Context(), method, p.S3+"/"+p.Bucket+"/a/b", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusForbidden {
				t.Errorf("anonymous %s: %s, want 403", method, resp.Status)
			}
		}
	})
	t.Run("only the owner can read the credentials", func(t *testing.T) {
		fi, err := os.Stat(p.Credentials)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, want 0600", fi.Mode().Perm())
		}
	})
	t.Run("a second one on the directory is refused and told who holds it", func(t *testing.T) {
		second, _ := launch(t, dir)
		if err := second.wait(t); err == nil {
			t.Fatal("it started")
		}
		for _, want := range []string{dir, fmt.Sprint(p.PID), p.Temporal, "--dir"} {
			if !strings.Contains(second.stderr.String(), want) {
				t.Errorf("the message lacks %q: %s", want, second.stderr)
			}
		}
	})
	t.Run("SIGTERM ends it cleanly", func(t *testing.T) {
		if err := p.signal(t, syscall.SIGTERM); err != nil {
			t.Errorf("it ended with %v\n%s", err, logOf(dir))
		}
		if _, err := os.Stat(filepath.Join(dir, "endpoint.json")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("endpoint.json is still there (%v)", err)
		}
		if p.stderr.Len() > 0 {
			t.Errorf("it said %s", p.stderr)
		}
	})
}

func TestNothingIsLostByARestart(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *process){
		"when standard input closes": func(t *testing.T, p *process) {
			p.stdin.Close()
			if err := p.wait(t); err != nil {
				t.Errorf("it ended with %v", err)
			}
		},
		"after kill -9": func(t *testing.T, p *process) { _ = p.signal(t, syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			before := start(t, dir, "--headless")
			before.put(t, "kept", "content")
			run, err := before.temporal(t).ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
				ID: "kept", TaskQueue: "nobody",
				TypedSearchAttributes: temporalKeyword("experiment", "exp-1"),
			}, "NoSuchWorkflow")
			if err != nil {
				t.Fatal(err)
			}
			end(t, before)

			after := start(t, dir, "--headless")
			if got := after.get(t, "kept"); got != "content" {
				t.Errorf("the object: got %q", got)
			}
			described, err := after.temporal(t).DescribeWorkflowExecution(t.Context(), "kept", run.GetRunID())
			if err != nil {
				t.Fatalf("the history: %v", err)
			}
			if s := described.WorkflowExecutionInfo.Status; s != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
				t.Errorf("status %v, want running", s)
			}
			before.PID = after.PID
			if diff := cmp.Diff(before.endpoint, after.endpoint); diff != "" {
				t.Errorf("ports or credentials changed: %s", diff)
			}
		})
	}
}

func TestAFailedStartSaysWhyOnStandardError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "credentials.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p, _ := launch(t, dir)
	if p.wait(t) == nil || !strings.Contains(p.stderr.String(), "credentials.json") {
		t.Errorf("it said %q", p.stderr)
	}
}

func TestATakenPortIsReplacedWithANotice(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	p := start(t, t.TempDir(), "--headless", "--port", fmt.Sprint(taken))
	if p.Temporal == loopback(taken) {
		t.Errorf("it claims the taken port %d", taken)
	}
	if want := fmt.Sprintf("port %d is taken", taken); !strings.Contains(p.stderr.String(), want) {
		t.Errorf("stderr %q, want %q in it", p.stderr, want)
	}
	if p.UI != "" {
		t.Errorf("a UI at %s in spite of --headless", p.UI)
	}
}

func TestADetachedOneOutlivesItsInputAndALingeringOneItsUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	users := filepath.Join(dir, "users.lock")
	hold, err := os.OpenFile(users, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	if err := syscall.Flock(int(hold.Fd()), syscall.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	p := start(t, dir, "--headless", "--detached", "--linger", "500ms")
	p.stdin.Close()
	select {
	case err := <-p.exited:
		t.Fatalf("it ended in use: %v", err)
	case <-time.After(1500 * time.Millisecond):
	}
	if err := syscall.Flock(int(hold.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestAKillInTheMiddleOfAPutLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, dataDir := range bothLayouts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := dataDir(t)
			p := start(t, dir, "--headless")
			p.put(t, "replaced", "old")

			reached := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var puts sync.WaitGroup
			for _, key := range []string{"new", "replaced"} {
				puts.Go(func() {
					body := &stalling{size: 8 << 20, at: 6 << 20, reached: reached, ctx: ctx}
					_, err := p.s3(t).PutObject(ctx, &s3.PutObjectInput{
						Bucket: &p.Bucket, Key: &key, Body: body, ContentLength: aws.Int64(8 << 20),
					}, s3.WithAPIOptions(unsignedPayload))
					if err == nil {
						t.Errorf("the interrupted PUT of %s was acknowledged", key)
					}
				})
			}
			<-reached
			<-reached
			_ = p.signal(t, syscall.SIGKILL)
			cancel()
			puts.Wait()

			p = start(t, dir, "--headless")
			if diff := cmp.Diff([]string{"replaced"}, p.list(t)); diff != "" {
				t.Errorf("objects: %s", diff)
			}
			if got := p.get(t, "replaced"); got != "old" {
				t.Errorf("got %d bytes, want the old object", len(got))
			}
			_, err := p.s3(t).PutObject(t.Context(), &s3.PutObjectInput{
				Bucket: &p.Bucket, Key: aws.String("new"), Body: strings.NewReader("new"), IfNoneMatch: aws.String("*"),
			})
			if err != nil {
				t.Errorf("the key is not free: %v", err)
			}
		})
	}
}

func TestAnUploadGoesOnAfterAKill(t *testing.T) {
	t.Parallel()
	for name, dataDir := range bothLayouts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := dataDir(t)
			p := start(t, dir, "--headless")
			key := aws.String("large")
			upload, err := p.s3(t).CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &p.Bucket, Key: key})
			if err != nil {
				t.Fatal(err)
			}
			parts := []string{strings.Repeat("a", 5<<20), "tail"}
			var completed completedParts
			for i, part := range parts {
				if i == 1 {
					_ = p.signal(t, syscall.SIGKILL)
					claimByHand(t, dir, p.Bucket, *upload.UploadId)
					p = start(t, dir, "--headless")
				}
				out, err := p.s3(t).UploadPart(t.Context(), &s3.UploadPartInput{
					Bucket: &p.Bucket, Key: key, UploadId: upload.UploadId, PartNumber: aws.Int32(int32(i + 1)), Body: strings.NewReader(part),
				})
				if err != nil {
					t.Fatalf("part %d: %v", i+1, err)
				}
				completed.add(int32(i+1), out.ETag)
			}
			_, err = p.s3(t).CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
				Bucket: &p.Bucket, Key: key, UploadId: upload.UploadId, MultipartUpload: completed.upload(), IfNoneMatch: aws.String("*"),
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := p.get(t, *key); got != strings.Join(parts, "") {
				t.Errorf("got %d bytes, want %d", len(got), 5<<20+4)
			}
		})
	}
}

func TestOfManyConditionalPutsOneWins(t *testing.T) {
	t.Parallel()
	for name, dataDir := range bothLayouts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, dataDir(t), "--headless")
			const writers = 16
			for round := range 5 {
				key := fmt.Sprintf("pointer/%d", round)
				var wins, losses atomic.Int32
				var winner atomic.Value
				var all sync.WaitGroup
				for w := range writers {
					all.Go(func() {
						body := fmt.Sprintf("writer %d", w)
						_, err := p.s3(t).PutObject(t.Context(), &s3.PutObjectInput{
							Bucket: &p.Bucket, Key: &key, Body: strings.NewReader(body), IfNoneMatch: aws.String("*"),
						})
						var api smithy.APIError
						switch {
						case err == nil:
							wins.Add(1)
							winner.Store(body)
						case errors.As(err, &api) && api.ErrorCode() == "PreconditionFailed":
							losses.Add(1)
						default:
							t.Error(err)
						}
					})
				}
				all.Wait()
				if wins.Load() != 1 || losses.Load() != writers-1 {
					t.Fatalf("round %d: %d won and %d were refused, want 1 and %d", round, wins.Load(), losses.Load(), writers-1)
				}
				if got := p.get(t, key); got != winner.Load() {
					t.Errorf("round %d: the object is %q, the winner wrote %q", round, got, winner.Load())
				}
			}
		})
	}
}
