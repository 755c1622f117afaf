/* Contractions as register tiles: implicit GEMM without a buffer for patches.
 *
 * One iteration of the parallel loop is one tile of the output: batch and outer loops, a panel of columns, a tile of
 * rows (innermost, so that neighbours read the same panel).  Inside, the outer sums run in order; an index that may
 * leave its operand becomes a condition (a tap that no row of the tile can use is skipped) or, in the inner sum, a
 * shorter range.  The order of summation of one element depends on nothing but the contraction. */
#include "passes/contract_lower.h"
#include <string.h>

static bool in_expr(const DimExpr *e, int loop)
{
    for (int i = 0; i < e->nterm; i++)
        if (e->loop[i] == loop)
            return true;
    return false;
}

static int64_t coef_of(const DimExpr *e, int loop)
{
    for (int i = 0; i < e->nterm; i++)
        if (e->loop[i] == loop)
            return e->coef[i];
    return 0;
}

static void expr_range(const ContractSpec *s, const DimExpr *e, int64_t *min, int64_t *max)
{
    *min = *max = e->offset;
    for (int i = 0; i < e->nterm; i++) {
        int64_t reach = e->coef[i] * (s->extent[e->loop[i]] - 1);
        *(reach < 0 ? min : max) += reach;
    }
}

static bool may_leave(const Contractor *c, int o, int d)
{
    const DimExpr *e = &c->plan.spec.dim[o][d];
    int64_t min, max;
    expr_range(&c->plan.spec, e, &min, &max);
    return min < 0 || max >= c->plan.size[o][d] * e->div || e->div > 1;
}

/* The expression without the inner loop; with the first row and column for theirs. */
static Val base_of(Contractor *c, const DimExpr *e)
{
    Val num = k_int(c->l->k, e->offset);
    for (int i = 0; i < e->nterm; i++) {
        int loop = e->loop[i];
        Val at = loop == c->plan.inner ? 0
                 : loop == c->plan.row ? c->row0
                 : loop == c->plan.col ? c->col0
                                       : c->loop[loop];
        if (at)
            num = k_addmul(c->l->k, num, at, e->coef[i]);
    }
    return num;
}

static Val k_and(Lower *l, Val a, Val b)
{
    return !a ? b : !b ? a : k_op(l->k, OP_AND, a, b, 0);
}

/* May any of the tile's `rows` rows read dim d of operand 0 at all? */
static Val rows_touch(Contractor *c, Val num, int64_t step, int rows, int64_t end)
{
    Lower *l = c->l;
    int64_t reach = step * (rows - 1);
    Val low = reach < 0 ? k_op(l->k, OP_ADD, num, k_int(l->k, reach), 0) : num;
    Val high = reach > 0 ? k_op(l->k, OP_ADD, num, k_int(l->k, reach), 0) : num;
    return k_and(l, k_op(l->k, OP_GE, high, l->zero, 0), k_op(l->k, OP_LT, low, k_int(l->k, end), 0));
}

static Val within(Contractor *c, Val num, const DimExpr *e, int64_t size)
{
    Lower *l = c->l;
    Val ok = rows_touch(c, num, 0, 1, size * e->div);
    if (e->div > 1)
        ok = k_and(l, ok, k_op(l->k, OP_EQ, k_op(l->k, OP_REM, num, k_int(l->k, e->div), 0), l->zero, 0));
    return ok;
}

/* max(0, ceil(x / by)) */
static Val ceil_from_zero(Lower *l, Val x, int64_t by)
{
    Val up = k_op(l->k, OP_ADD, k_op(l->k, OP_MAX, x, l->zero, 0), k_int(l->k, by - 1), 0);
    return k_op(l->k, OP_DIV, up, k_int(l->k, by), 0);
}

/* Cuts [*lo, *hi) of the inner sum to where base + coef*k lies in [0, size). */
static void cut_range(Contractor *c, Val base, int64_t coef, int64_t size, Val *lo, Val *hi)
{
    Lower *l = c->l;
    int64_t by = coef < 0 ? -coef : coef;
    Val first = coef > 0 ? k_op(l->k, OP_SUB, l->zero, base, 0) : k_op(l->k, OP_SUB, base, k_int(l->k, size - 1), 0);
    Val end = coef > 0 ? k_op(l->k, OP_SUB, k_int(l->k, size), base, 0) : k_op(l->k, OP_ADD, base, k_int(l->k, 1), 0);
    *lo = k_op(l->k, OP_MAX, *lo, ceil_from_zero(l, first, by), 0);
    *hi = k_op(l->k, OP_MIN, *hi, ceil_from_zero(l, end, by), 0);
}

