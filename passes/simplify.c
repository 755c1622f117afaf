/* simplify: rebuilds the graph without what nobody reads, and applies the algebra that needs a look at more than one
 * node.
 *
 * Building has already merged equal nodes and folded constants (ir/fold.c, rewrites that keep every bit); the rules
 * here also move work to smaller values: sums of repeated values become products, elementwise work moves in front of a
 * broadcast, transposes disappear into the index expressions of contractions.  Loops lose results that are not picked
 * and operands that are not read, among them the stacks that autodiff made in case a gradient would need them.
 *
 *     %2 = broadcast %1 {shape=[2,3,4]} : f32[2,3,4]
 *     %3 = sum %2 {axes=[0,1]} : f32[1,1,4]
 *  ->
 *     %2 = sum %1 {axes=[0]} : f32[1,1,4]
 *     %3 = const {value=3} : f32[1,1,4]
 *     %4 = mul %2, %3 : f32[1,1,4]
 */
#include "passes/fuse.h"
#include "passes/simplify.h"
#include "passes/pass.h"
#include "passes/region.h"
#include <math.h>
#include <string.h>

bool pass_simplify(PassCx *cx, const Graph *in, Graph *out);
bool pass_tidy(PassCx *cx, const Graph *in, Graph *out);

/* ---- rules: a value of g that equals node n (whose operands are values of g), 0 when there is none ---- */
typedef Val (*Rule)(Graph *g, const Node *n);

static const Node *operand(const Graph *g, const Node *n, int i)
{
    return node_of(g, n->arg[i]);
}

/* sum over repeated axes: times their number; sum of sum: one sum */
static Val simplify_sum(Graph *g, const Node *n)
{
    const Node *x = operand(g, n, 0);
    int naxes;
    const int64_t *axes = attr_ints(n, A_AXES, &naxes);
    unsigned mask = 0;
    for (int i = 0; i < naxes; i++)
        mask |= 1u << axes[i];
    if (node_attr(n, A_PARTS))
        return 0;
    if (x->op == OP_SUM && !node_attr(x, A_PARTS)) {
        int ninner;
        const int64_t *inner = attr_ints(x, A_AXES, &ninner);
        for (int i = 0; i < ninner; i++)
            mask |= 1u << inner[i];
        return g_reduce_mask(g, OP_SUM, x->arg[0], mask);
    }
    if (x->op != OP_BROADCAST || !dav_dtype_is_float((DavDtype)n->dtype))
        return 0;
    const Node *src = operand(g, x, 0);
    double repeats = 1;
    unsigned rest = 0;
    int64_t shape[IR_MAX_RANK];
    for (int i = 0; i < n->rank; i++) {
        bool repeated = src->dim[i] != x->dim[i], summed = mask >> i & 1;
        shape[i] = summed ? src->dim[i] : x->dim[i];
        if (repeated && summed)
            repeats *= (double)x->dim[i];
        else if (summed)
            rest |= 1u << i;
    }
    if (repeats == 1)
        return 0;
    Val sum = g_reduce_mask(g, OP_SUM, x->arg[0], rest);
    for (int i = 0; i < n->rank; i++)
        shape[i] = mask >> i & 1 ? 1 : shape[i];
    return g_broadcast(g, g_bin(g, OP_MUL, sum, g_const_like(g, sum, repeats)), shape);
}

/* Elementwise work on values that are all repeated alike is done before they are repeated. */
static Val before_broadcast(Graph *g, const Node *n)
{
    const Node *src = NULL;
    Val arg[3];
    for (int i = 0; i < n->narg; i++) {
        const Node *x = operand(g, n, i);
        if (x->op == OP_CONST)
            continue;
        if (x->op != OP_BROADCAST || (src && memcmp(src->dim, operand(g, x, 0)->dim, n->rank * sizeof *n->dim) != 0))
            return 0;
        src = operand(g, x, 0);
    }
    if (!src)
        return 0;
    for (int i = 0; i < n->narg; i++) {
        const Node *x = operand(g, n, i);
        Type t = type_make((DavDtype)x->dtype, n->rank, src->dim);
        arg[i] = x->op == OP_CONST ? g_const(g, t, attr_f(x, A_VALUE)) : x->arg[0];
    }
    return g_broadcast(g, graph_node(g, (Op)n->op, arg, n->narg, n->attr, n->nattr, NULL), n->dim);
}

