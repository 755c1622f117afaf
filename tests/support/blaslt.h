/* Programs of one product, for tests of cuBLASLt. */
#pragma once
#include "runtime/cuda/blaslt_rule.h"
#include <dav/dav.h>

/* A symbol of one of the stand-in's libraries, once it is open; NULL: another device runs. */
enum { INNER = 40, COLS = 24, MOST_RESULTS = 1 << 20 };
typedef struct ProductCase {
    const char *name;
    DavVal (*write)(DavNet *n, int64_t rows);
    DavDtype precision;
    bool tf32;
    double tolerance;
} ProductCase;
/* x w; x w' + bias of the layer "l", of rows x INNER x COLS; its relu; the layer with 512 for both */
DavVal product_plain(DavNet *n, int64_t rows), product_linear(DavNet *n, int64_t rows), product_relu(DavNet *n, int64_t rows),
    product_large(DavNet *n, int64_t rows);

typedef struct ProductRun {
    const char *device;
    bool learns;
    const ProductCase *c;
    int64_t rows;
    int runs;
} ProductRun;
Program *product_compiled(Err *err, const ProductRun *o); /* NULL: err is set */
float product_input(int input, int64_t i);                /* element i of that input */
/* Runs p several times; its result as floats. */
bool product_run(Program *p, Err *err, int runs, float *y, int64_t *ny);
bool product_compile_and_run(Err *err, const ProductRun *o, float *y, int64_t *ny);
/* What was decided on the program's only product. */
ProductChoice product_choice(const Program *p);
