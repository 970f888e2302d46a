package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
)

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
