package cuda

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// vendorHeaders lists the folders with NVIDIA's headers on this machine; LONGALIGN_CUDA_HEADERS adds some, divided by colons.
func vendorHeaders() []string {
	dirs := filepath.SplitList(os.Getenv("LONGALIGN_CUDA_HEADERS"))
	dirs = append(dirs, filepath.Join(os.Getenv("CUDA_HOME"), "include"), "/usr/include")
	for _, p := range []string{"/usr/local/cuda*/include", "/opt/cuda/include"} {
		found, _ := filepath.Glob(p)
		dirs = append(dirs, found...)
	}
	return slices.DeleteFunc(dirs, func(d string) bool { return !exists(filepath.Join(d, "cuda.h")) })
}

// What our own header says of the driver, and the launcher of the libraries, is what NVIDIA's headers say: every signature,
// enumerator and member, as far as a release has them, and each that lacks one is named. C's own compiler compares.
func TestOurHeaderAgreesWithTheVendors(t *testing.T) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler")
	}
	dirs := vendorHeaders()
	if len(dirs) == 0 {
		t.Skip("no headers by NVIDIA; LONGALIGN_CUDA_HEADERS names folders that hold some")
	}
	for _, dir := range dirs {
		t.Run(dir, func(t *testing.T) {
			c := &headerCheck{T: t, compiler: compiler, vendor: dir}
			c.driver()
			c.libraries()
		})
	}
}

type headerCheck struct {
	*testing.T
	compiler, vendor string
}

func (c *headerCheck) read(file string) string {
	c.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		c.Fatal(err)
	}
	return string(text)
}

// compile compiles source and returns what the compiler says.
func (c *headerCheck) compile(source string, args ...string) (string, error) {
	c.Helper()
	file := filepath.Join(c.TempDir(), "check.c")
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		c.Fatal(err)
	}
	out, err := exec.Command(c.compiler, append(args, "-w", file)...).CombinedOutput()
	return string(out), err
}

var (
	ownCalls       = regexp.MustCompile(`(?m)^CALL\((\w+), (\(.*?\)), \(.*\)\)$`)
	ownEnumerators = regexp.MustCompile(`\b(CU(?:DA)?_\w+) = (?:0x[0-9a-f]+|\d+)\b`)
	ownStructs     = regexp.MustCompile(`(?s)typedef struct \{([^}]*)\} (CUDA_\w+);`)
	members        = regexp.MustCompile(`(\w+)\s*[,;]`)
	versionOf      = regexp.MustCompile(`#define CUDA_VERSION (\d+)`)
	assertion      = regexp.MustCompile(`(?:static assertion failed|static_assert failed)[^"]*"(?:signature of )?([^"]*)"`)
	undeclared     = regexp.MustCompile(`‘(\w+)’ undeclared|'(\w+)' undeclared|undeclared identifier '(\w+)'`)
)

