/* The search on problems small enough to enumerate: three positions, two letters, every law known exactly.
 * What is compared with is computed here, from the network's and the reward's values at each state, by direct sums. */
#include "support/exact_em.h"
#include "support/tiny_em.h"
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static int index_of(const int64_t *x)
{
    return (int)(x[0] + 3 * x[1] + 9 * x[2]);
}

/* One step from all masked to (almost) nothing masked: eight children.  Their log-weights and proposal. */
static void one_step(Tiny *t, double alpha, double q[WORDS], double logw[WORDS])
{
    double logq[L][V];
    int64_t mask[L] = {V, V, V};
    int start = index_of(mask);
    tiny_proposal(t, 1 / alpha, logq);
    for (int w = 0; w < WORDS; w++) {
        int64_t x[L] = {w & 1, w >> 1 & 1, w >> 2};
        double lp = 0, lq = 0;
        for (int j = 0; j < L; j++) {
            lp += t->logp[start][j][x[j]];
            lq += logq[j][x[j]];
        }
        q[w] = exp(lq);
        logw[w] = t->r[index_of(x)] / alpha + lp - lq;
    }
}

/* Law of the choice by enumeration of all M-tuples of children. */
static void law_by_tuples(int m, const double q[WORDS], const double logw[WORDS], double law[WORDS])
{
    int tuples = 1;
    for (int i = 0; i < m; i++)
        tuples *= WORDS;
    memset(law, 0, WORDS * sizeof *law);
    for (int c = 0; c < tuples; c++) {
        double p = 1, z = 0;
        for (int i = 0, rest = c; i < m; i++, rest /= WORDS) {
            p *= q[rest % WORDS];
            z += exp(logw[rest % WORDS]);
        }
        for (int i = 0, rest = c; i < m; i++, rest /= WORDS)
            law[rest % WORDS] += p * exp(logw[rest % WORDS]) / z;
    }
}

/* The same for any M:  law(j) = M q_j w_j int_0^inf e^{-s w_j} (sum_k q_k e^{-s w_k})^(M-1) ds, by s = e^u and Simpson. */
static void law_by_integral(int m, const double q[WORDS], const double logw[WORDS], double law[WORDS])
{
    enum { N = 20000 };
    const double lo = -40, hi = 12, h = (hi - lo) / N;
    for (int j = 0; j < WORDS; j++) {
        double sum = 0;
        for (int i = 0; i <= N; i++) {
            double s = exp(lo + h * i), mean = 0;
            for (int k = 0; k < WORDS; k++)
                mean += q[k] * exp(-s * exp(logw[k]));
            double f = s * exp(-s * exp(logw[j])) * pow(mean, m - 1);
            sum += f * (i == 0 || i == N ? 1 : i % 2 ? 4 : 2);
        }
        law[j] = m * q[j] * exp(logw[j]) * sum * h / 3;
    }
}

static void frequencies(Tiny *t, double alpha, int64_t n, double f[WORDS])
{
    SearchSettings s = tiny_settings(t, alpha, 0.9, true);
    Trajectories *tr = search_run(t->k, &t->err, &s, 0, n, true);
    assert_non_null(tr);
    memset(f, 0, WORDS * sizeof *f);
    for (int64_t i = 0; i < n; i++)
        f[tr->final[i * L] + 2 * tr->final[i * L + 1] + 4 * tr->final[i * L + 2]] += 1.0 / (double)n;
    trajectories_free(tr);
}

/* The largest deviation in standard errors of a frequency. */
static double deviation(const double *f, const double *law, int64_t n)
{
    double worst = 0;
    for (int i = 0; i < WORDS; i++)
        worst = fmax(worst, fabs(f[i] - law[i]) / sqrt(law[i] * (1 - law[i]) / (double)n + 1e-9));
    return worst;
}

static void integral_equals_enumeration(void **state)
{
    (void)state;
    Tiny *t = tiny_new(2, true, 1, 64);
    double q[WORDS], logw[WORDS], a[WORDS], b[WORDS];
    one_step(t, 0.5, q, logw);
    for (int m = 1; m <= 4; m++) {
        law_by_tuples(m, q, logw, a);
        law_by_integral(m, q, logw, b);
        for (int w = 0; w < WORDS; w++)
            assert_true(fabs(a[w] - b[w]) < 1e-6);
    }
    tiny_free(t);
}

