/* Ops that move elements as they are: shapes, slices, windows, gather. */
#include "ir/interp_ops.h"
#include <string.h>

/* One side of a move: element of index i stands at off + sum of stride * i. */
typedef struct Side { const Tensor *t; int64_t off, stride[IR_MAX_RANK]; } Side;

static Side side_of(const Tensor *t)
{
    Side s = {.t = t};
    strides_of(&t->t, s.stride);
    return s;
}

static char *element(const Side *s, const int64_t *at, int rank, size_t size)
{
    int64_t i = s->off;
    for (int k = 0; k < rank; k++)
        i += s->stride[k] * at[k];
    return (char *)s->t->data + i * (int64_t)size;
}

static void move_box(const Side *to, const Side *from, const Type *box)
{
    size_t size = dav_dtype_size(to->t->t.dtype);
    int64_t at[IR_MAX_RANK] = {0};
    if (type_count(box) == 0)
        return;
    do
        memcpy(element(to, at, box->rank, size), element(from, at, box->rank, size), size);
    while (next_index(at, box));
}

static void fill(Tensor *out, double v)
{
    for (int64_t i = 0; i < count_of(out); i++)
        put_f64(out, i, v);
}

static void copy(Tensor *out, const Tensor *x)
{
    memcpy(out->data, x->data, (size_t)count_of(x) * dav_dtype_size(x->t.dtype));
}

/* The start of a slice along an axis, clamped so that `size` elements fit. */
static int64_t clamped(const Tensor *index, int64_t size, int64_t extent)
{
    int64_t start = get_i64(index, 0), most = extent - size;
    return start < 0 ? 0 : start > most ? most : start;
}

static void concat(const Node *n, const Tensor *x, Tensor *out)
{
    int64_t axis = attr_i(n, A_AXIS);
    Side to = side_of(out);
    for (int i = 0; i < n->narg; i++) {
        Side from = side_of(&x[i]);
        move_box(&to, &from, &x[i].t);
        to.off += x[i].t.dim[axis] * to.stride[axis];
    }
}

static void pad(const Node *n, const Tensor *x, Tensor *out)
{
    const int64_t *lo = attr_ints(n, A_LO, NULL);
    Side to = side_of(out), from = side_of(x);
    fill(out, attr_f(n, A_FILL));
    for (int i = 0; i < x->t.rank; i++)
        to.off += lo[i] * to.stride[i];
    move_box(&to, &from, &x->t);
}

static void window(const Node *n, const Tensor *x, Tensor *out)
{
    int64_t axis = attr_i(n, A_AXIS), at[IR_MAX_RANK] = {0}, extent = x->t.dim[axis];
    int last = out->t.rank - 1;
    Side from = side_of(x), to = side_of(out);
    size_t size = dav_dtype_size(out->t.dtype);
    fill(out, attr_f(n, A_FILL));
    if (count_of(out) == 0)
        return;
    do {
        int64_t i = at[axis] * attr_i(n, A_STEP) + at[last] * attr_i(n, A_DILATION) - attr_i(n, A_PAD), source[IR_MAX_RANK];
        if (i < 0 || i >= extent)
            continue;
        memcpy(source, at, sizeof source);
        source[axis] = i;
        memcpy(element(&to, at, out->t.rank, size), element(&from, source, x->t.rank, size), size);
    } while (next_index(at, &out->t));
}

/* x [B.., N, R..], idx [B.., I..] -> [B.., I.., R..] */
static void gather(const Node *n, const Tensor *x, const Tensor *idx, Tensor *out)
{
    int batch = (int)attr_i(n, A_BATCH);
    int64_t outer = 1, row = 1, extent = x->t.dim[batch];
    for (int i = 0; i < batch; i++)
        outer *= x->t.dim[i];
    for (int i = batch + 1; i < x->t.rank; i++)
        row *= x->t.dim[i];
    size_t bytes = (size_t)row * dav_dtype_size(x->t.dtype);
    int64_t inner = outer ? count_of(idx) / outer : 0;
    for (int64_t p = 0; p < count_of(idx); p++) {
        int64_t i = get_i64(idx, p);
        if (i >= 0 && i < extent)
            memcpy((char *)out->data + (size_t)p * bytes, (const char *)x->data + (size_t)(p / inner * extent + i) * bytes, bytes);
    }
}

void interp_move(const Node *n, const Tensor *x, Tensor *out)
{
    Side to = side_of(out), from = side_of(x);
    int64_t axis;
    Side x_by_axis = from;
    switch ((Op)n->op) {
    case OP_RESHAPE:
        copy(out, x);
        return;
    case OP_BROADCAST:
        for (int i = 0; i < x->t.rank; i++)
            from.stride[i] = x->t.dim[i] == 1 ? 0 : from.stride[i];
        break;
    case OP_TRANSPOSE:
        for (int i = 0; i < x->t.rank; i++)
            from.stride[i] = x_by_axis.stride[attr_ints(n, A_PERM, NULL)[i]];
        break;
    case OP_SLICE:
        for (int i = 0; i < x->t.rank; i++) {
            from.off += attr_ints(n, A_START, NULL)[i] * from.stride[i];
            from.stride[i] *= attr_ints(n, A_STRIDE, NULL)[i];
        }
        break;
    case OP_REVERSE:
        for (int i = 0; i < node_attr(n, A_AXES)->n; i++) {
            axis = attr_ints(n, A_AXES, NULL)[i];
            from.off += (x->t.dim[axis] - 1) * from.stride[axis];
            from.stride[axis] = -from.stride[axis];
        }
        break;
    case OP_DYN_SLICE:
        axis = attr_i(n, A_AXIS);
        from.off = clamped(&x[1], out->t.dim[axis], x->t.dim[axis]) * from.stride[axis];
        break;
    case OP_DYN_UPDATE:
        axis = attr_i(n, A_AXIS);
        copy(out, x);
        from = side_of(&x[1]);
        to.off = clamped(&x[2], x[1].t.dim[axis], out->t.dim[axis]) * to.stride[axis];
        move_box(&to, &from, &x[1].t);
        return;
    case OP_PADDING:
        pad(n, x, out);
        return;
    case OP_CONCAT:
        concat(n, x, out);
        return;
    case OP_WINDOW:
        window(n, x, out);
        return;
    case OP_GATHER:
        gather(n, x, &x[1], out);
        return;
    default:
        die("%s does not move elements", op_info[n->op].text);
    }
    move_box(&to, &from, &out->t);
}
