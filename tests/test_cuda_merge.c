/* Several kernels in one launch: that they compute what each does alone, that none touches what another one writes, and
 * that memory is not used twice at a time.  The device is the stand-in, which watches threads and blocks for races. */
#include "codegen/cuda/merge.h"
#include "ir/build.h"
#include "passes/plan.h"
#include "runtime/program.h"
#include "support/cuda.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TENSORS = 12, MOST = 4096, LINES = 64, LENGTH = 40 };

/* Four shapes, each three times. */
static int64_t rows_of(int i)
{
    return 1 + 17 * (i % 4);
}

static int64_t columns_of(int i)
{
    return i % 4 == 0 ? 64 : i % 4 == 1 ? 5 : 37;
}

static Type tensor(int i)
{
    return type_make(DAV_F32, 2, (int64_t[]){rows_of(i), columns_of(i)});
}

/* What training ends with: to each accumulator a sum over rows is added, to each other tensor its square. */
static Graph *accumulations(Arena *a, Err *err)
{
    Graph *g = graph_new(a, err, "accumulations");
    Val x[TENSORS], acc[TENSORS], all[TENSORS];
    for (int i = 0; i < TENSORS; i++) {
        Type row = type_make(DAV_F32, 2, (int64_t[]){1, columns_of(i)});
        x[i] = g_input(g, arena_printf(a, "x%d", i), ROLE_DATA, tensor(i));
        acc[i] = g_input(g, arena_printf(a, "acc%d", i), ROLE_DATA, row);
        all[i] = g_input(g, arena_printf(a, "all%d", i), ROLE_DATA, tensor(i));
    }
    for (int i = 0; i < TENSORS; i++) {
        graph_output(g, arena_printf(a, "sum%d", i), g_bin(g, OP_ADD, acc[i], g_reduce_mask(g, OP_SUM, x[i], 1)));
        graph_output(g, arena_printf(a, "square%d", i), g_bin(g, OP_ADD, all[i], g_bin(g, OP_MUL, x[i], x[i])));
    }
    return g;
}

static float value_at(int i, int64_t k)
{
    return (float)((k * 7 + i * 3) % 11) - 5; /* small integers: sums are exact in any order */
}

/* 24 results, in the memory of their accumulators, in two launches. */
static void accumulations_share_launches(void **state)
{
    (void)state;
    Err err = {0};
    Arena *a = arena_new();
    static float memory[3 * TENSORS][MOST];
    void *in[3 * TENSORS], *out[2 * TENSORS];
    Buf inplace = {0};
    for (int i = 0; i < TENSORS; i++)
        buf_printf(&inplace, "%sacc%d=sum%d;all%d=square%d", i ? ";" : "", i, i, i, i);
    Program *p =
        program_compile(&err, accumulations(a, &err), &(ProgramOptions){.device = "cuda", .inplace = inplace.at});
    if (!p)
        fail_msg("%s", err.text);
    assert_int_equal(program_stats(p).launches, 2);
    for (int i = 0; i < TENSORS; i++)
        for (int part = 0; part < 3; part++) {
            in[3 * i + part] = memory[3 * i + part];
            for (int64_t k = 0; k < rows_of(i) * columns_of(i); k++)
                memory[3 * i + part][k] = part == 0 ? value_at(i, k) : part == 1 ? 100 : 1000;
        }
    for (int i = 0; i < 2 * TENSORS; i++)
        out[i] = NULL;
    for (int run = 1; run <= 2; run++) /* the second one replays the first */
        if (!program_run(p, &err, in, out, (uint64_t)run, 1))
            fail_msg("%s", err.text);
    for (int i = 0; i < TENSORS; i++) {
        for (int64_t c = 0; c < columns_of(i); c++) {
            float sum = 100;
            for (int64_t r = 0; r < rows_of(i); r++)
                sum += 2 * value_at(i, r * columns_of(i) + c);
            assert_float_equal(memory[3 * i + 1][c], sum, 0);
        }
        for (int64_t k = 0; k < rows_of(i) * columns_of(i); k++)
            assert_float_equal(memory[3 * i + 2][k], 1000 + 2 * value_at(i, k) * value_at(i, k), 0);
    }
    program_free(p);
    buf_free(&inplace);
    arena_free(a);
}

static Val running_sum(Graph *g, Val x)
{
    Attr attr[] = {{.name = A_AXIS, .i = 1}, {.name = A_EXCLUSIVE, .i = 0}, {.name = A_REVERSE, .i = 0}};
    return graph_node(g, OP_CUMSUM, &x, 1, attr, 3, NULL);
}

static Val product(Graph *g, Val x, Val w)
{
    ContractSpec s;
    spec_parse(g->err, "a c, c b -> a b | c=48", &s);
    s.extent[0] = 70;
    s.extent[1] = 33;
    return g_contract(g, x, w, &s, DAV_F32);
}