static void choice_law(int m, bool gradient)
{
    const int64_t n = 20000;
    Tiny *t = tiny_new(m, gradient, 1, 256);
    double q[WORDS], logw[WORDS], law[WORDS], f[WORDS];
    one_step(t, 0.5, q, logw);
    law_by_integral(m, q, logw, law);
    frequencies(t, 0.5, n, f);
    double worst = deviation(f, law, n);
    print_message("M %d%s: largest deviation %.2f standard errors of %lld draws\n", m, gradient ? ", guided" : "", worst, (long long)n);
    assert_true(worst < 4.5);
    tiny_free(t);
}

static void choice_has_the_law_of_its_children(void **state)
{
    (void)state;
    for (int m = 1; m <= 4; m++)
        choice_law(m, false), choice_law(m, true);
    choice_law(64, false), choice_law(64, true);
}

/* The law's distance from the exact target falls like 1 / M: M * TV is constant to leading order. */
static void distance_from_the_target_falls_like_one_over_m(void **state)
{
    (void)state;
    for (int guided = 0; guided < 2; guided++) {
        Tiny *t = tiny_new(2, guided, 1, 64);
        double q[WORDS], logw[WORDS], law[WORDS], target[WORDS], z = 0, scaled[3];
        one_step(t, 0.5, q, logw);
        for (int w = 0; w < WORDS; w++)
            z += target[w] = q[w] * exp(logw[w]);
        for (int w = 0; w < WORDS; w++)
            target[w] /= z;
        for (int i = 0; i < 3; i++) {
            int m = 64 << 2 * i;
            law_by_integral(m, q, logw, law);
            scaled[i] = m * exact_distance(law, target, WORDS);
        }
        print_message("%s M TV = %.4f %.4f %.4f for M = 64 256 1024\n", guided ? "guided:" : "plain: ", scaled[0], scaled[1], scaled[2]);
        assert_true(fabs(scaled[0] / scaled[2] - 1) < 0.1 && fabs(scaled[1] / scaled[2] - 1) < 0.03);
        double f[WORDS];
        Tiny *big = tiny_new(1024, guided, 1, 8);
        const int64_t n = 3000; /* the Monte Carlo floor of its TV is about 0.4 sqrt(8 / n) = 0.02 */
        frequencies(big, 0.5, n, f);
        assert_true(deviation(f, target, n) < 4.5);
        tiny_free(big);
        tiny_free(t);
    }
}

/* ---- several steps ---- */
/* p of going from state i to j at step s: product over masked positions of "stays" and "filled by this letter". */
static double transition(const Tiny *t, int i, int j, int step)
{
    double m_t = masked_share(masked_time(t->k, step)), m_s = masked_share(masked_time(t->k, step + 1)), p = 1;
    for (int l = 0; l < L; l++) {
        int64_t a = t->x[i][l], b = t->x[j][l];
        if (a != V)
            p *= a == b;
        else
            p *= b == V ? m_s / m_t : (m_t - m_s) / m_t * exp(t->logp[i][l][b]);
    }
    return p;
}

static void plain_samples_have_the_models_law(void **state)
{
    (void)state;
    enum { STEPS = 3 };
    const int64_t n = 20000;
    Tiny *t = tiny_new(1, false, STEPS, 64);
    double p[STATES] = {[26] = 1}, law[WORDS] = {0}, f[WORDS] = {0};
    for (int s = 0; s < STEPS; s++) {
        double next[STATES] = {0};
        for (int i = 0; i < STATES; i++)
            for (int j = 0; j < STATES; j++)
                next[j] += p[i] * transition(t, i, j, s);
        memcpy(p, next, sizeof p);
    }
    for (int i = 0; i < STATES; i++) { /* what is left is filled by the most likely letter */
        int w = 0;
        for (int l = 0; l < L; l++)
            w |= (int)(t->x[i][l] != V ? t->x[i][l] : t->logp[i][l][1] > t->logp[i][l][0]) << l;
        law[w] += p[i];
    }
    SearchSettings s = tiny_settings(t, 1, 1, false);
    Trajectories *tr = search_run(t->k, &t->err, &s, 0, n, false);
    assert_non_null(tr);
    for (int64_t i = 0; i < n; i++)
        f[tr->final[i * L] + 2 * tr->final[i * L + 1] + 4 * tr->final[i * L + 2]] += 1.0 / (double)n;
    assert_true(deviation(f, law, n) < 4.5);
    trajectories_free(tr);
    tiny_free(t);
}

