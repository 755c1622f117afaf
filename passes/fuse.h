/* Fused regions: what fuse makes and lower reads. */
#pragma once
#include "passes/pass.h"

/* The region's loops.  Every value inside has the rank of the region's domain, and an axis has the domain's size or 1.
 *   pointwise  every output has the domain's shape
 *   rowwise    reductions over one set of axes of the domain, with what feeds and follows them; outputs have the
 * domain's shape or, in the reduced axes, size 1 contract   one contraction and elementwise work on its result other
 * one op with a loop structure of its own: cumsum, argsort, scatter_add */
typedef enum { FUSE_POINTWISE, FUSE_ROWWISE, FUSE_CONTRACT, FUSE_OTHER, FUSE_KIND_COUNT } FuseKind;

/* Ops that only say where an element is read; every consumer repeats them. */
bool op_is_view(Op op);
/* Does a reshape only add or drop axes of size 1? */
bool reshape_is_unit(const Graph *g, Val v);
/* Axes of a reduction that are longer than 1; 0 for any other node. */
unsigned reduced_axes(const Graph *g, Val v);
/* Is it a sum in parts?  A region may have such sums over other axes than its rows: of columns, while the rows pass. */
bool sums_parts(const Graph *g, Val v);

bool pass_pack(PassCx *cx, const Graph *in, Graph *out);
bool pass_hoist(PassCx *cx, const Graph *in, Graph *out);
bool pass_split(PassCx *cx, const Graph *in, Graph *out);
bool pass_fuse(PassCx *cx, const Graph *in, Graph *out);
