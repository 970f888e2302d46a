package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
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
