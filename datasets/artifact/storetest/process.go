package storetest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// The environment of a test binary that is to write and be killed.
const (
	writerStore = "LONGALIGN_STORETEST_STORE"
	writerMode  = "LONGALIGN_STORETEST_MODE" // half: stop half-way; else the seed of a stream of objects
)

// halfWay is put by the writer that stops half-way: three parts, so that stores with multipart uploads have sent some.
const (
	halfWayKey  = "kill/half"
	halfWaySize = 3 * artifact.PartSize
	halfWaySeed = 11
)

// actAsWriter runs the writer when this process was started as one.
func actAsWriter() bool {
	uri := os.Getenv(writerStore)
	if uri == "" {
		return false
	}
	if err := write(context.Background(), uri, os.Getenv(writerMode)); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	os.Exit(0)
	return true
}

func write(ctx context.Context, uri, mode string) error {
	s, err := artifact.Open(ctx, uri)
	if err != nil {
		return err
	}
	create := artifact.Condition{IfNoneMatch: true}
	if mode == "half" {
		r := io.MultiReader(randomReader(halfWaySeed, halfWaySize/2), stall{})
		_, err := s.Backend().Put(ctx, halfWayKey, r, halfWaySize, create)
		return err
	}
	seed, err := strconv.ParseUint(mode, 10, 64)
	if err != nil {
		return err
	}
	for i := uint64(0); ; i++ {
		key, data := stream(seed, i)
		fmt.Println("begin", i)
		if _, err := s.Backend().Put(ctx, key, bytes.NewReader(data), int64(len(data)), create); err != nil {
			return err
		}
		fmt.Println("stored", i)
	}
}

// stream is the i-th object that a writer with that seed puts: small and large ones by turns.
func stream(seed, i uint64) (key string, data []byte) {
	size := 1000
	if i%2 == 1 {
		size = 6 << 20
	}
	return fmt.Sprintf("kill/%d/%d", seed, i), random(seed*1000+i, size)
}

// stall says that it was reached, and never returns: what is being read is now half-way through.
type stall struct{}

func (stall) Read([]byte) (int, error) {
	fmt.Println("half")
	time.Sleep(time.Hour)
	return 0, io.EOF
}

// startWriter starts this test binary as a writer. The returned lines end when it does.
func startWriter(t *testing.T, s *artifact.Store, mode string) (kill func(), lines <-chan string) {
	t.Helper()
	if strings.HasPrefix(s.URI(), "mem:") {
		t.Skip("an in-memory store has no second process")
	}
	top, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.Command(os.Args[0], "-test.run=^"+top+"$", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), writerStore+"="+s.URI(), writerMode+"="+mode)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := make(chan string, 1000)
	go func() {
		defer close(c)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			c <- sc.Text()
		}
	}()
	killed := false
	kill = func() {
		if killed {
			return
		}
		killed = true
		cmd.Process.Kill()
		for range c { // to the end of the pipe, so that Wait does not close it under the reader
		}
		cmd.Wait()
	}
	t.Cleanup(kill)
	return kill, c
}

// drainTo collects lines until one of them is want.
func drainTo(t *testing.T, lines <-chan string, want string) (seen []string) {
	t.Helper()
	limit := time.After(60 * time.Second)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("the writer ended; it said %q", seen)
			}
			seen = append(seen, line)
			if line == want {
				return seen
			}
		case <-limit:
			t.Fatalf("the writer did not say %q in a minute, but %q", want, seen)
		}
	}
}

func testKill(t *testing.T, s *artifact.Store) {
	// The moments are spread over an object's beginning, middle and end.
	for seed, delay := range []time.Duration{0, 3 * time.Millisecond, 11 * time.Millisecond, 29 * time.Millisecond} {
		seed := uint64(seed)
		kill, lines := startWriter(t, s, strconv.FormatUint(seed, 10))
		seen := drainTo(t, lines, fmt.Sprint("begin ", 1+2*(seed%2)))
		time.Sleep(delay)
		for len(lines) > 0 { // what it said before it is killed, it has stored
			seen = append(seen, <-lines)
		}
		kill()

		visible := map[string]bool{}
		for _, key := range list(t, s, fmt.Sprintf("kill/%d/", seed)) {
			visible[key] = true
		}
		last := uint64(0)
		for _, line := range seen {
			var i uint64
			if n, _ := fmt.Sscanf(line, "stored %d", &i); n == 1 {
				if key, _ := stream(seed, i); !visible[key] {
					t.Errorf("%s was acknowledged and is gone", key)
				}
			}
			if n, _ := fmt.Sscanf(line, "begin %d", &i); n == 1 {
				last = i
			}
		}
		for i := range last + 3 {
			key, data := stream(seed, i)
			if !visible[key] {
				continue
			}
			if get(t, s, key) != string(data) {
				t.Errorf("%s is visible and not what was put", key)
			}
			delete(visible, key)
		}
		if len(visible) > 0 {
			t.Errorf("keys that nobody has put: %v", visible)
		}
	}
}

