/* layout: channels last inside, whatever order the model was written in.
 *
 * A contraction reads and writes any order of axes for free (its index expressions change), and fast ones want the
 * channels of an activation last.  So the result of a contraction with weights gets its channels as last axis, and
 * every value is built in an order of its own: value v of the old graph stands in the new one as transpose(v, perm).
 * Elementwise work, reductions, broadcasts, slices, ... take over the order of their operands; transposes only change
 * the order that is noted; constants and repeated values take any.  What is left are transposes of inputs and outputs
 * at the edges of the graph.
 *
 *   %3 = contract %1, %2 {spec="a d c+e-1, b d e -> a b c | d=8 e=3"} : f32[4,16,100]
 *   %4 = exp %3 : f32[4,16,100]
 * ->
 *   %3 = contract %1, %2 {spec="a d b+e-1, c d e -> a b c | d=8 e=3"} : f32[4,100,16]
 *   %4 = exp %3 : f32[4,100,16]
 *   %5 = transpose %4 {perm=[0,2,1]} : f32[4,16,100]
 */
#include "passes/layout.h"
#include "passes/pass.h"
#include "passes/region.h"
#include <string.h>

bool pass_layout(PassCx *cx, const Graph *in, Graph *out);

static Perm perm_identity(void)
{
    Perm p;
    for (int i = 0; i < IR_MAX_RANK; i++)
        p.at[i] = i;
    return p;
}

static bool perm_same(const Perm *a, const Perm *b, int rank)
{
    return memcmp(a->at, b->at, (size_t)rank * sizeof *a->at) == 0;
}

static int perm_find(const Perm *p, int64_t axis)
{
    for (int i = 0; i < IR_MAX_RANK; i++)
        if (p->at[i] == axis)
            return i;
    die("axis %d is not in the permutation", (int)axis);
}

/* ---- transposing what has been built ---- */
enum { FLEXIBLE_DEPTH = 4 };

/* Can it be made in any order at no cost? */
static bool is_flexible(const Graph *g, Val v, int depth)
{
    const Node *n = node_of(g, v);
    if (n->op == OP_CONST || n->op == OP_IOTA || n->op == OP_BROADCAST)
        return true;
    if (!(op_info[n->op].flags & OPF_ELEMENTWISE) || depth == 0)
        return false;
    for (int i = 0; i < n->narg; i++)
        if (!is_flexible(g, n->arg[i], depth - 1))
            return false;
    return true;
}

static bool moves_unit_axes_only(const Node *n, const int64_t *perm)
{
    int64_t last = -1;
    for (int i = 0; i < n->rank; i++) {
        if (n->dim[perm[i]] == 1)
            continue;
        if (perm[i] < last)
            return false;
        last = perm[i];
    }
    return true;
}

static Val transposed(Graph *g, Val v, const int64_t *perm)
{
    const Node *n = node_of(g, v);
    Type t = type_of(g, v);
    bool identity = true;
    for (int i = 0; i < n->rank; i++) {
        t.dim[i] = n->dim[perm[i]];
        identity &= perm[i] == i;
    }
    if (identity)
        return v;
    if (n->op == OP_CONST)
        return g_const(g, t, attr_f(n, A_VALUE));
    if (n->op == OP_IOTA) {
        int axis = 0;
        while (perm[axis] != attr_i(n, A_AXIS))
            axis++;
        return g_iota(g, t, axis);
    }
    if (n->op == OP_BROADCAST)
        return g_broadcast(g, transposed(g, n->arg[0], perm), t.dim);
    if (is_flexible(g, v, FLEXIBLE_DEPTH)) {
        Val arg[3];
        for (int i = 0; i < n->narg; i++)
            arg[i] = transposed(g, n->arg[i], perm);
        return graph_node(g, (Op)n->op, arg, n->narg, n->attr, n->nattr, NULL);
    }
    if (moves_unit_axes_only(n, perm))
        return g_reshape(g, v, t.rank, t.dim);
    return g_transpose(g, v, perm);
}

