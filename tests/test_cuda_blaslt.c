/* Products by cuBLASLt: which go there and why, what they give, that sampling never does, what fails.  The library is
 * the stand-in of tests/cuda_standin, whose results are compared with the processor's. */
#include "frontend/net.h"
#include "runtime/cuda/blaslt.h"
#include "runtime/cuda/blaslt_rule.h"
#include "runtime/program.h"
#include "support/command.h"
#include <dav/dav.h>
#include <dirent.h>
#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void *standin(const char *library, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", DAV_CUDA_STANDIN, library);
    void *so = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    return so ? dlsym(so, name) : NULL;
}

static long long count(const char *library, const char *name)
{
    long long (*f)(void) = (long long (*)(void))standin(library, name);
    return f ? f() : 0;
}

static long long products(void)
{
    return count("libcublasLt.so.13", "dav_standin_products");
}

/* ---- programs of one product ---- */
typedef struct Case {
    const char *name;
    DavVal (*write)(DavNet *n, int64_t rows);
    DavDtype precision;
    bool tf32;
    double tolerance;
} Case;

enum { INNER = 40, COLS = 24 };

static DavVal x_of(DavNet *n, int64_t rows)
{
    return dav_input(n, "x", DAV_F32, rows, INNER);
}
static DavVal linear(DavNet *n, int64_t rows)
{
    return dav_linear(n, "l", x_of(n, rows), COLS);
}
static DavVal relu(DavNet *n, int64_t rows)
{
    return dav_relu(linear(n, rows));
}
static DavVal gelu(DavNet *n, int64_t rows)
{
    return dav_gelu_tanh(linear(n, rows));
}
static DavVal plain(DavNet *n, int64_t rows)
{
    return dav_matmul(x_of(n, rows), dav_input(n, "w", DAV_F32, INNER, COLS));
}
static DavVal added(DavNet *n, int64_t rows)
{
    return dav_add(dav_input(n, "c", DAV_F32, rows, COLS), linear(n, rows));
}
static DavVal relu_of_sum(DavNet *n, int64_t rows)
{
    return dav_relu(dav_add(plain(n, rows), dav_input(n, "c", DAV_F32, rows, COLS)));
}
static DavVal bare_gelu(DavNet *n, int64_t rows)
{
    return dav_gelu_tanh(plain(n, rows));
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
    return dav_cast(plain(n, rows), DAV_BF16);
}
static DavVal pictures(DavNet *n, int64_t rows) /* two axes of rows are one */
{
    return dav_linear(n, "l", dav_input(n, "x", DAV_F32, rows, 4, INNER), COLS);
}

static const Case cases[] = {
    {"plain", plain, DAV_F32, false, 2e-6},
    {"bias", linear, DAV_F32, false, 2e-6},
    {"bias, relu", relu, DAV_F32, false, 2e-6},
    {"bias, gelu", gelu, DAV_F32, false, 2e-6},
    {"gelu", bare_gelu, DAV_F32, false, 2e-6},
    {"matrix, bias", added, DAV_F32, false, 2e-6},
    {"matrix, relu", relu_of_sum, DAV_F32, false, 2e-6},
    {"transposed", across, DAV_F32, false, 2e-6},
    {"both transposed", both_across, DAV_F32, false, 2e-6},
    {"batch", batched, DAV_F32, false, 2e-6},
    {"batch within", batch_within, DAV_F32, false, 2e-6},
    {"rows of two axes", pictures, DAV_F32, false, 2e-6},
    {"bf16", plain, DAV_BF16, false, 2e-6},
    {"bf16, bias, relu", relu, DAV_BF16, false, 2e-6},
    {"bf16, transposed", across, DAV_BF16, false, 2e-6},
    {"bf16, batch", batched, DAV_BF16, false, 2e-6},
    {"bf16, result too", rounded, DAV_BF16, false, 8e-3},
    {"tf32", plain, DAV_F32, true, 3e-3},
};

typedef struct Options {
    const char *device;
    bool learns;
    const Case *c;
    int64_t rows;
    int runs;
} Options;
enum { MOST = 1 << 20 };

/* Compiles and runs; the result as floats.  NULL: err is set. */
static Program *compiled(Err *err, const Options *o)
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

