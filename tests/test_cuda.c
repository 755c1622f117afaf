/* Programs on a CUDA device: what they compute, what fails, what is left.  The device is the stand-in of tests/cuda_standin,
 * unless DAV_CUDA_LIBRARY_PATH names another. */
#include "codegen/cuda/cuda.h"
#include "ir/build.h"
#include "ir/parse.h"
#include "passes/pass.h"
#include "runtime/cuda/driver.h"
#include "runtime/program.h"
#include "support/cuda.h"
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { ROWS = 5, INNER = 37, COLS = 19 };

static Val product(Graph *g, Val x, Val w)
{
    ContractSpec s = {.nloop = 3, .nout = 2, .extent = {ROWS, COLS, INNER}, .rank = {2, 2}};
    const int loop[2][2] = {{0, 2}, {2, 1}};
    for (int o = 0; o < 2; o++)
        for (int d = 0; d < 2; d++)
            s.dim[o][d] = (DimExpr){.nterm = 1, .loop = {loop[o][d]}, .coef = {1}, .div = 1};
    return g_contract(g, x, w, &s, DAV_F32);
}

/* y = softmax(x w), with a parameter, a contraction and reductions */
static Graph *small_graph(Arena *a, Err *err)
{
    Graph *g = graph_new(a, err, "small");
    Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){ROWS, INNER}));
    Val w = g_input(g, "w", ROLE_PARAM, type_make(DAV_F32, 2, (int64_t[]){INNER, COLS}));
    Val e = g_un(g, OP_EXP, product(g, x, w));
    graph_output(g, "y", g_bin(g, OP_DIV, e, g_broadcast_like(g, g_reduce_mask(g, OP_SUM, e, 2), e)));
    return g;
}

static long long calls_of_run; /* the driver's calls until the program is freed: nobody hears of a failure after that */

static bool run_small(Err *err, const char *device, float scale, float y[ROWS * COLS])
{
    float x[ROWS * INNER], w[INNER * COLS];
    for (int i = 0; i < ROWS * INNER; i++)
        x[i] = 0.01f * (float)(i % 41) - 0.2f;
    Arena *a = arena_new();
    Program *p = program_compile(err, small_graph(a, err), &(ProgramOptions){.device = device});
    arena_free(a);
    bool ok = p != NULL;
    /* twice: the second run has other parameters */
    for (int version = 1; version <= 2 && ok; version++) {
        for (int i = 0; i < INNER * COLS; i++)
            w[i] = scale * (float)version * (0.02f * (float)(i % 29) - 0.3f);
        void *in[2];
        in[program_input(p, "x")] = x;
        in[program_input(p, "w")] = w;
        ok = program_run(p, err, in, (void *[]){y}, (uint64_t)version, 1);
    }
    calls_of_run = cuda_standin("calls");
    program_free(p);
    return ok;
}

static void parameters_follow_their_version(void **state)
{
    (void)state;
    Err err = {0};
    float cpu[ROWS * COLS], cuda[ROWS * COLS];
    assert_true(run_small(&err, "cpu", 1, cpu));
    if (!run_small(&err, "cuda", 1, cuda))
        fail_msg("%s", err.text);
    for (int i = 0; i < ROWS * COLS; i++)
        assert_float_equal(cuda[i], cpu[i], 2e-6f);
    assert_int_equal(cuda_standin("live"), 0);
}

/* Sums of rows of every length that changes the team, an odd number of rows: each its own. */
static void rows_are_summed_apart(void **state)
{
    (void)state;
    enum { LINES = 7 };
    static const int64_t length[] = {5, 31, 33, 100, 129, 200, 256, 257, 600, 1030};
    for (size_t l = 0; l < sizeof length / sizeof *length; l++) {
        Err err = {0};
        Arena *a = arena_new();
        Graph *g = graph_new(a, &err, "rows");
        Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){LINES, length[l]}));
        graph_output(g, "y", g_reduce_mask(g, OP_SUM, g_bin(g, OP_MUL, x, x), 2));
        Program *p = program_compile(&err, g, &(ProgramOptions){.device = "cuda"});
        float *in = malloc((size_t)(LINES * length[l]) * sizeof *in), y[LINES];
        for (int64_t i = 0; i < LINES * length[l]; i++)
            in[i] = (float)(i / length[l] + 1);
        if (!p || !program_run(p, &err, (void *[]){in}, (void *[]){y}, 1, 1))
            fail_msg("%s", err.text);
        for (int i = 0; i < LINES; i++)
            assert_float_equal(y[i], (float)((i + 1) * (i + 1)) * (float)length[l], 0.5);
        program_free(p);
        arena_free(a);
        free(in);
    }
}

