/* Opening libcuda and a device. */
#include "runtime/cuda/driver.h"
#include "codegen/cuda/cuda.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static const char library[] = "libcuda.so.1";

typedef struct Opened { CudaDriver driver; bool tried, ok; Err err; } Opened;
static Opened opened;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

static void *open_library(Err *err)
{
    void *so = cuda_library(library);
    if (!so)
        err_env(err, "CUDA: %s, which comes with NVIDIA's driver, does not load: %s", library, dlerror());
    return so;
}

/* After these nothing works in this process any more. */
static bool is_lost(CuStatus status)
{
    static const CuStatus lost[] = {CU_LOST_ECC,     CU_LOST_ADDRESS,     CU_LOST_TIMEOUT,    CU_LOST_DESTROYED, CU_LOST_ASSERT, CU_LOST_STACK,
                                    CU_LOST_ILLEGAL, CU_LOST_MISALIGNED, CU_LOST_ADDRESS_SPACE, CU_LOST_PC,     CU_LOST_LAUNCH};
    for (size_t i = 0; i < sizeof lost / sizeof *lost; i++)
        if (status == lost[i])
            return true;
    return false;
}

bool cuda_ok(const CudaDriver *d, Err *err, CuStatus status, const char *what)
{
    const char *name = NULL;
    if (status == 0)
        return true;
    if (!d->cuGetErrorName || d->cuGetErrorName(status, &name) != 0 || !name)
        name = status == CU_STUB ? "CUDA_ERROR_STUB_LIBRARY" : "an unknown status";
    return err_env(err, "CUDA: %s: %s (%d)%s", what, name, status,
                   status == CU_OUT_OF_MEMORY ? "; its memory, or the host's for pinned memory, is full: smaller batches (sample.batch_size, "
                                                "train.micro_batch) or fewer processes on it help"
                   : status == CU_STUB ? "; this libcuda is the toolkit's, for linking: NVIDIA's driver is missing"
                   : is_lost(status) ? "; the device is lost to this process, what the last checkpoint holds is not: --resume goes on from there" : "");
}

static bool find_symbols(CudaDriver *d, Err *err, void *so)
{
#define CUDA_FIND(name, parameters)                                                                                    \
    *(void **)&d->name = dlsym(so, #name);                                                                             \
    if (!d->name)                                                                                                      \
        return err_env(err, "CUDA: the driver is too old: %s has no %s", library, #name);
    CUDA_DRIVER(CUDA_FIND)
#undef CUDA_FIND
    return true;
}

static bool open_driver(CudaDriver *d, Err *err)
{
    void *so = open_library(err);
    int version = 0, count = 0;
    if (!so || !find_symbols(d, err, so) || !cuda_ok(d, err, d->cuInit(0), "the driver does not start (cuInit)") ||
        !cuda_ok(d, err, d->cuDriverGetVersion(&version), "cuDriverGetVersion"))
        return false;
    if (version < CU_DRIVER_LEAST)
        return err_env(err, "CUDA: the driver is too old: it serves CUDA %d.%d, %d.%d is needed", version / 1000,
                       version % 1000 / 10, CU_DRIVER_LEAST / 1000, CU_DRIVER_LEAST % 1000 / 10);
    if (!cuda_ok(d, err, d->cuDeviceGetCount(&count), "cuDeviceGetCount"))
        return false;
    return count > 0 || err_env(err, "CUDA: the driver runs but finds no device");
}

const CudaDriver *cuda_driver(Err *err)
{
    pthread_mutex_lock(&opening);
    if (!opened.tried) {
        opened.ok = open_driver(&opened.driver, &opened.err);
        opened.tried = true;
    }
    pthread_mutex_unlock(&opening);
    if (opened.ok)
        return &opened.driver;
    err_env(err, "%s", opened.err.text);
    return NULL;
}

bool cuda_device_open(CudaDevice *d, Err *err, int index)
{
    int count = 0, handle = 0, major = 0, minor = 0;
    const CudaDriver *c = cuda_driver(err);
    if (!c || !cuda_ok(c, err, c->cuDeviceGetCount(&count), "cuDeviceGetCount"))
        return false;
    if (index < 0 || index >= count)
        return err_user(err, "device cuda:%d: this machine has %d (cuda:0 to cuda:%d)", index, count, count - 1);
    CuContext context = NULL;
    if (!cuda_ok(c, err, c->cuDeviceGet(&handle, index), "cuDeviceGet") ||
        !cuda_ok(c, err, c->cuDeviceGetName(d->name, sizeof d->name, handle), "cuDeviceGetName") ||
        !cuda_ok(c, err, c->cuDeviceTotalMem_v2(&d->memory, handle), "cuDeviceTotalMem") ||
        !cuda_ok(c, err, c->cuDeviceGetAttribute(&major, CU_DEVICE_SM_MAJOR, handle), "cuDeviceGetAttribute") ||
        !cuda_ok(c, err, c->cuDeviceGetAttribute(&minor, CU_DEVICE_SM_MINOR, handle), "cuDeviceGetAttribute") ||
        !cuda_ok(c, err, c->cuDevicePrimaryCtxRetain(&context, handle), "cuDevicePrimaryCtxRetain"))
        return false;
    d->driver = c;
    d->index = index;
    d->handle = handle;
    d->sm = 10 * major + minor;
    d->context = context;
    return cuda_ok(c, err, c->cuCtxSetCurrent(context), "cuCtxSetCurrent");
}

void cuda_device_close(CudaDevice *d)
{
    if (d->context)
        d->driver->cuDevicePrimaryCtxRelease_v2(d->handle);
    d->context = NULL;
}
