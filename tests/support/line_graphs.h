/* Graphs whose vector loops have lines (codegen/cuda/lines.c), of `rows` rows. */
#pragma once
#include "ir/graph.h"

/* y [rows, length] of t, from x of t. */
Graph *softmax_graph(Arena *a, Err *err, DavDtype t, int64_t rows, int64_t length);
/* The same from x and w [1, length] of f32: (x - mean) / sqrt(variance + 1e-5) w. */
Graph *norm_graph(Arena *a, Err *err, DavDtype t, int64_t rows, int64_t length);
/* Every width of element in one loop: m = not mask, y = where(m, half + single, one), z = y in bf16, n = index + m. */
Graph *mixed_graph(Arena *a, Err *err, int64_t rows, int64_t length);
/* y = x from its second column on: x has eight more; no lines.  summed: its softmax, which is written
 * in lines. */
Graph *slices_graph(Arena *a, Err *err, bool summed, int64_t rows, int64_t length);
/* y [rows, 1] = the sum of the first `length` columns of x [rows, width]. */
Graph *sums_graph(Arena *a, Err *err, int64_t rows, int64_t length, int64_t width);
/* z [n] = x + y y, in t. */
Graph *flat_graph(Arena *a, Err *err, DavDtype t, int64_t n);
