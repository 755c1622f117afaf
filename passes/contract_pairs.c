/* bf16 sums along an axis that is not the last one of its operands (the gradient of a weight sums over positions).
 *
 * The machine multiplies pairs of neighbours in the sum, and here these stand a row of memory apart.  So one iteration
 * of the parallel loop first writes its part of both operands as pairs, one word each, into scratch memory, and then
 * multiplies all tiles that read it.  A convolution's taps share that work: pairs start at even positions of the columns'
 * operand, and a tap shifts the rows' operand against it, by whole pairs where taps of one parity are together.  The
 * pairs of a sum are the same whatever else is computed.
 *
 *   x2[m] = x[2m - phase], x[2m + 1 - phase]    y2[q] = y[2q], y[2q + 1]    both zero outside
 *   for each tap of this parity:  tile += sum over q of x2[q + shift] * y2[q],  2 shift = coef * tap + offset + phase */
#include "passes/contract_lower.h"

enum { LEAST_DEPTH = 16, LEAST_ROWS = 24, SCRATCH_BYTES = 3 << 20, PANELS = 2 };

typedef struct Pairs {
    Contractor *c;
    int tap;               /* output loop that shifts operand 0 along the sum; -1: none */
    int64_t coef, offset;  /* of the shift */
    int64_t depth[2];      /* positions of each operand */
    int64_t outer;         /* of all other sums: slabs of scratch */
    int64_t rows, columns; /* of a slab */
    int64_t step[2];       /* words from slab to slab */
    Val scratch[2];
    Val phase, slab;
} Pairs;

/* ---- is it one? ---- */
/* Dims other than row, column and inner sum: one whole loop each. */
static bool others_are_plain(const ContractPlan *p, int o, int channel_dim)
{
    for (int d = 0; d < p->spec.rank[o]; d++) {
        const DimExpr *e = &p->spec.dim[o][d];
        if (d == channel_dim || d == p->inner_dim[o])
            continue;
        int64_t most = e->offset;
        for (int i = 0; i < e->nterm; i++) {
            if (e->coef[i] < 0)
                return false;
            most += e->coef[i] * (p->spec.extent[e->loop[i]] - 1);
        }
        if (e->div != 1 || e->offset < 0 || most >= p->size[o][d])
            return false;
    }
    return true;
}

/* Operand 0 along the sum: inner + coef * tap + offset. */
static bool take_shift(Pairs *x, const ContractPlan *p)
{
    const DimExpr *e = &p->spec.dim[0][p->inner_dim[0]];
    x->tap = -1;
    x->offset = e->offset;
    if (e->div != 1 || e->nterm > 2)
        return false;
    for (int i = 0; i < e->nterm; i++) {
        int loop = e->loop[i];
        if (loop == p->inner) {
            if (e->coef[i] != 1)
                return false;
            continue;
        }
        if (loop >= p->spec.nout || loop == p->row || loop == p->col || spec_uses(&p->spec, 1, loop))
            return false;
        for (int d = 0; d < p->spec.rank[0]; d++)
            for (int j = 0; j < p->spec.dim[0][d].nterm; j++)
                if (d != p->inner_dim[0] && p->spec.dim[0][d].loop[j] == loop)
                    return false;
        x->tap = loop;
        x->coef = e->coef[i];
    }
    return true;
}

static bool take(Pairs *x)
{
    const ContractPlan *p = &x->c->plan;
    const ContractSpec *s = &p->spec;
    const Graph *body = x->c->l->body;
    const Node *n = node_of(body, x->c->contract);
    if (node_of(body, n->arg[0])->dtype != DAV_BF16 || p->row < 0 || p->inner < 0)
        return false;
    bool channels = spec_plain_dim(s, 0, p->row, p->size[0]) == s->rank[0] - 1 && p->col_dim == s->rank[1] - 1;
    bool depth = spec_plain_dim(s, 1, p->inner, p->size[1]) >= 0 && s->extent[p->inner] >= LEAST_DEPTH;
    x->rows = s->extent[p->row];
    if (!channels || !depth || x->rows < LEAST_ROWS || s->extent[p->col] % p->tile.nr || !take_shift(x, p) ||
        !others_are_plain(p, 0, p->row_dim) || !others_are_plain(p, 1, p->col_dim))
        return false;
    int64_t panels = s->extent[p->col] / p->tile.nr;
    x->columns = p->tile.nr * (panels % PANELS ? 1 : PANELS);
    x->outer = 1;
    for (int i = s->nout; i < s->nloop; i++)
        x->outer *= i == p->inner ? 1 : s->extent[i];
    for (int o = 0; o < 2; o++) {
        x->depth[o] = p->size[o][p->inner_dim[o]];
        x->step[o] = (x->depth[o] / 2 + 1) * (o ? x->columns : x->rows);
    }
    return x->outer * (x->step[0] + x->step[1]) * 4 <= SCRATCH_BYTES;
}

