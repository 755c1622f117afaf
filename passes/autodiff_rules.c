/* The gradient rules: grad_<x> for every <x> in the grad column of ops.def.  A rule is given a node of the forward
 * graph and the cotangent of its result, and gives each operand its share.  Where a mistake made a value invalid (0),
 * nothing is given. */
#include "passes/autodiff.h"
#include <math.h>
#include <string.h>

static Val arg(const Sweep *s, Val v, int i)
{
    return node_of(s->g, v)->arg[i];
}

static Val times(Sweep *s, Val x, double k)
{
    return g_bin(s->g, OP_MUL, x, g_const_like(s->g, x, k));
}

static Val plus(Sweep *s, Val x, double k)
{
    return g_bin(s->g, OP_ADD, x, g_const_like(s->g, x, k));
}

static Val mul(Sweep *s, Val x, Val y)
{
    return g_bin(s->g, OP_MUL, x, y);
}

/* c where the condition holds, else 0. */
static Val where(Sweep *s, Val cond, Val c)
{
    return g_ew(s->g, OP_SELECT, cond, c, g_const_like(s->g, c, 0));
}

/* ---- elementwise ---- */
static void grad_zero(Sweep *s, Val v, Val ct)
{
    (void)s, (void)v, (void)ct;
}

static void grad_neg(Sweep *s, Val v, Val ct)
{
    sweep_give(s, arg(s, v, 0), g_un(s->g, OP_NEG, ct));
}

static void grad_abs(Sweep *s, Val v, Val ct)
{
    Val x = arg(s, v, 0);
    sweep_give(s, x, mul(s, ct, g_un(s->g, OP_SIGN, x)));
}

static void grad_sqrt(Sweep *s, Val v, Val ct) /* 1 / (2 sqrt x) */
{
    sweep_give(s, arg(s, v, 0), g_bin(s->g, OP_DIV, times(s, ct, 0.5), v));
}

static void grad_rsqrt(Sweep *s, Val v, Val ct) /* -1/2 x^(-3/2) */
{
    Val cube = mul(s, v, mul(s, v, v));
    sweep_give(s, arg(s, v, 0), mul(s, times(s, ct, -0.5), cube));
}

static void grad_exp(Sweep *s, Val v, Val ct)
{
    sweep_give(s, arg(s, v, 0), mul(s, ct, v));
}

static void grad_expm1(Sweep *s, Val v, Val ct)
{
    sweep_give(s, arg(s, v, 0), mul(s, ct, plus(s, v, 1)));
}

static void grad_log(Sweep *s, Val v, Val ct)
{
    sweep_give(s, arg(s, v, 0), g_bin(s->g, OP_DIV, ct, arg(s, v, 0)));
}

static void grad_log1p(Sweep *s, Val v, Val ct)
{
    sweep_give(s, arg(s, v, 0), g_bin(s->g, OP_DIV, ct, plus(s, arg(s, v, 0), 1)));
}

static void grad_sin(Sweep *s, Val v, Val ct)
{
    sweep_give(s, arg(s, v, 0), mul(s, ct, g_un(s->g, OP_COS, arg(s, v, 0))));
}

static void grad_cos(Sweep *s, Val v, Val ct)
{
    sweep_give(s, arg(s, v, 0), g_un(s->g, OP_NEG, mul(s, ct, g_un(s->g, OP_SIN, arg(s, v, 0)))));
}

static void grad_atan(Sweep *s, Val v, Val ct) /* 1 / (1 + x^2) */
{
    Val x = arg(s, v, 0);
    sweep_give(s, x, g_bin(s->g, OP_DIV, ct, plus(s, mul(s, x, x), 1)));
}

static void grad_tanh(Sweep *s, Val v, Val ct) /* 1 - tanh^2 */
{
    Val square = mul(s, v, v);
    sweep_give(s, arg(s, v, 0), mul(s, ct, g_bin(s->g, OP_SUB, g_const_like(s->g, v, 1), square)));
}

static void grad_erf(Sweep *s, Val v, Val ct) /* 2/sqrt(pi) exp(-x^2) */
{
    Val x = arg(s, v, 0), bell = g_un(s->g, OP_EXP, g_un(s->g, OP_NEG, mul(s, x, x)));
    sweep_give(s, x, mul(s, ct, times(s, bell, 2 / sqrt(M_PI))));
}