static int64_t inner_stride(const Contractor *c, int o)
{
    const ContractPlan *p = &c->plan;
    if (p->inner < 0)
        return 0;
    int d = p->inner_dim[o];
    return coef_of(&p->spec.dim[o][d], p->inner) * p->stride[o][d];
}

/* Where an operand is read without row, column and inner index; conditions of its dims go to *cond. */
static Val operand_offset(Contractor *c, int o, int rows, TileContract *t, Val *cond, Val *lo, Val *hi)
{
    Lower *l = c->l;
    const ContractPlan *p = &c->plan;
    Val off = l->zero;
    for (int d = 0; d < p->spec.rank[o]; d++) {
        const DimExpr *e = &p->spec.dim[o][d];
        Val num = base_of(c, e);
        bool check = may_leave(c, o, d);
        if (o == 0 && d == p->row_dim) {
            t->row0 = num;
            t->a_row_step = coef_of(e, p->row);
            t->a_div = e->div;
            t->a_ext = check ? p->size[o][d] : 0;
            t->a_row_stride = p->stride[o][d];
            if (check)
                *cond = k_and(l, *cond, rows_touch(c, num, t->a_row_step, rows, p->size[o][d] * e->div));
            continue;
        }
        if (p->inner >= 0 && in_expr(e, p->inner)) {
            if (check)
                cut_range(c, num, coef_of(e, p->inner), p->size[o][d], lo, hi);
        } else if (check) {
            *cond = k_and(l, *cond, within(c, num, e, p->size[o][d]));
        }
        off = k_addmul(l->k, off, k_op(l->k, OP_DIV, num, k_int(l->k, e->div), 0), p->stride[o][d]);
    }
    return off;
}

static void multiply(Contractor *c, Val tile, int rows)
{
    Lower *l = c->l;
    const ContractPlan *p = &c->plan;
    int64_t extent = p->inner < 0 ? 1 : p->spec.extent[p->inner];
    Val full = k_int(l->k, extent), cond = 0, lo = l->zero, hi = full;
    TileContract t = {
        .tile = tile, .a = c->operand[0], .b = c->operand[1], .row0 = l->zero, .a_div = 1, .b_col_stride = 1};
    t.a_off = operand_offset(c, 0, rows, &t, &cond, &lo, &hi);
    t.b_off = operand_offset(c, 1, rows, &t, &cond, &lo, &hi);
    t.a_k_stride = inner_stride(c, 0);
    t.b_k_stride = inner_stride(c, 1);
    t.rows = k_int(l->k, rows);
    t.cols = c->columns;
    t.k = full;
    if (lo != l->zero || hi != full) {
        t.k = k_op(l->k, OP_SUB, hi, lo, 0);
        cond = k_and(l, cond, k_op(l->k, OP_GT, t.k, l->zero, 0));
        t.a_off = k_addmul(l->k, t.a_off, lo, t.a_k_stride);
        t.b_off = k_addmul(l->k, t.b_off, lo, t.b_k_stride);
    }
    Val open = cond ? k_if(l->k, cond) : 0;
    k_tile_contract(l->k, &t);
    if (open)
        k_end(l->k, open);
}

/* Indices of the contraction's own output axes from those of the merged loops. */
static void output_index(Contractor *c, Val *idx)
{
    const Node *n = node_of(c->l->body, c->contract);
    for (int first = 0; first < n->rank;) {
        int end = first + 1;
        while (end < n->rank && c->plan.from[end] == c->plan.from[first])
            end++;
        lower_indices(c->l, c->loop[c->plan.from[first]], end - first, n->dim + first, idx + first);
        first = end;
    }
}

