/* Loading, memory and steps of a Program on a CUDA device. */
#include "runtime/cuda/run.h"
#include "codegen/cuda/cuda.h"
#include "runtime/cuda/blaslt.h"
#include "runtime/cuda/blaslt_rule.h"
#include "runtime/cuda/driver.h"
#include "runtime/cuda/explain.h"
#include "runtime/cuda/group.h"
#include "runtime/flat.h"
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256, MOST_NODES = 16384 /* of a graph; longer runs are launched step by step */ };

typedef struct LoadedKernel {
    CuModule module; /* NULL: equal to an earlier one */
    CuFunction function;
    CudaLaunch launch;
    uint64_t text; /* hash */
} LoadedKernel;

typedef struct CudaProgram {
    CudaDevice device;
    CuStream stream;
    CuPtr arena, kept, scratch, params, inputs, outputs, literals;
    char *in_pinned, *out_pinned;
    int64_t *in_at, *out_at; /* offsets: of params in params, else in inputs; of outputs in outputs */
    int64_t params_bytes, in_bytes, out_bytes;
    bool *resident;          /* a parameter that no output overwrites */
    bool params_among_inputs; /* one that an output overwrites: the once part finds it with the other inputs */
    bool ends_ready;         /* memory for inputs and outputs is there */
    CudaGroup **group;       /* by kernel: what is launched at its step */
    LoadedKernel *kernel;    /* likewise */
    void **in_ptr, **out_ptr;
    void **captured_in;      /* what in_ptr was when the graph was made */
    bool captures;           /* its runs can be replayed: no host function, not too long */
    Blaslt *blaslt;          /* NULL: it runs none of the products */
    CuPtr workspace;         /* of cuBLASLt's algorithms, which follow each other */
    bool warm;               /* a run has been launched step by step */
    bool by_steps;           /* DAV_CUDA_SYNC=1: waits after each kernel, so that the one that fails is named */
    CuGraphExec graph;       /* a run from its inputs to its outputs; NULL: not captured yet */
} CudaProgram;

int cuda_device_index(const char *name)
{
    int64_t index = 0;
    if (!name || strncmp(name, "cuda", 4) != 0 || (name[4] && (name[4] != ':' || !text_to_i64(name + 5, &index))))
        return -1;
    return index < 0 || index > 1023 ? -1 : (int)index;
}

bool cuda_by_steps(void)
{
    const char *text = getenv("DAV_CUDA_SYNC");
    return text && *text && strcmp(text, "0") != 0;
}

