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
	cmd := exec.Command(os.Args[0], "-test.run=^TestOnAFakeMatrixLibrary$", "-test.v")
	libraries := dir + string(os.PathListSeparator) + os.Getenv("LONGALIGN_CUDA_LIBRARIES")
	cmd.Env = append(os.Environ(), "LONGALIGN_LIBCUDA="+filepath.Join(dir, "libfake.so"), "LONGALIGN_CUDA_LIBRARIES="+libraries, "LONGALIGN_CUDA_ATTENTION=mma", "XDG_CACHE_HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s", out)
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
