/* Which products go to cuBLASLt and why, what it is asked, what fails: on the stand-in of tests/cuda_standin. */
#include "frontend/net.h"
#include "runtime/cuda/blaslt.h"
#include "runtime/program.h"
#include "support/blaslt.h"
#include "support/command.h"
#include "support/cuda.h"
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const ProductCase plain = {"plain", product_plain, DAV_F32, false, 0},
                         biased = {"bias", product_linear, DAV_F32, false, 0};

/* ---- the rule ---- */
static DavVal flat(DavNet *n, int64_t rows)
{
    return dav_linear(n, "l", dav_input(n, "x", DAV_F32, rows, 32), 32);
}
static DavVal unaligned(DavNet *n, int64_t rows)
{
    return dav_linear(n, "l", dav_input(n, "x", DAV_F32, rows, 512), 511);
}
static DavVal rounded_bias(DavNet *n, int64_t rows)
{
    return dav_cast(product_large(n, rows), DAV_BF16);
}
static DavVal two_kernels(DavNet *n, int64_t rows)
{
    return dav_exp(product_large(n, rows));
}

static void rule_is(DavVal (*write)(DavNet *, int64_t), int64_t rows, bool learns, DavDtype precision, bool library,
                    const char *words)
{
    Err err = {0};
    const ProductCase c = {.write = write, .precision = precision};
    Program *p = product_compiled(&err, &(ProductRun){"cuda", learns, &c, rows, 0});
    if (!p)
        fail_msg("%s", err.text);
    ProductChoice x = product_choice(p);
    if (x.library != library || !strstr(x.rule, words))
        fail_msg("%s runs it: %s; expected: %s", x.library ? "cuBLASLt" : "our kernel", x.rule, words);
    program_free(p);
}

static void rules_decide(void **state)
{
    (void)state;
    rule_is(product_large, 640, true, DAV_F32, true, "large");
    rule_is(product_large, 640, true, DAV_BF16, true, "large");
    rule_is(product_large, 640, false, DAV_F32, false, "learns");
    rule_is(product_large, 100, true, DAV_F32, false, "small"); /* few operations */
    rule_is(flat, 200000, true, DAV_BF16, false, "small");      /* few a byte */
    rule_is(unaligned, 640, true, DAV_BF16, false, "16 bytes");
    rule_is(unaligned, 640, true, DAV_F32, true, "large");
    rule_is(rounded_bias, 640, true, DAV_BF16, false, "another dtype");
    rule_is(two_kernels, 640, true, DAV_F32, false, "no plain product");
    setenv("DAV_CUDA_BLASLT", "0", 1);
    rule_is(product_large, 640, true, DAV_F32, false, "DAV_CUDA_BLASLT=0");
    setenv("DAV_CUDA_BLASLT", "1", 1);
    rule_is(product_plain, 3, true, DAV_F32, true, "large");
    rule_is(product_plain, 3, false, DAV_F32, false, "learns");
    unsetenv("DAV_CUDA_BLASLT");
}

static DavVal bias_of_rows(DavNet *n, int64_t rows)
{
    return dav_add(product_plain(n, rows), dav_input(n, "r", DAV_F32, rows, 1));
}
static DavVal bias_of_square(DavNet *n, int64_t rows) /* as many rows as columns */
{
    (void)rows;
    return bias_of_rows(n, COLS);
}
static DavVal two_biases(DavNet *n, int64_t rows)
{
    return dav_add(product_linear(n, rows), dav_input(n, "b", DAV_F32, COLS));
}
static DavVal other_floor(DavNet *n, int64_t rows)
{
    return dav_max(product_plain(n, rows), 0.5);
}
static DavVal ceiling(DavNet *n, int64_t rows)
{
    return dav_min(product_plain(n, rows), 0);
}
static DavVal exact_gelu(DavNet *n, int64_t rows)
{
    return dav_gelu(product_plain(n, rows));
}
static DavVal twice(DavNet *n, int64_t rows)
{
    return dav_mul(product_plain(n, rows), 2);
}
static DavVal late_sum(DavNet *n, int64_t rows)
{
    return dav_add(product_relu(n, rows), dav_input(n, "c", DAV_F32, rows, COLS));
}
static DavVal other_gelu(DavNet *n, int64_t rows)
{
    DavVal x = product_plain(n, rows),
           cubic = dav_mul(dav_add(x, dav_mul(dav_mul(x, dav_square(x)), 0.05)), 0.7978845608028654);
    return dav_mul(dav_mul(x, 0.5), dav_add(dav_tanh(cubic), 1));
}
static DavVal convolved(DavNet *n, int64_t rows)
{
    return dav_conv(n, "l", dav_input(n, "x", DAV_F32, 2, 8, rows), COLS, .kernel = {3}, .pad = {1});
}