static int64_t padded(int64_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static int64_t bytes_of(const Type *t)
{
    return type_count(t) * (int64_t)dav_dtype_size(t->dtype);
}

static void *device_pointer(CuPtr at)
{
    return (void *)(uintptr_t)at;
}

static CuPtr address(const void *p)
{
    return (CuPtr)(uintptr_t)p;
}

/* ---- kernels ---- */
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

static bool load_kernels(Program *p, Err *err, const CudaTarget *target)
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

/* ---- memory ---- */
/* The largest buffers of the arena, as text. */
static void largest_buffers(const Program *p, Buf *out)
{
    enum { SHOWN = 3 };
    const Plan *plan = p->plan;
    int64_t below = INT64_MAX;
    for (int n = 0; n < SHOWN; n++) {
        int best = -1;
        for (int b = 0; b < plan->nbuf; b++) {
            const PlanBuf *x = &plan->buf[b];
            if (x->place == AT_ARENA && x->shares < 0 && x->bytes < below && (best < 0 || x->bytes > plan->buf[best].bytes))
                best = b;
        }
        if (best < 0)
            return;
        const Node *made = plan->buf[best].val ? node_of(plan->g, plan->buf[best].val) : NULL;
        buf_printf(out, "%s%.1f MB (%s:%d)", n ? ", " : "", (double)plan->buf[best].bytes * 1e-6, made && made->file ? made->file : "?",
                   made ? made->line : 0);
        below = plan->buf[best].bytes;
    }
}

/* What may help: a smaller batch always, a budget where it is the arena that does not fit and something is left for it. */
static void explain_full(const Program *p, Err *err, int64_t bytes, const char *what)
{
    const CudaProgram *c = p->cuda;
    Buf largest = {0}, budget = {0};
    size_t left = 0, whole = 0;
    largest_buffers(p, &largest);
    if (c->device.driver->cuMemGetInfo_v2(&left, &whole) == 0 && left >> 20 && bytes == p->plan->arena_bytes && (int64_t)left < bytes)
        buf_printf(&budget, ", or a memory_budget of %zu MB", left >> 20);
    err_env(err, "CUDA: %s (%zu MB, %.1f MB free) has no room for the %s of '%s', %.1f MB; its arena takes %.1f MB, the largest of it %s; "
                 "a smaller batch helps%s",
            c->device.name, c->device.memory >> 20, (double)left * 1e-6, what, p->stats.name, (double)bytes * 1e-6,
            (double)p->plan->arena_bytes * 1e-6, largest.len ? largest.at : "nothing", budget.len ? budget.at : "");
    buf_free(&largest);
    buf_free(&budget);
}

static bool take(const Program *p, Err *err, CuPtr *at, int64_t bytes, const char *what)
{
    const CudaDriver *d = p->cuda->device.driver;
    CuStatus status = bytes ? d->cuMemAlloc_v2(at, (size_t)bytes) : 0;
    if (status == CU_OUT_OF_MEMORY) {
        explain_full(p, err, bytes, what);
        return false;
    }
    return cuda_ok(d, err, status, what);
}

/* Does an output overwrite an input that lies in a flat array? */
static bool in_flat(const Program *p, int o)
{
    return p->inplace[o] >= 0 && p->in[p->inplace[o]].flat;
}

/* Of what lies in flat arrays nothing is laid out: it has its place already. */
static void lay_out(Program *p)
{
    CudaProgram *c = p->cuda;
    c->params_bytes = c->in_bytes = c->out_bytes = 0;
    for (int i = 0; i < p->nin; i++)
        c->resident[i] = p->in[i].param;
    for (int o = 0; o < p->nout; o++)
        if (p->inplace[o] >= 0)
            c->resident[p->inplace[o]] = false;
    c->params_among_inputs = false;
    for (int i = 0; i < p->nin; i++) {
        int64_t *end = c->resident[i] ? &c->params_bytes : &c->in_bytes;
        c->in_at[i] = *end;
        c->params_among_inputs |= p->in[i].param && !c->resident[i] && !p->in[i].flat;
        *end += p->in[i].flat ? 0 : padded(bytes_of(&p->in[i].type));
    }
    for (int o = 0; o < p->nout; o++) {
        c->out_at[o] = c->out_bytes;
        c->out_bytes += in_flat(p, o) ? 0 : padded(bytes_of(&p->out[o].type));
    }
}

static bool take_memory(Program *p, Err *err)
{
    CudaProgram *c = p->cuda;
    int64_t scratch = 0, literals = 0;
    for (int i = 0; i < p->plan->nkernel; i++) {
        int64_t need = c->kernel[i].launch.scratch_bytes;
        scratch = need > scratch ? need : scratch;
    }
    for (int i = 0; i < p->plan->nliteral; i++)
        literals += padded(node_attr(p->plan->literal[i], A_DATA)->n * 8);
    if (!take(p, err, &c->arena, p->plan->arena_bytes, "arena") || !take(p, err, &c->kept, p->plan->kept_bytes, "packed weights") ||
        !take(p, err, &c->scratch, scratch, "scratch") || !take(p, err, &c->literals, literals, "constants") ||
        !take(p, err, &c->workspace, blaslt_workspace(c->blaslt), "workspace of cuBLASLt"))
        return false;
    p->kept_mem = device_pointer(c->kept);
    return true;
}

/* At the first run, when it is known which inputs lie in flat arrays. */
static bool take_ends(Program *p, Err *err)
{
    CudaProgram *c = p->cuda;
    const CudaDriver *d = c->device.driver;
    if (c->ends_ready)
        return true;
    lay_out(p);
    return c->ends_ready =
           (c->params || take(p, err, &c->params, c->params_bytes, "parameters")) &&
           (c->inputs || take(p, err, &c->inputs, c->in_bytes, "inputs")) &&
           (c->outputs || take(p, err, &c->outputs, c->out_bytes, "outputs")) &&
           (!c->in_bytes || c->in_pinned ||
            cuda_ok(d, err, d->cuMemHostAlloc((void **)&c->in_pinned, (size_t)c->in_bytes, 0), "pinned memory")) &&
           (!c->out_bytes || c->out_pinned ||
            cuda_ok(d, err, d->cuMemHostAlloc((void **)&c->out_pinned, (size_t)c->out_bytes, 0), "pinned memory"));
}

/* p->literal holds host memory; from here on it names the device's. */
static bool send_literals(Program *p, Err *err)
{
    CudaProgram *c = p->cuda;
    const CudaDriver *d = c->device.driver;
    int64_t at = 0;
    for (int i = 0; i < p->plan->nliteral; i++) {
        const Node *n = p->plan->literal[i];
        int64_t count = node_attr(n, A_DATA)->n;
        size_t bytes = (size_t)count * dav_dtype_size((DavDtype)n->dtype);
        CuPtr to = c->literals + (CuPtr)at;
        if (bytes && !cuda_ok(d, err, d->cuMemcpyHtoDAsync_v2(to, p->literal[i], bytes, c->stream), "copying a constant"))
            return false;
        p->literal[i] = device_pointer(to);
        at += padded(count * 8);
    }
    return cuda_ok(d, err, d->cuStreamSynchronize(c->stream), "copying constants");
}

/* Launches and copies of a run without its `once` part; -1: there is a host function among them. */
static int64_t count_nodes(const Plan *plan, CudaGroup *const *group)
{
    int64_t all = 0;
    for (int i = 0; i < plan->nstep && all >= 0; i++) {
        const PlanStep *s = &plan->step[i];
        bool rides = s->kind == STEP_KERNEL && !group[s->kernel];
        int64_t inner = s->kind == STEP_HOST ? -1 : s->kind == STEP_LOOP ? count_nodes(s->body, group) : s->once || rides ? 0 : 1;
        int64_t trip = s->kind == STEP_LOOP ? attr_i(node_of(plan->g, s->node), A_TRIP) : 1;
        if (inner < 0)
            return -1;
        if (__builtin_mul_overflow(inner, trip, &inner) || __builtin_add_overflow(all, inner, &all))
            return INT64_MAX;
    }
    return all;
}

static bool make_launches(Program *p, Err *err, const CudaTarget *target)
{
    CudaProgram *c = p->cuda;
    c->group = cuda_groups(p);
    p->stats.launches = count_nodes(p->plan, c->group);
    c->captures = p->stats.launches > 0 && p->stats.launches <= MOST_NODES && !c->by_steps;
    return load_kernels(p, err, target);
}

bool cuda_prepare(Program *p, Err *err, int index)
{
    CudaProgram *c = p->cuda = arena_alloc(p->arena, sizeof *c);
    c->kernel = arena_array(p->arena, LoadedKernel, p->plan->nkernel + 1);
    c->in_at = arena_array(p->arena, int64_t, p->nin + 1);
    c->out_at = arena_array(p->arena, int64_t, p->nout + 1);
    c->resident = arena_array(p->arena, bool, p->nin + 1);
    c->in_ptr = arena_array(p->arena, void *, p->nin + 1);
    c->out_ptr = arena_array(p->arena, void *, p->nout + 1);
    c->captured_in = arena_array(p->arena, void *, p->nin + 1);
    if (!cuda_device_open(&c->device, err, index))
        return false;
    CudaTarget target;
    if (!cuda_target_of_sm(c->device.sm, &target))
        return err_env(err, "CUDA: %s is of level sm_%d; sm_75 is the least", c->device.name, c->device.sm);
    const CudaDriver *d = c->device.driver;
    target.tf32 = p->options.tf32;
    c->by_steps = cuda_by_steps();
    lay_out(p);
    jit_cache_dir(&p->cache_dir);
    return cuda_ok(d, err, d->cuStreamCreate(&c->stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate") &&
           blaslt_prepare(p, err, &c->device, &c->blaslt) && make_launches(p, err, &target) && take_memory(p, err) && send_literals(p, err);
}

void cuda_release(Program *p)
{
    CudaProgram *c = p->cuda;
    const CudaDriver *d = c ? c->device.driver : NULL;
    if (!d || !c->device.context)
        return;
    d->cuCtxSetCurrent(c->device.context);
    if (c->stream) {
        d->cuStreamSynchronize(c->stream); /* copies may still go to memory that is freed next */
        if (c->graph)
            d->cuGraphExecDestroy(c->graph);
        d->cuStreamDestroy_v2(c->stream);
    }
    for (int i = 0; i < p->plan->nkernel; i++)
        if (c->kernel[i].module)
            d->cuModuleUnload(c->kernel[i].module);
    blaslt_release(c->blaslt);
    const CuPtr memory[] = {c->arena, c->kept, c->scratch, c->workspace, c->literals, c->params, c->inputs, c->outputs};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i])
            d->cuMemFree_v2(memory[i]);
    if (c->in_pinned)
        d->cuMemFreeHost(c->in_pinned);
    if (c->out_pinned)
        d->cuMemFreeHost(c->out_pinned);
    cuda_device_close(&c->device);
}

/* ---- steps ---- */
/* The step's kernel, and those that share its launch. */
static bool launch(Program *p, Err *err, const Frame *f, const PlanStep *s)
{
    CudaProgram *c = p->cuda;
    const CudaGroup *g = c->group[s->kernel];
    const LoadedKernel *k = &c->kernel[s->kernel];
    void *arg[g->npointer + 1], *value[g->npointer + 1];
    int n = 0;
    if (k->launch.blocks == 0)
        return true;
    for (int i = 0; i < g->nstep; i++)
        for (int j = 0; j < g->step[i]->nbuf; j++)
            value[n++] = f->ptr[g->step[i]->buf[j]];
    value[n] = device_pointer(c->scratch);
    for (int i = 0; i <= n; i++)
        arg[i] = &value[i]; /* a group's one parameter is a table of all of them */
    const CudaDriver *d = c->device.driver;
    bool ok = p->product[s->kernel].library
                  ? blaslt_launch(c->blaslt, err, s->kernel, value, c->workspace, c->stream)
                  : cuda_ok(d, err, d->cuLaunchKernel(k->function, (unsigned)k->launch.blocks, 1, 1, (unsigned)k->launch.threads, 1, 1,
                                                      (unsigned)k->launch.shared_bytes, c->stream, arg, NULL), "cuLaunchKernel");
    ok = ok && (!c->by_steps || cuda_ok(d, err, d->cuStreamSynchronize(c->stream), "running"));
    return ok || explain_launch(p, err, g, c->device.name);
}

static bool copy(Program *p, Err *err, void *to, const void *from, int64_t bytes)
{
    const CudaDriver *d = p->cuda->device.driver;
    return to == from || bytes == 0 ||
           cuda_ok(d, err, d->cuMemcpyDtoDAsync_v2(address(to), address(from), (size_t)bytes, p->cuda->stream), "cuMemcpyDtoD");
}

typedef struct HostCall { Program *p; Err *err; const Frame *f; const PlanStep *s; Arena *arena; } HostCall;

/* Operands come to the host, the result goes back; the host waits for the device here and nowhere else in a run. */
static bool call_host(void *arg)
{
    HostCall *h = arg;
    Program *p = h->p;
    const CudaProgram *c = p->cuda;
    const CudaDriver *d = c->device.driver;
    const Graph *g = h->f->plan->g;
    const Node *n = node_of(g, h->s->node);
    void **in = arena_array(h->arena, void *, n->narg + 1);
    Type *in_type = arena_array(h->arena, Type, n->narg + 1), out_type = type_of(g, h->s->node);
    for (int i = 0; i < n->narg; i++) {
        in_type[i] = type_of(g, n->arg[i]);
        size_t bytes = (size_t)bytes_of(&in_type[i]);
        in[i] = arena_alloc(h->arena, bytes + 1);
        if (bytes && !cuda_ok(d, h->err, d->cuMemcpyDtoHAsync_v2(in[i], address(h->f->ptr[h->s->buf[i]]), bytes, c->stream), "cuMemcpyDtoH"))
            return false;
    }
    size_t bytes = (size_t)bytes_of(&out_type);
    void *out = arena_alloc(h->arena, bytes + 1);
    if (!cuda_ok(d, h->err, d->cuStreamSynchronize(c->stream), "waiting for the device before a host function") ||
        !host_call(p, h->err, attr_s(n, A_NAME), n->narg, in_type, (const void *const *)in, 1, &out_type, &out))
        return false;
    CuPtr to = address(h->f->ptr[h->s->buf[n->narg]]);
    return (!bytes || cuda_ok(d, h->err, d->cuMemcpyHtoDAsync_v2(to, out, bytes, c->stream), "cuMemcpyHtoD")) &&
           cuda_ok(d, h->err, d->cuStreamSynchronize(c->stream), "copying a host function's result");
}

static bool run_host(Program *p, Err *err, const Frame *f, const PlanStep *s)
{
    HostCall h = {p, err, f, s, arena_new()};
    bool ok = mem_protect(err, call_host, &h);
    p->cuda->device.driver->cuStreamSynchronize(p->cuda->stream); /* after a failure: copies into the arena are under way */
    arena_free(h.arena);
    return ok;
}

static bool run_steps(Program *p, Err *err, Frame *f, bool once);

static bool run_loop(Program *p, Err *err, Frame *f, const PlanStep *s, Frame *body)
{
    const Node *n = node_of(f->plan->g, s->node);
    int64_t trip = attr_i(n, A_TRIP);
    bool ok = true;
    for (int64_t it = 0; it < trip && ok; it++) {
        frame_bind_iteration(p, f, s, body, it, trip);
        ok = run_steps(p, err, body, false);
    }
    for (int i = 0; trip == 0 && ok && i < attr_i(n, A_CARRY); i++)
        ok = copy(p, err, f->ptr[s->buf[n->narg + i]], f->ptr[s->buf[i]], f->plan->buf[s->buf[i]].bytes);
    return ok;
}

static bool run_steps(Program *p, Err *err, Frame *f, bool once)
{
    bool ok = true;
    for (int i = 0; i < f->plan->nstep && ok; i++) {
        const PlanStep *s = &f->plan->step[i];
        if (s->once != once)
            continue;
        switch (s->kind) {
        case STEP_KERNEL:
            ok = !p->cuda->group[s->kernel] || launch(p, err, f, s);
            break;
        case STEP_HOST:
            ok = run_host(p, err, f, s);
            break;
        case STEP_LOOP:
            ok = run_loop(p, err, f, s, f->inner[i]);
            break;
        case STEP_COPY:
            ok = copy(p, err, f->ptr[s->buf[0]], f->ptr[s->buf[1]], f->plan->buf[s->buf[0]].bytes);
            break;
        }
    }
    return ok;
}

/* ---- a run ---- */
/* What lies in a flat array is there or is sent; parameters go when they have changed; the other inputs are put where the run will
 * fetch them. */
static bool put_inputs(Program *p, Err *err, void *const *in, bool once)
{
    CudaProgram *c = p->cuda;
    const CudaDriver *d = c->device.driver;
    for (int i = 0; i < p->nin; i++) {
        const Signature *s = &p->in[i];
        CuPtr array;
        if (s->flat) {
            if (!flat_on_device(err, s->flat, &c->device, c->stream, &array))
                return false;
            c->in_ptr[i] = device_pointer(array + (CuPtr)s->first * sizeof(float));
            continue;
        }
        size_t bytes = (size_t)bytes_of(&p->in[i].type);
        CuPtr to = (c->resident[i] ? c->params : c->inputs) + (CuPtr)c->in_at[i];
        c->in_ptr[i] = device_pointer(to);
        if (!c->resident[i] && bytes)
            memcpy(c->in_pinned + c->in_at[i], in[i], bytes);
        else if (once && bytes && !cuda_ok(d, err, d->cuMemcpyHtoDAsync_v2(to, in[i], bytes, c->stream), "copying a parameter"))
            return false;
    }
    return true;
}

static bool fetch_inputs(Program *p, Err *err)
{
    CudaProgram *c = p->cuda;
    const CudaDriver *d = c->device.driver;
    return c->in_bytes == 0 || cuda_ok(d, err, d->cuMemcpyHtoDAsync_v2(c->inputs, c->in_pinned, (size_t)c->in_bytes, c->stream),
                                       "copying the inputs");
}

static bool send_outputs(Program *p, Err *err)
{
    CudaProgram *c = p->cuda;
    const CudaDriver *d = c->device.driver;
    for (int o = 0; o < p->nout; o++) /* what lies in the memory of an input joins the others: one copy to the host */
        if (p->inplace[o] >= 0 && !in_flat(p, o) && !copy(p, err, device_pointer(c->outputs + (CuPtr)c->out_at[o]), c->out_ptr[o], bytes_of(&p->out[o].type)))
            return false;
    return !c->out_bytes || cuda_ok(d, err, d->cuMemcpyDtoHAsync_v2(c->out_pinned, c->outputs, (size_t)c->out_bytes, c->stream),
                                    "copying the outputs");
}

/* Everything between the pinned inputs and the pinned outputs, at addresses that no run changes. */
static bool enqueue(Program *p, Err *err)
{
    return fetch_inputs(p, err) && run_steps(p, err, p->frame, false) && send_outputs(p, err);
}

static bool capture(Program *p, Err *err)
{
    CudaProgram *c = p->cuda;
    const CudaDriver *d = c->device.driver;
    CuGraph graph = NULL;
    if (!cuda_ok(d, err, d->cuStreamBeginCapture_v2(c->stream, CU_CAPTURE_THREAD_LOCAL), "cuStreamBeginCapture"))
        return false;
    bool ok = enqueue(p, err);
    CuStatus ended = d->cuStreamEndCapture(c->stream, &graph); /* also after a failure: the stream must work again */
    ok = ok && cuda_ok(d, err, ended, "cuStreamEndCapture") &&
         cuda_ok(d, err, d->cuGraphInstantiateWithFlags(&c->graph, graph, 0), "cuGraphInstantiate");
    if (graph) /* destroyed in any case */
        ok = cuda_ok(d, ok ? err : &(Err){0}, d->cuGraphDestroy(graph), "cuGraphDestroy") && ok;
    p->stats.captures += ok;
    return ok;
}

static bool work(Program *p, Err *err, bool once)
{
    CudaProgram *c = p->cuda;
    const CudaDriver *d = c->device.driver;
    if (once && !((!c->params_among_inputs || fetch_inputs(p, err)) && run_steps(p, err, p->frame, true)))
        return false;
    bool cold = blaslt_any(c->blaslt) && !c->warm; /* a library may load its code at its first call, which no capture allows */
    c->warm = true;
    if (!c->captures || cold)
        return enqueue(p, err);
    if (c->graph && memcmp(c->captured_in, c->in_ptr, (size_t)p->nin * sizeof *c->in_ptr) != 0) { /* bound to another array since */
        CuGraphExec old = c->graph;
        c->graph = NULL;
        if (!cuda_ok(d, err, d->cuGraphExecDestroy(old), "cuGraphExecDestroy"))
            return false;
    }
    if (!c->graph && !capture(p, err))
        return false;
    memcpy(c->captured_in, c->in_ptr, (size_t)p->nin * sizeof *c->in_ptr);
    p->stats.replays++;
    return cuda_ok(d, err, d->cuGraphLaunch(c->graph, c->stream), "cuGraphLaunch") ||
           err_prefix(err, "'%s' on %s (DAV_CUDA_SYNC=1 names the kernel)", p->stats.name, c->device.name);
}

static bool take_outputs(Program *p, Err *err, void *const *in, void *const *out)
{
    CudaProgram *c = p->cuda;
    const CudaDriver *d = c->device.driver;
    if (!cuda_ok(d, err, d->cuStreamSynchronize(c->stream), "running"))
        return err_prefix(err, "'%s' on %s (DAV_CUDA_SYNC=1 names the kernel)", p->stats.name, c->device.name);
    for (int o = 0; o < p->nout; o++) {
        if (in_flat(p, o))
            continue;
        void *to = out[o] || p->inplace[o] < 0 ? out[o] : in[p->inplace[o]];
        if (to && bytes_of(&p->out[o].type))
            memcpy(to, c->out_pinned + c->out_at[o], (size_t)bytes_of(&p->out[o].type));
    }
    return true;
}

bool cuda_run(Program *p, Err *err, void *const *in, void *const *out, bool once)
{
    CudaProgram *c = p->cuda;
    const CudaDriver *d = c->device.driver;
    bool ok = cuda_ok(d, err, d->cuCtxSetCurrent(c->device.context), "cuCtxSetCurrent") && take_ends(p, err) &&
              put_inputs(p, err, in, once);
    bool begun = false;
    for (int o = 0; o < p->nout; o++)
        c->out_ptr[o] = p->inplace[o] >= 0 ? c->in_ptr[p->inplace[o]] : device_pointer(c->outputs + (CuPtr)c->out_at[o]);
    if (ok) {
        frame_bind(p, p->frame, c->in_ptr, c->out_ptr, device_pointer(c->arena));
        ok = work(p, err, once) && take_outputs(p, err, in, out);
        begun = true;
    }
    if (!ok) /* nothing may still read the caller's memory */
        d->cuStreamSynchronize(c->stream);
    for (int o = 0; begun && o < p->nout; o++) /* also after a failure: nobody knows how far it came */
        if (in_flat(p, o))
            flat_device_wrote(p->in[p->inplace[o]].flat, &c->device);
    return ok;
}
