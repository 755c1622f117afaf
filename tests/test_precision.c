/* bf16: which values the pass rounds, and how far the results are from f32. */
#include "frontend/net.h"
#include "ir/dtype.h"
#include "ir/interp.h"
#include "ir/kernel.h"
#include "passes/pass.h"
#include "runtime/program.h"
#include "support/random_graph.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 6, CHANNELS = 16, LENGTH = 24 };

static DavVal block(DavNet *n, const char *name, DavVal x)
{
    DavVal h = dav_layer_norm(n, dav_name(n, "%s.norm", name), x, .axis = 1);
    h = dav_conv(n, dav_name(n, "%s.conv", name), h, CHANNELS, .kernel = {5}, .pad = {2});
    return dav_add(x, dav_relu(h));
}

/* Residual convolutions, logits, cross-entropy; outputs: loss, and the gradient of each parameter. */
static const Graph *network(Arena *arena, Err *err, DavDtype precision)
{
    DavNet *n = net_new(arena, err, "net");
    DavVal x = dav_input(n, "x", DAV_F32, BATCH, CHANNELS, LENGTH),
           target = dav_input(n, "target", DAV_I32, BATCH, LENGTH);
    DavVal h = block(n, "b", block(n, "a", x)), xs[32], grads[32];
    DavVal loss = dav_mean(dav_cross_entropy(dav_linear(n, "head", dav_swap(h, 1, 2), 6), target), 0, 1);
    int count = net_param_count(n);
    for (int i = 0; i < count; i++)
        xs[i] = net_val(n, net_param(n, i)->val);
    dav_grads(loss, xs, count, grads);
    dav_output(n, "loss", loss);
    for (int i = 0; i < count; i++)
        dav_output(n, arena_printf(arena, "grad.%s", net_param(n, i)->name), grads[i]);
    CompileOptions options = {.precision = precision};
    PassCx cx = {.arena = arena, .err = err, .options = &options};
    const Graph *g = passes_run(&cx, n->g, "tidy");
    if (!g)
        fail_msg("%s", err->text);
    vec_free(cx.times);
    net_free(n);
    return g;
}

static void test_what_is_rounded(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    const Graph *g = network(arena, &err, DAV_BF16);
    int contractions = 0;
    for (Val v = 1; v < g->n; v++) {
        const Node *n = node_of(g, v);
        if (n->op == OP_CONTRACT) {
            contractions++;
            assert_int_equal(node_of(g, n->arg[0])->dtype, DAV_BF16);
            assert_int_equal(node_of(g, n->arg[1])->dtype, DAV_BF16);
            assert_int_equal(n->dtype, DAV_F32); /* accumulated and handed on in f32 */
        } else if (n->dtype == DAV_BF16) {       /* nothing else is computed in bf16 */
            assert_true(n->op == OP_CAST || n->op == OP_RESHAPE || n->op == OP_TRANSPOSE || n->op == OP_BROADCAST);
        }
        if (n->op == OP_INPUT && n->dtype != DAV_I32)
            assert_int_equal(n->dtype, DAV_F32); /* masters */
    }
    assert_int_equal(contractions, 9); /* forward, weights and inputs of 3 layers */
    for (int k = 0; k < g->nout; k++)
        assert_int_equal(node_of(g, g->out[k].val)->dtype, DAV_F32);
    /* a value is rounded once, whoever reads it */
    for (Val v = 1; v < g->n; v++)
        for (Val w = v + 1; w < g->n; w++)
            assert_false(node_of(g, v)->op == OP_CAST && node_of(g, w)->op == OP_CAST &&
                         node_of(g, v)->dtype == DAV_BF16 && node_of(g, w)->dtype == DAV_BF16 &&
                         node_of(g, v)->arg[0] == node_of(g, w)->arg[0]);
    arena_free(arena);
}

