/* Attention: found in its composition, and right on every device, against the definition summed in double by loops. */
#include "frontend/net.h"
#include "ir/kernel.h"
#include "passes/pass.h"
#include "runtime/program.h"
#include "support/cuda.h"
#include "support/gradcheck.h"
#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef enum { NO_MASK, CAUSAL, BIAS_SHARED, BIAS_EACH, KEYS_HIDDEN } Mask;
static const char *const mask_name[] = {"", " causal", " bias", " bias each", " hidden"};
typedef struct Shape { int64_t batch, heads, queries, keys, width, value; Mask mask; } Shape;

enum { OUT, DQ, DK, DV, DBIAS, RESULTS };
static const char *const result_name[] = {"out", "dq", "dk", "dv", "dbias"};

/* ---- the definition ---- */
typedef struct Values { double *x[8]; int64_t n[8]; } Values; /* q, k, v, bias, weight of the output */
enum { Q, K, V, BIAS, WEIGHT, INPUTS };

static double drawn(unsigned *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (double)(*state >> 8) / (double)(1 << 24) * 2 - 1;
}

static bool hidden(const Shape *s, int64_t i, int64_t j)
{
    return (s->mask == CAUSAL && j > i) || (s->mask == KEYS_HIDDEN && j % 3 == 1);
}

static int64_t bias_row(const Shape *s, int64_t h, int64_t i)
{
    return ((s->mask == BIAS_EACH ? h : 0) * s->queries + i) * s->keys;
}

/* result[k] for x; the loss is the sum of weight * out */
static void define(const Shape *s, const Values *in, double *result[RESULTS])
{
    double *p = malloc((size_t)s->keys * sizeof *p), scale = 1 / sqrt((double)s->width);
    for (int64_t h = 0; h < s->batch * s->heads; h++)
        for (int64_t i = 0; i < s->queries; i++) {
            const double *q = in->x[Q] + (h * s->queries + i) * s->width, *w = in->x[WEIGHT] + (h * s->queries + i) * s->value;
            double most = -INFINITY, total = 0, mean = 0;
            for (int64_t j = 0; j < s->keys; j++) {
                const double *k = in->x[K] + (h * s->keys + j) * s->width;
                p[j] = 0;
                for (int64_t d = 0; d < s->width; d++)
                    p[j] += scale * q[d] * k[d];
                if (s->mask == BIAS_SHARED || s->mask == BIAS_EACH)
                    p[j] += in->x[BIAS][bias_row(s, h, i) + j];
                if (hidden(s, i, j))
                    p[j] = -1e9;
                most = fmax(most, p[j]);
            }
            for (int64_t j = 0; j < s->keys; j++)
                total += p[j] = exp(p[j] - most);
            for (int64_t j = 0; j < s->keys; j++) {
                p[j] /= total;
                for (int64_t e = 0; e < s->value; e++) {
                    double v = in->x[V][(h * s->keys + j) * s->value + e];
                    result[OUT][(h * s->queries + i) * s->value + e] += p[j] * v;
                    result[DV][(h * s->keys + j) * s->value + e] += p[j] * w[e];
                    mean += p[j] * v * w[e];
                }
            }
            for (int64_t j = 0; j < s->keys; j++) {
                double g = -mean;
                for (int64_t e = 0; e < s->value; e++)
                    g += w[e] * in->x[V][(h * s->keys + j) * s->value + e];
                g *= p[j];
                if (hidden(s, i, j))
                    continue;
                if (s->mask == BIAS_SHARED || s->mask == BIAS_EACH)
                    result[DBIAS][bias_row(s, h, i) + j] += g;
                for (int64_t d = 0; d < s->width; d++) {
                    result[DQ][(h * s->queries + i) * s->width + d] += g * scale * in->x[K][(h * s->keys + j) * s->width + d];
                    result[DK][(h * s->keys + j) * s->width + d] += g * scale * q[d];
                }
            }
        }
    free(p);
}

