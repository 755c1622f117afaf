/* Plain products: kernels that are one product of matrices, with what libraries of products know to do to its result.
 *
 *     d[g, i, j] = activation(sum over l of a[g, i, l] * b[g, l, j] + c[g, i, j] + bias[j])
 *
 * Only described here; a kernel node carries it as its attribute `product`, and stays a kernel like any other. */
#pragma once
#include "ir/graph.h"

typedef enum { PLAIN_IDENTITY, PLAIN_RELU, PLAIN_GELU_TANH } PlainActivation;

/* Element (g, i, j) of a kernel's buffer lies at offset + g * batch + i * row + j * col; buf -1: there is no such operand. */
typedef struct PlainMatrix { int64_t buf, offset, batch, row, col; } PlainMatrix;

typedef struct PlainProduct {
    int64_t batch, m, n, k; /* g, i, j, l run below these */
    PlainMatrix a, b, c, d; /* c lies like d; the columns of d are next to each other */
    int64_t bias;           /* a buffer of n numbers, -1: none */
    int64_t activation;
    int64_t in, out;        /* dtypes of a and b, and of d; sums are f32, c and bias have the dtype of their buffers */
} PlainProduct;

/* Is the region a plain product?  Buffers are numbered as those of its kernel will be: inputs, then results. */
bool plain_product(const Graph *region, PlainProduct *p);
/* The description that kernel node v carries, if it carries one that fits its operands. */
bool plain_product_of(const Graph *g, Val v, PlainProduct *p);
/* As the attribute's numbers. */
enum { PLAIN_NUMBERS = sizeof(PlainProduct) / sizeof(int64_t) };
