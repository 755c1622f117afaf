/* From a graph to something that runs: passes, plan, code. */
#include "runtime/program_impl.h"
#include "ir/dtype.h"
#include "runtime/cuda/group.h"
#include "runtime/cuda/paper.h"
#include "runtime/cuda/run.h"
#include "runtime/flat.h"
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };
static const double solo_flops = 20000; /* with less work a kernel stays on one thread */

/* ---- signature ---- */
static Type seen_type(const Program *p, Type t)
{
    if (p->device == DEVICE_INTERP64 && dav_dtype_is_float(t.dtype))
        t.dtype = DAV_F64;
    return t;
}

static void take_signature(Program *p, const Graph *g)
{
    Val *in = graph_inputs(g, p->arena, &p->nin);
    p->in = arena_array(p->arena, Signature, p->nin + 1);
    for (int i = 0; i < p->nin; i++) {
        const Node *n = node_of(g, in[i]);
        bool param = attr_i(n, A_ROLE) == ROLE_PARAM || attr_i(n, A_ROLE) == ROLE_FROZEN;
        p->in[i] = (Signature){arena_str(p->arena, attr_s(n, A_NAME)), seen_type(p, type_of(g, in[i])), param};
    }
    p->nout = g->nout;
    p->out = arena_array(p->arena, Signature, p->nout + 1);
    for (int i = 0; i < p->nout; i++)
        p->out[i] = (Signature){arena_str(p->arena, g->out[i].name), seen_type(p, type_of(g, g->out[i].val)), false};
}

static int find_name(const Signature *s, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(s[i].name, name) == 0)
            return i;
    return -1;
}

/* "p_in=p_out;..." */
static bool take_inplace(Program *p, Err *err, const char *text)
{
    p->inplace = arena_array(p->arena, int, p->nout + 1);
    for (int i = 0; i < p->nout; i++)
        p->inplace[i] = -1;
    while (text && *text) {
        size_t len = strcspn(text, ";");
        char *pair = arena_strn(p->arena, text, len), *eq = strchr(pair, '=');
        text += len + (text[len] == ';');
        if (!*pair)
            continue;
        if (!eq)
            return err_user(err, "inplace: expected input=output, found '%s'", pair);
        *eq = 0;
        int in = find_name(p->in, p->nin, pair), out = find_name(p->out, p->nout, eq + 1);
        if (in < 0 || out < 0)
            return err_user(err, "inplace: there is no %s '%s'", in < 0 ? "input" : "output", in < 0 ? pair : eq + 1);
        if (!type_equal(&p->in[in].type, &p->out[out].type))
            return err_user(err, "inplace: '%s' and '%s' differ in type", pair, eq + 1);
        p->inplace[out] = in;
    }
    return true;
}

bool program_device_known(const char *name)
{
    return strcmp(name, "cpu") == 0 || strcmp(name, "interp") == 0 || strcmp(name, "interp64") == 0 || cuda_device_index(name) >= 0;
}

static bool take_device(Program *p, Err *err, const char *name)
{
    static const char *const names[] = {"cpu", "kernels", "interp", "interp64"};
    for (int i = 0; i < 4; i++)
        if (strcmp(name ? name : "cpu", names[i]) == 0) {
            p->device = (Device)i;
            return true;
        }
    if ((p->cuda_index = cuda_device_index(name)) >= 0) {
        p->device = DEVICE_CUDA;
        return true;
    }
    if ((p->paper_target = arena_str(p->arena, paper_target_name(name)))) {
        p->device = DEVICE_PAPER;
        return true;
    }
    return err_user(err, "no device is called '%s' (cpu, cuda, cuda:N, interp, interp64)", name);
}

/* ---- compilation ---- */
static void store_number(void *at, DavDtype t, int64_t i, double v)
{
    switch (t) {
    case DAV_F64:
        ((double *)at)[i] = v;
        break;
    case DAV_F32:
        ((float *)at)[i] = (float)v;
        break;
    case DAV_BF16:
        ((uint16_t *)at)[i] = bf16_from_f32((float)v);
        break;
    case DAV_F16:
        ((uint16_t *)at)[i] = f16_from_f32((float)v);
        break;
    case DAV_I64:
        ((int64_t *)at)[i] = (int64_t)v;
        break;
    case DAV_I32:
        ((int32_t *)at)[i] = (int32_t)v;
        break;
    case DAV_U32:
        ((uint32_t *)at)[i] = (uint32_t)v;
        break;
    default:
        ((uint8_t *)at)[i] = v != 0;
    }
}

