/* What the language's layers and compositions compute, and their gradients, against PyTorch in f64
 * (tests/reference/frontend.py writes tests/data/frontend.safetensors), by the reference interpreter. */
#include "frontend/net.h"
#include "runtime/program.h"
#include "runtime/safetensors.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef DavVal (*CaseFn)(DavNet *n, const DavVal *in);
#define CASE(name, ...)                                                                                                \
    static DavVal case_##name(DavNet *n, const DavVal *in)                                                             \
    {                                                                                                                  \
        (void)n;                                                                                                       \
        return __VA_ARGS__;                                                                                            \
    }

CASE(conv1d, dav_conv(n, "c", in[0], 4, .kernel = {3}, .stride = {2}, .pad = {3}, .dilation = {2}, .groups = 2))
CASE(depthwise, dav_conv(n, "c", in[0], 5, .kernel = {4}, .pad = {1}, .groups = 5, .no_bias = true))
CASE(conv2d, dav_conv(n, "c", in[0], 4, .kernel = {3, 2}, .stride = {2, 1}, .pad = {1, 2}, .dilation = {1, 2}))
CASE(conv3d, dav_conv(n, "c", in[0], 2, .kernel = {2, 3, 3}, .stride = {1, 1, 2}, .pad = {0, 1, 1}))
CASE(conv3d_groups, dav_conv(n, "c", in[0], 6, .kernel = {2, 3, 2}, .stride = {1, 2, 2}, .pad = {0, 1, 1},
                             .dilation = {2, 1, 1}, .groups = 2))
CASE(transposed3d_groups, dav_conv_transposed(n, "c", in[0], 6, .kernel = {2, 3, 2}, .stride = {2, 1, 1}, .pad = {0, 1, 0},
                                              .groups = 2))
CASE(transposed1d, dav_conv_transposed(n, "c", in[0], 6, .kernel = {3}, .stride = {3}, .pad = {1}, .more = {2},
                                       .dilation = {2}, .groups = 2))
CASE(transposed2d, dav_conv_transposed(n, "c", in[0], 3, .kernel = {4, 3}, .stride = {2, 1}, .pad = {1, 0}))
CASE(matmul, dav_matmul(in[0], in[1]))
CASE(linear, dav_linear(n, "l", in[0], 5))
CASE(layer_norm, dav_layer_norm(n, "n", in[0], .axis = 1))
CASE(rms_norm, dav_rms_norm(n, "n", in[0], .eps = 1e-6))
CASE(group_norm, dav_group_norm(n, "n", in[0], 3))
CASE(batch_norm, dav_batch_norm(n, "n", in[0]))
CASE(gelu, dav_gelu(in[0]))
CASE(gelu_tanh, dav_gelu_tanh(in[0]))
CASE(silu, dav_silu(in[0]))
CASE(sigmoid, dav_sigmoid(in[0]))
CASE(softplus, dav_softplus(in[0]))
CASE(softmax, dav_softmax(in[0], 1))
CASE(log_softmax, dav_log_softmax(in[0], -1))
CASE(logsumexp, dav_logsumexp(in[0], 1))
CASE(cross_entropy, dav_cross_entropy(in[0], in[1]))
CASE(mean_var, dav_add(dav_mean(in[0], 0, 2), dav_var(in[0], 0, 2)))
CASE(max_pool, dav_max_pool(in[0], .size = {3}, .stride = {2}, .pad = {1}))
CASE(max_pool2d, dav_max_pool(in[0], .size = {2, 3}))
CASE(avg_pool2d, dav_avg_pool(in[0], .size = {3, 2}, .stride = {2, 2}, .pad = {1, 1}))
CASE(attention, dav_attention(in[0], in[1], in[2]))
CASE(causal, dav_attention(in[0], in[1], in[2], .causal = true))
CASE(embedding, dav_embedding(n, "e", in[0], 7, 4))
CASE(take, dav_take(in[0], in[1], 1))
CASE(one_hot, dav_one_hot(in[0], 4, DAV_F32))
CASE(top_k, dav_top_k(in[0], 1, 3, NULL))
CASE(cumsum, dav_cumsum(in[0], 1, .exclusive = true, .reverse = true))
CASE(broadcast, dav_sub(dav_where(dav_gt(in[0], in[1]), dav_mul(in[0], in[1]), in[2]),
                        dav_div(0.5, dav_add(dav_square(in[0]), 1))))
CASE(shapes, dav_swap(dav_concat(1, dav_pad(dav_slice_step(in[0], 1, 1, -1, 2), 1, 1, 2, 3),
                                 dav_reverse(dav_slice(in[0], 1, 0, 5), 1)),
                      0, 1))
