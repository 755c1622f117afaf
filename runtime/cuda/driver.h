/* libcuda, opened when it is first wanted: declarations of our own, so that building needs no toolkit. */
#pragma once
#include "base/err.h"
#include "runtime/cuda/driver_api.h"

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
    int index, handle, sm; /* its number among the devices; what the driver calls it */
    char name[128];
    size_t memory;
    CuContext context;
} CudaDevice;
/* Takes the device's primary context; cuda_device_close gives it back. */
bool cuda_device_open(CudaDevice *d, Err *err, int index);
void cuda_device_close(CudaDevice *d);