static void make_literals(Program *p)
{
    p->literal = arena_array(p->arena, void *, p->plan->nliteral + 1);
    for (int k = 0; k < p->plan->nliteral; k++) {
        const Node *n = p->plan->literal[k];
        const Attr *data = node_attr(n, A_DATA);
        p->literal[k] = arena_alloc(p->arena, mem_mul((size_t)data->n + 1, dav_dtype_size((DavDtype)n->dtype)));
        for (int i = 0; i < data->n; i++)
            store_number(p->literal[k], (DavDtype)n->dtype, i, data->floats[i]);
    }
}

static void *aligned_memory(Program *p, int64_t bytes)
{
    char *m = arena_alloc(p->arena, (size_t)bytes + 2 * ALIGN);
    return m + (ALIGN - (uintptr_t)m % ALIGN) % ALIGN;
}

static bool make_code(Program *p, Err *err)
{
    const Plan *plan = p->plan;
    int n = plan->nkernel;
    p->code = arena_array(p->arena, KernelCode, n + 1);
    p->trip = arena_array(p->arena, int64_t, n + 1);
    p->solo = arena_array(p->arena, bool, n + 1);
    int64_t scratch = 0;
    if (p->device == DEVICE_CPU) {
        p->jit = jit_new(err, &p->target, jit_cache_dir(&p->cache_dir) ? p->cache_dir.at : NULL);
        if (!p->jit || !jit_compile(p->jit, err, plan->kernel, n, p->options.threads, p->code))
            return false;
    }
    for (int i = 0; i < n; i++) {
        p->trip[i] = kernel_trip(plan->kernel[i]);
        p->solo[i] =
            p->trip[i] < 2 || kernel_cost(plan->kernel[i]).flops + kernel_cost(plan->kernel[i]).bytes / 4 < solo_flops;
        scratch = p->code[i].scratch_bytes > scratch ? p->code[i].scratch_bytes : scratch;
        p->stats.cached_kernels += p->code[i].from_cache;
    }
    p->stats.kernels = n;
    p->max_threads = p->options.threads > 0 ? p->options.threads : omp_get_max_threads();
    p->thread_scratch = arena_array(p->arena, void *, p->max_threads + 1);
    for (int i = 0; i < p->max_threads; i++)
        p->thread_scratch[i] = aligned_memory(p, scratch);
    return true;
}

/* On CUDA devices independent kernels share a launch, but for those who want to know which one fails. */
static Plan *make_plan(const Program *p)
{
    PlanGrouping grouping = cuda_grouping(p->options.memory_budget);
    bool cuda = p->device == DEVICE_CUDA || p->device == DEVICE_PAPER;
    const PlanGrouping *how = cuda && !cuda_by_steps() ? &grouping : NULL;
    int64_t budget = p->options.memory_budget;
    Plan *plan = plan_make_grouped(p->arena, p->graph, p->inplace, how);
    if (how && budget > 0 && plan->arena_bytes > budget) /* it was met in the order of the graph */
        plan = plan_make_grouped(p->arena, p->graph, p->inplace, NULL);
    return plan;
}

