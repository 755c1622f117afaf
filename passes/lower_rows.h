/* Kernels with reductions: what their two forms share (passes/lower_rows.c, passes/lower_columns.c). */
#pragma once
#include "passes/lower.h"

typedef struct Rows {
    Lower *l;
    Type domain;
    unsigned reduced;
    unsigned across; /* axes of sums of columns beside rows */
    int cut;         /* the axis that is summed in parts, -1: none */
    int64_t parts;
    Val part;        /* which one this is */
    int last;        /* last axis longer than 1 */
    int lanes;       /* the axis of a row that lanes go along */
    int *level;
    bool *full;      /* varies along reduced axes */
    int *spill;      /* phase in which the value is put into scratch, -1: never */
    int phases;
    Val idx[IR_MAX_RANK];
    Val *acc;        /* of reductions in the current phase */
} Rows;

static inline bool is_reduced(const Rows *r, int axis)
{
    return r->reduced >> axis & 1;
}

/* How far a loop along the axis goes, and the index that it stands for. */
static inline int64_t extent_of(const Rows *r, int axis)
{
    return r->domain.dim[axis] / (axis == r->cut ? r->parts : 1);
}

static inline Val index_of(const Rows *r, int axis, Val loop)
{
    return axis == r->cut ? k_addmul(r->l->k, loop, r->part, extent_of(r, axis)) : loop;
}

/* Indices of a row from its number; of its results, once its elements have been gone through. */
void open_row(Rows *r, Val number, const int64_t *dim);
void close_row(Rows *r);

AccKind acc_kind(Op op);
double acc_start(Op op, DavDtype t); /* what a reduction starts from */
bool is_root(const Rows *r, Val v, int p); /* a reduction taken in during phase p */
bool phase_is_empty(const Rows *r, int p);
void store_full_outputs(Rows *r, int p, Val mask);
void store_row_outputs(Rows *r);
/* The last axis stays. */
void lower_by_column(Rows *r);
