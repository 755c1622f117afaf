/* The softmax of a block of queries as rows of scores: largest scores are joined across lanes, sums of weights not
 * before the end. */
#include "passes/lower_attention_rows.h"

enum { LANES = ATTENTION_LANES, STEP = 4 /* vectors at once */ };

/* Rows of words a power of 2 apart would meet in the same lines of the nearest cache. */
int64_t rows_stride(const Attention *a, const Rows *f)
{
    return f->panels * f->nr + (a->pairs ? LANES : 0);
}

/* What was stored beyond the last key becomes as small as nothing else. */
static void hide_rest(Attention *a, Rows *f)
{
    Graph *k = a->k;
    if (!f->raw || f->block == f->panels * f->nr)
        return;
    Val row = k_for(k, LOOP_SERIAL, 0, f->rows, 1), lane = k_for(k, LOOP_VECTOR, 0, f->panels * f->nr - f->block, 1);
    Val at = k_addmul(k, sum_of(k, lane, k_int(k, f->block)), row, f->stride);
    k_store(k, f->score, at, k_bitcast(k, k_num(k, DAV_F32, -3e38), DAV_U32), 0);
    k_end(k, lane);
    k_end(k, row);
}

/* y where it is larger: a NaN is left to the exponential. */
static Val larger(Graph *k, Val x, Val y)
{
    return k_op(k, OP_SELECT, k_op(k, OP_GT, y, x, 0), y, x);
}

static Val score_at(Attention *a, Rows *f, Val row, Val at, int64_t i, Val lane)
{
    Graph *k = a->k;
    Val x = k_load(k, f->score, sum_of(k, sum_of(k, k_addmul(k, at, row, f->stride), k_int(k, i * LANES)), lane), 0);
    return a->pairs ? k_bitcast(k, x, DAV_F32) : x;
}

/* fn for every `step` vectors of a row (the last ones: fewer), from vector `at` / LANES on */
typedef void (*VectorsFn)(Attention *a, Rows *f, Val row, Val at, int count, Val lane, Val acc);
static void for_vectors(Attention *a, Rows *f, Val row, int step, Val lane, Val acc, VectorsFn fn)
{
    Graph *k = a->k;
    int64_t vectors = f->panels * f->nr / LANES, full = vectors / step;
    if (full) {
        Val i = k_for(k, LOOP_SERIAL, 0, full, 1);
        fn(a, f, row, k_op(k, OP_MUL, i, k_int(k, (int64_t)step * LANES), 0), step, lane, acc);
        k_end(k, i);
    }
    if (vectors % step)
        fn(a, f, row, k_int(k, full * step * LANES), (int)(vectors % step), lane, acc);
}

/* In pairs, so that one waits for another log2 times. */
static Val joined(Graph *k, Val *x, int n, Val (*fn)(Graph *, Val, Val))
{
    for (; n > 1; n = (n + 1) / 2)
        for (int i = 0; i < n; i += 2)
            x[i / 2] = i + 1 < n ? fn(k, x[i], x[i + 1]) : x[i];
    return x[0];
}

static void largest(Attention *a, Rows *f, Val row, Val at, int count, Val lane, Val acc)
{
    Val x[STEP];
    for (int i = 0; i < count; i++)
        x[i] = score_at(a, f, row, at, i, lane);
    k_acc_update(a->k, acc, larger(a->k, k_acc_get(a->k, acc), joined(a->k, x, count, larger)));
}

static Val weigh(Attention *a, Rows *f, Val row, Val at, int i, Val lane)
{
    Graph *k = a->k;
    Val x = score_at(a, f, row, at, i, lane), most = k_load(k, f->most, sum_of(k, f->state, row), 0);
    x = f->base == 1 ? k_op(k, OP_SUB, x, most, 0)
                     : k_op(k, OP_FMA, x, k_num(k, DAV_F32, f->base), k_op(k, OP_NEG, most, 0, 0));
    return k_exp2(k, x, a->half ? DAV_BF16 : DAV_F32);
}

static void weights(Attention *a, Rows *f, Val row, Val at, int count, Val lane, Val acc)
{
    Graph *k = a->k;
    Val e[STEP];
    for (int i = 0; i < count; i++)
        e[i] = weigh(a, f, row, at, i, lane);
    for (int i = 0; i < count; i += a->pairs ? 2 : 1) {
        if (!a->pairs) {
            k_store(k, f->score,
                    sum_of(k, sum_of(k, k_addmul(k, at, row, f->stride), k_int(k, (int64_t)i * LANES)), lane), e[i], 0);
            continue;
        }
        Val word = attention_word(k, e[i], i + 1 < count ? e[i + 1] : k_num(k, DAV_F32, 0));
        Val to = k_addmul(k, k_addmul(k, k_int(k, (int64_t)i / 2 * LANES), k_op(k, OP_DIV, at, k_int(k, 2), 0), 1), row,
                          f->stride);
        k_store(k, f->score, sum_of(k, to, lane), word, 0);
    }
    k_acc_update(k, acc, joined(k, e, count, sum_of));
}

