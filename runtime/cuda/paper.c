/* Forecasts for a device that is not there. */
#include "runtime/cuda/paper.h"
#include "runtime/cuda/blaslt_rule.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *paper_target_name(const char *device)
{
    return device && strncmp(device, "paper:", 6) == 0 ? device + 6 : NULL;
}

static int64_t bytes_of(const Type *t)
{
    return type_count(t) * (int64_t)dav_dtype_size(t->dtype);
}

static const char *kind_of(const Graph *k)
{
    bool sum = false;
    for (Val v = 1; v < k->n; v++) {
        if (node_of(k, v)->op == OP_TILE_CONTRACT)
            return "product";
        sum |= node_of(k, v)->op == OP_ACC_UPDATE;
    }
    return sum ? "reduction" : "pointwise";
}

/* ---- one run: kernels times the trips of the loops around them ---- */
static int64_t trips_of(const Plan *plan, const PlanStep *loop)
{
    return attr_i(node_of(plan->g, loop->node), A_TRIP);
}

static void add_steps(const Program *p, const Plan *plan, double times, PaperSum *sum)
{
    const Paper *paper = p->paper;
    for (int i = 0; i < plan->nstep; i++) {
        const PlanStep *s = &plan->step[i];
        if (s->once)
            continue;
        if (s->kind == STEP_LOOP) {
            add_steps(p, s->body, times * (double)trips_of(plan, s), sum);
        } else if (s->kind == STEP_KERNEL) {
            const Graph *k = p->plan->kernel[s->kernel];
            KernelCost c = kernel_cost(k);
            sum->launches += paper->group[s->kernel] ? (int64_t)times : 0;
            sum->bytes += times * c.bytes;
            sum->seconds += times * paper->launch[s->kernel].forecast.seconds;
            if (strcmp(kind_of(k), "product") == 0) {
                sum->least_bytes += times * c.bytes;
                sum->least_s += times * fmax(c.flops / cuda_peak_of(paper->target, k), c.bytes / paper->target->bytes_s);
            }
        } else if (s->kind == STEP_COPY) {
            double bytes = 2 * (double)plan->buf[s->buf[0]].bytes;
            sum->launches += (int64_t)times;
            sum->bytes += times * bytes;
            sum->seconds += times * cuda_floor(paper->target, bytes, 0);
        }
    }
}

static void add_up(Program *p)
{
    PaperSum *run = &p->paper->run;
    add_steps(p, p->plan, 1, run);
    double ends = 0;
    for (int i = 0; i < p->nin; i++)
        ends += (double)bytes_of(&p->in[i].type);
    for (int o = 0; o < p->nout; o++)
        ends += (double)bytes_of(&p->out[o].type);
    run->least_bytes = fmax(run->least_bytes, ends);
    run->least_s = cuda_floor(p->paper->target, ends, run->least_s);
}

/* ---- kernels ---- */
static bool compile_kernel(const Nvrtc *nvrtc, Err *err, Paper *paper, PaperKernel *k)
{
    Buf cubin = {0}, log = {0};
    bool ok = cuda_compile(nvrtc, err, paper->target, k->text.at, &cubin, &log);
    if (ok && !cuda_use_of_log(log.len ? log.at : "", &k->use))
        k->use = cuda_use_assumed();
    buf_free(&cubin);
    buf_free(&log);
    return ok;
}

static bool make_kernels(Program *p, Err *err)
{
    Paper *paper = p->paper;
    for (int i = 0; i < p->plan->nkernel; i++) {
        PaperKernel *k = &paper->kernel[i];
        uint64_t hash = graph_hash(p->plan->kernel[i]);
        int same = 0;
        while (same < i && graph_hash(p->plan->kernel[same]) != hash)
            same++;
        p->code[i].same_as = same < i ? same : -1;
        if (!cuda_source(paper->target, err, p->plan->kernel[i], "kernel", &k->text, &k->launch))
            return false;
    }
    return true;
}