static void grad_add(Sweep *s, Val v, Val ct)
{
    sweep_give(s, arg(s, v, 0), ct);
    sweep_give(s, arg(s, v, 1), ct);
}

static void grad_sub(Sweep *s, Val v, Val ct)
{
    sweep_give(s, arg(s, v, 0), ct);
    if (sweep_wants(s, arg(s, v, 1)))
        sweep_give(s, arg(s, v, 1), g_un(s->g, OP_NEG, ct));
}

static void grad_mul(Sweep *s, Val v, Val ct)
{
    for (int i = 0; i < 2; i++)
        if (sweep_wants(s, arg(s, v, i)))
            sweep_give(s, arg(s, v, i), mul(s, ct, arg(s, v, 1 - i)));
}

static void grad_div(Sweep *s, Val v, Val ct) /* z = x/y: dx = ct/y, dy = -z ct/y */
{
    Val share = g_bin(s->g, OP_DIV, ct, arg(s, v, 1));
    sweep_give(s, arg(s, v, 0), share);
    if (sweep_wants(s, arg(s, v, 1)))
        sweep_give(s, arg(s, v, 1), g_un(s->g, OP_NEG, mul(s, share, v)));
}

/* The operand that won takes everything, the first one at ties. */
static void give_winner(Sweep *s, Val v, Val ct, Op first_wins)
{
    Val x = arg(s, v, 0), y = arg(s, v, 1), first = g_bin(s->g, first_wins, x, y);
    sweep_give(s, x, where(s, first, ct));
    if (sweep_wants(s, y))
        sweep_give(s, y, g_ew(s->g, OP_SELECT, first, g_const_like(s->g, ct, 0), ct));
}

static void grad_max(Sweep *s, Val v, Val ct)
{
    give_winner(s, v, ct, OP_GE);
}

static void grad_min(Sweep *s, Val v, Val ct)
{
    give_winner(s, v, ct, OP_LE);
}

static void grad_select(Sweep *s, Val v, Val ct)
{
    Val cond = arg(s, v, 0);
    if (sweep_wants(s, arg(s, v, 1)))
        sweep_give(s, arg(s, v, 1), where(s, cond, ct));
    if (sweep_wants(s, arg(s, v, 2)))
        sweep_give(s, arg(s, v, 2), g_ew(s->g, OP_SELECT, cond, g_const_like(s->g, ct, 0), ct));
}

static void grad_fma(Sweep *s, Val v, Val ct)
{
    grad_mul(s, v, ct);
    sweep_give(s, arg(s, v, 2), ct);
}

static void grad_cast(Sweep *s, Val v, Val ct)
{
    Val x = arg(s, v, 0);
    if (sweep_wants(s, x))
        sweep_give(s, x, g_cast(s->g, ct, (DavDtype)node_of(s->g, x)->dtype));
}

/* ---- reductions ---- */
static void grad_sum(Sweep *s, Val v, Val ct)
{
    Val x = arg(s, v, 0);
    Type t = type_of(s->g, x), cut = type_of(s->g, ct);
    int64_t parts = attr_parts(node_of(s->g, v));
    if (parts > 1) { /* each part's to each of its elements */
        int first = (int)attr_ints(node_of(s->g, v), A_AXES, NULL)[0];
        memmove(cut.dim + first + 2, cut.dim + first + 1, (size_t)(cut.rank++ - first - 1) * sizeof *cut.dim);
        cut.dim[first + 1] = 1;
        ct = g_reshape(s->g, ct, cut.rank, cut.dim);
        for (int i = 0; i < t.rank; i++)
            cut.dim[i > first ? i + 1 : i] = t.dim[i];
        cut.dim[first] = parts;
        cut.dim[first + 1] = t.dim[first] / parts;
        ct = g_reshape(s->g, g_broadcast(s->g, ct, cut.dim), t.rank, t.dim);
    }
    sweep_give(s, x, g_broadcast_like(s->g, ct, x));
}

