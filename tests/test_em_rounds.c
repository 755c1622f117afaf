/* Whole rounds of EM on problems small enough to enumerate, against tests/support/exact_em.c, which computes the same
 * from the network's parameters and the words' rewards by direct sums.  What is compared is the law of the tuned
 * model's samples, by total variation.
 *
 * The Monte Carlo floor is measured, not assumed: the same rounds with N trajectories drawn from the exact eta*.  The
 * bound on a distance is its mean over such draws plus four of its standard deviations. */
#include "support/em_world.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { REPLICATES = 24, MAX_SEEDS = 200 };

/* ---- two rounds, three ways ---- */
typedef struct Plan {
    int updates; /* of an M-step, each on all transitions; 0: any table may be reached, and the best one is */
    double lr;
    bool stale; /* a mistake to be told apart: the second search runs on the pretrained model */
} Plan;

static ExactAdam adam(const Plan *p)
{
    return (ExactAdam){.lr = p->lr, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip = 1};
}

/* n = 0: eta* by enumeration; else n trajectories drawn from it. */
static void exact_rounds(const World *w, const ExactEm *e, const Plan *p, int n, uint64_t *rng, double law[EXACT_WORDS])
{
    static ExactTable table, prior;
    static ExactReplay replay;
    ExactAdam a = adam(p);
    double theta[EXACT_THETA];
    memcpy(theta, w->start, sizeof theta);
    memcpy(prior, w->prior, sizeof prior);
    memcpy(table, w->prior, sizeof table);
    for (int round = 0; round < 2; round++) {
        if (n)
            exact_draw_replay(e, p->stale ? prior : table, n, rng, &replay);
        else
            exact_replay(e, p->stale ? prior : table, &replay);
        if (!p->updates) {
            exact_tabular_step(e, &replay, table);
            continue;
        }
        exact_mstep(e, &replay, prior, p->updates, &a, theta);
        exact_table(e, theta, table);
    }
    exact_law(e, table, law);
}

static void program_rounds(World *w, Aligner *a, double law[EXACT_WORDS])
{
    RoundReport report;
    world_restart(a);
    for (int round = 0; round < 2; round++)
        world_check(w, aligner_round(a, &w->err, &report));
    world_law(w, a, law);
}

static Aligner *plan_aligner(World *w, const Plan *p, int n, int m, bool guided)
{
    Arena *s = w->arena;
    const char *set[] = {arena_printf(s, "sample.trajectories=%d", n),
                         arena_printf(s, "search.duplicate=%d", m),
                         arena_printf(s, "train.batch_size=%d", n * w->em.steps),
                         arena_printf(s, "train.improve_steps=%d", p->updates),
                         arena_printf(s, "train.learning_rate=%.17g", p->lr),
                         arena_printf(s, "search.value_gradient=%s", guided ? "true" : "false"),
                         NULL};
    return world_aligner(w, set);
}

typedef struct Spread {
    double mean, sd;
} Spread;

static Spread spread_of(const double *v, int n)
{
    double sum = 0, square = 0;
    for (int i = 0; i < n; i++)
        sum += v[i] / n;
    for (int i = 0; i < n; i++)
        square += (v[i] - sum) * (v[i] - sum) / (n - 1);
    return (Spread){sum, sqrt(square)};
}

/* The distance from the exact law with n exact draws of eta*: what the program would reach with M = infinity. */
static Spread floor_of(const World *w, const Plan *p, int n, const double exact[EXACT_WORDS])
{
    double d[REPLICATES], law[EXACT_WORDS];
    uint64_t rng = 1;
    for (int i = 0; i < REPLICATES; i++) {
        exact_rounds(w, &w->em, p, n, &rng, law);
        d[i] = exact_distance(law, exact, w->em.words);
    }
    return spread_of(d, REPLICATES);
}

