/* Kernels run by the interpreter and by every CPU level of this machine, on equal memory, and compared. */
#pragma once
#include "codegen/codegen.h"

/* Buffers get random contents (kernel_seed), end at a page that may not be touched, and are compared after the run: integers
 * exactly, floats within tolerance * max(1, |expected|) in units of their dtype.  Fails the cmocka test on a difference. */
typedef struct KernelCase {
    const Graph *kernel;
    double tolerance;         /* absolute and relative; 0: the default of the output's dtype */
    void (*fill)(void *const *bufs); /* after the random fill; NULL: none */
} KernelCase;
void kernel_check(const KernelCase *c);
/* The same on one target, which need not be a level. */
void kernel_check_on(const KernelCase *c, const CpuTarget *target);
/* The same for n kernels compiled for AArch64 and run under qemu-user; skips the test where that or its compiler is missing. */
void kernel_check_aarch64(const KernelCase *cases, int n);
