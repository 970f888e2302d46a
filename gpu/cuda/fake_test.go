//go:build cuda

package cuda

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/longalign/longalign-go/gpu"
)

// A process loads one driver, so each case runs this test again in a process of its own.
func TestOnAFakeDriver(t *testing.T) {
	if os.Getenv("LONGALIGN_LIBCUDA") != "" {
		onFakeDriver(t)
		return
	}
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler for the fake driver")
	}
	file := filepath.Join(t.TempDir(), "libfake.so")
	if out, err := exec.Command(compiler, "-shared", "-fPIC", "-Idriver/include", "-o", file, "driver/fake.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, fail := range map[string]string{
		"all goes well":                    "",
		"the driver does not match":        "init=803",
		"a card that is too old":           "old=1",
		"a launch that fails":              "launch=700",
		"an error of memory while we wait": "wait=214",
		"a link that breaks":               "wait=220",
		"a card that falls off the bus":    "wait=999",
		"a launch that takes too long":     "launch=702",
		"a driver that captures nothing":   "capture=900",
		"a driver that makes no graphs":    "graph=801",
		"a graph that fails":               "replay=719",
		"a driver too old for this":        "init=222",
		"a driver of another card":         "init=100",
		"a driver without a card":          "count=1",
		"no room for a context":            "context=2",
		"a card that another holds":        "context=101",
		"a fabric manager that is not up":  "init=802",
		"a card for one process at a time": "context=46",
		"a card that no process may have":  "init=46",
		"a driver that fails":              "init=999",
		"an error that was contained":      "wait=226",
		"a machine that becomes ready":     "slow=802",
		"a machine with two cards":         "cards=2",
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestOnAFakeDriver$", "-test.v")
			cmd.Env = append(os.Environ(), "LONGALIGN_LIBCUDA="+file, "FAKE_FAIL="+fail, "LONGALIGN_CUDA_ATTENTION=mma", "XDG_CACHE_HOME="+t.TempDir(), "TMPDIR="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if strings.Contains(string(out), "--- SKIP") {
				t.Skipf("%s", out)
			}
		})
	}
}

