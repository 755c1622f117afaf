/* The kernels of a program: their text, compiled or from the cache, loaded into the device. */
#include "runtime/cuda/cuda_program.h"
#include "runtime/cuda/explain.h"

/* A driver that serves an older CUDA than NVRTC's may refuse what that made. */
static bool load_module(const CudaDriver *d, Err *err, CuModule *module, const Buf *code)
{
    CuStatus status = d->cuModuleLoadData(module, code->at);
    char nvrtc[64] = "?";
    int version = 0;
    if (status != CU_INVALID_IMAGE && status != CU_NO_BINARY && status != CU_UNSUPPORTED_PTX)
        return cuda_ok(d, err, status, "loading a kernel (cuModuleLoadData)");
    nvrtc_version(&(Err){0}, nvrtc);
    d->cuDriverGetVersion(&version);
    return cuda_ok(d, err, status, "loading a kernel (cuModuleLoadData)") ||
           err_prefix(err, "the driver serves CUDA %d.%d and refuses what NVRTC %s made; a driver of that version, or an older NVRTC, helps",
                      version / 1000, version % 1000 / 10, nvrtc);
}

static bool load_launch(Program *p, Err *err, const Nvrtc *nvrtc, const CudaTarget *target, int i, const char *text)
{
    CudaProgram *c = p->cuda;
    const CudaDriver *d = c->device.driver;
    LoadedKernel *k = &c->kernel[i];
    Buf cubin = {0};
    const char *miss = NULL;
    bool ok = cuda_compile_cached(nvrtc, err, p->cache_dir.at, target, text, &cubin, &miss) &&
              load_module(d, err, &k->module, &cubin) &&
              cuda_ok(d, err, d->cuModuleGetFunction(&k->function, k->module, "kernel"), "cuModuleGetFunction");
    if (ok && k->launch.shared_bytes > 0)
        ok = cuda_ok(d, err, d->cuFuncSetAttribute(k->function, CU_FUNC_MAX_DYNAMIC_SHARED, k->launch.shared_bytes),
                     "shared memory of a kernel (cuFuncSetAttribute)");
    p->code[i].code_bytes = (int64_t)cubin.len;
    p->code[i].miss_reason = miss;
    p->code[i].from_cache = ok && !miss;
    buf_free(&cubin);
    return ok || explain_launch(p, err, c->group[i], c->device.name);
}

/* The launch at kernel i's step; one of equal text serves again. */
static bool make_launch(Program *p, Err *err, const Nvrtc *nvrtc, const CudaTarget *target, int i)
{
    CudaProgram *c = p->cuda;
    LoadedKernel *k = &c->kernel[i];
    Buf text = {0};
    int same = 0;
    bool ok = cuda_group_text(target, err, c->group[i], &text, &k->launch);
    k->text = ok ? hash_bytes(text.at, text.len, 11) : 0;
    while (same < i && !(c->group[same] && c->kernel[same].text == k->text))
        same++;
    if (ok && same < i) {
        *k = c->kernel[same];
        k->module = NULL;
        p->code[i] = p->code[same];
    } else {
        ok = ok && load_launch(p, err, nvrtc, target, i, text.at);
    }
    buf_free(&text);
    return ok;
}

/* What is told of each kernel: where the code that it is part of came from. */
static void describe_kernels(Program *p, const uint64_t *hash)
{
    const CudaProgram *c = p->cuda;
    for (int i = 0; i < p->plan->nkernel; i++)
        for (int j = 0; c->group[i] && j < c->group[i]->nstep; j++) {
            KernelCode *code = &p->code[c->group[i]->step[j]->kernel];
            code->miss_reason = p->code[i].miss_reason;
            code->from_cache = p->code[i].from_cache;
        }
    for (int i = 0; i < p->plan->nkernel; i++) {
        int same = 0;
        while (same < i && hash[same] != hash[i])
            same++;
        p->code[i].same_as = same < i ? same : -1;
        p->stats.cached_kernels += same == i && p->code[i].from_cache;
    }
}

bool cuda_load_kernels(Program *p, Err *err, const CudaTarget *target)
{
    CudaProgram *c = p->cuda;
    int n = p->plan->nkernel;
    uint64_t *hash = arena_array(p->arena, uint64_t, n + 1);
    const Nvrtc *nvrtc = nvrtc_open(err);
    bool ok = nvrtc != NULL;
    for (int i = 0; i < n && ok; i++) {
        hash[i] = graph_hash(p->plan->kernel[i]);
        ok = !c->group[i] || make_launch(p, err, nvrtc, target, i);
    }
    if (ok)
        describe_kernels(p, hash);
    return ok;
}
