/* Folding while building: constants, identities, and chains of one shape op.  Only rewrites that keep every bit of the
 * result (NaN, infinities and the sign of zero included) stand here; passes/simplify.c has the ones that need a look around. */
#include "ir/build.h"
#include <math.h>
#include <string.h>

static bool is_float(DavDtype t)
{
    return t == DAV_F64 || t == DAV_F32 || t == DAV_BF16 || t == DAV_F16;
}

static bool const_value(const Graph *g, Val v, double *value)
{
    if (g->node[v].op != OP_CONST)
        return false;
    *value = attr_f(&g->node[v], A_VALUE);
    return true;
}

static bool is_const(const Graph *g, Val v, double want)
{
    double x;
    return const_value(g, v, &x) && x == want && signbit(x) == signbit(want);
}

static Type node_type(const Node *n)
{
    return type_make((DavDtype)n->dtype, n->rank, n->dim);
}

static Val fold_constants(Graph *g, const Node *n)
{
    double x[3] = {0};
    for (int i = 0; i < n->narg; i++)
        if (!const_value(g, n->arg[i], &x[i]))
            return 0;
    DavDtype t = (DavDtype)g->node[n->arg[n->narg - 1]].dtype;
    if (is_float(t))
        return g_const(g, node_type(n), float_round((DavDtype)n->dtype, ew_float((Op)n->op, x[0], x[1], x[2])));
    if (t == DAV_I64) /* may not fit a double */
        return 0;
    return g_const(g, node_type(n), (double)ew_int((Op)n->op, t, (int64_t)x[0], (int64_t)x[1], (int64_t)x[2]));
}

/* x + 0 is x but for x = -0, which gives +0: only x + (-0) and x - (+0) are exact for floats. */
static Val fold_identity(Graph *g, const Node *n)
{
    Val x = n->narg > 0 ? n->arg[0] : 0, y = n->narg > 1 ? n->arg[1] : 0;
    bool flt = is_float((DavDtype)n->dtype);
    switch (n->op) {
    case OP_ADD:
        if (is_const(g, y, flt ? -0.0 : 0.0))
            return x;
        return is_const(g, x, flt ? -0.0 : 0.0) ? y : 0;
    case OP_SUB:
        return is_const(g, y, 0.0) ? x : 0;
    case OP_MUL:
        if (is_const(g, y, 1.0))
            return x;
        if (is_const(g, x, 1.0))
            return y;
        if (is_const(g, y, -1.0))
            return g_un(g, OP_NEG, x);
        return is_const(g, x, -1.0) ? g_un(g, OP_NEG, y) : 0;
    case OP_DIV:
        return is_const(g, y, 1.0) ? x : 0;
    case OP_NEG:
        return g->node[x].op == OP_NEG ? g->node[x].arg[0] : 0;
    case OP_MAX:
    case OP_MIN:
    case OP_AND:
    case OP_OR:
        return x == y ? x : 0;
    case OP_SELECT: {
        double c;
        if (y == n->arg[2])
            return y;
        return const_value(g, x, &c) ? (c != 0 ? y : n->arg[2]) : 0;
    }
    case OP_STOP:
        return g->node[x].op == OP_STOP || g->node[x].op == OP_CONST ? x : 0;
    default:
        return 0;
    }
}

static Val fold_cast(Graph *g, const Node *n)
{
    Val x = n->arg[0];
    if (g->node[x].dtype == n->dtype)
        return x;
    double v;
    if (!const_value(g, x, &v))
        return 0;
    DavDtype to = (DavDtype)n->dtype;
    if (is_float(to))
        return g_const(g, node_type(n), float_round(to, v));
    if (to == DAV_BOOL)
        return g_const(g, node_type(n), v != 0);
    bool whole = v == floor(v) && fabs(v) < 2147483648.0;
    return whole && (to != DAV_U32 || v >= 0) ? g_const(g, node_type(n), v) : 0;
}

static bool same_shape(const Graph *g, Val x, const Node *n)
{
    return g->node[x].rank == n->rank && memcmp(g->node[x].dim, n->dim, n->rank * sizeof *n->dim) == 0;
}

static Val fold_transpose(Graph *g, const Node *n)
{
    Val x = n->arg[0];
    const Node *in = &g->node[x];
    const int64_t *perm = attr_ints(n, A_PERM, NULL);
    bool identity = true;
    for (int i = 0; i < n->rank; i++)
        identity &= perm[i] == i;
    if (identity)
        return x;
    if (in->op != OP_TRANSPOSE)
        return 0;
    const int64_t *inner = attr_ints(in, A_PERM, NULL);
    int64_t both[IR_MAX_RANK];
    for (int i = 0; i < n->rank; i++)
        both[i] = inner[perm[i]];
    return g_transpose(g, in->arg[0], both);
}

/* Shape ops: nothing to do, a constant operand, or the same op twice. */
static Val fold_shape(Graph *g, const Node *n)
{
    Val x = n->arg[0];
    double v;
    if (n->op != OP_CONCAT && n->op != OP_PADDING && const_value(g, x, &v))
        return g_const(g, node_type(n), v);
    const Node *in = &g->node[x];
    switch (n->op) {
    case OP_RESHAPE:
        if (same_shape(g, x, n))
            return x;
        return in->op == OP_RESHAPE ? g_reshape(g, in->arg[0], n->rank, n->dim) : 0;
    case OP_BROADCAST:
        if (same_shape(g, x, n))
            return x;
        return in->op == OP_BROADCAST ? g_broadcast(g, in->arg[0], n->dim) : 0;
    case OP_TRANSPOSE:
        return fold_transpose(g, n);
    case OP_SLICE:
        return same_shape(g, x, n) ? x : 0;
    case OP_PADDING:
        return same_shape(g, x, n) ? x : 0;
    case OP_CONCAT:
        return n->narg == 1 ? x : 0;
    default:
        return 0;
    }
}

/* A reduction whose axes all have size 1 moves nothing. */
static Val fold_reduce(Graph *g, const Node *n)
{
    int count;
    const int64_t *axes = attr_ints(n, A_AXES, &count);
    for (int i = 0; i < count; i++)
        if (g->node[n->arg[0]].dim[axes[i]] != 1)
            return 0;
    return n->arg[0];
}

Val fold_node(Graph *g, const Node *n)
{
    switch (n->op) {
    case OP_CAST:
        return fold_cast(g, n);
    case OP_SUM:
    case OP_RMAX:
    case OP_RMIN:
        return fold_reduce(g, n);
    case OP_RESHAPE:
    case OP_BROADCAST:
    case OP_TRANSPOSE:
    case OP_SLICE:
    case OP_PADDING:
    case OP_CONCAT:
    case OP_REVERSE:
        return fold_shape(g, n);
    default:
        if (!(op_info[n->op].flags & OPF_ELEMENTWISE))
            return 0;
        Val v = fold_constants(g, n);
        return v ? v : fold_identity(g, n);
    }
}
