// Package kernels holds the CUDA kernels: one kernel a file, in a subset of CUDA C++ that needs no header. Every source is compiled
// behind prelude.cuh with the names of its unit defined; on a machine without a card the emulator does the same with g++.
package kernels

import (
	"embed"
	"fmt"
	"sort"
	"strings"
)

//go:embed *.cu *.cuh
var files embed.FS

// Unit is a kernel compiled for given types.
type Unit struct {
	Kernel  string // entry point and file name
	Defines string // "T=u16 W=float", sorted
}

// String returns the unit's name in caches and messages.
func (u Unit) String() string {
	if u.Defines == "" {
		return u.Kernel
	}
	return u.Kernel + " " + u.Defines
}

// Source returns the text of the unit's kernel without the prelude.
func (u Unit) Source() (string, error) {
	b, err := files.ReadFile(u.Kernel + ".cu")
	if err != nil {
		return "", fmt.Errorf("kernel %q does not exist", u.Kernel)
	}
	return string(b), nil
}

// Prelude returns what stands before every kernel.
func Prelude() string {
	b, _ := files.ReadFile("prelude.cuh")
	return string(b)
}

// Hopper returns what stands behind the prelude of kernels for Hopper's matrix units.
func Hopper() string {
	b, _ := files.ReadFile("hopper.cuh")
	return string(b)
}

// Hopper reports whether the unit runs on compute capability 9.0 alone, and is compiled for sm_90a.
func (u Unit) Hopper() bool { return strings.HasPrefix(u.Kernel, "hopper_") }

var (
	elements = []string{"T=float", "T=u16"}
	both     = []string{"T=float W=float", "T=u16 W=float", "T=u16 W=u16"}
	widths   = []string{"D=64", "D=128"}
	single   = []string{""}
	states   = []string{"W=float", "W=u16"}
)

var variants = map[string][]string{
	"embedding": elements, "embedding_grad": both, "scatter": elements,
	"rms_norm": both, "rms_norm_grad": both, "rms_norm_grad_weight": both, "column_sums": elements, "fold": states,
	"rope": both, "swiglu": elements, "swiglu_grad": elements, "add": elements,
	"convert": {"T=float W=u16", "T=u16 W=float"}, "squared_norm": elements, "adamw": states, "cross_entropy": elements,
	"attention_rows": elements, "attention_delta": elements, "attention_rows_grad_q": elements, "attention_rows_grad_kv": elements,
	"attention": widths, "attention_grad_q": widths, "attention_grad_kv": widths,
	"attention_decode":       {"R=1 T=float", "R=1 T=u16", "R=4 T=float", "R=4 T=u16", "R=8 T=float", "R=8 T=u16"},
	"attention_decode_merge": elements, "cache_append": elements, "sample": elements,
	"hopper_attention": widths, "hopper_attention_grad_q": widths, "attention_gather_q": single,
	"hopper_attention_grad_kv": {"D=64 FAST=0", "D=64 FAST=1", "D=128 FAST=0", "D=128 FAST=1"},
	"gemm_bf16":                states, "gemm_f32": single, "adamw8": single,
}

// Units returns every unit that the device launches, in order of name.
func Units() []Unit {
	var units []Unit
	for k, vs := range variants {
		for _, v := range vs {
			units = append(units, Unit{k, v})
		}
	}
	sort.Slice(units, func(i, j int) bool { return units[i].String() < units[j].String() })
	return units
}