/* The program's mean distance over a few runs with n trajectories each; law: of the last one. */
static double program_distance(World *w, const Plan *p, int n, int m, bool guided, int runs, const double *exact,
                               double *law)
{
    double sum = 0;
    Aligner *a = plan_aligner(w, p, n, m, guided);
    for (int i = 0; i < runs; i++) {
        program_rounds(w, a, law);
        sum += exact_distance(law, exact, w->em.words) / runs;
    }
    aligner_close(a);
    return sum;
}

static const ExactEm three_positions = {.length = 3, .letters = 2, .steps = 3, .hidden = 8, .alpha = 0.5, .gamma = 0.4};

/* The program's law lies clearly further than `bound` from every EM that makes one of these mistakes. */
static void assert_mistakes_are_told_apart(const World *w, const Plan *p, const double *law, double bound)
{
    const ExactEm *e = &w->em;
    ExactEm wrong[] = {*e, *e, *e, *e, *e, *e};
    const char *const name[] = {"gamma^t", "no gamma", "gamma^(T-t)", "no 1/alpha", "second search on p_0", "no KL"};
    wrong[0].alpha = e->alpha / e->gamma;
    wrong[1].gamma = 1;
    wrong[2].reversed = true;
    wrong[3].alpha = 1;
    wrong[5].lambda = 0;
    for (int i = 0; i < (e->lambda > 0 ? 6 : 5); i++) {
        double other[EXACT_WORDS];
        Plan q = *p;
        q.stale = i == 4;
        exact_rounds(w, &wrong[i], &q, 0, NULL, other);
        double d = exact_distance(law, other, e->words);
        print_message("  from EM with %s: %.4f\n", name[i], d);
        assert_true(d > 1.5 * bound);
    }
}

static void follow(double lambda, bool guided, int n)
{
    ExactEm e = three_positions;
    e.lambda = lambda;
    World *w = world_new(e, 2);
    const Plan p = {.updates = 30, .lr = 0.02};
    double exact[EXACT_WORDS], law[EXACT_WORDS], last = INFINITY, bound = 0;
    exact_rounds(w, &w->em, &p, 0, NULL, exact);
    double moved = exact_distance(w->law, exact, w->em.words);
    print_message("lambda %.1f%s: two rounds move the law by %.4f\n", lambda, guided ? ", guided" : "", moved);
    for (; n <= 8192; n *= 8) {
        int runs = n < 1000 ? 6 : n < 8000 ? 2 : 1;
        Spread f = floor_of(w, &p, n, exact);
        double d = program_distance(w, &p, n, 64, guided, runs, exact, law);
        bound = f.mean + 4 * f.sd;
        print_message("  N %d: %.4f, mean of %d; exact draws %.4f, sd %.4f\n", n, d, runs, f.mean, f.sd);
        assert_true(d < bound && d < last);
        last = d;
    }
    assert_true(moved > 5 * bound);
    assert_mistakes_are_told_apart(w, &p, law, bound);
    world_free(w);
}

static void two_rounds_follow_the_exact_ones(void **state)
{
    (void)state;
    follow(0, false, 128);
}

static void two_guided_rounds_follow_the_exact_ones(void **state)
{
    (void)state;
    follow(0, true, 1024);
}

static void two_rounds_with_kl_follow_the_exact_ones(void **state)
{
    (void)state;
    follow(0.2, false, 1024);
}

static void distance_falls_with_the_children(void **state)
{
    (void)state;
    World *w = world_new(three_positions, 2);
    const Plan p = {.updates = 30, .lr = 0.02};
    double exact[EXACT_WORDS], law[EXACT_WORDS], d[3];
    exact_rounds(w, &w->em, &p, 0, NULL, exact);
    Spread f = floor_of(w, &p, 2048, exact);
    for (int i = 0; i < 3; i++)
        d[i] = program_distance(w, &p, 2048, 2 << 2 * i, false, 2, exact, law);
    print_message("M 2, 8, 32: %.4f %.4f %.4f; exact draws %.4f, sd %.4f\n", d[0], d[1], d[2], f.mean, f.sd);
    assert_true(d[0] > d[1] && d[0] > f.mean + 4 * f.sd && d[2] < f.mean + 4 * f.sd);
    world_free(w);
}