/* Rows and columns end within a block's tile: what is beyond is nobody's. */
static void equal_products_share_a_launch(void **state)
{
    (void)state;
    enum { R = 70, K = 48, C = 33, N = 3 };
    Err err = {0};
    Arena *a = arena_new();
    Graph *g = graph_new(a, &err, "products");
    static float x[N][R * K], w[N][K * C], y[N][R * C];
    void *in[2 * N], *out[N];
    for (int i = 0; i < N; i++) {
        Val vx = g_input(g, arena_printf(a, "x%d", i), ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){R, K}));
        Val vw = g_input(g, arena_printf(a, "w%d", i), ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){K, C}));
        graph_output(g, arena_printf(a, "y%d", i), product(g, vx, vw));
        for (int k = 0; k < R * K; k++)
            x[i][k] = value_at(i, k);
        for (int k = 0; k < K * C; k++)
            w[i][k] = value_at(i + 1, 3 * k);
        in[2 * i] = x[i];
        in[2 * i + 1] = w[i];
        out[i] = y[i];
    }
    Program *p = program_compile(&err, g, &(ProgramOptions){.device = "cuda"});
    if (!p || !program_run(p, &err, in, out, 1, 1))
        fail_msg("%s", err.text);
    assert_int_equal(program_stats(p).launches, 1);
    for (int i = 0; i < N; i++)
        for (int r = 0; r < R; r++)
            for (int c = 0; c < C; c++) {
                float sum = 0;
                for (int k = 0; k < K; k++)
                    sum += x[i][r * K + k] * w[i][k * C + c];
                assert_float_equal(y[i][r * C + c], sum, 0);
            }
    program_free(p);
    arena_free(a);
}

/* ---- plans ---- */
static uint64_t one_class(const Graph *kernel)
{
    (void)kernel;
    return 1;
}

static Val backwards(Graph *g, Val x)
{
    Attr axes = {.name = A_AXES, .n = 1, .ints = (int64_t[]){1}};
    return graph_node(g, OP_REVERSE, &x, 1, &axes, 1, NULL);
}

/* Chains of running sums of different lengths, each ending in an output; none may overwrite what it reads. */
static Graph *chains(Arena *a, Err *err)
{
    Graph *g = graph_new(a, err, "chains");
    for (int i = 0; i < 6; i++) {
        Val v = g_input(g, arena_printf(a, "x%d", i), ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){64, 64}));
        for (int k = 0; k <= i; k++)
            v = running_sum(g, backwards(g, v));
        graph_output(g, arena_printf(a, "y%d", i), v);
    }
    return g;
}

/* Two readers of one intermediate value, one of them element by element and last: alone it would take over its memory.
 */
static Graph *neighbours(Arena *a, Err *err)
{
    Graph *g = graph_new(a, err, "neighbours");
    Val x = running_sum(g, g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 2, (int64_t[]){LINES, LENGTH})));
    Val sums = running_sum(g, x), bent = g_un(g, OP_TANH, x); /* too dear to be computed again where it is read */
    graph_output(g, "sums", running_sum(g, sums));
    graph_output(g, "bent", running_sum(g, bent));
    return g;
}

static Plan *plan_of(Arena *a, PassCx *cx, const Graph *g, const PlanGrouping *how)
{
    static const CompileOptions none = {0};
    cx->arena = a;
    cx->options = &none;
    const Graph *low = passes_run(cx, g, NULL);
    if (!low)
        fail_msg("%s", cx->err->text);
    return plan_make_grouped(a, low, NULL, how);
}

static bool writes(const Plan *p, const PlanStep *s, int j)
{
    return j >= node_of(p->g, s->node)->narg;
}

/* Memory that a step writes is touched by no other step of its group. */
static void check_groups(const Plan *p)
{
    for (int i = 0; i < p->nstep; i++)
        for (int o = 0; o < p->nstep; o++) {
            const PlanStep *s = &p->step[i], *t = &p->step[o];
            for (int j = 0; i != o && s->group == t->group && j < s->nbuf; j++)
                for (int k = 0; writes(p, s, j) && k < t->nbuf; k++) {
                    const PlanBuf *x = &p->buf[s->buf[j]], *y = &p->buf[t->buf[k]];
                    if (x->place == AT_ARENA && y->place == AT_ARENA && x->offset < y->offset + y->bytes &&
                        y->offset < x->offset + x->bytes)
                        fail_msg("steps %d and %d share a launch and memory at %lld", i, o, (long long)x->offset);
                }
        }
}

static int groups_of(const Plan *p)
{
    int n = 0;
    for (int i = 0; i < p->nstep; i++) {
        assert_true(p->step[i].group <= i && p->step[p->step[i].group].group == p->step[i].group);
        n += p->step[i].group == i;
    }
    return n;
}

/* Chains of 1 to 6 steps need as many launches as the longest is long, and one each when a group holds the buffers of
 * one. */
static void chains_go_in_step(void **state)
{
    (void)state;
    static const struct {
        Graph *(*make)(Arena *, Err *);
        PlanGrouping how;
        int steps, groups;
    } row[] = {
        {chains, {one_class, 100, 8, INT64_MAX}, 21, 6},
        {chains, {one_class, 2, 8, INT64_MAX}, 21, 21},
        {neighbours, {one_class, 100, 8, INT64_MAX}, 5, 3},
    };
    Arena *a = arena_new();
    for (size_t r = 0; r < sizeof row / sizeof *row; r++) {
        Err err = {0};
        PassCx cx = {.err = &err};
        Plan *p = plan_of(a, &cx, row[r].make(a, &err), &row[r].how);
        check_groups(p);
        assert_int_equal(p->nstep, row[r].steps);
        assert_int_equal(groups_of(p), row[r].groups);
        vec_free(cx.notes);
        vec_free(cx.times);
    }
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accumulations_share_launches),
        cmocka_unit_test(equal_products_share_a_launch),
        cmocka_unit_test(chains_go_in_step),
    };
    setenv("DAV_STANDIN_RACE", "1", 1);
    cuda_choose();
    if (!cuda_is_there())
        return 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