/* ---- packing ---- */
static Val ints(Pairs *x, Op op, Val a, int64_t b)
{
    return k_op(x->c->l->k, op, a, k_int(x->c->l->k, b), 0);
}

/* Opens the loop over all sums but the inner one. */
static Val open_slabs(Pairs *x)
{
    Contractor *c = x->c;
    const ContractSpec *s = &c->plan.spec;
    int64_t dim[SPEC_MAX_LOOPS];
    int loop[SPEC_MAX_LOOPS], n = 0;
    for (int i = s->nout; i < s->nloop; i++)
        if (i != c->plan.inner) {
            loop[n] = i;
            dim[n++] = s->extent[i];
        }
    Val idx[SPEC_MAX_LOOPS], slab = x->slab = k_for(c->l->k, LOOP_SERIAL, 0, x->outer, 1);
    lower_indices(c->l, slab, n, dim, idx);
    for (int i = 0; i < n; i++)
        c->loop[loop[i]] = idx[i];
    return slab;
}

/* Offset in operand o of position 0 and the first channel of this part. */
static Val slab_offset(Pairs *x, int o)
{
    Contractor *c = x->c;
    const ContractPlan *p = &c->plan;
    Graph *k = c->l->k;
    Val off = o ? c->col0 : c->l->zero;
    for (int d = 0; d < p->spec.rank[o]; d++) {
        if (d == p->inner_dim[o] || d == (o ? p->col_dim : p->row_dim))
            continue;
        const DimExpr *e = &p->spec.dim[o][d];
        Val at = k_int(k, e->offset);
        for (int i = 0; i < e->nterm; i++)
            at = k_addmul(k, at, c->loop[e->loop[i]], e->coef[i]);
        off = k_addmul(k, off, at, p->stride[o][d]);
    }
    return off;
}

/* One pair for all channels; checked: its positions may lie outside. */
static void pack_pair(Pairs *x, int o, Val slab, Val pair, bool checked)
{
    Lower *l = x->c->l;
    Graph *k = l->k;
    int64_t width = o ? x->columns : x->rows, stride = x->c->plan.stride[o][x->c->plan.inner_dim[o]];
    Val lane = k_for(k, LOOP_VECTOR, 0, width, 1), bits[2];
    for (int half = 0; half < 2; half++) {
        Val at = ints(x, OP_ADD, ints(x, OP_MUL, pair, 2), half), in = 0;
        if (!o)
            at = k_op(k, OP_SUB, at, x->phase, 0);
        if (checked)
            in = k_op(k, OP_AND, k_op(k, OP_GE, at, l->zero, 0), ints(x, OP_LT, at, x->depth[o]), 0);
        Val v = k_load(k, x->c->operand[o], k_op(k, OP_ADD, k_addmul(k, slab, at, stride), lane, 0), in);
        bits[half] = k_bitcast(k, k_cast(k, v, DAV_F32), DAV_U32);
    }
    Val low = k_op(k, OP_SHR, bits[0], k_num(k, DAV_U32, 16), 0);
    Val to = k_addmul(k, k_op(k, OP_MUL, x->slab, k_int(k, x->step[o]), 0), pair, width);
    k_store(k, x->scratch[o], k_op(k, OP_ADD, to, lane, 0), k_op(k, OP_OR, low, bits[1], 0), 0);
    k_end(k, lane);
}

/* All pairs of operand o; the first and the last one may be half outside. */
static void pack(Pairs *x, int o)
{
    Lower *l = x->c->l;
    Val slab = open_slabs(x), from = slab_offset(x, o);
    int64_t whole = x->depth[o] / 2, last = whole + (o ? x->depth[o] % 2 : 1);
    pack_pair(x, o, from, l->zero, true);
    Val pair = k_for(l->k, LOOP_SERIAL, 1, whole, 1);
    pack_pair(x, o, from, pair, false);
    k_end(l->k, pair);
    if (last > whole)
        pack_pair(x, o, from, k_int(l->k, whole), true);
    k_end(l->k, slab);
}

/* ---- multiplying ---- */
/* A tile of rows: sums over the slabs, then the store. */
static void multiply(Pairs *x, int rows, Val panel, Val shift, Val lo, Val hi)
{
    Contractor *c = x->c;
    Lower *l = c->l;
    Graph *k = l->k;
    Val tile = k_tile(k, rows, c->plan.tile.nr), slab = open_slabs(x), pairs = k_op(k, OP_SUB, hi, lo, 0);
    Val a = k_addmul(k, k_op(k, OP_MUL, slab, k_int(k, x->step[0]), 0), k_op(k, OP_ADD, lo, shift, 0), x->rows);
    Val b = k_addmul(k, k_op(k, OP_MUL, slab, k_int(k, x->step[1]), 0), lo, x->columns);
    Val some = k_if(k, k_op(k, OP_GT, pairs, l->zero, 0));
    k_tile_contract(k, &(TileContract){.tile = tile, .a = x->scratch[0], .b = x->scratch[1], .a_off = a, .row0 = c->row0,
                                       .b_off = k_addmul(k, b, panel, c->plan.tile.nr), .rows = k_int(k, rows),
                                       .k = ints(x, OP_MUL, pairs, 2), .a_row_step = 1, .a_div = 1, .a_row_stride = 1,
                                       .a_k_stride = x->rows, .b_k_stride = x->columns, .b_col_stride = 1});
    k_end(k, some);
    k_end(k, slab);
    contract_store(c, tile, rows);
}

