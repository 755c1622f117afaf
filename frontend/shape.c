/* Reductions, shape ops, windows. */
#include "frontend/net.h"
#include <inttypes.h>
#include <string.h>
#undef DAV_HERE
#define DAV_HERE at

/* ---- reductions ---- */
/* The axes as a mask; none given: all of them. */
static bool axis_mask(DavPlace at, const char *what, DavVal x, int n, const int64_t *axes, unsigned *mask)
{
    *mask = n ? 0 : (1u << net_node(x)->rank) - 1;
    for (int i = 0; i < n; i++) {
        int a;
        if (!net_axis(at, what, x, axes[i], &a))
            return false;
        if (*mask >> a & 1) {
            net_bad(at, x.net, "%s: axis %d is given twice", what, a);
            return false;
        }
        *mask |= 1u << a;
    }
    return true;
}

static DavVal drop_axes(DavVal x, unsigned mask)
{
    const Node *a = net_node(x);
    int64_t dim[IR_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < a->rank; i++)
        if (!(mask >> i & 1))
            dim[rank++] = a->dim[i];
    return net_val(x.net, g_reshape(x.net->g, x.id, rank, dim));
}

DavVal dav_reduce_(DavPlace at, const char *text, DavVal x, bool keep, int naxes, const int64_t *axes)
{
    DavNet *n;
    unsigned mask;
    int op = op_from_text(text ? text : "");
    if (!net_operands(at, text ? text : "reduce", &x, 1, &n))
        return net_val(n, 0);
    if (op != OP_SUM && op != OP_RMAX && op != OP_RMIN)
        return net_bad(at, n, "'%s' is no reduction; expected sum, reduce_max or reduce_min", text ? text : "");
    if (!axis_mask(at, text, x, naxes, axes, &mask))
        return net_val(n, 0);
    DavVal y = net_val(n, g_reduce_mask(n->g, (Op)op, x.id, mask));
    return y.id && !keep ? drop_axes(y, mask) : y;
}

DavVal dav_mean_(DavPlace at, DavVal x, bool keep, int naxes, const int64_t *axes)
{
    DavNet *n;
    unsigned mask;
    if (!net_operands(at, "mean", &x, 1, &n) || !axis_mask(at, "mean", x, naxes, axes, &mask))
        return net_val(n, 0);
    if (!dav_dtype_is_float(dav_dtype(x)))
        return net_bad(at, n, "mean of %s: expected floats; cast first", dav_dtype_name(dav_dtype(x)));
    double count = 1;
    for (int i = 0; i < net_node(x)->rank; i++)
        if (mask >> i & 1)
            count *= (double)net_node(x)->dim[i];
    return dav_div(dav_reduce_(at, "sum", x, keep, naxes, axes), count);
}

DavVal dav_var_(DavPlace at, DavVal x, bool keep, int n, const int64_t *axes)
{
    return dav_mean_(at, dav_square(dav_sub(x, dav_mean_(at, x, true, n, axes))), keep, n, axes);
}

static DavVal along(DavPlace at, Op op, DavVal x, int axis, const Attr *extra, int nextra)
{
    DavNet *n;
    int a;
    const char *what = op_info[op].text;
    if (!net_operands(at, what, &x, 1, &n) || !net_axis(at, what, x, axis, &a))
        return net_val(n, 0);
    Attr attr[4] = {{.name = A_AXIS, .i = a}};
    for (int i = 0; i < nextra; i++)
        attr[i + 1] = extra[i];
    return net_val(n, graph_node(n->g, op, &x.id, 1, attr, nextra + 1, NULL));
}

DavVal dav_argmax_(DavPlace at, DavVal x, int axis)
{
    DavVal y = along(at, OP_ARGMAX, x, axis, NULL, 0);
    return dav_squeeze_(at, y, axis);
}

DavVal dav_argsort_(DavPlace at, DavVal x, int axis, bool descending)
{
    return along(at, OP_ARGSORT, x, axis, (Attr[]){{.name = A_DESCENDING, .i = descending}}, 1);
}

DavVal dav_cumsum_(DavPlace at, DavVal x, int axis, DavCumsum o)
{
    Attr extra[] = {{.name = A_EXCLUSIVE, .i = o.exclusive}, {.name = A_REVERSE, .i = o.reverse}};
    return along(at, OP_CUMSUM, x, axis, extra, 2);
}

/* ---- shape ---- */
DavVal dav_reshape_(DavPlace at, DavVal x, int rank, const int64_t *dim)
{
    DavNet *n;
    char t[160];
    if (!net_operands(at, "reshape", &x, 1, &n))
        return net_val(n, 0);
    if (rank < 0 || rank > IR_MAX_RANK)
        return net_bad(at, n, "reshape: rank %d, expected 0 to %d", rank, IR_MAX_RANK);
    int64_t count = node_count(n->g, x.id), known = 1, full[IR_MAX_RANK];
    int free_axis = -1;
    for (int i = 0; i < rank; i++) {
        full[i] = dim[i];
        if (dim[i] == -1 && free_axis < 0)
            free_axis = i;
        else if (dim[i] < 0 || __builtin_mul_overflow(known, dim[i], &known))
            return net_bad(
                at, n, "reshape(%s): size %" PRId64 " for axis %d; expected sizes of 0 or more, one of them may be -1",
                net_type_text(x, t), dim[i], i);
    }
    if (free_axis >= 0 && (known == 0 || count % known != 0))
        return net_bad(
            at, n, "reshape(%s): %" PRId64 " elements are no multiple of %" PRId64 ", the product of the other sizes",
            net_type_text(x, t), count, known);
    if (free_axis >= 0)
        full[free_axis] = count / known;
    return net_val(n, g_reshape(n->g, x.id, rank, full));
}