// driver compares what cuda.h and calls.def say. A small program of our header prints the assertions about layouts and values.
func (c *headerCheck) driver() {
	header, calls := c.read("driver/include/cuda.h"), c.read("driver/include/calls.def")
	var b strings.Builder
	b.WriteString("#include <cuda.h>\n#include <stdio.h>\nint main(void) {\n")
	same := func(expression string) {
		fmt.Fprintf(&b, "\tprintf(\"_Static_assert((%s) == %%lld, \\\"%s\\\");\\n\", (long long)(%s));\n", expression, expression, expression)
	}
	n := map[string]int{}
	for _, m := range ownEnumerators.FindAllStringSubmatch(header, -1) {
		same(m[1])
		n["enumerators"]++
	}
	for _, m := range ownStructs.FindAllStringSubmatch(header, -1) {
		if m[2] != "CUDA_KERNEL_NODE_PARAMS" { // has more members from CUDA 12 on
			same("sizeof(" + m[2] + ")")
		}
		for _, f := range members.FindAllStringSubmatch(m[1], -1) {
			same("__builtin_offsetof(" + m[2] + ", " + f[1] + ")")
			same("sizeof(((" + m[2] + " *)0)->" + f[1] + ")")
			n["members"]++
		}
	}
	release := versionOf.FindStringSubmatch(c.read(filepath.Join(c.vendor, "cuda.h")))
	if release == nil {
		c.Fatal("cuda.h does not say its version")
	}
	changed := map[string]string{ // from a release on
		"CU_CTX_FLAGS_MASK":    "12000", // there are more flags, none of which is used
		"cuGraphAddKernelNode": "12000", // takes a longer struct; its first version is what we call
	}
	comesLater := func(name string) bool { return release[1] < "12000" && strings.Contains(name, "ensorMap") }
	for _, of := range []string{"CUdeviceptr", "CUdevice", "CUuuid", "CUresult", "CUcontext", "cuuint32_t", "cuuint64_t", "CUtensorMap"} {
		if !comesLater(of) {
			same("sizeof(" + of + ")")
		}
	}
	if !comesLater("CUtensorMap") { // 64 up to CUDA 12, 128 from 13 on: ours satisfies both
		b.WriteString("\tprintf(\"_Static_assert(_Alignof(CUtensorMap) <= %d, \\\"_Alignof(CUtensorMap)\\\");\\n\", (int)_Alignof(CUtensorMap));\n")
	}
	b.WriteString("\treturn 0;\n}\n")
	program := filepath.Join(c.TempDir(), "print")
	if out, err := c.compile(b.String(), "-Idriver/include", "-o", program); err != nil {
		c.Fatalf("our header: %v\n%s", err, out)
	}
	asserts, err := exec.Command(program).Output()
	if err != nil {
		c.Fatal(err)
	}
	b.Reset()
	b.WriteString("#include <cuda.h>\n")
	b.Write(asserts)
	// The vendor's header shows the older versions of calls only to those who write drivers.
	for _, m := range ownCalls.FindAllStringSubmatch(calls, -1) {
		if comesLater(m[1]) {
			continue
		}
		fmt.Fprintf(&b, "_Static_assert(__builtin_types_compatible_p(__typeof__(&%s), CUresult (*)%s), \"signature of %s\");\n", m[1], m[2], m[1])
		n["signatures"]++
	}
	out, _ := c.compile(b.String(), "-D__CUDA_API_VERSION_INTERNAL", "-I", c.vendor, "-fsyntax-only")
	absent := map[string]bool{}
	for line := range strings.Lines(out) {
		m, failed := undeclared.FindStringSubmatch(line), assertion.FindStringSubmatch(line)
		switch {
		case m != nil:
			absent[m[1]+m[2]+m[3]] = true
		case failed != nil && changed[failed[1]] != "" && release[1] >= changed[failed[1]]:
		case strings.Contains(line, "error:") && !strings.Contains(line, "in static assertion is not an integer"): // which follows an absent name
			c.Errorf("%s", strings.TrimSpace(line))
		}
	}
	names := make([]string, 0, len(absent))
	for name := range absent {
		names = append(names, name)
	}
	slices.Sort(names)
	c.Logf("%d signatures, %d enumerators, %d members; not in these headers: %v", n["signatures"], n["enumerators"], n["members"], names)
	if len(names) > 25 {
		c.Errorf("%d names are not in these headers", len(names))
	}
}

var loaded = regexp.MustCompile(`\{"(\w+)", &(\w+)\.(\w+)\}`)

