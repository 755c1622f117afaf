/* The dump folder: what was compiled, from which lines, into what, and how long it takes.
 *
 *   manifest.json  options, machine, inputs and outputs, totals, how the code cache served
 *   NN-pass.ir     the graph after each pass (written while compiling)
 *   passes.tsv     pass, milliseconds, nodes before and after, changed
 *   fusion.tsv     each operand edge that was looked at: fused, or why not
 *   kernels.json   each step: kernel, ops with source lines, buffers, work, registers and spills (as counted by asm_count), predicted
 *                  and measured time
 *   kernels/       kernel IR, LLVM IR and assembly of each kernel
 *   memory.tsv     each buffer: place, size, lifetime, whether it is alive at the peak
 *   trace.json     the steps of one run for Perfetto (chrome://tracing) */
#include "ir/print.h"
#include "runtime/cuda/blaslt_rule.h"
#include "runtime/cuda/paper.h"
#include "runtime/kernel_name.h"
#include <inttypes.h>
#include <jansson.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

/* For predictions when nothing was measured: cycles a second, bytes a second. */
static const double clock_hz = 3e9, memory_rate = 20e9;

typedef struct Dump {
    const Program *p;
    Err *err;
    const char *dir;
    const char **name; /* of kernels */
    AsmCount *count;   /* of compiled kernels */
} Dump;

static bool write_text(Dump *d, const char *file, Buf *b)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", d->dir, file);
    bool ok = file_write(d->err, path, b->at ? b->at : "", b->len);
    buf_free(b);
    return ok;
}

static bool write_json(Dump *d, const char *file, json_t *j)
{
    char *text = json_dumps(j, JSON_INDENT(1));
    Buf b = {0};
    buf_str(&b, text ? text : "");
    buf_str(&b, "\n");
    free(text);
    json_decref(j);
    return write_text(d, file, &b);
}

/* ---- a run on zeros, to have times ---- */
static bool has_host(const Plan *plan)
{
    for (int i = 0; i < plan->nstep; i++)
        if (plan->step[i].kind == STEP_HOST || (plan->step[i].body && has_host(plan->step[i].body)))
            return true;
    return false;
}

typedef struct TimedRun { Program *p; Err *err; Arena *arena; } TimedRun;

static bool timed_run(void *arg)
{
    TimedRun *t = arg;
    Program *p = t->p;
    void **in = arena_array(t->arena, void *, p->nin + 1), **out = arena_array(t->arena, void *, p->nout + 1);
    for (int i = 0; i < p->nin; i++)
        in[i] = arena_alloc(t->arena, (size_t)type_count(&p->in[i].type) * dav_dtype_size(p->in[i].type.dtype) + 64);
    for (int i = 0; i < p->nout; i++)
        out[i] = p->inplace[i] >= 0
                     ? in[p->inplace[i]]
                     : arena_alloc(t->arena,
                                   (size_t)type_count(&p->out[i].type) * dav_dtype_size(p->out[i].type.dtype) + 64);
    for (int i = 0; i < 2; i++)
        if (!program_run(p, t->err, in, out, 1, 0))
            return false;
    p->once_done = false;
    return true;
}

/* ---- names and lines ---- */
static void name_kernels(Dump *d, Arena *arena)
{
    const Plan *plan = d->p->plan;
    d->name = arena_array(arena, const char *, plan->nkernel + 1);
    d->count = arena_array(arena, AsmCount, plan->nkernel + 1);
    for (int i = 0; i < plan->nkernel; i++)
        d->name[i] = kernel_name(arena, plan->kernel[i]);
}