func testKillHalfWay(t *testing.T, s *artifact.Store) {
	kill, lines := startWriter(t, s, "half")
	drainTo(t, lines, "half")
	check := func(when string) {
		t.Helper()
		_, err := s.Backend().Head(t.Context(), halfWayKey)
		wantError(t, when+": head", err, artifact.ErrNotFound)
		if keys := list(t, s, ""); keys != nil {
			t.Errorf("%s: visible: %q", when, keys)
		}
	}
	check("while it writes")
	kill()
	check("after the kill")

	_, err := s.Backend().Put(t.Context(), halfWayKey, randomReader(halfWaySeed, halfWaySize), halfWaySize, artifact.Condition{IfNoneMatch: true})
	if err != nil {
		t.Fatal(err)
	}
	if get(t, s, halfWayKey) != string(random(halfWaySeed, halfWaySize)) {
		t.Error("the object is not what the second writer has put")
	}
	janitor, ok := s.Backend().(artifact.Janitor)
	if !ok {
		return
	}
	for l, err := range janitor.Leftovers(t.Context(), time.Now().Add(time.Hour)) {
		if err == nil {
			err = janitor.Discard(t.Context(), l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for l, err := range janitor.Leftovers(t.Context(), time.Now().Add(time.Hour)) {
		t.Errorf("left after discarding all: %+v, %v", l, err)
	}
	if keys := list(t, s, ""); len(keys) != 1 {
		t.Errorf("discarding what was left over removed the object too: %q", keys)
	}
}

func testLarge(t *testing.T, s *artifact.Store) {
	if strings.HasPrefix(s.URI(), "mem:") {
		t.Skip("an in-memory store holds its objects in memory")
	}
	size := int64(96 << 20)
	if testing.Short() {
		size = 24 << 20
	}
	// Three parts being read and sent, and what the garbage collector has not seen yet.
	const bound = 72 << 20

	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	f, err := os.Create(in)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, randomReader(5, size)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	defer debug.SetGCPercent(debug.SetGCPercent(20))
	peak := watchHeap()
	b, err := s.PutFile(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.FetchBlob(t.Context(), b, out); err != nil {
		t.Fatal(err)
	}
	if used := peak(); used > bound {
		t.Errorf("%d MiB went in and out with %d MiB of heap, want at most %d", size>>20, used>>20, bound>>20)
	} else {
		t.Logf("%d MiB went in and out with %d MiB of heap", size>>20, used>>20)
	}
	if b.Size != size {
		t.Errorf("size %d, want %d", b.Size, size)
	}
	if err := artifact.CheckFile(out, b); err != nil {
		t.Error(err)
	}
	if f, err := os.OpenFile(out, os.O_RDWR, 0); err != nil {
		t.Error(err)
	} else {
		f.WriteAt([]byte("damage"), size/2)
		f.Close()
	}
	var corrupt *artifact.CorruptError
	if err := artifact.CheckFile(out, b); !errors.As(err, &corrupt) {
		t.Errorf("a damaged local copy passes: %v", err)
	}
	if err := s.FetchBlob(t.Context(), b, out); err != nil {
		t.Error(err)
	}
	if err := artifact.CheckFile(out, b); err != nil {
		t.Errorf("a damaged local copy was not fetched again: %v", err)
	}

	// A range over the border of two parts.
	off, n := int64(artifact.PartSize-1000), int64(5000)
	got, err := readRange(t.Context(), s, b, off, n)
	want := make([]byte, n)
	if f, err := os.Open(in); err == nil {
		f.ReadAt(want, off)
		f.Close()
	}
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("range: %d bytes, %v", len(got), err)
	}
}

// watchHeap samples the heap until the returned function is called, which gives by how much it grew at its largest.
func watchHeap() (peak func() uint64) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	base := m.HeapInuse
	var most atomic.Uint64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		var m runtime.MemStats
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				runtime.ReadMemStats(&m)
				if m.HeapInuse > base {
					most.Store(max(most.Load(), m.HeapInuse-base))
				}
			}
		}
	}()
	return func() uint64 {
		close(stop)
		<-stopped
		return most.Load()
	}
}
