/* Ops that compute. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* qsort_r */
#endif
#include "ir/interp_ops.h"
#include "ir/build.h"
#include "ir/dtype.h"
#include <Random123/philox.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_float(const Tensor *t)
{
    return dav_dtype_is_float(t->t.dtype);
}

/* ---- elementwise ---- */
static void elementwise(const Node *n, const Tensor *x, Tensor *out)
{
    const Tensor *y = n->narg > 1 ? &x[1] : x, *z = n->narg > 2 ? &x[2] : x, *last = &x[n->narg - 1];
    int64_t count = count_of(out);
    Op op = (Op)n->op;
    if (op == OP_FMA && out->t.dtype == DAV_F32) { /* a product in double, added in double, would be rounded twice */
        for (int64_t i = 0; i < count; i++)
            put_f64(out, i, fmaf((float)get_f64(x, i), (float)get_f64(y, i), (float)get_f64(z, i)));
    } else if (is_float(last)) {
        for (int64_t i = 0; i < count; i++)
            put_f64(out, i, ew_float(op, get_f64(x, i), get_f64(y, i), get_f64(z, i)));
    } else {
        for (int64_t i = 0; i < count; i++)
            put_i64(out, i, ew_int(op, last->t.dtype, get_i64(x, i), get_i64(y, i), get_i64(z, i)));
    }
}

static void cast(const Tensor *x, Tensor *out)
{
    for (int64_t i = 0; i < count_of(out); i++)
        if (is_float(x))
            put_f64(out, i, get_f64(x, i));
        else if (out->t.dtype == DAV_BOOL)
            put_i64(out, i, get_i64(x, i) != 0);
        else
            put_i64(out, i, get_i64(x, i));
}

/* Bits are those of the declared dtypes, whatever the values are stored in. */
static void bitcast(DavDtype from, DavDtype to, const Tensor *x, Tensor *out)
{
    uint64_t bits[1] = {0};
    Tensor a = {.t = {.dtype = from}, .data = bits}, b = {.t = {.dtype = to}, .data = bits};
    for (int64_t i = 0; i < count_of(x); i++) {
        if (is_float(x))
            put_f64(&a, 0, get_f64(x, i));
        else
            put_i64(&a, 0, get_i64(x, i));
        if (is_float(out))
            put_f64(out, i, get_f64(&b, 0));
        else
            put_i64(out, i, get_i64(&b, 0));
    }
}

/* ---- leaves ---- */
static void leaf(const Node *n, Tensor *out)
{
    int64_t at[IR_MAX_RANK] = {0}, i = 0;
    if (count_of(out) == 0)
        return;
    do
        if (n->op == OP_IOTA)
            put_i64(out, i++, at[attr_i(n, A_AXIS)]);
        else
            put_f64(out, i, n->op == OP_CONST ? attr_f(n, A_VALUE) : node_attr(n, A_DATA)->floats[i]), i++;
    while (next_index(at, &out->t));
}

/* ---- along axes ---- */

/* The axes that are gone through for every element of `out`, and the others. */
static void split_axes(const Type *x, unsigned mask, Type *kept, Type *inner)
{
    *kept = *inner = *x;
    for (int i = 0; i < x->rank; i++)
        *(mask >> i & 1 ? &kept->dim[i] : &inner->dim[i]) = 1;
}

static int64_t offset_of(const int64_t *at, const int64_t *stride, int rank)
{
    int64_t off = 0;
    for (int i = 0; i < rank; i++)
        off += at[i] * stride[i];
    return off;
}

/* Is element i better than element best, which stands before it?  NaN is best of all, the first of equals stays. */
static bool better(const Tensor *x, int64_t i, int64_t best, bool largest)
{
    if (!is_float(x)) {
        int64_t a = get_i64(x, i), b = get_i64(x, best);
        return largest ? a > b : a < b;
    }
    double a = get_f64(x, i), b = get_f64(x, best);
    return !isnan(b) && (isnan(a) || (largest ? a > b : a < b));
}

static void put_element(Tensor *out, int64_t to, const Tensor *x, int64_t from)
{
    size_t size = dav_dtype_size(out->t.dtype);
    memcpy((char *)out->data + (size_t)to * size, (const char *)x->data + (size_t)from * size, size);
}

static void reduce_one(const Node *n, const Tensor *x, Tensor *out, int64_t o, int64_t base, const Type *inner)
{
    int64_t at[IR_MAX_RANK] = {0}, stride[IR_MAX_RANK], best = base, best_index = 0, index = 0;
    double sum = 0;
    uint64_t wrapping = 0;
    strides_of(&x->t, stride);
    if (type_count(inner) > 0)
        do {
            int64_t i = base + offset_of(at, stride, x->t.rank);
            if (n->op != OP_SUM) {
                if (better(x, i, best, n->op != OP_RMIN))
                    best = i, best_index = index;
            } else if (is_float(x))
                sum += get_f64(x, i);
            else
                wrapping += (uint64_t)get_i64(x, i);
            index++;
        } while (next_index(at, inner));
    if (n->op == OP_ARGMAX)
        put_i64(out, o, best_index);
    else if (n->op != OP_SUM)
        put_element(out, o, x, best);
    else if (is_float(x))
        put_f64(out, o, sum);
    else
        put_i64(out, o, (int64_t)wrapping);
}