/* h' = tanh(h w + x), a loop of products: those of the body are in bf16, forward and backward. */
static void test_loops_are_rounded(void **state)
{
    (void)state;
    enum { N = 16, TRIP = 3 };
    Arena *arena = arena_new();
    Err err = {0};
    Type t = type_make(DAV_F32, 2, (int64_t[]){N, N});
    Graph *body = graph_new(arena, &err, "step"), *g = graph_new(arena, &err, "scan");
    Val h = g_input(body, "h", ROLE_DATA, t), w = g_input(body, "w", ROLE_DATA, t);
    ContractSpec c = {.nloop = 3, .nout = 2, .extent = {N, N, N}, .rank = {2, 2}};
    const int loop[2][2] = {{0, 2}, {2, 1}};
    for (int o = 0; o < 2; o++)
        for (int d = 0; d < 2; d++)
            c.dim[o][d] = (DimExpr){.nterm = 1, .loop = {loop[o][d]}, .coef = {1}, .div = 1};
    graph_output(body, "next", g_un(body, OP_TANH, g_contract(body, h, w, &c, DAV_F32)));
    Val args[] = {g_input(g, "h0", ROLE_DATA, t), g_input(g, "w", ROLE_PARAM, t)};
    Attr a[] = {{.name = A_TRIP, .i = TRIP}, {.name = A_CARRY, .i = 1}, {.name = A_SCAN, .i = 0}};
    Val last = g_pick(g, g_region(g, OP_LOOP, body, args, 2, a, 3), 0), total = g_reduce_mask(g, OP_SUM, last, 3);
    Val grad = graph_node(g, OP_GRAD, (Val[]){total, args[1]}, 2, NULL, 0, NULL);
    graph_output(g, "total", total);
    graph_output(g, "dw", g_pick(g, grad, 0));
    CompileOptions options = {.precision = DAV_BF16};
    PassCx cx = {.arena = arena, .err = &err, .options = &options};
    const Graph *out = passes_run(&cx, g, "precision");
    if (!out)
        fail_msg("%s", err.text);
    int contractions = 0;
    for (Val v = 1; v < out->n; v++) {
        if (node_of(out, v)->op != OP_LOOP)
            continue;
        const Graph *inner = attr_graph(node_of(out, v), A_GRAPH);
        for (Val u = 1; u < inner->n; u++)
            if (node_of(inner, u)->op == OP_CONTRACT) {
                contractions++;
                for (int i = 0; i < 2; i++)
                    assert_int_equal(node_of(inner, node_of(inner, u)->arg[i])->dtype, DAV_BF16);
            }
    }
    assert_true(contractions >= 3); /* forward, the state's gradient, the weight's */
    vec_free(cx.times);
    vec_free(cx.notes);
    arena_free(arena);
}

/* relative error of each output in the 2-norm */
static void test_close_to_f32(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    const Graph *g[2] = {network(arena, &err, DAV_F32), network(arena, &err, DAV_BF16)};
    Rng rng = {3};
    int nin;
    const Val *in = graph_inputs(g[0], arena, &nin);
    void **data = arena_array(arena, void *, nin), **out[2];
    for (int i = 0; i < nin; i++) {
        Type t = type_of(g[0], in[i]);
        data[i] = arena_alloc(arena, (size_t)type_count(&t) * 4);
        for (int64_t e = 0; e < type_count(&t); e++)
            if (t.dtype == DAV_F32)
                ((float *)data[i])[e] = (float)(0.6 * (rng_unit(&rng) - 0.5) + (t.rank == 1 ? 0.5 : 0));
            else
                ((int32_t *)data[i])[e] = (int32_t)rng_below(&rng, 6);
    }
    for (int p = 0; p < 2; p++) {
        out[p] = arena_array(arena, void *, g[p]->nout);
        for (int k = 0; k < g[p]->nout; k++)
            out[p][k] = arena_alloc(arena, (size_t)node_count(g[p], g[p]->out[k].val) * 4);
        if (!graph_interpret(&err, g[p], false, (const void *const *)data, out[p], NULL))
            fail_msg("%s", err.text);
    }
    double largest = 0;
    for (int k = 0; k < g[0]->nout; k++) {
        double off = 0, all = 0;
        for (int64_t e = 0; e < node_count(g[0], g[0]->out[k].val); e++) {
            double a = ((float *)out[0][k])[e], b = ((float *)out[1][k])[e];
            off += (a - b) * (a - b);
            all += a * a;
        }
        double relative = sqrt(off / all);
        largest = fmax(largest, relative);
        if (!(relative < 0.1)) /* units of 2^-8, more where terms of a sum cancel or a ReLU flips */
            fail_msg("%s: off by %.3g", g[0]->out[k].name, relative);
    }
    assert_true(largest > 1e-4); /* and bf16 was really used */
    print_message("largest relative error of an output %.2g\n", largest);
    arena_free(arena);
}