/* All tiles of one tap, rows in equal tiles: of low + 1, then of low. */
static void multiply_tap(Pairs *x, Val tap)
{
    Contractor *c = x->c;
    Lower *l = c->l;
    Graph *k = l->k;
    Val shift = k_op(k, OP_ADD, x->phase, k_int(k, x->offset), 0), first = c->col0;
    if (tap)
        shift = k_addmul(k, shift, tap, x->coef);
    shift = ints(x, OP_DIV, shift, 2); /* exact */
    Val length = ints(x, OP_DIV, ints(x, OP_ADD, x->phase, x->depth[0] + 1), 2);
    Val lo = k_op(k, OP_MAX, k_op(k, OP_SUB, l->zero, shift, 0), l->zero, 0);
    Val hi = k_op(k, OP_MIN, k_op(k, OP_SUB, length, shift, 0), k_int(k, (x->depth[1] + 1) / 2), 0);
    int64_t tall = c->plan.tile.mr, tiles = (x->rows + tall - 1) / tall, low = x->rows / tiles, more = x->rows % tiles;
    for (int taller = 1; taller >= 0; taller--) {
        int64_t count = taller ? more : tiles - more, rows = low + taller;
        if (!count)
            continue;
        Val t = k_for(k, LOOP_SERIAL, 0, count, 1);
        Val panel = k_for(k, LOOP_SERIAL, 0, x->columns / c->plan.tile.nr, 1);
        c->row0 = ints(x, OP_ADD, ints(x, OP_MUL, t, rows), taller ? 0 : more * (low + 1));
        c->col0 = k_addmul(k, first, panel, c->plan.tile.nr);
        multiply(x, (int)rows, panel, shift, lo, hi);
        c->col0 = first;
        k_end(k, panel);
        k_end(k, t);
    }
}

/* The parallel loop's number in digits: outer loops, part of the columns, parity of the tap. */
static Val open_parts(Pairs *x, int64_t parities, Val *parity)
{
    Contractor *c = x->c;
    const ContractSpec *s = &c->plan.spec;
    int64_t dim[SPEC_MAX_LOOPS + 2], trip = 1;
    int loop[SPEC_MAX_LOOPS], n = 0;
    for (int i = 0; i < s->nout; i++)
        if (i != c->plan.row && i != c->plan.col && i != x->tap) {
            loop[n] = i;
            dim[n++] = s->extent[i];
        }
    dim[n] = s->extent[c->plan.col] / x->columns;
    dim[n + 1] = parities;
    for (int i = 0; i < n + 2; i++)
        trip *= dim[i];
    Val parallel = k_for(c->l->k, LOOP_PARALLEL, 0, trip, 1), idx[SPEC_MAX_LOOPS + 2];
    lower_indices(c->l, parallel, n + 2, dim, idx);
    for (int i = 0; i < n; i++)
        c->loop[loop[i]] = idx[i];
    c->col0 = ints(x, OP_MUL, idx[n], x->columns);
    *parity = idx[n + 1];
    return parallel;
}

bool contract_pairs(Contractor *c)
{
    Pairs x = {.c = c};
    const CompileOptions *target = c->l->cx->options;
    if ((target && target->sums_of_any_stride) || !take(&x))
        return false;
    Graph *k = c->l->k;
    int64_t taps = x.tap < 0 ? 1 : c->plan.spec.extent[x.tap], odd = x.offset & 1;
    for (int o = 0; o < 2; o++)
        x.scratch[o] = lower_scratch(c->l, DAV_U32, x.outer * x.step[o]);
    Val parity, parallel = open_parts(&x, taps > 1 ? 2 : 1, &parity);
    x.phase = x.coef & 1 ? ints(&x, OP_REM, ints(&x, OP_ADD, parity, odd), 2) : k_int(k, odd);
    for (int o = 0; o < 2; o++)
        pack(&x, o);
    if (x.tap < 0) {
        multiply_tap(&x, 0);
    } else {
        Val count = taps > 1 ? ints(&x, OP_DIV, k_op(k, OP_SUB, k_int(k, taps + 1), parity, 0), 2) : k_int(k, 1);
        Val i = k_for_dyn(k, LOOP_SERIAL, c->l->zero, count, 1);
        c->loop[x.tap] = k_op(k, OP_ADD, ints(&x, OP_MUL, i, 2), parity, 0);
        multiply_tap(&x, c->loop[x.tap]);
        k_end(k, i);
    }
    k_end(k, parallel);
    return true;
}