/* Where an element stands: counted in 32 bits below 2^30 elements, in 64 bits above. */
static bool counts_in_64_bits(int64_t rows)
{
    Err err = {0};
    Arena *a = arena_new();
    Graph *g = graph_new(a, &err, "wide");
    Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){rows, 1 << 14}));
    graph_output(g, "y", g_reduce_mask(g, OP_SUM, g_un(g, OP_EXP, x), 2));
    CompileOptions o = {.precision = DAV_F32};
    PassCx cx = {.arena = a, .err = &err, .options = &o};
    const Graph *done = passes_run(&cx, g, NULL);
    int kernels = 0, wide = 0;
    for (Val v = 1; done && v < done->n; v++) {
        Buf text = {0};
        CudaLaunch launch;
        if (node_of(done, v)->op != OP_KERNEL)
            continue;
        assert_true(cuda_source(cuda_target(&err, "h100"), &err, attr_graph(node_of(done, v), A_GRAPH), "kernel", &text, &launch));
        wide += strstr(strstr(text.at, "DAV_KERNEL(128) kernel(") ? strstr(text.at, "DAV_KERNEL(128) kernel(")
                                                                   : strstr(text.at, "DAV_KERNEL(256) kernel("), "    i64 v") != NULL;
        kernels++;
        buf_free(&text);
    }
    assert_true(kernels > 0);
    vec_free(cx.notes);
    vec_free(cx.times);
    arena_free(a);
    return wide > 0;
}

static void indices_are_as_wide_as_needed(void **state)
{
    (void)state;
    assert_false(counts_in_64_bits(64));
    assert_true(counts_in_64_bits(1 << 18));
}

static void a_missing_device_is_named(void **state)
{
    (void)state;
    Err err = {0};
    float y[ROWS * COLS];
    assert_false(run_small(&err, "cuda:7", 1, y));
    assert_non_null(strstr(err.text, "cuda:7"));
    err_clear(&err);
    assert_false(run_small(&err, "cuda:x", 1, y));
    assert_int_equal(err.kind, ERR_USER);
}

/* Programs on two devices, run in turns and from two threads: each has its own memory, code and stream. */
typedef struct OnDevice { Program *p; float x[ROWS * INNER], w[INNER * COLS], y[ROWS * COLS]; int runs; Err err; } OnDevice;

static void *run_some(void *arg)
{
    OnDevice *d = arg;
    void *in[2];
    in[program_input(d->p, "x")] = d->x;
    in[program_input(d->p, "w")] = d->w;
    for (int i = 0; i < d->runs && d->err.kind == ERR_NONE; i++)
        program_run(d->p, &d->err, in, (void *[]){d->y}, 1, 1);
    return NULL;
}

static void two_devices_do_not_mix(void **state)
{
    (void)state;
    static OnDevice d[2];
    float want[ROWS * COLS];
    pthread_t thread[2];
    Err err = {0};
    setenv("DAV_STANDIN_DEVICES", "2", 1);
    if (cuda_device_count() < 2) {
        print_message("SKIPPED: one device\n");
        skip();
    }
    for (int i = 0; i < 2; i++) {
        Arena *a = arena_new();
        d[i] = (OnDevice){.p = program_compile(&err, small_graph(a, &err), &(ProgramOptions){.device = i ? "cuda:1" : "cuda:0"}), .runs = 2};
        if (!d[i].p)
            fail_msg("%s", err.text);
        for (int k = 0; k < ROWS * INNER; k++)
            d[i].x[k] = 0.01f * (float)(k % 41) - 0.2f;
        for (int k = 0; k < INNER * COLS; k++)
            d[i].w[k] = 0.02f * (float)(k % 29) - 0.3f;
        arena_free(a);
    }
    for (int i = 0; i < 4; i++)
        run_some(&d[i % 2]);
    for (int i = 0; i < 2; i++)
        pthread_create(&thread[i], NULL, run_some, &d[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    setenv("DAV_STANDIN_DEVICES", "1", 1);
    for (int i = 0; i < 2; i++) {
        if (d[i].err.kind != ERR_NONE)
            fail_msg("%s", d[i].err.text);
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int c = 0; c < COLS; c++) {
                double dot = 0;
                for (int k = 0; k < INNER; k++)
                    dot += (double)d[i].x[r * INNER + k] * d[i].w[k * COLS + c];
                want[r * COLS + c] = (float)exp(dot);
                sum += exp(dot);
            }
            for (int c = 0; c < COLS; c++)
                assert_float_equal(d[i].y[r * COLS + c], want[r * COLS + c] / (float)sum, 2e-6f);
        }
        program_free(d[i].p);
    }
    assert_int_equal(cuda_standin("live"), 0);
}

