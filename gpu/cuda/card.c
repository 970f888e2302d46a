//go:build cuda

#include "card.h"

#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

CUresult card_launch(CUcontext context, CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int threads, unsigned int shared, CUstream stream, void *args, size_t n) {
	CUresult r = cuCtxSetCurrent(context);
	if (r) return r;
	void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, args, CU_LAUNCH_PARAM_BUFFER_SIZE, &n, CU_LAUNCH_PARAM_END};
	return cuLaunchKernel(f, gx, gy, gz, threads, 1, 1, shared, stream, NULL, extra);
}

CUresult card_settle(CUcontext context, CUstream stream) {
	CUresult r = cuCtxSetCurrent(context);
	return r ? r : cuStreamSynchronize(stream);
}

CUresult card_shared(CUcontext context, CUfunction f, int bytes) {
	CUresult r = cuCtxSetCurrent(context);
	return r ? r : cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes);
}

CUresult card_pinned(CUcontext context, void **host, size_t bytes) {
	CUresult r = cuCtxSetCurrent(context);
	return r ? r : cuMemHostAlloc(host, bytes, 0);
}

CUresult card_capture(CUcontext context, CUstream stream) {
	CUresult r = cuCtxSetCurrent(context);
	return r ? r : cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
}

CUresult card_captured(CUcontext context, CUstream stream, CUgraphExec *graph) {
	CUgraph collected = NULL;
	*graph = NULL;
	CUresult r = cuCtxSetCurrent(context);
	if (r || (r = cuStreamEndCapture(stream, &collected))) return r;
	r = cuGraphInstantiateWithFlags(graph, collected, 0);
	cuGraphDestroy(collected);
	return r;
}

CUresult card_replay(CUcontext context, CUgraphExec graph, CUstream stream) {
	CUresult r = cuCtxSetCurrent(context);
	return r ? r : cuGraphLaunch(graph, stream);
}

void card_forget(CUcontext context, CUgraphExec graph) {
	if (!cuCtxSetCurrent(context)) cuGraphExecDestroy(graph);
}

CUresult card_tensor_map(CUcontext context, void *map, CUdeviceptr address, int width, int heads, int tokens, int rows) {
	CUresult r = cuCtxSetCurrent(context);
	if (r) return r;
	CUtensorMap m; // the driver wants it aligned
	cuuint64_t size[] = {(cuuint64_t)width, (cuuint64_t)heads, (cuuint64_t)tokens};
	cuuint64_t bytes[] = {(cuuint64_t)width * 2, (cuuint64_t)width * (cuuint64_t)heads * 2}; // to the next head, to the next token
	cuuint32_t box[] = {64, 1, (cuuint32_t)rows}, step[] = {1, 1, 1};
	r = cuTensorMapEncodeTiled(&m, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)(uintptr_t)address, size, bytes, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
					    CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
	if (!r) memcpy(map, &m, sizeof m);
	return r;
}

static struct {
	int (*version)(int *, int *);
	int (*archs)(int *);
	int (*list)(int *);
	int (*create)(void **, const char *, const char *, int, const char **, const char **);
	int (*destroy)(void **);
	int (*compile)(void *, int, const char **);
	int (*log_size)(void *, size_t *);
	int (*log)(void *, char *);
	int (*ptx_size)(void *, size_t *);
	int (*ptx)(void *, char *);
	int (*cubin_size)(void *, size_t *);
	int (*cubin)(void *, char *);
} nvrtc;

const char *nvrtc_open(const char *path, const char *builtins, nvrtc_facts *facts) {
	if (builtins && *builtins) dlopen(builtins, RTLD_NOW | RTLD_GLOBAL); // the compiler asks the loader for it by name
	void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!h) return dlerror();
	struct { const char *name; void *to; } calls[] = {
		{"nvrtcVersion", &nvrtc.version}, {"nvrtcGetNumSupportedArchs", &nvrtc.archs}, {"nvrtcGetSupportedArchs", &nvrtc.list},
		{"nvrtcCreateProgram", &nvrtc.create}, {"nvrtcDestroyProgram", &nvrtc.destroy}, {"nvrtcCompileProgram", &nvrtc.compile},
		{"nvrtcGetProgramLogSize", &nvrtc.log_size}, {"nvrtcGetProgramLog", &nvrtc.log}, {"nvrtcGetPTXSize", &nvrtc.ptx_size},
		{"nvrtcGetPTX", &nvrtc.ptx}, {"nvrtcGetCUBINSize", &nvrtc.cubin_size}, {"nvrtcGetCUBIN", &nvrtc.cubin},
	};
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
		void *f = dlsym(h, calls[i].name);
		if (!f) return "it lacks a call this program needs; 11.2 or later is wanted";
		memcpy(calls[i].to, &f, sizeof f);
	}
	nvrtc.version(&facts->major, &facts->minor);
	int n = 0;
	nvrtc.archs(&n);
	if (n > 128) return "it knows more architectures than this program has room for";
	facts->archs = n;
	nvrtc.list(facts->arch);
	return NULL;
}

