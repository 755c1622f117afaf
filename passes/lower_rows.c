/* Kernels with reductions: for each row (one index of the axes that stay) the reduced axes are passed over as often as
 * needed.
 *
 * A value's level is the number of reductions that must be finished before it; phase p passes over the row once, takes
 * in all reductions of values of level p and stores the outputs of level p.  So softmax is three phases, layer norm two
 * or three. Values that are dear (exp, ...) and wanted in several phases are kept in a scratch row.  Here the last axis is reduced:
 * lanes along it, accumulators in registers; passes/lower_columns.c: it stays.
 *
 * Rows may pass by with sums of their columns beside them, in parts: an iteration of the parallel loop then is all rows of a part,
 * whose sums are kept in a scratch row. */
#include "passes/lower_rows.h"
#include <math.h>
#include <string.h>

enum { MAX_SPILL = 16384, FEW_LANES = 32 };

static bool is_across(const Rows *r, Val v)
{
    return r->across && sums_parts(r->l->body, v);
}

/* A reduction of the row. */
static bool is_of_row(const Rows *r, Val v)
{
    return reduced_axes(r->l->body, v) && !is_across(r, v);
}

void open_row(Rows *r, Val number, const int64_t *dim)
{
    lower_indices(r->l, number, r->domain.rank, dim, r->idx);
    if (r->cut >= 0)
        r->part = r->idx[r->cut];
}

void close_row(Rows *r)
{
    if (r->cut >= 0)
        r->idx[r->cut] = r->part;
}

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
        if (is_of_row(r, v)) {
            r->phases = r->level[v] + 1 > r->phases ? r->level[v] + 1 : r->phases;
            r->level[v]++;
        }
        r->full[v] = n->rank != r->domain.rank;
        for (int d = 0; d < n->rank && d < r->domain.rank && !(is_of_row(r, v) && sums_parts(g, v)); d++)
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
    return is_of_row(r, v) && r->level[v] == p + 1;
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
static void add_to_column(Rows *r, Val v)
{
    Lower *l = r->l;
    Val scratch = l->row_scratch[v], x = lower_value(l, node_of(l->body, v)->arg[0], r->idx, 0);
    x = k_cast(l->k, x, (DavDtype)node_of(l->k, scratch)->dtype);
    k_store(l->k, scratch, l->full_at, k_op(l->k, OP_ADD, k_load(l->k, scratch, l->full_at, 0), x, 0), 0);
}

