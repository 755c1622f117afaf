/* The state of the layout pass; inside of passes/layout*.c alone. */
#pragma once
#include "ir/graph.h"

typedef struct Perm { int64_t at[IR_MAX_RANK]; } Perm; /* axis i of the new value is axis at[i] of the old one */

typedef struct Layout {
    const Graph *in;
    Graph *out;
    Val *map;      /* old value -> new one, whose axes stand in the order perm[old] */
    Perm *perm;
    bool *weights; /* depends on parameters and constants alone */
} Layout;

void layout_graph(Graph *out, const Graph *in);
/* The new value of `old` with its axes in the order `want`. */
Val layout_get(Layout *l, Val old, const Perm *want);
/* passes/layout_contract.c */
void layout_contract(Layout *l, Val v);
/* passes/layout_reshape.c: false when the reshape takes axes apart or together that are not neighbours in the new order. */
bool layout_reshape(Layout *l, Val v);
