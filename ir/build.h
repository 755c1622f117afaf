/* What graph_node is made of; for ir/ alone (and the verifier, which infers types again). */
#pragma once
#include "ir/graph.h"

typedef struct ShapeCx {
    const Graph *g;
    const Node *n;     /* op, operands, attributes; type not known yet */
    const Type *given; /* NULL when the maker gave none */
    Type *out;
    Err *err; /* gets the mistake, without a place */
} ShapeCx;
typedef bool (*ShapeFn)(const ShapeCx *cx);

bool shape_none(const ShapeCx *cx), shape_given(const ShapeCx *cx), shape_same(const ShapeCx *cx);
bool shape_compare(const ShapeCx *cx), shape_select(const ShapeCx *cx), shape_cast(const ShapeCx *cx);
bool shape_bitcast(const ShapeCx *cx), shape_reduce(const ShapeCx *cx), shape_argmax(const ShapeCx *cx);
bool shape_broadcast(const ShapeCx *cx), shape_reshape(const ShapeCx *cx), shape_transpose(const ShapeCx *cx);
bool shape_slice(const ShapeCx *cx), shape_pad(const ShapeCx *cx), shape_concat(const ShapeCx *cx);
bool shape_reverse(const ShapeCx *cx), shape_window(const ShapeCx *cx), shape_fold(const ShapeCx *cx);
bool shape_dyn_slice(const ShapeCx *cx), shape_dyn_update(const ShapeCx *cx), shape_gather(const ShapeCx *cx);
bool shape_scatter_add(const ShapeCx *cx), shape_argsort(const ShapeCx *cx), shape_contract(const ShapeCx *cx);
bool shape_random(const ShapeCx *cx), shape_tuple(const ShapeCx *cx), shape_pick(const ShapeCx *cx);
bool shape_index(const ShapeCx *cx), shape_load(const ShapeCx *cx), shape_acc(const ShapeCx *cx);
bool shape_attention(const ShapeCx *cx), shape_attention_grad(const ShapeCx *cx);
bool shape_exp2(const ShapeCx *cx), shape_philox(const ShapeCx *cx), shape_tile(const ShapeCx *cx);

/* The type that the table's rule gives node n; false with err set (no place in the text). */
bool infer_type(const Graph *g, const Node *n, const Type *given, Type *out, Err *err);
/* A simpler value that equals the node about to be made, 0 when there is none. */
Val fold_node(Graph *g, const Node *n);
/* One element of an elementwise op, in dtype t of the operands (select: of its branches). */
double ew_float(Op op, double x, double y, double z);
int64_t ew_int(Op op, DavDtype t, int64_t x, int64_t y, int64_t z); /* wrapped to t */
bool ew_defined(Op op, DavDtype t); /* the op's domain holds t */
int64_t int_wrap(DavDtype t, int64_t x);
double float_round(DavDtype t, double x); /* to nearest even in t; f64 is itself */

uint64_t node_hash_(const Node *n);
