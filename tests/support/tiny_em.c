#include "support/tiny_em.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static DavConfig *config_of(Tiny *t, const DavModel *m, const char *const (*set)[2], int n)
{
    DavConfig *c = config_new(t->arena);
    config_add_table(c, "", m->keys, m->n_keys);
    for (int i = 0; i < n; i++)
        assert_true(config_set(c, &t->err, "test", set[i][0], (ConfigText){CONFIG_PLAIN, set[i][1]}));
    assert_true(config_finish(c, &t->err, "test"));
    return c;
}

static void tabulate(Tiny *t)
{
    States s = states_new(t->k, STATES);
    for (int i = 0; i < STATES; i++)
        for (int j = 0, rest = i; j < L; j++, rest /= 3)
            s.x[i * L + j] = t->x[i][j] = rest % 3;
    assert_true(states_denoise(t->k, &t->err, &s, 0.5) && masked_score(t->k, &t->err, STATES, s.x0, s.r));
    for (int i = 0; i < STATES; i++) {
        t->r[i] = s.r[i];
        for (int j = 0; j < L * V; j++)
            t->logp[i][j / V][j % V] = s.logp[i * L * V + j];
    }
    states_free(&s);
}

Tiny *tiny_new_on(const char *device, int children, bool gradient, int steps, int64_t rows)
{
    Tiny *t = mem_alloc(sizeof *t);
    t->arena = arena_new();
    t->registry = registry_new();
    const DavModel *tiny = registry_model(t->registry, &t->err, "test", "TinyDenoiser"),
                   *cnn = registry_model(t->registry, &t->err, "test", "SeqCNN");
    const char *const ts[][2] = {{"alphabet_size", "3"}, {"length", "3"}, {"hidden_dim", "8"}};
    const char *const cs[][2] = {{"letters", "2"}, {"length", "3"}, {"channels", "[6]"}, {"kernels", "[3]"}, {"pool", "[1]"},
                                 {"dense", "6"}, {"activation", "gelu"}};
    t->spec = (MaskedSpec){.denoiser = {tiny, config_of(t, tiny, ts, 3)}, .reward = {cnn, config_of(t, cnn, cs, 7)},
                           .children = children, .gradient = gradient, .search = &dav_search_dav, .loss = &dav_loss_dav};
    assert_true(masked_spec_shape(&t->err, &t->spec));
    t->theta = masked_denoiser_params(&t->err, &t->spec, 3);
    t->phi = masked_reward_params(&t->err, &t->spec, 4);
    for (int64_t i = 0; i < t->theta->size; i++) /* far from uniform */
        t->theta->value[i] *= 3;
    for (int64_t i = 0; i < t->phi->size; i++)
        t->phi->value[i] *= 3;
    const BuildOptions o = {.compile = {.precision = DAV_F32}, .device = device, .rows = rows};
    t->k = masked_new(&t->err, &t->spec, &o, steps, t->theta, t->phi, NULL);
    if (!t->k)
        fail_msg("%s", t->err.text);
    tabulate(t);
    return t;
}

void tiny_rebuild(Tiny *t, const char *device, int steps, int64_t rows)
{
    const BuildOptions o = {.compile = {.precision = DAV_F32}, .device = device, .rows = rows};
    masked_free(t->k);
    t->k = masked_new(&t->err, &t->spec, &o, steps, t->theta, t->phi, NULL);
    if (!t->k)
        fail_msg("%s", t->err.text);
}

Tiny *tiny_new(int children, bool gradient, int steps, int64_t rows)
{
    return tiny_new_on("cpu", children, gradient, steps, rows);
}

void tiny_free(Tiny *t)
{
    masked_free(t->k);
    params_free(t->theta);
    params_free(t->phi);
    registry_free(t->registry);
    arena_free(t->arena);
    mem_free(t);
}

SearchSettings tiny_settings(const Tiny *t, double alpha, double gamma, bool weigh)
{
    return (SearchSettings){.children = weigh ? t->spec.children : 1, .weigh = weigh, .gradient = weigh && t->spec.gradient,
                            .alpha = alpha, .gamma = gamma, .seed = 7, .stream = "test", .round = 1};
}

void tiny_proposal(Tiny *t, double scale, double logq[L][V])
{
    float g[L * V] = {0};
    int64_t x[L] = {V, V, V};
    const int start = STATES - 1;
    if (t->k->guide) {
        RowArg in = {"x", x, ROW_EACH}, out = {"g", g, ROW_EACH};
        assert_true(rows_run(t->k->guide, &t->err, 1, &in, 1, &out, 1));
    }
    for (int j = 0; j < L; j++) {
        double a = t->logp[start][j][0] + scale * g[j * V], b = t->logp[start][j][1] + scale * g[j * V + 1];
        double z = fmax(a, b) + log1p(exp(-fabs(a - b)));
        logq[j][0] = a - z;
        logq[j][1] = b - z;
    }
}
