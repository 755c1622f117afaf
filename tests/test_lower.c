/* Lowered graphs against the reference interpreter: random graphs through the whole pipeline, kernels interpreted and
 * compiled. */
#include "runtime/program.h"
#include "ir/print.h"
#include "support/random_graph.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_BUFS = 16 };

typedef struct Tensors { void *in[MAX_BUFS], *out[MAX_BUFS]; } Tensors;

static void *tensor_alloc(const Type *t)
{
    size_t bytes = (size_t)type_count(t) * dav_dtype_size(t->dtype);
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    memset(p, 0xa5, bytes);
    return p;
}

static void run_on(const char *device, const Graph *g, Tensors *t, int threads)
{
    Err err = {0};
    ProgramOptions o = {.device = device, .compile = {.dump = getenv("DUMP")}};
    Program *p = program_compile(&err, g, &o);
    if (!p)
        fail_msg("%s: %s", device, err.text);
    for (int i = 0; i < program_output_count(p); i++) {
        Type type = program_output_type(p, i);
        t->out[i] = tensor_alloc(&type);
    }
    if (!program_run(p, &err, t->in, t->out, 1, threads))
        fail_msg("%s: %s", device, err.text);
    program_free(p);
}

static double at(const Type *t, const void *data, int64_t i)
{
    return t->dtype == DAV_F32 ? (double)((const float *)data)[i] : (double)((const int32_t *)data)[i];
}

static void compare(const Graph *g, const char *device, uint64_t seed, const Tensors *want, const Tensors *have)
{
    for (int o = 0; o < g->nout; o++) {
        Type t = type_of(g, g->out[o].val);
        double largest = 1;
        for (int64_t i = 0; i < type_count(&t); i++)
            largest = fabs(at(&t, want->out[o], i)) > largest ? fabs(at(&t, want->out[o], i)) : largest;
        for (int64_t i = 0; i < type_count(&t); i++) {
            double a = at(&t, want->out[o], i), b = at(&t, have->out[o], i);
            if (fabs(a - b) <= 2e-4 * largest || (a != a && b != b) || a == b)
                continue;
            Buf text = {0};
            graph_print(&text, g);
            fprintf(stderr, "%s", text.at);
            fail_msg("%s, seed %llu, output %d, element %lld: expected %g, found %g", device, (unsigned long long)seed,
                     o, (long long)i, a, b);
        }
    }
}

static void free_tensors(Tensors *t, int nin, int nout)
{
    for (int i = 0; i < nin; i++)
        free(t->in[i]);
    for (int i = 0; i < nout; i++)
        free(t->out[i]);
}

static void check_seed(uint64_t seed, int ops)
{
    Rng r = {seed};
    Err err = {0};
    Arena *arena = arena_new();
    Graph *g = random_graph(arena, &err, &r, ops);
    if (err.kind)
        fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
    int nin;
    Val *in = graph_inputs(g, arena, &nin);
    Tensors want = {0}, have = {0};
    for (int i = 0; i < nin; i++) {
        Type t = type_of(g, in[i]);
        want.in[i] = have.in[i] = tensor_alloc(&t);
        random_fill(&r, &t, want.in[i]);
    }
    run_on("interp", g, &want, 1);
    static const char *const devices[] = {"kernels", "cpu"};
    for (int d = 0; d < 2; d++) {
        run_on(devices[d], g, &have, 1);
        compare(g, devices[d], seed, &want, &have);
        if (d == 1) { /* the same bits from two threads */
            Tensors two = have;
            run_on("cpu", g, &two, 2);
            for (int o = 0; o < g->nout; o++) {
                Type t = type_of(g, g->out[o].val);
                assert_memory_equal(two.out[o], have.out[o], (size_t)type_count(&t) * dav_dtype_size(t.dtype));
            }
            free_tensors(&two, 0, g->nout);
        }
        free_tensors(&have, 0, g->nout);
    }
    free_tensors(&want, nin, g->nout);
    arena_free(arena);
}

static void test_random_graphs(void **state)
{
    (void)state;
    const char *from = getenv("SEED"), *count = getenv("SEEDS");
    uint64_t first = from ? strtoull(from, NULL, 10) : 1, n = count ? strtoull(count, NULL, 10) : 120;
    for (uint64_t s = first; s < first + n; s++)
        check_seed(s, 3 + (int)(s % 28));
}

/* ---- compositions come back as single kernels, with their gradients ---- */
static Val normalised(Graph *g, Val x, Val gamma)
{
    Type row = type_of(g, x);
    double scale = 1.0 / (double)row.dim[2];
    row.dim[2] = 1;
    Val mean = g_bin(g, OP_MUL, g_reduce_mask(g, OP_SUM, x, 4), g_const(g, row, scale));
    Val c = g_bin(g, OP_SUB, x, g_broadcast_like(g, mean, x));
    Val var = g_bin(g, OP_MUL, g_reduce_mask(g, OP_SUM, g_bin(g, OP_MUL, c, c), 4), g_const(g, row, scale));
    Val rstd = g_un(g, OP_RSQRT, g_bin(g, OP_ADD, var, g_const(g, row, 1e-5)));
    return g_bin(g, OP_MUL, g_bin(g, OP_MUL, c, g_broadcast_like(g, rstd, c)), g_broadcast_like(g, gamma, c));
}

