/* Neighbouring axes that every value of a region treats alike become one, so that loops are long and indices cheap:
 * f32[64,200,128] + f32[64,200,128] is one loop over 1638400 elements.  Regions that read anything at other indices
 * than their own stay as they are. */
#include "passes/lower.h"
#include <string.h>

typedef struct Collapse {
    const Graph *body;
    Type *type;   /* of every value, axes aligned with the domain; rank -1: not used as itself */
    Type domain;
    unsigned reduced, cut; /* axes: of rows; of sums in parts */
    int64_t parts;
    int join[IR_MAX_RANK]; /* axis -> new axis */
    int rank;
} Collapse;

/* Inputs that are only read through one unit reshape count as having its shape: bias f32[128] as f32[1,1,128]. */
static bool align_types(Collapse *c)
{
    const Graph *g = c->body;
    for (Val v = 1; v < g->n; v++)
        c->type[v].rank = -1;
    for (Val v = 1; v < g->n; v++) {
        const Node *n = node_of(g, v);
        bool known = (op_info[n->op].flags & OPF_ELEMENTWISE) || n->op == OP_INPUT || n->op == OP_CONST ||
                     n->op == OP_IOTA || n->op == OP_CAST || n->op == OP_BITCAST || n->op == OP_SUM ||
                     n->op == OP_RMAX || n->op == OP_RMIN || n->op == OP_BROADCAST ||
                     (n->op == OP_RESHAPE && reshape_is_unit(g, v));
        if (!known)
            return false;
        if (n->op == OP_INPUT)
            continue;
        Type t = type_of(g, v);
        if (t.rank != c->domain.rank)
            return false;
        c->type[v] = t;
        for (int i = 0; i < n->narg; i++) {
            Val x = n->arg[i];
            bool input = node_of(g, x)->op == OP_INPUT;
            Type want = n->op == OP_RESHAPE ? t : type_of(g, x);
            if (n->op == OP_RESHAPE && !input)
                return false;
            if (input && c->type[x].rank >= 0 && !type_equal(&c->type[x], &want))
                return false;
            if (input)
                c->type[x] = want;
        }
    }
    for (int i = 0; i < g->nout; i++)
        if (c->type[g->out[i].val].rank < 0)
            return false;
    return true;
}

/* Axes a and b, longer than 1 with nothing but units between them. */
static bool may_join(const Collapse *c, int a, int b)
{
    if ((c->reduced >> a & 1) != (c->reduced >> b & 1) || (c->cut >> a & 1) != (c->cut >> b & 1) || (c->parts > 1 && c->cut >> a & 1))
        return false;
    for (Val v = 1; v < c->body->n; v++) {
        const Type *t = &c->type[v];
        if (t->rank < 0)
            continue;
        if (t->rank != c->domain.rank || (t->dim[a] == 1) != (t->dim[b] == 1))
            return false;
        const Node *n = node_of(c->body, v);
        if (n->op == OP_IOTA && (attr_i(n, A_AXIS) == a || attr_i(n, A_AXIS) == b))
            return false;
    }
    return true;
}

static Type joined(const Collapse *c, const Type *t)
{
    Type r = {.dtype = t->dtype, .rank = c->rank};
    for (int d = 0; d < c->rank; d++)
        r.dim[d] = 1;
    for (int d = 0; d < t->rank; d++)
        r.dim[c->join[d]] *= t->dim[d];
    return r;
}

static Val rebuild(const Collapse *c, Graph *out, Val v, const Val *map)
{
    const Node *n = node_of(c->body, v);
    if (n->op == OP_RESHAPE)
        return map[n->arg[0]];
    Type t = c->type[v].rank < 0 ? type_of(c->body, v) : joined(c, &c->type[v]);
    if (n->op == OP_IOTA) {
        int axis = (int)attr_i(n, A_AXIS);
        return n->dim[axis] == 1 ? g_const(out, t, 0) : g_iota(out, t, c->join[axis]);
    }
    if (n->op == OP_BROADCAST)
        return g_broadcast(out, map[n->arg[0]], t.dim);
    if (reduced_axes(c->body, v)) {
        unsigned axes = 0;
        for (int d = 0; d < c->domain.rank; d++)
            if (reduced_axes(c->body, v) >> d & 1)
                axes |= 1u << c->join[d];
        return sums_parts(c->body, v) ? g_sum_parts(out, map[n->arg[0]], axes, attr_parts(n))
                                      : g_reduce_mask(out, (Op)n->op, map[n->arg[0]], axes);
    }
    if (n->op == OP_SUM || n->op == OP_RMAX || n->op == OP_RMIN)
        return map[n->arg[0]];
    Val arg[3];
    for (int i = 0; i < n->narg && i < 3; i++)
        arg[i] = map[n->arg[i]];
    return graph_node(out, (Op)n->op, arg, n->narg, n->attr, n->nattr, &t);
}

static void find_axes(Collapse *c)
{
    for (Val v = 1; v < c->body->n; v++) {
        if (!reduced_axes(c->body, v))
            continue;
        c->domain = type_of(c->body, node_of(c->body, v)->arg[0]);
        *(sums_parts(c->body, v) ? &c->cut : &c->reduced) |= reduced_axes(c->body, v);
        c->parts = sums_parts(c->body, v) ? attr_parts(node_of(c->body, v)) : c->parts;
    }
}

const Graph *collapse_axes(PassCx *cx, const Graph *body)
{
    Collapse c = {
        .body = body, .type = arena_array(cx->arena, Type, body->n), .domain = type_of(body, body->out[0].val)};
    find_axes(&c);
    if (c.domain.rank < 2 || !align_types(&c))
        return body;
    for (int d = 0, last = -1; d < c.domain.rank; d++) { /* last: the newest axis longer than 1 of the open group */
        bool unit = c.domain.dim[d] == 1;
        if (d == 0 || (!unit && last >= 0 && !may_join(&c, last, d)))
            c.rank++;
        c.join[d] = c.rank - 1;
        last = unit ? last : d;
    }
    Graph *out = graph_new(cx->arena, cx->err, body->name);
    out->no_fold = true;
    Val *map = arena_array(cx->arena, Val, body->n);
    for (Val v = 1; v < body->n; v++) {
        graph_at_node(out, body, v);
        map[v] = rebuild(&c, out, v, map);
    }
    for (int i = 0; i < body->nout; i++)
        graph_output(out, body->out[i].name, map[body->out[i].val]);
    return out;
}
