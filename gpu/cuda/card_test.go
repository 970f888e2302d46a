//go:build cuda

package cuda

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/cuda/kernels"
	"github.com/longalign/longalign-go/gpu/devicetest"
)

func init() {
	if Probe() != nil {
		return
	}
	openCards = func(t *testing.T) *Device {
		d, err := Open(context.Background(), "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		return d
	}
}

// The shared suite on a card.
func TestCardPassesTheSuite(t *testing.T) {
	if Probe() != nil {
		t.Skip("no card: ", Probe())
	}
	devicetest.Run(t, func(t *testing.T) gpu.Device { return openCardFor(t) })
}

func openCardFor(t *testing.T) *Device {
	t.Helper()
	d, err := Open(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func init() {
	if os.Getenv("LONGALIGN_CUDA_TESTS") == "card" {
		openReal = openCardFor
	}
}

func TestWithoutADriverOpenSaysSo(t *testing.T) {
	if driverState() == nil {
		t.Skip("this machine has a driver")
	}
	if Probe() == nil {
		t.Error("Probe reports a card")
	}
	_, err := Open(context.Background(), "")
	var e *Error
	if !errors.As(err, &e) || e.Kind != NoDriver || !e.Elsewhere() || e.Sticky() {
		t.Errorf("Open returns %v", err)
	}
}

// Remarks of the compiler on products. What it says of a wait or a start that it added itself (C7517, C7519) depends on its release:
// 12.5 adds a wait wherever some products are waited for and others not, 12.4 does not.
var (
	serialized = regexp.MustCompile(`\(C75(?:0\d|1[0-68]|[2-9]\d)\).*`)
	added      = regexp.MustCompile(`\(C751[79]\)`)
)

func TestWithoutTheCompilerOpenSaysWhatToInstall(t *testing.T) {
	_, err := findCompiler(0) // as if there were none that the driver can run the output of
	var e *Error
	if !errors.As(err, &e) || e.Kind != NoCompiler || !e.Elsewhere() || e.Sticky() || !strings.Contains(err.Error(), "LONGALIGN_CUDA_LIBRARIES") {
		t.Errorf("got %v", err)
	}
}

// A compiler that answers is not called missing: the advice is another.
func TestAKernelThatIsRefusedIsNoMissingCompiler(t *testing.T) {
	c, err := loadCompiler()
	if err != nil {
		t.Skip(err)
	}
	u := kernels.Units()[0]
	var e *Error
	if _, _, err := c.compile(u, "sm_19", true); !errors.As(err, &e) || e.Kind != NotCompiled || !strings.Contains(err.Error(), u.Kernel) {
		t.Errorf("an architecture that nothing has: %v", err)
	}
	if err := c.failed(u, 7, "nvrtc: error: failed to open libnvrtc-builtins.so"); !errors.As(err, &e) || e.Kind != NoCompiler || !strings.Contains(err.Error(), "builtins") {
		t.Errorf("a compiler without its second library: %v", err)
	}
}

var spills = regexp.MustCompile(`(\d+) bytes spill stores, (\d+) bytes spill loads`)

// Every kernel compiles for every supported architecture, with its values in registers.
func TestKernelsCompileWithoutSpills(t *testing.T) {
	t.Parallel()
	c, err := loadCompiler()
	if err != nil {
		t.Skip(err)
	}
	for _, arch := range []int{80, 90} {
		name := fmt.Sprintf("sm_%d", arch)
		if !slices.Contains(c.archs, arch) {
			t.Logf("NVRTC %s does not know %s", c.version, name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			compiled, waits := 0, 0
			for _, u := range kernels.Units() {
				target := name
				if u.Hopper() {
					if arch != 90 || c.major < 12 {
						continue
					}
					target += "a"
				}
				compiled++
				image, log, err := c.compile(u, target, true, "--ptxas-options=-v")
				if err != nil {
					t.Errorf("%v", err)
					continue
				}
				waits += len(added.FindAllString(log, -1))
				m := spills.FindStringSubmatch(log)
				switch {
				case len(image) == 0:
					t.Errorf("%v: no machine code", u)
				case m == nil:
					t.Errorf("%v: the compiler reports no spills: %s", u, log)
				case m[1] != "0" || m[2] != "0":
					t.Errorf("%v spills: %s", u, strings.TrimSpace(log))
				case serialized.MatchString(log):
					t.Errorf("%v: the matrix units wait for each other: %s", u, serialized.FindString(log))
				}
			}
			t.Logf("NVRTC %s: %d kernels, %d waits between products that the compiler added", c.version, compiled, waits)
		})
	}
}

var (
	branch      = regexp.MustCompile(`(?m)^\$L.*:$|\bbra(\.uni)?\b`)
	someArrived = regexp.MustCompile(`wgmma\.wait_group\.sync\.aligned 1;`)
)

// The exponentials of a tile run under products: they stand between the wait for its scores and the next branch, and no wait for all
// products is among them. Behind a branch, or after a wait in the same block, the assembler makes them wait.
func TestExponentialsRunUnderProducts(t *testing.T) {
	t.Parallel()
	c, err := loadCompiler()
	if err != nil {
		t.Skip(err)
	}
	if !slices.Contains(c.archs, 90) || c.major < 12 {
		t.Skipf("NVRTC %s does not know Hopper's matrix units", c.version)
	}
	for _, u := range kernels.Units() {
		want := 64 // a thread's scores of a tile
		switch u.Kernel {
		case "hopper_attention":
			want += 2 // and what its two rows shrink by
		case "hopper_attention_grad_kv":
			want = 32
		}
		if !u.Hopper() {
			continue
		}
		ptx, log, err := c.compile(u, "compute_90a", false)
		if err != nil {
			t.Fatalf("%v: %s", err, log)
		}
		waits := someArrived.FindAllIndex(ptx, -1)
		if len(waits) < 2 {
			t.Errorf("%v waits for some products at %d places, not for tiles with marks and for those without", u, len(waits))
		}
		for _, w := range waits {
			block := string(ptx[w[1]:])
			if end := branch.FindStringIndex(block); end != nil {
				block = block[:end[0]]
			}
			if n := strings.Count(block, "ex2.approx"); n != want || strings.Contains(block, "wgmma.wait_group") {
				t.Errorf("%v: %d exponentials behind a wait for some products, want %d, and no other wait: %v", u, n, want, strings.Contains(block, "wgmma.wait_group"))
			}
		}
	}
}