/* ---- the same through the graph language ---- */
static const Graph *composition(Arena *arena, Err *err, const Shape *s, bool biased)
{
    DavNet *n = net_new(arena, err, "attention");
    int64_t b = s->batch, h = s->heads;
    DavVal q = dav_input(n, "q", DAV_F32, b, h, s->queries, s->width), k = dav_input(n, "k", DAV_F32, b, h, s->keys, s->width);
    DavVal v = dav_input(n, "v", DAV_F32, b, h, s->keys, s->value), w = dav_input(n, "w", DAV_F32, b, h, s->queries, s->value), out;
    DavVal bias = dav_input(n, "bias", DAV_F32, s->mask == BIAS_EACH ? b : 1, s->mask == BIAS_EACH ? h : 1, s->queries, s->keys);
    if (s->mask == NO_MASK || s->mask == CAUSAL) {
        out = dav_attention(q, k, v, .causal = s->mask == CAUSAL);
    } else {
        DavVal score = dav_mul(dav_matmul(q, dav_swap(k, -1, -2)), 1 / sqrt((double)s->width));
        if (s->mask == KEYS_HIDDEN) {
            DavVal at = dav_sub(dav_iota(n, DAV_I32, 0, s->keys), dav_mul(dav_div(dav_iota(n, DAV_I32, 0, s->keys), 3), 3));
            score = dav_where(dav_ne(at, 1), score, -1e9);
        } else {
            score = dav_add(score, bias);
        }
        out = dav_matmul(dav_softmax(score, -1), v);
    }
    DavVal x[] = {q, k, v, bias}, grad[4];
    dav_grads(dav_sum(dav_mul(out, w), 0, 1, 2, 3), x, biased ? 4 : 3, grad);
    dav_output(n, "out", out);
    for (int i = 0; i < (biased ? 4 : 3); i++)
        dav_output(n, result_name[DQ + i], grad[i]);
    const Graph *g = n->g;
    net_free(n);
    return g;
}

static int64_t sizes(const Shape *s, int64_t n[INPUTS])
{
    int64_t heads = s->batch * s->heads;
    n[Q] = heads * s->queries * s->width;
    n[K] = heads * s->keys * s->width;
    n[V] = heads * s->keys * s->value;
    n[BIAS] = (s->mask == BIAS_EACH ? heads : 1) * s->queries * s->keys;
    n[WEIGHT] = heads * s->queries * s->value;
    return heads;
}

static void compare(const Shape *s, const char *device, DavDtype precision, int result, const float *got, const double *want, int64_t n)
{
    double top = 0, worst = 0, limit = precision == DAV_BF16 ? 2e-2 : 2e-5;
    for (int64_t i = 0; i < n; i++) {
        top = fmax(top, fabs(want[i]));
        worst = isfinite(got[i]) ? fmax(worst, fabs(got[i] - want[i])) : INFINITY;
    }
    if (!(worst <= limit * (top + 1e-3)))
        fail_msg("%lldx%lld, %lld queries, %lld keys, %lld and %lld wide%s, %s on %s: %s is off by %g of %g", (long long)s->batch,
                 (long long)s->heads, (long long)s->queries, (long long)s->keys, (long long)s->width, (long long)s->value,
                 mask_name[s->mask], precision == DAV_BF16 ? "bf16" : "f32", device, result_name[result], worst, top);
}

