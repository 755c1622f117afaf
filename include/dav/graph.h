/* The graph language: values, ops, shapes, indexing, contraction, randomness, regions, gradients.
 *
 * A DavNet is a network being written; a DavVal is a value in it.  Every op is a macro that notes the place of its
 * use, so that a mistake is reported with the file and the line of the user's call:
 *
 *     DavVal y = dav_add(dav_mul(x, 0.5), bias);
 *
 * Numbers mix with values wherever an op is elementwise; they take the dtype of the values beside them.  Shapes
 * broadcast as in NumPy and PyTorch; axes may be negative (counted from the end).  Dtypes are never converted silently:
 * dav_cast.  Shapes are static and checked at once.  A mistake is reported once; its result is an invalid value, every
 * use of which is silent, so that building goes on.  No argument, whatever it is, crashes.
 *
 * Values belong to their net and live as long as it does.  A net is used by one thread at a time. */
#pragma once
#include "dav/dtype.h"
#include <stdbool.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

enum { DAV_MAX_RANK = 8 };

typedef struct DavNet DavNet;
typedef struct DavVal { DavNet *net; int32_t id; } DavVal; /* {0} is "no value"; id 0 is invalid */
typedef struct DavPlace { const char *file; int line; } DavPlace;
typedef struct DavArg { DavVal val; double number; bool is_number; } DavArg;

#define DAV_HERE ((DavPlace){__FILE__, __LINE__})
#define DAV_ARG(x) _Generic((x), DavVal: dav_arg_val_, default: dav_arg_number_)(x)
#define DAV_INTS_(...) (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__}
#define DAV_VALS_(...) (int)(sizeof((DavVal[]){__VA_ARGS__}) / sizeof(DavVal)), (DavVal[]){__VA_ARGS__}
DavArg dav_arg_val_(DavVal v);
DavArg dav_arg_number_(double number);

/* ---- inputs, outputs, constants ---- */
#define dav_input(n, name, dtype, ...) dav_input_(DAV_HERE, n, name, dtype, DAV_INTS_(__VA_ARGS__))
/* A state is kept between runs. */
#define dav_state(n, name, dtype, ...) dav_state_(DAV_HERE, n, name, dtype, DAV_INTS_(__VA_ARGS__))
#define dav_output(n, name, v) dav_output_(DAV_HERE, n, name, v)
#define dav_const(n, dtype, number, ...) dav_const_(DAV_HERE, n, dtype, number, DAV_INTS_(__VA_ARGS__))
#define dav_literal(n, dtype, numbers, ...) dav_literal_(DAV_HERE, n, dtype, numbers, DAV_INTS_(__VA_ARGS__))
/* The index along axis. */
#define dav_iota(n, dtype, axis, ...) dav_iota_(DAV_HERE, n, dtype, axis, DAV_INTS_(__VA_ARGS__))
#define dav_full_like(x, number) dav_full_like_(DAV_HERE, x, number)
DavVal dav_input_(DavPlace at, DavNet *n, const char *name, DavDtype t, int rank, const int64_t *dim);
DavVal dav_state_(DavPlace at, DavNet *n, const char *name, DavDtype t, int rank, const int64_t *dim);
void dav_output_(DavPlace at, DavNet *n, const char *name, DavVal v);
DavVal dav_const_(DavPlace at, DavNet *n, DavDtype t, double number, int rank, const int64_t *dim);
DavVal dav_literal_(DavPlace at, DavNet *n, DavDtype t, const double *numbers, int rank, const int64_t *dim);
DavVal dav_iota_(DavPlace at, DavNet *n, DavDtype t, int axis, int rank, const int64_t *dim);
DavVal dav_full_like_(DavPlace at, DavVal x, double number);

