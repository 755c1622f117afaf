/* Reductions of which the last axis stays (passes/lower_rows.c: it is reduced).
 *
 * For a processor's core lanes go along the columns, and the sums of a block of columns lie in a scratch row that all rows are added to.
 * For a block of threads a lane is a column and a part of the rows: it sums them in a register, and the parts are added in order. */
#include "passes/lower_rows.h"

enum { MAX_COLUMNS = 512, MIN_COLUMNS = 16, ENOUGH_BLOCKS = 32 };
/* of the form for threads */
enum { LANES = 256, MAX_PARTS = 16, LEAST_ROWS = 8 /* of a part */, WARP = 32 };

static Val combine(Lower *l, Op op, Val a, Val b)
{
    return k_op(l->k, op == OP_SUM ? OP_ADD : op == OP_RMAX ? OP_MAX : OP_MIN, a, b, 0);
}

static void column_phase(Rows *r, int p, Val first, Val count)
{
    Lower *l = r->l;
    const Graph *g = l->body;
    Val lane = k_for_dyn(l->k, LOOP_VECTOR, l->zero, count, 1), loop[IR_MAX_RANK];
    int loops = 0, mark = lower_mark(l);
    for (Val v = 1; v < g->n; v++)
        if (is_root(r, v, p)) {
            DavDtype t = sum_dtype((DavDtype)node_of(g, v)->dtype);
            k_store(l->k, l->row_scratch[v], lane, k_num(l->k, t, acc_start((Op)node_of(g, v)->op, t)), 0);
        }
    k_end(l->k, lane);
    for (int d = 0; d < r->domain.rank; d++)
        if (is_reduced(r, d)) {
            loop[loops++] = k_for(l->k, LOOP_SERIAL, 0, extent_of(r, d), 1);
            r->idx[d] = index_of(r, d, loop[loops - 1]);
        }
    loop[loops++] = lane = l->scratch_at = k_for_dyn(l->k, LOOP_VECTOR, l->zero, count, 1);
    r->idx[r->last] = k_op(l->k, OP_ADD, first, lane, 0);
    for (Val v = 1; v < g->n; v++)
        if (is_root(r, v, p)) {
            const Node *n = node_of(g, v);
            Val x = k_cast(l->k, lower_value(l, n->arg[0], r->idx, 0), sum_dtype((DavDtype)n->dtype));
            k_store(l->k, l->row_scratch[v], lane, combine(l, (Op)n->op, k_load(l->k, l->row_scratch[v], lane, 0), x),
                    0);
        }
    store_full_outputs(r, p, 0);
    lower_forget(l, mark);
    while (loops)
        k_end(l->k, loop[--loops]);
}

/* ---- the form for blocks of threads ---- */
typedef struct Spread {
    int64_t rows, parts, part, columns; /* summed rows; their parts, and rows of each; columns of a block */
    Val first, count;                   /* first column of the block, how many exist */
} Spread;

static int64_t power_below(int64_t n)
{
    int64_t p = 1;
    while (2 * p <= n)
        p *= 2;
    return p;
}

/* By the rows and columns of one sum alone: its bits depend on nothing else. */
static Spread spread_of(const Rows *r, int64_t width)
{
    Spread s = {.rows = 1};
    for (int d = 0; d < r->domain.rank; d++)
        s.rows *= is_reduced(r, d) ? extent_of(r, d) : 1;
    int64_t parts = power_below(s.rows / LEAST_ROWS > 0 ? s.rows / LEAST_ROWS : 1);
    s.parts = parts < MAX_PARTS ? parts : MAX_PARTS;
    s.part = (s.rows + s.parts - 1) / s.parts;
    s.columns = LANES / s.parts < WARP ? LANES / s.parts : WARP;
    while (s.columns / 2 >= width)
        s.columns /= 2;
    return s;
}

/* The row and column of the lane in the iteration `row`; which of them exist, 0: all. */
static Val find_element(Rows *r, const Spread *s, Val lane, Val row)
{
    Lower *l = r->l;
    Graph *k = l->k;
    Val part = k_op(k, OP_DIV, lane, k_int(k, s->columns), 0), at = k_addmul(k, row, part, s->part), idx[IR_MAX_RANK], exists = 0;
    int64_t dim[IR_MAX_RANK];
    if (s->part * s->parts != s->rows)
        exists = k_op(k, OP_LT, at, k_int(k, s->rows), 0);
    if (s->count)
        exists = k_both(l->k, exists, k_op(k, OP_LT, l->scratch_at, s->count, 0));
    for (int d = 0; d < r->domain.rank; d++)
        dim[d] = is_reduced(r, d) ? extent_of(r, d) : 1;
    lower_indices(l, at, r->domain.rank, dim, idx);
    for (int d = 0; d < r->domain.rank; d++)
        r->idx[d] = is_reduced(r, d) ? index_of(r, d, idx[d]) : r->idx[d];
    r->idx[r->last] = k_op(k, OP_ADD, s->first, l->scratch_at, 0);
    return exists;
}

