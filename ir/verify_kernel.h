/* The verifier's part for kernel IR (ir/kernel.h); for ir/verify.c alone. */
#pragma once
#include "ir/graph.h"

/* Records "file:line: why; in: the node's text". */
bool verify_fault(Err *err, const Graph *g, Val v, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

bool kernel_takes_op(Op op);
/* Nesting of loops, scopes of values, what buffers, accumulators and tiles are used for.  Nodes and types are known to be
 * right one by one.  gone: k->n entries, false. */
bool verify_kernel(Err *err, const Graph *k, bool *gone);
/* Do the operands of the kernel node v match the buffers it reads (in and inout, in order)? */
bool verify_kernel_operands(Err *err, const Graph *g, Val v, const Graph *k);
