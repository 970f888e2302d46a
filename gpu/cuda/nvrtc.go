//go:build cuda

package cuda

// #cgo CFLAGS: -I${SRCDIR}/driver/include
// #include "card.h"
import "C"

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/longalign/longalign-go/gpu/cuda/kernels"
)

// compiler is the run-time compiler, of which a process loads one.
type compiler struct {
	version string
	major   int
	archs   []int
}

var loadCompiler = sync.OnceValues(func() (*compiler, error) { return findCompiler(driverMajor()) })

// findCompiler loads the newest compiler that a driver of that major version can run the output of.
func findCompiler(most int) (*compiler, error) {
	var tried []string
	for _, file := range candidates("nvrtc", most, folders()) {
		builtins := ""
		if filepath.IsAbs(file) {
			if found, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "libnvrtc-builtins.so.*")); len(found) > 0 {
				builtins = found[0]
			}
		}
		path, extra := C.CString(file), C.CString(builtins)
		var facts C.nvrtc_facts
		why := C.nvrtc_open(path, extra, &facts)
		C.free(unsafe.Pointer(path))
		C.free(unsafe.Pointer(extra))
		if why != nil {
			tried = append(tried, C.GoString(why))
			continue
		}
		c := &compiler{version: fmt.Sprintf("%d.%d", facts.major, facts.minor), major: int(facts.major)}
		for i := range int(facts.archs) {
			c.archs = append(c.archs, int(facts.arch[i]))
		}
		return c, nil
	}
	return nil, &Error{Kind: NoCompiler, Op: "load the run-time compiler", Text: strings.Join(tried, "; ")}
}

// sourceOf returns what the run-time compiler gets for a unit. The unit's names are defined in the source, behind the compiler's
// own headers, which use some of them.
func sourceOf(u kernels.Unit) (string, error) {
	body, err := u.Source()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(kernels.Prelude())
	if u.Hopper() {
		b.WriteString(kernels.Hopper())
	}
	for _, d := range strings.Fields(u.Defines) {
		name, v, _ := strings.Cut(d, "=")
		fmt.Fprintf(&b, "#define %s %s\n", name, v)
	}
	fmt.Fprintf(&b, "#line 1 \"%s.cu\"\n%s", u.Kernel, body)
	return b.String(), nil
}

// Results of a compiler that works and does not take what it got; it never will.
const (
	invalidOption     = 5
	compilationFailed = 6
)

// failed is the error of a compilation.
func (c *compiler) failed(u kernels.Unit, r int, log string) error {
	e := &Error{Kind: NoCompiler, Op: "compile " + u.String(), Text: fmt.Sprintf("NVRTC %s, result %d: %s", c.version, r, log)}
	if r == invalidOption || r == compilationFailed {
		e.Kind = NotCompiled
	}
	return e
}

// compile returns machine code or PTX of a unit, and what the compiler said.
func (c *compiler) compile(u kernels.Unit, arch string, machineCode bool, extra ...string) (image []byte, log string, err error) {
	source, err := sourceOf(u)
	if err != nil {
		return nil, "", err
	}
	options := append([]string{"--gpu-architecture=" + arch, "--std=c++17", "-w"}, extra...)
	var pin runtime.Pinner
	defer pin.Unpin()
	text, name := C.CString(source), C.CString(u.Kernel+".cu")
	defer C.free(unsafe.Pointer(text))
	defer C.free(unsafe.Pointer(name))
	list := make([]*C.char, len(options))
	for i, o := range options {
		list[i] = C.CString(o)
		defer C.free(unsafe.Pointer(list[i]))
	}
	pin.Pin(&list[0])
	var out, said *C.char
	var size C.size_t
	cubin := C.int(0)
	if machineCode {
		cubin = 1
	}
	r := C.nvrtc_compile(text, name, &list[0], C.int(len(list)), cubin, &out, &size, &said)
	log = C.GoString(said)
	C.free(unsafe.Pointer(said))
	image = C.GoBytes(unsafe.Pointer(out), C.int(size))
	C.free(unsafe.Pointer(out))
	if r != 0 {
		return nil, log, c.failed(u, int(r), log)
	}
	return image, log, nil
}
