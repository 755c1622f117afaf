/* split: large sums cut into a fixed number of parts that are added in order afterwards.
 *
 * Gives work to all threads without letting their number into the result: the parts depend on shapes alone.  A
 * contraction over the samples of a batch (the gradient of a weight) is cut into groups of samples small enough for a
 * core's cache.  Arg-max becomes reductions here, which fuse like any other.
 *
 *     %2 = sum %1 {axes=[0,1]} : f32[1,1,128]      ->      %2 = sum %1 {axes=[1] parts=8} : f32[64,8,128]
 *                                                          %3 = sum %2 {axes=[1]} : f32[64,1,128]
 *                                                          %4 = sum %3 {axes=[0]} : f32[1,1,128]
 */
#include "passes/contract_plan.h"
#include "passes/fuse.h"
#include "passes/region.h"
#include <string.h>

enum { LARGE_SUM = 2048, LARGE_ROW = 16384, PART = LARGE_SUM, PART_ROWS = 24, FEW_ROWS = 8 /* with many processors */, MAX_GROUPS = 16,
       GROUP_BYTES = 3584 << 10, PAIRS_BYTES = 1 << 20, ENOUGH_TILES = 64, TILE_ELEMENTS = 384, DEEP_SUM = 4096 };

/* ---- reductions ---- */
static int64_t largest_divisor(int64_t n, int64_t most)
{
    for (int64_t d = most < n ? most : n; d > 1; d--)
        if (n % d == 0)
            return d;
    return 1;
}

/* Of columns, in parts that a row kernel can take along: each is a few rows long, or all of a short sum. */
static int64_t part_count(const PassCx *cx, const Node *x, unsigned axes)
{
    int64_t length = 1, first = x->dim[__builtin_ctz(axes)];
    for (int d = 0; d < x->rank; d++)
        length *= axes >> d & 1 ? x->dim[d] : 1;
    return largest_divisor(first, length / (cx->options && cx->options->processors ? FEW_ROWS : PART_ROWS));
}

static bool last_stays(const Node *x, unsigned axes)
{
    int last = x->rank - 1;
    while (last > 0 && x->dim[last] == 1)
        last--;
    return !(axes >> last & 1);
}

/* One long axis alone: [.., n, ..] is seen as [.., parts, n / parts, ..]. */
static Val split_axis(Graph *out, Op op, Val x, int axis)
{
    const Node *n = node_of(out, x);
    int64_t parts = largest_divisor(n->dim[axis], n->dim[axis] / PART), dim[IR_MAX_RANK];
    int rank = n->rank;
    if (parts < 2 || rank == IR_MAX_RANK)
        return g_reduce_mask(out, op, x, 1u << axis);
    for (int d = 0; d < rank; d++)
        dim[d > axis ? d + 1 : d] = n->dim[d];
    dim[axis] = parts;
    dim[axis + 1] = n->dim[axis] / parts;
    Val cut = g_reduce_mask(out, op, g_reshape(out, x, rank + 1, dim), 1u << (axis + 1));
    cut = g_reduce_mask(out, op, cut, 1u << axis);
    for (int d = 0; d < rank; d++)
        dim[d] = d == axis ? 1 : node_of(out, x)->dim[d];
    return g_reshape(out, cut, rank, dim);
}

static Val split_reduction(const PassCx *cx, const Graph *in, Graph *out, Val v, const Val *map)
{
    const Node *n = node_of(in, v);
    unsigned axes = reduced_axes(in, v);
    Val x = map[n->arg[0]];
    int64_t kept = node_count(in, v), all = node_count(in, n->arg[0]);
    /* By the sum's own length: a row is summed alike in any batch.  Of rows what is summed need not be stored, and of those that leave
     * the first axis there are several. */
    if (!axes || sums_parts(in, v) || kept == 0 || all / kept < (!(axes & 1) && !last_stays(node_of(in, n->arg[0]), axes) ? LARGE_ROW : LARGE_SUM))
        return graph_copy_node(out, in, v, map);
    unsigned first = axes & -axes, rest = axes & ~first, columns = rest ? rest : first;
    if (n->op == OP_SUM && last_stays(node_of(in, n->arg[0]), axes)) {
        x = g_sum_parts(out, x, columns, part_count(cx, node_of(in, n->arg[0]), columns));
        x = g_reduce_mask(out, OP_SUM, x, columns & -columns);
        return rest ? g_reduce_mask(out, OP_SUM, x, first) : x;
    }
    if (!rest)
        return split_axis(out, (Op)n->op, x, __builtin_ctz(first));
    return g_reduce_mask(out, (Op)n->op, g_reduce_mask(out, (Op)n->op, x, rest), first);
}

/* ---- contractions ---- */
static int64_t bytes_of(const Graph *g, Val v)
{
    return node_count(g, v) * (int64_t)dav_dtype_size((DavDtype)node_of(g, v)->dtype);
}

/* The summed loop to cut: a plain leading axis of both operands; -1: none. */
static int group_loop(const Graph *g, const Node *n, const ContractSpec *s)
{
    for (int i = s->nout; i < s->nloop; i++)
        if (s->extent[i] > 1 && spec_plain_dim(s, 0, i, node_of(g, n->arg[0])->dim) == 0 &&
            spec_plain_dim(s, 1, i, node_of(g, n->arg[1])->dim) == 0)
            return i;
    return -1;
}