/* Every call of the driver but those of program_free fails once: an error with a name, and nothing is left. */
static void failing_calls_leave_nothing(void **state)
{
    (void)state;
    Err err = {0};
    float y[ROWS * COLS];
    cuda_standin_or_skip();
    int (*fail_in)(long long) = (int (*)(long long))cuda_standin_symbol("fail_in");
    long long before = cuda_standin("calls");
    assert_true(run_small(&err, "cuda", 1, y));
    int calls = (int)(calls_of_run - before);
    assert_true(calls > 20);
    for (int n = 1; n <= calls; n++) {
        err_clear(&err);
        fail_in(n);
        if (run_small(&err, "cuda", 1, y))
            fail_msg("call %d of %d failed and nobody noticed", n, calls);
        fail_in(0);
        if (err.kind != ERR_ENV || !strstr(err.text, "CUDA"))
            fail_msg("call %d: %s", n, err.text);
        if (cuda_standin("live") != 0)
            fail_msg("call %d (%s) leaves %lld objects", n, err.text, cuda_standin("live"));
    }
}

/* ---- products of bf16: by the fragments of mma.m16n8k16, whose layout the stand-in has from its manual ---- */
static bool ties_go_to_even(void)
{
    Err err = {0};
    CudaDevice d = {0};
    assert_true(cuda_device_open(&d, &err, 0));
    cuda_device_close(&d);
    return d.sm >= 90;
}

/* To 10 bits of mantissa: cvt.rn.tf32.f32 from sm_90 on, cvt.rna.tf32.f32 before. */
static double tf32(float x, bool even)
{
    int exponent;
    frexp((double)x, &exponent);
    double unit = ldexp(1, exponent - 11), steps = (double)x / unit;
    return isfinite(x) ? (even ? rint(steps) : round(steps)) * unit : (double)x;
}

enum { ROUNDED, HALF, SINGLE }; /* tf32, bf16, f32 */
static const char *const kind_name[] = {"tf32", "bf16", "f32"};

