/* NVRTC by dlopen, with declarations of our own. */
#include "codegen/cache.h"
#include "codegen/cuda/cuda.h"
#include "codegen/cuda/nvrtc_api.h"
#include <dlfcn.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CUDA_OPTIONS "--std=c++17", "--disable-warnings", "--fmad=false", "--ptxas-options=-v"

struct Nvrtc {
    void *library;
#define MEMBER(result, name, parameters) result(*name) parameters;
    NVRTC(MEMBER)
#undef MEMBER
};

static const char library[] = "libnvrtc.so.13";

static bool find_symbols(Nvrtc *n, Err *err)
{
#define FIND(result, name, parameters)                                                                                 \
    *(void **)&n->name = dlsym(n->library, #name);                                                                     \
    if (!n->name)                                                                                                      \
        return err_env(err, "CUDA: %s has no %s", library, #name);
    NVRTC(FIND)
#undef FIND
    return true;
}

static void forget(Nvrtc *n)
{
    if (n && n->library)
        dlclose(n->library);
    free(n);
}

static Nvrtc *load(Err *err)
{
    char path[4096];
    const char *folder = getenv("DAV_CUDA_LIBRARY_PATH");
    Nvrtc *n = calloc(1, sizeof *n);
    if (!n) {
        err_env(err, "out of memory");
        return NULL;
    }
    snprintf(path, sizeof path, "%s%s%s", folder ? folder : "", folder ? "/" : "", library);
    n->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!n->library)
        err_env(err, "CUDA: %s of the CUDA 13 toolkit does not load: %s", library, dlerror());
    if (n->library && find_symbols(n, err))
        return n;
    forget(n);
    return NULL;
}

const Nvrtc *nvrtc_open(Err *err)
{
    static Nvrtc *opened;
    static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&opening);
    if (!opened)
        opened = load(err);
    pthread_mutex_unlock(&opening);
    return opened;
}

bool nvrtc_version(Err *err, char out[64])
{
    int major = 0, minor = 0;
    const Nvrtc *n = nvrtc_open(err);
    if (!n)
        return false;
    if (n->nvrtcVersion(&major, &minor) != 0)
        return err_env(err, "CUDA: %s does not tell its version", library);
    snprintf(out, 64, "%d.%d", major, minor);
    return true;
}

static bool succeeded(const Nvrtc *n, Err *err, int status, const char *what)
{
    return status == 0 || err_env(err, "CUDA: %s: %s", what, n->nvrtcGetErrorString(status));
}

static void read_log(const Nvrtc *n, NvrtcProgram p, Buf *log)
{
    size_t bytes = 0;
    if (n->nvrtcGetProgramLogSize(p, &bytes) != 0 || bytes < 2)
        return;
    char *text = mem_alloc(bytes + 1);
    if (n->nvrtcGetProgramLog(p, text) == 0)
        buf_str(log, text);
    mem_free(text);
}

static bool compile(const Nvrtc *n, Err *err, NvrtcProgram p, int sm, const char *text, Buf *cubin, Buf *log)
{
    char arch[32];
    snprintf(arch, sizeof arch, "--gpu-architecture=sm_%d", sm);
    const char *const option[] = {arch, CUDA_OPTIONS};
    int status = n->nvrtcCompileProgram(p, (int)(sizeof option / sizeof *option), option);
    read_log(n, p, log);
    if (status == NVRTC_COMPILATION)
        die("NVRTC refuses a kernel for sm_%d:\n%s\nThe kernel, which compiles alone:\n%s", sm, log->len ? log->at : "", text);
    if (status == NVRTC_BUILTIN_OPERATION)
        return err_env(err, "CUDA: NVRTC does not find its builtins, the library libnvrtc-builtins that belongs beside %s: %.300s", library,
                       log->len ? log->at : n->nvrtcGetErrorString(status));
    size_t bytes = 0;
    if (!succeeded(n, err, status, "nvrtcCompileProgram") ||
        !succeeded(n, err, n->nvrtcGetCUBINSize(p, &bytes), "nvrtcGetCUBINSize"))
        return false;
    char *code = mem_alloc(bytes + 1);
    bool ok = succeeded(n, err, n->nvrtcGetCUBIN(p, code), "nvrtcGetCUBIN");
    if (ok)
        buf_add(cubin, code, bytes);
    mem_free(code);
    return ok;
}

bool cuda_compile(const Nvrtc *n, Err *err, const CudaTarget *t, const char *text, Buf *cubin, Buf *log)
{
    NvrtcProgram p = NULL;
    if (!succeeded(n, err, n->nvrtcCreateProgram(&p, text, "kernel.cu", 0, NULL, NULL), "nvrtcCreateProgram"))
        return false;
    bool ok = compile(n, err, p, t->sm, text, cubin, log);
    n->nvrtcDestroyProgram(&p);
    return ok;
}

/* The text holds everything of ours that the cubin depends on; the rest is NVRTC's version, its options and the level. */
static void key_of(const Nvrtc *n, Buf *key, const CudaTarget *t, const char *text)
{
    static const char *const option[] = {CUDA_OPTIONS};
    int major = 0, minor = 0;
    size_t len = strlen(text);
    n->nvrtcVersion(&major, &minor);
    buf_printf(key, "cuda %016" PRIx64 "%016" PRIx64 " of %zu bytes sm %d nvrtc %d.%d", hash_bytes(text, len, 11), hash_bytes(text, len, 23),
               len, t->sm, major, minor);
    for (size_t i = 0; i < sizeof option / sizeof *option; i++)
        buf_printf(key, " %s", option[i]);
}

bool cuda_compile_cached(const Nvrtc *n, Err *err, const char *dir, const CudaTarget *t, const char *text, Buf *cubin, const char **miss)
{
    Buf key = {0}, log = {0};
    key_of(n, &key, t, text);
    *miss = cache_read(dir, key.at, cubin);
    bool ok = !*miss || cuda_compile(n, err, t, text, cubin, &log);
    if (ok && *miss)
        cache_write(dir, key.at, cubin);
    buf_free(&key);
    buf_free(&log);
    return ok;
}
