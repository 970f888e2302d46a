package emulator

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/longalign/longalign-go/gpu/cuda/kernels"
)

// broken builds the units with a change of one kernel's text, as a mistake would be.
func broken(t *testing.T, unit kernels.Unit, from, to string) *Machine {
	t.Helper()
	source, err := unit.Source()
	if err != nil {
		t.Fatal(err)
	}
	if from != "" && !strings.Contains(source, from) {
		t.Fatalf("%s does not contain %q", unit.Kernel, from)
	}
	dir := t.TempDir()
	program, err := build(dir, []kernels.Unit{unit}, func(kernels.Unit) (string, error) { return strings.Replace(source, from, to, 1), nil })
	if errors.Is(err, ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := Start(program, []kernels.Unit{unit}, 1<<20, 3)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func floats(m *Machine, address uint64, n int) []float32 {
	x := make([]float32, n)
	binary.Decode(m.Bytes(address, 4*n), binary.LittleEndian, x)
	return x
}

// norm runs rms_norm over one row of ones, whose result is ones.
func norm(t *testing.T, m *Machine, room int) ([]float32, error) {
	t.Helper()
	const d = 600
	ones := make([]float32, d)
	for i := range ones {
		ones[i] = 1
	}
	var at [4]uint64
	for i, n := range []int{room, 1, d, d} {
		var err error
		if at[i], err = m.Alloc(4 * n); err != nil {
			t.Fatal(err)
		}
		if i > 1 {
			binary.Encode(m.Bytes(at[i], 4*d), binary.LittleEndian, ones)
		}
	}
	args := binary.LittleEndian.AppendUint64(nil, at[0])
	for _, a := range at[1:] {
		args = binary.LittleEndian.AppendUint64(args, a)
	}
	args = binary.LittleEndian.AppendUint32(args, d)
	args = binary.LittleEndian.AppendUint32(args, math.Float32bits(0))
	args = binary.LittleEndian.AppendUint64(args, 0)
	err := m.Launch("rms_norm T=float W=float", [3]uint32{1, 1, 1}, 256, 128, args)
	if err != nil {
		return nil, err
	}
	y := floats(m, at[0], min(d, room))
	return y, nil
}

var unit = kernels.Unit{Kernel: "rms_norm", Defines: "T=float W=float"}

func TestARightKernelIsRight(t *testing.T) {
	m := broken(t, unit, "", "")
	y, err := norm(t, m, 600)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range y {
		if v != 1 {
			t.Fatalf("y[%d] = %g", i, v)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestABarrierThatSomeThreadsMissIsAnError(t *testing.T) {
	m := broken(t, unit, "if (threadIdx.x == 0) put", "if (threadIdx.x < 7) __syncthreads();\n\tif (threadIdx.x == 0) put")
	_, err := norm(t, m, 600)
	if err == nil || !strings.Contains(err.Error(), "a barrier that some threads never reach") {
		t.Errorf("Launch returns %v", err)
	}
	if m.Close() == nil {
		t.Error("Close forgets the failure")
	}
}

func TestAMissingBarrierShows(t *testing.T) {
	m := broken(t, unit, "block_sum(s, scratch)", "(scratch[threadIdx.x / 32] = warp_sum(s), scratch[0] + scratch[1] + scratch[2] + scratch[3] + scratch[4] + scratch[5] + scratch[6] + scratch[7])")
	y, err := norm(t, m, 600)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range y {
		if v != 1 {
			return
		}
	}
	t.Error("reading other warps' sums without a barrier gives the right result")
}

func TestAWriteBesideABufferIsFound(t *testing.T) {
	m := broken(t, unit, "", "")
	if _, err := norm(t, m, 599); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err == nil || !strings.Contains(err.Error(), "wrote beside") {
		t.Errorf("Close returns %v", err)
	}
}

func TestACompilerErrorNamesTheKernelAndLine(t *testing.T) {
	_, err := build(t.TempDir(), []kernels.Unit{unit}, func(kernels.Unit) (string, error) { return "struct Args {};\nnonsense;\n", nil })
	if errors.Is(err, ErrNoCompiler) {
		t.Skip(err)
	}
	if err == nil || !strings.Contains(err.Error(), "rms_norm.cu:2") {
		t.Errorf("build returns %v", err)
	}
}

func TestWithoutACompilerBuildSaysSo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("CXX", "")
	if _, err := Build(t.TempDir(), []kernels.Unit{unit}); !errors.Is(err, ErrNoCompiler) {
		t.Errorf("Build returns %v", err)
	}
}
