/* Gather, scatter, one-hot, top-k, slices at an index known at run time. */
#include "frontend/net.h"
#include <inttypes.h>
#undef DAV_HERE
#define DAV_HERE at

DavVal dav_gather_(DavPlace at, DavVal x, DavVal index, int batch)
{
    DavNet *n;
    if (!net_operands(at, "gather", (DavVal[]){x, index}, 2, &n))
        return net_val(n, 0);
    return net_val(n, g_gather(n->g, x.id, index.id, batch));
}

DavVal dav_scatter_add_(DavPlace at, DavVal base, DavVal index, DavVal update, int batch)
{
    DavNet *n;
    if (!net_operands(at, "scatter_add", (DavVal[]){base, index, update}, 3, &n))
        return net_val(n, 0);
    return net_val(n, g_scatter_add(n->g, base.id, index.id, update.id, batch));
}

/* The axis is brought to the front, gathered, and the index's axes are brought to its place. */
DavVal dav_take_(DavPlace at, DavVal x, DavVal index, int axis)
{
    DavNet *n;
    int a;
    if (!net_operands(at, "take", (DavVal[]){x, index}, 2, &n) || !net_axis(at, "take", x, axis, &a))
        return net_val(n, 0);
    int rank = net_node(x)->rank, ni = net_node(index)->rank, k = 0;
    if (rank + ni - 1 > IR_MAX_RANK)
        return net_bad(at, n, "take: the result would have rank %d, at most %d", rank + ni - 1, IR_MAX_RANK);
    int64_t front[IR_MAX_RANK], back[IR_MAX_RANK];
    front[0] = a;
    for (int i = 0, j = 1; i < rank; i++)
        if (i != a)
            front[j++] = i;
    for (int i = 0; i < a; i++)
        back[k++] = ni + i;
    for (int i = 0; i < ni; i++)
        back[k++] = i;
    for (int i = a; i < rank - 1; i++)
        back[k++] = ni + i;
    Val y = g_gather(n->g, g_transpose(n->g, x.id, front), index.id, 0);
    return net_val(n, y ? g_transpose(n->g, y, back) : 0);
}

DavVal dav_one_hot_(DavPlace at, DavVal index, int64_t count, DavDtype t)
{
    DavNet *n;
    if (!net_operands(at, "one_hot", &index, 1, &n))
        return net_val(n, 0);
    DavDtype ti = dav_dtype(index);
    if (ti != DAV_I32 && ti != DAV_I64)
        return net_bad(at, n, "one_hot of %s: expected i32 or i64", dav_dtype_name(ti));
    if (count < 1)
        return net_bad(at, n, "one_hot: %" PRId64 " classes, expected 1 or more", count);
    DavVal hit = dav_eq(dav_unsqueeze(index, -1), dav_iota(n, ti, 0, count));
    return dav_cast(hit, t);
}

/* As a sum of selects: it fuses with what is around it, and costs nothing for small alphabets. */
DavVal dav_pick_last_(DavPlace at, DavVal x, DavVal index)
{
    DavNet *n;
    char a[160], b[160];
    if (!net_operands(at, "pick_last", (DavVal[]){x, index}, 2, &n))
        return net_val(n, 0);
    if (net_node(x)->rank < 1 || net_node(index)->rank > net_node(x)->rank - 1)
        return net_bad(at, n, "pick_last(%s, %s): expected an index shaped as the value without its last axis",
                       net_type_text(x, a), net_type_text(index, b));
    enum { LARGE = 64 };
    int rank = net_node(x)->rank;
    if (net_node(x)->dim[rank - 1] > LARGE && net_node(index)->rank == rank - 1)
        return dav_gather(x, index, rank - 1);
    DavVal hit = dav_one_hot(index, dav_dim(x, -1), DAV_BOOL);
    return dav_sum(dav_where(hit, x, 0), -1);
}

DavVal dav_top_k_(DavPlace at, DavVal x, int axis, int64_t k, DavVal *indices)
{
    DavNet *n;
    int a;
    if (indices)
        *indices = (DavVal){x.net, 0};
    if (!net_operands(at, "top_k", &x, 1, &n) || !net_axis(at, "top_k", x, axis, &a))
        return net_val(n, 0);
    int rank = net_node(x)->rank;
    DavVal last = dav_swap(x, a, rank - 1);
    if (k < 1 || k > dav_dim(last, -1))
        return net_bad(at, n, "top_k: k is %" PRId64 ", expected 1 to %" PRId64 ", the size of axis %d", k,
                       dav_dim(last, -1), axis);
    DavVal order = dav_slice(dav_argsort(last, -1, true), -1, 0, k);
    if (indices)
        *indices = dav_swap(order, a, rank - 1);
    return dav_swap(dav_gather(last, order, rank - 1), a, rank - 1);
}

DavVal dav_dyn_slice_(DavPlace at, DavVal x, DavVal start, int axis, int64_t size)
{
    DavNet *n;
    int a;
    if (!net_operands(at, "dyn_slice", (DavVal[]){x, start}, 2, &n) || !net_axis(at, "dyn_slice", x, axis, &a))
        return net_val(n, 0);
    Attr attr[] = {{.name = A_AXIS, .i = a}, {.name = A_SIZE, .i = size}};
    return net_val(n, graph_node(n->g, OP_DYN_SLICE, (Val[]){x.id, start.id}, 2, attr, 2, NULL));
}

DavVal dav_dyn_update_(DavPlace at, DavVal x, DavVal update, DavVal start, int axis)
{
    DavNet *n;
    int a;
    if (!net_operands(at, "dyn_update", (DavVal[]){x, update, start}, 3, &n) ||
        !net_axis(at, "dyn_update", x, axis, &a))
        return net_val(n, 0);
    Attr attr = {.name = A_AXIS, .i = a};
    return net_val(n, graph_node(n->g, OP_DYN_UPDATE, (Val[]){x.id, update.id, start.id}, 3, &attr, 1, NULL));
}