/* A float's bits as an integer in the same order, and back: lanes are joined faster than as floats, where NaNs count.
 */
static Val ordered(Graph *k, Val bits)
{
    Val negative = k_op(k, OP_SHR, bits, k_num(k, DAV_I32, 31), 0);
    return k_op(k, OP_XOR, bits, k_op(k, OP_AND, negative, k_num(k, DAV_I32, INT32_MAX), 0), 0);
}

/* The largest score of each row, as its ordered bits. */
static void row_most(Attention *a, Rows *f)
{
    Graph *k = a->k;
    Val row = k_for(k, LOOP_SERIAL, 0, f->rows, 1), most = k_acc(k, DAV_I32, ACC_MAX, INT32_MIN);
    Val lane = k_for(k, LOOP_VECTOR, 0, LANES, 1), part = k_acc(k, DAV_F32, ACC_SET, -3e38);
    for_vectors(a, f, row, STEP, lane, part, largest);
    k_acc_update(k, most, ordered(k, k_bitcast(k, k_acc_get(k, part), DAV_I32)));
    k_end(k, lane);
    k_store(k, f->row_most, row, k_acc_get(k, most), 0);
    k_end(k, row);
}

/* The chunk's largest scores, as powers of 2, and what is kept of sums from before. */
static void merge(Attention *a, Rows *f)
{
    Graph *k = a->k;
    Val row = k_for(k, LOOP_VECTOR, 0, f->rows, 1), at = sum_of(k, f->state, row);
    Val most = k_bitcast(k, ordered(k, k_load(k, f->row_most, row, 0)), DAV_F32);
    if (f->base != 1)
        most = k_op(k, OP_MUL, most, k_num(k, DAV_F32, f->base), 0);
    if (!f->only) {
        Val before = k_load(k, f->most, at, 0);
        most = larger(k, most, before);
        k_store(k, f->keep, row, k_exp2(k, k_op(k, OP_SUB, before, most, 0), DAV_F32), 0);
    }
    k_store(k, f->most, at, most, 0);
    k_end(k, row);
}

/* The exponentials of each row from its largest score; their sum stays spread over the lanes. */
static void row_weights(Attention *a, Rows *f)
{
    Graph *k = a->k;
    Val row = k_for(k, LOOP_SERIAL, 0, f->rows, 1), lane = k_for(k, LOOP_VECTOR, 0, LANES, 1),
        part = k_acc(k, DAV_F32, ACC_ADD, 0);
    for_vectors(a, f, row, STEP, lane, part, weights);
    Val at = k_addmul(k, lane, sum_of(k, f->state, row), LANES), total = k_acc_get(k, part);
    if (!f->only)
        total = k_op(k, OP_FMA, k_load(k, f->total, at, 0), k_load(k, f->keep, row, 0), total);
    k_store(k, f->total, at, total, 0);
    k_end(k, lane);
    k_end(k, row);
}

void rows_totals(Attention *a, Rows *f)
{
    Graph *k = a->k;
    Val row = k_for(k, LOOP_SERIAL, 0, f->rows, 1), total = k_acc(k, DAV_F32, ACC_ADD, 0);
    Val lane = k_for(k, LOOP_VECTOR, 0, LANES, 1);
    k_acc_update(k, total, k_load(k, f->total, k_addmul(k, lane, sum_of(k, f->state, row), LANES), 0));
    k_end(k, lane);
    k_store(k, f->row_total, row, k_acc_get(k, total), 0);
    k_end(k, row);
    row = k_for(k, LOOP_VECTOR, 0, f->rows, 1);
    k_store(k, f->keep, row, k_op(k, OP_DIV, k_num(k, DAV_F32, 1), k_load(k, f->row_total, row, 0), 0), 0);
    Val lse = k_op(k, OP_FMA, k_load(k, f->most, sum_of(k, f->state, row), 0), k_num(k, DAV_F32, LN2),
                   k_op(k, OP_LOG, k_load(k, f->row_total, row, 0), 0, 0));
    k_store(k, a->l->out[1], rows_of_batch(a, a->queries, sum_of(k, f->q0, row), 1), lse, 0);
    k_end(k, row);
}

void rows_softmax(Attention *a, Rows *f)
{
    hide_rest(a, f);
    row_most(a, f);
    merge(a, f);
    row_weights(a, f);
    if (f->only)
        rows_totals(a, f);
}