/* J of the exact local target eta*(x'|x) ~ p exp(gamma^(t-1) r(x0hat(x')) / alpha), from state i at step s on. */
static double exact_bound(const Tiny *t, int i, int s, double alpha, double gamma)
{
    if (s == t->k->steps)
        return pow(gamma, s - 1) * t->r[i] / alpha;
    double w[STATES], z = 0, sum = 0, scale = pow(gamma, t->k->steps - s - 1) / alpha;
    for (int j = 0; j < STATES; j++)
        z += w[j] = transition(t, i, j, s) * exp(scale * t->r[j]);
    for (int j = 0; j < STATES; j++)
        if (w[j] > 0)
            sum += w[j] / z * (pow(gamma, s) * (log(z) - scale * t->r[j]) + exact_bound(t, j, s + 1, alpha, gamma));
    return sum;
}

typedef struct Estimate { double mean, se; } Estimate;

static Estimate estimate(const double *v, int64_t n)
{
    double mean = 0, square = 0;
    for (int64_t k = 0; k < n; k++) {
        mean += v[k] / (double)n;
        square += v[k] * v[k] / (double)n;
    }
    return (Estimate){mean, sqrt((square - mean * mean) / (double)n)};
}

static void bound_meets_the_exact_one_as_m_grows(void **state)
{
    (void)state;
    const double alpha = 0.5, gamma = 0.9;
    const int ms[] = {2, 16, 256};
    double gap[3];
    for (int i = 0; i < 3; i++) {
        const int64_t n = i == 2 ? 3000 : 8000;
        Tiny *t = tiny_new(ms[i], false, 2, 64);
        double exact = exact_bound(t, 26, 0, alpha, gamma);
        SearchSettings s = tiny_settings(t, alpha, gamma, true);
        Trajectories *tr = search_run(t->k, &t->err, &s, 0, n, true);
        assert_non_null(tr);
        Estimate e = estimate(tr->elbo, n);
        print_message("M %d: estimate %.4f +- %.4f, exact %.4f\n", ms[i], e.mean, e.se, exact);
        gap[i] = exact - e.mean;
        assert_true(gap[i] > -4 * e.se);
        if (i == 2)
            assert_true(gap[i] < 4 * e.se + 0.01);
        trajectories_free(tr);
        tiny_free(t);
    }
    assert_true(gap[0] > gap[1] && gap[0] > 0.02);
}

/* log E exp(r / alpha) of plain samples, from state i at step s on. */
static double log_mean_exp_reward(const Tiny *t, int i, int s, double alpha)
{
    double mean = 0;
    if (s == t->k->steps)
        return t->r[i] / alpha;
    for (int j = 0; j < STATES; j++)
        mean += transition(t, i, j, s) > 0 ? transition(t, i, j, s) * exp(log_mean_exp_reward(t, j, s + 1, alpha)) : 0;
    return log(mean);
}

/* Whatever gamma the search weighs by, plain or guided; with one step and many children it meets the limit. */
static void undiscounted_bound_is_below_log_mean_exp_reward(void **state)
{
    (void)state;
    static const struct { int m, steps; bool guided; double gamma; } row[] = {
        {64, 1, false, 1}, {2, 1, true, 0.9}, {16, 3, false, 1}, {16, 3, false, 0.9}, {2, 3, true, 0.9}, {2, 3, true, 0.3}};
    const double alpha = 0.5;
    const int64_t n = 4000;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        Tiny *t = tiny_new(row[i].m, row[i].guided, row[i].steps, 64);
        double exact = log_mean_exp_reward(t, 26, 0, alpha);
        SearchSettings s = tiny_settings(t, alpha, row[i].gamma, true);
        Trajectories *tr = search_run(t->k, &t->err, &s, 0, n, true);
        assert_non_null(tr);
        Estimate e = estimate(tr->elbo_undiscounted, n);
        print_message("M %d%s, %d steps, gamma %.1f: %.4f +- %.4f, log E exp(r/alpha) = %.4f\n", row[i].m,
                      row[i].guided ? " guided" : "", row[i].steps, row[i].gamma, e.mean, e.se, exact);
        assert_true(e.mean < exact + 4 * e.se);
        if (i == 0)
            assert_true(e.mean > exact - 4 * e.se - 0.05);
        if (row[i].gamma == 1)
            assert_memory_equal(tr->elbo, tr->elbo_undiscounted, (size_t)n * sizeof(double));
        else if (row[i].steps > 1)
            assert_true(fabs(e.mean - estimate(tr->elbo, n).mean) > 8 * e.se);
        trajectories_free(tr);
        tiny_free(t);
    }
}

