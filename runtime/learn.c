#include "runtime/learn.h"
#include "ir/print.h"
#include <Random123/philox.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct Build {
    Err *err;
    const char *name;
    const BuildOptions *o;
    GraphWriter write;
    const void *context;
    bool learner;
    Buf inplace;
    Arena *arena;
    DavNet *net;
} Build;

DavVal network_apply(DavNet *n, const char *scope, Network net, DavVal in, DavVal t)
{
    DavVal ins[DAV_MAX_PORTS] = {in, t}, outs[DAV_MAX_PORTS] = {{0}};
    dav_enter(n, "%s", scope);
    net.model->forward(n, net.config, ins, outs);
    dav_leave(n);
    return outs[0];
}

/* ---- gradients into accumulators ---- */
static bool trainable(const NetParam *p)
{
    return !p->frozen && strncmp(p->name, "theta.", 6) == 0;
}

static void accumulate(Build *b, DavVal param, const char *name, DavVal grad)
{
    Type t = type_of(b->net->g, param.id);
    const char *acc_name = dav_name(b->net, "acc.%s", name);
    DavVal acc = dav_state_(DAV_HERE, b->net, acc_name, DAV_F32, t.rank, t.dim);
    dav_output(b->net, dav_name(b->net, "%s'", acc_name), dav_add(acc, grad));
    buf_printf(&b->inplace, "%s%s=%s'", b->inplace.len ? ";" : "", acc_name, acc_name);
}

static void write_gradients(Build *b)
{
    DavNet *n = b->net;
    DavVal loss = {n, graph_find_output(n->g, "loss")};
    DavVal weight = dav_input(n, "weight", DAV_F32, b->o->rows);
    DavVal total = dav_sum(dav_mul(weight, loss));
    int count = net_param_count(n), k = 0;
    DavVal *x = arena_array(b->arena, DavVal, count + 1), *g = arena_array(b->arena, DavVal, count + 1);
    for (int i = 0; i < count; i++)
        if (trainable(net_param(n, i)))
            x[k++] = (DavVal){n, net_param(n, i)->val};
    dav_grads(total, x, k, g);
    k = 0;
    for (int i = 0; i < count; i++)
        if (trainable(net_param(n, i))) {
            accumulate(b, x[k], net_param(n, i)->name, g[k]);
            k++;
        }
}

static bool write_graph(void *arg)
{
    Build *b = arg;
    b->net = net_new(b->arena, b->err, b->name);
    b->write(b->net, b->context, b->o ? b->o->rows : 1);
    if (b->learner && b->err->kind == ERR_NONE)
        write_gradients(b);
    return b->err->kind == ERR_NONE;
}

static void build_close(Build *b)
{
    net_free(b->net);
    arena_free(b->arena);
    buf_free(&b->inplace);
}

static RowProgram *build(Build *b)
{
    b->arena = arena_new();
    RowProgram *r = NULL;
    if (mem_protect(b->err, write_graph, b)) {
        ProgramOptions po = {.compile = b->o->compile, .device = b->o->device, .inplace = b->inplace.at, .learns = b->learner};
        Program *p = program_compile(b->err, b->net->g, &po);
        r = p ? rows_new(p, b->o->rows) : NULL;
    }
    if (!r && b->err->kind != ERR_NONE)
        err_prefix(b->err, "program %s", b->name);
    build_close(b);
    return r;
}

RowProgram *build_program(Err *err, const char *name, const BuildOptions *o, GraphWriter write, const void *context)
{
    return build(&(Build){.err = err, .name = name, .o = o, .write = write, .context = context});
}

bool build_text(Err *err, const char *name, const BuildOptions *o, GraphWriter write, const void *context, bool learner, Buf *out)
{
    Build b = {.err = err, .name = name, .o = o, .write = write, .context = context, .learner = learner, .arena = arena_new()};
    bool ok = mem_protect(err, write_graph, &b);
    if (ok)
        graph_print(out, b.net->g);
    build_close(&b);
    return ok;
}

RowProgram *build_learner(Err *err, const char *name, const BuildOptions *o, GraphWriter write, const void *context,
                          const ParamSet *theta, Optim *optim)
{
    Build b = {.err = err, .name = name, .o = o, .write = write, .context = context, .learner = true};
    RowProgram *r = build(&b);
    if (!r)
        return NULL;
    rows_bind_params(r, theta, "theta.", theta->value);
    params_bind_inputs(theta, r->program, "acc.theta.", optim->grad, r->in);
    char name_out[600];
    for (int i = 0; i < theta->n; i++) {
        snprintf(name_out, sizeof name_out, "acc.theta.%s'", theta->entry[i].name);
        int k = program_output(r->program, name_out);
        if (k >= 0)
            r->out[k] = optim->grad + theta->entry[i].offset;
    }
    return r;
}

bool learn_rows(RowProgram *p, Err *err, int64_t n, const RowArg *in, int nin, float *weight, const RowArg *out, int nout)
{
    RowArg all[ROWS_MAX_ARGS];
    must(nin < ROWS_MAX_ARGS);
    memcpy(all, in, (size_t)nin * sizeof *all);
    all[nin] = (RowArg){.name = "weight", .data = weight, .kind = ROW_WEIGHTS};
    return rows_run(p, err, n, all, nin + 1, out, nout);
}

/* ---- initial values: Philox with the key (seed, hash of the parameter's name) ---- */
static double unit(philox4x32_ctr_t r, int k)
{
    return ((r.v[k] >> 9) + 0.5) * 0x1p-23;
}

static void initialise(const ParamEntry *e, const DavInit *init, uint32_t seed, float *value)
{
    philox4x32_key_t key = {{seed, hash_name32(e->name)}};
    for (int64_t i = 0; i < e->count; i++) {
        philox4x32_ctr_t c = {{(uint32_t)i, (uint32_t)(i >> 32), 0, 0}}, r = philox4x32(c, key);
        double v = 0;
        if (init->kind == DAV_INIT_ONES)
            v = 1;
        else if (init->kind == DAV_INIT_UNIFORM)
            v = (2 * unit(r, 0) - 1) * init->scale;
        else if (init->kind == DAV_INIT_NORMAL) /* Box and Muller */
            v = sqrt(-2 * log(unit(r, 0))) * cos(2 * M_PI * unit(r, 1)) * init->scale;
        value[i] = (float)v;
    }
}

ParamSet *build_params(Err *err, GraphWriter write, const void *context, const char *prefix, uint32_t seed)
{
    Build b = {.err = err, .name = "parameters", .write = write, .context = context, .arena = arena_new()};
    ParamSet *p = NULL;
    if (mem_protect(err, write_graph, &b)) {
        p = params_from_graph(b.net->g, prefix);
        for (int i = 0; i < p->n; i++) {
            const char *full = arena_printf(b.arena, "%s%s", prefix, p->entry[i].name);
            initialise(&p->entry[i], &net_param_named(b.net, full)->init, seed, p->value + p->entry[i].offset);
        }
    }
    build_close(&b);
    return p;
}