/* Of reduce_max and reduce_min: ct divided by the number of elements that reach the extreme, given to each of them. */
static void grad_reduce_max(Sweep *s, Val v, Val ct)
{
    Val x = arg(s, v, 0);
    int n;
    const int64_t *axes = attr_ints(node_of(s->g, v), A_AXES, &n);
    Val hit = g_bin(s->g, OP_EQ, x, g_broadcast_like(s->g, v, x));
    Val hits = g_reduce(s->g, OP_SUM, g_cast(s->g, hit, (DavDtype)node_of(s->g, x)->dtype), axes, n);
    sweep_give(s, x, where(s, hit, g_broadcast_like(s->g, g_bin(s->g, OP_DIV, ct, hits), x)));
}

static void grad_cumsum(Sweep *s, Val v, Val ct) /* each element reaches those after it: sum from the other end */
{
    const Node *n = node_of(s->g, v);
    Attr a[] = {{.name = A_AXIS, .i = attr_i(n, A_AXIS)},
                {.name = A_EXCLUSIVE, .i = attr_i(n, A_EXCLUSIVE)},
                {.name = A_REVERSE, .i = !attr_i(n, A_REVERSE)}};
    sweep_give(s, arg(s, v, 0), graph_node(s->g, OP_CUMSUM, &ct, 1, a, 3, NULL));
}

/* ---- shape ---- */
static void grad_broadcast(Sweep *s, Val v, Val ct)
{
    Val x = arg(s, v, 0);
    unsigned repeated = 0;
    for (int i = 0; i < node_of(s->g, v)->rank; i++)
        if (node_of(s->g, x)->dim[i] != node_of(s->g, v)->dim[i])
            repeated |= 1u << i;
    sweep_give(s, x, g_reduce_mask(s->g, OP_SUM, ct, repeated));
}

static void grad_reshape(Sweep *s, Val v, Val ct)
{
    const Node *x = node_of(s->g, arg(s, v, 0));
    sweep_give(s, arg(s, v, 0), g_reshape(s->g, ct, x->rank, x->dim));
}

static void grad_transpose(Sweep *s, Val v, Val ct)
{
    int n;
    const int64_t *perm = attr_ints(node_of(s->g, v), A_PERM, &n);
    int64_t back[IR_MAX_RANK];
    for (int i = 0; i < n; i++)
        back[perm[i]] = i;
    sweep_give(s, arg(s, v, 0), g_transpose(s->g, ct, back));
}

/* Puts stride - 1 zeros after each element along an axis: [.., n, ..] -> [.., n * stride, ..]. */
static Val spread(Graph *g, Val x, int axis, int64_t stride)
{
    Type t = type_of(g, x);
    int64_t outer = 1, inner = 1, n = t.dim[axis];
    for (int i = 0; i < axis; i++)
        outer *= t.dim[i];
    for (int i = axis + 1; i < t.rank; i++)
        inner *= t.dim[i];
    x = g_reshape(g, x, 4, (int64_t[]){outer, n, 1, inner});
    x = g_pad(g, x, (int64_t[]){0, 0, 0, 0}, (int64_t[]){0, 0, stride - 1, 0}, 0);
    t.dim[axis] = n * stride;
    return g_reshape(g, x, t.rank, t.dim);
}

static void grad_slice(Sweep *s, Val v, Val ct)
{
    Val x = arg(s, v, 0);
    const Node *n = node_of(s->g, v), *in = node_of(s->g, x);
    const int64_t *start = attr_ints(n, A_START, NULL), *stride = attr_ints(n, A_STRIDE, NULL);
    int64_t lo[IR_MAX_RANK], hi[IR_MAX_RANK], zero[IR_MAX_RANK] = {0}, limit[IR_MAX_RANK];
    for (int i = 0; i < n->rank; i++) {
        if (stride[i] > 1)
            ct = spread(s->g, ct, i, stride[i]);
        int64_t room = in->dim[i] - start[i], wide = node_of(s->g, ct)->dim[i];
        limit[i] = wide < room ? wide : room; /* zeros after the last element may stick out */
        lo[i] = start[i];
        hi[i] = room - limit[i];
    }
    for (int i = 0; i < n->rank; i++)
        if (limit[i] != node_of(s->g, ct)->dim[i]) {
            ct = g_slice(s->g, ct, zero, limit, NULL);
            break;
        }
    sweep_give(s, x, g_pad(s->g, ct, lo, hi, 0));
}