static void what_looks_alike_is_none(void **state)
{
    (void)state;
    setenv("DAV_CUDA_BLASLT", "1", 1);
    DavVal (*const write[])(DavNet *, int64_t) = {bias_of_rows, bias_of_square, two_biases, other_floor, ceiling,
                                                  exact_gelu,   twice,          late_sum,   other_gelu,  convolved};
    for (size_t i = 0; i < sizeof write / sizeof *write; i++)
        rule_is(write[i], 20, true, DAV_F32, false, "no plain product");
    unsetenv("DAV_CUDA_BLASLT");
}

/* A description may come from a file: what does not lie in its operands is none. */
static void descriptions_fit_their_operands(void **state)
{
    (void)state;
    Err err = {0};
    Arena *a = arena_new();
    DavNet *n = net_new(a, &err, "product");
    dav_output(n, "y", product_linear(n, 9));
    CompileOptions o = {0};
    PassCx cx = {.arena = a, .err = &err, .options = &o};
    const Graph *g = passes_run(&cx, n->g, NULL);
    Val kernel = 0;
    PlainProduct p;
    for (Val v = 1; v < g->n; v++)
        if (plain_product_of(g, v, &p))
            kernel = v;
    assert_true(kernel && p.m == 9 && p.n == COLS && p.k == INNER && p.bias == 2 && p.c.buf == -1);
    static const struct {
        size_t at;
        int64_t value;
    } wrong[] = {
        {offsetof(PlainProduct, batch), 0},      {offsetof(PlainProduct, m), 10},
        {offsetof(PlainProduct, m), INT64_MAX},  {offsetof(PlainProduct, n), COLS + 1},
        {offsetof(PlainProduct, k), INNER + 1},  {offsetof(PlainProduct, a.buf), -1},
        {offsetof(PlainProduct, a.buf), 9},      {offsetof(PlainProduct, a.offset), 1},
        {offsetof(PlainProduct, a.offset), -1},  {offsetof(PlainProduct, a.row), 41},
        {offsetof(PlainProduct, a.row), -40},    {offsetof(PlainProduct, b.col), 2},
        {offsetof(PlainProduct, d.buf), 0},      {offsetof(PlainProduct, d.row), 1 << 20},
        {offsetof(PlainProduct, bias), 0},       {offsetof(PlainProduct, in), DAV_BF16},
        {offsetof(PlainProduct, out), DAV_BF16}, {offsetof(PlainProduct, c.buf), 1},
    };
    Node *k = &g->node[kernel];
    const Node was = *k;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        PlainProduct changed = p, read;
        memcpy((char *)&changed + wrong[i].at, &wrong[i].value, sizeof wrong[i].value);
        k->attr = (Attr[]){was.attr[0], {.name = A_PRODUCT, .n = PLAIN_NUMBERS, .ints = (const int64_t *)&changed}};
        changed.c =
            wrong[i].at == offsetof(PlainProduct, c.buf) ? (PlainMatrix){.buf = 1, .row = COLS * INNER} : changed.c;
        if (plain_product_of(g, kernel, &read))
            fail_msg("number %zu as %lld is taken", wrong[i].at / sizeof(int64_t), (long long)wrong[i].value);
    }
    k->attr = (Attr[]){was.attr[0], {.name = A_PRODUCT, .n = PLAIN_NUMBERS - 1, .ints = (const int64_t *)&p}};
    assert_false(plain_product_of(g, kernel, &p));
    vec_free(cx.notes);
    vec_free(cx.times);
    net_free(n);
    arena_free(a);
}