/* y = x w, x as [inner][rows] when near; of it tanh(erf(log1p(y^2))) when the epilogue is long. */
static float *product_of(int64_t rows, int64_t inner, int64_t cols, int kind, bool near, bool epilogue, int processors, double **expected)
{
    Err err = {0};
    Arena *a = arena_new();
    Graph *g = graph_new(a, &err, "product");
    Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 2, near ? (int64_t[]){inner, rows} : (int64_t[]){rows, inner}));
    Val w = g_input(g, "w", ROLE_PARAM, type_make(DAV_F32, 2, (int64_t[]){inner, cols}));
    ContractSpec s = {.nloop = 3, .nout = 2, .extent = {rows, cols, inner}, .rank = {2, 2}};
    const int loop[2][2] = {{near ? 2 : 0, near ? 0 : 2}, {2, 1}};
    for (int o = 0; o < 2; o++)
        for (int d = 0; d < 2; d++)
            s.dim[o][d] = (DimExpr){.nterm = 1, .loop = {loop[o][d]}, .coef = {1}, .div = 1};
    Val product = g_contract(g, x, w, &s, DAV_F32), squared = g_bin(g, OP_MUL, product, product);
    graph_output(g, "y", epilogue ? g_un(g, OP_TANH, g_un(g, OP_ERF, g_un(g, OP_LOG1P, squared))) : product);
    const CompileOptions o = {.precision = kind == HALF ? DAV_BF16 : DAV_F32, .tf32 = kind == ROUNDED, .processors = processors};
    Program *p = program_compile(&err, g, &(ProgramOptions){.device = "cuda", .compile = o});
    if (!p)
        fail_msg("%s", err.text);
    float *xs = mem_alloc((size_t)(rows * inner) * 4), *ws = mem_alloc((size_t)(inner * cols) * 4), *y = mem_alloc((size_t)(rows * cols) * 4);
    double *want = mem_alloc((size_t)(rows * cols) * 8);
    for (int64_t i = 0; i < rows * inner; i++) /* numbers that bf16 has; of tf32 such as it rounds */
        xs[i] = (float)(i * 7 % 31 - 15) / (kind == ROUNDED ? 7.f : 8.f);
    for (int64_t i = 0; i < inner * cols; i++)
        ws[i] = (float)(i * 11 % 29 - 14) / (kind == ROUNDED ? 13.f : 16.f);
    void *in[2];
    in[program_input(p, "x")] = xs;
    in[program_input(p, "w")] = ws;
    if (!program_run(p, &err, in, (void *[]){y}, 1, 1))
        fail_msg("%s", err.text);
    const bool even = ties_go_to_even();
    for (int64_t i = 0; i < rows * cols; i++)
        for (int64_t k = 0; k < inner; k++) {
            float xk = near ? xs[k * rows + i / cols] : xs[i / cols * inner + k], wk = ws[k * cols + i % cols];
            want[i] += kind == ROUNDED ? tf32(xk, even) * tf32(wk, even) : (double)xk * (double)wk;
        }
    for (int64_t i = 0; i < rows * cols && epilogue; i++)
        want[i] = tanh(erf(log1p(want[i] * want[i])));
    program_free(p);
    mem_free(xs);
    mem_free(ws);
    arena_free(a);
    *expected = want;
    return y;
}

static void compare_product(int64_t rows, int64_t inner, int64_t cols, int kind, bool near, bool epilogue, int processors)
{
    double *want;
    float *y = product_of(rows, inner, cols, kind, near, epilogue, processors, &want);
    for (int64_t i = 0; i < rows * cols; i++)
        if (!(fabs(y[i] - want[i]) <= 1e-5 * (1 + fabs(want[i]))))
            fail_msg("[%lld,%lld,%lld] in %s for %d processors, element %lld: %g, expected %g", (long long)rows, (long long)inner,
                     (long long)cols, kind_name[kind], processors, (long long)i, (double)y[i], want[i]);
    mem_free(want);
    mem_free(y);
}

static void product_in(int64_t rows, int64_t inner, int64_t cols, int kind, bool near, int processors)
{
    compare_product(rows, inner, cols, kind, near, false, processors);
}

static void products_in_bf16(void **state)
{
    (void)state;
    product_in(64, 64, 64, HALF, false, 0);
    product_in(70, 130, 90, HALF, false, 0);
    product_in(5, 33, 19, HALF, false, 0);
    product_in(129, 17, 8, HALF, false, 0);
    product_in(70, 96, 72, HALF, false, 0); /* rows of 16 bytes: copied asynchronously */
    product_in(64, 200, 64, HALF, false, 0);
    product_in(9, 40, 136, HALF, false, 0);
    product_in(200, 24, 20, HALF, false, 0);
}

/* A number alone in a row of x, and a column of w that has 1 at its place. */
static void rounds(float x, bool even)
{
    enum { TALL = 32, DEEP = 16, WIDE = 8 };
    static float xs[TALL * DEEP], ws[DEEP * WIDE], y[TALL * WIDE];
    Err err = {0};
    Arena *a = arena_new();
    Graph *g = graph_new(a, &err, "rounding");
    Val xv = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){TALL, DEEP}));
    Val wv = g_input(g, "w", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){DEEP, WIDE}));
    ContractSpec s = {.nloop = 3, .nout = 2, .extent = {TALL, WIDE, DEEP}, .rank = {2, 2}};
    static const int loop[2][2] = {{0, 2}, {2, 1}};
    for (int o = 0; o < 2; o++)
        for (int d = 0; d < 2; d++)
            s.dim[o][d] = (DimExpr){.nterm = 1, .loop = {loop[o][d]}, .coef = {1}, .div = 1};
    graph_output(g, "y", g_contract(g, xv, wv, &s, DAV_F32));
    Program *p = program_compile(&err, g, &(ProgramOptions){.device = "cuda", .compile.tf32 = true});
    xs[3 * DEEP + 5] = x;
    ws[5 * WIDE + 6] = 1;
    if (!p || !program_run(p, &err, (void *[]){xs, ws}, (void *[]){y}, 1, 1))
        fail_msg("%s", err.text);
    double want = (float)tf32(x, even), found = (double)y[3 * WIDE + 6];
    if (isnan(want) ? !isnan(found) : found != want)
        fail_msg("%a is rounded to %a, expected %a", (double)x, found, want);
    program_free(p);
    arena_free(a);
}

