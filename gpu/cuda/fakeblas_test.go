//go:build cuda

package cuda

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/host"
)

// Products reach the matrix library with the right transposes, strides and types: a fake one on the fake driver computes them.
func TestOnAFakeMatrixLibrary(t *testing.T) {
	if os.Getenv("LONGALIGN_LIBCUDA") != "" {
		onFakeMatrixLibrary(t)
		return
	}
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler for the fake libraries")
	}
	dir := t.TempDir()
	for source, file := range map[string]string{"driver/fake.c": "libfake.so", "driver/fakeblas.c": "libcublasLt.so.12"} {
		if out, err := exec.Command(compiler, "-shared", "-fPIC", "-Idriver/include", "-o", filepath.Join(dir, file), source).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	libraries := dir + string(os.PathListSeparator) + os.Getenv("LONGALIGN_CUDA_LIBRARIES")
	for name, tt := range map[string]struct{ driver, library string }{
		"products have the host's values":             {},
		"an address fault shows in a product":         {"wait=700", "run=13"},
		"a memory error shows in a product":           {"wait=214", "run=13"},
		"a launch fails and the driver knows of none": {"", "run=13"},
		"memory runs out while a product is planned":  {"", "plan=3"},
		"a product has no algorithm":                  {"", "never=15"},
		"the algorithm found does not work":           {"", "state=15"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestOnAFakeMatrixLibrary$", "-test.v")
			cmd.Env = append(os.Environ(), "LONGALIGN_LIBCUDA="+filepath.Join(dir, "libfake.so"), "LONGALIGN_CUDA_LIBRARIES="+libraries, "LONGALIGN_CUDA_ATTENTION=mma",
				"XDG_CACHE_HOME="+dir, "TMPDIR="+t.TempDir(), "FAKE_BLAS="+tt.library, "FAKE_FAIL="+tt.driver)
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

func onFakeMatrixLibrary(t *testing.T) {
	d, err := Open(context.Background(), "")
	var e *Error
	if errors.As(err, &e) && e.Kind == NoCompiler {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if !strings.Contains(d.Info().Class, "cublaslt-120400") {
		t.Fatalf("class %q does not name the library", d.Info().Class)
	}
	h, err := host.Open(host.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	o := &oracle{T: t, host: h, card: d, rng: rand.New(rand.NewPCG(1, 2))}
	const rows, in, out = 5, 7, 3
	if fails := os.Getenv("FAKE_BLAS"); fails != "" {
		x, y, w := o.buffer(rows*in, gpu.Float32), o.buffer(rows*out, gpu.Float32), o.buffer(in*out, gpu.Float32)
		d.Linear(y.card, x.card, gpu.Linear{In: in, Out: out, W: w.card})
		wants := map[string]struct {
			kind   Kind
			sticky bool
		}{
			"run=13 wait=700": {KernelFailed, true}, "run=13 wait=214": {Hardware, true}, "run=13 ": {Refused, false}, "plan=3 ": {OutOfHostMemory, false},
		}
		want, ok := wants[fails+" "+os.Getenv("FAKE_FAIL")]
		switch {
		case !ok && (d.err != nil || len(d.m.(*card).blas.plans) != 1):
			t.Errorf("a product without an algorithm ends with %v", d.err)
		case ok && (!errors.As(d.err, &e) || e.Kind != want.kind || e.Sticky() != want.sticky):
			t.Errorf("got %v, want it to be %q", d.err, want.kind)
		case ok && len(d.m.(*card).blas.plans) > 1:
			t.Error("a plan that failed is kept")
		}
		d.err = nil
		return
	}
	for n := range 2 * mostPlans {
		x, y, w := o.buffer((n+1)*2, gpu.Float32), o.buffer((n+1)*2, gpu.Float32), o.buffer(2*2, gpu.Float32)
		d.Linear(y.card, x.card, gpu.Linear{In: 2, Out: 2, W: w.card})
		d.Free(x.card)
		d.Free(y.card)
		d.Free(w.card)
	}
	if n := len(d.m.(*card).blas.plans); n != mostPlans || d.err != nil {
		t.Errorf("%d plans are kept, %v", n, d.err)
	}
	for _, dtype := range []gpu.DType{gpu.Float32, gpu.BFloat16} {
		tolerance := 1e-6
		if dtype == gpu.BFloat16 {
			tolerance = 4e-3
		}
		x, dy, y, dx := o.buffer(rows*in, dtype), o.buffer(rows*out, dtype), o.buffer(rows*out, dtype), o.buffer(rows*in, dtype)
		w, bias, dw := o.buffer(in*out, dtype), o.buffer(out, dtype), o.buffer(in*out, gpu.Float32)
		on := func(w, bias gpu.Buffer) gpu.Linear { return gpu.Linear{In: in, Out: out, W: w, Bias: bias} }
		h.Linear(y.host, x.host, on(w.host, bias.host))
		d.Linear(y.card, x.card, on(w.card, bias.card))
		o.near("y", y, tolerance)
		h.Linear(y.host, x.host, on(w.host, nil))
		d.Linear(y.card, x.card, on(w.card, nil))
		o.near("y without bias", y, tolerance)
		h.LinearGradInput(dx.host, dy.host, on(w.host, nil), true)
		d.LinearGradInput(dx.card, dy.card, on(w.card, nil), true)
		o.near("dx", dx, tolerance)
		h.LinearGradWeight(dw.host, nil, dy.host, x.host, on(w.host, nil))
		d.LinearGradWeight(dw.card, nil, dy.card, x.card, on(w.card, nil))
		o.near("dw", dw, tolerance)
	}
}
