/* A driver for tests of what talks to one: memory is the host's, a launch adds one to the first word of its arguments' target,
   and what FAKE_FAIL names fails. It stands in for libcuda through LONGALIGN_LIBCUDA. */
#include <cuda.h>
#include <stdio.h>
#include <string.h>

static float *captured[64]; /* targets of launches while a stream is captured, which do not run */
static int captures = -1;

static CUresult failing(const char *call) {
	const char *f = getenv("FAKE_FAIL"); /* "call=code" */
	size_t n = strlen(call);
	return f && !strncmp(f, call, n) && f[n] == '=' ? (CUresult)atoi(f + n + 1) : CUDA_SUCCESS;
}

CUresult cuInit(unsigned int flags) {
	static int calls;
	(void)flags;
	if (failing("slow")) return calls++ < 6 ? failing("slow") : CUDA_SUCCESS; /* ready at last */
	return failing("init");
}
CUresult cuGetErrorName(CUresult code, const char **name) {
	*name = code == CUDA_ERROR_SYSTEM_NOT_READY ? "CUDA_ERROR_SYSTEM_NOT_READY" : code == CUDA_ERROR_ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : NULL;
	return *name ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuDriverGetVersion(int *v) { *v = 12040; return 0; }
CUresult cuDeviceGetCount(int *n) { *n = failing("count") ? 0 : failing("cards") ? (int)failing("cards") : 1; return 0; }
CUresult cuDeviceGet(CUdevice *d, int i) { *d = i; return 0; }
CUresult cuDeviceGetName(char *name, int size, CUdevice d) { (void)d; snprintf(name, (size_t)size, "Fake H100"); return 0; }
CUresult cuDeviceGetUuid(CUuuid *u, CUdevice d) { memset(u, 0x11 + d, sizeof *u); return 0; }
CUresult cuDeviceTotalMem_v2(size_t *n, CUdevice d) { (void)d; *n = (size_t)80 << 30; return 0; }
CUresult cuDeviceGetAttribute(int *v, CUdevice_attribute which, CUdevice d) {
	(void)d;
	*v = which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? (failing("old") ? 7 : 9) : which == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT ? 132 : 0;
	return 0;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice d) { (void)d; *c = (CUcontext)8; return failing("context"); }
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice d) { (void)d; return 0; }
CUresult cuCtxSetCurrent(CUcontext c) { return c == (CUcontext)8 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT; }
CUresult cuStreamCreate(CUstream *s, unsigned int f) { (void)f; *s = (CUstream)16; return 0; }
CUresult cuStreamSynchronize(CUstream s) { (void)s; return failing("wait"); }
CUresult cuStreamDestroy_v2(CUstream s) { (void)s; return 0; }
CUresult cuStreamWaitEvent(CUstream s, CUevent e, unsigned int f) { (void)s, (void)f; return e ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
CUresult cuEventCreate(CUevent *e, unsigned int f) { (void)f; *e = (CUevent)32; return 0; }
CUresult cuEventRecord(CUevent e, CUstream s) { (void)s; return e ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
CUresult cuEventSynchronize(CUevent e) { (void)e; return failing("event"); }
CUresult cuEventDestroy_v2(CUevent e) { (void)e; return 0; }
static struct { char *at; size_t n; } pins[64];
CUresult cuMemHostAlloc(void **p, size_t n, unsigned int f) {
	(void)f;
	if (n > (size_t)1 << 31) return CUDA_ERROR_OUT_OF_MEMORY;
	if (!(*p = malloc(n))) return CUDA_ERROR_OUT_OF_MEMORY;
	for (int i = 0; i < 64; i++)
		if (!pins[i].at) {
			pins[i].at = *p, pins[i].n = n;
			break;
		}
	return 0;
}
CUresult cuMemFreeHost(void *p) {
	for (int i = 0; i < 64; i++)
		if (pins[i].at == p) pins[i].at = NULL;
	free(p);
	return 0;
}
/* What is copied while the program goes on must be pinned. */
static CUresult pinned(const void *p, size_t n) {
	for (int i = 0; i < 64; i++)
		if (pins[i].at && (const char *)p >= pins[i].at && (const char *)p + n <= pins[i].at + pins[i].n) return CUDA_SUCCESS;
	return CUDA_ERROR_INVALID_VALUE;
}
CUresult cuMemGetInfo_v2(size_t *unused, size_t *total) { *unused = (size_t)5 << 30, *total = (size_t)80 << 30; return 0; }
CUresult cuMemAlloc_v2(CUdeviceptr *p, size_t n) {
	if (n > (size_t)1 << 30) return CUDA_ERROR_OUT_OF_MEMORY;
	*p = (CUdeviceptr)(uintptr_t)malloc(n);
	return 0;
}
CUresult cuMemFree_v2(CUdeviceptr p) { free((void *)(uintptr_t)p); return 0; }
CUresult cuMemsetD8Async(CUdeviceptr p, unsigned char v, size_t n, CUstream s) { (void)s; memset((void *)(uintptr_t)p, v, n); return 0; }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t n, CUstream s) {
	(void)s;
	memcpy((void *)(uintptr_t)to, from, n);
	return pinned(from, n);
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t n, CUstream s) {
	(void)s;
	memcpy(to, (void *)(uintptr_t)from, n);
	return pinned(to, n);
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s) { (void)s; memmove((void *)(uintptr_t)to, (void *)(uintptr_t)from, n); return 0; }
CUresult cuModuleLoadData(CUmodule *m, const void *image) { *m = (CUmodule)image; return memcmp(image, "\177ELF", 4) ? CUDA_ERROR_INVALID_IMAGE : CUDA_SUCCESS; }
CUresult cuModuleUnload(CUmodule m) { (void)m; return 0; }
CUresult cuModuleGetFunction(CUfunction *f, CUmodule m, const char *name) { (void)m; *f = (CUfunction)24; return *name ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND; }
CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute which, int v) { (void)f, (void)which; return v <= 227 << 10 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
CUresult cuLaunchKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared, CUstream s, void **parameters, void **extra) {
	(void)f, (void)shared;
	if (parameters || !gx || !gy || !gz || !bx || by != 1 || bz != 1 || s != (CUstream)16 || extra[0] != CU_LAUNCH_PARAM_BUFFER_POINTER) return CUDA_ERROR_INVALID_VALUE;
	float *target;
	memcpy(&target, extra[1], sizeof target);
	if (captures >= 0) captured[captures++ % 64] = target;
	else *target += 1;
	return failing("launch");
}
/* What the driver's documentation asks of a tensor, and what the kernels count on. */
CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address, const cuuint64_t *size, const cuuint64_t *bytes, const cuuint32_t *box, const cuuint32_t *step, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
	(void)promotion;
	if ((uintptr_t)map % 128 || (uintptr_t)address % 16 || type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 || rank != 3 || interleave || swizzle != CU_TENSOR_MAP_SWIZZLE_128B || fill) return CUDA_ERROR_INVALID_VALUE;
	if (box[0] * 2 != 128) return CUDA_ERROR_INVALID_VALUE; /* the swizzle's width */
	for (int i = 0; i < 3; i++)
		if (!size[i] || size[i] > (cuuint64_t)1 << 32 || !box[i] || box[i] > 256 || step[i] != 1) return CUDA_ERROR_INVALID_VALUE;
	for (int i = 0; i < 2; i++)
		if (bytes[i] % 16 || bytes[i] >= (cuuint64_t)1 << 40) return CUDA_ERROR_INVALID_VALUE;
	if (bytes[1] % bytes[0]) return CUDA_ERROR_INVALID_VALUE;
	memset(map, 0x5a, sizeof *map);
	return CUDA_SUCCESS;
}
CUresult cuStreamBeginCapture_v2(CUstream s, CUstreamCaptureMode mode) { (void)s; captures = 0; return mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
CUresult cuStreamEndCapture(CUstream s, CUgraph *g) {
	(void)s;
	float **all = calloc(65, sizeof *all);
	for (int i = 0; i < captures && i < 64; i++) all[i] = captured[i];
	captures = -1;
	*g = (CUgraph)all;
	return failing("capture");
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec *e, CUgraph g, unsigned long long flags) {
	if (failing("graph")) return failing("graph");
	float **all = calloc(65, sizeof *all);
	memcpy(all, g, 65 * sizeof *all);
	*e = (CUgraphExec)all;
	return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
CUresult cuGraphDestroy(CUgraph g) { free(g); return 0; }
CUresult cuGraphLaunch(CUgraphExec e, CUstream s) {
	(void)s;
	for (float **t = (float **)e; *t; t++) **t += 1;
	return failing("replay");
}
CUresult cuGraphExecDestroy(CUgraphExec e) { free(e); return 0; }