/* The ops of a kernel that compute values, in order, each line of source once. */
static json_t *kernel_ops(const Graph *k)
{
    json_t *ops = json_array();
    const Node *last = NULL;
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        bool counts = n->op == OP_TILE_CONTRACT || n->op == OP_ACC_UPDATE || n->op == OP_PHILOX || n->op == OP_EXP2 ||
                      ((op_info[n->op].flags & OPF_ELEMENTWISE) && n->dtype != DAV_I64 && n->dtype != DAV_BOOL);
        if (!counts || (last && last->op == n->op && last->file == n->file && last->line == n->line))
            continue;
        last = n;
        char at[300];
        snprintf(at, sizeof at, "%s:%d", n->file ? n->file : "?", n->line);
        json_array_append_new(ops, json_pack("{s:s, s:s}", "op", op_info[n->op].text, "at", at));
    }
    return ops;
}

static const char *const place_name[] = {"arena", "kept", "input", "output", "literal"};

static json_t *step_buffers(const Dump *d, const PlanStep *s)
{
    static const char *const roles[] = {"in", "out", "inout", "scratch"};
    const Graph *k = d->p->plan->kernel[s->kernel];
    json_t *list = json_array();
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        if (n->op != OP_BUF)
            continue;
        int64_t index = attr_i(n, A_INDEX);
        char type[160];
        Type t = type_of(k, v);
        json_t *b = json_pack("{s:s, s:s, s:s}", "name", attr_s(n, A_NAME), "role", roles[attr_i(n, A_ROLE)], "type",
                              type_text(&t, type));
        if (index < s->nbuf) {
            const PlanBuf *p = &d->p->plan->buf[s->buf[index]];
            json_object_set_new(b, "place", json_string(place_name[p->place]));
            json_object_set_new(b, "buffer", json_integer(s->buf[index]));
        }
        json_array_append_new(list, b);
    }
    return list;
}

/* ---- files ---- */
static json_t *signature(const Signature *s, int n)
{
    json_t *list = json_array();
    char text[160];
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s, s:s}", "name", s[i].name, "type", type_text(&s[i].type, text)));
    return list;
}

static json_t *cache_reasons(const Program *p)
{
    json_t *reasons = json_object();
    for (int i = 0; p->plan && p->code && i < p->plan->nkernel; i++) {
        const char *why = p->code[i].same_as >= 0 ? "equal to an earlier kernel"
                          : p->code[i].from_cache ? "found"
                                                  : p->code[i].miss_reason;
        why = why ? why : "not asked";
        json_object_set_new(reasons, why, json_integer(1 + json_integer_value(json_object_get(reasons, why))));
    }
    return reasons;
}

static bool dump_manifest(Dump *d)
{
    const Program *p = d->p;
    static const char *const device[] = {"cpu", "kernels", "interp", "interp64", "cuda", "paper"};
    struct utsname host = {0};
    uname(&host);
    json_t *j =
        json_pack("{s:s, s:s, s:s, s:s, s:i}", "graph", p->graph->name ? p->graph->name : "", "device",
                  device[p->device], "system", host.sysname, "machine", host.machine, "threads", p->max_threads);
    json_object_set_new(j, "precision",
                        json_string(dav_dtype_name(p->options.precision == DAV_BF16 ? DAV_BF16 : DAV_F32)));
    json_object_set_new(j, "memory_budget", json_integer(p->options.memory_budget));
    json_object_set_new(j, "inputs", signature(p->in, p->nin));
    json_object_set_new(j, "outputs", signature(p->out, p->nout));
    if (p->device == DEVICE_CPU) {
        json_object_set_new(j, "cpu", json_string(p->target.name));
        json_object_set_new(j, "llvm", json_string(jit_llvm_version()));
    }
    json_object_set_new(j, "code_cache", cache_reasons(p));
    json_object_set_new(j, "kernels", json_integer(p->stats.kernels));
    json_object_set_new(j, "unique_kernels", json_integer(p->stats.unique_kernels));
    json_object_set_new(j, "arena_bytes", json_integer(p->stats.arena_bytes));
    json_object_set_new(j, "packed_bytes", json_integer(p->stats.packed_bytes));
    json_object_set_new(j, "unplanned_bytes", json_integer(p->stats.unplanned_bytes));
    if (p->plan)
        json_object_set_new(j, "memory",
                            json_sprintf("planned %.1f MB -> %.1f MB, %d -> %d buffers",
                                         (double)p->stats.unplanned_bytes * 1e-6, (double)p->stats.arena_bytes * 1e-6,
                                         p->plan->unplanned_bufs, p->plan->planned_bufs));
    ProgramForecast f;
    if (program_forecast(p, &f, NULL))
        json_object_set_new(j, "forecast",
                            json_pack("{s:s, s:I, s:f, s:f, s:f, s:f}", "device", p->paper_target, "launches", (json_int_t)f.launches, "bytes",
                                      f.bytes, "us", 1e6 * f.seconds, "least_bytes", f.least_bytes, "least_us", 1e6 * f.least_seconds));
    json_object_set_new(j, "pass_ms", json_real(p->stats.pass_ms));
    json_object_set_new(j, "codegen_ms", json_real(p->stats.codegen_ms));
    return write_json(d, "manifest.json", j);
}