/* hide: what is added to all scores of each head's second row, 0: nothing; weighs: that row counts in the loss. */
static void check_hidden(const Shape *s, const char *device, DavDtype precision, float hide, bool weighs)
{
    Arena *arena = arena_new();
    Err err = {0};
    bool hides = hide < 0, biased = !hides && (s->mask == BIAS_SHARED || s->mask == BIAS_EACH);
    int64_t n[INPUTS];
    const int of[RESULTS] = {WEIGHT, Q, K, V, BIAS};
    sizes(s, n);
    Program *p = program_compile(&err, composition(arena, &err, s, biased), &(ProgramOptions){.device = device, .compile.precision = precision});
    if (!p)
        fail_msg("%s", err.text);
    Values x = {0};
    float *data[INPUTS], *out[RESULTS] = {0};
    double *want[RESULTS];
    void *in[INPUTS] = {0}, *outs[RESULTS] = {0};
    unsigned seed = 7;
    static const char *const name[] = {"q", "k", "v", "bias", "w"};
    for (int i = 0; i < INPUTS; i++) {
        data[i] = malloc((size_t)n[i] * sizeof(float));
        x.x[i] = malloc((size_t)n[i] * sizeof(double));
        for (int64_t e = 0; e < n[i]; e++)
            x.x[i][e] = data[i][e] = (float)(i == BIAS ? 2 * drawn(&seed) : 1.5 * drawn(&seed));
        if (program_input(p, name[i]) >= 0)
            in[program_input(p, name[i])] = data[i];
    }
    for (int k = 0; k < RESULTS; k++) {
        want[k] = calloc((size_t)n[of[k]], sizeof(double));
        if (program_output(p, result_name[k]) >= 0)
            outs[program_output(p, result_name[k])] = out[k] = malloc((size_t)n[of[k]] * sizeof(float));
    }
    for (int64_t h = 0; hides && h < s->batch * s->heads; h++) {
        for (int64_t j = 0; j < s->keys; j++) {
            data[BIAS][bias_row(s, h, 1) + j] = hide;
            x.x[BIAS][bias_row(s, h, 1) + j] = -1e30; /* in double a plain average, too */
        }
        for (int64_t e = 0; e < s->value && !weighs; e++)
            x.x[WEIGHT][(h * s->queries + 1) * s->value + e] = data[WEIGHT][(h * s->queries + 1) * s->value + e] = 0;
    }
    if (!program_run(p, &err, in, outs, 1, 2))
        fail_msg("%s", err.text);
    define(s, &x, want);
    for (int k = 0; weighs && k < DBIAS; k++) /* its sums of weights are lost in f32: no more than as many times as there are keys */
        for (int64_t i = 0; i < n[of[k]]; i++)
            if (!(fabs(out[k][i]) < 20.0 * (double)s->keys))
                fail_msg("%s on %s, hidden by %g: %s has %g", precision == DAV_BF16 ? "bf16" : "f32", device, hide, result_name[k], out[k][i]);
    for (int k = 0; !weighs && k < (biased ? RESULTS : DBIAS); k++)
        compare(s, device, precision, k, out[k], want[k], n[of[k]]);
    for (int i = 0; i < INPUTS; i++) {
        free(data[i]);
        free(x.x[i]);
    }
    for (int k = 0; k < RESULTS; k++) {
        free(out[k]);
        free(want[k]);
    }
    program_free(p);
    arena_free(arena);
}

static void check(const Shape *s, const char *device, DavDtype precision)
{
    check_hidden(s, device, precision, 0, false);
}