static Val softmaxed(Graph *g, Val x, Val unused)
{
    (void)unused;
    Val e = g_un(g, OP_EXP, g_bin(g, OP_SUB, x, g_broadcast_like(g, g_reduce_mask(g, OP_RMAX, x, 4), x)));
    return g_bin(g, OP_DIV, e, g_broadcast_like(g, g_reduce_mask(g, OP_SUM, e, 4), e));
}

static void test_single_kernels(void **state)
{
    (void)state;
    static Val (*const make[])(Graph *, Val, Val) = {normalised, softmaxed};
    for (int m = 0; m < 2; m++)
        for (int backward = 0; backward < 2; backward++) {
            Err err = {0};
            Arena *arena = arena_new();
            Graph *g = graph_new(arena, &err, "single");
            Type t = type_make(DAV_F32, 3, (int64_t[]){8, 50, 128});
            Val x = g_input(g, "x", ROLE_DATA, t),
                gamma = g_input(g, "gamma", ROLE_PARAM, type_make(DAV_F32, 3, (int64_t[]){1, 1, 128}));
            Val y = make[m](g, x, gamma);
            if (backward) {
                Val dy = g_input(g, "dy", ROLE_DATA, t);
                Val loss = g_reshape(g, g_reduce_mask(g, OP_SUM, g_bin(g, OP_MUL, y, dy), 7), 0, NULL);
                y = g_pick(g, graph_node(g, OP_GRAD, (Val[]){loss, x}, 2, NULL, 0, NULL), 0);
            }
            graph_output(g, "y", y);
            PassCx cx = {.arena = arena, .err = &err};
            const Graph *fused = passes_run(&cx, g, "fuse");
            if (!fused)
                fail_msg("%s", err.text);
            int kernels = 0;
            for (Val v = 1; v < fused->n; v++)
                kernels += node_of(fused, v)->op == OP_FUSE;
            assert_int_equal(kernels, 1);
            vec_free(cx.notes);
            vec_free(cx.times);
            arena_free(arena);
        }
}

/* ---- sorting: short lines are counted, long ones merged ---- */
enum { SORT_ROWS = 3 };

/* Whether key a stands before key b by the table of ops: in order, NaN last, equals as they came. */
static bool stands_before(double a, double b, int64_t ia, int64_t ib, bool down)
{
    if ((a != a) != (b != b))
        return b != b;
    if (a == b || (a != a && b != b))
        return ia < ib;
    return down ? a > b : a < b;
}

static void check_sort(const char *device, DavDtype t, int64_t len, int axis, bool down)
{
    Err err = {0};
    Arena *arena = arena_new();
    Rng r = {(uint64_t)(len * 8 + axis * 2 + down)};
    Graph *g = graph_new(arena, &err, "sort");
    Type type = type_make(DAV_F32, 2, axis ? (int64_t[]){SORT_ROWS, len} : (int64_t[]){len, SORT_ROWS});
    Val x = g_input(g, "x", ROLE_DATA, type);
    Attr a[] = {{.name = A_AXIS, .i = axis}, {.name = A_DESCENDING, .i = down}};
    graph_output(g, "y", graph_node(g, OP_ARGSORT, (Val[]){t == DAV_F32 ? x : g_cast(g, x, t)}, 1, a, 2, NULL));
    Tensors io = {.in = {tensor_alloc(&type)}};
    float *key = io.in[0];
    for (int64_t i = 0; i < SORT_ROWS * len; i++) { /* many equals, some NaN, both zeros, infinities */
        int v = (int)(rng_next(&r) % 64);
        key[i] = v == 0 && t != DAV_I32 ? NAN : v == 1 && t != DAV_I32 ? INFINITY : v == 2 ? -0.0f : (float)(v % 32 - 9);
    }
    run_on(device, g, &io, 1);
    const int32_t *y = io.out[0];
    for (int row = 0; row < SORT_ROWS; row++) {
        int64_t step = axis ? 1 : SORT_ROWS, base = axis ? row * len : row;
        bool *seen = calloc((size_t)len, 1);
        for (int64_t i = 0; i < len; i++) {
            int64_t k = y[base + i * step], before = i ? y[base + (i - 1) * step] : 0;
            assert_true(k >= 0 && k < len && !seen[k]);
            seen[k] = true;
            if (i && !stands_before(key[base + before * step], key[base + k * step], before, k, down))
                fail_msg("%s: %lld of %lld, axis %d: %lld does not stand before %lld", device, (long long)i, (long long)len, axis,
                         (long long)before, (long long)k);
        }
        free(seen);
    }
    free_tensors(&io, 1, 1);
    arena_free(arena);
}

static void test_sorts(void **state)
{
    (void)state;
    static const char *const devices[] = {"interp", "kernels", "cpu"};
    static const int64_t lengths[] = {1, 2, 256, 257, 1000, 1024};
    for (int d = 0; d < 3; d++)
        for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++)
            for (int way = 0; way < 4; way++)
                check_sort(devices[d], n % 2 ? DAV_F32 : DAV_BF16, lengths[n], way % 2, way / 2);
    check_sort("cpu", DAV_I32, 777, 0, true);
    check_sort("cpu", DAV_F64, 777, 1, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_single_kernels),
        cmocka_unit_test(test_sorts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