static void the_dump_tells_who_ran_it(void **state)
{
    (void)state;
    const struct {
        const char *device, *words;
        bool learns;
    } row[] = {
        {"cuda", "\"runs\": \"cuBLASLt\"", true},
        {"cuda", "heuristics", true},
        {"cuda", "\"runs\": \"kernel\"", false},
        {"cuda", "not a program that learns", false},
        {"paper:h100", "\"runs\": \"cuBLASLt\"", true},
        {"paper:h100", "no heuristics are known without a device", true},
        {"paper:h100", "\"m\": 640", true},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        Err err = {0};
        const ProductCase c = {.write = product_large, .precision = DAV_F32};
        setenv("DAV_CACHE_DIR", in_scratch(i == 1 ? "fresh" : "cache"), 1);
        Program *p = product_compiled(&err, &(ProductRun){row[i].device, row[i].learns, &c, 640, 0});
        if (!p || !program_dump(p, &err, in_scratch("dump")))
            fail_msg("%s", err.text);
        char *text = text_of(in_scratch("dump/kernels.json"));
        if (!strstr(text, row[i].words))
            fail_msg("'%s' is missing in %s", row[i].words, text);
        mem_free(text);
        program_free(p);
    }
}

/* ---- algorithms on disk ---- */
static const char *rule_of_plain(Program **p)
{
    Err err = {0};
    *p = product_compiled(&err, &(ProductRun){"cuda", true, &plain, 17, 0});
    if (!*p)
        fail_msg("%s", err.text);
    return product_choice(*p).rule;
}

static void expect_rule(const char *words)
{
    Program *p;
    const char *rule = rule_of_plain(&p);
    if (!strstr(rule, words))
        fail_msg("'%s' is not said: %s", words, rule);
    program_free(p);
}

enum { HEADER = 32 /* of a file in the cache; the key's text follows */ };

/* Changes a byte of each entry of cuBLASLt. */
static int damage(const char *folder)
{
    int damaged = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[8192], data[2000];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        FILE *f = fopen(path, "r+b");
        size_t n = f ? fread(data, 1, sizeof data, f) : 0;
        if (n > HEADER + 64 && n < sizeof data && strncmp(data + HEADER, "cublasLt 130100", 15) == 0) {
            fseek(f, -20, SEEK_END);
            fputc(data[n - 20] ^ 4, f);
            damaged++;
        }
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return damaged;
}

static void algorithms_are_kept_and_mistrusted(void **state)
{
    (void)state;
    setenv("DAV_CUDA_BLASLT", "1", 1);
    setenv("DAV_CACHE_DIR", in_scratch("algorithms"), 1);
    expect_rule("heuristics");
    expect_rule("from the cache");
    assert_int_equal(damage(in_scratch("algorithms")), 1);
    expect_rule("heuristics");
    expect_rule("from the cache");
    setenv("DAV_STANDIN_BLASLT_REFUSES", "1", 1); /* of another build of the library */
    expect_rule("heuristics");
    unsetenv("DAV_STANDIN_BLASLT_REFUSES");
    setenv("DAV_CACHE_DIR", in_scratch("none"), 1);
    setenv("DAV_STANDIN_BLASLT_NONE", "1", 1);
    expect_rule("no algorithm");
    float y[17 * COLS];
    int64_t n;
    Err err = {0};
    assert_true(product_compile_and_run(&err, &(ProductRun){"cuda", true, &plain, 17, 2}, y, &n)); /* our kernel */
    unsetenv("DAV_STANDIN_BLASLT_NONE");
    setenv("DAV_CACHE_DIR", in_scratch("cache"), 1);
    unsetenv("DAV_CUDA_BLASLT");
}