/* ---- the same bits whatever the batch and the threads ---- */
static void same_bits_for_any_batch_and_threads(void **state)
{
    (void)state;
    enum { N = 70 };
    const int64_t rows[] = {1, 7, 64};
    Trajectories *first = NULL;
    for (int i = 0; i < 6; i++) {
        omp_set_num_threads(1 + i % 2);
        Tiny *t = tiny_new(5, true, 4, rows[i / 2]);
        SearchSettings s = tiny_settings(t, 0.5, 0.9, true);
        Trajectories *tr = search_run(t->k, &t->err, &s, 0, N, true);
        assert_non_null(tr);
        if (first) {
            assert_memory_equal(tr->state, first->state, N * 5 * L);
            assert_memory_equal(tr->reward, first->reward, N * sizeof(float));
            assert_memory_equal(tr->elbo, first->elbo, N * sizeof(double));
            trajectories_free(tr);
        } else {
            first = tr;
        }
        tiny_free(t);
    }
    /* and a sample depends on its own number alone */
    Tiny *t = tiny_new(5, true, 4, 16);
    SearchSettings s = tiny_settings(t, 0.5, 0.9, true);
    Trajectories *part = search_run(t->k, &t->err, &s, 40, 30, true);
    assert_memory_equal(part->state, first->state + 40 * 5 * L, 30 * 5 * L);
    trajectories_free(part);
    trajectories_free(first);
    tiny_free(t);
    omp_set_num_threads(omp_get_num_procs());
}

/* The E-step counts what it does: equal children are evaluated once. */
static void equal_states_are_evaluated_once(void **state)
{
    (void)state;
    Tiny *t = tiny_new(50, false, 3, 64);
    t->k->count = (Counters){0};
    SearchSettings s = tiny_settings(t, 0.5, 0.9, true);
    Trajectories *tr = search_run(t->k, &t->err, &s, 0, 20, true);
    assert_non_null(tr);
    assert_true(t->k->count.forwards <= 1 + 3 * STATES); /* of 20 * 50 * 3 children */
    assert_int_equal(t->k->count.forwards, t->k->count.reward_forwards);
    assert_int_equal(t->k->count.vjps, 0);
    trajectories_free(tr);
    tiny_free(t);
}

/* ---- a network that is told the time ---- */
typedef struct Timed { Arena *arena; Err err; Registry *registry; MaskedSpec spec; ParamSet *theta; Masked *k; } Timed;

static Timed *timed_new(bool time_input, int steps)
{
    const char *const set[][2] = {{"alphabet_size", "5"}, {"length", "8"}, {"hidden_dim", "8"}, {"num_cnn_stacks", "1"}};
    Timed *t = mem_alloc(sizeof *t);
    t->arena = arena_new();
    t->registry = registry_new();
    const DavModel *m = registry_model(t->registry, &t->err, "test", "DNAConv");
    DavConfig *c = config_new(t->arena);
    config_add_table(c, "", m->keys, m->n_keys);
    for (size_t i = 0; i < sizeof set / sizeof *set; i++)
        assert_true(config_set(c, &t->err, "test", set[i][0], (ConfigText){CONFIG_PLAIN, set[i][1]}));
    assert_true(config_finish(c, &t->err, "test"));
    t->spec = (MaskedSpec){.denoiser = {m, c}, .children = 1, .time_input = time_input};
    assert_true(masked_spec_shape(&t->err, &t->spec));
    t->theta = masked_denoiser_params(&t->err, &t->spec, 5);
    const BuildOptions o = {.compile = {.precision = DAV_F32}, .device = "cpu", .rows = 32};
    t->k = masked_new(&t->err, &t->spec, &o, steps, t->theta, NULL, NULL);
    if (!t->k)
        fail_msg("%s", t->err.text);
    return t;
}