/* What is known of a value while building.  Of an invalid value: dim 1, rank 0, dtype f32. */
#define dav_dim(x, axis) dav_dim_(DAV_HERE, x, axis)
int64_t dav_dim_(DavPlace at, DavVal x, int axis);
int dav_rank(DavVal x);
DavDtype dav_dtype(DavVal x);
bool dav_valid(DavVal x);
bool dav_ok(const DavNet *n); /* no mistake so far */
/* Reports a mistake of the caller's own, at the place of this line. */
#define dav_mistake(n, ...) dav_mistake_(DAV_HERE, n, __VA_ARGS__)
void dav_mistake_(DavPlace at, DavNet *n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- elementwise: one spelling an op of docs/ops.md ---- */
DavVal dav_ew_(DavPlace at, const char *op, int n, const DavArg *arg);
#define DAV_EW1_(op, x) dav_ew_(DAV_HERE, op, 1, (DavArg[]){DAV_ARG(x)})
#define DAV_EW2_(op, x, y) dav_ew_(DAV_HERE, op, 2, (DavArg[]){DAV_ARG(x), DAV_ARG(y)})
#define DAV_EW3_(op, x, y, z) dav_ew_(DAV_HERE, op, 3, (DavArg[]){DAV_ARG(x), DAV_ARG(y), DAV_ARG(z)})
#define dav_neg(x) DAV_EW1_("neg", x)
#define dav_abs(x) DAV_EW1_("abs", x)
#define dav_sign(x) DAV_EW1_("sign", x)
#define dav_floor(x) DAV_EW1_("floor", x)
#define dav_ceil(x) DAV_EW1_("ceil", x)
#define dav_round(x) DAV_EW1_("round", x)
#define dav_sqrt(x) DAV_EW1_("sqrt", x)
#define dav_rsqrt(x) DAV_EW1_("rsqrt", x)
#define dav_exp(x) DAV_EW1_("exp", x)
#define dav_expm1(x) DAV_EW1_("expm1", x)
#define dav_log(x) DAV_EW1_("log", x)
#define dav_log1p(x) DAV_EW1_("log1p", x)
#define dav_sin(x) DAV_EW1_("sin", x)
#define dav_cos(x) DAV_EW1_("cos", x)
#define dav_atan(x) DAV_EW1_("atan", x)
#define dav_tanh(x) DAV_EW1_("tanh", x)
#define dav_erf(x) DAV_EW1_("erf", x)
#define dav_not(x) DAV_EW1_("not", x)
#define dav_stop_gradient(x) DAV_EW1_("stop", x)
#define dav_add(x, y) DAV_EW2_("add", x, y)
#define dav_sub(x, y) DAV_EW2_("sub", x, y)
#define dav_mul(x, y) DAV_EW2_("mul", x, y)
#define dav_div(x, y) DAV_EW2_("div", x, y)
#define dav_rem(x, y) DAV_EW2_("rem", x, y)
#define dav_max(x, y) DAV_EW2_("max", x, y)
#define dav_min(x, y) DAV_EW2_("min", x, y)
#define dav_and(x, y) DAV_EW2_("and", x, y)
#define dav_or(x, y) DAV_EW2_("or", x, y)
#define dav_xor(x, y) DAV_EW2_("xor", x, y)
#define dav_shl(x, y) DAV_EW2_("shl", x, y)
#define dav_shr(x, y) DAV_EW2_("shr", x, y)
#define dav_eq(x, y) DAV_EW2_("eq", x, y)
#define dav_ne(x, y) DAV_EW2_("ne", x, y)
#define dav_lt(x, y) DAV_EW2_("lt", x, y)
#define dav_le(x, y) DAV_EW2_("le", x, y)
#define dav_gt(x, y) DAV_EW2_("gt", x, y)
#define dav_ge(x, y) DAV_EW2_("ge", x, y)
#define dav_where(cond, x, y) DAV_EW3_("select", cond, x, y)
#define dav_fma(x, y, z) DAV_EW3_("fma", x, y, z)
#define dav_clamp(x, lo, hi) dav_min(dav_max(x, lo), hi)
#define dav_square(x) dav_square_(DAV_HERE, x)
#define dav_cast(x, dtype) dav_cast_(DAV_HERE, x, dtype)
#define dav_bitcast(x, dtype) dav_bitcast_(DAV_HERE, x, dtype)
DavVal dav_square_(DavPlace at, DavVal x);
DavVal dav_cast_(DavPlace at, DavVal x, DavDtype to);
DavVal dav_bitcast_(DavPlace at, DavVal x, DavDtype to);

/* ---- reductions ----
 * dav_sum(x) over everything, dav_sum(x, 1, 2) over these axes; the axes go.  _keep: they stay with size 1. */
DavVal dav_reduce_(DavPlace at, const char *op, DavVal x, bool keep, int n, const int64_t *axes);
#define dav_sum(x, ...) dav_reduce_(DAV_HERE, "sum", x, false, DAV_INTS_(__VA_ARGS__))
#define dav_sum_keep(x, ...) dav_reduce_(DAV_HERE, "sum", x, true, DAV_INTS_(__VA_ARGS__))
#define dav_reduce_max(x, ...) dav_reduce_(DAV_HERE, "reduce_max", x, false, DAV_INTS_(__VA_ARGS__))
#define dav_reduce_max_keep(x, ...) dav_reduce_(DAV_HERE, "reduce_max", x, true, DAV_INTS_(__VA_ARGS__))
#define dav_reduce_min(x, ...) dav_reduce_(DAV_HERE, "reduce_min", x, false, DAV_INTS_(__VA_ARGS__))
#define dav_reduce_min_keep(x, ...) dav_reduce_(DAV_HERE, "reduce_min", x, true, DAV_INTS_(__VA_ARGS__))
#define dav_mean(x, ...) dav_mean_(DAV_HERE, x, false, DAV_INTS_(__VA_ARGS__))
#define dav_mean_keep(x, ...) dav_mean_(DAV_HERE, x, true, DAV_INTS_(__VA_ARGS__))
/* Biased variance (divided by the count). */
#define dav_var(x, ...) dav_var_(DAV_HERE, x, false, DAV_INTS_(__VA_ARGS__))
#define dav_var_keep(x, ...) dav_var_(DAV_HERE, x, true, DAV_INTS_(__VA_ARGS__))
/* i32 indices; the axis goes.  The first of equals; the first NaN. */
#define dav_argmax(x, axis) dav_argmax_(DAV_HERE, x, axis)
/* i32 indices that sort along axis; stable; NaN last. */
#define dav_argsort(x, axis, descending) dav_argsort_(DAV_HERE, x, axis, descending)
#define dav_cumsum(x, axis, ...) dav_cumsum_(DAV_HERE, x, axis, (DavCumsum){__VA_ARGS__})
typedef struct DavCumsum { bool exclusive, reverse; } DavCumsum;
DavVal dav_mean_(DavPlace at, DavVal x, bool keep, int n, const int64_t *axes);
DavVal dav_var_(DavPlace at, DavVal x, bool keep, int n, const int64_t *axes);
DavVal dav_argmax_(DavPlace at, DavVal x, int axis);
DavVal dav_argsort_(DavPlace at, DavVal x, int axis, bool descending);
DavVal dav_cumsum_(DavPlace at, DavVal x, int axis, DavCumsum o);
/* The k largest along axis and their indices, in descending order. */
#define dav_top_k(x, axis, k, indices) dav_top_k_(DAV_HERE, x, axis, k, indices)
DavVal dav_top_k_(DavPlace at, DavVal x, int axis, int64_t k, DavVal *indices);

/* ---- shape ---- */
#define dav_reshape(x, ...) dav_reshape_(DAV_HERE, x, DAV_INTS_(__VA_ARGS__)) /* one size may be -1 */
/* Output axis i is input axis perm[i]. */
#define dav_transpose(x, ...) dav_transpose_(DAV_HERE, x, DAV_INTS_(__VA_ARGS__))
#define dav_swap(x, a, b) dav_swap_(DAV_HERE, x, a, b)
#define dav_broadcast(x, ...) dav_broadcast_(DAV_HERE, x, DAV_INTS_(__VA_ARGS__)) /* -1 keeps the size */
#define dav_unsqueeze(x, axis) dav_unsqueeze_(DAV_HERE, x, axis)
#define dav_squeeze(x, axis) dav_squeeze_(DAV_HERE, x, axis)
#define dav_slice(x, axis, start, limit) dav_slice_(DAV_HERE, x, axis, start, limit, 1) /* negative: from the end */
#define dav_slice_step(x, axis, start, limit, step) dav_slice_(DAV_HERE, x, axis, start, limit, step)
#define dav_pad(x, axis, lo, hi, fill) dav_pad_(DAV_HERE, x, axis, lo, hi, fill)
#define dav_concat(axis, ...) dav_concat_(DAV_HERE, axis, DAV_VALS_(__VA_ARGS__))
#define dav_reverse(x, axis) dav_reverse_(DAV_HERE, x, axis)
DavVal dav_reshape_(DavPlace at, DavVal x, int rank, const int64_t *dim);
DavVal dav_transpose_(DavPlace at, DavVal x, int n, const int64_t *perm);
DavVal dav_swap_(DavPlace at, DavVal x, int a, int b);
DavVal dav_broadcast_(DavPlace at, DavVal x, int rank, const int64_t *dim);
DavVal dav_unsqueeze_(DavPlace at, DavVal x, int axis);
DavVal dav_squeeze_(DavPlace at, DavVal x, int axis);
DavVal dav_slice_(DavPlace at, DavVal x, int axis, int64_t start, int64_t limit, int64_t step);
DavVal dav_pad_(DavPlace at, DavVal x, int axis, int64_t lo, int64_t hi, double fill);
DavVal dav_concat_(DavPlace at, int axis, int n, const DavVal *x);
DavVal dav_reverse_(DavPlace at, DavVal x, int axis);

/* Windows of `size` along axis as a new last axis: out[.., i, .., k] = x[.., i*step + k*dilation - pad, ..], and `fill`
 * outside of x; as many windows as fit.  dav_fold is the transpose: sums what windows read into an axis of `count`. */
typedef struct DavWindow { int64_t step, dilation, pad; double fill; } DavWindow; /* 0: step size, dilation 1 */
#define dav_window(x, axis, size, ...) dav_window_(DAV_HERE, x, axis, size, (DavWindow){__VA_ARGS__})
#define dav_fold(x, axis, count, ...) dav_fold_(DAV_HERE, x, axis, count, (DavWindow){__VA_ARGS__})
DavVal dav_window_(DavPlace at, DavVal x, int axis, int64_t size, DavWindow o);
DavVal dav_fold_(DavPlace at, DavVal x, int axis, int64_t count, DavWindow o);

/* ---- indexing ---- */
/* out[b.., i.., r..] = x[b.., index[b.., i..], r..] with `batch` shared leading axes; an index out of range reads 0. */
#define dav_gather(x, index, batch) dav_gather_(DAV_HERE, x, index, batch)
#define dav_scatter_add(base, index, update, batch) dav_scatter_add_(DAV_HERE, base, index, update, batch)
/* x at an index (any shape) along one axis: the axis is replaced by the index's axes. */
#define dav_take(x, index, axis) dav_take_(DAV_HERE, x, index, axis)
/* The element of the last axis that `index` (shape of x without that axis) names. */
#define dav_pick_last(x, index) dav_pick_last_(DAV_HERE, x, index)
/* `size` elements from the index `start` (i32, shape []) known at run time; clamped so that they fit. */
#define dav_dyn_slice(x, start, axis, size) dav_dyn_slice_(DAV_HERE, x, start, axis, size)
#define dav_dyn_update(x, update, start, axis) dav_dyn_update_(DAV_HERE, x, update, start, axis)
#define dav_one_hot(index, count, dtype) dav_one_hot_(DAV_HERE, index, count, dtype) /* a new last axis */
DavVal dav_gather_(DavPlace at, DavVal x, DavVal index, int batch);
DavVal dav_scatter_add_(DavPlace at, DavVal base, DavVal index, DavVal update, int batch);
DavVal dav_take_(DavPlace at, DavVal x, DavVal index, int axis);
DavVal dav_pick_last_(DavPlace at, DavVal x, DavVal index);
DavVal dav_dyn_slice_(DavPlace at, DavVal x, DavVal start, int axis, int64_t size);
DavVal dav_dyn_update_(DavPlace at, DavVal x, DavVal update, DavVal start, int axis);
DavVal dav_one_hot_(DavPlace at, DavVal index, int64_t count, DavDtype t);

/* ---- contraction ---- */
/* Matrix product of the last two axes; leading axes are batches and broadcast; a vector is a row or a column. */
#define dav_matmul(a, b) dav_matmul_(DAV_HERE, a, b)
DavVal dav_matmul_(DavPlace at, DavVal a, DavVal b);

/* Convolution of rank 1-3.  x [B, C, spatial..], w [out, C/groups, kernel..] -> [B, out, spatial..].
 * Entries left 0: stride 1, dilation 1, pad 0, groups 1.  pad is the same at both ends.
 * Transposed: w [C, out/groups, kernel..], `more` extra places at the end (output_padding). */
typedef struct DavConvShape { int64_t stride[3], dilation[3], pad[3], more[3], groups; } DavConvShape;
#define dav_convolve(x, w, ...) dav_convolve_(DAV_HERE, x, w, (DavConvShape){__VA_ARGS__})
#define dav_convolve_transposed(x, w, ...) dav_convolve_transposed_(DAV_HERE, x, w, (DavConvShape){__VA_ARGS__})
DavVal dav_convolve_(DavPlace at, DavVal x, DavVal w, DavConvShape o);
DavVal dav_convolve_transposed_(DavPlace at, DavVal x, DavVal w, DavConvShape o);

/* ---- randomness: Philox4x32-10; nothing depends on how the graph is compiled or batched ----
 * key u32[2]: (seed, stream); counter u32[N,3]: one row for each entry of the result's first axis, which must be N.
 * Bits are opaque u32; uniform is ((bits >> 9) + 0.5) * 2^-23, strictly inside (0, 1), exact in f32. */
#define dav_random_bits(key, counter, ...) dav_random_bits_(DAV_HERE, key, counter, DAV_INTS_(__VA_ARGS__))
#define dav_uniform(key, counter, ...) dav_uniform_(DAV_HERE, key, counter, DAV_INTS_(__VA_ARGS__))
#define dav_gumbel(key, counter, ...) dav_gumbel_(DAV_HERE, key, counter, DAV_INTS_(__VA_ARGS__))
#define dav_normal(key, counter, ...) dav_normal_(DAV_HERE, key, counter, DAV_INTS_(__VA_ARGS__))
#define dav_uniform_of(bits) dav_uniform_of_(DAV_HERE, bits)
#define dav_gumbel_of(bits) dav_gumbel_of_(DAV_HERE, bits)
/* Index drawn from softmax(logits) along the last axis (i32, that axis goes): argmax of logits + Gumbel noise. */
#define dav_choose(logits, bits) dav_choose_(DAV_HERE, logits, bits)
DavVal dav_random_bits_(DavPlace at, DavVal key, DavVal counter, int rank, const int64_t *dim);
DavVal dav_uniform_(DavPlace at, DavVal key, DavVal counter, int rank, const int64_t *dim);
DavVal dav_gumbel_(DavPlace at, DavVal key, DavVal counter, int rank, const int64_t *dim);
DavVal dav_normal_(DavPlace at, DavVal key, DavVal counter, int rank, const int64_t *dim);
DavVal dav_uniform_of_(DavPlace at, DavVal bits);
DavVal dav_gumbel_of_(DavPlace at, DavVal bits);
DavVal dav_choose_(DavPlace at, DavVal logits, DavVal bits);

/* ---- gradients ---- */
/* Gradient of y (one float) with respect to x, shaped as x; part of the graph, and differentiable again. */
#define dav_grad(y, x) dav_grad_(DAV_HERE, y, x)
#define dav_grads(y, xs, n, out) dav_grads_(DAV_HERE, y, xs, n, out)
DavVal dav_grad_(DavPlace at, DavVal y, DavVal x);
void dav_grads_(DavPlace at, DavVal y, const DavVal *xs, int n, DavVal *out);

/* ---- regions ----
 * A body builds a graph of its own from its arguments; it may make parameters (named inside `scope`), but may not use
 * values of the net around it other than those given as arguments. */
typedef void (*DavBody)(DavNet *n, const void *context, const DavVal *in, DavVal *out);
/* out = body(in).  Bodies that come out equal are compiled once, however often they are called. */
#define dav_call(n, scope, body, context, in, nin, out, nout) \
    dav_call_(DAV_HERE, n, scope, body, context, in, nin, out, nout)
/* `trip` iterations.  in: `carry` carried values, `scan` values read slice by slice along their first axis (trip), then
 * invariant ones; the body's outputs: carried values, then values to be stacked.  out: final carried, then stacks. */
typedef struct DavLoop { int64_t trip; int carry, scan; } DavLoop;
#define dav_loop(n, scope, body, context, in, nin, out, nout, ...) \
    dav_loop_(DAV_HERE, n, scope, body, context, in, nin, out, nout, (DavLoop){__VA_ARGS__})
void dav_call_(DavPlace at, DavNet *n, const char *scope, DavBody body, const void *context, const DavVal *in, int nin,
               DavVal *out, int nout);
void dav_loop_(DavPlace at, DavNet *n, const char *scope, DavBody body, const void *context, const DavVal *in, int nin,
               DavVal *out, int nout, DavLoop o);
/* A function of the host, found by name when the program runs; vjp: name of the one that gives its vector-Jacobian
 * product (operands and cotangent to cotangents of the operands), NULL: no gradient. */
#define dav_host(n, name, vjp, dtype, dims, rank, ...) \
    dav_host_(DAV_HERE, n, name, vjp, dtype, rank, dims, DAV_VALS_(__VA_ARGS__))
DavVal dav_host_(DavPlace at, DavNet *n, const char *name, const char *vjp, DavDtype t, int rank, const int64_t *dim,
                 int nin, const DavVal *in);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
