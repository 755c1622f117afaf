/* Programs on a CUDA device: what they compute, what fails, what is left.  The device is the stand-in of tests/cuda_standin,
 * unless DAV_CUDA_LIBRARY_PATH names another. */
#include "codegen/cuda/cuda.h"
#include "ir/build.h"
#include "passes/pass.h"
#include "runtime/cuda/driver.h"
#include "runtime/mstep.h"
#include "runtime/program.h"
#include "support/cuda.h"
#include "support/tiny_em.h"
#include <dlfcn.h>
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

static long long standin(const char *name)
{
    void *so = dlopen(DAV_CUDA_STANDIN "/libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    long long (*f)(void) = so ? (long long (*)(void))dlsym(so, name) : NULL;
    return f ? f() : 0;
}

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
    calls_of_run = standin("dav_standin_calls");
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
    assert_int_equal(standin("dav_standin_live"), 0);
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
    assert_int_equal(standin("dav_standin_live"), 0);
}

/* Every call of the driver but those of program_free fails once: an error with a name, and nothing is left. */
static void failing_calls_leave_nothing(void **state)
{
    (void)state;
    Err err = {0};
    float y[ROWS * COLS];
    int (*fail_in)(long long) = NULL;
    void *so = dlopen(DAV_CUDA_STANDIN "/libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    if (so)
        fail_in = (int (*)(long long))dlsym(so, "dav_standin_fail_in");
    if (!fail_in) {
        print_message("SKIPPED: the device is not the stand-in\n");
        skip();
    }
    long long before = standin("dav_standin_calls");
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
        if (standin("dav_standin_live") != 0)
            fail_msg("call %d (%s) leaves %lld objects", n, err.text, standin("dav_standin_live"));
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

/* ---- the method: the same search and the same M-step on both ---- */
enum { TRAJECTORIES = 24, STEPS = 3 };

static Trajectories *search_on(Tiny *t)
{
    SearchSettings s = tiny_settings(t, 0.5, 0.9, true);
    Trajectories *tr = search_run(t->k, &t->err, &s, 0, TRAJECTORIES, true);
    if (!tr)
        fail_msg("%s", t->err.text);
    return tr;
}

static void searches_choose_alike(void **state)
{
    (void)state;
    for (int guided = 0; guided < 2; guided++) {
        Tiny *a = tiny_new_on("cpu", 4, guided, STEPS, 32), *b = tiny_new_on("cuda", 4, guided, STEPS, 32);
        Trajectories *ta = search_on(a), *tb = search_on(b);
        int differ = 0;
        for (int i = 0; i < TRAJECTORIES * (STEPS + 1) * L; i++)
            differ += ta->state[i] != tb->state[i];
        assert_int_equal(differ, 0);
        for (int i = 0; i < TRAJECTORIES; i++) {
            assert_float_equal(ta->reward[i], tb->reward[i], 1e-5f);
            assert_true(fabs(ta->elbo[i] - tb->elbo[i]) < 1e-4);
        }
        trajectories_free(ta);
        trajectories_free(tb);
        tiny_free(a);
        tiny_free(b);
    }
    assert_int_equal(standin("dav_standin_live"), 0);
}

/* With the reward in the graph the host waits for the end of a run of trajectories, for no step of it; asked to go step by step it waits
 * for every program of each. */
static void trajectories_wait_for_nobody(void **state)
{
    (void)state;
    enum { ROWS_A_RUN = 32, CHILDREN = 4, RUNS = TRAJECTORIES * CHILDREN / ROWS_A_RUN };
    if (!standin("dav_standin_calls")) {
        print_message("SKIPPED: the device is not the stand-in\n");
        skip();
    }
    for (int guided = 0; guided < 2; guided++) {
        Tiny *t = tiny_new_on("cuda", CHILDREN, guided, STEPS, ROWS_A_RUN);
        Trajectories *first = search_on(t);
        long long before = standin("dav_standin_waits");
        Trajectories *whole = search_on(t);
        assert_int_equal(standin("dav_standin_waits") - before, RUNS);
        print_message("%s: %lld launches and copies a trajectory of %d steps\n", guided ? "guided" : "plain",
                      (long long)program_stats(t->k->whole->program).launches, STEPS);
        assert_true(program_stats(t->k->whole->program).captures == 1);
        t->spec.whole = WHOLE_NEVER;
        tiny_rebuild(t, "cuda", STEPS, ROWS_A_RUN);
        before = standin("dav_standin_waits");
        Trajectories *steps = search_on(t);
        assert_true(standin("dav_standin_waits") - before >= 3 * STEPS);
        assert_memory_equal(whole->state, steps->state, (size_t)TRAJECTORIES * (STEPS + 1) * L);
        assert_memory_equal(whole->reward, steps->reward, TRAJECTORIES * sizeof(float));
        assert_memory_equal(whole->elbo, steps->elbo, TRAJECTORIES * sizeof(double));
        trajectories_free(first);
        trajectories_free(whole);
        trajectories_free(steps);
        tiny_free(t);
    }
    assert_int_equal(standin("dav_standin_live"), 0);
}

/* Programs that are bound to another array work with that one, a captured run too. */
static void another_array_is_followed(void **state)
{
    (void)state;
    Trajectories *tr[2][2];
    for (int d = 0; d < 2; d++) {
        Tiny *t = tiny_new_on(d ? "cuda" : "cpu", 4, false, STEPS, 32);
        float *other = params_flat(t->theta);
        for (int64_t i = 0; i < t->theta->size; i++)
            other[i] = -2 * t->theta->value[i];
        flat_wrote(other);
        tr[d][0] = search_on(t);
        masked_bind(t->k, other);
        tr[d][1] = search_on(t);
        tiny_free(t);
        flat_free(other);
    }
    const size_t bytes = (size_t)TRAJECTORIES * (STEPS + 1) * L;
    assert_memory_not_equal(tr[0][0]->state, tr[0][1]->state, bytes);
    for (int i = 0; i < 2; i++)
        assert_memory_equal(tr[0][i]->state, tr[1][i]->state, bytes);
    for (int i = 0; i < 4; i++)
        trajectories_free(tr[i / 2][i % 2]);
    assert_int_equal(standin("dav_standin_live"), 0);
}

/* Two updates of all parameters by the M-step on the CPU's trajectories. */
static void learn_alike(void)
{
    Tiny *t[2] = {tiny_new_on("cpu", 4, false, STEPS, 32), tiny_new_on("cuda", 4, false, STEPS, 32)};
    Trajectories *tr = search_on(t[0]);
    MStepReport r[2];
    for (int d = 0; d < 2; d++) {
        const BuildOptions o = {.compile = {.precision = DAV_F32}, .device = d ? "cuda" : "cpu", .rows = 16};
        Optim *optim = optim_new(&t[d]->err, t[d]->theta, &o.compile, o.device);
        MStep s = {.distil = masked_distil(&t[d]->err, &t[d]->spec, &o, t[d]->theta, optim)};
        if (!s.distil)
            fail_msg("%s", t[d]->err.text);
        MStepSettings set = {.optim = {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-3, .clip = 1, .ema = 0.9}, .epochs = 1,
                             .batch = 36, .seed = 1};
        if (!mstep_run(&s, &t[d]->err, t[d]->k, tr, &set, t[d]->theta, optim, &r[d]))
            fail_msg("%s", t[d]->err.text);
        rows_free(s.distil);
        optim_free(optim);
    }
    assert_true(r[0].updates >= 2 && r[0].updates == r[1].updates);
    assert_true(fabs(r[0].loss - r[1].loss) < 1e-5 && fabs(r[0].grad_norm - r[1].grad_norm) < 1e-4);
    for (int d = 0; d < 2; d++)
        assert_true(flat_read(&t[d]->err, t[d]->theta->value));
    for (int64_t i = 0; i < t[0]->theta->size; i++)
        assert_float_equal(t[0]->theta->value[i], t[1]->theta->value[i], 1e-5f);
    trajectories_free(tr);
    tiny_free(t[0]);
    tiny_free(t[1]);
    assert_int_equal(standin("dav_standin_live"), 0);
}

static void msteps_learn_alike(void **state)
{
    (void)state;
    learn_alike();
}

/* All its plain products by cuBLASLt. */
static void msteps_learn_alike_by_a_library(void **state)
{
    (void)state;
    setenv("DAV_CUDA_BLASLT", "1", 1);
    learn_alike();
    unsetenv("DAV_CUDA_BLASLT");
    void *so = dlopen(DAV_CUDA_STANDIN "/libcublasLt.so.13", RTLD_NOW | RTLD_NOLOAD);
    long long (*products)(void) = so ? (long long (*)(void))dlsym(so, "dav_standin_products") : NULL;
    assert_true(!products || products() > 10);
}

/* Bytes that a run has to bring or take: of what lies in no flat array. */
static long long bytes_of_ends(const Program *p, const char *const *kept, bool output)
{
    long long sum = 0;
    for (int i = 0; i < (output ? program_output_count(p) : program_input_count(p)); i++) {
        const char *name = output ? program_output_name(p, i) : program_input_name(p, i);
        Type t = output ? program_output_type(p, i) : program_input_type(p, i);
        bool counts = true;
        for (int k = 0; kept[k]; k++)
            counts = counts && strncmp(name, kept[k], strlen(kept[k])) != 0;
        if (counts)
            sum += (type_count(&t) * (int64_t)dav_dtype_size(t.dtype) + 255) / 256 * 256;
    }
    return sum;
}

/* After the first update nothing but batches, losses and the norm is copied; the host gets the parameters when it asks for them. */
static void parameters_stay_on_the_device(void **state)
{
    (void)state;
    static const char *const theta[] = {"theta.", "acc.theta.", NULL}, *const all[] = {"theta", "grad", "m", "v", "ema", NULL},
                      *const made[] = {"theta'", "grad'", "m'", "v'", "ema'", NULL};
    if (!standin("dav_standin_calls")) {
        print_message("SKIPPED: the device is not the stand-in\n");
        skip();
    }
    Tiny *t = tiny_new_on("cuda", 4, false, STEPS, 32);
    Trajectories *tr = search_on(t);
    const BuildOptions o = {.compile = {.precision = DAV_F32}, .device = "cuda", .rows = 16};
    Optim *optim = optim_new(&t->err, t->theta, &o.compile, "cuda");
    MStep s = {.distil = masked_distil(&t->err, &t->spec, &o, t->theta, optim)};
    MStepSettings set = {.optim = {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-3, .clip = 1, .ema = 0.9}, .epochs = 1, .batch = 32};
    MStepReport r;
    long long in[2], out[2];
    for (int i = 0; i < 2; i++) {
        in[i] = standin("dav_standin_bytes_to_device");
        out[i] = standin("dav_standin_bytes_to_host");
        if (!s.distil || !mstep_run(&s, &t->err, t->k, tr, &set, t->theta, optim, &r))
            fail_msg("%s", t->err.text);
        in[i] = standin("dav_standin_bytes_to_device") - in[i];
        out[i] = standin("dav_standin_bytes_to_host") - out[i];
    }
    const Program *learn = s.distil->program, *update = optim->program;
    long long runs = 0;
    for (long long left = r.states; left > 0; left -= set.batch)
        runs += ((left < set.batch ? left : set.batch) + o.rows - 1) / o.rows;
    assert_int_equal(in[1], runs * bytes_of_ends(learn, theta, false) + r.updates * bytes_of_ends(update, all, false));
    assert_int_equal(out[1], runs * bytes_of_ends(learn, theta, true) + r.updates * bytes_of_ends(update, made, true));
    assert_true(isnan(t->theta->value[0])); /* poisoned: the device has the newer ones */
    assert_true(flat_read(&t->err, t->theta->value));
    for (int64_t i = 0; i < t->theta->size; i++)
        assert_true(isfinite(t->theta->value[i]));
    t->theta->value[0] = 7; /* and what the host writes goes there */
    flat_wrote(t->theta->value);
    params_touch(t->theta);
    set.optim.lr = 0;
    assert_true(mstep_run(&s, &t->err, t->k, tr, &set, t->theta, optim, &r) && flat_read(&t->err, t->theta->value));
    assert_true(t->theta->value[0] == 7);
    trajectories_free(tr);
    rows_free(s.distil);
    optim_free(optim);
    tiny_free(t);
    assert_int_equal(standin("dav_standin_live"), 0);
}

/* Philox and all else of a row: alone, among others, in another micro-batch. */
static void rows_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    static const int64_t rows[] = {1, 7, 64};
    Trajectories *tr[3];
    for (int i = 0; i < 3; i++) {
        Tiny *t = tiny_new_on("cuda", 2, false, STEPS, rows[i]);
        tr[i] = search_on(t);
        tiny_free(t);
    }
    for (int i = 1; i < 3; i++) {
        assert_memory_equal(tr[0]->state, tr[i]->state, (size_t)TRAJECTORIES * (STEPS + 1) * L);
        assert_memory_equal(tr[0]->reward, tr[i]->reward, TRAJECTORIES * sizeof(float));
        assert_memory_equal(tr[0]->elbo, tr[i]->elbo, TRAJECTORIES * sizeof(double));
    }
    for (int i = 0; i < 3; i++)
        trajectories_free(tr[i]);
}

int main(void)
{
    cuda_choose();
    if (!cuda_is_there())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_follow_their_version),
        cmocka_unit_test(rows_are_summed_apart), cmocka_unit_test(a_missing_device_is_named),
        cmocka_unit_test(two_devices_do_not_mix),
        cmocka_unit_test(indices_are_as_wide_as_needed),
        cmocka_unit_test(failing_calls_leave_nothing),
        cmocka_unit_test(products_in_bf16),
        cmocka_unit_test(products_in_tf32),
        cmocka_unit_test(products_in_large_tiles),
        cmocka_unit_test(tiles_do_not_change_bits),
        cmocka_unit_test(searches_choose_alike),
        cmocka_unit_test(trajectories_wait_for_nobody),
        cmocka_unit_test(another_array_is_followed),
        cmocka_unit_test(msteps_learn_alike),
        cmocka_unit_test(msteps_learn_alike_by_a_library),
        cmocka_unit_test(parameters_stay_on_the_device),
        cmocka_unit_test(rows_do_not_depend_on_the_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
