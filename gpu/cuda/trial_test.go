//go:build cuda

package cuda

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/longalign/longalign-go/gpu/cuda/kernels"
)

// tried is the emulator with a memory of trials, whose launches of Hopper's kernels end as launches does.
type tried struct {
	emulated
	known    trials
	launches func() error
	all      bool // launches of other kernels too
}

func (m tried) trials() trials { return m.known }
func (m tried) launch(u kernels.Unit, grid [3]uint32, threads, shared int, args []byte) error {
	if (m.all || u.Hopper()) && m.launches != nil {
		if err := m.launches(); err != nil {
			return err
		}
	}
	return m.emulated.launch(u, grid, threads, shared, args)
}

func openTried(t *testing.T, known trials, launches func() error) *Device {
	t.Helper()
	if openReal != nil {
		t.Skip("a card has tried its kernels when it was opened")
	}
	t.Setenv("LONGALIGN_CUDA_ATTENTION", "")
	d := openEmulated(t, 3)
	d.hopper = false
	d.m = tried{emulated: d.m.(emulated), known: known, launches: launches}
	return d
}

func TestHopperIsUsedWhereItsTrialAgreesInEachMode(t *testing.T) {
	d := openTried(t, trials{cache: cache{t.TempDir()}}, nil)
	if err := d.useHopper(); err != nil || !d.hopper {
		t.Fatalf("%v, used: %v", err, d.hopper)
	}
	if err := d.SetFast(true); err != nil || !d.fast {
		t.Errorf("fast: %v, used: %v", err, d.fast)
	}
	if !strings.HasSuffix(d.Info().Class, "/wgmma/fast") {
		t.Errorf("the class is %q", d.Info().Class)
	}
	d.fast = false
	d.m = tried{emulated: d.m.(tried).emulated, launches: func() error { return &Error{Kind: KernelFailed, Code: 700} }}
	var e *Error
	if err := d.SetFast(true); !errors.As(err, &e) || e.Kind != TrialFailed || d.fast {
		t.Errorf("a fault of the fast kernel when it is asked for: %v", err)
	}
}

// A fault ends the process and is remembered; what may pass is an error that is tried again; a refusal sends attention to the kernels of
// every card.
func TestATrialThatFailsDoesNotChangeTheClassByChance(t *testing.T) {
	for name, tt := range map[string]struct {
		fails      error
		kind       Kind // "" where the device opens
		remembered bool
	}{
		"an address fault":     {&Error{Kind: KernelFailed, Code: 700}, TrialFailed, true},
		"memory runs out":      {&Error{Kind: OutOfMemory, Asked: 1}, OutOfMemory, false},
		"compiling breaks off": {&Error{Kind: NoCompiler}, NoCompiler, false},
		"they do not compile":  {&Error{Kind: NotCompiled}, "", false},
		"an error of memory":   {&Error{Kind: Hardware, Code: 214}, Hardware, false},
		"a refused argument":   {&Error{Kind: Refused, Code: 1}, "", false},
		"code of another card": {&Error{Kind: Architecture, Code: 209}, "", false},
		"too many registers":   {&Error{Kind: Refused, Code: 701}, "", false},
		"an unknown refusal":   {&Error{Kind: Refused, Code: 304}, Refused, false},
		"results that differ":  {errDisagree, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			known := trials{cache{t.TempDir()}, "GPU-1"}
			d := openTried(t, known, func() error { return tt.fails })
			err := d.useHopper()
			var e *Error
			switch {
			case tt.kind == "" && (err != nil || d.hopper):
				t.Errorf("%v, used: %v", err, d.hopper)
			case tt.kind != "" && (!errors.As(err, &e) || e.Kind != tt.kind || !e.Elsewhere() || !strings.Contains(err.Error(), "LONGALIGN_CUDA_ATTENTION=mma")):
				t.Errorf("got %v, want it to be %q and to say what does without", err, tt.kind)
			}
			if got := known.fault("deterministic") != ""; got != tt.remembered {
				t.Errorf("remembered: %v", got)
			}
			if !tt.remembered {
				return
			}
			d = openTried(t, known, nil)
			if err := d.useHopper(); err != nil || d.hopper {
				t.Errorf("the next process: %v, used: %v", err, d.hopper)
			}
			other := trials{known.cache, "GPU-2"}
			if other.fault("deterministic") != "" || known.fault("fast") != "" {
				t.Error("another card, or mode, has the fault too")
			}
		})
	}
}

func TestATrialThatHangsIsAFault(t *testing.T) {
	defer func(was time.Duration) { trialLimit = was }(trialLimit)
	trialLimit = 20 * time.Millisecond
	known := trials{cache{t.TempDir()}, "GPU-1"}
	d := openTried(t, known, nil)
	d.m = tried{d.m.(tried).emulated, known, func() error { select {} }, true} // as a call of the driver that does not return
	var e *Error
	if err := d.useHopper(); !errors.As(err, &e) || e.Kind != TrialFailed || !e.Sticky() || known.fault("deterministic") == "" {
		t.Errorf("got %v", err)
	}
}

func TestWithoutAHomeKernelsAreKeptInAFolderOfThisUser(t *testing.T) {
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("TMPDIR", t.TempDir())
	c := openCache()
	if c.dir == "" {
		t.Fatal("nothing is kept")
	}
	if err := os.Chmod(c.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if c := openCache(); c.dir != "" {
		t.Errorf("machine code is loaded from %s, which anyone may write", c.dir)
	}
}