static bool dump_tables(Dump *d)
{
    Buf passes = {0}, fusion = {0};
    buf_str(&passes, "pass\tms\tnodes_in\tnodes_out\tchanged\n");
    for (size_t i = 0; i < vec_len(d->p->cx.times); i++) {
        const PassTime *t = &d->p->cx.times[i];
        buf_printf(&passes, "%s\t%.3f\t%d\t%d\t%s\n", t->name, t->ms, t->nodes_in, t->nodes_out,
                   t->changed ? "yes" : "no");
    }
    buf_str(&fusion, "from\tto\tfused\treason\tat\n");
    for (size_t i = 0; i < vec_len(d->p->cx.notes); i++) {
        const FusionNote *n = &d->p->cx.notes[i];
        buf_printf(&fusion, "%s\t%s\t%s\t%s\t%s:%d\n", n->from, n->to, n->fused ? "yes" : "no", n->reason,
                   n->file ? n->file : "?", n->line);
    }
    bool ok = write_text(d, "passes.tsv", &passes);
    return write_text(d, "fusion.tsv", &fusion) && ok;
}

/* Bytes of the arena that hold something during each step; the step where that is most. */
static int peak_step(const Plan *plan, int64_t *bytes)
{
    int peak = 0;
    *bytes = 0;
    for (int i = 0; i < plan->nstep; i++) {
        int64_t live = 0;
        for (int b = 0; b < plan->nbuf; b++) {
            const PlanBuf *x = &plan->buf[b];
            if (x->place == AT_ARENA && x->shares < 0 && x->first <= i && i <= x->last)
                live += x->bytes;
        }
        if (live > *bytes) {
            *bytes = live;
            peak = i;
        }
    }
    return peak;
}

static bool dump_memory(Dump *d)
{
    const Plan *plan = d->p->plan;
    Buf b = {0};
    int64_t live;
    int peak = peak_step(plan, &live);
    buf_printf(&b, "# planned %.1f MB -> %.1f MB, %d -> %d buffers; %.1f MB alive at the peak, step %d\n",
               (double)plan->unplanned_bytes * 1e-6, (double)plan->arena_bytes * 1e-6, plan->unplanned_bufs,
               plan->planned_bufs, (double)live * 1e-6, peak);
    buf_str(&b, "buffer\tplace\toffset\tbytes\tfirst\tlast\tshares\tat_peak\tmade_at\n");
    for (int i = 0; i < plan->nbuf; i++) {
        const PlanBuf *x = &plan->buf[i];
        const Node *n = x->val ? node_of(plan->g, x->val) : NULL;
        bool at_peak = x->place == AT_ARENA && x->first <= peak && peak <= x->last;
        buf_printf(&b, "%d\t%s\t%" PRId64 "\t%" PRId64 "\t%d\t%d\t%d\t%s\t%s:%d\n", i, place_name[x->place], x->offset,
                   x->bytes, x->first, x->last, x->shares, at_peak ? "yes" : "no", n && n->file ? n->file : "?",
                   n ? n->line : 0);
    }
    return write_text(d, "memory.tsv", &b);
}

