/* Kernels with reductions: for each row (one index of the axes that stay) the reduced axes are passed over as often as
 * needed.
 *
 * A value's level is the number of reductions that must be finished before it; phase p passes over the row once, takes
 * in all reductions of values of level p and stores the outputs of level p.  So softmax is three phases, layer norm two
 * or three. Values that are dear (exp, ...) and wanted in several phases are kept in a scratch row.  Here the last axis is reduced:
 * lanes along it, accumulators in registers; passes/lower_columns.c: it stays. */
#include "passes/lower_rows.h"
#include <math.h>
#include <string.h>

enum { MAX_SPILL = 16384 };

AccKind acc_kind(Op op)
{
    return op == OP_SUM ? ACC_ADD : op == OP_RMAX ? ACC_MAX : ACC_MIN;
}

double acc_start(Op op, DavDtype t)
{
    static const double largest[DAV_DTYPE_COUNT] = {
        [DAV_I64] = 0x1.fffffffffffffp62, [DAV_I32] = INT32_MAX, [DAV_U32] = UINT32_MAX};
    static const double least[DAV_DTYPE_COUNT] = {[DAV_I64] = -0x1p63, [DAV_I32] = INT32_MIN};
    if (op == OP_SUM)
        return 0;
    if (dav_dtype_is_float(t))
        return op == OP_RMAX ? -(double)INFINITY : (double)INFINITY;
    return op == OP_RMAX ? least[t] : largest[t];
}

static bool is_dear(Op op)
{
    return (op >= OP_SQRT && op <= OP_ERF) || op == OP_DIV || op == OP_RANDOM || op == OP_FOLD;
}

/* ---- analysis ---- */
static void find_levels(Rows *r)
{
    const Graph *g = r->l->body;
    for (Val v = 1; v < g->n; v++) {
        const Node *n = node_of(g, v);
        r->spill[v] = -1;
        for (int i = 0; i < n->narg; i++)
            r->level[v] = r->level[n->arg[i]] > r->level[v] ? r->level[n->arg[i]] : r->level[v];
        if (reduced_axes(g, v)) {
            r->phases = r->level[v] + 1 > r->phases ? r->level[v] + 1 : r->phases;
            r->level[v]++;
        }
        r->full[v] = n->rank != r->domain.rank;
        for (int d = 0; d < n->rank && d < r->domain.rank; d++)
            r->full[v] |= is_reduced(r, d) && n->dim[d] != 1;
    }
    for (int i = 0; i < g->nout; i++) {
        Val v = g->out[i].val;
        if (r->full[v] && r->level[v] + 1 > r->phases)
            r->phases = r->level[v] + 1;
    }
}

/* Marks what phase p computes; dear values that an earlier phase had are spilled there. */
static void visit(Rows *r, Val v, int p, int *seen)
{
    if (!r->full[v] || seen[v] == p + 1)
        return;
    const Node *n = node_of(r->l->body, v);
    if (seen[v] && is_dear((Op)n->op) && n->rank == r->domain.rank) {
        if (r->spill[v] < 0)
            r->spill[v] = seen[v] - 1;
        return;
    }
    seen[v] = p + 1;
    for (int i = 0; i < n->narg; i++)
        visit(r, n->arg[i], p, seen);
}

bool is_root(const Rows *r, Val v, int p)
{
    return reduced_axes(r->l->body, v) && r->level[v] == p + 1;
}

static void find_spills(Rows *r)
{
    const Graph *g = r->l->body;
    int *seen = arena_array(r->l->cx->arena, int, g->n);
    for (int p = 0; p < r->phases; p++) {
        for (Val v = 1; v < g->n; v++)
            if (is_root(r, v, p))
                visit(r, node_of(g, v)->arg[0], p, seen);
        for (int i = 0; i < g->nout; i++)
            if (r->level[g->out[i].val] == p)
                visit(r, g->out[i].val, p, seen);
    }
}

/* ---- what both forms do inside of the innermost loop ---- */
void store_full_outputs(Rows *r, int p, Val mask)
{
    for (int i = 0; i < r->l->body->nout; i++) {
        Val v = r->l->body->out[i].val;
        if (r->full[v] && r->level[v] == p)
            lower_store(r->l, i, r->idx, mask);
    }
}

static void row_index(const Rows *r, Val v, Val *idx)
{
    const Node *n = node_of(r->l->body, v);
    for (int d = 0; d < n->rank; d++)
        idx[d] = n->dim[d] == 1 ? r->l->zero : r->idx[d];
}

void store_row_outputs(Rows *r)
{
    for (int i = 0; i < r->l->body->nout; i++) {
        Val v = r->l->body->out[i].val, idx[IR_MAX_RANK];
        if (r->full[v])
            continue;
        row_index(r, v, idx);
        lower_store(r->l, i, idx, 0);
    }
}

