/* Between which bounds the integers of a kernel lie: which indices a machine may compute in 32 bits.  How indices grow. */
#pragma once
#include "ir/kernel.h"

typedef struct Range { int64_t lo, hi; } Range; /* both belong to it */
/* range[v] for every value, k->n of them; of what is not an integer, or not bounded, everything that 64 bits hold. */
void kernel_ranges(const Graph *k, Range *range);
/* By how much v grows with the loop's variable; false: not by a constant. */
bool index_slope(const Graph *k, Val v, Val loop, int64_t *by);
/* Is v an i64 constant?  Then its value. */
bool kernel_const_i64(const Graph *k, Val v, int64_t *value);
