#include "runtime/optim.h"
#include <math.h>
#include <string.h>

/* Inputs and outputs of the update, in this order. */
enum { IN_THETA, IN_GRAD, IN_M, IN_V, IN_EMA, IN_HYPER, N_IN };
enum { OUT_THETA, OUT_M, OUT_V, OUT_EMA, OUT_GRAD, OUT_NORM, N_OUT };
/* REST_x: 1 - x, in f32; FIX: of the moments' bias */
enum { H_LR, H_B1, H_REST_B1, H_B2, H_REST_B2, H_EPS, H_DECAY, H_CLIP, H_EMA, H_REST_EMA, H_FIX1, H_FIX2, N_HYPER };
static const char *const in_name[] = {"theta", "grad", "m", "v", "ema", "hyper"};

/* Two kernels: sums of squares over leaves, and all the rest.  Its rows are as long as there are leaves, so that each row adds the
 * leaves' sums for itself, before it updates as many elements: a read of a value that stays in the cache beside nine of memory. */
enum { MOST_AT_ONCE = 8192 }; /* longer leaves (67 million parameters) are sums of sums: a third kernel */
typedef struct Update { Graph *g; Val hyper; Type array; } Update;

static Val hyper(const Update *u, int k)
{
    return g_slice(u->g, u->hyper, (int64_t[]){0, k}, (int64_t[]){1, k + 1}, NULL);
}

static Val everywhere(const Update *u, Val one)
{
    return g_broadcast(u->g, one, u->array.dim);
}

static Val times(const Update *u, int k, Val x)
{
    return g_bin(u->g, OP_MUL, everywhere(u, hyper(u, k)), x);
}

/* decay * old + (1 - decay) * fresh */
static Val blend(const Update *u, int decay, int rest, Val old, Val fresh)
{
    return g_bin(u->g, OP_ADD, times(u, decay, old), times(u, rest, fresh));
}

/* [rows, 1], the same number in each. */
static Val gradient_norm(const Update *u, Val grad)
{
    const int64_t rows = u->array.dim[0], leaves = u->array.dim[1];
    const int64_t piece = rows < MOST_AT_ONCE ? rows : MOST_AT_ONCE;
    Val leaf = g_reshape(u->g, grad, 3, (int64_t[]){leaves, rows / piece, piece});
    Val sums = g_reduce_mask(u->g, OP_SUM, g_bin(u->g, OP_MUL, leaf, leaf), 6);
    Val all = g_broadcast(u->g, g_reshape(u->g, sums, 2, (int64_t[]){1, leaves}), u->array.dim);
    return g_un(u->g, OP_SQRT, g_reduce_mask(u->g, OP_SUM, all, 2));
}

static Val clipped(const Update *u, Val grad, Val norm)
{
    Graph *g = u->g;
    Val clip = g_broadcast_like(g, hyper(u, H_CLIP), norm), one = g_const_like(g, norm, 1);
    Val scale = g_bin(g, OP_MIN, g_bin(g, OP_DIV, clip, g_bin(g, OP_ADD, norm, g_const_like(g, norm, 1e-6))), one);
    return g_bin(g, OP_MUL, grad, everywhere(u, scale));
}

/* A norm that is not finite leaves everything as it was. */
static Val keep_if(const Update *u, Val finite, Val fresh, Val old)
{
    return g_ew(u->g, OP_SELECT, everywhere(u, finite), fresh, old);
}