/* Halves between two neighbours, what carries into the exponent or beyond the largest number, and NaN with all bits set. */
static void numbers_round_to_tf32(void)
{
    static const float number[] = {1,           0x1.002p0f,       0x1.006p0f,       -0x1.002p0f,      0x1.0021p0f, 0x1.001ffep0f, 0x1.fff8p0f,
                                   0x1.ffep-9f, 0x1.fffffep127f, -0x1.fffffep127f, 0x1.ffa002p30f, 0x1.ffdffep127f, INFINITY,     -INFINITY};
    const bool even = ties_go_to_even();
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        rounds(number[i], even);
    for (uint32_t bits = 0x7fffffffu; bits != 0; bits = bits == 0x7fffffffu ? 0xffffffffu : 0) {
        float x;
        memcpy(&x, &bits, sizeof x);
        rounds(x, even);
    }
}

/* By both ways of rounding, where the device is the stand-in. */
static void products_in_tf32(void **state)
{
    static const char *const level[] = {"80", "90"};
    (void)state;
    for (size_t i = 0; i < sizeof level / sizeof *level; i++) {
        setenv("DAV_STANDIN_SM", level[i], 1);
        product_in(70, 96, 72, ROUNDED, false, 0);
        product_in(33, 17, 8, ROUNDED, false, 0);
        product_in(129, 50, 40, ROUNDED, false, 0);
        numbers_round_to_tf32();
    }
    unsetenv("DAV_STANDIN_SM");
}

/* One processor: the largest tiles, of which the last ones of a row and of a column are not full. */
static void products_in_large_tiles(void **state)
{
    static const struct { int64_t rows, inner, cols; } shape[] = {{200, 96, 136}, {128, 72, 128}, {120, 104, 60}};
    (void)state;
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (int kind = ROUNDED; kind <= SINGLE; kind++)
            for (int near = 0; near < 2; near++)
                product_in(shape[i].rows, shape[i].inner, shape[i].cols, kind, near, 1);
    for (int kind = ROUNDED; kind <= SINGLE; kind++) /* more than a thread does for each of 128 elements */
        compare_product(200, 40, 136, kind, false, true, 1);
}

/* The tile that a product is cut into is a matter of speed alone. */
static void tiles_do_not_change_bits(void **state)
{
    enum { N = 136, K = 88 };
    static const int processors[] = {1, 3, 6, 20, 128};
    (void)state;
    for (int kind = ROUNDED; kind <= SINGLE; kind++) {
        double *want;
        float *y[2];
        for (size_t i = 0; i < sizeof processors / sizeof *processors; i++) {
            y[i > 0] = product_of(N, K, N, kind, false, false, processors[i], &want);
            mem_free(want);
            if (i == 0)
                continue;
            assert_memory_equal(y[0], y[1], N * N * sizeof(float));
            mem_free(y[1]);
        }
        mem_free(y[0]);
    }
}

/* Sums, maxima and the elements beside them, over rows in parts: lengths and widths that parts and blocks do not divide, small whole
 * numbers, so that the sums are exact in any order. */