DavVal dav_transpose_(DavPlace at, DavVal x, int np, const int64_t *perm)
{
    DavNet *n;
    char t[160];
    if (!net_operands(at, "transpose", &x, 1, &n))
        return net_val(n, 0);
    int rank = net_node(x)->rank;
    int64_t p[IR_MAX_RANK];
    if (np != rank)
        return net_bad(at, n, "transpose(%s): %d axes given, expected %d", net_type_text(x, t), np, rank);
    for (int i = 0; i < rank; i++) {
        int a;
        if (!net_axis(at, "transpose", x, perm[i], &a))
            return net_val(n, 0);
        p[i] = a;
    }
    return net_val(n, g_transpose(n->g, x.id, p));
}

DavVal dav_swap_(DavPlace at, DavVal x, int a, int b)
{
    DavNet *n;
    int i, j;
    if (!net_operands(at, "swap", &x, 1, &n) || !net_axis(at, "swap", x, a, &i) || !net_axis(at, "swap", x, b, &j))
        return net_val(n, 0);
    int64_t perm[IR_MAX_RANK];
    for (int k = 0; k < IR_MAX_RANK; k++)
        perm[k] = k == i ? j : k == j ? i : k;
    return net_val(n, g_transpose(n->g, x.id, perm));
}

DavVal dav_broadcast_(DavPlace at, DavVal x, int rank, const int64_t *dim)
{
    DavNet *n;
    char t[160];
    if (!net_operands(at, "broadcast", &x, 1, &n))
        return net_val(n, 0);
    const Node *a = net_node(x);
    if (rank < a->rank || rank > IR_MAX_RANK)
        return net_bad(at, n, "broadcast(%s): rank %d, expected %d to %d", net_type_text(x, t), rank, a->rank,
                       IR_MAX_RANK);
    int64_t full[IR_MAX_RANK];
    for (int i = 0; i < rank; i++) {
        int j = i - (rank - a->rank);
        full[i] = dim[i] == -1 && j >= 0 ? a->dim[j] : dim[i];
        if (full[i] < 0 || (j >= 0 && a->dim[j] != 1 && a->dim[j] != full[i]))
            return net_bad(
                at, n, "broadcast(%s): axis %d cannot become %" PRId64 "; expected its own size, or any where it is 1",
                net_type_text(x, t), i, dim[i]);
    }
    return net_broadcast_to(n, x, rank, full);
}

DavVal dav_unsqueeze_(DavPlace at, DavVal x, int axis)
{
    DavNet *n;
    char t[160];
    if (!net_operands(at, "unsqueeze", &x, 1, &n))
        return net_val(n, 0);
    const Node *a = net_node(x);
    int rank = a->rank + 1, i = axis < 0 ? axis + rank : axis;
    if (rank > IR_MAX_RANK || i < 0 || i >= rank)
        return net_bad(at, n, "unsqueeze(%s): axis %d, expected %d to %d (and at most %d axes)", net_type_text(x, t),
                       axis, -rank, rank - 1, IR_MAX_RANK);
    int64_t dim[IR_MAX_RANK];
    for (int k = 0; k < rank; k++)
        dim[k] = k == i ? 1 : a->dim[k - (k > i)];
    return net_val(n, g_reshape(n->g, x.id, rank, dim));
}

DavVal dav_squeeze_(DavPlace at, DavVal x, int axis)
{
    DavNet *n;
    int i;
    char t[160];
    if (!net_operands(at, "squeeze", &x, 1, &n) || !net_axis(at, "squeeze", x, axis, &i))
        return net_val(n, 0);
    if (net_node(x)->dim[i] != 1)
        return net_bad(at, n, "squeeze(%s): axis %d has the size %" PRId64 ", expected 1", net_type_text(x, t), axis,
                       net_node(x)->dim[i]);
    return drop_axes(x, 1u << i);
}