static int64_t group_count(const Graph *g, Val v, const ContractSpec *s, int loop)
{
    const Node *n = node_of(g, v);
    int64_t bytes = bytes_of(g, n->arg[0]) + bytes_of(g, n->arg[1]), extent = s->extent[loop], depth = 1;
    for (int i = s->nout; i < s->nloop; i++)
        depth *= s->extent[i];
    bool few_tiles = node_count(g, v) < ENOUGH_TILES * TILE_ELEMENTS && depth >= DEEP_SUM;
    int64_t most = node_of(g, n->arg[0])->dtype == DAV_BF16 ? PAIRS_BYTES : GROUP_BYTES; /* bf16 is copied: contract_pairs.c */
    int64_t groups = few_tiles ? largest_divisor(extent, 8) : 1;
    while (bytes / groups > most && groups < MAX_GROUPS && largest_divisor(extent, MAX_GROUPS) > groups)
        do
            groups++;
        while (extent % groups);
    return groups;
}

/* Output loop 0 becomes the group; the cut loop runs within it. */
static ContractSpec grouped(const ContractSpec *s, int loop, int64_t groups)
{
    ContractSpec t = *s;
    memmove(t.extent + 1, t.extent, (size_t)s->nloop * sizeof *t.extent);
    t.extent[0] = groups;
    t.extent[loop + 1] /= groups;
    t.nloop++;
    t.nout++;
    for (int o = 0; o < 2; o++)
        for (int d = 0; d < s->rank[o]; d++) {
            DimExpr *e = &t.dim[o][d];
            for (int i = 0; i < e->nterm; i++)
                e->loop[i]++;
            if (e->nterm == 1 && e->loop[0] == loop + 1) {
                e->nterm = 2;
                e->loop[0] = 0;
                e->coef[0] = t.extent[loop + 1];
                e->loop[1] = loop + 1;
                e->coef[1] = 1;
            }
        }
    return t;
}

static Val split_contract(const Graph *in, Graph *out, Val v, const Val *map)
{
    const Node *n = node_of(in, v);
    const ContractSpec *s = attr_spec(n);
    int loop = group_loop(in, n, s);
    bool room = s->nloop < SPEC_MAX_LOOPS && s->nout < IR_MAX_RANK;
    int64_t groups = loop >= 0 && room ? group_count(in, v, s, loop) : 1;
    if (groups < 2)
        return graph_copy_node(out, in, v, map);
    ContractSpec t = grouped(s, loop, groups);
    DavDtype partial = n->dtype == DAV_BF16 || n->dtype == DAV_F16 ? DAV_F32 : (DavDtype)n->dtype;
    Val sum = g_reduce_mask(out, OP_SUM, g_contract(out, map[n->arg[0]], map[n->arg[1]], &t, partial), 1);
    return g_cast(out, g_reshape(out, sum, n->rank, n->dim), (DavDtype)n->dtype);
}

/* The first index of the largest value, or of the first NaN: the least index whose value equals the maximum or is no
 * number. */
static Val split_argmax(const Graph *in, Graph *out, Val v, const Val *map)
{
    const Node *n = node_of(in, v);
    Val x = map[n->arg[0]];
    int64_t axis = attr_i(n, A_AXIS);
    Type t = type_of(out, x);
    t.dtype = DAV_I32;
    Val top = g_broadcast_like(out, g_reduce(out, OP_RMAX, x, &axis, 1), x), found = g_bin(out, OP_EQ, x, top);
    if (dav_dtype_is_float((DavDtype)node_of(out, x)->dtype))
        found = g_bin(out, OP_OR, found, g_bin(out, OP_NE, x, x));
    Val index = g_ew(out, OP_SELECT, found, g_iota(out, t, (int)axis), g_const(out, t, INT32_MAX));
    return g_reduce(out, OP_RMIN, index, &axis, 1);
}

bool pass_split(PassCx *cx, const Graph *in, Graph *out)
{
    Val *map = arena_array(cx->arena, Val, in->n);
    for (Val v = 1; v < in->n; v++) {
        const Node *n = node_of(in, v);
        graph_at_node(out, in, v);
        switch ((Op)n->op) {
        case OP_SUM:
        case OP_RMAX:
        case OP_RMIN:
            map[v] = split_reduction(cx, in, out, v, map);
            break;
        case OP_CONTRACT:
            map[v] = split_contract(in, out, v, map);
            break;
        case OP_ARGMAX:
            map[v] = split_argmax(in, out, v, map);
            break;
        case OP_LOOP: {
            Graph *body = graph_new(cx->arena, cx->err, attr_graph(n, A_GRAPH)->name);
            if (!pass_split(cx, attr_graph(n, A_GRAPH), body))
                return false;
            map[v] = region_copy_node(out, in, v, map, body);
            break;
        }
        default:
            map[v] = graph_copy_node(out, in, v, map);
        }
    }
    for (int i = 0; i < in->nout; i++)
        graph_output(out, in->out[i].name, map[in->out[i].val]);
    return cx->err->kind == ERR_NONE;
}
