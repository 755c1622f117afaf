/* Elementwise ops by the table's text, with numbers as operands and NumPy's broadcasting; constants and casts. */
#include "frontend/net.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- constants ---- */
static bool number_fits(DavDtype t, double x)
{
    switch (t) {
    case DAV_BOOL:
        return x == 0 || x == 1;
    case DAV_U32:
        return x == floor(x) && x >= 0 && x <= UINT32_MAX;
    case DAV_I32:
        return x == floor(x) && x >= INT32_MIN && x <= INT32_MAX;
    case DAV_I64:
        return x == floor(x) && fabs(x) <= 9007199254740992.0;
    default:
        return true;
    }
}

static DavVal constant(DavPlace at, DavNet *n, const char *what, Type t, double number)
{
    if (!number_fits(t.dtype, number))
        return net_bad(at, n, "%s: the number %g is no %s; cast the value beside it, or use a number that fits", what,
                       number, dav_dtype_name(t.dtype));
    return net_val(n, g_const(n->g, t, number));
}

DavVal dav_const_(DavPlace at, DavNet *n, DavDtype t, double number, int rank, const int64_t *dim)
{
    Type type;
    return net_type(at, n, "const", t, rank, dim, &type) ? constant(at, n, "const", type, number) : net_val(n, 0);
}

DavVal dav_full_like_(DavPlace at, DavVal x, double number)
{
    DavNet *n;
    if (!net_operands(at, "full_like", &x, 1, &n))
        return net_val(n, 0);
    return constant(at, n, "full_like", type_of(n->g, x.id), number);
}

DavVal dav_literal_(DavPlace at, DavNet *n, DavDtype t, const double *numbers, int rank, const int64_t *dim)
{
    enum { MOST = 1 << 20 };
    Type type;
    if (!net_type(at, n, "literal", t, rank, dim, &type))
        return net_val(n, 0);
    int64_t count = 1;
    for (int i = 0; i < rank; i++)
        if (__builtin_mul_overflow(count, dim[i], &count) || count > MOST)
            return net_bad(at, n, "literal: more than %d elements; make it an input or a parameter", MOST);
    if (!numbers)
        return net_bad(at, n, "literal: no numbers given");
    for (int64_t i = 0; i < count; i++)
        if (!number_fits(t, numbers[i]))
            return net_bad(at, n, "literal: element %" PRId64 ", %g, is no %s", i, numbers[i], dav_dtype_name(t));
    Attr data = {.name = A_DATA, .n = (int)count, .floats = numbers};
    return net_val(n, graph_node(n->g, OP_LITERAL, NULL, 0, &data, 1, &type));
}

DavVal dav_iota_(DavPlace at, DavNet *n, DavDtype t, int axis, int rank, const int64_t *dim)
{
    Type type;
    if (!net_type(at, n, "iota", t, rank, dim, &type))
        return net_val(n, 0);
    return net_val(n, g_iota(n->g, type, axis < 0 ? axis + rank : axis));
}

/* ---- broadcasting ---- */
DavVal net_broadcast_to(DavNet *n, DavVal x, int rank, const int64_t *dim)
{
    const Node *a = net_node(x);
    int64_t wide[IR_MAX_RANK];
    int extra = rank - a->rank;
    for (int i = 0; i < rank; i++)
        wide[i] = i < extra ? 1 : a->dim[i - extra];
    Val v = extra ? g_reshape(n->g, x.id, rank, wide) : x.id;
    return net_val(n, memcmp(wide, dim, (size_t)rank * sizeof *dim) == 0 ? v : g_broadcast(n->g, v, dim));
}

/* The shape that the operands broadcast to. */
static bool common_shape(DavPlace at, const char *op, DavNet *n, const DavArg *arg, int narg, Type *out)
{
    out->rank = 0;
    for (int k = 0; k < narg; k++)
        if (!arg[k].is_number && net_node(arg[k].val)->rank > out->rank)
            out->rank = net_node(arg[k].val)->rank;
    for (int i = 0; i < out->rank; i++) {
        out->dim[i] = 1;
        for (int k = 0; k < narg; k++) {
            const Node *a = arg[k].is_number ? NULL : net_node(arg[k].val);
            int j = a ? i - (out->rank - a->rank) : -1;
            if (j < 0 || a->dim[j] == 1 || a->dim[j] == out->dim[i])
                continue;
            if (out->dim[i] == 1) {
                out->dim[i] = a->dim[j];
                continue;
            }
            char types[3][160] = {"", "", ""};
            for (int t = 0; t < narg; t++)
                if (!arg[t].is_number)
                    net_type_text(arg[t].val, types[t]);
            net_bad(at, n,
                    "%s(%s%s%s%s%s): axis %d from the end has the sizes %" PRId64 " and %" PRId64
                    "; expected equal sizes, or 1 in one of them",
                    op, types[0], *types[1] ? ", " : "", types[1], *types[2] ? ", " : "", types[2], out->rank - i,
                    out->dim[i], a->dim[j]);
            return false;
        }
    }
    return true;
}

/* Numbers take the dtype of the values beside them; the condition of a select does not count. */
static DavDtype number_type(Op op, const DavArg *arg, int narg)
{
    for (int k = op == OP_SELECT ? 1 : 0; k < narg; k++)
        if (!arg[k].is_number)
            return (DavDtype)net_node(arg[k].val)->dtype;
    return DAV_F32;
}

DavVal dav_ew_(DavPlace at, const char *text, int narg, const DavArg *arg)
{
    int op = op_from_text(text ? text : "");
    DavVal val[3], given[3];
    int nval = 0;
    DavNet *n;
    for (int k = 0; k < narg && k < 3; k++)
        if (!arg[k].is_number)
            given[nval++] = arg[k].val;
    if (!net_operands(at, text ? text : "op", given, nval, &n))
        return net_val(n, 0);
    if (op < 0 || !(op_info[op].flags & OPF_ELEMENTWISE) || op_info[op].arity != narg)
        return net_bad(at, n, "'%s' is no elementwise op of %d operands", text ? text : "", narg);
    Type shape = {.dtype = number_type((Op)op, arg, narg)};
    if (!common_shape(at, text, n, arg, narg, &shape))
        return net_val(n, 0);
    Val v[3] = {0};
    for (int k = 0; k < narg; k++) {
        Type t = shape;
        if (op == OP_SELECT && k == 0)
            t.dtype = DAV_BOOL;
        val[k] = arg[k].is_number ? constant(at, n, text, t, arg[k].number)
                                  : net_broadcast_to(n, arg[k].val, shape.rank, shape.dim);
        v[k] = val[k].id;
        if (!v[k])
            return net_val(n, 0);
    }
    return net_val(n, g_ew(n->g, (Op)op, v[0], v[1], v[2]));
}

DavVal dav_square_(DavPlace at, DavVal x)
{
    return dav_ew_(at, "mul", 2, (DavArg[]){{.val = x}, {.val = x}});
}

DavVal dav_cast_(DavPlace at, DavVal x, DavDtype to)
{
    DavNet *n;
    if (!net_operands(at, "cast", &x, 1, &n))
        return net_val(n, 0);
    return net_val(n, g_cast(n->g, x.id, to));
}

DavVal dav_bitcast_(DavPlace at, DavVal x, DavDtype to)
{
    DavNet *n;
    if (!net_operands(at, "bitcast", &x, 1, &n))
        return net_val(n, 0);
    return net_val(n, graph_node(n->g, OP_BITCAST, &x.id, 1, (Attr[]){{.name = A_TO, .i = to}}, 1, NULL));
}
