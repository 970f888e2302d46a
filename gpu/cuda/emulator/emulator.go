// Package emulator runs the kernels of gpu/cuda on the processor, for tests of their logic on machines without a card: it
// compiles them with the C++ compiler behind emulator.h (which says what it checks) and talks to the program by pipes and a
// mapped file. It is slow by design and exact about barriers.
package emulator

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/longalign/longalign-go/gpu/cuda/kernels"
)

//go:embed emulator.h
var header string

//go:embed hopper.h
var hopper string

//go:embed main.h
var loop string

// ErrNoCompiler says that there is no C++ compiler to build the emulator with.
var ErrNoCompiler = errors.New("no C++ compiler (g++, clang++ or $CXX)")

// Build compiles the units into dir and returns the program.
func Build(dir string, units []kernels.Unit) (program string, err error) {
	return build(dir, units, kernels.Unit.Source)
}

func build(dir string, units []kernels.Unit, sourceOf func(kernels.Unit) (string, error)) (program string, err error) {
	compiler := ""
	for _, c := range []string{os.Getenv("CXX"), "g++", "clang++"} {
		if p, err := exec.LookPath(c); c != "" && err == nil {
			compiler = p
			break
		}
	}
	if compiler == "" {
		return "", ErrNoCompiler
	}
	var b strings.Builder
	fmt.Fprintf(&b, "#include \"emulator.h\"\n#include \"hopper.h\"\n#include \"prelude.cuh\"\n#include \"hopper.cuh\"\n#include \"main.h\"\n")
	for i, u := range units {
		source, err := sourceOf(u)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "namespace unit%d {\n", i)
		for _, d := range strings.Fields(u.Defines) {
			name, v, _ := strings.Cut(d, "=")
			fmt.Fprintf(&b, "#define %s %s\n", name, v)
		}
		fmt.Fprintf(&b, "#line 1 \"%s.cu\"\n%s\n", u.Kernel, source)
		for _, d := range strings.Fields(u.Defines) {
			name, _, _ := strings.Cut(d, "=")
			fmt.Fprintf(&b, "#undef %s\n", name)
		}
		fmt.Fprintf(&b, "void run(const void *a) { %s(*(const Args *)a); }\n}\n", u.Kernel)
	}
	b.WriteString("static const Entry kernels[] = {\n")
	for i := range units {
		fmt.Fprintf(&b, "\t{sizeof(unit%d::Args), unit%d::run},\n", i, i)
	}
	fmt.Fprintf(&b, "};\nint main(int, char **argv) { return serve(argv[1], strtoull(argv[2], nullptr, 10), kernels, %d); }\n", len(units))
	for name, text := range map[string]string{"emulator.h": header, "hopper.h": hopper, "hopper.cuh": kernels.Hopper(), "main.h": loop, "prelude.cuh": kernels.Prelude(), "main.cpp": b.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	program = filepath.Join(dir, "emulator")
	// Addresses come from another process, so the compiler's guesses about sizes of objects do not hold.
	cmd := exec.Command(compiler, "-std=c++17", "-O1", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function", "-Wno-unknown-pragmas", "-Wno-psabi", "-o", program, filepath.Join(dir, "main.cpp"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the kernels: %w\n%s", err, out)
	}
	return program, nil
}

// Machine is a running emulator with its memory.
type Machine struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	stderr bytes.Buffer
	memory []byte
	base   uint64
	index  map[string]uint32
	blocks map[uint64]block
	next   int
	seed   uint64
	failed error
}

// block is an allocation; guards of NaNs stand on both sides.
type block struct{ offset, size int }

const guard = 256