static float input_value(int input, int64_t i)
{
    return (float)((i * 37 + 11 * input) % 113 - 56) / 67; /* sums of such numbers round */
}

static bool run(Program *p, Err *err, int runs, float *y, int64_t *ny)
{
    void *in[8] = {0};
    Type t = program_output_type(p, 0);
    void *out = malloc((size_t)type_count(&t) * 4);
    for (int i = 0; i < program_input_count(p); i++) {
        Type x = program_input_type(p, i);
        float *v = in[i] = malloc((size_t)type_count(&x) * 4);
        for (int64_t k = 0; k < type_count(&x); k++)
            v[k] = input_value(i, k);
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

static bool compile_and_run(Err *err, const Options *o, float *y, int64_t *ny)
{
    Program *p = compiled(err, o);
    bool ok = p && run(p, err, o->runs, y, ny);
    program_free(p);
    return ok;
}

/* The rule of the program's only product. */
static ProductChoice choice_of(const Program *p)
{
    for (int i = 0; i < p->plan->nkernel; i++)
        if (p->product[i].rule)
            return p->product[i];
    return (ProductChoice){.rule = "no product"};
}

static void check_case(const Case *c, int64_t rows)
{
    static float y[MOST], want[MOST];
    Err err = {0};
    int64_t ny = 0, n = 0;
    if (!compile_and_run(&err, &(Options){"cpu", true, c, rows, 1}, want, &n))
        fail_msg("%s", err.text);
    Program *p = compiled(&err, &(Options){"cuda", true, c, rows, 0});
    if (!p)
        fail_msg("%s: %s", c->name, err.text);
    if (!choice_of(p).library)
        fail_msg("%s: our kernel runs it: %s", c->name, choice_of(p).rule);
    long long before = products();
    if (!run(p, &err, 3, y, &ny)) /* launched, captured, replayed */
        fail_msg("%s: %s", c->name, err.text);
    assert_int_equal(products() - before, 3);
    assert_int_equal(program_stats(p).captures, 1);
    assert_int_equal(program_stats(p).replays, 2);
    program_free(p);
    assert_int_equal(ny, n);
    double scale = 0;
    for (int64_t i = 0; i < n; i++)
        scale = fmax(scale, fabs(want[i]));
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(y[i] - want[i]) <= c->tolerance * scale))
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
    assert_int_equal(count("libcuda.so.1", "dav_standin_live"), 0);
}

/* acc' = acc + x' w, in acc's memory, as a learner accumulates the gradient of a weight. */
static void sums_go_on_in_place(void **state)
{
    (void)state;
    Err err = {0};
    enum { N = INNER * COLS, ROWS = 30 };
    static float x[ROWS * INNER], w[ROWS * COLS], acc[N];
    Arena *a = arena_new();
    DavNet *n = net_new(a, &err, "sum");
    DavVal xs = dav_input(n, "x", DAV_F32, ROWS, INNER), ws = dav_input(n, "w", DAV_F32, ROWS, COLS);
    dav_output(n, "acc'", dav_add(dav_input(n, "acc", DAV_F32, INNER, COLS), dav_matmul(dav_transpose(xs, 1, 0), ws)));
    setenv("DAV_CUDA_BLASLT", "1", 1);
    Program *p =
        program_compile(&err, n->g, &(ProgramOptions){.device = "cuda", .learns = true, .inplace = "acc=acc'"});
    unsetenv("DAV_CUDA_BLASLT");
    if (!p)
        fail_msg("%s", err.text);
    assert_true(choice_of(p).library && choice_of(p).product.c.buf >= 0);
    for (int i = 0; i < ROWS * INNER; i++)
        x[i] = input_value(0, i);
    for (int i = 0; i < ROWS * COLS; i++)
        w[i] = input_value(1, i);
    void *in[3];
    in[program_input(p, "x")] = x;
    in[program_input(p, "w")] = w;
    in[program_input(p, "acc")] = acc;
    for (int r = 0; r < 3; r++)
        if (!program_run(p, &err, in, (void *[]){NULL}, 1, 1))
            fail_msg("%s", err.text);
    for (int i = 0; i < N; i++) {
        double want = 0;
        for (int r = 0; r < ROWS; r++)
            want += 3.0 * (double)x[r * INNER + i / COLS] * (double)w[r * COLS + i % COLS];
        assert_true(fabs(acc[i] - want) < 1e-4);
    }
    program_free(p);
    net_free(n);
    arena_free(a);
}