static Graph *update_graph(Arena *arena, Err *err, int64_t n)
{
    const int64_t rows = param_leaf(n);
    Update u = {graph_new(arena, err, "update"), 0, type_make(DAV_F32, 2, (int64_t[]){rows, n / rows})};
    Graph *g = u.g;
    graph_at(g, "runtime/optim.c", __LINE__); /* what errors and dumps say of its kernels */
    Val in[N_IN];
    for (int i = 0; i < N_IN; i++)
        in[i] = g_input(g, in_name[i], i == IN_HYPER ? ROLE_DATA : ROLE_STATE,
                        i == IN_HYPER ? type_make(DAV_F32, 2, (int64_t[]){1, N_HYPER}) : u.array);
    u.hyper = in[IN_HYPER];
    Val norm = gradient_norm(&u, in[IN_GRAD]);
    Val finite = g_bin(g, OP_LT, norm, g_const_like(g, norm, INFINITY));
    Val grad = clipped(&u, in[IN_GRAD], norm);
    Val m = blend(&u, H_B1, H_REST_B1, in[IN_M], grad);
    Val v = blend(&u, H_B2, H_REST_B2, in[IN_V], g_bin(g, OP_MUL, grad, grad));
    Val root = g_un(g, OP_SQRT, g_bin(g, OP_DIV, v, everywhere(&u, hyper(&u, H_FIX2))));
    Val step = g_bin(g, OP_DIV, g_bin(g, OP_DIV, m, everywhere(&u, hyper(&u, H_FIX1))),
                     g_bin(g, OP_ADD, root, everywhere(&u, hyper(&u, H_EPS))));
    Val decay = times(&u, H_DECAY, in[IN_THETA]);
    Val theta = g_bin(g, OP_SUB, in[IN_THETA], times(&u, H_LR, g_bin(g, OP_ADD, decay, step)));
    theta = keep_if(&u, finite, theta, in[IN_THETA]);
    graph_output(g, "theta'", theta);
    graph_output(g, "m'", keep_if(&u, finite, m, in[IN_M]));
    graph_output(g, "v'", keep_if(&u, finite, v, in[IN_V]));
    graph_output(g, "ema'", keep_if(&u, finite, blend(&u, H_EMA, H_REST_EMA, in[IN_EMA], theta), in[IN_EMA]));
    graph_output(g, "grad'", keep_if(&u, finite, g_const_like(g, in[IN_GRAD], 0), in[IN_GRAD]));
    graph_output(g, "norm", norm);
    return g;
}

Optim *optim_new(Err *err, const ParamSet *p, const CompileOptions *co, const char *device)
{
    if (!flat_read(err, p->value))
        return NULL;
    Arena *arena = arena_new();
    ProgramOptions opt = {.compile = *co, .device = device, .inplace = "theta=theta';m=m';v=v';ema=ema';grad=grad'"};
    opt.compile.precision = DAV_F32; /* masters and moments are f32 whatever the network computes in */
    Program *prog = program_compile(err, update_graph(arena, err, p->trainable), &opt);
    arena_free(arena);
    if (!prog)
        return NULL;
    Optim *o = mem_alloc(sizeof *o);
    *o = (Optim){.program = prog, .size = p->trainable, .grad = params_flat(p), .m = params_flat(p), .v = params_flat(p),
                 .ema = params_flat(p), .norm = mem_alloc(mem_mul((size_t)param_leaf(p->trainable), sizeof(float)))};
    memcpy(o->ema, p->value, (size_t)p->size * sizeof(float));
    float *const flat[] = {[IN_GRAD] = o->grad, [IN_M] = o->m, [IN_V] = o->v, [IN_EMA] = o->ema};
    for (int i = IN_GRAD; i <= IN_EMA; i++)
        program_bind(prog, i, flat[i], 0);
    return o;
}

void optim_free(Optim *o)
{
    if (!o)
        return;
    program_free(o->program);
    flat_free(o->grad);
    flat_free(o->m);
    flat_free(o->v);
    flat_free(o->ema);
    mem_free(o->norm);
    mem_free(o);
}

bool optim_update(Optim *o, Err *err, ParamSet *p, const OptimSettings *s, double *grad_norm)
{
    double k = (double)(o->step + 1);
    float h[N_HYPER];
    h[H_LR] = (float)s->lr, h[H_B1] = (float)s->beta1, h[H_B2] = (float)s->beta2, h[H_EPS] = (float)s->eps;
    h[H_DECAY] = (float)s->weight_decay, h[H_CLIP] = s->clip > 0 ? (float)s->clip : INFINITY, h[H_EMA] = (float)s->ema;
    h[H_REST_B1] = 1 - h[H_B1], h[H_REST_B2] = 1 - h[H_B2], h[H_REST_EMA] = 1 - h[H_EMA];
    h[H_FIX1] = (float)(1 - pow(s->beta1, k)), h[H_FIX2] = (float)(1 - pow(s->beta2, k));
    void *in[N_IN] = {p->value, o->grad, o->m, o->v, o->ema, h};
    void *out[N_OUT] = {p->value, o->m, o->v, o->ema, o->grad, o->norm};
    program_bind(o->program, IN_THETA, p->value, 0);
    if (!program_run(o->program, err, in, out, 0, 0))
        return false;
    *grad_norm = o->norm[0];
    if (!isfinite(*grad_norm))
        return err_user(err, "update %lld: the gradient's norm is not finite (learning rate %g; try a smaller one)",
                        (long long)o->step + 1, s->lr);
    o->step++;
    params_touch(p);
    return true;
}