/* ---- the pass ---- */
Val layout_get(Layout *l, Val old, const Perm *want)
{
    int64_t perm[IR_MAX_RANK];
    int rank = node_of(l->in, old)->rank;
    for (int i = 0; i < rank; i++)
        perm[i] = perm_find(&l->perm[old], want->at[i]);
    return transposed(l->out, l->map[old], perm);
}

/* The order that most of what it reads has; at a tie one that is not the order of the source. */
static Perm common_order(const Layout *l, const Node *n, int first, int last)
{
    Perm best = perm_identity();
    int best_votes = 0;
    for (int i = first; i < last; i++) {
        Val x = n->arg[i];
        int votes = 0, rank = node_of(l->in, x)->rank;
        if (is_flexible(l->out, l->map[x], FLEXIBLE_DEPTH))
            continue;
        for (int j = first; j < last; j++)
            votes += !is_flexible(l->out, l->map[n->arg[j]], FLEXIBLE_DEPTH) &&
                     perm_same(&l->perm[x], &l->perm[n->arg[j]], rank);
        Perm plain = perm_identity();
        if (votes > best_votes || (votes == best_votes && perm_same(&best, &plain, rank))) {
            best = l->perm[x];
            best_votes = votes;
        }
    }
    return best;
}

/* Attributes that speak of axes, for an operand in the order p. */
static int permuted_attrs(const Node *n, const Perm *p, Attr *attr, int64_t (*room)[IR_MAX_RANK])
{
    for (int k = 0; k < n->nattr; k++) {
        attr[k] = n->attr[k];
        if (attr[k].name == A_AXIS) {
            attr[k].i = perm_find(p, attr[k].i);
        } else if (attr[k].name == A_AXES) {
            int count = 0;
            for (int i = 0; i < n->rank; i++)
                for (int j = 0; j < n->attr[k].n; j++)
                    if (p->at[i] == n->attr[k].ints[j])
                        room[k][count++] = i;
            attr[k].ints = room[k];
        } else if (attr_info[attr[k].name].kind == ATTR_INTS) { /* one number an axis */
            for (int i = 0; i < attr[k].n; i++)
                room[k][i] = n->attr[k].ints[p->at[i]];
            attr[k].ints = room[k];
        }
    }
    return n->nattr;
}

/* Ops whose operands first..last-1 and result share one order of axes. */
static void copy_in_order(Layout *l, Val v, const Perm *p, int first, int last)
{
    const Node *n = node_of(l->in, v);
    Val *arg = arena_array(l->out->arena, Val, n->narg + 1);
    Attr attr[ATTR_COUNT];
    int64_t room[ATTR_COUNT][IR_MAX_RANK];
    Perm plain = perm_identity();
    for (int i = 0; i < n->narg; i++)
        arg[i] = layout_get(l, n->arg[i], i >= first && i < last ? p : &plain);
    int nattr = permuted_attrs(n, p, attr, room);
    l->map[v] = graph_node(l->out, (Op)n->op, arg, n->narg, attr, nattr, NULL);
    l->perm[v] = *p;
}

static void copy_plain(Layout *l, Val v)
{
    const Node *n = node_of(l->in, v);
    Perm plain = perm_identity();
    Val *arg = arena_array(l->out->arena, Val, n->narg + 1);
    for (int i = 0; i < n->narg; i++)
        arg[i] = layout_get(l, n->arg[i], &plain);
    Type t = type_of(l->in, v);
    Attr attr[ATTR_COUNT];
    for (int k = 0; k < n->nattr; k++) {
        attr[k] = n->attr[k];
        if (attr[k].name == A_GRAPH && n->op == OP_LOOP) {
            Graph *body = graph_new(l->out->arena, l->out->err, n->attr[k].graph->name);
            layout_graph(body, n->attr[k].graph);
            attr[k].graph = body;
        }
    }
    l->map[v] = graph_node(l->out, (Op)n->op, arg, n->narg, attr, n->nattr, &t);
    l->perm[v] = plain;
}

