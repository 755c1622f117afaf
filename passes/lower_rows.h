/* Kernels with reductions: what their two forms share (passes/lower_rows.c, passes/lower_columns.c). */
#pragma once
#include "passes/lower.h"

typedef struct Rows {
    Lower *l;
    Type domain;
    unsigned reduced;
    int last;        /* last axis longer than 1 */
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

AccKind acc_kind(Op op);
double acc_start(Op op, DavDtype t); /* what a reduction starts from */
bool is_root(const Rows *r, Val v, int p); /* a reduction taken in during phase p */
bool phase_is_empty(const Rows *r, int p);
void store_full_outputs(Rows *r, int p, Val mask);
void store_row_outputs(Rows *r);
/* The last axis stays. */
void lower_by_column(Rows *r);