int nvrtc_compile(const char *source, const char *name, const char **options, int n, int cubin, char **out, size_t *size, char **log) {
	void *p = NULL;
	*out = *log = NULL, *size = 0;
	int r = nvrtc.create(&p, source, name, 0, NULL, NULL);
	if (r) return r;
	r = nvrtc.compile(p, n, options);
	size_t length = 0;
	if (!nvrtc.log_size(p, &length) && length && (*log = calloc(1, length + 1))) nvrtc.log(p, *log);
	if (!r && !(r = (cubin ? nvrtc.cubin_size : nvrtc.ptx_size)(p, size)) && (*out = malloc(*size))) r = (cubin ? nvrtc.cubin : nvrtc.ptx)(p, *out);
	nvrtc.destroy(&p);
	return r;
}

// Values of the matrix library's interface.
enum {
	type_f32 = 0, type_bf16 = 14, compute_f32 = 68,
	desc_transpose_a = 3, desc_transpose_b = 4, desc_epilogue = 7, desc_bias = 8, epilogue_bias = 4,
	pref_workspace = 1, pref_reduction = 3, pref_align_a = 5, pref_align_b = 6, pref_align_c = 7, pref_align_d = 8,
	reduce_in_workspace = 2, // sums of split products in a fixed order and in float32
};

typedef struct {
	uint64_t algorithm[8];
	size_t workspace;
	int state;
	float waves;
	int reserved[4];
} heuristic;

typedef struct {
	void *desc, *a, *b, *c;
	int bias;
	heuristic best;
} plan;

static struct {
	size_t (*version)(void);
	int (*create)(void **);
	int (*destroy)(void *);
	int (*desc_create)(void **, int, int);
	int (*desc_destroy)(void *);
	int (*desc_set)(void *, int, const void *, size_t);
	int (*layout_create)(void **, int, uint64_t, uint64_t, int64_t);
	int (*layout_destroy)(void *);
	int (*pref_create)(void **);
	int (*pref_set)(void *, int, const void *, size_t);
	int (*pref_destroy)(void *);
	int (*heuristic)(void *, void *, void *, void *, void *, void *, void *, int, heuristic *, int *);
	int (*multiply)(void *, void *, const void *, const void *, void *, const void *, void *, const void *, const void *, void *, void *, void *, const void *, void *, size_t, void *);
} blas;

const char *blas_open(const char *path, size_t *version) {
	void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!h) return dlerror();
	struct { const char *name; void *to; } calls[] = {
		{"cublasLtGetVersion", &blas.version}, {"cublasLtCreate", &blas.create}, {"cublasLtDestroy", &blas.destroy}, {"cublasLtMatmulDescDestroy", &blas.desc_destroy}, {"cublasLtMatrixLayoutDestroy", &blas.layout_destroy}, {"cublasLtMatmulDescCreate", &blas.desc_create},
		{"cublasLtMatmulDescSetAttribute", &blas.desc_set}, {"cublasLtMatrixLayoutCreate", &blas.layout_create},
		{"cublasLtMatmulPreferenceCreate", &blas.pref_create}, {"cublasLtMatmulPreferenceSetAttribute", &blas.pref_set},
		{"cublasLtMatmulPreferenceDestroy", &blas.pref_destroy}, {"cublasLtMatmulAlgoGetHeuristic", &blas.heuristic}, {"cublasLtMatmul", &blas.multiply},
	};
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
		void *f = dlsym(h, calls[i].name);
		if (!f) return "it lacks a call this program needs";
		memcpy(calls[i].to, &f, sizeof f);
	}
	*version = blas.version();
	return NULL;
}

