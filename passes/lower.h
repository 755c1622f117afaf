/* From fused regions to kernels. */
#pragma once
#include "ir/kernel.h"
#include "passes/fuse.h"

/* Every fuse becomes a kernel.  A kernel's buffers: its operands by index, then its results, then scratch. */
bool pass_lower(PassCx *cx, const Graph *in, Graph *out);

/* ---- inside of lowering ---- */
typedef struct Memo { Val v, val, mask, idx[IR_MAX_RANK]; int before; } Memo;

/* One region on its way to one kernel. */
typedef struct Lower {
    PassCx *cx;
    const Graph *body;
    Graph *k;
    Val *buf;     /* body input -> kernel buffer */
    Val *out;     /* region output -> kernel buffer */
    int nbuf;     /* buffers so far */
    Memo *memo;   /* values computed in the scopes that are open now */
    int nmemo, memocap;
    int *newest;  /* newest memo of a body value + 1 */
    Val zero;     /* i64 0 */
    /* Where reductions and spilled values are found instead of being computed. */
    Val *row_value;   /* reduction -> value of this row */
    Val *row_scratch; /* reduction or spilled value -> scratch buffer ... */
    Val scratch_at;   /* ... read at this offset */
    Val *full_scratch;
    Val full_at;
} Lower;

Val lower_value(Lower *l, Val v, const Val *idx, Val mask); /* element idx of body value v */
int lower_mark(const Lower *l);
void lower_forget(Lower *l, int mark); /* at the end of a loop's body */
void lower_remember(Lower *l, Val v, const Val *idx, Val mask, Val val);

Val lower_offset(Lower *l, const Type *t, const Val *idx); /* row-major offset of element idx */
void lower_indices(Lower *l, Val linear, int n, const int64_t *dim,
                   Val *idx);                                     /* digits of linear in the mixed radix dim */
void lower_store(Lower *l, int output, const Val *idx, Val mask); /* computes an output's element and stores it */
Val lower_scratch(Lower *l, DavDtype t, int64_t n);
DavDtype sum_dtype(DavDtype t); /* what sums of t accumulate in */
static inline Val k_addmul(Graph *k, Val a, Val b, int64_t c) /* a + b*c */
{
    return k_op(k, OP_ADD, a, k_op(k, OP_MUL, b, k_int(k, c), 0), 0);
}

static inline Val k_both(Graph *k, Val a, Val b) /* conditions; 0: holds */
{
    return !a ? b : !b ? a : k_op(k, OP_AND, a, b, 0);
}

/* The kinds of kernels. */
void lower_pointwise(Lower *l);
void lower_rowwise(Lower *l);
void lower_contract(Lower *l, Val contract);
void lower_other(Lower *l);

/* The region with neighbouring axes made one where every value agrees (passes/lower_collapse.c). */
const Graph *collapse_axes(PassCx *cx, const Graph *body);