static void column_sums(int64_t rows, int64_t width)
{
    enum { BATCH = 2 };
    Err err = {0};
    Arena *a = arena_new();
    Graph *g = graph_new(a, &err, "columns");
    Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 3, (int64_t[]){BATCH, rows, width}));
    Val square = g_bin(g, OP_MUL, x, x), top = g_reduce_mask(g, OP_RMAX, x, 2);
    graph_output(g, "sum", g_reduce_mask(g, OP_SUM, square, 2));
    Val gap = g_bin(g, OP_SUB, g_broadcast_like(g, top, x), x);
    graph_output(g, "below", g_reduce_mask(g, OP_SUM, gap, 2));
    graph_output(g, "gap", gap);
    Program *p = program_compile(&err, g, &(ProgramOptions){.device = "cuda"});
    if (!p)
        fail_msg("%s", err.text);
    int64_t n = BATCH * rows * width;
    float *in = mem_alloc((size_t)n * sizeof *in), *out = mem_alloc((size_t)n * sizeof *out), sum[BATCH * 128], below[BATCH * 128];
    for (int64_t i = 0; i < n; i++)
        in[i] = (float)((i * 37 + i / 11) % 13 - 13); /* none above 0 */
    if (!program_run(p, &err, (void *[]){in}, (void *[]){sum, below, out}, 1, 1))
        fail_msg("%s", err.text);
    for (int64_t b = 0; b < BATCH; b++)
        for (int64_t c = 0; c < width; c++) {
            double want = 0, most = -100, all = 0;
            for (int64_t r = 0; r < rows; r++) {
                float v = in[(b * rows + r) * width + c];
                want += v * v;
                all += v;
                most = v > most ? v : most;
            }
            for (int64_t r = 0; r < rows; r++)
                assert_true(out[(b * rows + r) * width + c] == most - in[(b * rows + r) * width + c]);
            if (sum[b * width + c] != want || below[b * width + c] != (double)rows * most - all)
                fail_msg("%lld rows, column %lld of %lld: %g and %g, expected %g and %g", (long long)rows, (long long)c, (long long)width,
                         sum[b * width + c], below[b * width + c], want, (double)rows * most - all);
        }
    mem_free(in);
    mem_free(out);
    program_free(p);
    arena_free(a);
}

static void columns_are_summed_in_parts(void **state)
{
    (void)state;
    static const int64_t rows[] = {2, 15, 16, 61, 200, 300}, width[] = {2, 5, 16, 33, 128};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t w = 0; w < sizeof width / sizeof *width; w++)
            column_sums(rows[r], width[w]);
}

/* An index that uses each value before it twice compiles as fast as any: nothing walks all ways through it. */
static void deep_indices_compile(void **state)
{
    (void)state;
    enum { STEPS = 60, N = 8 };
    Err err = {0};
    Arena *a = arena_new();
    Buf text = {0};
    buf_str(&text, "graph \"deep\" {\n  %1 = input {name=\"x\" role=data} : i64[8]\n  %2 = input {name=\"t\" role=data} : f32[100,8]\n");
    for (int i = 0, last = 1; i < STEPS; i++, last = 2 * i + 2)
        buf_printf(&text, "  %%%d = mul %%%d, %%%d : i64[8]\n  %%%d = max %%%d, %%%d : i64[8]\n", 2 * i + 3, last, last, 2 * i + 4, 2 * i + 3, last);
    buf_printf(&text, "  %%%d = gather %%2, %%%d {batch=0} : f32[8,8]\n  return o=%%%d\n}\n", 2 * STEPS + 3, 2 * STEPS + 2, 2 * STEPS + 3);
    Graph *g = graph_parse(a, &err, "deep", text.at, text.len);
    Program *p = g ? program_compile(&err, g, &(ProgramOptions){.device = "cuda"}) : NULL;
    int64_t x[N];
    static float t[100 * N], out[N * N];
    for (int i = 0; i < 100 * N; i++)
        t[i] = (float)i;
    for (int i = 0; i < N; i++)
        x[i] = i % 2;
    if (!p || !program_run(p, &err, (void *[]){x, t}, (void *[]){out}, 1, 1))
        fail_msg("%s", err.text);
    for (int i = 0; i < N * N; i++)
        assert_true(out[i] == (float)(i / N % 2 * N + i % N));
    program_free(p);
    buf_free(&text);
    arena_free(a);
}

int main(void)
{
    cuda_choose();
    if (!cuda_is_there())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_follow_their_version),
        cmocka_unit_test(rows_are_summed_apart),
        cmocka_unit_test(columns_are_summed_in_parts),
        cmocka_unit_test(deep_indices_compile),
        cmocka_unit_test(a_missing_device_is_named),
        cmocka_unit_test(two_devices_do_not_mix),
        cmocka_unit_test(indices_are_as_wide_as_needed),
        cmocka_unit_test(failing_calls_leave_nothing),
        cmocka_unit_test(products_in_bf16),
        cmocka_unit_test(products_in_tf32),
        cmocka_unit_test(products_in_large_tiles),
        cmocka_unit_test(tiles_do_not_change_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