void contract_store(Contractor *c, Val tile, int rows)
{
    Lower *l = c->l;
    const ContractPlan *p = &c->plan;
    const Node *n = node_of(l->body, c->contract);
    Val row = k_for(l->k, LOOP_ROW, 0, rows, 1), idx[IR_MAX_RANK];
    Val col =
        c->columns ? k_for_dyn(l->k, LOOP_VECTOR, l->zero, c->columns, 1) : k_for(l->k, LOOP_VECTOR, 0, p->tile.nr, 1);
    int mark = lower_mark(l);
    if (p->row >= 0)
        c->loop[p->row] = k_op(l->k, OP_ADD, c->row0, row, 0);
    c->loop[p->col] = k_op(l->k, OP_ADD, c->col0, col, 0);
    output_index(c, idx);
    lower_remember(l, c->contract, idx, 0, k_cast(l->k, k_tile_get(l->k, tile, row, col), (DavDtype)n->dtype));
    for (int i = 0; i < l->body->nout; i++)
        lower_store(l, i, idx, 0);
    lower_forget(l, mark);
    k_end(l->k, col);
    k_end(l->k, row);
}

static void lower_tile(Contractor *c, int rows)
{
    Lower *l = c->l;
    const ContractSpec *s = &c->plan.spec;
    Val tile = k_tile(l->k, rows, c->plan.tile.nr);
    for (int i = s->nout; i < s->nloop; i++)
        if (i != c->plan.inner)
            c->loop[i] = k_for(l->k, LOOP_SERIAL, 0, s->extent[i], 1);
    multiply(c, tile, rows);
    for (int i = s->nloop - 1; i >= s->nout; i--)
        if (i != c->plan.inner)
            k_end(l->k, c->loop[i]);
    contract_store(c, tile, rows);
}

/* The parallel loop's number in digits: outer loops, panel of columns, tile of rows. */
static Val open_tiles(Contractor *c, int64_t row_tiles, int64_t panels)
{
    Lower *l = c->l;
    const ContractPlan *p = &c->plan;
    int64_t dim[SPEC_MAX_LOOPS + 2], trip = row_tiles * panels;
    int loop[SPEC_MAX_LOOPS + 2], n = 0;
    for (int i = 0; i < p->spec.nout; i++)
        if (i != p->row && i != p->col) {
            loop[n] = i;
            trip *= dim[n++] = p->spec.extent[i];
        }
    dim[n] = panels;
    dim[n + 1] = row_tiles;
    Val parallel = k_for(l->k, LOOP_PARALLEL, 0, trip, 1), idx[SPEC_MAX_LOOPS + 2];
    lower_indices(l, parallel, n + 2, dim, idx);
    for (int i = 0; i < n; i++)
        c->loop[loop[i]] = idx[i];
    c->col0 = k_op(l->k, OP_MUL, idx[n], k_int(l->k, p->tile.nr), 0);
    c->row0 = k_op(l->k, OP_MUL, idx[n + 1], k_int(l->k, p->tile.mr), 0);
    return parallel;
}

void lower_contract(Lower *l, Val contract)
{
    Contractor c = {.l = l, .contract = contract};
    const Node *n = node_of(l->body, contract);
    if (!contract_plan(l->body, contract, l->cx->options, &c.plan) || c.plan.stride[1][c.plan.col_dim] != 1) {
        lower_pointwise(l);
        return;
    }
    const ContractPlan *p = &c.plan;
    for (int o = 0; o < 2; o++)
        c.operand[o] = l->buf[n->arg[p->swapped ? 1 - o : o]];
    if (contract_pairs(&c))
        return;
    int64_t rows = p->row < 0 ? 1 : p->spec.extent[p->row], columns = p->spec.extent[p->col];
    int64_t full = rows / p->tile.mr, rest = rows % p->tile.mr, panels = (columns + p->tile.nr - 1) / p->tile.nr;
    Val parallel = open_tiles(&c, full + (rest > 0), panels);
    if (columns % p->tile.nr) {
        Val left = k_op(l->k, OP_SUB, k_int(l->k, columns), c.col0, 0);
        c.columns = k_op(l->k, OP_MIN, left, k_int(l->k, p->tile.nr), 0);
    }
    if (!rest) {
        lower_tile(&c, p->tile.mr);
    } else if (!full) {
        lower_tile(&c, (int)rest);
    } else {
        Val edge = k_int(l->k, full * p->tile.mr), open = k_if(l->k, k_op(l->k, OP_LT, c.row0, edge, 0));
        lower_tile(&c, p->tile.mr);
        k_end(l->k, open);
        open = k_if(l->k, k_op(l->k, OP_GE, c.row0, edge, 0));
        lower_tile(&c, (int)rest);
        k_end(l->k, open);
    }
    k_end(l->k, parallel);
}
