/* Random tensor graphs for comparing devices.  Floats stay of moderate size, and nothing that jumps (comparisons,
 * floor, indices) is applied to a computed float, so that two correct devices differ by rounding alone. */
#pragma once
#include "ir/graph.h"

typedef struct Rng { uint64_t state; } Rng;
uint64_t rng_next(Rng *r);
int64_t rng_below(Rng *r, int64_t n); /* n >= 1 */
double rng_unit(Rng *r);              /* [0, 1) */

/* About `ops` ops over inputs x0.. (f32, role data and param) and i0.. (i32, values in [0, 6)); 1 to 4 outputs. */
Graph *random_graph(Arena *arena, Err *err, Rng *r, int ops);
/* Fills element values of an input of such a graph. */
void random_fill(Rng *r, const Type *t, void *data);