void store_full_outputs(Rows *r, int p, Val mask)
{
    for (int i = 0; i < r->l->body->nout; i++) {
        Val v = r->l->body->out[i].val;
        if (!r->full[v] || r->level[v] != p)
            continue;
        if (is_across(r, v))
            add_to_column(r, v);
        else
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

/* The loops over a row's elements. */
static int open_elements(Rows *r, Val loop[IR_MAX_RANK])
{
    Lower *l = r->l;
    Val of_axis[IR_MAX_RANK];
    int loops = 0;
    for (int inner = 0; inner < 2; inner++)
        for (int d = 0; d < r->domain.rank; d++)
            if (is_reduced(r, d) && (d == r->lanes) == inner) {
                of_axis[d] = loop[loops++] = k_for(l->k, inner ? LOOP_VECTOR : LOOP_SERIAL, 0, extent_of(r, d), 1);
                r->idx[d] = index_of(r, d, of_axis[d]);
            }
    l->full_at = l->zero;
    for (int d = 0; d < r->domain.rank; d++)
        if (is_reduced(r, d))
            l->full_at = k_op(l->k, OP_ADD, k_op(l->k, OP_MUL, l->full_at, k_int(l->k, extent_of(r, d)), 0), of_axis[d], 0);
    return loops;
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
    Val loop[IR_MAX_RANK];
    int loops = open_elements(r, loop), mark = lower_mark(l);
    spill_values(r, p, l->full_at);
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

static void one_row(Rows *r)
{
    for (int i = 0; i < r->phases; i++)
        if (!phase_is_empty(r, i))
            row_phase(r, i);
    if (!r->across)
        close_row(r);
    store_row_outputs(r);
}

/* Sums of columns: nothing yet, or stored as they have come together. */
static void each_column_sum(Rows *r, bool store)
{
    Lower *l = r->l;
    Val loop[IR_MAX_RANK];
    int loops = open_elements(r, loop);
    for (int i = 0; i < l->body->nout; i++) {
        Val v = l->body->out[i].val, scratch = l->row_scratch[v], idx[IR_MAX_RANK];
        if (!is_across(r, v))
            continue;
        Type t = type_of(l->body, v);
        row_index(r, v, idx);
        if (store)
            k_store(l->k, l->out[i], lower_offset(l, &t, idx), k_cast(l->k, k_load(l->k, scratch, l->full_at, 0), t.dtype), 0);
        else
            k_store(l->k, scratch, l->full_at, k_num(l->k, (DavDtype)node_of(l->k, scratch)->dtype, 0), 0);
    }
    while (loops)
        k_end(l->k, loop[--loops]);
}

static void rows_of_part(Rows *r)
{
    Lower *l = r->l;
    Val loop[IR_MAX_RANK];
    int loops = 0;
    each_column_sum(r, false);
    for (int d = 0; d < r->domain.rank; d++)
        if (r->across >> d & 1) {
            loop[loops++] = k_for(l->k, LOOP_SERIAL, 0, extent_of(r, d), 1);
            r->idx[d] = index_of(r, d, loop[loops - 1]);
        }
    int mark = lower_mark(l);
    one_row(r);
    lower_forget(l, mark);
    while (loops)
        k_end(l->k, loop[--loops]);
    close_row(r);
    each_column_sum(r, true);
}

static void lower_by_row(Rows *r)
{
    Lower *l = r->l;
    int64_t dim[IR_MAX_RANK], rows = 1, length = 1;
    for (int d = 0; d < r->domain.rank; d++) {
        dim[d] = d == r->cut ? r->parts : (r->reduced | r->across) >> d & 1 ? 1 : r->domain.dim[d];
        rows *= dim[d];
        length *= is_reduced(r, d) ? extent_of(r, d) : 1;
    }
    if (length <= MAX_SPILL)
        find_spills(r);
    for (Val v = 1; v < l->body->n; v++)
        if (r->spill[v] >= 0)
            l->row_scratch[v] = lower_scratch(l, (DavDtype)node_of(l->body, v)->dtype, length);
        else if (is_across(r, v))
            l->row_scratch[v] = lower_scratch(l, sum_dtype((DavDtype)node_of(l->body, v)->dtype), length);
    Val p = k_for(l->k, LOOP_PARALLEL, 0, rows, 1);
    open_row(r, p, dim);
    if (r->across)
        rows_of_part(r);
    else
        one_row(r);
    k_end(l->k, p);
}

/* The last axis, or the longest where threads have caches of their own and that one gives work to few of them. */
static int lanes_of(const Rows *r)
{
    const CompileOptions *o = r->l->cx->options;
    int best = r->last;
    bool spread = o && o->processors && extent_of(r, best) < FEW_LANES;
    for (int d = 0; spread && d < r->domain.rank; d++)
        if (is_reduced(r, d) && extent_of(r, d) > extent_of(r, best))
            best = d;
    return best;
}

void lower_rowwise(Lower *l)
{
    Arena *a = l->cx->arena;
    int n = l->body->n;
    Rows r = {.l = l, .level = arena_array(a, int, n), .full = arena_array(a, bool, n), .spill = arena_array(a, int, n),
              .acc = arena_array(a, Val, n), .cut = -1};
    for (Val v = n - 1; v > 0; v--)
        if (reduced_axes(l->body, v)) {
            *(sums_parts(l->body, v) ? &r.across : &r.reduced) = reduced_axes(l->body, v);
            r.domain = type_of(l->body, node_of(l->body, v)->arg[0]);
            r.parts = sums_parts(l->body, v) ? attr_parts(node_of(l->body, v)) : r.parts;
        }
    if (r.across)
        r.cut = __builtin_ctz(r.across);
    if (!r.reduced) { /* of columns alone */
        r.reduced = r.across;
        r.across = 0;
    }
    for (int d = 0; d < r.domain.rank; d++)
        if (r.domain.dim[d] != 1)
            r.last = d;
    r.lanes = lanes_of(&r);
    l->row_value = arena_array(a, Val, n);
    l->row_scratch = arena_array(a, Val, n);
    l->full_scratch = arena_array(a, Val, n);
    find_levels(&r);
    if (is_reduced(&r, r.last))
        lower_by_row(&r);
    else
        lower_by_column(&r);
}
