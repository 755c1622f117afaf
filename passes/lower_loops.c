/* Loop nests of kernels that are not contractions. */
#include "passes/lower_attention.h"
#include <math.h>

enum { BLOCK = 4096, WIDE = 16384, LANES = 16 };

static int last_long_axis(const Type *t)
{
    int axis = t->rank - 1;
    while (axis > 0 && t->dim[axis] == 1)
        axis--;
    return axis;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static Val min_int(Lower *l, Val a, int64_t b)
{
    return k_op(l->k, OP_MIN, a, k_int(l->k, b), 0);
}

/* ---- pointwise: rows of the last axis, long rows in blocks, lanes along it ---- */
void lower_pointwise(Lower *l)
{
    Type t = type_of(l->body, l->body->out[0].val);
    int axis = last_long_axis(&t);
    int64_t inner = t.rank ? t.dim[axis] : 1, outer = 1;
    for (int d = 0; d < axis; d++)
        outer *= t.dim[d];
    int64_t block = inner <= BLOCK || (outer >= 64 && inner <= WIDE) ? inner : BLOCK;
    int64_t blocks = block ? ceil_div(inner, block) : 1;
    Val idx[IR_MAX_RANK];
    for (int d = 0; d < IR_MAX_RANK; d++)
        idx[d] = l->zero;
    Val p = k_for(l->k, LOOP_PARALLEL, 0, outer * blocks, 1), lane;
    if (axis > 0)
        lower_indices(l, k_op(l->k, OP_DIV, p, k_int(l->k, blocks), 0), axis, t.dim, idx);
    if (blocks == 1) {
        lane = k_for(l->k, LOOP_VECTOR, 0, inner, 1);
    } else {
        Val lo = axis > 0 ? k_op(l->k, OP_REM, p, k_int(l->k, blocks), 0) : p;
        lo = k_op(l->k, OP_MUL, lo, k_int(l->k, block), 0);
        lane = k_for_dyn(l->k, LOOP_VECTOR, lo, min_int(l, k_op(l->k, OP_ADD, lo, k_int(l->k, block), 0), inner), 1);
    }
    idx[axis < 0 ? 0 : axis] = lane;
    for (int i = 0; i < l->body->nout; i++)
        lower_store(l, i, idx, 0);
    k_end(l->k, lane);
    k_end(l->k, p);
}

/* ---- ops with a loop structure of their own ---- */
/* Opens the parallel loop over all axes but `axis` and, when that is not the last, a vector loop over the last one.
 * Returns the vector loop, 0: none. */
static Val open_rows(Lower *l, const Type *t, int axis, Val *idx, Val *parallel)
{
    int last = last_long_axis(t);
    int64_t dim[IR_MAX_RANK], rows = 1;
    for (int d = 0; d < t->rank; d++) {
        dim[d] = d == axis || d == last ? 1 : t->dim[d];
        rows *= dim[d];
    }
    *parallel = k_for(l->k, LOOP_PARALLEL, 0, rows, 1);
    lower_indices(l, *parallel, t->rank, dim, idx);
    if (last == axis || t->dim[last] == 1)
        return 0;
    return idx[last] = k_for(l->k, LOOP_VECTOR, 0, t->dim[last], 1);
}

static void lower_cumsum(Lower *l, const Node *n)
{
    Type t = type_of(l->body, l->body->out[0].val);
    int axis = (int)attr_i(n, A_AXIS);
    DavDtype sum = sum_dtype(t.dtype);
    Val idx[IR_MAX_RANK], parallel, lane = open_rows(l, &t, axis, idx, &parallel);
    Val acc = k_acc(l->k, sum, ACC_ADD, 0), step = k_for(l->k, LOOP_SERIAL, 0, t.dim[axis], 1);
    idx[axis] = attr_i(n, A_REVERSE) ? k_op(l->k, OP_SUB, k_int(l->k, t.dim[axis] - 1), step, 0) : step;
    Val x = k_cast(l->k, lower_value(l, n->arg[0], idx, 0), sum), before = k_acc_get(l->k, acc);
    k_acc_update(l->k, acc, x);
    Val val = attr_i(n, A_EXCLUSIVE) ? before : k_acc_get(l->k, acc);
    k_store(l->k, l->out[0], lower_offset(l, &t, idx), k_cast(l->k, val, t.dtype), 0);
    k_end(l->k, step);
    if (lane)
        k_end(l->k, lane);
    k_end(l->k, parallel);
}

/* a before b, NaN after everything */
static Val sorts_before(Lower *l, Val a, Val b, bool descending, bool is_float)
{
    Val less = k_op(l->k, descending ? OP_GT : OP_LT, a, b, 0);
    if (!is_float)
        return less;
    Val b_nan = k_op(l->k, OP_NE, b, b, 0), a_number = k_op(l->k, OP_EQ, a, a, 0);
    return k_op(l->k, OP_OR, less, k_op(l->k, OP_AND, a_number, b_nan, 0), 0);
}

typedef struct Sort {
    Type t;
    int axis;
    int64_t len, half; /* half: from one half of the scratch to the other */
    bool down, is_float;
    Val x, idx[IR_MAX_RANK]; /* the operand; the row */
    Val key, index;          /* scratch of sort_by_merging, 2 * len elements */
} Sort;

/* Each element counts those that go before it: len^2 comparisons in lanes, stable by construction. */
static void sort_by_counting(Lower *l, Sort *s)
{
    Val i = s->idx[s->axis] = k_for(l->k, LOOP_SERIAL, 0, s->len, 1);
    Val mine = lower_value(l, s->x, s->idx, 0), rank = k_acc(l->k, DAV_I64, ACC_ADD, 0);
    Val j = s->idx[s->axis] = k_for(l->k, LOOP_VECTOR, 0, s->len, 1);
    Val other = lower_value(l, s->x, s->idx, 0);
    Val before = sorts_before(l, other, mine, s->down, s->is_float),
        after = sorts_before(l, mine, other, s->down, s->is_float);
    Val tie = k_op(l->k, OP_AND, k_op(l->k, OP_NOT, after, 0, 0), k_op(l->k, OP_LT, j, i, 0), 0);
    k_acc_update(l->k, rank, k_cast(l->k, k_op(l->k, OP_OR, before, tie, 0), DAV_I64));
    k_end(l->k, j);
    s->idx[s->axis] = k_acc_get(l->k, rank);
    k_store(l->k, l->out[0], lower_offset(l, &s->t, s->idx), k_cast(l->k, i, DAV_I32), 0);
    k_end(l->k, i);
}

/* One step of a merge: the first of the left run [a, mid) and the right run [b, hi) goes to place `at`; the left one
 * when they are equal, which makes the sort stable. */
typedef struct Merge { Val from, to, a, b, mid, hi; } Merge;

static void merge_one(Lower *l, const Sort *s, const Merge *m, Val at)
{
    Graph *k = l->k;
    Val a = k_acc_get(k, m->a), b = k_acc_get(k, m->b);
    Val in_a = k_op(k, OP_ADD, m->from, min_int(l, a, s->len - 1), 0),
        in_b = k_op(k, OP_ADD, m->from, min_int(l, b, s->len - 1), 0);
    Val key_a = k_load(k, s->key, in_a, 0), key_b = k_load(k, s->key, in_b, 0);
    Val b_first = sorts_before(l, key_b, key_a, s->down, s->is_float);
    Val right = k_op(k, OP_AND, k_op(k, OP_LT, b, m->hi, 0),
                     k_op(k, OP_OR, b_first, k_op(k, OP_GE, a, m->mid, 0), 0), 0);
    Val in = k_op(k, OP_SELECT, right, in_b, in_a), out = k_op(k, OP_ADD, m->to, at, 0);
    Val step = k_cast(k, right, DAV_I64);
    k_store(k, s->key, out, k_op(k, OP_SELECT, right, key_b, key_a), 0);
    k_store(k, s->index, out, k_load(k, s->index, in, 0), 0);
    k_acc_update(k, m->a, k_op(k, OP_SUB, k_op(k, OP_ADD, a, k_int(k, 1), 0), step, 0));
    k_acc_update(k, m->b, k_op(k, OP_ADD, b, step, 0));
}

/* Runs of 1, 2, 4, ... are merged two by two, from one half of the scratch buffers to the other. */
static void sort_by_merging(Lower *l, Sort *s)
{
    Graph *k = l->k;
    int64_t passes = 0;
    while ((int64_t)1 << passes < s->len)
        passes++;
    Val j = s->idx[s->axis] = k_for(k, LOOP_VECTOR, 0, s->len, 1);
    k_store(k, s->key, j, lower_value(l, s->x, s->idx, 0), 0);
    k_store(k, s->index, j, k_cast(k, j, DAV_I32), 0);
    k_end(k, j);

    Merge m = {.a = k_acc(k, DAV_I64, ACC_SET, 0), .b = k_acc(k, DAV_I64, ACC_SET, 0)};
    Val pass = k_for(k, LOOP_SERIAL, 0, passes, 1), run = k_op(k, OP_SHL, k_int(k, 1), pass, 0);
    Val both = k_op(k, OP_ADD, run, run, 0), odd = k_op(k, OP_REM, pass, k_int(k, 2), 0);
    m.from = k_op(k, OP_MUL, odd, k_int(k, s->half), 0);
    m.to = k_op(k, OP_SUB, k_int(k, s->half), m.from, 0);
    Val pairs = k_op(k, OP_DIV, k_op(k, OP_ADD, both, k_int(k, s->len - 1), 0), both, 0);
    Val pair = k_for_dyn(k, LOOP_SERIAL, l->zero, pairs, 1), lo = k_op(k, OP_MUL, pair, both, 0);
    m.mid = min_int(l, k_op(k, OP_ADD, lo, run, 0), s->len);
    m.hi = min_int(l, k_op(k, OP_ADD, lo, both, 0), s->len);
    k_acc_update(k, m.a, lo);
    k_acc_update(k, m.b, m.mid);
    Val at = k_for_dyn(k, LOOP_SERIAL, lo, m.hi, 1);
    merge_one(l, s, &m, at);
    k_end(k, at);
    k_end(k, pair);
    k_end(k, pass);

    j = s->idx[s->axis] = k_for(k, LOOP_VECTOR, 0, s->len, 1);
    Val sorted = k_op(k, OP_ADD, k_int(k, passes % 2 ? s->half : 0), j, 0);
    k_store(k, l->out[0], lower_offset(l, &s->t, s->idx), k_load(k, s->index, sorted, 0), 0);
    k_end(k, j);
}

static void lower_argsort(Lower *l, const Node *n)
{
    enum { COUNTED = 256 }; /* up to here counting in lanes was measured the faster one */
    Sort s = {.t = type_of(l->body, l->body->out[0].val), .axis = (int)attr_i(n, A_AXIS), .x = n->arg[0],
              .down = attr_i(n, A_DESCENDING) != 0,
              .is_float = dav_dtype_is_float((DavDtype)node_of(l->body, n->arg[0])->dtype)};
    int64_t dim[IR_MAX_RANK], rows = 1;
    for (int d = 0; d < s.t.rank; d++)
        rows *= dim[d] = d == s.axis ? 1 : s.t.dim[d];
    s.len = s.t.dim[s.axis];
    s.half = s.len + 16;
    bool counted = s.len <= COUNTED;
    if (!counted) {
        s.key = lower_scratch(l, (DavDtype)node_of(l->body, s.x)->dtype, 2 * s.half);
        s.index = lower_scratch(l, DAV_I32, 2 * s.half);
    }
    Val p = k_for(l->k, LOOP_PARALLEL, 0, rows, 1);
    lower_indices(l, p, s.t.rank, dim, s.idx);
    (counted ? sort_by_counting : sort_by_merging)(l, &s);
    k_end(l->k, p);
}

/* The base is copied, then the updates are added one after the other; batches and blocks of the trailing axes are
 * independent. */
static void lower_scatter_add(Lower *l, const Node *n)
{
    const Node *index = node_of(l->body, n->arg[1]), *update = node_of(l->body, n->arg[2]);
    int batch = (int)attr_i(n, A_BATCH), tail = n->rank - batch - 1, upd_tail = update->rank - tail;
    int64_t rows = 1, width = 1, count = 1;
    for (int d = 0; d < batch; d++)
        rows *= n->dim[d];
    for (int d = batch + 1; d < n->rank; d++)
        width *= n->dim[d];
    for (int d = batch; d < index->rank; d++)
        count *= index->dim[d];
    int64_t block = width > 4 * LANES ? 4 * LANES : width, blocks = block ? ceil_div(width, block) : 1;
    Type t = type_of(l->body, l->body->out[0].val);
    Val p = k_for(l->k, LOOP_PARALLEL, 0, rows * blocks, 1), idx[IR_MAX_RANK], at[IR_MAX_RANK], up[IR_MAX_RANK];
    Val lo = k_op(l->k, OP_MUL, k_op(l->k, OP_REM, p, k_int(l->k, blocks), 0), k_int(l->k, block), 0);
    Val hi = min_int(l, k_op(l->k, OP_ADD, lo, k_int(l->k, block), 0), width);
    lower_indices(l, k_op(l->k, OP_DIV, p, k_int(l->k, blocks), 0), batch, n->dim, idx);
    int mark = lower_mark(l);

    Val j = idx[batch] = k_for(l->k, LOOP_SERIAL, 0, n->dim[batch], 1), lane = k_for_dyn(l->k, LOOP_VECTOR, lo, hi, 1);
    lower_indices(l, lane, tail, n->dim + batch + 1, idx + batch + 1);
    k_store(l->k, l->out[0], lower_offset(l, &t, idx), lower_value(l, n->arg[0], idx, 0), 0);
    lower_forget(l, mark);
    k_end(l->k, lane);
    k_end(l->k, j);

    Val i = k_for(l->k, LOOP_SERIAL, 0, count, 1);
    for (int d = 0; d < batch; d++)
        at[d] = up[d] = idx[d];
    lower_indices(l, i, index->rank - batch, index->dim + batch, at + batch);
    for (int d = batch; d < index->rank; d++)
        up[d] = at[d];
    idx[batch] = k_cast(l->k, lower_value(l, n->arg[1], at, 0), DAV_I64);
    Val above = k_op(l->k, OP_GE, idx[batch], l->zero, 0),
        below = k_op(l->k, OP_LT, idx[batch], k_int(l->k, n->dim[batch]), 0);
    Val valid = k_if(l->k, k_op(l->k, OP_AND, above, below, 0));
    lane = k_for_dyn(l->k, LOOP_VECTOR, lo, hi, 1);
    lower_indices(l, lane, tail, n->dim + batch + 1, idx + batch + 1);
    for (int d = 0; d < tail; d++)
        up[upd_tail + d] = idx[batch + 1 + d];
    Val off = lower_offset(l, &t, idx),
        sum = k_op(l->k, OP_ADD, k_load(l->k, l->out[0], off, 0), lower_value(l, n->arg[2], up, 0), 0);
    k_store(l->k, l->out[0], off, sum, 0);
    lower_forget(l, mark);
    k_end(l->k, lane);
    k_end(l->k, valid);
    k_end(l->k, i);
    k_end(l->k, p);
}

void lower_other(Lower *l)
{
    const Node *n = node_of(l->body, l->body->out[0].val);
    if (n->op == OP_PICK)
        n = node_of(l->body, n->arg[0]);
    switch ((Op)n->op) {
    case OP_ATTENTION:
        lower_attention(l, n);
        break;
    case OP_ATTENTION_GRAD:
        lower_attention_grad(l, n);
        break;
    case OP_CUMSUM:
        lower_cumsum(l, n);
        break;
    case OP_ARGSORT:
        lower_argsort(l, n);
        break;
    case OP_SCATTER_ADD:
        lower_scatter_add(l, n);
        break;
    default:
        die("no loops for %s", op_info[n->op].text);
    }
}
