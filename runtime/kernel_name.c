#include "runtime/kernel_name.h"

static const char *kind_of(const Graph *k)
{
    bool sum = false;
    for (Val v = 1; v < k->n; v++) {
        if (node_of(k, v)->op == OP_TILE)
            return "contract";
        sum |= node_of(k, v)->op == OP_ACC ||
               (node_of(k, v)->op == OP_BUF && attr_i(node_of(k, v), A_ROLE) == BUF_SCRATCH);
    }
    return sum ? "rows" : "pointwise";
}

const char *kernel_name(Arena *arena, const Graph *kernel)
{
    return arena_printf(arena, "%s_%08x", kind_of(kernel), (unsigned)(graph_hash(kernel) >> 32));
}