static const Shape shapes[] = {
    {2, 3, 64, 77, 40, 40, NO_MASK},     {1, 2, 33, 47, 8, 24, NO_MASK},    {1, 1, 9, 9, 7, 5, NO_MASK},
    {1, 1, 40, 700, 16, 16, NO_MASK},    {1, 1, 300, 300, 16, 8, CAUSAL},   {2, 1, 65, 65, 33, 33, CAUSAL},
    {2, 2, 20, 50, 16, 16, BIAS_SHARED}, {2, 2, 20, 50, 16, 16, BIAS_EACH}, {1, 2, 40, 60, 80, 80, KEYS_HIDDEN},
    {1, 1, 24, 24, 160, 160, NO_MASK},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void agrees_with_its_definition(void **state)
{
    if (strcmp(*state, "cuda") == 0)
        cuda_or_skip();
    for (int i = 0; i < SHAPES; i++)
        for (int half = 0; half < 2; half++)
            check(&shapes[i], *state, half ? DAV_BF16 : DAV_F32);
}

/* A row whose keys are all hidden is their average and spoils no other row's gradients. */
static void hidden_rows_are_averages(void **state)
{
    static const float by[] = {-1e9f, -2.5e38f, -3.4028235e38f, -INFINITY};
    static const int64_t keys[] = {8, 40, 48, 90};
    if (strcmp(*state, "cuda") == 0)
        cuda_or_skip();
    for (size_t b = 0; b < sizeof by / sizeof *by; b++)
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            for (int half = 0; half < 2; half++)
                for (int weighs = 0; weighs < 2; weighs++)
                    check_hidden(&(Shape){1, 2, 20, keys[k], 16, 16, BIAS_EACH}, *state, half ? DAV_BF16 : DAV_F32, by[b], weighs);
}

/* Long enough for several blocks of keys and of queries, on the processor alone. */
static void long_sequences(void **state)
{
    (void)state;
    check(&(Shape){1, 1, 530, 1100, 24, 16, NO_MASK}, "cpu", DAV_F32);
    check(&(Shape){1, 1, 530, 1100, 24, 16, NO_MASK}, "cpu", DAV_BF16);
    check(&(Shape){1, 1, 1031, 1031, 16, 16, CAUSAL}, "cpu", DAV_F32);
}

/* ---- panels of a target with many processors: several of keys and of queries, the last ones not whole ---- */
static void panels_are_whole_or_not(void **state)
{
    static const Shape some[] = {
        {1, 1, 150, 77, 40, 40, NO_MASK}, {1, 1, 70, 70, 160, 160, NO_MASK}, {1, 1, 130, 130, 20, 12, CAUSAL},
        {1, 2, 65, 97, 16, 16, BIAS_EACH}, {1, 1, 66, 40, 256, 250, NO_MASK},
    };
    (void)state;
    cuda_or_skip();
    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        for (int half = 0; half < 2; half++)
            check(&some[i], "cuda", half ? DAV_BF16 : DAV_F32);
}

/* All results of `heads` heads, the first one's inputs always the same. */
static float *results_of(int64_t heads, DavDtype precision, int64_t per[DBIAS])
{
    Arena *arena = arena_new();
    Err err = {0};
    const Shape s = {1, heads, 70, 90, 24, 24, NO_MASK};
    const int of[DBIAS] = {WEIGHT, Q, K, V};
    int64_t n[INPUTS], at = 0;
    sizes(&s, n);
    Program *p = program_compile(&err, composition(arena, &err, &s, false), &(ProgramOptions){.device = "cuda", .compile.precision = precision});
    if (!p)
        fail_msg("%s", err.text);
    static const char *const name[] = {"q", "k", "v", "bias", "w"};
    void *in[INPUTS] = {0}, *out[RESULTS] = {0};
    for (int i = 0; i < INPUTS; i++) {
        float *data = arena_array(arena, float, n[i]);
        unsigned seed = 11 + (unsigned)i;
        for (int64_t e = 0; e < n[i]; e++)
            data[e] = (float)drawn(&seed);
        if (program_input(p, name[i]) >= 0)
            in[program_input(p, name[i])] = data;
    }
    float *all = malloc((size_t)(n[WEIGHT] + n[Q] + n[K] + n[V]) * sizeof(float));
    for (int k = 0; k < DBIAS; k++) {
        out[program_output(p, result_name[k])] = all + at;
        at += n[of[k]];
        per[k] = n[of[k]] / heads;
    }
    if (!program_run(p, &err, in, out, 1, 2))
        fail_msg("%s", err.text);
    program_free(p);
    arena_free(arena);
    return all;
}

static void bits_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    cuda_or_skip();
    for (int half = 0; half < 2; half++) {
        int64_t per[DBIAS], off = 0;
        float *one = results_of(1, half ? DAV_BF16 : DAV_F32, per), *seven = results_of(7, half ? DAV_BF16 : DAV_F32, per);
        for (int k = 0; k < DBIAS; off += per[k++])
            if (memcmp(one + off, seven + 7 * off, (size_t)per[k] * sizeof(float)))
                fail_msg("%s of a head differs with 7 heads, %s", result_name[k], half ? "bf16" : "f32");
        free(one);
        free(seven);
    }
}

/* ---- what the pass sees ---- */
static int count(const Graph *g, Op op)
{
    int found = 0;
    for (Val v = 1; v < g->n; v++)
        found += node_of(g, v)->op == op;
    return found;
}

static int ops_after(const Graph *g, const char *pass, Op op)
{
    Arena *arena = arena_new();
    Err err = {0};
    CompileOptions options = {0};
    PassCx cx = {.arena = arena, .err = &err, .options = &options};
    const Graph *out = passes_run(&cx, g, pass);
    if (!out)
        fail_msg("%s", err.text);
    int found = count(out, op);
    vec_free(cx.times);
    vec_free(cx.notes);
    arena_free(arena);
    return found;
}

