/* Which plain products go to cuBLASLt, and why.
 *
 * Only in programs that learn: cuBLASLt chooses its algorithm by the number of rows, and samples may not depend on how many
 * are drawn together.  Only where our kernel would be bound by arithmetic, by operations a byte: below, both wait for memory. */
#pragma once
#include "passes/plain_product.h"
#include "runtime/program_impl.h"

/* A matrix as column-major libraries see it, of a buffer that is row-major: `rows` are next to each other. */
typedef struct BlasMatrix { int64_t rows, cols, ld, batch_stride; bool transposed; int alignment; } BlasMatrix;
/* Theirs: their a is our b, their d is our d transposed; c lies like d. */
typedef struct BlasShape { BlasMatrix a, b, d; int c_alignment, bias_alignment; } BlasShape;

typedef struct ProductChoice {
    bool plain, library; /* library: cuBLASLt runs it, else our kernel */
    const char *rule;    /* that decided; NULL: the kernel is no product */
    PlainProduct product;
    BlasShape shape;     /* where the library runs it */
} ProductChoice;

/* p->product, by kernel.  A reason why there is no library (NULL: there is one) is the last rule.
 * False: DAV_CUDA_BLASLT says what it may not. */
bool product_choices(Program *p, Err *err, const char *no_library);
