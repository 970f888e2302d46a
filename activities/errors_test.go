package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

func TestErrorsAreTypedAtTheBoundary(t *testing.T) {
	ctx := t.Context()
	full := fmt.Errorf("store tokens.bin: %w", &fs.PathError{Op: "write", Path: "tokens.bin", Err: syscall.ENOSPC})
	for name, tt := range map[string]struct {
		err   error
		kind  string
		words string
	}{
		"a wrong setting":              {badConfig("set %s", "x"), BadConfig, "set x"},
		"wrong data":                   {fmt.Errorf("cell a: %w", badData("line 3")), BadData, "cell a: line 3"},
		"wrong bytes":                  {fmt.Errorf("tokens.bin: %w", &artifact.CorruptError{Object: "blobs/sha256/ab/abc"}), CorruptArtifact, "starter verify"},
		"nothing there":                {fmt.Errorf("input tokens: %w", artifact.ErrNotFound), MissingArtifact, "run the stage's experiment again"},
		"a newer attempt":              {&artifact.FencedError{}, Fenced, ""},
		"no space":                     {full, DiskFull, "free some space"},
		"no space by quota":            {fmt.Errorf("x: %w", syscall.EDQUOT), DiskFull, "free some space"},
		"no space, said by the store":  {fmt.Errorf("x: %w", artifact.ErrFull), DiskFull, "free some space"},
		"a file that is not there":     {&fs.PathError{Op: "open", Path: "a.txt", Err: syscall.ENOENT}, BadData, "a.txt"},
		"a file that may not be read":  {&fs.PathError{Op: "open", Path: "a.txt", Err: syscall.EACCES}, BadData, "a.txt"},
		"a worker that stops":          {handover("saved"), Handover, "saved"},
		"a store that does not answer": {fmt.Errorf("put: %w", syscall.ECONNREFUSED), StoreUnavailable, "connection refused"},
		"a store that says it is away": {fmt.Errorf("put: %w", artifact.ErrUnavailable), StoreUnavailable, "unavailable"},
		"an artifact of another form":  {fmt.Errorf("report.json: %w", json.Unmarshal([]byte("{"), new(int))), BadData, "report.json"},
		"what nobody foresaw":          {errors.New("odd"), Unexpected, "odd"},
		"tokens that went astray":      {badData("%w", datasets.Ledger{Input: 1}.Balance()), BadData, "1 tokens came in, 0 are accounted for"},
	} {
		t.Run(name, func(t *testing.T) {
			err := boundary(ctx, "tokens", tt.err)
			wantType(t, err, tt.kind, "tokens: ", tt.words)
			var app *temporal.ApplicationError
			if errors.As(err, &app) && app.NonRetryable() != slices.Contains(NonRetryable, tt.kind) {
				t.Errorf("not to be retried: %v", app.NonRetryable())
			}
		})
	}
	if err := boundary(ctx, "tokens", nil); err != nil {
		t.Errorf("no error became %v", err)
	}
	once := boundary(ctx, "tokens", badData("x"))
	if twice := boundary(ctx, "outer", once); twice != once {
		t.Errorf("typed twice: %v", twice)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := boundary(cancelled, "tokens", fmt.Errorf("read: %w", context.Canceled)); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancellation became %v", err)
	}
	if err := boundary(cancelled, "tokens", badData("line 7: %w", context.Canceled)); !errors.Is(err, context.Canceled) {
		t.Errorf("data that a cancellation cut off became %v", err)
	}
	long := boundary(ctx, "tokens", badData("%s", strings.Repeat("ä", 5000)))
	if n := len(long.Error()); n > 4000 {
		t.Errorf("a message of %d bytes would be cut by the server", n)
	}
}

func TestAStageThatAStoppedWorkerCutsOffIsHandedOver(t *testing.T) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	stop := make(chan struct{})
	close(stop)
	env.SetWorkerStopChannel(stop)
	cutOff := func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return boundary(ctx, "tokens", fmt.Errorf("read: %w", ctx.Err()))
	}
	env.RegisterActivity(cutOff)
	_, err := env.ExecuteActivity(cutOff)
	wantType(t, err, Handover, "the worker was stopped")
}

func TestAFullDiskIsSaidAndRetried(t *testing.T) {
	p := newTiny(t)
	call := p.call("documents", p.documentsParams(), nil)
	p.tap.on(func(key string) error {
		if strings.HasPrefix(key, "blobs/") {
			return &fs.PathError{Op: "write", Path: key, Err: syscall.ENOSPC}
		}
		return nil
	})
	_, err := p.Run(t.Context(), call)
	wantType(t, err, DiskFull, "free some space")
	p.tap.on(nil)
	if _, err := p.Run(t.Context(), call); err != nil {
		t.Errorf("after space was freed: %v", err)
	}
}

func TestAStageThatStandsStillIsGivenUp(t *testing.T) {
	before := stallAfter
	stallAfter = 0
	defer func() { stallAfter = before }()
	ctx, stop := context.WithCancelCause(t.Context())
	j := &job{}
	j.heartbeats(ctx, stop, 4*time.Millisecond)
	if err := context.Cause(ctx); !errors.Is(err, errStalled) {
		t.Fatalf("it ended by %v", err)
	}
	wantType(t, boundary(t.Context(), "tokens", context.Cause(ctx)), StoreUnavailable, "no progress")
}