CASE(window, dav_window(in[0], 1, 4, .step = 2, .pad = 1))
CASE(fold, dav_fold(in[0], 1, 9, .step = 2, .dilation = 2, .pad = 1))

static void scan_body(DavNet *n, const void *context, const DavVal *in, DavVal *out)
{
    (void)n;
    (void)context;
    out[0] = dav_mul(dav_tanh(dav_add(in[0], in[1])), 0.9);
    out[1] = dav_mul(out[0], in[1]);
}

static DavVal case_loop(DavNet *n, const DavVal *in)
{
    DavVal out[2];
    dav_loop(n, "", scan_body, NULL, in, 2, out, 2, .trip = 4, .carry = 1, .scan = 1);
    return dav_concat(0, dav_unsqueeze(out[0], 0), out[1]);
}

static void layer_body(DavNet *n, const void *context, const DavVal *in, DavVal *out)
{
    (void)context;
    out[0] = dav_tanh(dav_linear(n, "l", in[0], 4));
}

static DavVal case_call(DavNet *n, const DavVal *in)
{
    DavVal a, b;
    dav_call(n, "a", layer_body, NULL, in, 1, &a, 1);
    dav_call(n, "b", layer_body, NULL, &a, 1, &b, 1);
    return b;
}

static DavVal case_second_order(DavNet *n, const DavVal *in)
{
    (void)n;
    DavVal y = dav_sum(dav_div(dav_mul(in[0], dav_square(in[0])), dav_add(in[0], 1)));
    return dav_sum(dav_square(dav_grad(y, in[0])), -1);
}

static const struct Case {
    const char *name;
    CaseFn fn;
} cases[] = {
    {"conv1d", case_conv1d},
    {"conv1d-depthwise", case_depthwise},
    {"conv2d", case_conv2d},
    {"conv3d", case_conv3d},
    {"conv3d-groups", case_conv3d_groups},
    {"transposed3d-groups", case_transposed3d_groups},
    {"transposed1d", case_transposed1d},
    {"transposed2d", case_transposed2d},
    {"matmul", case_matmul},
    {"matmul-batch", case_matmul},
    {"matmul-batch-one", case_matmul},
    {"matmul-vector", case_matmul},
    {"matmul-column", case_matmul},
    {"matmul-dot", case_matmul},
    {"linear", case_linear},
    {"layer-norm", case_layer_norm},
    {"rms-norm", case_rms_norm},
    {"group-norm", case_group_norm},
    {"batch-norm", case_batch_norm},
    {"gelu", case_gelu},
    {"gelu-tanh", case_gelu_tanh},
    {"silu", case_silu},
    {"sigmoid", case_sigmoid},
    {"softplus", case_softplus},
    {"softmax", case_softmax},
    {"log-softmax", case_log_softmax},
    {"logsumexp", case_logsumexp},
    {"cross-entropy", case_cross_entropy},
    {"cross-entropy-wide", case_cross_entropy},
    {"mean-var", case_mean_var},
    {"max-pool", case_max_pool},
    {"max-pool2d", case_max_pool2d},
    {"avg-pool2d", case_avg_pool2d},
    {"attention", case_attention},
    {"attention-causal", case_causal},
    {"embedding", case_embedding},
    {"take", case_take},
    {"one-hot", case_one_hot},
    {"top-k", case_top_k},
    {"cumsum", case_cumsum},
    {"broadcast", case_broadcast},
    {"shapes", case_shapes},
    {"window", case_window},
    {"fold", case_fold},
    {"loop", case_loop},
    {"call", case_call},
    {"second-order", case_second_order},
};

typedef struct Run {
    Arena *arena;
    Err err;
    SafeTensors *file;
    const char *name;
    DavNet *net;
    const char *device;
} Run;

static const SafeTensor *tensor(Run *r, const char *what)
{
    return safetensors_find(r->file, arena_printf(r->arena, "%s/%s", r->name, what));
}