/* Long training reaches the next prior of EM with an unconstrained M-step, here `best` after two rounds. */
static void long_training(World *w, int n, const Plan *p, const double *best)
{
    const Plan unconstrained = {.updates = 0};
    double exact[EXACT_WORDS], law[EXACT_WORDS], moved = exact_distance(w->law, best, w->em.words);
    exact_rounds(w, &w->em, p, 0, NULL, exact);
    Spread f = floor_of(w, &unconstrained, n, best);
    double left = exact_distance(exact, best, w->em.words), d = program_distance(w, p, n, 64, false, 1, best, law);
    print_message("unconstrained rounds move the law by %.4f; exact gradients end %.5f from there, the program %.4f; "
                  "exact draws %.4f, sd %.4f\n",
                  moved, left, d, f.mean, f.sd);
    assert_true(left < 1e-3 && d < f.mean + 4 * f.sd + left && d < moved / 2);
}

static void long_training_reaches_the_best_tables(void **state)
{
    (void)state;
    ExactEm e = three_positions;
    e.hidden = 24;
    World *w = world_new(e, 2);
    double best[EXACT_WORDS];
    exact_rounds(w, &w->em, &(Plan){.updates = 0}, 0, NULL, best);
    long_training(w, 1024, &(Plan){.updates = 300, .lr = 0.02}, best);
    world_free(w);
}

/* One position filled in one step: eta* itself is a table, so p_2 ~ p_0 exp(2 r / alpha). */
static void long_training_reaches_the_tilted_law(void **state)
{
    (void)state;
    World *w = world_new((ExactEm){.length = 1, .letters = 8, .steps = 1, .hidden = 8, .alpha = 0.5, .gamma = 0.9}, 3);
    double tilted[EXACT_WORDS], z = 0;
    for (int i = 0; i < w->em.words; i++)
        z += tilted[i] = w->law[i] * exp(2 * w->em.reward[i] / w->em.alpha);
    for (int i = 0; i < w->em.words; i++)
        tilted[i] /= z;
    long_training(w, 2048, &(Plan){.updates = 150, .lr = 0.05}, tilted);
    world_free(w);
}

/* ---- without search ---- */
typedef struct Drift {
    double worst, mean_square; /* of the parameters' mean moves, in their standard errors */
    Spread bound;              /* change of the exact bound without search, gamma^(T-1) E r / alpha; one run's spread */
    double first, first_se;    /* the program's own estimate of it before the first update */
} Drift;

static double bound_of_law(const World *w, const double *law)
{
    return pow(w->em.gamma, w->em.steps - 1) * exact_mean_reward(&w->em, law) / w->em.alpha;
}

static Drift drift(World *w, int rounds, int seeds, const char *const *set)
{
    static double move[MAX_SEEDS][EXACT_THETA], bound[MAX_SEEDS], first[MAX_SEEDS], one[MAX_SEEDS];
    Aligner *a = world_aligner(w, set);
    int n = exact_theta_size(&w->em), moving = 0;
    for (int i = 0; i < seeds; i++) {
        RoundReport report;
        double law[EXACT_WORDS];
        world_restart(a);
        for (int r = 0; r < rounds; r++) {
            world_check(w, aligner_round(a, &w->err, &report));
            first[i] = r ? first[i] : report.bound.elbo;
        }
        world_parameters(w, a, move[i]);
        world_law(w, a, law);
        bound[i] = bound_of_law(w, law) - bound_of_law(w, w->law);
    }
    aligner_close(a);
    Spread f = spread_of(first, seeds);
    Drift d = {.bound = spread_of(bound, seeds), .first = f.mean, .first_se = f.sd / sqrt(seeds)};
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < seeds; i++)
            one[i] = move[i][j] - w->start[j];
        Spread s = spread_of(one, seeds);
        double z = s.sd > 0 ? s.mean / s.sd * sqrt(seeds) : 0;
        d.worst = fmax(d.worst, fabs(z));
        d.mean_square += z * z;
        moving += s.sd > 0;
    }
    d.mean_square /= moving;
    print_message("%s, %d rounds: mean move of %d parameters: worst %.1f standard errors, mean square %.2f; "
                  "bound moves by %.4f +- %.4f, sd of one run %.4f\n",
                  set[0], rounds, moving, d.worst, d.mean_square, d.bound.mean, d.bound.sd / sqrt(seeds), d.bound.sd);
    return d;
}

