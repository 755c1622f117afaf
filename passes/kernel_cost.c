#include "passes/kernel_cost.h"

enum { MAX_DEPTH = 64 };
static const double unknown_trip = 64;

static bool const_of(const Graph *k, Val v, double *value)
{
    if (node_of(k, v)->op != OP_CONST)
        return false;
    *value = attr_f(node_of(k, v), A_VALUE);
    return true;
}

/* Trips of a loop whose bounds are computed: hi is often min(lo + block, end). */
static double dynamic_trip(const Graph *k, const Node *n)
{
    const Node *hi = node_of(k, n->arg[1]);
    double value;
    if (const_of(k, n->arg[1], &value))
        return value;
    if (hi->op != OP_MIN)
        return unknown_trip;
    const Node *sum = node_of(k, hi->arg[0]);
    if (sum->op == OP_ADD && const_of(k, sum->arg[1], &value))
        return value;
    return const_of(k, hi->arg[1], &value) ? value : unknown_trip;
}

static double trip_of(const Graph *k, const Node *n)
{
    const int64_t *nums = attr_ints(n, A_NUMS, NULL);
    if (n->narg)
        return dynamic_trip(k, n);
    return nums[1] <= nums[0] ? 0 : (double)((nums[1] - nums[0] + nums[2] - 1) / nums[2]);
}

static double tile_flops(const Graph *k, Val v)
{
    TileContract t = k_tile_contract_of(k, v);
    const Node *tile = node_of(k, t.tile);
    double depth = unknown_trip;
    const_of(k, t.k, &depth);
    return 2 * depth * (double)attr_i(tile, A_MR) * (double)attr_i(tile, A_NR);
}

/* How often the body of an if runs: the two halves of a peeled tile loop (rows below `edge`, the last tile) share its
 * trips, and so do two kinds of iterations that are told apart by a digit of their number. */
static double share_of(const Graph *k, const Node *n)
{
    const Node *cond = node_of(k, n->arg[0]);
    double edge, rows;
    if ((cond->op != OP_LT && cond->op != OP_GE) || !const_of(k, cond->arg[1], &edge))
        return 1;
    const Node *first = node_of(k, cond->arg[0]);
    if (first->op == OP_REM && const_of(k, first->arg[1], &rows) && rows >= edge)
        return cond->op == OP_LT ? edge / rows : 1 - edge / rows;
    if (first->op != OP_MUL || !const_of(k, first->arg[1], &rows) || rows <= 0)
        return 1;
    return (cond->op == OP_LT ? edge / rows : 1) / (edge / rows + 1);
}

KernelCost kernel_cost(const Graph *k)
{
    KernelCost c = {0};
    double times[MAX_DEPTH] = {1};
    int depth = 0;
    for (Val v = 1; v < k->n; v++) {
        const Node *n = node_of(k, v);
        bool index = n->dtype == DAV_I64 || n->dtype == DAV_BOOL;
        if (n->op == OP_BUF && attr_i(n, A_ROLE) != BUF_SCRATCH && !k_buf_is_view(k, v))
            c.bytes += (double)node_count(k, v) * (double)dav_dtype_size((DavDtype)n->dtype);
        else if ((n->op == OP_FOR || n->op == OP_IF) && depth + 1 < MAX_DEPTH)
            times[depth + 1] = times[depth] * (n->op == OP_FOR ? trip_of(k, n) : share_of(k, n)), depth++;
        else if (n->op == OP_END && depth)
            depth--;
        else if (n->op == OP_TILE_CONTRACT)
            c.flops += times[depth] * tile_flops(k, v);
        else if (n->op == OP_ACC_UPDATE || (((op_info[n->op].flags & OPF_ELEMENTWISE) || n->op == OP_EXP2) && !index))
            c.flops += times[depth];
    }
    return c;
}
