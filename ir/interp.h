/* The reference interpreter: the meaning of every tensor op, by plain loops.  Backends are compared with it.
 *
 * Every value is a dense row-major tensor in its dtype.  An op computes in double and rounds once, when it stores: sums and
 * contractions accumulate in double in row-major order of what they sum, where backends accumulate in f32; so a comparison
 * with one needs a tolerance that grows with the number of terms.  Integers wrap in their width. */
#pragma once
#include "ir/graph.h"

/* A function that graphs name in `host` nodes; false: err is set. */
typedef bool (*HostCall)(void *ctx, Err *err, const char *name, int nin, const Type *in_type, const void *const *in, int nout,
                         const Type *out_type, void *const *out);
typedef struct InterpHost { HostCall call; void *ctx; } InterpHost;

/* Runs g on in[i], the inputs in the order of graph_inputs, and fills out[k], its outputs in order.  With f64 every float
 * value is computed and stored as double, so float inputs and outputs (those of host functions too) are double arrays; what
 * has no meaning in double (a bitcast, a kernel) goes through the value's own dtype, or is refused.  host may be NULL.
 * Gradients have to be expanded before. */
bool graph_interpret(Err *err, const Graph *g, bool f64, const void *const *in, void *const *out, const InterpHost *host);
