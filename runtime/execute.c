/* Runs a plan: one parallel region a run, all threads walk the steps together and share each kernel's iterations in
 * fixed blocks. Nothing is allocated, hashed or named here. */
#include "runtime/program_impl.h"
#include <omp.h>
#include <string.h>
#include <time.h>

typedef struct Run {
    Program *p;
    Err *err;
    bool failed;
} Run;

static void *place_of(const Program *p, const Frame *f, int b, void *const *in, void *const *out, char *arena)
{
    const PlanBuf *buf = &f->plan->buf[b];
    switch (buf->place) {
    case AT_ARENA:
        return arena + buf->offset;
    case AT_KEPT:
        return (char *)p->kept_mem + buf->offset;
    case AT_INPUT:
        return in[buf->index];
    case AT_OUTPUT:
        return out[buf->index] || f != p->frame || p->inplace[buf->index] < 0 ? out[buf->index]
                                                                              : in[p->inplace[buf->index]];
    case AT_LITERAL:
        return p->literal[buf->index];
    }
    return NULL;
}

void frame_bind(const Program *p, Frame *f, void *const *in, void *const *out, char *arena)
{
    for (int b = 0; b < f->plan->nbuf; b++)
        f->ptr[b] = place_of(p, f, b, in, out, arena);
}

double program_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static Frame *new_frame(Arena *a, const Plan *plan)
{
    Frame *f = arena_alloc(a, sizeof *f);
    f->plan = plan;
    f->ptr = arena_array(a, void *, plan->nbuf + 1);
    f->inner = arena_array(a, Frame *, plan->nstep + 1);
    for (int i = 0; i < plan->nstep; i++)
        if (plan->step[i].kind == STEP_LOOP) {
            f->inner[i] = new_frame(a, plan->step[i].body);
            f->inner[i]->in = arena_array(a, void *, plan->step[i].nbuf + 1);
            f->inner[i]->out = arena_array(a, void *, plan->step[i].nbuf + 1);
        }
    return f;
}

void frame_make(Program *p)
{
    p->frame = new_frame(p->arena, p->plan);
}

/* ---- loops ---- */
static int64_t bytes_of(const Plan *p, int b)
{
    return p->buf[b].bytes;
}

void frame_bind_iteration(const Program *p, const Frame *f, const PlanStep *s, Frame *body, int64_t it, int64_t trip)
{
    const Node *n = node_of(f->plan->g, s->node);
    int carry = (int)attr_i(n, A_CARRY), scan = (int)attr_i(n, A_SCAN);
    char *work = f->ptr[s->work];
    for (int i = 0; i < n->narg; i++) {
        char *whole = f->ptr[s->buf[i]];
        if (i < carry)
            body->in[i] = it == 0 ? whole : work + s->carry_at[2 * i + (it - 1) % 2];
        else
            body->in[i] = i < carry + scan ? whole + it * (bytes_of(f->plan, s->buf[i]) / trip) : whole;
    }
    for (int o = 0; o < s->nbuf - n->narg; o++) {
        int b = s->buf[n->narg + o];
        char *whole = f->ptr[b];
        if (o < carry)
            body->out[o] = it == trip - 1 ? whole : work + s->carry_at[2 * o + it % 2];
        else
            body->out[o] = whole + it * (bytes_of(f->plan, b) / trip);
    }
    frame_bind(p, body, body->in, body->out, work + s->body_at);
}

static void run_steps(Run *r, Frame *f, bool once, int tid, int threads);

static void run_loop(Run *r, Frame *f, const PlanStep *s, Frame *body, int tid, int threads)
{
    const Node *n = node_of(f->plan->g, s->node);
    int64_t trip = attr_i(n, A_TRIP);
    for (int64_t it = 0; it < trip && !r->failed; it++) {
        if (tid == 0)
            frame_bind_iteration(r->p, f, s, body, it, trip);
#pragma omp barrier
        run_steps(r, body, false, tid, threads);
    }
    for (int i = 0; trip == 0 && tid == 0 && i < attr_i(n, A_CARRY); i++)
        memcpy(f->ptr[s->buf[n->narg + i]], f->ptr[s->buf[i]], (size_t)bytes_of(f->plan, s->buf[i]));
}

