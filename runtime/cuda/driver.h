/* libcuda, opened when it is first wanted: declarations of our own, so that building needs no toolkit. */
#pragma once
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

typedef int CuStatus;
typedef uint64_t CuPtr; /* an address on the device */
typedef void *CuContext, *CuStream, *CuModule, *CuFunction, *CuGraph, *CuGraphExec;

/* name in the library, result and parameters */
#define CUDA_DRIVER(F)                                                                                                 \
    F(cuInit, (unsigned flags))                                                                                        \
    F(cuDriverGetVersion, (int *version))                                                                              \
    F(cuDeviceGetCount, (int *count))                                                                                  \
    F(cuDeviceGet, (int *device, int ordinal))                                                                         \
    F(cuDeviceGetName, (char *name, int length, int device))                                                           \
    F(cuDeviceGetAttribute, (int *value, int attribute, int device))                                                   \
    F(cuDeviceTotalMem_v2, (size_t * bytes, int device))                                                               \
    F(cuDevicePrimaryCtxRetain, (CuContext * context, int device))                                                     \
    F(cuDevicePrimaryCtxRelease_v2, (int device))                                                                      \
    F(cuCtxSetCurrent, (CuContext context))                                                                            \
    F(cuMemAlloc_v2, (CuPtr * at, size_t bytes))                                                                       \
    F(cuMemFree_v2, (CuPtr at))                                                                                        \
    F(cuMemHostAlloc, (void **at, size_t bytes, unsigned flags))                                                       \
    F(cuMemFreeHost, (void *at))                                                                                       \
    F(cuMemcpyHtoDAsync_v2, (CuPtr to, const void *from, size_t bytes, CuStream stream))                               \
    F(cuMemcpyDtoHAsync_v2, (void *to, CuPtr from, size_t bytes, CuStream stream))                                     \
    F(cuMemcpyDtoDAsync_v2, (CuPtr to, CuPtr from, size_t bytes, CuStream stream))                                     \
    F(cuStreamCreate, (CuStream * stream, unsigned flags))                                                             \
    F(cuStreamDestroy_v2, (CuStream stream))                                                                           \
    F(cuStreamSynchronize, (CuStream stream))                                                                          \
    F(cuStreamBeginCapture_v2, (CuStream stream, int mode))                                                            \
    F(cuStreamEndCapture, (CuStream stream, CuGraph * graph))                                                          \
    F(cuGraphInstantiateWithFlags, (CuGraphExec * exec, CuGraph graph, unsigned long long flags))                      \
    F(cuGraphLaunch, (CuGraphExec exec, CuStream stream))                                                              \
    F(cuGraphExecDestroy, (CuGraphExec exec))                                                                          \
    F(cuGraphDestroy, (CuGraph graph))                                                                                 \
    F(cuModuleLoadData, (CuModule * module, const void *image))                                                        \
    F(cuModuleUnload, (CuModule module))                                                                               \
    F(cuModuleGetFunction, (CuFunction * function, CuModule module, const char *name))                                 \
    F(cuFuncSetAttribute, (CuFunction function, int attribute, int value))                                             \
    F(cuLaunchKernel, (CuFunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,       \
                       unsigned block_y, unsigned block_z, unsigned shared, CuStream stream, void **parameters,        \
                       void **extra))                                                                                  \
    F(cuGetErrorName, (CuStatus status, const char **name))

enum {
    CU_OUT_OF_MEMORY = 2,
    CU_STREAM_NON_BLOCKING = 1,
    CU_CAPTURE_THREAD_LOCAL = 1,
    CU_FUNC_MAX_DYNAMIC_SHARED = 8,
    CU_DEVICE_SM_MAJOR = 75,
    CU_DEVICE_SM_MINOR = 76,
    CU_DRIVER_LEAST = 12000 /* version whose entry points these are */
};

typedef struct CudaDriver {
#define CUDA_MEMBER(name, parameters) CuStatus(*name) parameters;
    CUDA_DRIVER(CUDA_MEMBER)
#undef CUDA_MEMBER
} CudaDriver;

/* The library, opened and initialised once for the process; NULL with err set: which of missing, too old, no device. */
const CudaDriver *cuda_driver(Err *err);
/* True when status is success; else an environment error "what: NAME". */
bool cuda_ok(const CudaDriver *d, Err *err, CuStatus status, const char *what);

typedef struct CudaDevice {
    const CudaDriver *driver;
    int index, sm;
    char name[128];
    size_t memory;
    CuContext context;
} CudaDevice;
/* Takes the device's primary context; cuda_device_close gives it back. */
bool cuda_device_open(CudaDevice *d, Err *err, int index);
void cuda_device_close(CudaDevice *d);