static void reduce(const Node *n, const Tensor *x, Tensor *out)
{
    unsigned mask = 0;
    if (n->op == OP_ARGMAX)
        mask = 1u << attr_i(n, A_AXIS);
    else
        for (int i = 0; i < node_attr(n, A_AXES)->n; i++)
            mask |= 1u << attr_ints(n, A_AXES, NULL)[i];
    Tensor cut = *x; /* with the parts as an axis of their own, before the one that is summed */
    if (n->op == OP_SUM && attr_parts(n) > 1) {
        int first = __builtin_ctz(mask);
        cut.t.rank++;
        memmove(cut.t.dim + first + 1, x->t.dim + first, (size_t)(x->t.rank - first) * sizeof *cut.t.dim);
        cut.t.dim[first] = attr_parts(n);
        cut.t.dim[first + 1] /= attr_parts(n);
        mask <<= 1;
        x = &cut;
    }
    Type kept, inner;
    split_axes(&x->t, mask, &kept, &inner);
    int64_t at[IR_MAX_RANK] = {0}, stride[IR_MAX_RANK], o = 0;
    strides_of(&x->t, stride);
    if (type_count(&kept) > 0)
        do
            reduce_one(n, x, out, o++, offset_of(at, stride, x->t.rank), &inner);
        while (next_index(at, &kept));
}

/* Calls line(...) for every line along the axis of n: its first element and the step between elements. */
typedef void (*LineFn)(const Node *n, const Tensor *x, Tensor *out, int64_t base, int64_t step, void *work);

static void each_line(const Node *n, const Tensor *x, Tensor *out, LineFn line, void *work)
{
    int64_t axis = attr_i(n, A_AXIS), at[IR_MAX_RANK] = {0}, stride[IR_MAX_RANK];
    Type kept, inner;
    split_axes(&x->t, 1u << axis, &kept, &inner);
    strides_of(&x->t, stride);
    if (count_of(x) > 0)
        do
            line(n, x, out, offset_of(at, stride, x->t.rank), stride[axis], work);
        while (next_index(at, &kept));
}

static void cumsum_line(const Node *n, const Tensor *x, Tensor *out, int64_t base, int64_t step, void *work)
{
    (void)work;
    int64_t len = x->t.dim[attr_i(n, A_AXIS)];
    bool exclusive = attr_i(n, A_EXCLUSIVE) != 0, reverse = attr_i(n, A_REVERSE) != 0;
    double sum = 0;
    uint64_t wrapping = 0;
    for (int64_t k = 0; k < len; k++) {
        int64_t i = base + (reverse ? len - 1 - k : k) * step;
        double before = sum;
        uint64_t wrapping_before = wrapping;
        if (is_float(x)) {
            sum += get_f64(x, i);
            put_f64(out, i, exclusive ? before : sum);
        } else {
            wrapping += (uint64_t)get_i64(x, i);
            put_i64(out, i, (int64_t)(exclusive ? wrapping_before : wrapping));
        }
    }
}

typedef struct Line { const Tensor *x; int64_t base, step; bool descending; } Line;

/* NaN last, whatever the direction; equals in their order. */
static int compare_elements(const void *pa, const void *pb, void *arg)
{
    const Line *l = arg;
    int64_t ia = *(const int64_t *)pa, ib = *(const int64_t *)pb, a = l->base + ia * l->step, b = l->base + ib * l->step;
    bool less, more;
    if (is_float(l->x)) {
        double x = get_f64(l->x, a), y = get_f64(l->x, b);
        if (isnan(x) != isnan(y))
            return isnan(x) ? 1 : -1;
        less = x < y, more = x > y;
    } else {
        less = get_i64(l->x, a) < get_i64(l->x, b), more = get_i64(l->x, a) > get_i64(l->x, b);
    }
    if (less || more)
        return less != l->descending ? -1 : 1;
    return ia < ib ? -1 : 1;
}

static void argsort_line(const Node *n, const Tensor *x, Tensor *out, int64_t base, int64_t step, void *work)
{
    int64_t len = x->t.dim[attr_i(n, A_AXIS)], *index = work;
    Line l = {x, base, step, attr_i(n, A_DESCENDING) != 0};
    for (int64_t k = 0; k < len; k++)
        index[k] = k;
    qsort_r(index, (size_t)len, sizeof *index, compare_elements, &l);
    for (int64_t k = 0; k < len; k++)
        put_i64(out, base + k * step, index[k]);
}

/* ---- sums into places ---- */