static bool compile_kernels(Program *p, Err *err, const Graph *g)
{
    p->graph = passes_run(&p->cx, g, NULL);
    if (!p->graph)
        return false;
    double start = 1e3 * program_clock();
    p->plan = make_plan(p);
    p->stats.pass_ms += 1e3 * program_clock() - start;
    start = 1e3 * program_clock();
    if (!make_code(p, err))
        return false;
    p->stats.codegen_ms = 1e3 * program_clock() - start;
    make_literals(p);
    if (p->device == DEVICE_CUDA) {
        start = 1e3 * program_clock();
        if (!cuda_prepare(p, err, p->cuda_index))
            return false;
        p->stats.codegen_ms = 1e3 * program_clock() - start;
    } else if (p->device == DEVICE_PAPER) {
        if (!paper_prepare(p, err, p->paper_target))
            return false;
    } else {
        p->arena_mem = aligned_memory(p, p->plan->arena_bytes);
        p->kept_mem = aligned_memory(p, p->plan->kept_bytes);
    }
    for (int i = 0; i < p->plan->nkernel; i++)
        p->stats.unique_kernels += p->code[i].same_as < 0;
    plan_meetings(p->plan, p->arena, p->solo, p->inplace);
    frame_make(p);
    if (p->options.dump)
        p->times = arena_array(p->arena, StepTime, p->plan->nstep + 1);
    p->stats.memory_note = p->cx.memory_note;
    p->stats.arena_bytes = p->plan->arena_bytes;
    p->stats.packed_bytes = p->plan->kept_bytes;
    p->stats.unplanned_bytes = p->plan->unplanned_bytes;
    return true;
}

typedef struct CompileJob { Program *p; Err *err; const Graph *g; const ProgramOptions *opt; } CompileJob;

static bool compile(void *arg)
{
    CompileJob *j = arg;
    Program *p = j->p;
    p->arena = arena_new();
    if (!take_device(p, j->err, j->opt->device))
        return false;
    take_signature(p, j->g);
    p->stats.name = arena_str(p->arena, j->g->name);
    if (!take_inplace(p, j->err, j->opt->inplace))
        return false;
    p->options = j->opt->compile;
    p->learns = j->opt->learns;
    p->options.dump = arena_str(p->arena, p->options.dump);
    p->options.cpu = arena_str(p->arena, p->options.cpu);
    p->cx = (PassCx){.arena = p->arena, .err = j->err, .options = &p->options};
    if (p->device == DEVICE_INTERP || p->device == DEVICE_INTERP64) {
        interp_prepare(p);
        p->graph = passes_run(&p->cx, j->g, "autodiff");
        return p->graph != NULL;
    }
    if (!cpu_target(j->err, p->options.cpu, &p->target))
        return false;
    bool cuda = p->device == DEVICE_CUDA || p->device == DEVICE_PAPER;
    p->options.tile_rows = cuda ? CUDA_TILE_ROWS : p->target.mr;
    p->options.tile_columns = cuda ? CUDA_TILE_COLUMNS : p->target.nr;
    p->options.pair_rows = !cuda && p->target.amx ? AMX_TILE_ROWS : 0;
    p->options.sums_of_any_stride = cuda;
    p->options.processors = !cuda ? 0 : p->options.processors ? p->options.processors : CUDA_PROCESSORS;
    double start = 1e3 * program_clock();
    bool ok = compile_kernels(p, j->err, j->g);
    p->stats.pass_ms = 1e3 * program_clock() - start - p->stats.codegen_ms;
    return ok;
}

Program *program_compile(Err *err, const Graph *g, const ProgramOptions *opt)
{
    static const ProgramOptions none = {0};
    Program *p = calloc(1, sizeof *p); /* not ours to unwind: freed below whatever happens */
    if (!p) {
        err_env(err, "out of memory");
        return NULL;
    }
    CompileJob j = {p, err, g, opt ? opt : &none};
    if (mem_protect(err, compile, &j))
        return p;
    program_free(p);
    return NULL;
}

void program_free(Program *p)
{
    if (!p)
        return;
    cuda_release(p);
    paper_release(p);
    if (p->jit)
        jit_free(p->jit);
    for (size_t i = 0; i < vec_len(p->host); i++)
        mem_free(p->host[i].name);
    vec_free(p->host);
    buf_free(&p->cache_dir);
    vec_free(p->cx.notes);
    vec_free(p->cx.times);
    arena_free(p->arena);
    free(p);
}

/* ---- queries ---- */
int program_input_count(const Program *p)
{
    return p->nin;
}

int program_output_count(const Program *p)
{
    return p->nout;
}

int program_input(const Program *p, const char *name)
{
    return find_name(p->in, p->nin, name);
}

