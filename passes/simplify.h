/* The parts of the simplify pass; inside of passes/simplify*.c alone. */
#pragma once
#include "ir/graph.h"

/* The whole pass once: `in` is copied to out with everything that is live, every rule applied. */
void simplify_graph(Graph *out, const Graph *in);

/* passes/simplify_contract.c: a value of g that equals contraction n, without transposed operands and loops that run once;
 * 0: nothing to do. */
Val simplify_contract(Graph *g, const Node *n);
/* The contraction (a value of g) made in the order that `transpose` asks for; 0: it is no contraction. */
Val transposed_contract(Graph *g, Val contract, const Node *transpose);

/* passes/simplify_loop.c: copies loop v of `in` without the results in `picked` that are false (carried ones stay) and without
 * scanned and invariant operands that its body does not read.  index[k]: the new number of result k. */
Val simplify_loop(Graph *out, const Graph *in, Val v, const Val *map, const bool *picked, int *index);