static double predicted(const Program *p, const KernelCost *c)
{
    double lanes = p->target.vector_bytes ? p->target.vector_bytes / 4.0 : 4;
    double compute = c->flops / (clock_hz * lanes * 4 * p->max_threads), memory = c->bytes / memory_rate;
    return compute > memory ? compute : memory;
}

/* What is known of a kernel for a device that is not there. */
static json_t *paper_json(const PaperKernel *k)
{
    const CudaForecast *f = &k->forecast;
    return json_pack("{s:I, s:i, s:i, s:b, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:s}", "blocks", (json_int_t)k->launch.blocks, "threads",
                     k->launch.threads, "registers", k->use.regs, "registers_known", k->use.known, "spill_bytes", k->use.spill_bytes,
                     "shared_bytes", k->use.shared_bytes + k->launch.shared_bytes, "blocks_per_sm", f->blocks_per_sm, "occupancy",
                     f->occupancy, "waves", f->waves, "memory_us", 1e6 * f->memory_s, "compute_us", 1e6 * f->compute_s, "bound", f->bound);
}

/* Who runs a product, and the rule that decided. */
static json_t *product_json(const ProductChoice *c)
{
    const PlainProduct *x = &c->product;
    json_t *j = json_pack("{s:s, s:s}", "runs", c->library ? "cuBLASLt" : "kernel", "rule", c->rule);
    if (c->plain)
        json_object_set_new(j, "shape", json_pack("{s:I, s:I, s:I, s:I}", "batch", (json_int_t)x->batch, "m", (json_int_t)x->m, "n",
                                                  (json_int_t)x->n, "k", (json_int_t)x->k));
    return j;
}

static double predicted_of(const Program *p, int kernel, const KernelCost *c)
{
    return p->paper ? p->paper->kernel[kernel].forecast.seconds : predicted(p, c);
}

static bool dump_steps(Dump *d)
{
    static const char *const kinds[] = {"kernel", "host", "loop", "copy"};
    const Program *p = d->p;
    json_t *steps = json_array(), *events = json_array();
    double origin = 0;
    for (int i = 0; i < p->plan->nstep; i++) {
        const PlanStep *s = &p->plan->step[i];
        const Node *n = s->node ? node_of(p->plan->g, s->node) : NULL;
        const char *name = s->kind == STEP_KERNEL ? d->name[s->kernel] : kinds[s->kind];
        json_t *j = json_pack("{s:i, s:s, s:s, s:b}", "step", i, "kind", kinds[s->kind], "name", name, "once", s->once);
        json_object_set_new(j, "at", json_sprintf("%s:%d", n && n->file ? n->file : "?", n ? n->line : 0));
        if (s->kind == STEP_KERNEL) {
            const Graph *k = p->plan->kernel[s->kernel];
            KernelCost c = kernel_cost(k);
            json_object_set_new(j, "ops", kernel_ops(k));
            json_object_set_new(j, "buffers", step_buffers(d, s));
            json_object_set_new(j, "flops", json_real(c.flops));
            json_object_set_new(j, "bytes", json_real(c.bytes));
            json_object_set_new(j, "predicted_ms", json_real(1e3 * predicted_of(p, s->kernel, &c)));
            json_object_set_new(j, "parallel", json_integer(p->solo[s->kernel] ? 1 : p->trip[s->kernel]));
            json_object_set_new(j, "code_bytes", json_integer(p->code[s->kernel].code_bytes));
            const AsmCount *a = &d->count[s->kernel];
            json_object_set_new(j, "vector_registers", json_integer(a->vector_registers));
            json_object_set_new(j, "vector_spills", json_integer(a->vector_spills));
            json_object_set_new(j, "scalar_spills", json_integer(a->scalar_spills));
            if (p->product && p->product[s->kernel].rule)
                json_object_set_new(j, "product", product_json(&p->product[s->kernel]));
            if (p->paper)
                json_object_set_new(j, "cuda", paper_json(&p->paper->kernel[s->kernel]));
            if (p->paper)
                json_object_set_new(j, "launched_with_step", json_integer(s->group));
            json_object_set_new(j, "compile_ms", json_real(p->code[s->kernel].compile_ms));
        }
        if (p->times && p->times[i].end > 0) {
            origin = origin > 0 && origin < p->times[i].start ? origin : p->times[i].start;
            json_object_set_new(j, "measured_ms", json_real(1e3 * (p->times[i].end - p->times[i].start)));
            json_array_append_new(events, json_pack("{s:s, s:s, s:i, s:i, s:f, s:f}", "name", name, "ph", "X", "pid", 1,
                                                    "tid", 1, "ts", 1e6 * (p->times[i].start - origin), "dur",
                                                    1e6 * (p->times[i].end - p->times[i].start)));
        }
        json_array_append_new(steps, j);
    }
    bool ok = write_json(d, "kernels.json", steps);
    return write_json(d, "trace.json", json_pack("{s:o}", "traceEvents", events)) && ok;
}