/* And elementwise work on computed values that are all reshaped alike before they are: what a reshape gives has to be in memory. */
static Val before_reshape(Graph *g, const Node *n)
{
    const Node *src = NULL;
    Val arg[3];
    for (int i = 0; i < n->narg; i++) {
        const Node *x = operand(g, n, i), *from = x->op == OP_RESHAPE ? operand(g, x, 0) : NULL;
        if (x->op == OP_CONST)
            continue;
        if (!from || from->op == OP_INPUT || reshape_is_unit(g, n->arg[i]) ||
            (src && (src->rank != from->rank || memcmp(src->dim, from->dim, src->rank * sizeof *src->dim) != 0)))
            return 0;
        src = from;
    }
    if (!src)
        return 0;
    Type t = {.rank = src->rank};
    memcpy(t.dim, src->dim, sizeof t.dim);
    for (int i = 0; i < n->narg; i++) {
        const Node *x = operand(g, n, i);
        t.dtype = (DavDtype)x->dtype;
        arg[i] = x->op == OP_CONST ? g_const(g, t, attr_f(x, A_VALUE)) : x->arg[0];
    }
    return g_reshape(g, graph_node(g, (Op)n->op, arg, n->narg, n->attr, n->nattr, NULL), n->rank, n->dim);
}

static Val simplify_add(Graph *g, const Node *n)
{
    if (operand(g, n, 1)->op == OP_NEG)
        return g_bin(g, OP_SUB, n->arg[0], operand(g, n, 1)->arg[0]);
    if (operand(g, n, 0)->op == OP_NEG)
        return g_bin(g, OP_SUB, n->arg[1], operand(g, n, 0)->arg[0]);
    return 0;
}

static Val simplify_sub(Graph *g, const Node *n)
{
    return operand(g, n, 1)->op == OP_NEG ? g_bin(g, OP_ADD, n->arg[0], operand(g, n, 1)->arg[0]) : 0;
}

static Val simplify_mul(Graph *g, const Node *n)
{
    const Node *x = operand(g, n, 0), *y = operand(g, n, 1);
    return x->op == OP_NEG && y->op == OP_NEG ? g_bin(g, OP_MUL, x->arg[0], y->arg[0]) : 0;
}

/* Division by a power of two is a multiplication, exactly. */
static Val simplify_div(Graph *g, const Node *n)
{
    const Node *y = operand(g, n, 1);
    int exponent;
    if (y->op != OP_CONST || !dav_dtype_is_float((DavDtype)n->dtype))
        return 0;
    double v = attr_f(y, A_VALUE);
    if (frexp(fabs(v), &exponent) != 0.5 || exponent < -10 || exponent > 10)
        return 0;
    return g_bin(g, OP_MUL, n->arg[0], g_const_like(g, n->arg[1], 1 / v));
}

/* Does `wide` hold every value of `narrow`? */
static bool holds_all(DavDtype wide, DavDtype narrow)
{
    return wide == DAV_F64 || (wide == DAV_F32 && narrow != DAV_F64);
}

static Val simplify_cast(Graph *g, const Node *n)
{
    const Node *x = operand(g, n, 0);
    if (x->op == OP_CAST) {
        DavDtype from = (DavDtype)operand(g, x, 0)->dtype, mid = (DavDtype)x->dtype;
        if (dav_dtype_is_float(from) && dav_dtype_is_float(mid) && holds_all(mid, from))
            return g_cast(g, x->arg[0], (DavDtype)n->dtype);
    }
    return before_broadcast(g, n);
}

static Val simplify_reverse(Graph *g, const Node *n)
{
    const Node *x = operand(g, n, 0);
    int a, b;
    const int64_t *axes = attr_ints(n, A_AXES, &a);
    if (x->op != OP_REVERSE)
        return 0;
    const int64_t *inner = attr_ints(x, A_AXES, &b);
    return a == b && memcmp(axes, inner, (size_t)a * sizeof *axes) == 0 ? x->arg[0] : 0;
}

/* A slice of a concatenation that lies inside of one operand; a slice that takes back what pad added. */
static Val simplify_slice(Graph *g, const Node *n)
{
    const Node *x = operand(g, n, 0);
    const int64_t *start = attr_ints(n, A_START, NULL), *limit = attr_ints(n, A_LIMIT, NULL),
                  *stride = attr_ints(n, A_STRIDE, NULL);
    int64_t from[IR_MAX_RANK], to[IR_MAX_RANK];
    memcpy(from, start, n->rank * sizeof *from);
    memcpy(to, limit, n->rank * sizeof *to);
    if (x->op == OP_CONCAT) {
        int axis = (int)attr_i(x, A_AXIS);
        int64_t at = 0;
        for (int i = 0; i < x->narg; i++) {
            int64_t size = operand(g, x, i)->dim[axis];
            if (start[axis] >= at && limit[axis] <= at + size) {
                from[axis] -= at;
                to[axis] -= at;
                return g_slice(g, x->arg[i], from, to, stride);
            }
            at += size;
        }
    } else if (x->op == OP_PADDING) {
        const int64_t *lo = attr_ints(x, A_LO, NULL);
        for (int i = 0; i < n->rank; i++) {
            from[i] -= lo[i];
            to[i] -= lo[i];
            if (from[i] < 0 || to[i] > operand(g, x, 0)->dim[i])
                return 0;
        }
        return g_slice(g, x->arg[0], from, to, stride);
    }
    return 0;
}

