/* What products by cuBLASLt give, beside the processor's results, and that samples never know how many are drawn
 * together.  The library is the stand-in of tests/cuda_standin, unless DAV_CUDA_LIBRARY_PATH names others. */
#include "frontend/net.h"
#include "runtime/flat.h"
#include "runtime/program.h"
#include "support/blaslt.h"
#include "support/cuda.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static DavVal gelu(DavNet *n, int64_t rows)
{
    return dav_gelu_tanh(product_linear(n, rows));
}

static DavVal added(DavNet *n, int64_t rows)
{
    return dav_add(dav_input(n, "c", DAV_F32, rows, COLS), product_linear(n, rows));
}

static DavVal relu_of_sum(DavNet *n, int64_t rows)
{
    return dav_relu(dav_add(product_plain(n, rows), dav_input(n, "c", DAV_F32, rows, COLS)));
}

static DavVal bare_gelu(DavNet *n, int64_t rows)
{
    return dav_gelu_tanh(product_plain(n, rows));
}

static DavVal across(DavNet *n, int64_t rows)
{
    return dav_matmul(dav_transpose(dav_input(n, "x", DAV_F32, INNER, rows), 1, 0),
                      dav_input(n, "w", DAV_F32, INNER, COLS));
}

static DavVal both_across(DavNet *n, int64_t rows)
{
    return dav_matmul(dav_transpose(dav_input(n, "x", DAV_F32, INNER, rows), 1, 0),
                      dav_transpose(dav_input(n, "w", DAV_F32, COLS, INNER), 1, 0));
}

static DavVal batched(DavNet *n, int64_t rows)
{
    return dav_matmul(dav_input(n, "x", DAV_F32, 3, rows, INNER), dav_input(n, "w", DAV_F32, 3, INNER, COLS));
}

static DavVal batch_within(DavNet *n, int64_t rows) /* a row's heads next to each other */
{
    DavVal x = dav_transpose(dav_input(n, "x", DAV_F32, rows, 3, INNER), 1, 0, 2);
    return dav_matmul(x, dav_input(n, "w", DAV_F32, 3, INNER, COLS));
}

static DavVal rounded(DavNet *n, int64_t rows)
{
    return dav_cast(product_plain(n, rows), DAV_BF16);
}

static DavVal pictures(DavNet *n, int64_t rows) /* two axes of rows are one */
{
    return dav_linear(n, "l", dav_input(n, "x", DAV_F32, rows, 4, INNER), COLS);
}

static const ProductCase cases[] = {
    {"plain", product_plain, DAV_F32, false, 2e-6},
    {"bias", product_linear, DAV_F32, false, 2e-6},
    {"bias, relu", product_relu, DAV_F32, false, 2e-6},
    {"bias, gelu", gelu, DAV_F32, false, 2e-6},
    {"gelu", bare_gelu, DAV_F32, false, 2e-6},
    {"matrix, bias", added, DAV_F32, false, 2e-6},
    {"matrix, relu", relu_of_sum, DAV_F32, false, 2e-6},
    {"transposed", across, DAV_F32, false, 2e-6},
    {"both transposed", both_across, DAV_F32, false, 2e-6},
    {"batch", batched, DAV_F32, false, 2e-6},
    {"batch within", batch_within, DAV_F32, false, 2e-6},
    {"rows of two axes", pictures, DAV_F32, false, 2e-6},
    {"bf16", product_plain, DAV_BF16, false, 2e-6},
    {"bf16, bias, relu", product_relu, DAV_BF16, false, 2e-6},
    {"bf16, transposed", across, DAV_BF16, false, 2e-6},
    {"bf16, batch", batched, DAV_BF16, false, 2e-6},
    {"bf16, result too", rounded, DAV_BF16, false, 8e-3},
    {"tf32", product_plain, DAV_F32, true, 3e-3},
};

static bool on_standin(void)
{
    return cuda_standin_symbol("live") != NULL;
}

/* How it went there, besides the result. */
static void check_ways(const ProductCase *c, const Program *p, long long computed)
{
    const ProductChoice choice = product_choice(p);
    if (!on_standin()) {
        print_message("%-18s %s: %s\n", c->name, choice.library ? "cuBLASLt" : "our kernel", choice.rule);
        return;
    }
    if (!choice.library)
        fail_msg("%s: our kernel runs it: %s", c->name, choice.rule);
    assert_int_equal(computed, 3); /* launched, captured and replayed, replayed */
    assert_int_equal(program_stats(p).captures, 1);
    assert_int_equal(program_stats(p).replays, 2);
}

