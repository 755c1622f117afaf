/* simplify: rebuilds the graph without what nobody reads, and applies the algebra that needs a look at more than one node.
 *
 * Building has already merged equal nodes and folded constants (ir/fold.c, rewrites that keep every bit); the rules here also
 * move work to smaller values: sums of repeated values become products, elementwise work moves in front of a broadcast,
 * transposes disappear into the index expressions of contractions.  Loops lose results that are not picked and operands that
 * are not read, among them the stacks that autodiff made in case a gradient would need them.
 *
 *     %2 = broadcast %1 {shape=[2,3,4]} : f32[2,3,4]
 *     %3 = sum %2 {axes=[0,1]} : f32[1,1,4]
 *  ->
 *     %2 = sum %1 {axes=[0]} : f32[1,1,4]
 *     %3 = const {value=3} : f32[1,1,4]
 *     %4 = mul %2, %3 : f32[1,1,4]
 */
#include "passes/pass.h"
#include "passes/region.h"
#include "passes/specs.h"
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
    if (x->op == OP_SUM) {
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
    const int64_t *start = attr_ints(n, A_START, NULL), *limit = attr_ints(n, A_LIMIT, NULL), *stride = attr_ints(n, A_STRIDE, NULL);
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

/* A transposed operand is read in its own order. */
static Val contract_untransposed(Graph *g, const Node *n)
{
    ContractSpec spec = *attr_spec(n);
    Val arg[2] = {n->arg[0], n->arg[1]};
    for (int o = 0; o < 2; o++) {
        const Node *x = operand(g, n, o);
        if (x->op != OP_TRANSPOSE)
            continue;
        const int64_t *perm = attr_ints(x, A_PERM, NULL); /* axis i of the operand is axis perm[i] of x's own */
        int64_t back[IR_MAX_RANK];
        for (int i = 0; i < x->rank; i++)
            back[perm[i]] = i;
        spec_permute_operand(&spec, o, back);
        arg[o] = x->arg[0];
    }
    return arg[0] != n->arg[0] || arg[1] != n->arg[1] ? g_contract(g, arg[0], arg[1], &spec, (DavDtype)n->dtype) : 0;
}

/* Loop `gone`, which runs once, leaves every expression; axes that were this loop leave their operand. */
static Val contract_without(Graph *g, const Node *n, int gone)
{
    ContractSpec s = *attr_spec(n);
    Val arg[2];
    for (int o = 0; o < 2; o++) {
        int64_t dim[IR_MAX_RANK];
        int rank = 0;
        for (int d = 0; d < s.rank[o]; d++) {
            DimExpr e = s.dim[o][d];
            if (expr_is_loop(&e, gone))
                continue;
            int terms = 0;
            for (int i = 0; i < e.nterm; i++) {
                if (e.loop[i] == gone)
                    continue;
                e.loop[terms] = e.loop[i] - (e.loop[i] > gone);
                e.coef[terms++] = e.coef[i];
            }
            e.nterm = terms;
            dim[rank] = operand(g, n, o)->dim[d];
            s.dim[o][rank++] = e;
        }
        arg[o] = g_reshape(g, n->arg[o], rank, dim);
        s.rank[o] = rank;
    }
    memmove(s.extent + gone, s.extent + gone + 1, (size_t)(s.nloop - gone - 1) * sizeof *s.extent);
    s.nloop--;
    s.nout -= gone < s.nout;
    return g_reshape(g, g_contract(g, arg[0], arg[1], &s, (DavDtype)n->dtype), n->rank, n->dim);
}

/* Is every axis that is one loop alone still as long as the loop when `gone` has left the expressions? */
static bool can_drop(const Graph *g, const Node *n, int gone)
{
    const ContractSpec *s = attr_spec(n);
    bool inside_sum = false;
    for (int o = 0; o < 2; o++)
        for (int d = 0; d < s->rank[o]; d++) {
            const DimExpr *e = &s->dim[o][d];
            int rest = -1;
            bool has = false, plain = e->offset == 0 && e->div == 1;
            for (int i = 0; i < e->nterm; i++) {
                has |= e->loop[i] == gone;
                if (e->loop[i] != gone) {
                    rest = e->loop[i];
                    plain &= e->coef[i] == 1;
                }
            }
            if (!has || expr_is_loop(e, gone))
                continue;
            if (e->nterm != 2)
                return false;
            inside_sum = true;
            if (plain && s->extent[rest] != operand(g, n, o)->dim[d])
                return false;
        }
    return inside_sum || gone >= s->nout;
}

/* Kernels of size 1 are matrix products. */
static Val contract_unit_loop(Graph *g, const Node *n)
{
    const ContractSpec *s = attr_spec(n);
    for (int l = 0; l < s->nloop; l++)
        if (s->extent[l] == 1 && can_drop(g, n, l))
            return contract_without(g, n, l);
    return 0;
}

static Val simplify_contract(Graph *g, const Node *n)
{
    Val v = contract_untransposed(g, n);
    return v ? v : contract_unit_loop(g, n);
}

/* A contraction that only this transpose reads is made in the transposed order. */
static Val transposed_contract(Graph *g, Val contract, const Node *transpose)
{
    const Node *n = node_of(g, contract);
    if (n->op != OP_CONTRACT)
        return 0;
    ContractSpec s = *attr_spec(n);
    spec_permute_output(&s, attr_ints(transpose, A_PERM, NULL));
    return g_contract(g, n->arg[0], n->arg[1], &s, (DavDtype)n->dtype);
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
        if (!next || next == v)
            return v;
        first_new = v + 1;
        v = next;
    }
    return v;
}

