package emulator

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/longalign/longalign-go/gpu/cuda/kernels"
)

var hopperUnit = kernels.Unit{Kernel: "hopper_attention", Defines: "D=64"}

// attend runs attention of one head over a sequence of 420 tokens, four tiles of keys, and returns the output's bits.
func attend(t *testing.T, m *Machine) ([]byte, error) {
	t.Helper()
	const tokens, width = 420, 64
	memory := func(n int, x any) uint64 {
		at, err := m.Alloc(n)
		if err != nil {
			t.Fatal(err)
		}
		if x != nil {
			binary.Encode(m.Bytes(at, n), binary.LittleEndian, x)
		}
		return at
	}
	state := uint32(5)
	normal := func() uint64 {
		x := make([]uint16, tokens*width)
		for i := range x {
			state = state*1664525 + 1013904223
			x[i] = uint16(0x3f00 | state>>16&0x80ff) // ±0.5 to ±2
		}
		return memory(2*len(x), x)
	}
	var args bytes.Buffer
	for range 3 {
		binary.Write(&args, binary.LittleEndian, [16]uint64{normal(), width, 1, tokens, 128})
	}
	y, lse := memory(2*tokens*width, nil), memory(4*tokens, nil)
	bounds := memory(8, []int32{0, tokens})
	tiles := []int32{0, 384, 0, 256, 0, 128, 0, 0}
	binary.Write(&args, binary.LittleEndian, []uint64{y, lse, bounds, bounds, memory(4*len(tiles), tiles)})
	binary.Write(&args, binary.LittleEndian, []int32{tokens, 1, 1, 0})
	binary.Write(&args, binary.LittleEndian, []float32{0.125})
	args.Write(make([]byte, -args.Len()&127)) // whole maps
	err := m.Launch(hopperUnit.String(), [3]uint32{4, 1, 1}, 384, 5*128*width*2+128, args.Bytes())
	if err != nil {
		return nil, err
	}
	return slices.Clone(m.Bytes(y, 2*tokens*width)), nil
}

// Each mistake in a kernel for Hopper shows: as other results, or as an error.
func TestMistakesWithTilesAndProductsShow(t *testing.T) {
	right, err := attend(t, broken(t, hopperUnit, "", ""))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, to string }{
		"values used before they are here":       {"barrier_wait(v_here + (i & 1), i / 2 & 1);", ""},
		"keys overwritten while they are used":   {"if (i > 1) barrier_wait(k_free + stage, turn ^ 1);", ""},
		"a turn that is never given":             {"barrier_leave(2 - group, 256);", ""},
		"a barrier that expects too few bytes":   {"barrier_expect(k_here + stage, ROWS * D * 2)", "barrier_expect(k_here + stage, ROWS * D)"},
		"scores read before they are done":       {"products_wait<1>();", ""},
		"a sum read before it is done":           {"gather(to - from - 1);\n\t\tproducts_wait<0>();", "gather(to - from - 1);"},
		"an operand read across":                 {"wgmma<0, 0>(p,", "wgmma<0, 1>(p,"},
		"a copy to where no tile may begin":      {"copy_box(sq + c * ROWS,", "copy_box(sq + 8 + c * ROWS,"},
		"a barrier that more arrive at than may": {"barrier_init(k_free + i, 8)", "barrier_init(k_free + i, 4)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := attend(t, broken(t, hopperUnit, c.from, c.to))
			if err == nil && bytes.Equal(got, right) {
				t.Error("the result is right")
			}
		})
	}
}
