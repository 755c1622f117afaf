#include "codegen/ranges.h"

bool kernel_const_i64(const Graph *k, Val v, int64_t *value)
{
    const Node *n = node_of(k, v);
    if (n->op != OP_CONST || n->dtype != DAV_I64)
        return false;
    *value = (int64_t)attr_f(n, A_VALUE);
    return true;
}

static const Range unknown = {INT64_MIN, INT64_MAX};

static Range hull(const int64_t *p, int n)
{
    Range r = {p[0], p[0]};
    for (int i = 1; i < n; i++) {
        r.lo = p[i] < r.lo ? p[i] : r.lo;
        r.hi = p[i] > r.hi ? p[i] : r.hi;
    }
    return r;
}

static Range range_product(Range x, Range y)
{
    int64_t p[4];
    if (__builtin_mul_overflow(x.lo, y.lo, &p[0]) || __builtin_mul_overflow(x.lo, y.hi, &p[1]) ||
        __builtin_mul_overflow(x.hi, y.lo, &p[2]) || __builtin_mul_overflow(x.hi, y.hi, &p[3]))
        return unknown;
    return hull(p, 4);
}

static Range range_op(Op op, Range x, Range y)
{
    Range r = unknown;
    switch (op) {
    case OP_ADD:
        return __builtin_add_overflow(x.lo, y.lo, &r.lo) || __builtin_add_overflow(x.hi, y.hi, &r.hi) ? unknown : r;
    case OP_SUB:
        return __builtin_sub_overflow(x.lo, y.hi, &r.lo) || __builtin_sub_overflow(x.hi, y.lo, &r.hi) ? unknown : r;
    case OP_NEG:
        return x.lo == INT64_MIN ? unknown : (Range){-x.hi, -x.lo};
    case OP_MUL:
        return range_product(x, y);
    case OP_DIV:
        if (y.lo != y.hi || y.lo < 1 || x.lo == INT64_MIN)
            return unknown;
        return (Range){x.lo / y.lo, x.hi / y.lo};
    case OP_REM:
        if (y.lo != y.hi || y.lo < 1)
            return unknown;
        return (Range){x.lo < 0 ? 1 - y.lo : 0, x.hi > 0 ? y.lo - 1 : 0};
    case OP_MAX:
        return (Range){x.lo > y.lo ? x.lo : y.lo, x.hi > y.hi ? x.hi : y.hi};
    case OP_MIN:
        return (Range){x.lo < y.lo ? x.lo : y.lo, x.hi < y.hi ? x.hi : y.hi};
    case OP_STOP:
        return x;
    default:
        return unknown;
    }
}

static Range range_of(const Graph *k, const Range *range, Val v)
{
    const Node *n = node_of(k, v);
    int64_t c;
    if (n->op == OP_FOR) {
        const int64_t *nums = attr_ints(n, A_NUMS, NULL);
        int64_t lo = n->narg ? range[n->arg[0]].lo : nums[0], hi = n->narg ? range[n->arg[1]].hi : nums[1];
        return (Range){lo, hi > lo ? hi - 1 : lo};
    }
    if (n->dtype == DAV_BOOL)
        return (Range){0, 1};
    if (n->dtype == DAV_I32 || n->dtype == DAV_U32)
        return n->dtype == DAV_I32 ? (Range){INT32_MIN, INT32_MAX} : (Range){0, UINT32_MAX};
    if (n->dtype != DAV_I64)
        return unknown;
    if (kernel_const_i64(k, v, &c))
        return (Range){c, c};
    if (n->op == OP_CAST) {
        DavDtype from = (DavDtype)node_of(k, n->arg[0])->dtype;
        return dav_dtype_is_float(from) ? unknown : range[n->arg[0]];
    }
    if (n->op == OP_SELECT) {
        Range y = range[n->arg[1]], z = range[n->arg[2]];
        return (Range){y.lo < z.lo ? y.lo : z.lo, y.hi > z.hi ? y.hi : z.hi};
    }
    if (!(op_info[n->op].flags & OPF_ELEMENTWISE))
        return unknown;
    return range_op((Op)n->op, range[n->arg[0]], n->narg > 1 ? range[n->arg[1]] : unknown);
}

void kernel_ranges(const Graph *k, Range *range)
{
    for (Val v = 1; v < k->n; v++)
        range[v] = range_of(k, range, v);
}

/* Indices are a few steps deep; values that share operands over and over must not cost a walk for each of the ways to them. */
enum { DEEPEST = 12 };

static bool slope_of(const Graph *k, Val v, Val loop, int depth, int64_t *by)
{
    const Node *n = node_of(k, v);
    int64_t x[2] = {0, 0};
    bool linear = (n->op == OP_ADD || n->op == OP_SUB || n->op == OP_MUL) && n->dtype == DAV_I64;
    *by = v == loop;
    if (v <= loop || n->op == OP_FOR || n->op == OP_CONST)
        return true;
    if (depth == DEEPEST || n->op == OP_ACC || n->op == OP_ACC_GET || n->op == OP_TILE_GET)
        return false;
    for (int i = 0; i < n->narg; i++)
        if (!slope_of(k, n->arg[i], loop, depth + 1, &x[linear ? i : 0]) || (!linear && x[0]))
            return false;
    if (n->op == OP_MUL)
        for (int i = 0; i < 2; i++) {
            const Node *factor = node_of(k, n->arg[1 - i]);
            if (x[i] && factor->op != OP_CONST)
                return false;
            x[i] *= x[i] ? (int64_t)attr_f(factor, A_VALUE) : 0;
        }
    *by = linear ? n->op == OP_SUB ? x[0] - x[1] : x[0] + x[1] : 0;
    return true;
}

bool index_slope(const Graph *k, Val v, Val loop, int64_t *by)
{
    return slope_of(k, v, loop, 0, by);
}