/* ---- what fails ---- */
static void failing_calls_leave_nothing(void **state)
{
    (void)state;
    static float y[MOST_RESULTS];
    Err err = {0};
    int64_t n;
    int unnoticed = 0, of_library = 0;
    const ProductRun o = {"cuda", true, &biased, 17, 3};
    setenv("DAV_CUDA_BLASLT", "1", 1);
    assert_true(product_compile_and_run(&err, &o, y, &n));
    int (*fail_in)(long long) = (int (*)(long long))cuda_standin_symbol("fail_in");
    long long before = cuda_standin("calls");
    Program *p = product_compiled(&err, &o);
    assert_true(p && product_run(p, &err, o.runs, y, &n));
    int calls = (int)(cuda_standin("calls") -
                      before); /* until it is freed: nobody hears of a failure after that */
    program_free(p);
    for (int i = 1; i <= calls; i++) {
        err_clear(&err);
        fail_in(i);
        bool ok = product_compile_and_run(&err, &o, y, &n);
        fail_in(0);
        unnoticed += ok;
        of_library += strstr(err.text, "cublasLt") != NULL;
        if (!ok && (err.kind != ERR_ENV || !strstr(err.text, "CUDA")))
            fail_msg("call %d: %s", i, err.text);
        if (strstr(err.text, ": cublasLtMatmul:"))
            for (const char *const *words =
                     (const char *const[]){"product of 17 x 40 x 24", "'product' on stand-in",
                                           "CUBLAS_STATUS_INTERNAL_ERROR (14)", "DAV_CUDA_BLASLT=0", NULL};
                 *words; words++)
                if (!strstr(err.text, *words))
                    fail_msg("'%s' is missing in: %s", *words, err.text);
        if (cuda_standin("live") != 0)
            fail_msg("call %d (%s) leaves %lld objects", i, err.text,
                     cuda_standin("live"));
    }
    unsetenv("DAV_CUDA_BLASLT");
    assert_int_equal(unnoticed, 1); /* an algorithm from the cache that is refused is asked for again */
    assert_true(of_library >= 12);
}