static void check_case(const ProductCase *c, int64_t rows)
{
    static float y[MOST_RESULTS], want[MOST_RESULTS];
    Err err = {0};
    int64_t ny = 0, n = 0;
    if (!product_compile_and_run(&err, &(ProductRun){"cpu", true, c, rows, 1}, want, &n))
        fail_msg("%s", err.text);
    Program *p = product_compiled(&err, &(ProductRun){"cuda", true, c, rows, 0});
    if (!p)
        fail_msg("%s: %s", c->name, err.text);
    long long before = cuda_standin("products");
    if (!product_run(p, &err, 3, y, &ny))
        fail_msg("%s: %s", c->name, err.text);
    check_ways(c, p, cuda_standin("products") - before);
    program_free(p);
    assert_int_equal(ny, n);
    double scale = 0, tolerance = on_standin() ? c->tolerance : fmax(c->tolerance, 1e-3); /* the library's own tanh */
    for (int64_t i = 0; i < n; i++)
        scale = fmax(scale, fabs(want[i]));
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(y[i] - want[i]) <= tolerance * scale))
            fail_msg("%s, %lld rows, element %lld: %.9g, expected %.9g", c->name, (long long)rows, (long long)i,
                     (double)y[i], (double)want[i]);
    assert_true(scale > 0.1);
}

static void results_are_the_processors(void **state)
{
    (void)state;
    setenv("DAV_CUDA_BLASLT", "1", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int64_t rows = 17; rows <= 80; rows += 63) /* 17: the sum in two parts, with a workspace */
            check_case(&cases[i], rows);
    unsetenv("DAV_CUDA_BLASLT");
    assert_int_equal(cuda_standin("live"), 0);
}

/* acc' = acc + x' w + bias, in acc's memory, as a learner accumulates the gradient of a weight.  In a flat array bias, w
 * and acc begin where parameters may. */
static void sum_in_place(bool flat)
{
    Err err = {0};
    enum { N = INNER * COLS, ROWS = 30, BIAS = FLAT_ALIGN, W = BIAS + (COLS + 15) / 16 * 16, ACC = W + (ROWS * COLS + 15) / 16 * 16 };
    static float x[ROWS * INNER];
    float *array = flat_new(ACC + N);
    Arena *a = arena_new();
    DavNet *n = net_new(a, &err, "sum");
    DavVal xs = dav_input(n, "x", DAV_F32, ROWS, INNER), ws = dav_input(n, "w", DAV_F32, ROWS, COLS);
    DavVal product = dav_add(dav_matmul(dav_transpose(xs, 1, 0), ws), dav_input(n, "bias", DAV_F32, COLS));
    dav_output(n, "acc'", dav_add(dav_input(n, "acc", DAV_F32, INNER, COLS), product));
    setenv("DAV_CUDA_BLASLT", "1", 1);
    const ProgramOptions options = {.device = "cuda", .learns = true, .inplace = "acc=acc'"};
    Program *p = program_compile(&err, n->g, &options);
    unsetenv("DAV_CUDA_BLASLT");
    if (!p)
        fail_msg("%s", err.text);
    const ProductChoice choice = product_choice(p);
    assert_true((choice.library || !on_standin()) && choice.product.c.buf >= 0 && choice.product.bias >= 0);
    for (int i = 0; i < ROWS * INNER; i++)
        x[i] = product_input(0, i);
    for (int i = 0; i < ACC; i++)
        array[i] = product_input(1, i);
    const struct { const char *name; float *at; } input[] = {{"x", x}, {"bias", array + BIAS}, {"w", array + W}, {"acc", array + ACC}};
    void *in[4];
    for (int i = 0; i < 4; i++) {
        int k = program_input(p, input[i].name);
        in[k] = input[i].at;
        if (flat && i > 0)
            program_bind(p, k, array, input[i].at - array);
    }
    for (int r = 0; r < 3; r++)
        if (!program_run(p, &err, in, (void *[]){NULL}, 1, 1))
            fail_msg("%s", err.text);
    assert_true(flat_read(&err, array));
    for (int i = 0; i < N; i++) {
        double want = 3.0 * (double)array[BIAS + i % COLS];
        for (int r = 0; r < ROWS; r++)
            want += 3.0 * (double)x[r * INNER + i / COLS] * (double)array[W + r * COLS + i % COLS];
        assert_true(fabs(array[ACC + i] - want) < 1e-4);
    }
    program_free(p);
    flat_free(array);
    net_free(n);
    arena_free(a);
}

static void sums_go_on_in_place(void **state)
{
    (void)state;
    sum_in_place(false);
    sum_in_place(true);
    assert_int_equal(cuda_standin("live"), 0);
}

static bool same_rows(bool learns)
{
    static float few[MOST_RESULTS], many[MOST_RESULTS];
    Err err = {0};
    int64_t n, m;
    if (!product_compile_and_run(&err, &(ProductRun){"cuda", learns, &cases[0], 9, 1}, few, &n) ||
        !product_compile_and_run(&err, &(ProductRun){"cuda", learns, &cases[0], 90, 1}, many, &m))
        fail_msg("%s", err.text);
    return memcmp(few, many, (size_t)n * sizeof *few) ==
           0; /* x is numbered along its rows: those of few are the first of many */
}

static void samples_have_the_same_bits_in_any_batch(void **state)
{
    (void)state;
    setenv("DAV_CUDA_BLASLT", "1", 1);
    assert_true(same_rows(false));
    if (on_standin())
        assert_false(same_rows(true)); /* it sums few rows otherwise */
    unsetenv("DAV_CUDA_BLASLT");
}

int main(void)
{
    cuda_choose();
    if (!cuda_is_there())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_the_processors),
        cmocka_unit_test(sums_go_on_in_place),
        cmocka_unit_test(samples_have_the_same_bits_in_any_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
