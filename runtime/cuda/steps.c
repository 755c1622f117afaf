/* The steps of a program, put on its stream one after the other. */
#include "runtime/cuda/blaslt_rule.h"
#include "runtime/cuda/cuda_program.h"
#include "runtime/cuda/explain.h"

static CuPtr address(const void *p)
{
    return (CuPtr)(uintptr_t)p;
}

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

bool cuda_copy_within(Program *p, Err *err, void *to, const void *from, int64_t bytes)
{
    const CudaDriver *d = p->cuda->device.driver;
    return to == from || bytes == 0 ||
           cuda_ok(d, err, d->cuMemcpyDtoDAsync_v2(address(to), address(from), (size_t)bytes, p->cuda->stream), "cuMemcpyDtoD");
}

/* Where a host function's operands lie in the pinned memory, its result after them; `at` may be NULL. Returns the end. */
static int64_t lay_out_host(const Graph *g, Val host, int64_t *at)
{
    const Node *n = node_of(g, host);
    int64_t end = 0;
    for (int i = 0; i <= n->narg; i++) {
        Type t = type_of(g, i < n->narg ? n->arg[i] : host);
        if (at)
            at[i] = end;
        end += cuda_padded(cuda_bytes_of(&t));
    }
    return end;
}

int64_t cuda_host_bytes(const Plan *plan)
{
    int64_t most = 0;
    for (int i = 0; i < plan->nstep; i++) {
        const PlanStep *s = &plan->step[i];
        int64_t bytes = s->kind == STEP_HOST ? lay_out_host(plan->g, s->node, NULL) : s->kind == STEP_LOOP ? cuda_host_bytes(s->body) : 0;
        most = bytes > most ? bytes : most;
    }
    return most;
}

typedef struct HostCall { Program *p; Err *err; const Frame *f; const PlanStep *s; } HostCall;

/* Operands come to the host, the result goes back while what follows is put on the stream; the host waits for the device before the
 * function and nowhere else in a run. */
static bool call_host(void *arg)
{
    HostCall *h = arg;
    Program *p = h->p;
    const CudaProgram *c = p->cuda;
    const CudaDriver *d = c->device.driver;
    const Graph *g = h->f->plan->g;
    const Node *n = node_of(g, h->s->node);
    const void *in[n->narg + 1];
    int64_t at[n->narg + 1];
    Type in_type[n->narg + 1], out_type = type_of(g, h->s->node);
    lay_out_host(g, h->s->node, at);
    for (int i = 0; i < n->narg; i++) {
        in_type[i] = type_of(g, n->arg[i]);
        in[i] = c->host_pinned + at[i];
        size_t bytes = (size_t)cuda_bytes_of(&in_type[i]);
        if (bytes && !cuda_ok(d, h->err, d->cuMemcpyDtoHAsync_v2(c->host_pinned + at[i], address(h->f->ptr[h->s->buf[i]]), bytes, c->stream),
                              "copying a host function's operand"))
            return false;
    }
    size_t bytes = (size_t)cuda_bytes_of(&out_type);
    void *out = c->host_pinned + at[n->narg];
    return cuda_ok(d, h->err, d->cuStreamSynchronize(c->stream), "waiting for the device before a host function") &&
           host_call(p, h->err, attr_s(n, A_NAME), n->narg, in_type, in, 1, &out_type, &out) &&
           (!bytes || cuda_ok(d, h->err, d->cuMemcpyHtoDAsync_v2(address(h->f->ptr[h->s->buf[n->narg]]), out, bytes, c->stream),
                              "copying a host function's result"));
}

static bool run_host(Program *p, Err *err, const Frame *f, const PlanStep *s)
{
    return mem_protect(err, call_host, &(HostCall){p, err, f, s});
}

static bool run_loop(Program *p, Err *err, Frame *f, const PlanStep *s, Frame *body)
{
    const Node *n = node_of(f->plan->g, s->node);
    int64_t trip = attr_i(n, A_TRIP);
    bool ok = true;
    for (int64_t it = 0; it < trip && ok; it++) {
        frame_bind_iteration(p, f, s, body, it, trip);
        ok = cuda_run_steps(p, err, body, false);
    }
    for (int i = 0; trip == 0 && ok && i < attr_i(n, A_CARRY); i++)
        ok = cuda_copy_within(p, err, f->ptr[s->buf[n->narg + i]], f->ptr[s->buf[i]], f->plan->buf[s->buf[i]].bytes);
    return ok;
}

bool cuda_run_steps(Program *p, Err *err, Frame *f, bool once)
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
            ok = cuda_copy_within(p, err, f->ptr[s->buf[0]], f->ptr[s->buf[1]], f->plan->buf[s->buf[0]].bytes);
            break;
        }
    }
    return ok;
}