static void compositions_are_found(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    for (int i = 0; i < SHAPES; i++) {
        bool biased = shapes[i].mask == BIAS_SHARED || shapes[i].mask == BIAS_EACH;
        const Graph *g = composition(arena, &err, &shapes[i], false);
        assert_int_equal(ops_after(g, "attention", OP_ATTENTION), 1);
        assert_int_equal(ops_after(g, "tidy", OP_ATTENTION_GRAD), 1);
        assert_int_equal(ops_after(g, "tidy", OP_CONTRACT), 0);
        if (biased) /* its gradient is the matrix of scores */
            assert_true(ops_after(composition(arena, &err, &shapes[i], true), "tidy", OP_CONTRACT) > 0);
    }
    arena_free(arena);
}

/* What is read besides the pattern must stay: the weights as an output, the scores in a gradient. */
static void what_is_read_elsewhere_stays(void **state)
{
    (void)state;
    for (int what = 0; what < 2; what++) {
        Arena *arena = arena_new();
        Err err = {0};
        DavNet *n = net_new(arena, &err, "seen");
        DavVal q = dav_input(n, "q", DAV_F32, 2, 16, 8), k = dav_input(n, "k", DAV_F32, 2, 16, 8), v = dav_input(n, "v", DAV_F32, 2, 16, 8);
        DavVal score = dav_matmul(q, dav_swap(k, -1, -2)), p = dav_softmax(score, -1), out = dav_matmul(p, v), grad;
        dav_output(n, "out", out);
        if (what == 0)
            dav_output(n, "weights", p);
        else
            dav_grads(dav_sum(out, 0, 1, 2), &score, 1, &grad), dav_output(n, "dscore", grad);
        assert_int_equal(ops_after(n->g, "attention", OP_ATTENTION), 0);
        net_free(n);
        arena_free(arena);
    }
}

/* The matrix of scores would take 64 MB each way. */
static void no_matrix_of_scores(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    Shape s = {1, 1, 4096, 4096, 16, 16, NO_MASK};
    Program *p = program_compile(&err, composition(arena, &err, &s, false), &(ProgramOptions){.device = "cpu"});
    if (!p)
        fail_msg("%s", err.text);
    assert_true(program_stats(p).unplanned_bytes < 4 << 20);
    program_free(p);
    arena_free(arena);
}

/* ---- every order of derivative ---- */
static Val attended(Graph *g, const Val *x, const void *with)
{
    const int *causal = with;
    Val op = g_attention(g, x[0], x[1], x[2], x[3], 0.6, *causal & 1, *causal & 2);
    Val out = g_pick(g, op, 0), lse = g_pick(g, op, 1);
    Type t = type_of(g, lse);
    bool rows = *causal & 2;
    lse = g_reshape(g, lse, 3, (int64_t[]){t.dim[0], rows ? t.dim[1] : 1, rows ? 1 : t.dim[1]});
    return g_bin(g, OP_MUL, out, g_broadcast_like(g, lse, out));
}

static void gradients_of_every_order(void **state)
{
    (void)state;
    for (int causal = 0; causal < 4; causal++) /* 2: by row */
        for (int64_t each = 1; each <= 2; each++) {
            GradCase c = {.name = "attention", .nin = 4, .build = attended, .with = &causal,
                          .in = {{3, {2, 3, 2}}, {3, {2, 4, 2}}, {3, {2, 4, 3}}, {3, {each, 3, 4}}}};
            grad_check(&c);
        }
}

#define ONE(name, test, device) {name, test, NULL, NULL, (void *)(uintptr_t)device}
#define ON(name, device) ONE(name, agrees_with_its_definition, device)

int main(void)
{
    cuda_choose();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compositions_are_found),    cmocka_unit_test(what_is_read_elsewhere_stays),
        cmocka_unit_test(gradients_of_every_order),  ON("agrees: interp", "interp"),
        ON("agrees: kernels", "kernels"),            ON("agrees: cpu", "cpu"),
        ON("agrees: cuda", "cuda"),                  ONE("hidden rows: cpu", hidden_rows_are_averages, "cpu"),
        ONE("hidden rows: cuda", hidden_rows_are_averages, "cuda"), cmocka_unit_test(long_sequences),
        cmocka_unit_test(no_matrix_of_scores),       cmocka_unit_test(panels_are_whole_or_not),
        cmocka_unit_test(bits_do_not_depend_on_the_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