static bool dump_kernels(Dump *d)
{
    const Program *p = d->p;
    char path[4096], file[300];
    snprintf(path, sizeof path, "%s/kernels", d->dir);
    if (!file_mkdirs(d->err, path))
        return false;
    for (int i = 0; i < p->plan->nkernel; i++) {
        Buf ir = {0}, llvm = {0}, assembly = {0};
        if (p->code[i].same_as >= 0) {
            d->count[i] = d->count[p->code[i].same_as];
            continue;
        }
        graph_print(&ir, p->plan->kernel[i]);
        snprintf(file, sizeof file, "kernels/%s.ir", d->name[i]);
        bool ok = write_text(d, file, &ir);
        if (ok && p->device == DEVICE_CPU) {
            ok = jit_text(&p->target, d->err, p->plan->kernel[i], &llvm, &assembly, &d->count[i]);
            snprintf(file, sizeof file, "kernels/%s.ll", d->name[i]);
            ok = ok && write_text(d, file, &llvm);
            snprintf(file, sizeof file, "kernels/%s.s", d->name[i]);
            ok = ok && write_text(d, file, &assembly);
        }
        if (ok && p->paper) {
            snprintf(file, sizeof file, "kernels/%s.cu", d->name[i]);
            ok = write_text(d, file, &p->paper->kernel[i].text);
        }
        buf_free(&llvm);
        buf_free(&assembly);
        if (!ok)
            return false;
    }
    return true;
}

typedef struct DumpJob { Dump d; Arena *arena; } DumpJob;

static bool dump_all(void *arg)
{
    DumpJob *j = arg;
    Dump *d = &j->d;
    if (!file_mkdirs(d->err, d->dir) || !dump_manifest(d) || !dump_tables(d))
        return false;
    if (!d->p->plan)
        return true;
    name_kernels(d, j->arena);
    return dump_memory(d) && dump_kernels(d) && dump_steps(d);
}

bool program_dump(const Program *p, Err *err, const char *dir)
{
    DumpJob j = {.d = {.p = p, .err = err, .dir = dir}, .arena = arena_new()};
    TimedRun t = {(Program *)(uintptr_t)p, err, j.arena};
    bool untimed = p->times && !p->paper && p->plan && p->plan->nstep && p->times[p->plan->nstep - 1].end == 0 && !has_host(p->plan);
    bool ok = (!untimed || mem_protect(err, timed_run, &t)) && mem_protect(err, dump_all, &j);
    arena_free(j.arena);
    return ok;
}
