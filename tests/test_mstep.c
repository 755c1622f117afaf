/* What the M-step replays: the losses of its states, summed here from the network's table. */
#include "runtime/mstep.h"
#include "support/tiny_em.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { STEPS = 4, N = 24 };

static int index_of(const uint8_t *x)
{
    return x[0] + 3 * x[1] + 9 * x[2];
}

static const uint8_t *state_at(const Trajectories *tr, int64_t i, int step)
{
    return tr->state + (i * (STEPS + 1) + step) * L;
}

/* - sum of log p over the masked positions of x, of the letters that `target` names there. */
static double missed(const Tiny *t, const uint8_t *x, const uint8_t *target)
{
    double sum = 0;
    for (int j = 0; j < L; j++)
        if (x[j] == V && target[j] != V)
            sum -= t->logp[index_of(x)][j][target[j]];
    return sum;
}

/* The mean loss that one epoch over the trajectories reports at learning rate 0. */
static MStepReport replay(Tiny *t, const Trajectories *tr, const DavLoss *loss, int skip, bool every_state)
{
    const BuildOptions o = {.compile = {.precision = DAV_F32}, .device = "cpu", .rows = 16};
    MaskedSpec spec = t->spec;
    spec.loss = loss;
    Optim *optim = optim_new(&t->err, t->theta, &o.compile, "cpu");
    MStep s = {.distil = masked_distil(&t->err, &spec, &o, t->theta, optim)};
    if (!s.distil)
        fail_msg("%s", t->err.text);
    MStepSettings set = {.optim = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8}, .epochs = 1, .batch = N * STEPS, .skip_steps = skip,
                         .every_state = every_state, .seed = 1};
    MStepReport r;
    assert_true(mstep_run(&s, &t->err, t->k, tr, &set, t->theta, optim, &r));
    rows_free(s.distil);
    optim_free(optim);
    return r;
}

static void each_state_has_its_own_target(void **state)
{
    (void)state;
    Tiny *t = tiny_new(3, false, STEPS, 32);
    SearchSettings s = tiny_settings(t, 0.5, 0.9, true);
    Trajectories *tr = search_run(t->k, &t->err, &s, 0, N, true);
    assert_non_null(tr);
    for (int64_t i = 0; i < (int64_t)N * STEPS * L; i++) /* fills that no other step shares */
        tr->x0[i] = (uint8_t)((i * 7 + i / 5) % 2);
    for (int skip = 0; skip < STEPS; skip += 2) {
        double released = 0, transition = 0;
        int states = 0, filled = 0;
        for (int64_t i = 0; i < N; i++)
            for (int step = skip; step < STEPS; step++) {
                const uint8_t *x = state_at(tr, i, step), *next = state_at(tr, i, step + 1);
                double m_t = masked_share(masked_time(t->k, step)), m_s = masked_share(masked_time(t->k, step + 1));
                released += (m_t - m_s) / m_t * missed(t, x, tr->x0 + (i * STEPS + step) * L);
                transition += missed(t, x, next);
                states++;
                filled += memcmp(x, next, L) != 0;
            }
        MStepReport r = replay(t, tr, registry_loss(t->registry, &t->err, "test", "released"), skip, true);
        assert_int_equal(r.states, states);
        assert_true(fabs(r.loss - released / states) < 1e-5 * (1 + released));
        r = replay(t, tr, registry_loss(t->registry, &t->err, "test", "dav"), skip, false);
        assert_int_equal(r.states, filled);
        assert_true(fabs(r.loss - transition / filled) < 1e-5 * (1 + transition));
    }
    trajectories_free(tr);
    tiny_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_state_has_its_own_target)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
