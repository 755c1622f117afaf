/* What is known of a kernel's indices. */
#pragma once
#include "codegen/ranges.h"

bool index_has_tiles(const Graph *k);
Val index_end(const Graph *k, Val opened); /* of a loop or condition */
/* Its bounds, where they are constants. */
bool index_bounds(const Graph *k, Val loop, int64_t *lo, int64_t *hi);
/* A power of two, at most 64, that divides an i64 value whatever it is. */
int64_t index_unit(const Graph *k, Val v);
/* The same where `loop`'s variable is at the first of `line` lanes, counted from where it starts. */
int64_t index_unit_in_lines(const Graph *k, Val v, Val loop, int64_t line);