/* A contraction's operands are rounded to nearest even and its sum is not. */
static void test_by_hand(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    Graph *g = graph_new(arena, &err, "dot");
    Type t = type_make(DAV_F32, 1, (int64_t[]){3});
    ContractSpec s;
    assert_true(spec_parse(&err, "a, a -> | a=3", &s));
    Val x = g_input(g, "x", ROLE_DATA, t), w = g_input(g, "w", ROLE_PARAM, t);
    graph_output(g, "y", g_contract(g, x, w, &s, DAV_F32));
    CompileOptions options = {.precision = DAV_BF16};
    PassCx cx = {.arena = arena, .err = &err, .options = &options};
    const Graph *low = passes_run(&cx, g, "tidy");
    assert_non_null(low);
    float a[3] = {1.00390625f, 3.14159265f, 1000.1f}, b[3] = {1, 1.00390625f + 0.001f, 0.001f}, y;
    float want = 0;
    for (int i = 0; i < 3; i++)
        want += bf16_to_f32(bf16_from_f32(a[i])) * bf16_to_f32(bf16_from_f32(b[i]));
    assert_true(graph_interpret(&err, low, false, (const void *[]){a, b}, (void *[]){&y}, NULL));
    assert_true(fabsf(y - want) <= 1e-6f * fabsf(want));
    assert_true(fabsf(y - (a[0] * b[0] + a[1] * b[1] + a[2] * b[2])) > 1e-3f);
    vec_free(cx.times);
    arena_free(arena);
}

/* ---- the gradient of a convolution's weight: dw[tap][i][j] = sum over samples and positions x[s][l + shift][i] dy[s][l][j] ---- */
typedef struct Conv { int64_t samples, length, positions, in, out, taps, dilation, pad; } Conv;

static Graph *gradient_graph(Arena *arena, Err *err, Conv c)
{
    bool tap = c.taps > 1; /* one tap is a matrix product: no loop for it */
    ContractSpec s = {.nloop = 4 + tap, .nout = 2 + tap, .rank = {3, 3}};
    memcpy(s.extent, (int64_t[]){c.taps, c.in, c.out, c.samples, c.positions} + !tap, (size_t)s.nloop * sizeof *s.extent);
    for (int o = 0; o < 2; o++) {
        s.dim[o][0] = (DimExpr){.nterm = 1, .loop = {2 + tap}, .coef = {1}, .div = 1};
        s.dim[o][1] = (DimExpr){.nterm = 1, .loop = {3 + tap}, .coef = {1}, .div = 1};
        s.dim[o][2] = (DimExpr){.nterm = 1, .loop = {tap + o}, .coef = {1}, .div = 1};
    }
    if (tap)
        s.dim[0][1] = (DimExpr){.nterm = 2, .loop = {0, 4}, .coef = {c.dilation, 1}, .offset = -c.pad, .div = 1};
    Graph *g = graph_new(arena, err, "gradient");
    Val x = g_input(g, "x", ROLE_DATA, type_make(DAV_F32, 3, (int64_t[]){c.samples, c.length, c.in}));
    Val dy = g_input(g, "dy", ROLE_DATA, type_make(DAV_F32, 3, (int64_t[]){c.samples, c.positions, c.out}));
    graph_output(g, "dw", g_contract(g, x, dy, &s, DAV_F32));
    return g;
}