/* Inputs are named in.I, parameters by their own names; outputs out, grad.I, grad.NAME. */
static void write_case(Run *r, CaseFn fn)
{
    DavVal in[4], x[16], g[16];
    const char *name[16];
    int nin = 0, nx = 0;
    for (const SafeTensor *t; (t = tensor(r, arena_printf(r->arena, "in.%d", nin))); nin++)
        in[nin] = dav_input_(DAV_HERE, r->net, arena_printf(r->arena, "in.%d", nin), t->dtype, t->rank, t->dim);
    DavVal out = fn(r->net, in);
    dav_output(r->net, "out", out);
    const SafeTensor *cotangent = tensor(r, "cotangent");
    if (!cotangent || r->err.kind)
        return;
    DavVal c = dav_input_(DAV_HERE, r->net, "cotangent", DAV_F32, cotangent->rank, cotangent->dim);
    for (int i = 0; i < nin; i++)
        if (dav_dtype(in[i]) == DAV_F32) {
            name[nx] = arena_printf(r->arena, "grad.%d", i);
            x[nx++] = in[i];
        }
    for (int i = 0; i < net_param_count(r->net); i++)
        if (!net_param(r->net, i)->frozen) {
            name[nx] = arena_printf(r->arena, "grad.%s", net_param(r->net, i)->name);
            x[nx++] = (DavVal){r->net, net_param(r->net, i)->val};
        }
    dav_grads(dav_sum(dav_mul(out, c)), x, nx, g);
    for (int i = 0; i < nx; i++)
        dav_output(r->net, name[i], g[i]);
}

static double element(DavDtype t, const void *data, int64_t i)
{
    return t == DAV_F32   ? ((const float *)data)[i]
           : t == DAV_F64 ? ((const double *)data)[i]
           : t == DAV_I64 ? (double)((const int64_t *)data)[i]
                          : ((const int32_t *)data)[i];
}

static void compare(Run *r, const Program *p, int k, const void *data, double tolerance)
{
    const SafeTensor *want = tensor(r, program_output_name(p, k));
    assert_non_null(want);
    Type have = program_output_type(p, k);
    if (have.rank != want->rank || memcmp(have.dim, want->dim, (size_t)have.rank * sizeof *have.dim) != 0) {
        char a[160];
        fail_msg("%s: %s has the shape %s", r->name, program_output_name(p, k), type_text(&have, a));
    }
    double worst = 0, most = 0;
    for (int64_t i = 0; i < safetensor_count(want); i++) {
        double b = element(want->dtype, want->data, i), gap = fabs(element(have.dtype, data, i) - b);
        worst = gap > worst || isnan(gap) ? gap : worst;
        most = fabs(b) > most ? fabs(b) : most;
    }
    if (!(worst <= tolerance * (most + 1e-6)))
        fail_msg("%s on %s: %s is off by %g of %g", r->name, r->device, program_output_name(p, k), worst, most);
}

static void run_case(Run *r, CaseFn fn, double tolerance)
{
    r->net = net_new(r->arena, &r->err, r->name);
    write_case(r, fn);
    ProgramOptions o = {.device = r->device};
    Program *p = r->err.kind ? NULL : program_compile(&r->err, r->net->g, &o);
    if (!p)
        fail_msg("%s on %s: %s", r->name, r->device, r->err.text);
    void *in[32], *out[32];
    for (int i = 0; i < program_input_count(p); i++) {
        const char *name = program_input_name(p, i);
        const SafeTensor *t = tensor(r, name);
        if (!t)
            t = tensor(r, arena_printf(r->arena, "param.%s", name));
        assert_non_null(t);
        in[i] = (void *)t->data;
        if (program_input_type(p, i).dtype == DAV_F64) {
            double *wide = arena_array(r->arena, double, safetensor_count(t) + 1);
            for (int64_t e = 0; e < safetensor_count(t); e++)
                wide[e] = ((const float *)t->data)[e];
            in[i] = wide;
        }
    }
    for (int i = 0; i < program_output_count(p); i++) {
        Type t = program_output_type(p, i);
        out[i] = arena_alloc(r->arena, (size_t)type_count(&t) * 8 + 64);
    }
    if (!program_run(p, &r->err, in, out, 1, 1))
        fail_msg("%s on %s: %s", r->name, r->device, r->err.text);
    for (int i = 0; i < program_output_count(p); i++)
        compare(r, p, i, out[i], tolerance);
    program_free(p);
    net_free(r->net);
}

static void all_cases(const char *device, double tolerance)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Run r = {.arena = arena_new(), .name = cases[i].name, .device = device};
        r.file = safetensors_open(&r.err, DAV_SOURCE_DIR "/tests/data/frontend.safetensors");
        if (!r.file)
            fail_msg("%s", r.err.text);
        run_case(&r, cases[i].fn, tolerance);
        safetensors_close(r.file);
        arena_free(r.arena);
    }
}

static void interpreter_agrees_with_pytorch(void **state)
{
    (void)state;
    all_cases("interp", 3e-5); /* saturated softmax: rounding of what cancels */
}

static void wide_interpreter_agrees_with_pytorch(void **state)
{
    (void)state;
    all_cases("interp64", 1e-7); /* the references are kept in f32 */
}

static void compiled_programs_agree_with_pytorch(void **state)
{
    (void)state;
    all_cases("cpu", 3e-5);
}

/* ---- randomness: exact ends, the law of a choice, moments ---- */
enum { DRAWS = 20000 };