static void copy_transpose(Layout *l, Val v)
{
    const Node *n = node_of(l->in, v);
    const int64_t *q = attr_ints(n, A_PERM, NULL);
    Val x = n->arg[0];
    l->map[v] = l->map[x];
    l->perm[v] = perm_identity();
    for (int i = 0; i < n->rank; i++) /* new axis i is axis perm[x][i] of x, which is axis j of v where q[j] is that */
        for (int j = 0; j < n->rank; j++)
            if (q[j] == l->perm[x].at[i])
                l->perm[v].at[i] = j;
}

/* window adds an axis at the end, fold takes the last one away: it has to be last in memory too. */
static void copy_window(Layout *l, Val v)
{
    const Node *n = node_of(l->in, v);
    int rank = node_of(l->in, n->arg[0])->rank;
    Perm p = l->perm[n->arg[0]];
    if (n->op == OP_FOLD) {
        int at = perm_find(&p, rank - 1);
        memmove(p.at + at, p.at + at + 1, (size_t)(rank - 1 - at) * sizeof *p.at);
        p.at[rank - 1] = rank - 1;
    }
    copy_in_order(l, v, &p, 0, 1);
}

static void copy_node(Layout *l, Val v)
{
    const Node *n = node_of(l->in, v);
    graph_at_node(l->out, l->in, v);
    if (op_info[n->op].flags & OPF_ELEMENTWISE) {
        Perm p = common_order(l, n, 0, n->narg);
        copy_in_order(l, v, &p, 0, n->narg);
        return;
    }
    switch (n->op) {
    case OP_CAST:
    case OP_BITCAST:
    case OP_SUM:
    case OP_RMAX:
    case OP_RMIN:
    case OP_ARGMAX:
    case OP_CUMSUM:
    case OP_ARGSORT:
    case OP_BROADCAST:
    case OP_SLICE:
    case OP_PADDING:
    case OP_REVERSE:
    case OP_DYN_SLICE: {
        Perm p = node_attr(n, A_PARTS) ? perm_identity() : l->perm[n->arg[0]]; /* parts are of the first axis */
        copy_in_order(l, v, &p, 0, 1);
        break;
    }
    case OP_CONCAT:
    case OP_DYN_UPDATE: {
        int last = n->op == OP_CONCAT ? n->narg : 2;
        Perm p = common_order(l, n, 0, last);
        copy_in_order(l, v, &p, 0, last);
        break;
    }
    case OP_WINDOW:
    case OP_FOLD:
        copy_window(l, v);
        break;
    case OP_TRANSPOSE:
        copy_transpose(l, v);
        break;
    case OP_RESHAPE:
        if (!layout_reshape(l, v))
            copy_plain(l, v);
        break;
    case OP_CONTRACT:
        layout_contract(l, v);
        break;
    default:
        copy_plain(l, v);
    }
}

void layout_graph(Graph *out, const Graph *in)
{
    Layout l = {.in = in, .out = out};
    l.map = arena_array(out->arena, Val, in->n);
    l.perm = arena_array(out->arena, Perm, in->n);
    l.weights = arena_array(out->arena, bool, in->n);
    for (Val v = 1; v < in->n; v++) {
        const Node *n = node_of(in, v);
        l.weights[v] = n->op == OP_INPUT ? attr_i(n, A_ROLE) == ROLE_PARAM || attr_i(n, A_ROLE) == ROLE_FROZEN
                                         : !(op_info[n->op].flags & OPF_EFFECT);
        for (int i = 0; i < n->narg; i++)
            l.weights[v] &= l.weights[n->arg[i]];
        copy_node(&l, v);
    }
    Perm plain = perm_identity();
    for (int i = 0; i < in->nout; i++)
        graph_output(out, in->out[i].name, layout_get(&l, in->out[i].val, &plain));
}

bool pass_layout(PassCx *cx, const Graph *in, Graph *out)
{
    layout_graph(out, in);
    return cx->err->kind == ERR_NONE;
}
