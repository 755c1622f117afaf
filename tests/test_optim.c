/* The optimiser against PyTorch's AdamW, clip_grad_norm_ and an average (tests/reference/adamw.py). */
#include "runtime/checkpoint.h"
#include "ir/build.h"
#include "support/command.h"
#include "support/cuda.h"
#include "support/tiny_em.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { STEPS = 5, N = 4 };
static const double norms[STEPS] = {6.402343278, 8.301853434, 4.692564382, 5.755386210, 8.413265328};
static const double thetas[STEPS][N] = {{0.935000254, -2.019999883, 2.905000378, 0.542499965},
                                        {0.871569365, -2.026027897, 2.891877413, 0.584309715},
                                        {0.816673835, -1.986320581, 2.889194793, 0.621936821},
                                        {0.799753532, -1.930384847, 2.883677841, 0.623630772},
                                        {0.799945821, -1.876751539, 2.858084489, 0.605520059}};
static const double averages[STEPS][N] = {{0.993500025, -2.001999988, 2.990500038, 0.504249996},
                                          {0.981306959, -2.004402779, 2.980637775, 0.512255968},
                                          {0.964843647, -2.002594559, 2.971493477, 0.523224054},
                                          {0.948334635, -1.995373588, 2.962711913, 0.533264725},
                                          {0.933495754, -1.983511383, 2.952249171, 0.540490259}};

static void adamw_is_pytorchs_on(const char *device)
{
    Tiny *t = tiny_new(1, false, 1, 8);
    ParamSet *p = t->theta;
    const double start[N] = {1, -2, 3, 0.5};
    for (int i = 0; i < N; i++)
        p->value[i] = (float)start[i];
    const CompileOptions co = {.precision = DAV_F32};
    Optim *o = optim_new(&t->err, p, &co, device);
    if (!o)
        fail_msg("%s", t->err.text);
    const OptimSettings s = {.lr = 0.05, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.3, .clip = 1.5, .ema = 0.9};
    for (int k = 0; k < STEPS; k++) {
        double norm;
        for (int i = 0; i < N; i++)
            o->grad[i] = (float)(sin(k + 1 + i) * pow(2, i));
        flat_wrote(o->grad);
        assert_true(optim_update(o, &t->err, p, &s, &norm));
        assert_true(flat_read(&t->err, p->value) && flat_read(&t->err, o->ema) && flat_read(&t->err, o->grad));
        assert_true(fabs(norm - norms[k]) < 2e-6);
        for (int i = 0; i < N; i++) {
            assert_true(fabs(p->value[i] - thetas[k][i]) < 2e-6);
            assert_true(fabs(o->ema[i] - averages[k][i]) < 2e-6);
            assert_true(o->grad[i] == 0);
        }
    }
    assert_int_equal(o->step, STEPS);
    optim_free(o);
    tiny_free(t);
}

static void adamw_is_pytorchs(void **state)
{
    (void)state;
    adamw_is_pytorchs_on("cpu");
}

static void adamw_is_pytorchs_on_cuda(void **state)
{
    (void)state;
    cuda_or_skip();
    adamw_is_pytorchs_on("cuda");
}

/* The norm of the ith of n numbers being i: from the sum of squares.  Every number of parameters moves by lr alone where the gradient is
 * one and nothing has been averaged. */
static void every_parameter_counts_on(const char *device)
{
    static const int64_t sizes[] = {1, 4095, 4097, 70000, 300001};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        Err err = {0};
        Arena *a = arena_new();
        Graph *g = graph_new(a, &err, "x");
        const int64_t n = sizes[k];
        g_input(g, "theta.w", ROLE_PARAM, type_make(DAV_F32, 1, &n));
        ParamSet *p = params_from_graph(g, "theta.");
        Optim *o = optim_new(&err, p, &(CompileOptions){.precision = DAV_F32}, device);
        const OptimSettings s = {.lr = 0.125, .beta1 = 0, .beta2 = 0, .eps = 1e-12, .clip = 0, .ema = 0.5};
        double norm = 0;
        for (int64_t i = 0; i < n; i++)
            p->value[i] = 3, o->ema[i] = 1, o->grad[i] = (float)(1 + i % 7);
        params_touch(p);
        if (!optim_update(o, &err, p, &s, &norm))
            fail_msg("%s", err.text);
        double square = 0;
        for (int64_t i = 0; i < n; i++)
            square += (double)((1 + i % 7) * (1 + i % 7));
        assert_true(fabs(norm - sqrt(square)) < 1e-5 * sqrt(square));
        assert_true(flat_read(&err, p->value) && flat_read(&err, o->ema) && flat_read(&err, o->grad));
        for (int64_t i = 0; i < n; i++)
            if (fabsf(p->value[i] - 2.875f) > 1e-6f || fabsf(o->ema[i] - 1.9375f) > 1e-6f || o->grad[i] != 0)
                fail_msg("%lld parameters, the %lldth: %g, average %g, gradient %g", (long long)n, (long long)i, (double)p->value[i],
                         (double)o->ema[i], (double)o->grad[i]);
        optim_free(o);
        params_free(p);
        arena_free(a);
    }
}

