// What gorgonia.org/cu lacks, in C: launches with arguments of any size, shared memory over 48 KB, pinned memory, and the two
// libraries that are found at run time. Functions return 0 or the library's own code.
#ifndef LONGALIGN_CARD_H
#define LONGALIGN_CARD_H
#include <cuda.h>

// The lazy driver's own: whether a driver was found, and what its cuInit said.
CUresult longalignDriverStatus(int *loaded);
// The driver's name of a code, or NULL.
const char *longalignErrorName(CUresult code);

// card_settle waits for the stream and returns what the driver then says of it.
CUresult card_settle(CUcontext context, CUstream stream);

// card_launch starts a kernel whose one parameter is the n bytes at args.
CUresult card_launch(CUcontext context, CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int threads, unsigned int shared, CUstream stream, void *args, size_t n);
// card_shared lets a kernel have that much dynamic shared memory.
CUresult card_shared(CUcontext context, CUfunction f, int bytes);
CUresult card_pinned(CUcontext context, void **host, size_t bytes);
// card_capture begins to collect what is queued on stream; card_captured ends it and makes a graph of it, on the same thread.
CUresult card_capture(CUcontext context, CUstream stream);
CUresult card_captured(CUcontext context, CUstream stream, CUgraphExec *graph);
CUresult card_replay(CUcontext context, CUgraphExec graph, CUstream stream);
void card_forget(CUcontext context, CUgraphExec graph);
// card_tensor_map fills the 128 bytes at map: a matrix of bfloat16 [tokens, heads, width] in boxes of 64 columns of a head and rows
// tokens, which the copy engine swizzles by 128 bytes.
CUresult card_tensor_map(CUcontext context, void *map, CUdeviceptr address, int width, int heads, int tokens, int rows);

// The run-time compiler.
typedef struct { int major, minor, archs, arch[128]; } nvrtc_facts;
const char *nvrtc_open(const char *path, const char *builtins, nvrtc_facts *facts); // NULL, or why not
// nvrtc_compile returns 0 and the machine code (cubin set) or PTX in *out, which the caller frees; the log comes in either case.
int nvrtc_compile(const char *source, const char *name, const char **options, int n, int cubin, char **out, size_t *size, char **log);

enum { status_alloc_failed = 3, status_not_supported = 15 }; // of the matrix library

// The matrix library. A plan is a shape with its algorithm.
typedef struct {
	int transpose_a, transpose_b; // column-major: c[rows, cols] = op(a) op(b)
	unsigned long long rows, cols, inner, lda, ldb, ldc;
	int in_bf16, out_bf16;
	unsigned int bias; // the alignment of its address, 0 where there is none
	unsigned int align_a, align_b, align_c;
} blas_shape;
const char *blas_open(const char *path, size_t *version);
// The calls below return 0, the library's status, or a code of the driver below zero.
int blas_create(CUcontext context, void **handle);
// blas_plan returns 0 with *plan NULL where the library has no algorithm for the shape.
int blas_plan(CUcontext context, void *handle, const blas_shape *shape, size_t workspace, void **plan);
int blas_run(CUcontext context, void *handle, void *plan, CUdeviceptr c, CUdeviceptr a, CUdeviceptr b, CUdeviceptr bias, float beta, CUdeviceptr workspace, size_t bytes, CUstream stream);
void blas_forget(void *plan);
void blas_close(CUcontext context, void *handle);
#endif
