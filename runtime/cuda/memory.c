/* The memory of a program on its device. */
#include "runtime/cuda/cuda_program.h"
#include <string.h>

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
        buf_printf(out, "%s%.1f MB", n ? ", " : "", (double)plan->buf[best].bytes * 1e-6);
        if (made && made->file)
            buf_printf(out, " (%s:%d)", made->file, made->line);
        below = plan->buf[best].bytes;
    }
}

static int64_t scratch_bytes(const Program *p)
{
    int64_t most = 0;
    for (int i = 0; i < p->plan->nkernel; i++) {
        int64_t need = p->cuda->kernel[i].launch.scratch_bytes;
        most = need > most ? need : most;
    }
    return most;
}

static int64_t literal_bytes(const Program *p)
{
    int64_t all = 0;
    for (int i = 0; i < p->plan->nliteral; i++)
        all += cuda_padded(node_attr(p->plan->literal[i], A_DATA)->n * 8);
    return all;
}

/* What the program will take besides its arena. */
static int64_t beside_arena(const Program *p)
{
    const CudaProgram *c = p->cuda;
    return p->plan->kept_bytes + scratch_bytes(p) + literal_bytes(p) + (int64_t)blaslt_workspace(c->blaslt) + c->params_bytes + c->in_bytes +
           c->out_bytes;
}

/* What may help: a smaller batch always, a budget where it is the arena that does not fit and something is left for it. */
static void explain_full(const Program *p, Err *err, int64_t bytes, const char *what)
{
    const CudaProgram *c = p->cuda;
    Buf largest = {0}, budget = {0};
    size_t left = 0, whole = 0;
    largest_buffers(p, &largest);
    bool known = c->device.driver->cuMemGetInfo_v2(&left, &whole) == 0;
    int64_t fits = (int64_t)left - beside_arena(p);
    if (known && fits >= 1000000 && bytes == p->plan->arena_bytes && fits < bytes)
        buf_printf(&budget, ", or a memory_budget of %lld MB where the program can do with it", (long long)(fits / 1000000));
    err_env(err, "CUDA: %s (%.1f MB, %.1f MB free) has no room for the %s of '%s', %.1f MB; its arena takes %.1f MB, the largest of it %s; "
                 "a smaller batch helps%s",
            c->device.name, (double)c->device.memory * 1e-6, (double)left * 1e-6, what, p->stats.name, (double)bytes * 1e-6,
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

static bool take_pinned(const Program *p, Err *err, char **at, int64_t bytes, const char *what)
{
    const CudaDriver *d = p->cuda->device.driver;
    return !bytes || *at || cuda_ok(d, err, d->cuMemHostAlloc((void **)at, (size_t)bytes, 0), what) ||
           err_prefix(err, "'%s' on %s, %.1f MB", p->stats.name, p->cuda->device.name, (double)bytes * 1e-6);
}

bool cuda_in_flat(const Program *p, int o)
{
    return p->inplace[o] >= 0 && p->in[p->inplace[o]].flat;
}

void cuda_lay_out(Program *p)
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
        *end += p->in[i].flat ? 0 : cuda_padded(cuda_bytes_of(&p->in[i].type));
    }
    for (int o = 0; o < p->nout; o++) {
        c->out_at[o] = c->out_bytes;
        c->out_bytes += cuda_in_flat(p, o) ? 0 : cuda_padded(cuda_bytes_of(&p->out[o].type));
    }
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
        at += cuda_padded(count * 8);
    }
    return cuda_ok(d, err, d->cuStreamSynchronize(c->stream), "copying constants");
}

bool cuda_take_memory(Program *p, Err *err)
{
    CudaProgram *c = p->cuda;
    if (!take(p, err, &c->arena, p->plan->arena_bytes, "arena") || !take(p, err, &c->kept, p->plan->kept_bytes, "packed weights") ||
        !take(p, err, &c->scratch, scratch_bytes(p), "scratch") || !take(p, err, &c->literals, literal_bytes(p), "constants") ||
        !take(p, err, &c->workspace, blaslt_workspace(c->blaslt), "workspace of cuBLASLt") ||
        !take_pinned(p, err, &c->host_pinned, cuda_host_bytes(p->plan), "pinned memory for host functions"))
        return false;
    p->kept_mem = device_pointer(c->kept);
    return send_literals(p, err);
}

bool cuda_take_ends(Program *p, Err *err)
{
    CudaProgram *c = p->cuda;
    if (c->ends_ready)
        return true;
    cuda_lay_out(p);
    return c->ends_ready = (c->params || take(p, err, &c->params, c->params_bytes, "parameters")) &&
                           (c->inputs || take(p, err, &c->inputs, c->in_bytes, "inputs")) &&
                           (c->outputs || take(p, err, &c->outputs, c->out_bytes, "outputs")) &&
                           take_pinned(p, err, &c->in_pinned, c->in_bytes, "pinned memory for the inputs") &&
                           take_pinned(p, err, &c->out_pinned, c->out_bytes, "pinned memory for the outputs");
}

void cuda_free_memory(const CudaProgram *c)
{
    const CudaDriver *d = c->device.driver;
    const CuPtr memory[] = {c->arena, c->kept, c->scratch, c->workspace, c->literals, c->params, c->inputs, c->outputs};
    char *const pinned[] = {c->in_pinned, c->out_pinned, c->host_pinned};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i])
            d->cuMemFree_v2(memory[i]);
    for (size_t i = 0; i < sizeof pinned / sizeof *pinned; i++)
        if (pinned[i])
            d->cuMemFreeHost(pinned[i]);
}