static const Rule rules[OP_COUNT] = {
    [OP_SUM] = simplify_sum,         [OP_ADD] = simplify_add,     [OP_SUB] = simplify_sub,
    [OP_MUL] = simplify_mul,         [OP_DIV] = simplify_div,     [OP_CAST] = simplify_cast,
    [OP_REVERSE] = simplify_reverse, [OP_SLICE] = simplify_slice, [OP_CONTRACT] = simplify_contract,
};

/* A rule's result may be simplified again; each rule makes the value smaller or the chain shorter, so this ends. */
static Val simplified(Graph *g, Val v, int first_new)
{
    while (v >= first_new) {
        const Node *n = node_of(g, v);
        Val next = rules[n->op] ? rules[n->op](g, n) : 0;
        if (!next && (op_info[n->op].flags & OPF_ELEMENTWISE))
            next = before_broadcast(g, n);
        if (!next && ((op_info[n->op].flags & OPF_ELEMENTWISE) || n->op == OP_CAST))
            next = before_reshape(g, n);
        if (!next || next == v)
            return v;
        first_new = v + 1;
        v = next;
    }
    return v;
}

/* ---- rebuilding ---- */
static void mark_picks(const Graph *in, const bool *live, Arena *arena, bool **picked)
{
    for (Val v = 1; v < in->n; v++) {
        const Node *n = node_of(in, v);
        if (n->op != OP_PICK || !live[v] || node_of(in, n->arg[0])->op != OP_LOOP)
            continue;
        if (!picked[n->arg[0]])
            picked[n->arg[0]] = arena_array(arena, bool, tuple_count(in, n->arg[0]));
        picked[n->arg[0]][attr_i(n, A_INDEX)] = true;
    }
}

static int *count_uses(const Graph *in, const bool *live, Arena *arena)
{
    int *uses = arena_array(arena, int, in->n);
    for (Val v = 1; v < in->n; v++)
        for (int i = 0; live[v] && i < node_of(in, v)->narg; i++)
            uses[node_of(in, v)->arg[i]]++;
    for (int i = 0; i < in->nout; i++)
        uses[in->out[i].val]++;
    return uses;
}

void simplify_graph(Graph *out, const Graph *in)
{
    Arena *arena = out->arena;
    const bool *live = graph_live(arena, in);
    const int *uses = count_uses(in, live, arena);
    Val *map = arena_array(arena, Val, in->n);
    bool **picked = arena_array(arena, bool *, in->n);
    int **index = arena_array(arena, int *, in->n);
    mark_picks(in, live, arena, picked);
    for (Val v = 1; v < in->n; v++) {
        const Node *n = node_of(in, v);
        if (!live[v])
            continue;
        int first_new = out->n;
        graph_at_node(out, in, v);
        if (n->op == OP_LOOP) {
            index[v] = arena_array(arena, int, tuple_count(in, v));
            map[v] = simplify_loop(out, in, v, map, picked[v], index[v]);
        } else if (n->op == OP_PICK && index[n->arg[0]]) {
            map[v] = g_pick(out, map[n->arg[0]], index[n->arg[0]][attr_i(n, A_INDEX)]);
        } else if (n->op == OP_TRANSPOSE && uses[n->arg[0]] == 1 && transposed_contract(out, map[n->arg[0]], n)) {
            map[v] = transposed_contract(out, map[n->arg[0]], n);
        } else {
            map[v] = simplified(out, graph_copy_node(out, in, v, map), first_new);
        }
    }
    for (int i = 0; i < in->nout; i++)
        graph_output(out, in->out[i].name, map[in->out[i].val]);
}

static bool run(PassCx *cx, const Graph *in, Graph *out)
{
    Graph *once = graph_new(cx->arena, cx->err, in->name);
    simplify_graph(once, in);
    simplify_graph(out, once); /* what the rules left unread goes */
    return cx->err->kind == ERR_NONE;
}

bool pass_simplify(PassCx *cx, const Graph *in, Graph *out)
{
    return run(cx, in, out);
}

bool pass_tidy(PassCx *cx, const Graph *in, Graph *out)
{
    return run(cx, in, out);
}