static void grad_pad(Sweep *s, Val v, Val ct)
{
    const Node *n = node_of(s->g, v), *in = node_of(s->g, arg(s, v, 0));
    const int64_t *lo = attr_ints(n, A_LO, NULL);
    int64_t limit[IR_MAX_RANK];
    for (int i = 0; i < n->rank; i++)
        limit[i] = lo[i] + in->dim[i];
    sweep_give(s, arg(s, v, 0), g_slice(s->g, ct, lo, limit, NULL));
}

static void grad_concat(Sweep *s, Val v, Val ct)
{
    const Node *n = node_of(s->g, v);
    int axis = (int)attr_i(n, A_AXIS);
    int64_t start[IR_MAX_RANK] = {0}, limit[IR_MAX_RANK];
    memcpy(limit, n->dim, sizeof limit);
    for (int i = 0; i < n->narg; i++) {
        limit[axis] = start[axis] + node_of(s->g, n->arg[i])->dim[axis];
        if (sweep_wants(s, n->arg[i]))
            sweep_give(s, n->arg[i], g_slice(s->g, ct, start, limit, NULL));
        start[axis] = limit[axis];
    }
}

static void grad_reverse(Sweep *s, Val v, Val ct)
{
    const Node *n = node_of(s->g, v);
    sweep_give(s, arg(s, v, 0), graph_node(s->g, OP_REVERSE, &ct, 1, n->attr, n->nattr, NULL));
}

/* window and fold are each other's transpose */
static void give_window_like(Sweep *s, Val v, Val ct, Op op, Attr own1, Attr own2, int nown)
{
    const Node *n = node_of(s->g, v);
    Attr a[8] = {{.name = A_AXIS, .i = attr_i(n, A_AXIS)},
                 {.name = A_STEP, .i = attr_i(n, A_STEP)},
                 {.name = A_DILATION, .i = attr_i(n, A_DILATION)},
                 {.name = A_PAD, .i = attr_i(n, A_PAD)},
                 {.name = A_COUNT, .i = node_of(s->g, arg(s, v, 0))->dim[attr_i(n, A_AXIS)]},
                 own1,
                 own2};
    sweep_give(s, arg(s, v, 0), graph_node(s->g, op, &ct, 1, a, 5 + nown, NULL));
}

static void grad_window(Sweep *s, Val v, Val ct)
{
    give_window_like(s, v, ct, OP_FOLD, (Attr){0}, (Attr){0}, 0);
}

static void grad_fold(Sweep *s, Val v, Val ct)
{
    const Node *in = node_of(s->g, arg(s, v, 0));
    give_window_like(s, v, ct, OP_WINDOW, (Attr){.name = A_SIZE, .i = in->dim[in->rank - 1]},
                     (Attr){.name = A_FILL, .f = 0}, 2);
}

static Val dyn_update(Graph *g, Val x, Val part, Val index, int64_t axis)
{
    return graph_node(g, OP_DYN_UPDATE, (Val[]){x, part, index}, 3, (Attr[]){{.name = A_AXIS, .i = axis}}, 1, NULL);
}

static void grad_dyn_slice(Sweep *s, Val v, Val ct)
{
    Val x = arg(s, v, 0);
    sweep_give(s, x, dyn_update(s->g, g_const_like(s->g, x, 0), ct, arg(s, v, 1), attr_i(node_of(s->g, v), A_AXIS)));
}

static void grad_dyn_update(Sweep *s, Val v, Val ct)
{
    Val x = arg(s, v, 0), part = arg(s, v, 1), index = arg(s, v, 2);
    int64_t axis = attr_i(node_of(s->g, v), A_AXIS);
    if (sweep_wants(s, x))
        sweep_give(s, x, dyn_update(s->g, ct, g_const_like(s->g, part, 0), index, axis));
    Attr a[] = {{.name = A_AXIS, .i = axis}, {.name = A_SIZE, .i = node_of(s->g, part)->dim[axis]}};
    if (sweep_wants(s, part))
        sweep_give(s, part, graph_node(s->g, OP_DYN_SLICE, (Val[]){ct, index}, 2, a, 2, NULL));
}

