#include "codegen/cuda/index.h"

bool index_has_tiles(const Graph *k)
{
    for (Val v = 1; v < k->n; v++)
        if (node_of(k, v)->op == OP_TILE)
            return true;
    return false;
}

Val index_end(const Graph *k, Val opened)
{
    Val v = opened + 1;
    while (v < k->n && !(node_of(k, v)->op == OP_END && node_of(k, v)->arg[0] == opened))
        v++;
    return v;
}

static bool constant(const Graph *k, Val v, int64_t *value)
{
    *value = node_of(k, v)->op == OP_CONST ? (int64_t)attr_f(node_of(k, v), A_VALUE) : 0;
    return node_of(k, v)->op == OP_CONST;
}

bool index_bounds(const Graph *k, Val loop, int64_t *lo, int64_t *hi)
{
    const Node *n = node_of(k, loop);
    if (n->narg)
        return constant(k, n->arg[0], lo) && constant(k, n->arg[1], hi);
    *lo = attr_ints(n, A_NUMS, NULL)[0];
    *hi = attr_ints(n, A_NUMS, NULL)[1];
    return true;
}

enum { MOST_UNIT = 64, DEEPEST = 12 };

static int64_t lesser(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

static int64_t unit_of_number(int64_t x)
{
    uint64_t bits = (uint64_t)x | MOST_UNIT;
    return (int64_t)(bits & -bits);
}

static int64_t unit_of(const Graph *k, Val v, Val loop, int64_t line, int depth)
{
    const Node *n = node_of(k, v);
    if (n->op == OP_CONST)
        return unit_of_number((int64_t)attr_f(n, A_VALUE));
    if (n->op == OP_FOR) {
        const int64_t *nums = attr_ints(n, A_NUMS, NULL);
        int64_t step = v == loop ? line : nums[2];
        return n->narg ? lesser(unit_of(k, n->arg[0], loop, line, depth + 1), unit_of_number(step)) : unit_of_number(nums[0] | step);
    }
    if (depth >= DEEPEST || n->narg < 2)
        return 1;
    int64_t x = unit_of(k, n->arg[0], loop, line, depth + 1), y = unit_of(k, n->arg[1], loop, line, depth + 1);
    if (n->op == OP_MUL)
        return lesser(x * y, MOST_UNIT);
    return n->op == OP_ADD || n->op == OP_SUB || n->op == OP_MIN || n->op == OP_MAX || n->op == OP_REM ? lesser(x, y) : 1;
}

int64_t index_unit(const Graph *k, Val v)
{
    return unit_of(k, v, 0, 1, 0);
}

int64_t index_unit_in_lines(const Graph *k, Val v, Val loop, int64_t line)
{
    return unit_of(k, v, loop, line, 0);
}
