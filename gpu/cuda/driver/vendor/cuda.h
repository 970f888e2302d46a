/* For builds with NVIDIA's own headers (make cuda CUDA_HEADERS=…): theirs, and what differs from one release to another, so that
   the binding, which was written against CUDA 11, and the launcher compile with each. */
#ifndef LONGALIGN_VENDOR_CUDA_H
#define LONGALIGN_VENDOR_CUDA_H

#include_next <cuda.h>

#ifndef cuDeviceGetUuid /* before 13: that of a part of a card where it is divided (MIG) */
#define cuDeviceGetUuid cuDeviceGetUuid_v2
#endif

#if CUDA_VERSION < 12000 /* without tensor maps, which the installed driver may know all the same */
typedef struct { _Alignas(128) cuuint64_t opaque[16]; } CUtensorMap;
enum { CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 = 9, CU_TENSOR_MAP_INTERLEAVE_NONE = 0, CU_TENSOR_MAP_SWIZZLE_128B = 3, CU_TENSOR_MAP_L2_PROMOTION_L2_256B = 3, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE = 0 };
CUresult cuTensorMapEncodeTiled(CUtensorMap *map, int type, cuuint32_t rank, void *address, const cuuint64_t *size, const cuuint64_t *bytes, const cuuint32_t *box, const cuuint32_t *step, int interleave, int swizzle, int promotion, int fill);
#endif

#if CUDA_VERSION >= 12000 /* newer versions of calls that the binding makes by their first names */
#undef cuStreamWaitValue32
#undef cuStreamWriteValue32
#undef cuGraphAddKernelNode
CUresult cuStreamWaitValue32(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags);
CUresult cuStreamWriteValue32(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags);
/* The first version reads the first members of what is now a longer struct. */
CUresult cuGraphAddKernelNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after, size_t n, const CUDA_KERNEL_NODE_PARAMS *launch);
#endif

#if CUDA_VERSION >= 13000 /* five calls have other parameters; the driver still has them under their first names */
#undef cuCtxCreate
#undef cuMemAdvise
#undef cuMemPrefetchAsync
#undef cuGraphGetEdges
#undef cuGraphAddDependencies
#undef cuEventElapsedTime
#define cuCtxCreate cuCtxCreate_v2
CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device);
CUresult cuMemAdvise(CUdeviceptr address, size_t bytes, CUmem_advise advice, CUdevice device);
CUresult cuMemPrefetchAsync(CUdeviceptr address, size_t bytes, CUdevice device, CUstream stream);
CUresult cuGraphGetEdges(CUgraph graph, CUgraphNode *from, CUgraphNode *to, size_t *n);
CUresult cuGraphAddDependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t n);
CUresult cuEventElapsedTime(float *milliseconds, CUevent from, CUevent to);
#endif

#endif
