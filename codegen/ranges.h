/* Between which bounds the integers of a kernel lie: which indices a machine may compute in 32 bits. */
#pragma once
#include "ir/kernel.h"

typedef struct Range { int64_t lo, hi; } Range; /* both belong to it */
/* range[v] for every value, k->n of them; of what is not an integer, or not bounded, everything that 64 bits hold. */
/* By how much an index grows with a loop's variable; what is made before `from` does not depend on it.  false: not by a constant. */
bool index_slope(const Graph *k, Val v, Val loop, Val from, int64_t *by);
void kernel_ranges(const Graph *k, Range *range);
/* Is v an i64 constant?  Then its value. */
bool kernel_const_i64(const Graph *k, Val v, int64_t *value);
