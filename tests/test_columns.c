/* Sums of columns that pass with rows: exact integers against plain loops, on every device; one kernel where that is possible. */
#include "ir/build.h"
#include "passes/pass.h"
#include "runtime/program.h"
#include "support/cuda.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH, HEIGHT, LINE, WIDTH, RANK };
enum { RESULTS = 4 };

/* x - sum of x's row; the sum of each column of that in parts, the squares' too; the row's sum. */
static Graph *columns_graph(Arena *a, Err *err, const int64_t *dim, int64_t parts, bool lines)
{
    Graph *g = graph_new(a, err, "columns");
    unsigned axes = lines ? 1u << HEIGHT | 1u << LINE : 1u << HEIGHT;
    Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, RANK, dim));
    Val row = g_reduce_mask(g, OP_SUM, x, 1u << WIDTH), apart = g_bin(g, OP_SUB, x, g_broadcast_like(g, row, x));
    graph_output(g, "apart", apart);
    graph_output(g, "columns", g_sum_parts(g, apart, axes, parts));
    graph_output(g, "squares", g_sum_parts(g, g_bin(g, OP_MUL, x, x), axes, parts));
    graph_output(g, "row", row);
    return g;
}

static int64_t count(const int64_t *dim, int n)
{
    return n ? dim[n - 1] * count(dim, n - 1) : 1;
}

static void expect(const int64_t *dim, int64_t parts, bool lines, const float *x, float *y[RESULTS])
{
    int64_t width = dim[WIDTH], height = dim[HEIGHT] / parts, left = lines ? 1 : dim[LINE];
    memset(y[1], 0, (size_t)(dim[BATCH] * parts * left * width) * sizeof(float));
    memset(y[2], 0, (size_t)(dim[BATCH] * parts * left * width) * sizeof(float));
    for (int64_t r = 0; r < count(dim, WIDTH); r++) {
        int64_t line = lines ? 0 : r % dim[LINE], part = r / dim[LINE] / height; /* of all samples' */
        y[3][r] = 0;
        for (int64_t c = 0; c < width; c++)
            y[3][r] += x[r * width + c];
        for (int64_t c = 0; c < width; c++) {
            float v = x[r * width + c];
            y[0][r * width + c] = v - y[3][r];
            y[1][(part * left + line) * width + c] += v - y[3][r];
            y[2][(part * left + line) * width + c] += v * v;
        }
    }
}

static void check(const char *device, const int64_t *dim, int64_t parts, bool lines)
{
    Err err = {0};
    Arena *a = arena_new();
    Program *p = program_compile(&err, columns_graph(a, &err, dim, parts, lines), &(ProgramOptions){.device = device});
    if (!p)
        fail_msg("%s: %s", device, err.text);
    int64_t n = count(dim, RANK);
    float *x = malloc((size_t)n * sizeof *x), *want[RESULTS], *have[RESULTS];
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((i * 7 + i / 13) % 5 - 2);
    for (int i = 0; i < RESULTS; i++) {
        want[i] = malloc((size_t)n * sizeof(float));
        have[i] = malloc((size_t)n * sizeof(float));
    }
    expect(dim, parts, lines, x, want);
    if (!program_run(p, &err, (void *[]){x}, (void **)have, 1, 2))
        fail_msg("%s: %s", device, err.text);
    for (int i = 0; i < RESULTS; i++) {
        Type t = program_output_type(p, i);
        for (int64_t k = 0; k < type_count(&t); k++)
            if (want[i][k] != have[i][k])
                fail_msg("%s: result %d, element %lld: %g, expected %g", device, i, (long long)k, (double)have[i][k], (double)want[i][k]);
        free(want[i]);
        free(have[i]);
    }
    free(x);
    program_free(p);
    arena_free(a);
}

static const int64_t shape[][RANK] = {{3, 12, 1, 40}, {2, 6, 5, 7}, {1, 24, 3, 130}, {4, 6, 1, 300}, {2, 12, 2, 1}};

static void columns_are_summed_in_parts(void **state)
{
    (void)state;
    static const char *const device[] = {"interp", "kernels", "cpu", "cuda"};
    for (int d = 0; d < (cuda_is_there() ? 4 : 3); d++)
        for (size_t s = 0; s < sizeof shape / sizeof *shape; s++)
            for (int64_t parts = 1; parts <= 6; parts += parts)
                for (int lines = 0; lines < 2 && shape[s][HEIGHT] % parts == 0; lines++)
                    check(device[d], shape[s], parts, lines);
}

/* Where parts stand beside what reads them, are all there is to a long sum, or are of axes that others would lie otherwise. */
static Graph *other_graph(Arena *a, Err *err, int which)
{
    static const int64_t dim[][3] = {{8, 16, 16}, {8192, 4, 1}, {6, 4, 8}};
    Graph *g = graph_new(a, err, "others");
    Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 3, dim[which]));
    Val row = g_reduce_mask(g, OP_SUM, x, 4), apart = g_bin(g, OP_MUL, x, g_broadcast_like(g, row, x));
    if (which == 0)
        graph_output(g, "y", g_bin(g, OP_SUB, apart, g_broadcast_like(g, g_sum_parts(g, apart, 3, 1), x)));
    else if (which == 1)
        graph_output(g, "y", g_sum_parts(g, x, 1, 2));
    else
        graph_output(g, "y", g_sum_parts(g, g_transpose(g, x, (int64_t[]){1, 0, 2}), 3, 2));
    return g;
}