static bool same_text(const Buf *a, const Buf *b)
{
    return a->len == b->len && memcmp(a->at, b->at, a->len) == 0;
}

/* The launch at kernel i's step: compiled, unless an equal text was. */
static bool make_launch(Program *p, Err *err, const Nvrtc *nvrtc, int i)
{
    Paper *paper = p->paper;
    PaperKernel *k = &paper->launch[i];
    const CudaGroup *g = paper->group[i];
    if (!cuda_group_text(paper->target, err, g, &k->text, &k->launch))
        return false;
    int same = 0;
    while (same < i && !same_text(&paper->launch[same].text, &k->text))
        same++;
    k->use = same < i ? paper->launch[same].use : cuda_use_assumed();
    if (same == i && nvrtc && !compile_kernel(nvrtc, err, paper, k))
        return false;
    CudaLaunch *of = arena_array(p->arena, CudaLaunch, g->npart);
    for (int s = 0, part = 0; part < g->npart; s += g->part[part++].count)
        of[part] = paper->kernel[g->step[s]->kernel].launch;
    k->forecast = p->product[i].library ? cuda_forecast_library(paper->target, g->part[0].kernel)
                                        : cuda_forecast_group(paper->target, &k->launch, &k->use, g->part, of, g->npart);
    for (int s = 0; s < g->nstep; s++) {
        PaperKernel *alone = &paper->kernel[g->step[s]->kernel];
        alone->use = k->use;
        alone->forecast = p->product[i].library ? k->forecast
                                                : cuda_forecast(paper->target, &alone->launch, &k->use,
                                                                p->plan->kernel[g->step[s]->kernel]);
    }
    return true;
}

static bool make_launches(Program *p, Err *err)
{
    Err none = {0};
    const Nvrtc *nvrtc = nvrtc_open(&none);
    p->paper->compiled = nvrtc != NULL;
    for (int i = 0; i < p->plan->nkernel; i++)
        if (p->paper->group[i] && !make_launch(p, err, nvrtc, i))
            return false;
    return true;
}

bool paper_prepare(Program *p, Err *err, const char *name)
{
    Paper *paper = p->paper = arena_alloc(p->arena, sizeof *paper);
    const CudaTarget *known = cuda_target(err, name);
    if (!known)
        return false;
    CudaTarget *mine = arena_copy(p->arena, known, sizeof *known);
    mine->tf32 = p->options.tf32;
    paper->target = mine;
    paper->kernel = arena_array(p->arena, PaperKernel, p->plan->nkernel + 1);
    paper->launch = arena_array(p->arena, PaperKernel, p->plan->nkernel + 1);
    if (!product_choices(p, err, NULL))
        return false;
    for (int i = 0; i < p->plan->nkernel; i++)
        if (p->product[i].library)
            p->product[i].rule = "large, assuming that cuBLASLt has an algorithm: no heuristics are known without a device";
    paper->group = cuda_groups(p);
    if (!make_kernels(p, err) || !make_launches(p, err))
        return false;
    add_up(p);
    p->stats.launches = paper->run.launches;
    return true;
}

void paper_release(Program *p)
{
    for (int i = 0; p->paper && p->paper->launch && p->plan && i < p->plan->nkernel; i++) {
        buf_free(&p->paper->kernel[i].text);
        buf_free(&p->paper->launch[i].text);
    }
}

/* ---- the report ---- */
typedef struct Row { const Program *p; int kernel; double count, seconds; } Row;

static void count_rows(const Program *p, const Plan *plan, double times, Row *row)
{
    for (int i = 0; i < plan->nstep; i++) {
        const PlanStep *s = &plan->step[i];
        if (s->kind == STEP_LOOP)
            count_rows(p, s->body, times * (double)trips_of(plan, s), row);
        else if (s->kind == STEP_KERNEL && !s->once && p->paper->group[s->kernel])
            row[s->kernel].count += times;
    }
}