// A worker that is told no card takes the first that is free.
func onTwoCards(t *testing.T) {
	first, second := "GPU-11111111-1111-1111-1111-111111111111", "GPU-12121212-1212-1212-1212-121212121212"
	opens := func(index, want string) {
		t.Helper()
		d, err := Open(context.Background(), index)
		var e *Error
		switch {
		case errors.As(err, &e) && e.Kind == NoCompiler:
			t.Skip(err)
		case want == "" && (e == nil || e.Kind != Busy || !strings.Contains(err.Error(), first)):
			t.Errorf("card %q: %v, not that %s is busy", index, err, first)
		case want != "" && err != nil:
			t.Errorf("card %q: %v", index, err)
		case err == nil:
			if got := d.Info().UUID; got != want {
				t.Errorf("card %q is %s, want %s", index, got, want)
			}
			d.Close()
		}
	}
	takes := func(uuid string) { // as another process does
		t.Helper()
		f, err := openLock(filepath.Join(os.TempDir(), "longalign-"+uuid+".lock"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			t.Fatal(err)
		}
	}
	opens("", first)
	opens("1", second)
	takes(first)
	opens("", second)
	opens("0", "")
	takes(second)
	opens("", "")
}

func onFakeDriver(t *testing.T) {
	kind := func(err error, want Kind) *Error {
		t.Helper()
		var e *Error
		if !errors.As(err, &e) || e.Kind != want {
			t.Fatalf("%v is not of kind %q", err, want)
		}
		return e
	}
	fail := os.Getenv("FAKE_FAIL")
	if fail == "cards=2" {
		onTwoCards(t)
		return
	}
	if fail == "slow=802" {
		_, err := Open(context.Background(), "")
		if e := kind(err, NotReady); !strings.Contains(e.Error(), "CUDA_ERROR_SYSTEM_NOT_READY") || !strings.Contains(e.Error(), "fabricmanager") {
			t.Error(e)
		}
	}
	d, err := Open(context.Background(), "")
	for range 10 {
		if fail != "slow=802" || err == nil {
			break
		}
		d, err = Open(context.Background(), "")
	}
	// What opening fails by: its kind, whether another machine may do the work, whether this process is lost to the card.
	opening := map[string]Kind{"init=803": WrongDriver, "init=222": WrongDriver, "init=100": NoDevice, "old=1": Architecture, "count=1": NoDevice, "context=2": Busy, "context=101": NoDevice,
		"init=802": NotReady, "init=46": Busy, "init=999": DeviceLost, "context=46": Busy}
	if want, ok := opening[fail]; ok {
		if strings.HasPrefix(fail, "context") {
			var e *Error
			if errors.As(err, &e) && e.Kind == NoCompiler {
				t.Skip(err)
			}
		}
		if e := kind(err, want); !e.Elsewhere() || e.Sticky() != (want == DeviceLost) || advice[want] == "" || !strings.HasSuffix(e.Error(), advice[want]) {
			t.Errorf("%+v", e)
		}
		if e := new(Error); !strings.HasPrefix(fail, "context") && !strings.HasPrefix(fail, "old") && (!errors.As(Probe(), &e) || e.Absent() != (want == NoDevice)) {
			t.Errorf("Probe returns %v", Probe())
		}
		return
	}
	var e *Error
	if errors.As(err, &e) && e.Kind == NoCompiler {
		t.Skip(err)
	}
	waiting := map[string]Kind{"wait=214": Hardware, "wait=220": Hardware, "wait=226": Hardware, "wait=999": DeviceLost}
	if want, ok := waiting[fail]; ok && err != nil {
		if e := kind(err, want); !e.Elsewhere() || !e.Sticky() || !strings.Contains(e.Error(), "checkpoint is intact") {
			t.Errorf("%+v", e)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if i := d.Info(); i.Name != "Fake H100" || !strings.HasPrefix(i.Class, "cuda/sm_90-132/") || i.UUID != "GPU-11111111-1111-1111-1111-111111111111" || i.Driver != "CUDA 12.4" {
		t.Errorf("Info is %+v", i)
	}
	if _, err := Open(context.Background(), "1"); kind(err, NoDevice) == nil {
		t.Error("a second card")
	}
	_, err = d.Alloc(1<<30, gpu.Float32)
	if e := kind(err, OutOfMemory); e.Asked != 4<<30 || e.Free != 5<<30 || e.Total != 80<<30 || e.Sticky() {
		t.Errorf("out of memory: %+v", e)
	}
	for name, tt := range map[string]struct {
		tensor tensor
		want   int // the driver's code
	}{
		"queries":               {tensor{1 << 20, 128, 32, 65536, 128}, 0},
		"keys of 64 columns":    {tensor{1 << 20, 64, 1, 1, 64}, 0},
		"an odd address":        {tensor{1<<20 + 2, 128, 32, 65536, 128}, 1},
		"no tokens":             {tensor{1 << 20, 128, 32, 0, 128}, 1},
		"more rows than a box":  {tensor{1 << 20, 128, 32, 65536, 512}, 1},
		"a width no copy takes": {tensor{1 << 20, 60, 3, 9, 64}, 1},
	} {
		m, err := d.m.tensorMap(tt.tensor)
		var e *Error
		switch {
		case tt.want == 0 && (err != nil || m[0] != 0x5a5a5a5a5a5a5a5a || m[15] != m[0]):
			t.Errorf("a tensor of %s: %x, %v", name, m, err)
		case tt.want != 0 && (!errors.As(err, &e) || e.Code != tt.want || e.Sticky()):
			t.Errorf("a tensor with %s: %v", name, err)
		}
	}
	const n = 20 << 20 // more than fits the staging memory
	x, err := d.Alloc(n, gpu.Float32)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]float32, n)
	for i := range want {
		want[i] = float32(i)
	}
	d.Upload(x, want)
	d.Copy(x.Slice(0, 10), x.Slice(n-10, n))
	d.Add(x, x)
	got := make([]float32, n)
	d.Download(got, x)
	err = d.Sync()
	if strings.HasPrefix(fail, "launch") {
		if e := kind(err, KernelFailed); !e.Sticky() || e.Elsewhere() {
			t.Errorf("%+v", e)
		}
		return
	}
	if want, ok := waiting[fail]; ok {
		kind(err, want)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got[0] != n-10+1 || got[9] != n-1 || got[10] != 10 || got[n-1] != n-1 {
		t.Errorf("memory holds %v … %v", got[:11], got[n-1])
	}
	word := got[0]
	d.Upload(x.Slice(0, 1), []float32{0})
	for range 4 { // as it comes, captured, and two more
		d.Repeat(func() {
			for range 5 {
				d.Add(x, x)
			}
		})
	}
	d.Download(got[:1], x.Slice(0, 1))
	err = d.Sync()
	if fail == "replay=719" {
		if e := kind(err, KernelFailed); !e.Sticky() {
			t.Errorf("%+v", e)
		}
		return
	}
	none := strings.HasPrefix(fail, "capture") || strings.HasPrefix(fail, "graph")
	if err != nil || got[0] != 4*5 || d.repeats.replays != map[bool]int{false: 3}[none] || none != (d.repeats.broken != nil) {
		t.Errorf("after four times five launches the word is %v, %v; %d replays, %v", got[0], err, d.repeats.replays, d.repeats.broken)
	}
	d.Upload(x.Slice(0, 1), []float32{word})
	// Small uploads go round a ring: what one brings in, the later ones leave alone.
	const part, parts = 15000, 3 * ringBytes / (4 * 15000)
	for i := range parts {
		values := make([]float32, part)
		for j := range values {
			values[j] = float32(i*part + j)
		}
		d.Upload(x.Slice(i*part, (i+1)*part), values)
		clear(values)
	}
	d.Download(got, x)
	for i, v := range got[:part*parts] {
		if v != float32(i) {
			t.Fatalf("small uploads: element %d is %v", i, v)
		}
	}
	h, err := d.AllocHost(10, gpu.Float32)
	if err != nil {
		t.Fatal(err)
	}
	sent := d.Transfer(h, x.Slice(0, 10))
	if err := sent.Wait(); err != nil {
		t.Errorf("a transfer ends with %v", err)
	}
	d.Await(sent)
	d.Await(d.Transfer(x.Slice(20, 30), h))
	got = make([]float32, 10)
	d.Download(got, x.Slice(20, 30))
	if err := d.Sync(); err != nil || got[0] != 0 || got[9] != 9 {
		t.Errorf("what went out and in again is %v, %v", got, err)
	}
	d.Free(h)
	_, err = d.AllocHost(1<<30, gpu.Float32)
	if e := kind(err, OutOfHostMemory); e.Asked != 4<<30 || !errors.Is(err, gpu.ErrOutOfMemory) {
		t.Errorf("out of host memory: %+v", e)
	}
	d.Free(x)
	if n := d.Allocated() - int64(d.repeats.lists.bytes); n != 0 {
		t.Errorf("%d bytes allocated after all was freed", n)
	}
}