// Start runs program, which was built from the same units, with a memory of bytes. Seed orders warps, lanes and blocks.
func Start(program string, units []kernels.Unit, bytes int, seed uint64) (*Machine, error) {
	f, err := os.CreateTemp(filepath.Dir(program), "memory")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(int64(bytes)); err != nil {
		return nil, err
	}
	m := &Machine{index: map[string]uint32{}, blocks: map[uint64]block{}, seed: seed}
	for i, u := range units {
		m.index[u.String()] = uint32(i)
	}
	if m.memory, err = syscall.Mmap(int(f.Fd()), 0, bytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED); err != nil {
		return nil, err
	}
	m.cmd = exec.Command(program, f.Name(), fmt.Sprint(bytes))
	m.cmd.Stderr = &m.stderr
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if m.out, err = m.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	if err := binary.Read(m.out, binary.LittleEndian, &m.base); err != nil {
		return nil, m.broken(err)
	}
	return m, nil
}

func (m *Machine) broken(err error) error {
	if m.failed == nil {
		m.in.Close()
		wait := m.cmd.Wait()
		m.failed = fmt.Errorf("emulator: %v (%v): %s", err, wait, bytes.TrimSpace(m.stderr.Bytes()))
	}
	return m.failed
}

// Alloc returns memory full of NaNs.
func (m *Machine) Alloc(n int) (uint64, error) {
	room := (n+255)/256*256 + 2*guard
	if m.next+room > len(m.memory) {
		return 0, fmt.Errorf("emulator: %d bytes asked for, %d of %d in use", n, m.next, len(m.memory))
	}
	b := block{m.next + guard, n}
	fill(m.memory[m.next : m.next+room])
	m.next += room
	address := m.base + uint64(b.offset)
	m.blocks[address] = b
	return address, nil
}

func fill(x []byte) {
	for i := range x {
		x[i] = 0xff
	}
}

// Free checks that nothing was written beside the block. Its memory is not used again, so that late uses show.
func (m *Machine) Free(address uint64) error {
	b, ok := m.blocks[address]
	if !ok {
		return fmt.Errorf("emulator: %#x was not allocated", address)
	}
	delete(m.blocks, address)
	err := m.check(b)
	fill(m.memory[b.offset : b.offset+b.size])
	return err
}

func (m *Machine) check(b block) error {
	for _, side := range [][]byte{m.memory[b.offset-guard : b.offset], m.memory[b.offset+b.size : b.offset+b.size+guard]} {
		for i, v := range side {
			if v != 0xff {
				return fmt.Errorf("emulator: a kernel wrote beside a block of %d bytes, %d from the guard's start", b.size, i)
			}
		}
	}
	return nil
}

// Bytes returns n bytes of memory at address, or nil where there is none.
func (m *Machine) Bytes(address uint64, n int) []byte {
	off := int64(address - m.base)
	if off < 0 || off+int64(n) > int64(len(m.memory)) {
		return nil
	}
	return m.memory[off : off+int64(n) : off+int64(n)]
}

// Launch runs a kernel to its end. Args are its struct Args, byte for byte.
func (m *Machine) Launch(unit string, grid [3]uint32, threads, shared int, args []byte) error {
	if m.failed != nil {
		return m.failed
	}
	k, ok := m.index[unit]
	if !ok {
		return fmt.Errorf("emulator: no unit %q", unit)
	}
	m.seed = m.seed*6364136223846793005 + 1
	request := struct {
		Kernel          uint32
		Grid            [3]uint32
		Threads, Shared uint32
		Size, Pad       uint32
		Seed            uint64
	}{k, grid, uint32(threads), uint32(shared), uint32(len(args)), 0, m.seed}
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, &request)
	b.Write(args)
	if _, err := m.in.Write(b.Bytes()); err != nil {
		return m.broken(fmt.Errorf("%s: %w", unit, err))
	}
	var failed uint32
	if err := binary.Read(m.out, binary.LittleEndian, &failed); err != nil {
		return m.broken(fmt.Errorf("%s: %w", unit, err))
	}
	return nil
}

// Close ends the program and checks the guards of what is still allocated.
func (m *Machine) Close() error {
	var err error
	for _, b := range m.blocks {
		if e := m.check(b); e != nil {
			err = e
		}
	}
	m.in.Close()
	if m.failed == nil {
		if e := m.cmd.Wait(); e != nil && err == nil {
			err = e
		}
	} else if err == nil {
		err = m.failed
	}
	syscall.Munmap(m.memory)
	return err
}
