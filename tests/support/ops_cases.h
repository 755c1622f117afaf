/* The cases of tests/data/ops.txt (tests/reference/ops.py): small graphs with inputs and results from NumPy and PyTorch. */
#pragma once
#include "ir/graph.h"

typedef struct CaseTensor { const char *name, *values; } CaseTensor; /* values: numbers between blanks */

typedef struct OpCase {
    const char *name; /* "op.what" */
    Graph *g;
    CaseTensor in[8], out[8]; /* in the order of the graph's inputs and outputs */
    int nin, nout;
} OpCase;

/* All cases, allocated in arena; fails the test on a mistake in the file. */
OpCase *ops_cases(Arena *arena, int *n);

/* The type as values are stored: f64 for every float when f64 is set. */
Type case_type(const Graph *g, Val v, bool f64);
/* A tensor of this type filled from the numbers in text. */
void *case_tensor(Arena *arena, const Type *t, const char *values);
/* Does the tensor have these values?  Otherwise prints case, index, want, got.  Tolerance: relative, for |want| < 1 absolute;
 * integers exactly, NaN with NaN. */
bool case_equals(const OpCase *c, const Type *t, const void *data, const char *values, double tolerance);
/* What results of this dtype may differ by. */
double case_tolerance(DavDtype t);