DavVal dav_slice_(DavPlace at, DavVal x, int axis, int64_t start, int64_t limit, int64_t step)
{
    DavNet *n;
    int i;
    char t[160];
    if (!net_operands(at, "slice", &x, 1, &n) || !net_axis(at, "slice", x, axis, &i))
        return net_val(n, 0);
    const Node *a = net_node(x);
    int64_t size = a->dim[i], lo[IR_MAX_RANK] = {0}, hi[IR_MAX_RANK], by[IR_MAX_RANK];
    int64_t from = start < 0 ? start + size : start, to = limit < 0 ? limit + size : limit;
    if (from < 0 || to > size || from > to || step < 1)
        return net_bad(at, n,
                       "slice(%s): [%" PRId64 ", %" PRId64 ") by %" PRId64
                       " of axis %d; expected a range inside [0, %" PRId64 ") and a step of 1 or more",
                       net_type_text(x, t), start, limit, step, axis, size);
    for (int k = 0; k < a->rank; k++) {
        hi[k] = a->dim[k];
        by[k] = 1;
    }
    lo[i] = from;
    hi[i] = to;
    by[i] = step;
    return net_val(n, g_slice(n->g, x.id, lo, hi, by));
}

DavVal dav_pad_(DavPlace at, DavVal x, int axis, int64_t lo, int64_t hi, double fill)
{
    DavNet *n;
    int i;
    if (!net_operands(at, "pad", &x, 1, &n) || !net_axis(at, "pad", x, axis, &i))
        return net_val(n, 0);
    int64_t before[IR_MAX_RANK] = {0}, after[IR_MAX_RANK] = {0};
    before[i] = lo;
    after[i] = hi;
    return net_val(n, g_pad(n->g, x.id, before, after, fill));
}

DavVal dav_concat_(DavPlace at, int axis, int nx, const DavVal *x)
{
    DavNet *n;
    int a;
    if (nx < 1 || !net_operands(at, "concat", x, nx, &n) || !net_axis(at, "concat", x[0], axis, &a))
        return net_val(nx < 1 ? NULL : x[0].net, 0);
    Val *v = arena_array(n->arena, Val, nx);
    for (int i = 0; i < nx; i++)
        v[i] = x[i].id;
    return net_val(n, g_concat(n->g, v, nx, a));
}

DavVal dav_reverse_(DavPlace at, DavVal x, int axis)
{
    DavNet *n;
    int i;
    if (!net_operands(at, "reverse", &x, 1, &n) || !net_axis(at, "reverse", x, axis, &i))
        return net_val(n, 0);
    int64_t a = i;
    return net_val(n, graph_node(n->g, OP_REVERSE, &x.id, 1, (Attr[]){{.name = A_AXES, .n = 1, .ints = &a}}, 1, NULL));
}

/* ---- windows ---- */
static bool window_numbers(DavPlace at, DavNet *n, const char *what, int64_t size, DavWindow *o)
{
    o->step = o->step ? o->step : size;
    o->dilation = o->dilation ? o->dilation : 1;
    if (size >= 1 && size <= INT32_MAX && o->step >= 1 && o->step <= INT32_MAX && o->dilation >= 1 &&
        o->dilation <= INT32_MAX && o->pad >= 0 && o->pad < INT32_MAX)
        return true;
    net_bad(at, n,
            "%s: size %" PRId64 ", step %" PRId64 ", dilation %" PRId64 ", pad %" PRId64
            "; expected size, step and dilation of 1 or more, pad of 0 or more",
            what, size, o->step, o->dilation, o->pad);
    return false;
}

DavVal dav_window_(DavPlace at, DavVal x, int axis, int64_t size, DavWindow o)
{
    DavNet *n;
    int i;
    char t[160];
    if (!net_operands(at, "window", &x, 1, &n) || !net_axis(at, "window", x, axis, &i) ||
        !window_numbers(at, n, "window", size, &o))
        return net_val(n, 0);
    int64_t span = net_node(x)->dim[i] + 2 * o.pad - o.dilation * (size - 1) - 1;
    if (span < 0)
        return net_bad(
            at, n, "window(%s): a window of %" PRId64 " dilated by %" PRId64 " does not fit axis %d padded by %" PRId64,
            net_type_text(x, t), size, o.dilation, axis, o.pad);
    Attr extra[] = {{.name = A_SIZE, .i = size},
                    {.name = A_STEP, .i = o.step},
                    {.name = A_DILATION, .i = o.dilation},
                    {.name = A_PAD, .i = o.pad},
                    {.name = A_COUNT, .i = span / o.step + 1},
                    {.name = A_FILL, .f = o.fill},
                    {.name = A_AXIS, .i = i}};
    return net_val(n, graph_node(n->g, OP_WINDOW, &x.id, 1, extra, 7, NULL));
}

DavVal dav_fold_(DavPlace at, DavVal x, int axis, int64_t count, DavWindow o)
{
    DavNet *n;
    int i;
    if (!net_operands(at, "fold", &x, 1, &n) || !net_axis(at, "fold", x, axis, &i))
        return net_val(n, 0);
    const Node *a = net_node(x);
    if (!window_numbers(at, n, "fold", a->rank ? a->dim[a->rank - 1] : 0, &o))
        return net_val(n, 0);
    Attr attr[] = {{.name = A_AXIS, .i = i},
                   {.name = A_STEP, .i = o.step},
                   {.name = A_DILATION, .i = o.dilation},
                   {.name = A_PAD, .i = o.pad},
                   {.name = A_COUNT, .i = count}};
    return net_val(n, graph_node(n->g, OP_FOLD, &x.id, 1, attr, 5, NULL));
}