int program_output(const Program *p, const char *name)
{
    return find_name(p->out, p->nout, name);
}

const char *program_input_name(const Program *p, int i)
{
    return p->in[i].name;
}

const char *program_output_name(const Program *p, int i)
{
    return p->out[i].name;
}

Type program_input_type(const Program *p, int i)
{
    return p->in[i].type;
}

Type program_output_type(const Program *p, int i)
{
    return p->out[i].type;
}

ProgramStats program_stats(const Program *p)
{
    return p->stats;
}

bool program_forecast(const Program *p, ProgramForecast *f, Buf *report)
{
    const Paper *paper = p->paper;
    if (!paper)
        return false;
    const PaperSum *run = &paper->run;
    *f = (ProgramForecast){run->launches, run->bytes, run->seconds, run->least_bytes, run->least_s};
    if (report)
        paper_report(p, report);
    return true;
}

/* ---- host functions ---- */
void program_set_host(Program *p, const char *name, HostFn fn, void *ctx)
{
    for (size_t i = 0; i < vec_len(p->host); i++)
        if (strcmp(p->host[i].name, name) == 0) {
            p->host[i].fn = fn;
            p->host[i].ctx = ctx;
            return;
        }
    HostSlot slot = {mem_alloc(strlen(name) + 1), fn, ctx};
    strcpy(slot.name, name);
    vec_push(p->host, slot);
}

bool host_call(Program *p, Err *err, const char *name, int nin, const Type *in_type, const void *const *in, int nout,
               const Type *out_type, void *const *out)
{
    for (size_t i = 0; i < vec_len(p->host); i++)
        if (strcmp(p->host[i].name, name) == 0)
            return p->host[i].fn(p->host[i].ctx, err, nin, in_type, in, nout, out_type, out);
    return err_user(err, "the host function '%s' was not set", name);
}

/* ---- running ---- */
void program_bind(Program *p, int input, float *flat, int64_t first)
{
    must(input >= 0 && input < p->nin && first % FLAT_ALIGN == 0);
    p->in[input].flat = flat;
    p->in[input].first = first;
}

/* A program that works on the host's memory is a reader and a writer of the arrays like any other. */
static bool read_arrays(const Program *p, Err *err)
{
    bool ok = true;
    for (int i = 0; i < p->nin && ok; i++)
        ok = !p->in[i].flat || flat_read(err, p->in[i].flat);
    return ok;
}

static void wrote_arrays(const Program *p)
{
    for (int o = 0; o < p->nout; o++)
        if (p->inplace[o] >= 0 && p->in[p->inplace[o]].flat)
            flat_wrote(p->in[p->inplace[o]].flat);
}

static bool run_on_host(Program *p, Err *err, void *const *in, void *const *out, int threads, bool once)
{
    if (!read_arrays(p, err))
        return false;
    bool interpreted = p->device == DEVICE_INTERP || p->device == DEVICE_INTERP64;
    bool ok = interpreted ? interp_run(p, err, in, out) : program_execute(p, err, in, out, threads, once);
    wrote_arrays(p);
    return ok;
}

bool program_start(Program *p, Err *err, void *const *in, void *const *out, uint64_t params_version, int threads)
{
    if (p->device == DEVICE_PAPER)
        return err_user(err, "'%s' was compiled for %s on paper and cannot run", p->stats.name, p->paper_target);
    bool once = !p->once_done || p->version != params_version, cuda = p->device == DEVICE_CUDA;
    p->version = params_version;
    bool ok = cuda ? cuda_start(p, err, in, once) : run_on_host(p, err, in, out, threads, once);
    p->once_done = ok || !cuda; /* else the device may lack parameters */
    return ok;
}

bool program_finish(Program *p, Err *err, void *const *in, void *const *out)
{
    return p->device != DEVICE_CUDA || (p->once_done = cuda_finish(p, err, in, out));
}

bool program_runs_beside(const Program *p)
{
    return p->device == DEVICE_CUDA;
}

bool program_run(Program *p, Err *err, void *const *in, void *const *out, uint64_t params_version, int threads)
{
    return program_start(p, err, in, out, params_version, threads) && program_finish(p, err, in, out);
}