// libraries compares the launcher's values, layouts and calls of cuBLASLt and of the run-time compiler.
func (c *headerCheck) libraries() {
	launcher := c.read("card.c")
	for _, header := range []string{"cublasLt.h", "nvrtc.h"} {
		if !exists(filepath.Join(c.vendor, header)) {
			c.Logf("no %s there", header)
			continue
		}
		var b strings.Builder
		fmt.Fprintf(&b, "#include <stddef.h>\n#include <stdint.h>\n#include <%s>\n", header)
		if header == "cublasLt.h" {
			values := regexp.MustCompile(`(?s)enum \{\n\ttype_f32.*?\n\};`).FindString(launcher)
			result := regexp.MustCompile(`(?s)typedef struct \{\n\tuint64_t algorithm.*?\} heuristic;`).FindString(launcher)
			if values == "" || result == "" {
				c.Fatal("card.c does not name its values and its heuristic as it did")
			}
			fmt.Fprintf(&b, "%s\n%s\n", values, result)
			for ours, theirs := range map[string]string{
				"type_f32": "CUDA_R_32F", "type_bf16": "CUDA_R_16BF", "compute_f32": "CUBLAS_COMPUTE_32F",
				"desc_transpose_a": "CUBLASLT_MATMUL_DESC_TRANSA", "desc_transpose_b": "CUBLASLT_MATMUL_DESC_TRANSB",
				"desc_epilogue": "CUBLASLT_MATMUL_DESC_EPILOGUE", "desc_bias": "CUBLASLT_MATMUL_DESC_BIAS_POINTER", "epilogue_bias": "CUBLASLT_EPILOGUE_BIAS",
				"pref_workspace": "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES", "pref_reduction": "CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK",
				"pref_align_a": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES", "pref_align_b": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES",
				"pref_align_c": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES", "pref_align_d": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES",
				"reduce_in_workspace": "CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE",
				"0":                   "CUBLAS_OP_N", "1": "CUBLAS_OP_T",
				"sizeof(heuristic)":                       "sizeof(cublasLtMatmulHeuristicResult_t)",
				"__builtin_offsetof(heuristic,state)":     "__builtin_offsetof(cublasLtMatmulHeuristicResult_t,state)",
				"__builtin_offsetof(heuristic,workspace)": "__builtin_offsetof(cublasLtMatmulHeuristicResult_t,workspaceSize)",
				"sizeof(((heuristic *)0)->algorithm)":     "sizeof(cublasLtMatmulAlgo_t)",
			} {
				fmt.Fprintf(&b, "_Static_assert((long long)(%s) == (long long)(%s), \"%s is not %s\");\n", ours, theirs, ours, theirs)
			}
		} else {
			b.WriteString("typedef int heuristic;\n")
		}
		// A call with operands of the types that card.c declares: their number, and which are pointers and how wide the others are.
		checked := 0
		for _, m := range loaded.FindAllStringSubmatch(launcher, -1) {
			if (m[2] == "blas") != (header == "cublasLt.h") {
				continue
			}
			table := regexp.MustCompile(`(?s)static struct \{\n((?:\t[^\n]*\n)*?)\} ` + m[2] + `;`).FindStringSubmatch(launcher)
			if table == nil {
				c.Fatalf("card.c has no table %s", m[2])
			}
			declared := regexp.MustCompile(`(?m)^\t[\w ]+\(\*` + m[3] + `\)\((.*)\);$`).FindStringSubmatch(table[1])
			if declared == nil {
				c.Fatalf("card.c does not declare %s", m[3])
			}
			var parameters, operands []string
			if declared[1] != "void" {
				for i, p := range strings.Split(declared[1], ", ") {
					parameters = append(parameters, fmt.Sprintf("%s p%d", p, i))
					operands = append(operands, fmt.Sprintf("p%d", i))
				}
			}
			fmt.Fprintf(&b, "void check_%s_%s(%s) { %s(%s); }\n", m[2], m[3], strings.Join(append(parameters, "int unused"), ", "), m[1], strings.Join(operands, ", "))
			checked++
		}
		file := filepath.Join(c.TempDir(), "library.c")
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			c.Fatal(err)
		}
		out, err := exec.Command(c.compiler, "-Wall", "-Werror", "-Wconversion", "-Wno-incompatible-pointer-types", "-Wno-sign-conversion", "-Wno-unused",
			"-D__CUDA_FP16_H__", "-D__CUDA_BF16_H__", "-D__half=short", "-D__nv_bfloat16=short", // whose headers need a C++ library
			"-isystem", c.vendor, "-fsyntax-only", file).CombinedOutput()
		if err != nil {
			c.Errorf("%s: %v\n%s", header, err, out)
		}
		c.Logf("%s: %d calls", header, checked)
	}
}
