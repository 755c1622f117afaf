/* The departures of the released code from the paper that change the search: the law of one step's choice with each of them,
 * by enumeration of all pairs of children. */
#include "support/tiny_em.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

typedef struct Departure { const char *name; bool greedy, mean_logp; int gamma_offset; double guide_divisor; } Departure;

static const double alpha = 0.5, gamma_ = 0.6;

/* Children of the all-masked state and their weights; one step, so that the exponent of gamma is the offset alone. */
static void children_of(Tiny *t, const Departure *d, double q[WORDS], double logw[WORDS])
{
    double scale = pow(gamma_, d->gamma_offset) / alpha, logq[L][V], dims = d->mean_logp ? L : 1;
    tiny_proposal(t, scale / d->guide_divisor, logq);
    for (int w = 0; w < WORDS; w++) {
        int64_t x[L] = {w & 1, w >> 1 & 1, w >> 2};
        double lp = 0, lq = 0;
        for (int j = 0; j < L; j++) {
            lp += t->logp[STATES - 1][j][x[j]];
            lq += logq[j][x[j]];
        }
        q[w] = exp(lq);
        logw[w] = scale * t->r[x[0] + 3 * x[1] + 9 * x[2]] + (lp - lq) / dims;
    }
}

static void law_of_pairs(bool greedy, const double q[WORDS], const double logw[WORDS], double law[WORDS])
{
    memset(law, 0, WORDS * sizeof *law);
    for (int a = 0; a < WORDS; a++)
        for (int b = 0; b < WORDS; b++) {
            double first = greedy ? logw[a] >= logw[b] : 1 / (1 + exp(logw[b] - logw[a]));
            law[a] += q[a] * q[b] * first;
            law[b] += q[a] * q[b] * (1 - first);
        }
}

static void check(const Departure *d)
{
    const int64_t n = 20000;
    Tiny *t = tiny_new(2, true, 1, 256);
    const BuildOptions o = {.compile = {.precision = DAV_F32}, .device = "cpu", .rows = 256};
    t->spec.greedy = d->greedy;
    t->spec.mean_logp = d->mean_logp;
    masked_free(t->k);
    t->k = masked_new(&t->err, &t->spec, &o, 1, t->theta, t->phi, NULL);
    assert_non_null(t->k);
    double q[WORDS], logw[WORDS], law[WORDS], paper[WORDS], f[WORDS] = {0}, worst = 0, away = 0, z = 0, bound = 0;
    children_of(t, d, q, logw);
    law_of_pairs(d->greedy, q, logw, law);
    for (int w = 0; w < WORDS; w++) /* E exp(r / alpha) under p */
        z += q[w] * exp(logw[w]);
    SearchSettings s = tiny_settings(t, alpha, gamma_, true);
    s.gamma_offset = d->gamma_offset;
    s.guide_divisor = d->guide_divisor;
    Trajectories *tr = search_run(t->k, &t->err, &s, 0, n, true);
    assert_non_null(tr);
    for (int64_t i = 0; i < n; i++) {
        f[tr->final[i * L] + 2 * tr->final[i * L + 1] + 4 * tr->final[i * L + 2]] += 1.0 / (double)n;
        bound += tr->elbo_undiscounted[i] / (double)n;
    }
    children_of(t, &(Departure){.guide_divisor = 1}, q, logw);
    law_of_pairs(false, q, logw, paper);
    for (int w = 0; w < WORDS; w++) {
        double se = sqrt(law[w] * (1 - law[w]) / (double)n + 1e-9);
        worst = fmax(worst, fabs(f[w] - law[w]) / se);
        away = fmax(away, fabs(f[w] - paper[w]) / se);
    }
    print_message("%s: %.2f standard errors from its law, %.0f from the paper's\n", d->name, worst, away);
    assert_true(worst < 4.5 && away > 6);
    if (d->greedy) /* still a bound */
        assert_true(bound < log(z) + 0.02);
    trajectories_free(tr);
    tiny_free(t);
}

static void each_has_its_law(void **state)
{
    (void)state;
    const Departure row[] = {{"greedy", true, false, 0, 1},
                             {"mean log-probabilities", false, true, 0, 1},
                             {"gamma^t", false, false, 1, 1},
                             {"divided guidance", false, false, 0, 4}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        check(&row[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_has_its_law)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
