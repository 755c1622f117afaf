/* A Program on a CUDA device: made ready, run, given back. */
#include "runtime/cuda/blaslt_rule.h"
#include "runtime/cuda/cuda_program.h"
#include "runtime/flat.h"
#include <stdlib.h>
#include <string.h>

enum { MOST_NODES = 16384 /* of a graph; longer runs are launched step by step */ };

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

/* ---- made ready ---- */
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
    return cuda_load_kernels(p, err, target);
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
    cuda_lay_out(p);
    jit_cache_dir(&p->cache_dir);
    return cuda_ok(d, err, d->cuStreamCreate(&c->stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate") &&
           blaslt_prepare(p, err, &c->device, &c->blaslt) && make_launches(p, err, &target) && cuda_take_memory(p, err);
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
    cuda_free_memory(c);
    cuda_device_close(&c->device);
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
        size_t bytes = (size_t)cuda_bytes_of(&p->in[i].type);
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
        if (p->inplace[o] >= 0 && !cuda_in_flat(p, o) && !cuda_copy_within(p, err, device_pointer(c->outputs + (CuPtr)c->out_at[o]), c->out_ptr[o], cuda_bytes_of(&p->out[o].type)))
            return false;
    return !c->out_bytes || cuda_ok(d, err, d->cuMemcpyDtoHAsync_v2(c->out_pinned, c->outputs, (size_t)c->out_bytes, c->stream),
                                    "copying the outputs");
}

/* Everything between the pinned inputs and the pinned outputs, at addresses that no run changes. */
static bool enqueue(Program *p, Err *err)
{
    return fetch_inputs(p, err) && cuda_run_steps(p, err, p->frame, false) && send_outputs(p, err);
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
    if (once && !((!c->params_among_inputs || fetch_inputs(p, err)) && cuda_run_steps(p, err, p->frame, true)))
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
    /* what came since the start may have used another device */
    if (!cuda_ok(d, err, d->cuCtxSetCurrent(c->device.context), "cuCtxSetCurrent") ||
        !cuda_ok(d, err, d->cuStreamSynchronize(c->stream), "running"))
        return err_prefix(err, "'%s' on %s (DAV_CUDA_SYNC=1 names the kernel)", p->stats.name, c->device.name);
    for (int o = 0; o < p->nout; o++) {
        if (cuda_in_flat(p, o))
            continue;
        void *to = out[o] || p->inplace[o] < 0 ? out[o] : in[p->inplace[o]];
        if (to && cuda_bytes_of(&p->out[o].type))
            memcpy(to, c->out_pinned + c->out_at[o], (size_t)cuda_bytes_of(&p->out[o].type));
    }
    return true;
}

/* Nothing may still read the caller's memory; and of arrays that the program writes nobody knows how far it came. */
static bool settle(const Program *p, bool ok)
{
    const CudaProgram *c = p->cuda;
    if (!ok)
        c->device.driver->cuStreamSynchronize(c->stream);
    for (int o = 0; o < p->nout; o++)
        if (cuda_in_flat(p, o))
            flat_device_wrote(p->in[p->inplace[o]].flat, &c->device);
    return ok;
}

bool cuda_start(Program *p, Err *err, void *const *in, bool once)
{
    CudaProgram *c = p->cuda;
    const CudaDriver *d = c->device.driver;
    if (!cuda_ok(d, err, d->cuCtxSetCurrent(c->device.context), "cuCtxSetCurrent") || !cuda_take_ends(p, err))
        return false;
    if (!put_inputs(p, err, in, once)) {
        d->cuStreamSynchronize(c->stream);
        return false;
    }
    for (int o = 0; o < p->nout; o++)
        c->out_ptr[o] = p->inplace[o] >= 0 ? c->in_ptr[p->inplace[o]] : device_pointer(c->outputs + (CuPtr)c->out_at[o]);
    frame_bind(p, p->frame, c->in_ptr, c->out_ptr, device_pointer(c->arena));
    return work(p, err, once) || settle(p, false);
}

bool cuda_finish(Program *p, Err *err, void *const *in, void *const *out)
{
    return settle(p, take_outputs(p, err, in, out));
}
