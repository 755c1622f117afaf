/* Gradients of a graph against central differences of its value, in f64 by the reference interpreter. */
#pragma once
#include "ir/graph.h"

enum { GRAD_MAX_INPUTS = 6 };

/* A function of f64 inputs of the given shapes, drawn from [lo, hi]. */
typedef struct GradCase {
    const char *name;
    int nin;
    struct { int rank; int64_t dim[IR_MAX_RANK]; } in[GRAD_MAX_INPUTS];
    double lo, hi; /* both 0: [-1, 1] */
    Val (*build)(Graph *g, const Val *x, const void *with);
    const void *with;
    int order; /* highest order of derivative to check; 0: 2 */
    const struct InterpHost *host; /* functions of host nodes; NULL: none */
    const char *device; /* the gradients of first order are also compiled for it and compared; NULL: none */
} GradCase;

/* Checks every order up to c->order: the gradients of a weighted sum of the result, then of a weighted sum of those.
 * Fails the cmocka test at the first element that differs. */
void grad_check(const GradCase *c);
