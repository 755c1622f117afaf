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

static const char *const libraries[] = {"libnvrtc.so.13", "libnvrtc.so.12"};

static bool find_symbols(Nvrtc *n, Err *err, const char *library)
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

/* One library; *found: it is there, whatever comes of it. */
static Nvrtc *load(Err *err, const char *library, bool *found)
{
    Nvrtc *n = calloc(1, sizeof *n);
    if (!n) {
        err_env(err, "out of memory");
        return NULL;
    }
    n->library = cuda_library(library);
    *found = n->library != NULL;
    if (!*found)
        err_env(err, "CUDA: %s of the CUDA toolkit does not load: %s", library, dlerror());
    if (*found && find_symbols(n, err, library))
        return n;
    forget(n);
    return NULL;
}

/* The newest that is there; what is wrong with the first one is what is told. */
static Nvrtc *load_any(Err *err)
{
    Err other = {0};
    bool found = false;
    Nvrtc *n = load(err, libraries[0], &found);
    for (size_t i = 1; !n && !found && i < sizeof libraries / sizeof *libraries; i++)
        n = load(&other, libraries[i], &found);
    if (n)
        err_clear(err);
    return n;
}

const Nvrtc *nvrtc_open(Err *err)
{
    static Nvrtc *opened;
    static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&opening);
    if (!opened)
        opened = load_any(err);
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
        return err_env(err, "CUDA: NVRTC does not tell its version");
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

/* Leaves the kernel as a file that nvcc compiles alone; path "" when it cannot. */
static void write_repro(const char *arch, const char *text, char path[4096])
{
    Err ignored = {0};
    Buf whole = {0};
    const char *folder = getenv("TMPDIR");
    snprintf(path, 4096, "%s/dav-kernel-%016" PRIx64 ".cu", folder ? folder : "/tmp", hash_bytes(text, strlen(text), 11));
    buf_printf(&whole, "// nvcc --std=c++17 -fmad=false -arch=%s -cubin -o /dev/null %s\n%s", strchr(arch, '=') + 1, path, text);
    if (!file_write(&ignored, path, whole.at, whole.len))
        path[0] = 0;
    buf_free(&whole);
}

static _Noreturn void die_of(const char *arch, const char *text, const char *log)
{
    char path[4096];
    write_repro(arch, text, path);
    if (!path[0]) /* it is all there is to find the bug by */
        fputs(text, stderr);
    die("NVRTC refuses a kernel that dav wrote (%s):\n%s\nThe kernel stands in %s; its first line says how to compile it alone", arch, log,
        path[0] ? path : "the lines above");
}

typedef int (*SizeOf)(NvrtcProgram, size_t *);
typedef int (*CopyOf)(NvrtcProgram, char *);

static bool take_code(const Nvrtc *n, Err *err, NvrtcProgram p, SizeOf size, CopyOf copy, Buf *out)
{
    size_t bytes = 0;
    if (!succeeded(n, err, size(p, &bytes), "asking NVRTC for the size of a kernel's code"))
        return false;
    char *code = mem_alloc(bytes + 1);
    bool ok = succeeded(n, err, copy(p, code), "taking a kernel's code from NVRTC");
    if (ok)
        buf_add(out, code, bytes);
    mem_free(code);
    return ok;
}

static void arch_option(const CudaTarget *t, char out[40])
{
    snprintf(out, 40, "--gpu-architecture=%s_%d", t->ptx ? "compute" : "sm", t->sm);
}

static bool compile(const Nvrtc *n, Err *err, NvrtcProgram p, const CudaTarget *t, const char *text, Buf *code, Buf *log)
{
    char arch[40];
    arch_option(t, arch);
    const char *const option[] = {arch, CUDA_OPTIONS};
    int options = (int)(sizeof option / sizeof *option) - t->ptx; /* the last one is for ptxas, which PTX does not meet here */
    int status = n->nvrtcCompileProgram(p, options, option);
    read_log(n, p, log);
    if (status == NVRTC_COMPILATION)
        die_of(arch, text, log->len ? log->at : "");
    if (status == NVRTC_BUILTIN_OPERATION)
        return err_env(err, "CUDA: NVRTC does not find its builtins, the library libnvrtc-builtins that belongs beside libnvrtc: %.300s",
                       log->len ? log->at : n->nvrtcGetErrorString(status));
    if (status == NVRTC_INVALID_OPTION)
        return err_env(err, "CUDA: this NVRTC does not know sm_%d; a newer one does", t->sm);
    return succeeded(n, err, status, "nvrtcCompileProgram") &&
           (t->ptx ? take_code(n, err, p, n->nvrtcGetPTXSize, n->nvrtcGetPTX, code)
                   : take_code(n, err, p, n->nvrtcGetCUBINSize, n->nvrtcGetCUBIN, code));
}

bool cuda_compile(const Nvrtc *n, Err *err, const CudaTarget *t, const char *text, Buf *cubin, Buf *log)
{
    NvrtcProgram p = NULL;
    if (!succeeded(n, err, n->nvrtcCreateProgram(&p, text, "kernel.cu", 0, NULL, NULL), "nvrtcCreateProgram"))
        return false;
    bool ok = compile(n, err, p, t, text, cubin, log);
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
    buf_printf(key, "cuda %016" PRIx64 "%016" PRIx64 " of %zu bytes sm %d%s nvrtc %d.%d", hash_bytes(text, len, 11),
               hash_bytes(text, len, 23), len, t->sm, t->ptx ? " ptx" : "", major, minor);
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