/* Evaluations of one trajectory of STEPS plain steps. */
static int64_t evaluations(bool time_input)
{
    enum { STEPS = 24 };
    Timed *t = timed_new(time_input, STEPS);
    SearchSettings s = {.children = 1, .seed = 9, .stream = "timed", .alpha = 1, .gamma = 1};
    Trajectories *tr = search_run(t->k, &t->err, &s, 0, 1, false);
    assert_non_null(tr);
    int64_t n = t->k->count.forwards;
    trajectories_free(tr);
    masked_free(t->k);
    params_free(t->theta);
    registry_free(t->registry);
    arena_free(t->arena);
    mem_free(t);
    return n;
}

/* Without time input a state that stays keeps its evaluation; with it, it is evaluated at every time anew. */
static void a_state_that_stays_hears_the_new_time(void **state)
{
    (void)state;
    assert_int_equal(evaluations(true), 1 + 24);
    assert_in_range(evaluations(false), 2, 1 + 8); /* eight letters are filled in at most eight steps */
}

/* ---- a trajectory as one program ---- */
static void same_trajectories(const Trajectories *a, const Trajectories *b)
{
    size_t rows = (size_t)a->n, states = rows * (size_t)(a->steps + 1) * L;
    assert_memory_equal(a->state, b->state, states);
    assert_memory_equal(a->x0, b->x0, rows * (size_t)a->steps * L);
    assert_memory_equal(a->final, b->final, rows * L * sizeof(int64_t));
    assert_memory_equal(a->reward, b->reward, rows * sizeof(float));
    assert_memory_equal(a->elbo, b->elbo, rows * sizeof(double));
    assert_memory_equal(a->elbo_undiscounted, b->elbo_undiscounted, rows * sizeof(double));
    assert_true(a->ess == b->ess);
}

/* The bits of the search step by step, whatever a run's rows; searched, guided, plain, with time. */
static void whole_trajectories_are_the_same(void **state)
{
    (void)state;
    enum { N = 37, T = 4, M = 3 };
    for (int kind = 0; kind < 4; kind++) {
        Tiny *t = tiny_new(M, kind == 1, T, 32);
        const bool weigh = kind != 2;
        t->spec.time_input = kind == 3;
        t->spec.search = weigh ? t->spec.search : NULL;
        t->spec.children = weigh ? M : 1;
        SearchSettings s = tiny_settings(t, 0.5, 0.9, weigh);
        tiny_rebuild(t, "cpu", T, 32);
        assert_null(t->k->whole);
        Trajectories *steps = search_run(t->k, &t->err, &s, 5, N, true);
        for (int64_t rows = 2; rows <= 64; rows += 31) {
            t->spec.whole = WHOLE_ALWAYS;
            tiny_rebuild(t, "cpu", T, rows);
            Trajectories *whole = search_run(t->k, &t->err, &s, 5, N, true);
            if (!steps || !whole || !t->k->whole)
                fail_msg("%s", t->err.text);
            same_trajectories(steps, whole);
            trajectories_free(whole);
        }
        trajectories_free(steps);
        tiny_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integral_equals_enumeration),
        cmocka_unit_test(choice_has_the_law_of_its_children),
        cmocka_unit_test(distance_from_the_target_falls_like_one_over_m),
        cmocka_unit_test(plain_samples_have_the_models_law),
        cmocka_unit_test(bound_meets_the_exact_one_as_m_grows),
        cmocka_unit_test(undiscounted_bound_is_below_log_mean_exp_reward),
        cmocka_unit_test(same_bits_for_any_batch_and_threads),
        cmocka_unit_test(equal_states_are_evaluated_once),
        cmocka_unit_test(a_state_that_stays_hears_the_new_time),
        cmocka_unit_test(whole_trajectories_are_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