static void parts_keep_their_meaning(void **state)
{
    (void)state;
    static const char *const device[] = {"kernels", "cpu", "cuda"};
    static float x[8192 * 4], want[8192 * 4], have[8192 * 4];
    for (int i = 0; i < 8192 * 4; i++)
        x[i] = (float)((i * 7 + i / 13) % 5 - 2);
    for (int which = 0; which < 3; which++)
        for (int d = -1; d < (cuda_is_there() ? 3 : 2); d++) {
            Err err = {0};
            Arena *a = arena_new();
            Program *p = program_compile(&err, other_graph(a, &err, which), &(ProgramOptions){.device = d < 0 ? "interp" : device[d]});
            if (!p || !program_run(p, &err, (void *[]){x}, (void *[]){d < 0 ? want : have}, 1, 2))
                fail_msg("%d: %s", which, err.text);
            Type t = program_output_type(p, 0);
            for (int64_t i = 0; d >= 0 && i < type_count(&t); i++)
                if (have[i] != want[i])
                    fail_msg("graph %d on %s, element %lld: %g, expected %g", which, device[d], (long long)i, (double)have[i], (double)want[i]);
            program_free(p);
            arena_free(a);
        }
}

static int kernels_of(const int64_t *dim, int64_t parts)
{
    Err err = {0};
    Arena *a = arena_new();
    PassCx cx = {.arena = a, .err = &err};
    const Graph *fused = passes_run(&cx, columns_graph(a, &err, dim, parts, true), "fuse");
    int kernels = 0;
    if (!fused)
        fail_msg("%s", err.text);
    for (Val v = 1; v < fused->n; v++)
        kernels += node_of(fused, v)->op == OP_FUSE;
    vec_free(cx.notes);
    vec_free(cx.times);
    arena_free(a);
    return kernels;
}

static void columns_pass_with_rows(void **state)
{
    (void)state;
    assert_int_equal(kernels_of((int64_t[]){8, 50, 1, 128}, 5), 1);
    assert_true(kernels_of((int64_t[]){8, 50, 1, 8192}, 5) > 1); /* more than is kept beside a row */
}

/* Rows of two axes with one between them, the last one short: x - sum of x over both. */
static void rows_may_lie_apart(void **state)
{
    (void)state;
    static const char *const device[] = {"interp", "kernels", "cpu", "cuda"};
    enum { B = 2, H = 100, G = 3, C = 5 };
    for (int d = 0; d < (cuda_is_there() ? 4 : 3); d++) {
        Err err = {0};
        Arena *a = arena_new();
        Graph *g = graph_new(a, &err, "groups");
        Val in = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 4, (int64_t[]){B, H, G, C}));
        graph_output(g, "y", g_bin(g, OP_SUB, in, g_broadcast_like(g, g_reduce_mask(g, OP_SUM, in, 2 | 8), in)));
        Program *p = program_compile(&err, g, &(ProgramOptions){.device = device[d]});
        float x[B][H][G][C], y[B][H][G][C], sum[B][G] = {{0}};
        for (int b = 0; b < B; b++)
            for (int h = 0; h < H; h++)
                for (int i = 0; i < G * C; i++)
                    sum[b][i / C] += x[b][h][i / C][i % C] = (float)((b * 5 + h * 3 + i * 7) % 11 - 4);
        if (!p || !program_run(p, &err, (void *[]){x}, (void *[]){y}, 1, 2))
            fail_msg("%s: %s", device[d], err.text);
        for (int b = 0; b < B; b++)
            for (int h = 0; h < H; h++)
                for (int i = 0; i < G * C; i++)
                    assert_true(y[b][h][i / C][i % C] == x[b][h][i / C][i % C] - sum[b][i / C]);
        program_free(p);
        arena_free(a);
    }
}

/* Each element of a part has the part's gradient. */
static void parts_have_gradients(void **state)
{
    (void)state;
    Err err = {0};
    Arena *a = arena_new();
    Graph *g = graph_new(a, &err, "gradient");
    Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){6, 2}));
    Val w = g_input(g, "w", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){3, 2}));
    Val loss = g_reshape(g, g_reduce_mask(g, OP_SUM, g_bin(g, OP_MUL, g_sum_parts(g, x, 1, 3), w), 3), 0, NULL);
    graph_output(g, "dx", g_pick(g, graph_node(g, OP_GRAD, (Val[]){loss, x}, 2, NULL, 0, NULL), 0));
    Program *p = program_compile(&err, g, &(ProgramOptions){.device = "interp"});
    if (!p)
        fail_msg("%s", err.text);
    float in[12] = {0}, weight[6] = {1, 2, 3, 4, 5, 6}, dx[12];
    void *args[2];
    args[program_input(p, "x")] = in;
    args[program_input(p, "w")] = weight;
    assert_true(program_run(p, &err, args, (void *[]){dx}, 1, 1));
    for (int i = 0; i < 12; i++)
        assert_true(dx[i] == weight[i / 4 * 2 + i % 2]);
    program_free(p);
    arena_free(a);
}

int main(void)
{
    cuda_choose();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_summed_in_parts),
        cmocka_unit_test(parts_keep_their_meaning),
        cmocka_unit_test(columns_pass_with_rows),
        cmocka_unit_test(rows_may_lie_apart),
        cmocka_unit_test(parts_have_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
