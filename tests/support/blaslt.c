#include "support/blaslt.h"
#include "frontend/net.h"
#include <stdlib.h>
#include <string.h>

static DavVal x_of(DavNet *n, int64_t rows)
{
    return dav_input(n, "x", DAV_F32, rows, INNER);
}

DavVal product_linear(DavNet *n, int64_t rows)
{
    return dav_linear(n, "l", x_of(n, rows), COLS);
}

DavVal product_plain(DavNet *n, int64_t rows)
{
    return dav_matmul(x_of(n, rows), dav_input(n, "w", DAV_F32, INNER, COLS));
}

DavVal product_relu(DavNet *n, int64_t rows)
{
    return dav_relu(product_linear(n, rows));
}

DavVal product_large(DavNet *n, int64_t rows)
{
    return dav_linear(n, "l", dav_input(n, "x", DAV_F32, rows, 512), 512);
}

Program *product_compiled(Err *err, const ProductRun *o)
{
    Arena *a = arena_new();
    DavNet *n = net_new(a, err, "product");
    dav_output(n, "y", o->c->write(n, o->rows));
    Program *p =
        err->kind ? NULL
                  : program_compile(err, n->g,
                                    &(ProgramOptions){.device = o->device,
                                                      .learns = o->learns,
                                                      .compile = {.precision = o->c->precision, .tf32 = o->c->tf32}});
    net_free(n);
    arena_free(a);
    return p;
}

static float value_of(const void *at, DavDtype t, int64_t i)
{
    if (t == DAV_F32)
        return ((const float *)at)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)at)[i] << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

float product_input(int input, int64_t i)
{
    return (float)((i * 37 + 11 * input) % 113 - 56) / 67; /* sums of such numbers round */
}

bool product_run(Program *p, Err *err, int runs, float *y, int64_t *ny)
{
    void *in[8] = {0};
    Type t = program_output_type(p, 0);
    void *out = malloc((size_t)type_count(&t) * 4);
    for (int i = 0; i < program_input_count(p); i++) {
        Type x = program_input_type(p, i);
        float *v = in[i] = malloc((size_t)type_count(&x) * 4);
        for (int64_t k = 0; k < type_count(&x); k++)
            v[k] = product_input(i, k);
    }
    bool ok = true;
    for (int r = 0; r < runs && ok; r++)
        ok = program_run(p, err, in, (void *[]){out}, 1, 1);
    *ny = type_count(&t);
    for (int64_t i = 0; ok && i < *ny; i++)
        y[i] = value_of(out, t.dtype, i);
    for (int i = 0; i < program_input_count(p); i++)
        free(in[i]);
    free(out);
    return ok;
}

bool product_compile_and_run(Err *err, const ProductRun *o, float *y, int64_t *ny)
{
    Program *p = product_compiled(err, o);
    bool ok = p && product_run(p, err, o->runs, y, ny);
    program_free(p);
    return ok;
}

ProductChoice product_choice(const Program *p)
{
    for (int i = 0; i < p->plan->nkernel; i++)
        if (p->product[i].rule)
            return p->product[i];
    return (ProductChoice){.rule = "no product"};
}