static void take_in(Rows *r, int p, Val exists)
{
    Lower *l = r->l;
    for (Val v = 1; v < l->body->n; v++) {
        const Node *n = node_of(l->body, v);
        if (!is_root(r, v, p))
            continue;
        DavDtype t = sum_dtype((DavDtype)n->dtype);
        Val x = k_cast(l->k, lower_value(l, n->arg[0], r->idx, exists), t);
        k_acc_update(l->k, r->acc[v], exists ? k_op(l->k, OP_SELECT, exists, x, k_num(l->k, t, acc_start((Op)n->op, t))) : x);
    }
    store_full_outputs(r, p, exists);
}

/* The parts of each column, in order. */
static void join_parts(Rows *r, int p, const Spread *s)
{
    Lower *l = r->l;
    if (s->parts == 1)
        return;
    Val lane = k_for(l->k, LOOP_VECTOR, 0, s->columns, 1);
    for (Val v = 1; v < l->body->n; v++) {
        if (!is_root(r, v, p))
            continue;
        Val sum = k_load(l->k, l->row_scratch[v], lane, 0);
        for (int64_t i = 1; i < s->parts; i++)
            sum = combine(l, (Op)node_of(l->body, v)->op, sum,
                          k_load(l->k, l->row_scratch[v], k_op(l->k, OP_ADD, lane, k_int(l->k, i * s->columns), 0), 0));
        k_store(l->k, l->row_scratch[v], lane, sum, 0);
    }
    k_end(l->k, lane);
}

static void spread_phase(Rows *r, int p, const Spread *s)
{
    Lower *l = r->l;
    const Graph *g = l->body;
    Val lane = k_for(l->k, LOOP_VECTOR, 0, s->parts * s->columns, 1);
    l->scratch_at = k_op(l->k, OP_REM, lane, k_int(l->k, s->columns), 0);
    for (Val v = 1; v < g->n; v++)
        if (is_root(r, v, p)) {
            DavDtype t = sum_dtype((DavDtype)node_of(g, v)->dtype);
            r->acc[v] = k_acc(l->k, t, acc_kind((Op)node_of(g, v)->op), acc_start((Op)node_of(g, v)->op, t));
        }
    Val row = k_for(l->k, LOOP_SERIAL, 0, s->part, 1);
    int mark = lower_mark(l);
    take_in(r, p, find_element(r, s, lane, row));
    lower_forget(l, mark);
    k_end(l->k, row);
    for (Val v = 1; v < g->n; v++)
        if (is_root(r, v, p))
            k_store(l->k, l->row_scratch[v], lane, k_acc_get(l->k, r->acc[v]), 0);
    k_end(l->k, lane);
    join_parts(r, p, s);
}

void lower_by_column(Rows *r)
{
    Lower *l = r->l;
    int64_t dim[IR_MAX_RANK], outer = 1, width = r->domain.dim[r->last];
    for (int d = 0; d < r->domain.rank; d++)
        outer *= dim[d] = d == r->cut ? r->parts : is_reduced(r, d) || d == r->last ? 1 : r->domain.dim[d];
    int64_t block = (width * outer / ENOUGH_BLOCKS + MIN_COLUMNS) / MIN_COLUMNS * MIN_COLUMNS;
    block = block > MAX_COLUMNS ? MAX_COLUMNS : block;
    block = block > width ? width : block;
    Spread s = {0};
    if (l->cx->options && l->cx->options->processors) {
        s = spread_of(r, width);
        block = s.columns;
    }
    int64_t blocks = (width + block - 1) / block;
    for (Val v = 1; v < l->body->n; v++)
        if (reduced_axes(l->body, v))
            l->row_scratch[v] = lower_scratch(l, sum_dtype((DavDtype)node_of(l->body, v)->dtype), s.parts ? s.parts * block : block);
    Val p = k_for(l->k, LOOP_PARALLEL, 0, outer * blocks, 1);
    Val first = k_op(l->k, OP_MUL, k_op(l->k, OP_REM, p, k_int(l->k, blocks), 0), k_int(l->k, block), 0);
    Val rest = k_op(l->k, OP_SUB, k_int(l->k, width), first, 0);
    Val count = width % block ? k_op(l->k, OP_MIN, rest, k_int(l->k, block), 0) : k_int(l->k, block);
    open_row(r, k_op(l->k, OP_DIV, p, k_int(l->k, blocks), 0), dim);
    s.first = first;
    s.count = width % block ? count : 0;
    for (int i = 0; i < r->phases; i++) {
        if (phase_is_empty(r, i))
            continue;
        if (s.parts)
            spread_phase(r, i, &s);
        else
            column_phase(r, i, first, count);
    }
    Val lane = l->scratch_at = k_for_dyn(l->k, LOOP_VECTOR, l->zero, count, 1);
    int mark = lower_mark(l);
    r->idx[r->last] = k_op(l->k, OP_ADD, first, lane, 0);
    close_row(r);
    store_row_outputs(r);
    lower_forget(l, mark);
    k_end(l->k, lane);
    k_end(l->k, p);
}

