/* The verifier's part for kernel IR (ir/kernel.h); for ir/verify.c alone. */
#pragma once
#include "ir/graph.h"

/* Records "file:line: why; in: the node's text". */
bool verify_fault(Err *err, const Graph *g, Val v, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* What is known of a kernel's value while it is gone through. */
typedef struct KernelNote {
    bool gone;         /* made in a body that has ended */
    bool varying;      /* differs from lane to lane */
    Val made;          /* the vector loop it was made in, 0: none */
    Val updated, read; /* of an accumulator: the vector loop in which that happened last */
} KernelNote;

bool kernel_takes_op(Op op);
/* Nesting of loops, scopes of values, what buffers, accumulators and tiles are used for.  Nodes and types are known to be
 * right one by one.  note: k->n entries, zero. */
bool verify_kernel(Err *err, const Graph *k, KernelNote *note);
/* Do the operands of the kernel node v match the buffers it reads (in and inout, in order)? */
bool verify_kernel_operands(Err *err, const Graph *g, Val v, const Graph *k);