static int slower_first(const void *a, const void *b)
{
    const Row *x = a, *y = b;
    return x->seconds < y->seconds ? 1 : x->seconds > y->seconds ? -1 : x->kernel - y->kernel;
}

static KernelCost cost_of(const CudaGroup *g)
{
    KernelCost sum = {0};
    for (int i = 0; i < g->npart; i++) {
        KernelCost c = kernel_cost(g->part[i].kernel);
        sum.bytes += g->part[i].count * c.bytes;
        sum.flops += g->part[i].count * c.flops;
    }
    return sum;
}

static void report_sum(Buf *out, const PaperSum *s)
{
    buf_printf(out, "%" PRId64 " launches, %.2f MB, %.1f us; fused minimum %.2f MB, %.1f us: %.2f times the bytes, %.2f times the time\n", s->launches,
               s->bytes * 1e-6, 1e6 * s->seconds, s->least_bytes * 1e-6, 1e6 * s->least_s, s->bytes / s->least_bytes, s->seconds / s->least_s);
}

static void report_loops(const Program *p, const Plan *plan, Buf *out)
{
    for (int i = 0; i < plan->nstep; i++) {
        const PlanStep *s = &plan->step[i];
        PaperSum one = {0};
        if (s->kind != STEP_LOOP)
            continue;
        report_loops(p, s->body, out);
        add_steps(p, s->body, 1, &one);
        one.least_s = cuda_floor(p->paper->target, 0, one.least_s);
        buf_printf(out, "each of %" PRId64 " steps of a loop: ", trips_of(plan, s));
        report_sum(out, &one);
    }
}

void paper_report(const Program *p, Buf *out)
{
    enum { ROWS = 12 };
    const Paper *paper = p->paper;
    int n = p->plan->nkernel, libraries = 0;
    for (int i = 0; i < n; i++)
        libraries += p->product[i].library;
    Row *row = arena_array(p->arena, Row, n + 1);
    for (int i = 0; i < n; i++)
        row[i] = (Row){p, i, 0, 0};
    count_rows(p, p->plan, 1, row);
    for (int i = 0; i < n; i++)
        row[i].seconds = row[i].count * paper->launch[i].forecast.seconds;
    qsort(row, (size_t)n, sizeof *row, slower_first);
    buf_printf(out, "on %s (sm_%d), on paper, %s:\n", paper->target->name, paper->target->sm,
               paper->compiled ? "registers by ptxas" : "no NVRTC here: 128 registers a thread are assumed");
    buf_str(out, "      us  times  bound    kind           blocks x threads  regs  spill  occupancy   waves       MB   GFLOP  kernel\n");
    for (int i = 0; i < n && i < ROWS; i++) {
        const PaperKernel *k = &paper->launch[row[i].kernel];
        if (row[i].count == 0)
            continue;
        const CudaGroup *g = paper->group[row[i].kernel];
        KernelCost c = cost_of(g);
        char kind[32];
        snprintf(kind, sizeof kind, g->nstep > 1 ? "%s x%d" : "%s",
                 p->product[row[i].kernel].library ? "cuBLASLt" : kind_of(g->part[0].kernel), g->nstep);
        buf_printf(out, "%8.1f %6.0f  %-8s %-13s %8" PRId64 " x %-7d %5d %6d %9.0f%% %7.2f %8.2f %7.3f  %d\n", 1e6 * row[i].seconds,
                   row[i].count, k->forecast.bound, kind, k->launch.blocks, k->launch.threads, k->use.regs, k->use.spill_bytes,
                   100 * k->forecast.occupancy, k->forecast.waves, c.bytes * 1e-6, c.flops * 1e-9, row[i].kernel);
    }
    if (libraries)
        buf_printf(out, "%d products by cuBLASLt, assuming that it has algorithms for them: no heuristics are known without a device\n", libraries);
    report_loops(p, p->plan, out);
    report_sum(out, &paper->run);
}
