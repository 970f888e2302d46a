package cuda

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/longalign/longalign-go/gpu"
	"github.com/longalign/longalign-go/gpu/cuda/emulator"
	"github.com/longalign/longalign-go/gpu/cuda/kernels"
	"github.com/longalign/longalign-go/gpu/devicetest"
)

// emulated runs a Device's launches in the emulator. Transfers happen as late as they may: when they are awaited, or at the end.
type emulated struct {
	*emulator.Machine
	pending *[2][]*late // transfers in and out, in order
	tape    *tape
}

// tape is the emulator's graphs: what was queued while it was on, byte for byte.
type tape struct {
	on       bool
	calls    []func() error
	captures int
	refuse   error // what capturing fails with
}

func (e emulated) capture(run func() error) (graph, error) {
	e.tape.on, e.tape.calls = true, nil
	err := run()
	e.tape.on = false
	e.tape.captures++
	return e.tape.calls, errors.Join(err, e.tape.refuse)
}

func (e emulated) replay(g graph) error {
	for _, call := range g.([]func() error) {
		if err := call(); err != nil {
			return err
		}
	}
	return nil
}
func (e emulated) release(graph) {}

// now queues call, or tapes it.
func (e emulated) now(call func() error) error {
	if e.tape.on {
		e.tape.calls = append(e.tape.calls, call)
		return nil
	}
	return call()
}

type late struct {
	run  func() error
	done chan struct{}
}

// Wait blocks until something awaited the transfer, or everything.
func (l *late) Wait() error {
	<-l.done
	return nil
}

func (e emulated) allocHost(n int) ([]byte, error) { return make([]byte, n), nil }
func (e emulated) freeHost([]byte) error           { return e.sync() }
func (e emulated) transfer(device uint64, memory []byte, out bool) (gpu.Event, error) {
	l, lane := &late{func() error { return e.move(e.Bytes(device, len(memory)), memory) }, make(chan struct{})}, 0
	if out {
		l.run, lane = func() error { return e.move(memory, e.Bytes(device, len(memory))) }, 1
	}
	e.pending[lane] = append(e.pending[lane], l)
	return l, nil
}

// await ends a transfer and those before it in its direction.
func (e emulated) await(event gpu.Event) error {
	for lane, all := range e.pending {
		at := slices.Index(all, event.(*late))
		for _, l := range all[:at+1] {
			if err := l.run(); err != nil {
				return err
			}
			close(l.done)
		}
		e.pending[lane] = all[at+1:]
	}
	return nil
}
func (e emulated) sync() error {
	for _, all := range e.pending {
		if n := len(all); n > 0 {
			if err := e.await(all[n-1]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e emulated) info() gpu.Info {
	return gpu.Info{Kind: "cuda", Name: "emulator", Class: "cuda/emulated"}
}
func (e emulated) alloc(n int) (uint64, error) { return e.Alloc(n) }
func (e emulated) free(a uint64) error         { return e.Free(a) }
func (e emulated) close() error                { return e.Close() }
func (e emulated) hopper() bool                { return true }
func (e emulated) tensorMap(t tensor) (m tensorMap, err error) {
	if t.tokens < 1 || t.heads < 1 || t.rows > 256 || t.address%16 != 0 {
		return m, errors.New("emulator: a tensor that a driver refuses")
	}
	m[0], m[1], m[2], m[3], m[4] = t.address, uint64(t.width), uint64(t.heads), uint64(t.tokens), uint64(t.rows)
	return m, nil
}
func (e emulated) multiplies(product) (bool, error) { return false, nil }
func (e emulated) multiply(product) error           { return errors.New("emulator: no library") }
func (e emulated) upload(dst uint64, src []byte) error {
	return e.move(e.Bytes(dst, len(src)), src)
}
func (e emulated) download(dst []byte, src uint64) error {
	return e.move(dst, e.Bytes(src, len(dst)))
}
func (e emulated) copy(dst, src uint64, n int) error {
	return e.now(func() error { return e.move(e.Bytes(dst, n), e.Bytes(src, n)) })
}
func (e emulated) zero(dst uint64, n int) error {
	return e.now(func() error { clear(e.Bytes(dst, n)); return nil })
}
func (e emulated) move(dst, src []byte) error {
	if len(dst) != len(src) {
		return errors.New("emulator: a copy beyond the memory")
	}
	copy(dst, src)
	return nil
}
func (e emulated) launch(u kernels.Unit, grid [3]uint32, threads, shared int, args []byte) error {
	args = bytes.Clone(args) // the caller's may change
	return e.now(func() error { return e.Launch(u.String(), grid, threads, shared, args) })
}

// built is the emulator's folder, for all tests of the process.
var built string

var build = sync.OnceValues(func() (string, error) {
	if program := os.Getenv(emulatorAt); program != "" { // that of the process that started this one
		return program, nil
	}
	var err error
	if built, err = os.MkdirTemp("", "cuda-emulator"); err != nil {
		return "", err
	}
	return emulator.Build(built, kernels.Units())
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// openReal opens a card for the tests that use the emulator; LONGALIGN_CUDA_TESTS=card sets it in a build with the tag cuda.
var openReal func(t *testing.T) *Device

// openEmulated opens a device on the emulator, or skips where nothing can build it.
func openEmulated(t *testing.T, seed uint64) *Device {
	t.Helper()
	if openReal != nil {
		return openReal(t)
	}
	program, err := build()
	if errors.Is(err, emulator.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := emulator.Start(program, kernels.Units(), 256<<20, seed)
	if err != nil {
		t.Fatal(err)
	}
	d := newDevice(emulated{m, new([2][]*late), new(tape)})
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// The whole device, kernels included, passes the shared suite on the emulator.
func TestEmulatedDevicePassesTheSuite(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the emulator takes some seconds")
	}
	devicetest.Run(t, func(t *testing.T) gpu.Device { return openEmulated(t, 1) })
}