/* Sums wider than the result's dtype, rounded or wrapped once at the end. */
typedef union Sum { double f; uint64_t i; } Sum;

static void sum_add(Sum *s, const Tensor *x, int64_t i)
{
    if (is_float(x))
        s->f += get_f64(x, i);
    else
        s->i += (uint64_t)get_i64(x, i);
}

static void sum_store(Tensor *out, const Sum *sum)
{
    for (int64_t i = 0; i < count_of(out); i++)
        if (is_float(out))
            put_f64(out, i, sum[i].f);
        else
            put_i64(out, i, (int64_t)sum[i].i);
}

static void fold(const Node *n, const Tensor *x, Tensor *out, Sum *sum)
{
    int64_t axis = attr_i(n, A_AXIS), at[IR_MAX_RANK] = {0}, stride[IR_MAX_RANK], from = 0;
    int last = x->t.rank - 1;
    strides_of(&out->t, stride);
    if (count_of(x) > 0)
        do {
            int64_t i = at[axis] * attr_i(n, A_STEP) + at[last] * attr_i(n, A_DILATION) - attr_i(n, A_PAD);
            if (i >= 0 && i < out->t.dim[axis])
                sum_add(&sum[offset_of(at, stride, last) + (i - at[axis]) * stride[axis]], x, from);
            from++;
        } while (next_index(at, &x->t));
    sum_store(out, sum);
}

static void scatter_add(const Node *n, const Tensor *x, Tensor *out, Sum *sum)
{
    const Tensor *base = &x[0], *idx = &x[1], *upd = &x[2];
    int batch = (int)attr_i(n, A_BATCH);
    int64_t outer = 1, row = 1, extent = base->t.dim[batch];
    for (int i = 0; i < batch; i++)
        outer *= base->t.dim[i];
    for (int i = batch + 1; i < base->t.rank; i++)
        row *= base->t.dim[i];
    int64_t inner = outer ? count_of(idx) / outer : 0;
    for (int64_t i = 0; i < count_of(base); i++)
        sum_add(&sum[i], base, i);
    for (int64_t p = 0; p < count_of(idx); p++) {
        int64_t i = get_i64(idx, p);
        if (i >= 0 && i < extent)
            for (int64_t r = 0; r < row; r++)
                sum_add(&sum[(p / inner * extent + i) * row + r], upd, p * row + r);
    }
    sum_store(out, sum);
}

static void random_bits(const Tensor *key, const Tensor *counter, Tensor *out)
{
    const uint32_t *k = key->data, *c = counter->data;
    uint32_t *word = out->data;
    int64_t rows = out->t.dim[0], len = rows ? count_of(out) / rows : 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t e = 0; e < len; e += 4) {
            philox4x32_ctr_t at = {{(uint32_t)(e / 4), c[3 * r], c[3 * r + 1], c[3 * r + 2]}};
            philox4x32_key_t with = {{k[0], k[1]}};
            philox4x32_ctr_t bits = philox4x32(at, with);
            for (int64_t i = e; i < e + 4 && i < len; i++)
                word[r * len + i] = bits.v[i - e];
        }
}

size_t interp_work_bytes(const Node *n, const Tensor *x, const Tensor *out)
{
    switch ((Op)n->op) {
    case OP_CONTRACT:
        return interp_contract_bytes(&x[0], &x[1], out);
    case OP_ARGSORT:
        return mem_mul((size_t)x->t.dim[attr_i(n, A_AXIS)], sizeof(int64_t));
    case OP_FOLD:
    case OP_SCATTER_ADD:
        return mem_mul((size_t)count_of(out), sizeof(Sum));
    default:
        return 0;
    }
}

void interp_op(const Graph *g, const Node *n, const Tensor *x, Tensor *out, void *work)
{
    switch ((Op)n->op) {
    case OP_CONST:
    case OP_LITERAL:
    case OP_IOTA:
        leaf(n, out);
        return;
    case OP_CAST:
        cast(x, out);
        return;
    case OP_BITCAST:
        bitcast((DavDtype)g->node[n->arg[0]].dtype, (DavDtype)n->dtype, x, out);
        return;
    case OP_SUM:
    case OP_RMAX:
    case OP_RMIN:
    case OP_ARGMAX:
        reduce(n, x, out);
        return;
    case OP_CUMSUM:
        each_line(n, x, out, cumsum_line, work);
        return;
    case OP_ARGSORT:
        each_line(n, x, out, argsort_line, work);
        return;
    case OP_FOLD:
        fold(n, x, out, work);
        return;
    case OP_SCATTER_ADD:
        scatter_add(n, x, out, work);
        return;
    case OP_CONTRACT:
        interp_contract(attr_spec(n), &x[0], &x[1], out, work);
        return;
    case OP_RANDOM:
        random_bits(&x[0], &x[1], out);
        return;
    default:
        if (op_info[n->op].flags & OPF_ELEMENTWISE)
            elementwise(n, x, out);
        else
            interp_move(n, x, out);
    }
}
