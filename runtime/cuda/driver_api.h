/* What is used of libcuda, declared without its header; tests/cuda_headers compares it with that. Also read as C++. */
#pragma once
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
    F(cuMemGetInfo_v2, (size_t * free, size_t * whole))                                                                \
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
    CU_INVALID_IMAGE = 200,
    CU_NO_BINARY = 209,
    CU_UNSUPPORTED_PTX = 222,
    CU_STREAM_NON_BLOCKING = 1,
    CU_STUB = 34,
    /* after these nothing works in this process any more */
    CU_LOST_ECC = 214,
    CU_LOST_ADDRESS = 700,
    CU_LOST_TIMEOUT = 702,
    CU_LOST_DESTROYED = 709,
    CU_LOST_ASSERT = 710,
    CU_LOST_STACK = 714,
    CU_LOST_ILLEGAL = 715,
    CU_LOST_MISALIGNED = 716,
    CU_LOST_ADDRESS_SPACE = 717,
    CU_LOST_PC = 718,
    CU_LOST_LAUNCH = 719,
    CU_CAPTURE_THREAD_LOCAL = 1,
    CU_FUNC_MAX_DYNAMIC_SHARED = 8,
    CU_DEVICE_SM_MAJOR = 75,
    CU_DEVICE_SM_MINOR = 76,
    CU_DRIVER_LEAST = 12000 /* version whose entry points these are */
};