/* ---- the rule ---- */
static DavVal large(DavNet *n, int64_t rows)
{
    return dav_linear(n, "l", dav_input(n, "x", DAV_F32, rows, 512), 512);
}
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
    return dav_cast(large(n, rows), DAV_BF16);
}
static DavVal two_kernels(DavNet *n, int64_t rows)
{
    return dav_exp(large(n, rows));
}

static void rule_is(DavVal (*write)(DavNet *, int64_t), int64_t rows, bool learns, DavDtype precision, bool library,
                    const char *words)
{
    Err err = {0};
    const Case c = {.write = write, .precision = precision};
    Program *p = compiled(&err, &(Options){"cuda", learns, &c, rows, 0});
    if (!p)
        fail_msg("%s", err.text);
    ProductChoice x = choice_of(p);
    if (x.library != library || !strstr(x.rule, words))
        fail_msg("%s runs it: %s; expected: %s", x.library ? "cuBLASLt" : "our kernel", x.rule, words);
    program_free(p);
}

static void rules_decide(void **state)
{
    (void)state;
    rule_is(large, 640, true, DAV_F32, true, "large");
    rule_is(large, 640, true, DAV_BF16, true, "large");
    rule_is(large, 640, false, DAV_F32, false, "learns");
    rule_is(large, 100, true, DAV_F32, false, "small");    /* few operations */
    rule_is(flat, 200000, true, DAV_BF16, false, "small"); /* few a byte */
    rule_is(unaligned, 640, true, DAV_F32, false, "16 bytes");
    rule_is(rounded_bias, 640, true, DAV_BF16, false, "another dtype");
    rule_is(two_kernels, 640, true, DAV_F32, false, "no plain product");
    setenv("DAV_CUDA_BLASLT", "0", 1);
    rule_is(large, 640, true, DAV_F32, false, "DAV_CUDA_BLASLT=0");
    setenv("DAV_CUDA_BLASLT", "1", 1);
    rule_is(plain, 3, true, DAV_F32, true, "large");
    rule_is(plain, 3, false, DAV_F32, false, "learns");
    unsetenv("DAV_CUDA_BLASLT");
}

static DavVal bias_of_rows(DavNet *n, int64_t rows)
{
    return dav_add(plain(n, rows), dav_input(n, "r", DAV_F32, rows, 1));
}
static DavVal bias_of_square(DavNet *n, int64_t rows) /* as many rows as columns */
{
    (void)rows;
    return bias_of_rows(n, COLS);
}
static DavVal two_biases(DavNet *n, int64_t rows)
{
    return dav_add(linear(n, rows), dav_input(n, "b", DAV_F32, COLS));
}
static DavVal other_floor(DavNet *n, int64_t rows)
{
    return dav_max(plain(n, rows), 0.5);
}
static DavVal ceiling(DavNet *n, int64_t rows)
{
    return dav_min(plain(n, rows), 0);
}
static DavVal exact_gelu(DavNet *n, int64_t rows)
{
    return dav_gelu(plain(n, rows));
}
static DavVal twice(DavNet *n, int64_t rows)
{
    return dav_mul(plain(n, rows), 2);
}
static DavVal late_sum(DavNet *n, int64_t rows)
{
    return dav_add(relu(n, rows), dav_input(n, "c", DAV_F32, rows, COLS));
}
static DavVal other_gelu(DavNet *n, int64_t rows)
{
    DavVal x = plain(n, rows),
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
    dav_output(n, "y", linear(n, 9));
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
        const Case c = {.write = large, .precision = DAV_F32};
        setenv("DAV_CACHE_DIR", in_scratch(i == 1 ? "fresh" : "cache"), 1);
        Program *p = compiled(&err, &(Options){row[i].device, row[i].learns, &c, 640, 0});
        if (!p || !program_dump(p, &err, in_scratch("dump")))
            fail_msg("%s", err.text);
        char *text = text_of(in_scratch("dump/kernels.json"));
        if (!strstr(text, row[i].words))
            fail_msg("'%s' is missing in %s", row[i].words, text);
        mem_free(text);
        program_free(p);
    }
}