static void every_parameter_counts(void **state)
{
    (void)state;
    every_parameter_counts_on("cpu");
}

static void every_parameter_counts_on_cuda(void **state)
{
    (void)state;
    cuda_or_skip();
    every_parameter_counts_on("cuda");
}

/* Decay moves what has no gradient, too, and by no more than itself; a gradient that is no number moves nothing. */
static void nothing_moves_for_a_gradient_that_is_no_number(void **state)
{
    (void)state;
    Tiny *t = tiny_new(1, false, 1, 8);
    const CompileOptions co = {.precision = DAV_F32};
    Optim *o = optim_new(&t->err, t->theta, &co, "cpu");
    const OptimSettings s = {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.5, .ema = 0.9};
    double norm;
    t->theta->value[0] = 2;
    assert_true(optim_update(o, &t->err, t->theta, &s, &norm) && norm == 0);
    assert_true(fabs(t->theta->value[0] - 2 * (1 - 0.1 * 0.5)) < 1e-6);
    float before = t->theta->value[0], average = o->ema[0];
    o->grad[1] = NAN;
    assert_false(optim_update(o, &t->err, t->theta, &s, &norm));
    assert_int_equal(t->err.kind, ERR_USER);
    assert_true(t->theta->value[0] == before && o->ema[0] == average && o->step == 1);
    optim_free(o);
    tiny_free(t);
}

/* Everything that a resumed run goes on from comes back, each array as itself. */
static void a_checkpoint_gives_back_what_it_was_given(void **state)
{
    Tiny *t = tiny_new(1, false, 1, 8);
    const CompileOptions co = {.precision = DAV_F32};
    Optim *o = optim_new(&t->err, t->theta, &co, "cpu"), *back = optim_new(&t->err, t->theta, &co, "cpu");
    int64_t n = t->theta->size;
    size_t bytes = (size_t)n * sizeof(float);
    float *theta = mem_alloc(bytes);
    for (int64_t i = 0; i < n; i++) {
        theta[i] = t->theta->value[i] = (float)i + 0.5f;
        o->m[i] = (float)(i + 1000);
        o->v[i] = (float)(i + 2000);
        o->ema[i] = (float)(i + 3000);
    }
    o->step = 77;
    Checkpoint c = {.dir = in_scratch("run"), .device = "cpu", .precision = "f32", .seed = 5, .phase = STATE_ALIGN, .round = 3, .step = 9,
                    .count = {1, 2, 3, 4, 5}, .metrics_offset = 6, .events_offset = 7},
               got = {.dir = c.dir, .device = "cpu", .precision = "f32", .phase = STATE_ALIGN};
    assert_true(file_mkdirs(&t->err, in_scratch("run/checkpoints")));
    if (!checkpoint_save(&t->err, &c, t->theta, o))
        fail_msg("%s", t->err.text);
    memset(t->theta->value, 0, bytes);
    if (!checkpoint_load(&t->err, &got, t->theta, back, false))
        fail_msg("%s", t->err.text);
    for (int i = 0; i < t->theta->n; i++) { /* between the entries is padding */
        const ParamEntry *e = &t->theta->entry[i];
        assert_memory_equal(t->theta->value + e->offset, theta + e->offset, (size_t)e->count * sizeof(float));
    }
    assert_memory_equal(back->m, o->m, bytes);
    assert_memory_equal(back->v, o->v, bytes);
    assert_memory_equal(back->ema, o->ema, bytes);
    assert_int_equal(back->step, 77);
    assert_int_equal(got.round, 3);
    assert_int_equal(got.step, 9);
    assert_int_equal(got.metrics_offset, 6);
    assert_int_equal(got.events_offset, 7);
    assert_memory_equal(&got.count, &c.count, sizeof c.count);
    got.phase = STATE_PRETRAIN; /* another kind of run */
    assert_false(checkpoint_load(&t->err, &got, t->theta, back, false));
    mem_free(theta);
    optim_free(o);
    optim_free(back);
    tiny_free(t);
    (void)state;
}

int main(void)
{
    cuda_choose();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_is_pytorchs),
        cmocka_unit_test(adamw_is_pytorchs_on_cuda),
        cmocka_unit_test(every_parameter_counts),
        cmocka_unit_test(every_parameter_counts_on_cuda),
        cmocka_unit_test(nothing_moves_for_a_gradient_that_is_no_number),
        cmocka_unit_test(a_checkpoint_gives_back_what_it_was_given),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