/* Small whole numbers: every product and sum is exact in bf16 and f32. */
static float *whole_numbers(int64_t n, unsigned seed)
{
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 28) - 8;
    return x;
}

static double gradient_of(Conv c, const float *x, const float *dy, int64_t tap, int64_t i, int64_t j)
{
    double sum = 0;
    for (int64_t s = 0; s < c.samples; s++)
        for (int64_t l = 0; l < c.positions; l++) {
            int64_t at = l + tap * c.dilation - c.pad;
            if (at >= 0 && at < c.length)
                sum += x[(s * c.length + at) * c.in + i] * dy[(s * c.positions + l) * c.out + j];
        }
    return sum;
}

/* Are the operands written as pairs somewhere? */
static bool packs_pairs(const Graph *g)
{
    Arena *arena = arena_new();
    Err err = {0};
    CompileOptions options = {.precision = DAV_BF16, .tile_rows = 6, .tile_columns = 64};
    PassCx cx = {.arena = arena, .err = &err, .options = &options};
    const Graph *low = passes_run(&cx, g, NULL);
    if (!low)
        fail_msg("%s", err.text);
    bool found = false;
    for (Val v = 1; v < low->n; v++)
        for (Val b = 1; node_of(low, v)->op == OP_KERNEL && b < attr_graph(node_of(low, v), A_GRAPH)->n; b++) {
            const Node *n = node_of(attr_graph(node_of(low, v), A_GRAPH), b);
            found |= n->op == OP_BUF && n->dtype == DAV_U32 && attr_i(n, A_ROLE) == BUF_SCRATCH;
        }
    vec_free(cx.times);
    vec_free(cx.notes);
    arena_free(arena);
    return found;
}

static void test_gradient_of_weight(void **state)
{
    (void)state;
    static const char *const devices[] = {"kernels", "cpu"};
    static const Conv cases[] = {
        {8, 40, 40, 32, 64, 9, 1, 4},    {3, 37, 37, 40, 128, 5, 1, 2}, {4, 41, 41, 33, 64, 3, 3, 3}, {5, 32, 32, 24, 64, 9, 16, 64},
        {2, 50, 46, 32, 192, 5, 1, 0},   {6, 30, 30, 64, 64, 1, 1, 0},  {4, 24, 33, 32, 64, 4, 2, 5}, {2, 20, 20, 26, 64, 3, 64, 64},
        {64, 200, 200, 32, 64, 3, 1, 1},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        Conv c = cases[k];
        Arena *arena = arena_new();
        Err err = {0};
        const Graph *g = gradient_graph(arena, &err, c);
        assert_true(packs_pairs(g));
        float *x = whole_numbers(c.samples * c.length * c.in, 1), *dy = whole_numbers(c.samples * c.positions * c.out, 2);
        float *dw = malloc((size_t)(c.taps * c.in * c.out) * sizeof *dw);
        for (int d = c.samples > 32; d < 2; d++) {
            ProgramOptions o = {.device = devices[d], .compile = {.precision = DAV_BF16}};
            Program *p = program_compile(&err, g, &o);
            if (!p || !program_run(p, &err, (void *[]){x, dy}, (void *[]){dw}, 1, 1))
                fail_msg("%s", err.text);
            for (int64_t at = 0; at < c.taps * c.in * c.out; at += c.samples > 32 ? 37 : 1) {
                double want = gradient_of(c, x, dy, at / c.out / c.in, at / c.out % c.in, at % c.out);
                if (dw[at] != want)
                    fail_msg("%s, case %zu, element %lld: %g, expected %g", devices[d], k, (long long)at, (double)dw[at], want);
            }
            program_free(p);
        }
        free(x);
        free(dy);
        free(dw);
        arena_free(arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_is_rounded), cmocka_unit_test(test_loops_are_rounded),
                                       cmocka_unit_test(test_close_to_f32),
                                       cmocka_unit_test(test_by_hand), cmocka_unit_test(test_gradient_of_weight)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