bool phase_is_empty(const Rows *r, int p)
{
    const Graph *g = r->l->body;
    for (Val v = 1; v < g->n; v++)
        if (is_root(r, v, p))
            return false;
    for (int i = 0; i < g->nout; i++)
        if (r->full[g->out[i].val] && r->level[g->out[i].val] == p)
            return false;
    return true;
}

/* ---- rows ---- */
/* Values of the row that later loops read are computed before them, once. */
static void prepare_row(Rows *r, int p)
{
    const Graph *g = r->l->body;
    for (Val v = 1; v < g->n; v++) {
        if (r->full[v] || r->level[v] > p || node_of(g, v)->rank != r->domain.rank)
            continue;
        Val idx[IR_MAX_RANK];
        row_index(r, v, idx);
        lower_value(r->l, v, idx, 0);
    }
}

static void spill_values(Rows *r, int p, Val at)
{
    Lower *l = r->l;
    for (Val v = 1; v < l->body->n; v++)
        if (r->spill[v] == p)
            k_store(l->k, l->row_scratch[v], at, lower_value(l, v, r->idx, 0), 0);
}

static void row_phase(Rows *r, int p)
{
    Lower *l = r->l;
    const Graph *g = l->body;
    prepare_row(r, p);
    for (Val v = 1; v < g->n; v++)
        if (is_root(r, v, p)) {
            DavDtype t = sum_dtype((DavDtype)node_of(g, v)->dtype);
            r->acc[v] = k_acc(l->k, t, acc_kind((Op)node_of(g, v)->op), acc_start((Op)node_of(g, v)->op, t));
        }
    Val loop[IR_MAX_RANK], at = l->zero;
    int loops = 0;
    for (int d = 0; d < r->domain.rank; d++)
        if (is_reduced(r, d)) {
            loop[loops++] = r->idx[d] = k_for(l->k, d == r->last ? LOOP_VECTOR : LOOP_SERIAL, 0, r->domain.dim[d], 1);
            at = k_op(l->k, OP_ADD, k_op(l->k, OP_MUL, at, k_int(l->k, r->domain.dim[d]), 0), r->idx[d], 0);
        }
    int mark = lower_mark(l);
    l->full_at = at;
    spill_values(r, p, at);
    for (Val v = 1; v < g->n; v++)
        if (is_root(r, v, p)) {
            DavDtype t = sum_dtype((DavDtype)node_of(g, v)->dtype);
            k_acc_update(l->k, r->acc[v], k_cast(l->k, lower_value(l, node_of(g, v)->arg[0], r->idx, 0), t));
        }
    store_full_outputs(r, p, 0);
    lower_forget(l, mark);
    while (loops)
        k_end(l->k, loop[--loops]);
    for (Val v = 1; v < g->n; v++) {
        if (is_root(r, v, p))
            l->row_value[v] = k_cast(l->k, k_acc_get(l->k, r->acc[v]), (DavDtype)node_of(g, v)->dtype);
        if (r->spill[v] == p)
            l->full_scratch[v] = l->row_scratch[v];
    }
}

static void lower_by_row(Rows *r)
{
    Lower *l = r->l;
    int64_t dim[IR_MAX_RANK], rows = 1, length = 1;
    for (int d = 0; d < r->domain.rank; d++) {
        dim[d] = is_reduced(r, d) ? 1 : r->domain.dim[d];
        rows *= dim[d];
        length *= is_reduced(r, d) ? r->domain.dim[d] : 1;
    }
    if (length <= MAX_SPILL)
        find_spills(r);
    for (Val v = 1; v < l->body->n; v++)
        if (r->spill[v] >= 0)
            l->row_scratch[v] = lower_scratch(l, (DavDtype)node_of(l->body, v)->dtype, length);
    Val p = k_for(l->k, LOOP_PARALLEL, 0, rows, 1);
    lower_indices(l, p, r->domain.rank, dim, r->idx);
    for (int i = 0; i < r->phases; i++)
        if (!phase_is_empty(r, i))
            row_phase(r, i);
    store_row_outputs(r);
    k_end(l->k, p);
}

void lower_rowwise(Lower *l)
{
    Arena *a = l->cx->arena;
    int n = l->body->n;
    Rows r = {.l = l, .level = arena_array(a, int, n), .full = arena_array(a, bool, n), .spill = arena_array(a, int, n),
              .acc = arena_array(a, Val, n)};
    for (Val v = n - 1; v > 0; v--)
        if (reduced_axes(l->body, v)) {
            r.reduced = reduced_axes(l->body, v);
            r.domain = type_of(l->body, node_of(l->body, v)->arg[0]);
        }
    for (int d = 0; d < r.domain.rank; d++)
        if (r.domain.dim[d] != 1)
            r.last = d;
    l->row_value = arena_array(a, Val, n);
    l->row_scratch = arena_array(a, Val, n);
    l->full_scratch = arena_array(a, Val, n);
    find_levels(&r);
    if (is_reduced(&r, r.last))
        lower_by_row(&r);
    else
        lower_by_column(&r);
}