/* ---- steps ---- */
static void run_kernel(const Run *r, const Frame *f, const PlanStep *s, int tid, int threads)
{
    const Program *p = r->p;
    int64_t trip = p->trip[s->kernel], lo = trip * tid / threads, hi = trip * (tid + 1) / threads;
    if (p->solo[s->kernel]) {
        lo = 0;
        hi = tid == 0 ? trip : 0;
    }
    if (lo >= hi)
        return;
    void *bufs[s->nbuf + 1];
    for (int i = 0; i < s->nbuf; i++)
        bufs[i] = f->ptr[s->buf[i]];
    if (p->device == DEVICE_CPU)
        p->code[s->kernel].fn(bufs, lo, hi, p->thread_scratch[tid]);
    else
        kernel_interpret(p->plan->kernel[s->kernel], bufs);
}

static void copy(const Frame *f, const PlanStep *s, int tid, int threads)
{
    char *to = f->ptr[s->buf[0]], *from = f->ptr[s->buf[1]];
    int64_t bytes = bytes_of(f->plan, s->buf[0]), lo = bytes * tid / threads, hi = bytes * (tid + 1) / threads;
    if (to != from && lo < hi)
        memcpy(to + lo, from + lo, (size_t)(hi - lo));
}

static void run_host(Run *r, const Frame *f, const PlanStep *s)
{
    const Graph *g = f->plan->g;
    const Node *n = node_of(g, s->node);
    const void *in[n->narg + 1];
    Type in_type[n->narg + 1], out_type = type_of(g, s->node);
    for (int i = 0; i < n->narg; i++) {
        in_type[i] = type_of(g, n->arg[i]);
        in[i] = f->ptr[s->buf[i]];
    }
    if (!host_call(r->p, r->err, attr_s(n, A_NAME), n->narg, in_type, in, 1, &out_type, &f->ptr[s->buf[n->narg]]))
        r->failed = true;
}

static void run_step(Run *r, Frame *f, int i, int tid, int threads)
{
    const PlanStep *s = &f->plan->step[i];
    switch (s->kind) {
    case STEP_KERNEL:
        run_kernel(r, f, s, tid, threads);
        break;
    case STEP_HOST:
        if (tid == 0)
            run_host(r, f, s);
#pragma omp barrier
        break; /* now all know whether it failed */
    case STEP_LOOP:
        run_loop(r, f, s, f->inner[i], tid, threads);
        break;
    case STEP_COPY:
        copy(f, s, tid, threads);
        break;
    }
}

static void run_steps(Run *r, Frame *f, bool once, int tid, int threads)
{
    StepTime *time = f == r->p->frame ? r->p->times : NULL;
    for (int i = 0; i < f->plan->nstep && !r->failed; i++) {
        if (f->plan->step[i].once != once)
            continue;
        if (f->plan->step[i].meet || time) {
#pragma omp barrier
        }
        if (time && tid == 0)
            time[i].start = program_clock();
        run_step(r, f, i, tid, threads);
        if (time) {
#pragma omp barrier
            if (tid == 0)
                time[i].end = program_clock();
        }
    }
#pragma omp barrier
}

bool program_execute(Program *p, Err *err, void *const *in, void *const *out, int threads, bool once)
{
    Run r = {.p = p, .err = err};
    frame_bind(p, p->frame, in, out, p->arena_mem);
    int n = threads <= 0 || threads > p->max_threads ? p->max_threads : threads;
    if (p->device != DEVICE_CPU)
        n = 1;
#pragma omp parallel num_threads(n)
    {
        int tid = omp_get_thread_num(), count = omp_get_num_threads();
        if (once)
            run_steps(&r, p->frame, true, tid, count);
        run_steps(&r, p->frame, false, tid, count);
    }
    return !r.failed;
}