/* ---- loops ---- */
static void rebuild(Graph *out, const Graph *in);

/* The loop without the results in `picked` that are false (carried ones stay) and without scanned and invariant operands that
 * the body does not read.  index[k]: the new number of result k. */
static Val copy_loop(Graph *out, const Graph *in, Val v, const Val *map, const bool *picked, int *index)
{
    const Node *n = node_of(in, v);
    const Graph *body = attr_graph(n, A_GRAPH);
    int carry = (int)attr_i(n, A_CARRY), scan = (int)attr_i(n, A_SCAN), nin;
    Graph *wanted = graph_new(out->arena, out->err, body->name), *slim = graph_new(out->arena, out->err, body->name);
    Val *inner = arena_array(out->arena, Val, body->n);
    for (Val b = 1; b < body->n; b++)
        inner[b] = graph_copy_node(wanted, body, b, inner);
    for (int k = 0; k < body->nout; k++)
        if (k < carry || picked[k]) {
            index[k] = wanted->nout;
            graph_output(wanted, body->out[k].name, inner[body->out[k].val]);
        }
    rebuild(slim, wanted);
    const Val *input = graph_inputs(slim, out->arena, &nin);
    bool *read = arena_array(out->arena, bool, slim->n);
    for (Val b = 1; b < slim->n; b++)
        for (int i = 0; i < node_of(slim, b)->narg; i++)
            read[node_of(slim, b)->arg[i]] = true;
    for (int k = 0; k < slim->nout; k++)
        read[slim->out[k].val] = true;
    Val *arg = arena_array(out->arena, Val, n->narg + 1), *keep = arena_array(out->arena, Val, slim->n);
    Graph *final = graph_new(out->arena, out->err, body->name);
    int narg = 0, nscan = 0;
    for (int i = 0; i < nin; i++) {
        if (i >= carry && !read[input[i]])
            continue;
        nscan += i >= carry && i < carry + scan;
        arg[narg++] = map[n->arg[i]];
    }
    for (Val b = 1; b < slim->n; b++) {
        bool dropped = false;
        for (int i = carry; i < nin; i++)
            dropped |= b == input[i] && !read[b];
        if (!dropped)
            keep[b] = graph_copy_node(final, slim, b, keep);
    }
    for (int k = 0; k < slim->nout; k++)
        graph_output(final, slim->out[k].name, keep[slim->out[k].val]);
    Attr extra[] = {{.name = A_TRIP, .i = attr_i(n, A_TRIP)}, {.name = A_CARRY, .i = carry}, {.name = A_SCAN, .i = nscan}};
    graph_at_node(out, in, v);
    return g_region(out, OP_LOOP, final, arg, narg, extra, 3);
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

static void rebuild(Graph *out, const Graph *in)
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
            map[v] = copy_loop(out, in, v, map, picked[v], index[v]);
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
    rebuild(once, in);
    rebuild(out, once); /* what the rules left unread goes */
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