/* AdamW with a large epsilon is gradient descent: its expected step is zero when nothing was searched for.  With a
 * small one it divides by the gradient's own size, so its mean is not zero where the gradient is skewed; the bound's
 * change is noise all the same. */
static void without_search_the_expected_update_is_zero(void **state)
{
    (void)state;
#define DESCENT                                                                                                        \
    "sample.trajectories=64", "train.adam_epsilon=1", "train.learning_rate=0.25", "train.batch_size=192",              \
        "train.improve_steps=1"
    const char *const none[] = {"search.method=none", DESCENT, NULL},
                      *const searched[] = {"search.method=dav", "search.duplicate=2", DESCENT, NULL},
                      *const adamw[] = {"search.method=none", "sample.trajectories=64", "train.learning_rate=0.01",
                                        "train.batch_size=32", NULL};
    enum { SEEDS = MAX_SEEDS };
    World *w = world_new(three_positions, 2);
    Drift d = drift(w, 1, SEEDS, none);
    assert_true(d.worst < 4.5 && d.mean_square < 1.5);
    assert_true(fabs(d.bound.mean) < 4 * d.bound.sd / sqrt(SEEDS));
    assert_true(fabs(d.first - bound_of_law(w, w->law)) < 4 * d.first_se);
    d = drift(w, 4, SEEDS, none);
    assert_true(fabs(d.bound.mean) < 4 * d.bound.sd / sqrt(SEEDS));
    d = drift(w, 4, SEEDS / 2, adamw);
    assert_true(fabs(d.bound.mean) < 4 * d.bound.sd / sqrt(SEEDS / 2));
    d = drift(w, 1, SEEDS, searched);
    assert_true(d.mean_square > 20 && d.bound.mean > 10 * d.bound.sd / sqrt(SEEDS));
    world_free(w);
}

/* The memory report of a run names the program that searches. */
static void whole_trajectories_are_reported(void **state)
{
    (void)state;
    World *w = world_new((ExactEm){.length = 2, .letters = 2, .steps = 2, .hidden = 4, .alpha = 0.5, .gamma = 0.9}, 2);
    Aligner *a = world_aligner(w, (const char *const[]){"sample.whole_trajectory=always", NULL});
    const RowProgram *list[ALIGNER_PROGRAMS];
    bool named = false;
    for (int i = aligner_programs(a, list) - 1; i >= 0; i--)
        named |= strcmp(program_stats(list[i]->program).name, "whole") == 0;
    assert_true(named);
    aligner_close(a);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_rounds_follow_the_exact_ones),
        cmocka_unit_test(two_guided_rounds_follow_the_exact_ones),
        cmocka_unit_test(two_rounds_with_kl_follow_the_exact_ones),
        cmocka_unit_test(distance_falls_with_the_children),
        cmocka_unit_test(long_training_reaches_the_best_tables),
        cmocka_unit_test(long_training_reaches_the_tilted_law),
        cmocka_unit_test(without_search_the_expected_update_is_zero),
        cmocka_unit_test(whole_trajectories_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
