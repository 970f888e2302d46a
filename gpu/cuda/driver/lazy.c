/* A libcuda to link against that needs no driver: each call looks its namesake up in the installed driver at first use.
   Without a driver a call returns CUDA_ERROR_NO_DEVICE, without that call in the driver CUDA_ERROR_NOT_FOUND.
   cuInit answers success and nothing else, because the binding ends the process when it fails; the driver's own cuInit
   runs before the first other call, and what it said is what every call then returns. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

#include <cuda.h>

static void *driver;
static CUresult started = CUDA_ERROR_NO_DEVICE;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void start(void) {
	const char *named = getenv("LONGALIGN_LIBCUDA"); /* another driver file, for tests */
	/* Containers get the driver in a folder that their loader may not know. */
	const char *files[] = {"libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1", "/usr/local/nvidia/lib/libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"};
	if (named) driver = dlopen(named, RTLD_NOW | RTLD_GLOBAL);
	else for (size_t i = 0; !driver && i < sizeof files / sizeof *files; i++) driver = dlopen(files[i], RTLD_NOW | RTLD_GLOBAL);
	if (!driver) return;
	CUresult (*init)(unsigned int) = (CUresult (*)(unsigned int))dlsym(driver, "cuInit");
	started = init ? init(0) : CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND;
}

static void *find(const char *name, CUresult *failure) {
	pthread_once(&once, start);
	*failure = started;
	if (started != CUDA_SUCCESS) return NULL;
	void *call = dlsym(driver, name);
	if (!call) *failure = CUDA_ERROR_NOT_FOUND;
	return call;
}

CUresult cuInit(unsigned int flags) { (void)flags; return CUDA_SUCCESS; }

CUresult longalignDriverStatus(int *loaded) {
	static pthread_mutex_t again = PTHREAD_MUTEX_INITIALIZER;
	pthread_once(&once, start);
	*loaded = driver != NULL;
	if (started == CUDA_ERROR_SYSTEM_NOT_READY) { /* it may be by now */
		pthread_mutex_lock(&again);
		CUresult (*init)(unsigned int) = (CUresult (*)(unsigned int))dlsym(driver, "cuInit");
		started = init(0);
		pthread_mutex_unlock(&again);
	}
	return started;
}

/* The driver's name of a code. It asks a driver that does not start, too. */
const char *longalignErrorName(CUresult code) {
	pthread_once(&once, start);
	CUresult (*name)(CUresult, const char **) = driver ? (CUresult (*)(CUresult, const char **))dlsym(driver, "cuGetErrorName") : NULL;
	const char *text = NULL;
	return name && name(code, &text) == CUDA_SUCCESS ? text : NULL;
}

#define CALL(name, parameters, arguments)                                              \
	CUresult name parameters {                                                     \
		static CUresult(*found_) parameters;                                   \
		CUresult(*real_) parameters = __atomic_load_n(&found_, __ATOMIC_ACQUIRE); \
		if (!real_) {                                                          \
			CUresult failure_;                                             \
			real_ = (CUresult(*) parameters)find(#name, &failure_);        \
			if (!real_) return failure_;                                   \
			__atomic_store_n(&found_, real_, __ATOMIC_RELEASE);            \
		}                                                                      \
		return real_ arguments;                                                \
	}
#include "calls.def"