/* ---- sampling: a sample's bits do not know how many are drawn with it ---- */
static bool same_rows(bool learns)
{
    static float few[MOST], many[MOST];
    Err err = {0};
    int64_t n, m;
    if (!compile_and_run(&err, &(Options){"cuda", learns, &cases[0], 9, 1}, few, &n) ||
        !compile_and_run(&err, &(Options){"cuda", learns, &cases[0], 90, 1}, many, &m))
        fail_msg("%s", err.text);
    return memcmp(few, many, (size_t)n * sizeof *few) ==
           0; /* x is numbered along its rows: those of few are the first of many */
}

static void samples_have_the_same_bits_in_any_batch(void **state)
{
    (void)state;
    setenv("DAV_CUDA_BLASLT", "1", 1);
    assert_true(same_rows(false));
    assert_false(same_rows(true)); /* the stand-in sums few rows otherwise */
    unsetenv("DAV_CUDA_BLASLT");
}

/* ---- algorithms on disk ---- */
static const char *rule_of_plain(Program **p)
{
    Err err = {0};
    *p = compiled(&err, &(Options){"cuda", true, &cases[0], 17, 0});
    if (!*p)
        fail_msg("%s", err.text);
    return choice_of(*p).rule;
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
    assert_true(compile_and_run(&err, &(Options){"cuda", true, &cases[0], 17, 2}, y, &n)); /* our kernel */
    unsetenv("DAV_STANDIN_BLASLT_NONE");
    setenv("DAV_CACHE_DIR", in_scratch("cache"), 1);
    unsetenv("DAV_CUDA_BLASLT");
}

/* ---- what fails ---- */
static void failing_calls_leave_nothing(void **state)
{
    (void)state;
    static float y[MOST];
    Err err = {0};
    int64_t n;
    int unnoticed = 0, of_library = 0;
    const Options o = {"cuda", true, &cases[1], 17, 3};
    setenv("DAV_CUDA_BLASLT", "1", 1);
    assert_true(compile_and_run(&err, &o, y, &n));
    int (*fail_in)(long long) = (int (*)(long long))standin("libcuda.so.1", "dav_standin_fail_in");
    long long before = count("libcuda.so.1", "dav_standin_calls");
    Program *p = compiled(&err, &o);
    assert_true(p && run(p, &err, o.runs, y, &n));
    int calls = (int)(count("libcuda.so.1", "dav_standin_calls") -
                      before); /* until it is freed: nobody hears of a failure after that */
    program_free(p);
    for (int i = 1; i <= calls; i++) {
        err_clear(&err);
        fail_in(i);
        bool ok = compile_and_run(&err, &o, y, &n);
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
        if (count("libcuda.so.1", "dav_standin_live") != 0)
            fail_msg("call %d (%s) leaves %lld objects", i, err.text, count("libcuda.so.1", "dav_standin_live"));
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
    const Case c = {.write = large, .precision = DAV_F32};
    setenv("DAV_CUDA_LIBRARY_PATH", in_scratch("driver"), 1);
    Program *p = compiled(&err, &(Options){"cuda", true, &c, 640, 0});
    if (!p)
        return 2;
    return !choice_of(p).library && strstr(choice_of(p).rule, "cuBLASLt does not load") &&
                   strstr(choice_of(p).rule, "libcublasLt.so.13")
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
        cmocka_unit_test(results_are_the_processors),
        cmocka_unit_test(sums_go_on_in_place),
        cmocka_unit_test(rules_decide),
        cmocka_unit_test(what_looks_alike_is_none),
        cmocka_unit_test(descriptions_fit_their_operands),
        cmocka_unit_test(the_dump_tells_who_ran_it),
        cmocka_unit_test(samples_have_the_same_bits_in_any_batch),
        cmocka_unit_test(algorithms_are_kept_and_mistrusted),
        cmocka_unit_test(failing_calls_leave_nothing),
    };
    return cmocka_run_group_tests(tests, open_group, scratch_close);
}