static int in_child(int (*f)(void))
{
    int status = 0;
    fflush(NULL);
    pid_t child = fork(); /* a library is opened once for a process */
    if (child == 0)
        _exit(f());
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int without_the_library(void)
{
    Err err = {0};
    const ProductCase c = {.write = product_large, .precision = DAV_F32};
    setenv("DAV_CUDA_LIBRARY_PATH", in_scratch("driver"), 1);
    Program *p = product_compiled(&err, &(ProductRun){"cuda", true, &c, 640, 0});
    if (!p)
        return 2;
    return !product_choice(p).library && strstr(product_choice(p).rule, "cuBLASLt does not load") &&
                   strstr(product_choice(p).rule, "libcublasLt.so.13")
               ? 0
               : 3;
}

static void a_missing_library_is_no_failure(void **state)
{
    (void)state;
    char from[4096];
    Err err = {0};
    assert_true(file_mkdirs(&err, in_scratch("driver")));
    for (const char *const *so = (const char *const[]){"libcuda.so.1", "libnvrtc.so.13", NULL}; *so; so++) {
        char to[64];
        snprintf(from, sizeof from, "%s/%s", DAV_CUDA_STANDIN, *so);
        snprintf(to, sizeof to, "driver/%s", *so);
        assert_int_equal(symlink(from, in_scratch(to)), 0);
    }
    assert_int_equal(in_child(without_the_library), 0);
    setenv("DAV_CUDA_LIBRARY_PATH", in_scratch("driver"), 1);
    assert_status(dav("doctor"), 0);
    assert_printed("cuBLASLt does not load (our own kernels run everywhere): ");
    setenv("DAV_CUDA_LIBRARY_PATH", DAV_CUDA_STANDIN, 1);
    assert_status(dav("doctor"), 0);
    assert_printed("cuBLASLt 13.1.0");
}

/* ---- the library itself, where it is: descriptors need no device ---- */
static int attributes_in_child(void)
{
    Err err = {0};
    unsetenv("DAV_CUDA_LIBRARY_PATH");
    const BlasLt *lt = blaslt_open(&err);
    if (!lt)
        return 77;
    BlasDesc desc = NULL;
    BlasLayout layout = NULL;
    BlasPreference preference = NULL;
    const int32_t transposed = BLAS_OP_T, type = BLAS_R_32F, batch = 3;
    const uint32_t epilogue = BLAS_EPILOGUE_GELU | BLAS_EPILOGUE_BIAS, aligned = 16, reductions = BLAS_REDUCTION_IN_F32;
    const int64_t stride = 4096;
    const uint64_t workspace = 1 << 20;
    const void *bias = (const void *)256;
    int failed = lt->cublasLtMatmulDescCreate(&desc, BLAS_COMPUTE_TF32, BLAS_R_32F) != 0 ||
                 lt->cublasLtMatmulDescSetAttribute(desc, BLAS_DESC_TRANS_A, &transposed, sizeof transposed) != 0 ||
                 lt->cublasLtMatmulDescSetAttribute(desc, BLAS_DESC_TRANS_B, &transposed, sizeof transposed) != 0 ||
                 lt->cublasLtMatmulDescSetAttribute(desc, BLAS_DESC_EPILOGUE, &epilogue, sizeof epilogue) != 0 ||
                 lt->cublasLtMatmulDescSetAttribute(desc, BLAS_DESC_BIAS_POINTER, &bias, sizeof bias) != 0 ||
                 lt->cublasLtMatmulDescSetAttribute(desc, BLAS_DESC_BIAS_TYPE, &type, sizeof type) != 0 ||
                 lt->cublasLtMatrixLayoutCreate(&layout, BLAS_R_16BF, 64, 32, 64) != 0 ||
                 lt->cublasLtMatrixLayoutSetAttribute(layout, BLAS_LAYOUT_BATCH_COUNT, &batch, sizeof batch) != 0 ||
                 lt->cublasLtMatrixLayoutSetAttribute(layout, BLAS_LAYOUT_BATCH_STRIDE, &stride, sizeof stride) != 0 ||
                 lt->cublasLtMatmulPreferenceCreate(&preference) != 0 ||
                 lt->cublasLtMatmulPreferenceSetAttribute(preference, BLAS_PREFER_WORKSPACE_BYTES, &workspace,
                                                          sizeof workspace) != 0 ||
                 lt->cublasLtMatmulPreferenceSetAttribute(preference, BLAS_PREFER_REDUCTIONS, &reductions,
                                                          sizeof reductions) != 0;
    for (int i = 0; i < 4; i++)
        failed |= lt->cublasLtMatmulPreferenceSetAttribute(preference, BLAS_PREFER_ALIGNMENT_A + i, &aligned,
                                                           sizeof aligned) != 0;
    return failed || lt->cublasLtMatmulPreferenceDestroy(preference) != 0 ||
           lt->cublasLtMatrixLayoutDestroy(layout) != 0 || lt->cublasLtMatmulDescDestroy(desc) != 0 ||
           lt->cublasLtGetVersion() < 120000;
}

static void the_library_takes_these_attributes(void **state)
{
    (void)state;
    int status = in_child(attributes_in_child);
    if (status == 77) {
        print_message("SKIPPED: no libcublasLt here, its descriptors were not tried\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static int open_group(void **state)
{
    int ok = scratch_open(state);
    setenv("DAV_CACHE_DIR", in_scratch("cache"), 1);
    setenv("DAV_CUDA_LIBRARY_PATH", DAV_CUDA_STANDIN, 1);
    unsetenv("DAV_CUDA_BLASLT");
    return ok;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_library_takes_these_attributes),
        cmocka_unit_test(a_missing_library_is_no_failure),
        cmocka_unit_test(rules_decide),
        cmocka_unit_test(what_looks_alike_is_none),
        cmocka_unit_test(descriptions_fit_their_operands),
        cmocka_unit_test(the_dump_tells_who_ran_it),
        cmocka_unit_test(algorithms_are_kept_and_mistrusted),
        cmocka_unit_test(failing_calls_leave_nothing),
    };
    return cmocka_run_group_tests(tests, open_group, scratch_close);
}