/* Runs a graph of one output under the interpreter; inputs in the order they were declared. */
static void run_random(DavNet *n, Err *err, void *const *in, void *out)
{
    ProgramOptions o = {.device = "interp"};
    Program *p = program_compile(err, n->g, &o);
    if (!p || !program_run(p, err, in, &out, 1, 1))
        fail_msg("%s", err->text);
    program_free(p);
}

static void uniform_numbers_are_inside_of_0_and_1(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    DavNet *n = net_new(arena, &err, "t");
    DavVal u = dav_uniform_of(dav_input(n, "bits", DAV_U32, 3));
    dav_output(n, "out", dav_concat(0, u, dav_gumbel_of(dav_input(n, "same", DAV_U32, 3))));
    uint32_t bits[3] = {0, 0x80000000u, 0xFFFFFFFFu};
    float out[6];
    run_random(n, &err, (void *[]){bits, bits}, out);
    assert_true(out[0] == 0x1p-24f && out[1] == 0.5f + 0x1p-24f && out[2] == 1 - 0x1p-24f);
    assert_true(fabs(out[3] + log(24 * log(2))) < 1e-5 && fabs(out[5] - 24 * log(2)) < 1e-4);
    net_free(n);
    arena_free(arena);
}

static void choices_follow_the_softmax(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    DavNet *n = net_new(arena, &err, "t");
    DavVal key = dav_input(n, "key", DAV_U32, 2), counter = dav_input(n, "counter", DAV_U32, DRAWS, 3);
    DavVal logits = dav_literal(n, DAV_F32, ((double[]){0, 1, -2, 0.5}), 4);
    dav_output(n, "out", dav_choose(logits, dav_random_bits(key, counter, DRAWS, 4)));
    uint32_t k[2] = {7, 11}, *c = arena_array(arena, uint32_t, 3 * DRAWS);
    int32_t *out = arena_array(arena, int32_t, DRAWS);
    for (uint32_t i = 0; i < DRAWS; i++)
        c[3 * i] = i;
    run_random(n, &err, (void *[]){k, c}, out);
    double weight[4] = {1, exp(1), exp(-2), exp(0.5)}, total = weight[0] + weight[1] + weight[2] + weight[3], chi2 = 0;
    int seen[4] = {0};
    for (int i = 0; i < DRAWS; i++)
        seen[out[i]]++;
    for (int i = 0; i < 4; i++) {
        double want = DRAWS * weight[i] / total;
        chi2 += (seen[i] - want) * (seen[i] - want) / want;
    }
    assert_true(chi2 < 16.3); /* 0.999 quantile, 3 degrees of freedom */
    net_free(n);
    arena_free(arena);
}

static void normal_numbers_have_their_moments(void **state)
{
    (void)state;
    Arena *arena = arena_new();
    Err err = {0};
    DavNet *n = net_new(arena, &err, "t");
    DavVal key = dav_input(n, "key", DAV_U32, 2), counter = dav_input(n, "counter", DAV_U32, DRAWS / 4, 3);
    dav_output(n, "out", dav_normal(key, counter, DRAWS / 4, 4));
    uint32_t k[2] = {3, 5}, *c = arena_array(arena, uint32_t, 3 * DRAWS);
    float *out = arena_array(arena, float, DRAWS);
    for (uint32_t i = 0; i < DRAWS / 4; i++)
        c[3 * i + 1] = i;
    run_random(n, &err, (void *[]){k, c}, out);
    double m1 = 0, m2 = 0, m4 = 0, along = 0;
    for (int i = 0; i < DRAWS; i++) {
        m1 += out[i] / (double)DRAWS;
        m2 += pow(out[i], 2) / DRAWS;
        m4 += pow(out[i], 4) / DRAWS;
        along += i % 4 ? out[i] * (double)out[i - 1] / (0.75 * DRAWS) : 0;
    }
    double se = 1 / sqrt(DRAWS); /* four standard errors each: sd of x is 1, of x^2 sqrt 2, of x^4 sqrt 96 */
    assert_true(fabs(m1) < 4 * se && fabs(m2 - 1) < 4 * 1.42 * se && fabs(m4 - 3) < 4 * 9.8 * se && fabs(along) < 5 * se);
    net_free(n);
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interpreter_agrees_with_pytorch),
        cmocka_unit_test(wide_interpreter_agrees_with_pytorch),
        cmocka_unit_test(compiled_programs_agree_with_pytorch),
        cmocka_unit_test(uniform_numbers_are_inside_of_0_and_1),
        cmocka_unit_test(choices_follow_the_softmax),
        cmocka_unit_test(normal_numbers_have_their_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