/* ---- indexing ---- */
static void grad_gather(Sweep *s, Val v, Val ct)
{
    Val x = arg(s, v, 0);
    int batch = (int)attr_i(node_of(s->g, v), A_BATCH);
    sweep_give(s, x, g_scatter_add(s->g, g_const_like(s->g, x, 0), arg(s, v, 1), ct, batch));
}

static void grad_scatter_add(Sweep *s, Val v, Val ct)
{
    sweep_give(s, arg(s, v, 0), ct);
    if (sweep_wants(s, arg(s, v, 2)))
        sweep_give(s, arg(s, v, 2), g_gather(s->g, ct, arg(s, v, 1), (int)attr_i(node_of(s->g, v), A_BATCH)));
}

static void grad_contract(Sweep *s, Val v, Val ct)
{
    for (int o = 0; o < 2; o++)
        if (sweep_wants(s, arg(s, v, o)))
            sweep_give(s, arg(s, v, o), contract_grad(s->g, v, o, ct));
}

/* ---- host and regions ---- */
/* The host function named by `vjp` is given the operands, then the cotangent, and answers with the gradients of the
 * operands that are floats, flat and one after the other, in the dtype of the result. */
static void grad_host(Sweep *s, Val v, Val ct)
{
    const Node *n = node_of(s->g, v);
    const Attr *vjp = node_attr(n, A_VJP);
    if (!vjp) {
        err_user_at(s->g->err, n->file, n->line,
                    "the gradient needs the vector-Jacobian product of the host function '%s', "
                    "which was given without one",
                    attr_s(n, A_NAME));
        return;
    }
    Val *args = arena_array(s->g->arena, Val, n->narg + 1);
    int64_t total = 0;
    for (int i = 0; i < n->narg; i++) {
        args[i] = n->arg[i];
        if (dav_dtype_is_float((DavDtype)node_of(s->g, n->arg[i])->dtype))
            total += node_count(s->g, n->arg[i]);
    }
    args[n->narg] = ct;
    Type flat = type_make((DavDtype)n->dtype, 1, &total);
    Val all = graph_node(s->g, OP_HOST, args, n->narg + 1, (Attr[]){{.name = A_NAME, .s = vjp->s}}, 1, &flat);
    int64_t from = 0;
    for (int i = 0; i < n->narg; i++) {
        Type t = type_of(s->g, n->arg[i]);
        if (!dav_dtype_is_float(t.dtype))
            continue;
        int64_t to = from + type_count(&t);
        if (sweep_wants(s, n->arg[i]))
            sweep_give(s, n->arg[i],
                       g_cast(s->g, g_reshape(s->g, g_slice(s->g, all, &from, &to, NULL), t.rank, t.dim), t.dtype));
        from = to;
    }
}

/* A tuple collects the cotangents of its results and goes on when the sweep reaches it. */
static void grad_pick(Sweep *s, Val v, Val ct)
{
    Val tuple = arg(s, v, 0);
    if (!s->result_ct[tuple])
        s->result_ct[tuple] = arena_array(s->g->arena, Val, tuple_count(s->g, tuple));
    s->result_ct[tuple][attr_i(node_of(s->g, v), A_INDEX)] = ct;
}

static void grad_call(Sweep *s, Val v, Val ct)
{
    (void)ct;
    die("call %%%d of graph '%s': calls are inlined before autodiff", v, s->g->name);
}

static void grad_loop(Sweep *s, Val v, Val ct)
{
    (void)ct;
    loop_grad(s, v);
}

static void grad_attention(Sweep *s, Val v, Val ct)
{
    (void)ct;
    attention_vjp(s, v);
}

static void grad_attention_grad(Sweep *s, Val v, Val ct)
{
    (void)ct;
    attention_grad_vjp(s, v);
}

const GradRule grad_rule[OP_COUNT] = {
#define EW(NAME, text, arity, dom, shape, grad, ...) [OP_##NAME] = grad_##grad,
#define OP(NAME, text, arity, level, shape, grad, ...) [OP_##NAME] = grad_##grad,
#include "ir/ops.def"
};

bool op_has_grad(Op op)
{
    return grad_rule[op] != grad_zero;
}