int blas_create(CUcontext context, void **handle) {
	CUresult r = cuCtxSetCurrent(context);
	return r ? -(int)r : blas.create(handle);
}

int blas_plan(CUcontext context, void *handle, const blas_shape *s, size_t workspace, void **result) {
	*result = NULL;
	CUresult current = cuCtxSetCurrent(context);
	if (current) return -(int)current;
	plan *p = calloc(1, sizeof *p);
	if (!p) return status_alloc_failed;
	int in = s->in_bf16 ? type_bf16 : type_f32, out = s->out_bf16 ? type_bf16 : type_f32, r, found = 0;
	unsigned int reduction = reduce_in_workspace;
	void *pref = NULL;
	p->bias = s->bias != 0;
	if ((r = blas.desc_create(&p->desc, compute_f32, type_f32))) goto done;
	if ((r = blas.desc_set(p->desc, desc_transpose_a, &s->transpose_a, sizeof s->transpose_a))) goto done;
	if ((r = blas.desc_set(p->desc, desc_transpose_b, &s->transpose_b, sizeof s->transpose_b))) goto done;
	if (s->bias) {
		int epilogue = epilogue_bias;
		if ((r = blas.desc_set(p->desc, desc_epilogue, &epilogue, sizeof epilogue))) goto done;
		void *like = (void *)(uintptr_t)s->bias; // the choice of an algorithm looks at the alignment of this address, no more
		if ((r = blas.desc_set(p->desc, desc_bias, &like, sizeof like))) goto done;
	}
	if ((r = blas.layout_create(&p->a, in, s->transpose_a ? s->inner : s->rows, s->transpose_a ? s->rows : s->inner, (int64_t)s->lda))) goto done;
	if ((r = blas.layout_create(&p->b, in, s->transpose_b ? s->cols : s->inner, s->transpose_b ? s->inner : s->cols, (int64_t)s->ldb))) goto done;
	if ((r = blas.layout_create(&p->c, out, s->rows, s->cols, (int64_t)s->ldc))) goto done;
	if ((r = blas.pref_create(&pref))) goto done;
	blas.pref_set(pref, pref_workspace, &workspace, sizeof workspace);
	blas.pref_set(pref, pref_reduction, &reduction, sizeof reduction);
	blas.pref_set(pref, pref_align_a, &s->align_a, sizeof s->align_a);
	blas.pref_set(pref, pref_align_b, &s->align_b, sizeof s->align_b);
	blas.pref_set(pref, pref_align_c, &s->align_c, sizeof s->align_c);
	blas.pref_set(pref, pref_align_d, &s->align_c, sizeof s->align_c);
	r = blas.heuristic(handle, p->desc, p->a, p->b, p->c, p->c, pref, 1, &p->best, &found);
	if (r == status_not_supported) r = 0; // there is none, now and later; any other status may pass
	else if (!r && found && !p->best.state) *result = p;
done:
	if (pref) blas.pref_destroy(pref);
	if (!*result) blas_forget(p);
	return r;
}

void blas_forget(void *which) {
	plan *p = which;
	if (!p) return;
	if (p->desc) blas.desc_destroy(p->desc);
	if (p->a) blas.layout_destroy(p->a);
	if (p->b) blas.layout_destroy(p->b);
	if (p->c) blas.layout_destroy(p->c);
	free(p);
}

void blas_close(CUcontext context, void *handle) {
	if (handle && !cuCtxSetCurrent(context)) blas.destroy(handle);
}

int blas_run(CUcontext context, void *handle, void *which, CUdeviceptr c, CUdeviceptr a, CUdeviceptr b, CUdeviceptr bias, float beta, CUdeviceptr workspace, size_t bytes, CUstream stream) {
	plan *p = which;
	float alpha = 1;
	CUresult r = cuCtxSetCurrent(context);
	if (r) return -(int)r;
	if (p->bias) {
		void *at = (void *)(uintptr_t)bias;
		int s = blas.desc_set(p->desc, desc_bias, &at, sizeof at);
		if (s) return s;
	}
	return blas.multiply(handle, p->desc, &alpha, (void *)(uintptr_t)a, p->a, (void *)(uintptr_t)b, p->b, &beta, (void *)(uintptr_t)c, p->c, (void *)(uintptr_t)c, p->c,
			     p->best.algorithm, (void *)(uintptr_t)workspace, bytes, stream);
}
