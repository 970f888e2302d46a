package llm

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longalign/longalign-go/datasets"
	"github.com/longalign/longalign-go/datasets/artifact"
)

// killedVariable makes this test binary the process that is killed: it holds the service's address and the store's directory.
const killedVariable = "LONGALIGN_TEST_KILLED_TEACHER"

const (
	questions = 60
	atOnce    = 6
)

// askAll asks all questions, some at once.
func askAll(ctx context.Context, base, dir, attempt string) (Usage, error) {
	b, err := artifact.NewDirectory(dir)
	if err != nil {
		return Usage{}, err
	}
	e, err := Open(datasets.EndpointParams{BaseURL: base, Model: "m", KeyEnv: "PLANTED_KEY", Concurrency: atOnce}, 1)
	if err != nil {
		return Usage{}, err
	}
	u := teacher(e, artifact.New(b, "file://"+dir), 0, attempt)
	var g errgroup.Group
	for n := range questions {
		g.Go(func() error { _, err := u.Ask(ctx, request(n)); return err })
	}
	err = g.Wait()
	return u.Usage(), err
}

func TestMain(m *testing.M) {
	if where := os.Getenv(killedVariable); where != "" {
		var base, dir string
		if _, err := fmt.Sscanf(where, "%s %s", &base, &dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		if _, err := askAll(context.Background(), base, dir, fmt.Sprint("process ", os.Getpid())); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestAKilledProcessRepeatsAtMostWhatWasUnderWay kills a process by SIGKILL again and again while it asks a service that counts.
func TestAKilledProcessRepeatsAtMostWhatWasUnderWay(t *testing.T) {
	t.Setenv("PLANTED_KEY", planted)
	var underWay atomic.Int64
	var mu sync.Mutex
	asked := map[string]int{}
	var f *fake
	f = newFake(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		underWay.Add(1)
		defer underWay.Add(-1)
		f.mu.Lock()
		body := f.bodies[n-1]
		f.mu.Unlock()
		mu.Lock()
		if body != "" { // else the kill came before the whole request was sent
			asked[body]++
		}
		mu.Unlock()
		time.Sleep(15 * time.Millisecond)
		good(w, "fine", "stop")
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, lost := t.TempDir(), 0
	for _, after := range []int{7, 20, 38} {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s", killedVariable, f.URL+"/v1", dir))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(30 * time.Second)
		for f.count() < after+lost && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		lost += atOnce
		for underWay.Load() > 0 {
			time.Sleep(time.Millisecond)
		}
	}
	before := f.count()
	usage, err := askAll(t.Context(), f.URL+"/v1", dir, "the last attempt")
	if err != nil {
		t.Fatal(err)
	}
	repeated := f.count() - questions
	t.Logf("%d requests for %d questions, %d before the last attempt; it found %d replies and repeated %d requests", f.count(), questions, before, usage.Journaled, usage.Repeated)
	if len(asked) != questions || usage.Replies+usage.Journaled != questions {
		t.Errorf("%d questions asked, %d replies new and %d journaled, want %d", len(asked), usage.Replies, usage.Journaled, questions)
	}
	if repeated > 3*atOnce {
		t.Errorf("%d requests were repeated over three kills of %d at once", repeated, atOnce)
	}
	if usage.Journaled == 0 || usage.Repeated > 3*atOnce {
		t.Errorf("the last attempt found %d replies and repeated %d requests", usage.Journaled, usage.Repeated)
	}
	if again, err := askAll(t.Context(), f.URL+"/v1", dir, "once more"); err != nil || again.Requests != 0 || again.Journaled != questions {
		t.Errorf("asked once more: %+v, %v", again, err)
	}
}
