#include "support/cuda.h"
#include "runtime/cuda/driver.h"
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool asks_for_the_machines_own(void)
{
    const char *wanted = getenv("DAV_TEST_CUDA");
    return wanted && strcmp(wanted, "device") == 0;
}

void cuda_choose(void)
{
    if (!asks_for_the_machines_own())
        setenv("DAV_CUDA_LIBRARY_PATH", DAV_CUDA_STANDIN, 0);
    setenv("DAV_CUDA_POISON", "1", 1); /* whoever forgets flat_read sees it (runtime/flat.h) */
}

bool cuda_is_there(void)
{
    Err err = {0};
    CudaDevice d = {0};
    bool there = !asks_for_the_machines_own() || cuda_device_open(&d, &err, 0);
    if (!there)
        print_message("SKIPPED: no CUDA device: %s\n", err.text);
    cuda_device_close(&d);
    return there;
}

void cuda_or_skip(void)
{
    if (!cuda_is_there())
        skip();
}

int cuda_device_count(void)
{
    Err err = {0};
    int count = 0;
    const CudaDriver *d = cuda_driver(&err);
    return d && d->cuDeviceGetCount(&count) == 0 ? count : 0;
}

void *cuda_standin_symbol(const char *name)
{
    char symbol[64];
    snprintf(symbol, sizeof symbol, "dav_standin_%s", name);
    static const char *const library[] = {DAV_CUDA_STANDIN "/libcuda.so.1", DAV_CUDA_STANDIN "/libcublasLt.so.13"};
    void *found = NULL;
    for (int i = 0; i < 2 && !found; i++) {
        void *so = dlopen(library[i], RTLD_NOW | RTLD_NOLOAD);
        found = so ? dlsym(so, symbol) : NULL;
    }
    return found;
}

long long cuda_standin(const char *name)
{
    long long (*count)(void) = (long long (*)(void))cuda_standin_symbol(name);
    return count ? count() : 0;
}

void cuda_standin_or_skip(void)
{
    Err err = {0};
    cuda_driver(&err);
    if (cuda_standin("calls"))
        return;
    print_message("SKIPPED: the device is not the stand-in\n");
    skip();
}
