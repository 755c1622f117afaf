#include "support/line_graphs.h"
#include "ir/build.h"

static Type rows_of(DavDtype t, int64_t rows, int64_t length)
{
    return type_make(t, 2, (int64_t[]){rows, length});
}

static Val softmax(Graph *g, Val x)
{
    Val top = g_reduce_mask(g, OP_RMAX, x, 2), e = g_un(g, OP_EXP, g_bin(g, OP_SUB, x, g_broadcast_like(g, top, x)));
    return g_bin(g, OP_DIV, e, g_broadcast_like(g, g_reduce_mask(g, OP_SUM, e, 2), e));
}

Graph *softmax_graph(Arena *a, Err *err, DavDtype t, int64_t rows, int64_t length)
{
    Graph *g = graph_new(a, err, "softmax");
    Val x = g_input(g, "x", ROLE_DATA, rows_of(t, rows, length));
    graph_output(g, "y", g_cast(g, softmax(g, g_cast(g, x, DAV_F32)), t));
    return g;
}

Graph *norm_graph(Arena *a, Err *err, DavDtype t, int64_t rows, int64_t length)
{
    Graph *g = graph_new(a, err, "norm");
    Val x = g_cast(g, g_input(g, "x", ROLE_DATA, rows_of(t, rows, length)), DAV_F32);
    Val w = g_input(g, "w", ROLE_DATA, rows_of(DAV_F32, 1, length)), n = g_const(g, rows_of(DAV_F32, rows, 1), 1.0 / (double)length);
    Val mean = g_bin(g, OP_MUL, g_reduce_mask(g, OP_SUM, x, 2), n), off = g_bin(g, OP_SUB, x, g_broadcast_like(g, mean, x));
    Val square = g_bin(g, OP_MUL, g_reduce_mask(g, OP_SUM, g_bin(g, OP_MUL, off, off), 2), n);
    Val root = g_un(g, OP_RSQRT, g_bin(g, OP_ADD, square, g_const_like(g, square, 1e-5)));
    Val y = g_bin(g, OP_MUL, g_bin(g, OP_MUL, off, g_broadcast_like(g, root, x)), g_broadcast_like(g, w, x));
    graph_output(g, "y", g_cast(g, y, t));
    return g;
}

Graph *mixed_graph(Arena *a, Err *err, int64_t rows, int64_t length)
{
    Graph *g = graph_new(a, err, "mixed");
    Val mask = g_input(g, "mask", ROLE_DATA, rows_of(DAV_BOOL, rows, length)), half = g_input(g, "half", ROLE_DATA, rows_of(DAV_BF16, rows, length));
    Val single = g_input(g, "single", ROLE_DATA, rows_of(DAV_F32, rows, length)), one = g_input(g, "one", ROLE_DATA, rows_of(DAV_F32, rows, 1));
    Val index = g_input(g, "index", ROLE_DATA, rows_of(DAV_I64, rows, length));
    Val not = g_un(g, OP_NOT, mask), y = g_ew(g, OP_SELECT, not, g_bin(g, OP_ADD, g_cast(g, half, DAV_F32), single), g_broadcast_like(g, one, single));
    graph_output(g, "y", y);
    graph_output(g, "z", g_cast(g, y, DAV_BF16));
    graph_output(g, "n", g_bin(g, OP_ADD, index, g_cast(g, not, DAV_I64)));
    graph_output(g, "m", not);
    return g;
}

Graph *slices_graph(Arena *a, Err *err, bool summed, int64_t rows, int64_t length)
{
    Graph *g = graph_new(a, err, "slices");
    Val x = g_input(g, "x", ROLE_DATA, rows_of(DAV_F32, rows, length + 8));
    Val y = g_slice(g, x, (int64_t[]){0, 1}, (int64_t[]){rows, length + 1}, NULL);
    graph_output(g, "y", summed ? softmax(g, y) : y);
    return g;
}

Graph *sums_graph(Arena *a, Err *err, int64_t rows, int64_t length, int64_t width)
{
    Graph *g = graph_new(a, err, "sums");
    Val x = g_input(g, "x", ROLE_DATA, rows_of(DAV_F32, rows, width));
    graph_output(g, "y", g_reduce_mask(g, OP_SUM, g_slice(g, x, (int64_t[]){0, 0}, (int64_t[]){rows, length}, NULL), 2));
    return g;
}

Graph *flat_graph(Arena *a, Err *err, DavDtype t, int64_t n)
{
    Graph *g = graph_new(a, err, "flat");
    Val x = g_input(g, "x", ROLE_DATA, type_make(t, 1, &n)), y = g_input(g, "y", ROLE_DATA, type_make(t, 1, &n));
    graph_output(g, "z", g_bin(g, OP_ADD, x, g_bin(g, OP_MUL, y, y)));
    return g;
}
