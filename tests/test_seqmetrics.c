/* Metrics of sequence sets, Markov chains, reference tables.  Expected values: tests/reference/seqmetrics_values.py;
 * distances are compared with edlib, too. */
#include "runtime/markov.h"
#include "runtime/seqdist.h"
#include "runtime/seqmetrics.h"
#include "runtime/seqref.h"
#include "support/fixture.h"
#include <edlib.h>
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>


#define assert_near(a, b, tolerance) \
    do { \
        if (!(fabs((a) - (b)) <= (tolerance))) \
            fail_msg("line %d: expected %.15g, found %.15g", __LINE__, (double)(b), (double)(a)); \
    } while (0)

static SeqData *small(size_t from, size_t to)
{
    Err err = {0};
    SeqData *d = seqdata_read(&err, arena, DAV_SOURCE_DIR "/tests/reference/seqmetrics_small.txt");
    size_t row[64];
    if (!d)
        fail_msg("%s", err.text);
    assert_int_equal(d->n, 45);
    for (size_t i = from; i < to; i++)
        row[i - from] = i;
    return seqdata_select(arena, d, row, to - from);
}

static const char *temporary(const char *name)
{
    return arena_printf(arena, "/tmp/dav-test-%ld-%s", (long)getpid(), name);
}

/* ---- composition ---- */
static void kmers(void **state)
{
    (void)state;
    SeqData *all = small(0, 45), *a = small(0, 20), *b = small(20, 45);
    const int k[] = {1, 3, 6};
    const double sum[] = {3357, 3267, 3132}, correlation[] = {0.99609840366327, 0.928859836922352, 0.285489556615455};
    for (int i = 0; i < 3; i++) {
        size_t words = (size_t)1 << 2 * k[i];
        double *c = seq_kmer_counts(arena, all, k[i]), total = 0;
        for (size_t w = 0; w < words; w++)
            total += c[w];
        assert_near(total, sum[i], 0);
        Interval r = seq_kmer_correlation(arena, a, k[i], seq_kmer_counts(arena, b, k[i]), 200, .95);
        assert_near(r.at, correlation[i], 1e-13);
        assert_true(r.low < r.high && r.low < r.at);
        assert_near(stats_pearson(seq_kmer_counts(arena, a, k[i]), seq_kmer_counts(arena, b, k[i]), words), r.at, 0);
    }
    double *c = seq_kmer_counts(arena, all, 3);
    assert_true(c[0] == 177 && c[6] == 42 && c[63] == 62);
}

static void composition(void **state)
{
    (void)state;
    SeqData *d = small(0, 45);
    double gc[45];
    seq_gc_each(d, gc);
    assert_near(stats_mean(gc, 45), 0.363100545376309, 1e-14);
    assert_near(seq_run_share(d, 5), 17.0 / 45, 1e-15);
    assert_near(seq_run_share(d, 11), 1.0 / 45, 1e-15);
    assert_near(seq_unique_share(arena, d), 43.0 / 45, 1e-15);
    const uint8_t run[] = {0, 0, 3, 3, 3, 1};
    assert_int_equal(seq_longest_run(run, 6), 3);
    assert_int_equal(seq_longest_run(run, 0), 0);
    SeqData *none = small(0, 0);
    assert_true(isnan(seq_unique_share(arena, none)) && isnan(seq_run_share(none, 2)));
}

/* ---- distances ---- */
static void distances_equal_edlib(void **state)
{
    (void)state;
    uint64_t seed = 3, work[6 * 6];
    uint8_t a[330], b[330];
    for (int trial = 0; trial < 4000; trial++) {
        size_t n = splitmix64_below(&seed, trial % 4 ? 150 : 330), m = splitmix64_below(&seed, trial % 4 ? 150 : 330);
        size_t letters = 1 + splitmix64_below(&seed, 4);
        for (size_t i = 0; i < n; i++)
            a[i] = (uint8_t)splitmix64_below(&seed, letters);
        for (size_t i = 0; i < m; i++) /* half of them near copies */
            b[i] = trial % 2 && i < n && splitmix64_below(&seed, 9) ? a[i] : (uint8_t)splitmix64_below(&seed, letters);
        seq_distance_prepare(work, a, n);
        EdlibAlignResult e = edlibAlign((char *)a, (int)n, (char *)b, (int)m, edlibDefaultAlignConfig());
        int32_t expected = n && m ? e.editDistance : (int32_t)(n + m);
        edlibFreeAlignResult(e);
        assert_int_equal(seq_distance_to(work, n, b, m), expected);
    }
    const uint8_t x[64] = {0};
    for (size_t n = 62; n <= 64; n++) { /* the edge of a word */
        seq_distance_prepare(work, x, n);
        assert_int_equal(seq_distance_to(work, n, x, 64), 64 - (int)n);
    }
}

static void pair_distances(void **state)
{
    (void)state;
    PairDistance p = seq_pair_distance(arena, small(0, 45));
    assert_int_equal(p.pairs, 45 * 44 / 2);
    assert_near(p.mean, 57.3080808080808, 1e-12);
    assert_near(p.se, 3.93083424674152, 1e-12);
    assert_true(isnan(seq_pair_distance(arena, small(0, 1)).mean));
}

/* Above the bound a subset of the pairs: near the exact mean, and the same for any number of threads. */
static void many_rows_are_sampled(void **state)
{
    (void)state;
    enum { N = 1500, LENGTH = 30 };
    uint8_t *letters = arena_alloc(arena, N * LENGTH);
    uint64_t seed = 11, work[6];
    for (size_t i = 0; i < N * LENGTH; i++)
        letters[i] = (uint8_t)splitmix64_below(&seed, 1 + i / LENGTH % 4);
    SeqData *d = seqdata_from_letters(arena, letters, N, LENGTH);
    PairDistance p = seq_pair_distance(arena, d);
    double exact = 0;
    for (size_t i = 0; i < N; i++) {
        seq_distance_prepare(work, seq_at(d, i), LENGTH);
        for (size_t j = 0; j < i; j++)
            exact += seq_distance_to(work, LENGTH, seq_at(d, j), LENGTH);
    }
    exact /= N * (N - 1) / 2.0;
    assert_int_equal(p.pairs, SEQ_MAX_PAIRS / N * N);
    assert_near(p.mean, exact, .05);
    assert_true(p.mean != exact);
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    PairDistance one = seq_pair_distance(arena, d);
    omp_set_num_threads(threads);
    assert_true(one.mean == p.mean && one.se == p.se);
}

static void nearest_rows(void **state)
{
    (void)state;
    const int distance[] = {67, 35, 29, 31, 64, 65, 17, 30, 62, 68, 34, 31, 17, 14, 34, 65, 67, 17, 32, 17, 0, 0, 1, 21, 21};
    const size_t row[] = {1, 7, 14, 5, 18, 0, 11, 3, 18, 18, 14, 7, 11, 11, 3, 4, 4, 11, 8, 11, 3, 3, 7, 11, 16};
    int32_t found[25];
    size_t at[25];
    seq_nearest(arena, small(20, 45), small(0, 20), found, at);
    for (int i = 0; i < 25; i++) {
        assert_int_equal(found[i], distance[i]);
        assert_int_equal(at[i], row[i]);
    }
}

/* ---- Markov chain ---- */
static void markov_chain(void **state)
{
    (void)state;
    SeqData *a = small(0, 20), *b = small(20, 45);
    assert_near(markov_nats_per_base(markov_fit(arena, a, 2, 3), b), 1.34881890850963, 1e-13);
    assert_near(markov_nats_per_base(markov_fit(arena, a, 0, 1), b), 1.34063371114181, 1e-13);
    Markov *best = markov_fit_best(arena, a, b, 2);
    double nats = markov_nats_per_base(best, b);
    for (double s = 1; s < 6000; s *= 10)
        assert_true(nats <= markov_nats_per_base(markov_fit(arena, a, 2, s), b));
    assert_near(nats, markov_nats_per_base(markov_fit(arena, a, 2, best->strength), b), 0);
    for (size_t x = 0; x < 16; x++) { /* probabilities of every context sum to one */
        double sum = 0;
        for (size_t letter = 0; letter < 4; letter++)
            sum += exp(best->log_p[2][4 * x + letter]);
        assert_near(sum, 1, 1e-12);
    }
}

/* ---- reference tables ---- */
static void reference_table_round_trip(void **state)
{
    (void)state;
    const char *path = temporary("reference.json");
    Err err = {0};
    SeqRef *r = seqref_new(arena, "made \"here\"");
    const double x[] = {1, -2.5, 1e-300, 0.1, 5};
    seqref_set(r, "x", x, 4);
    seqref_set(r, "x", x, 3);
    seqref_set(r, "empty", x, 0);
    seqref_set_quantiles(r, "oracle.test", x, 5);
    assert_true(seqref_write(&err, path, r));
    SeqRef *s = seqref_read(&err, arena, path);
    if (!s)
        fail_msg("%s", err.text);
    assert_string_equal(s->source, "made \"here\"");
    assert_int_equal(s->n, 3);
    assert_memory_equal(seqref_get(s, "x", 3), x, 3 * sizeof *x);
    assert_null(seqref_get(s, "x", 4));
    assert_null(seqref_get(s, "y", 3));
    const double *q = seqref_get(s, "oracle.test", SEQREF_QUANTILES);
    assert_true(q[0] == -2.5 && q[500] == .1 && q[1000] == 5 && q[750] == 1);
    const double bad = NAN;
    seqref_set(r, "bad", &bad, 1);
    assert_false(seqref_write(&err, path, r));
    assert_non_null(strstr(err.text, "'bad' holds a number that is not finite"));
    unlink(path);
}

static void bad_reference_tables(void **state)
{
    (void)state;
    const char *path = temporary("bad.json");
#define START "{\"format\": \"dav reference table 1\", "
    const struct { const char *text, *message; } bad[] = {
        {"", "end of file"},
        {"[]", "expected \"format\""},
        {"{\"format\": \"other\"}", "expected \"format\": \"dav reference table 1\", found 'other'"},
        {START "\"x\": 1}", "expected an object called \"numbers\""},
        {START "\"numbers\": {\"a\": 1}}", "'a': expected a list of numbers"},
        {START "\"numbers\": {\"a\": [1, \"2\"]}}", "'a': expected a list of numbers"},
        {START "\"numbers\": {\"a\": [], \"a\": []}}", "duplicate"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Err err = {0};
        assert_true(file_write(&err, path, bad[i].text, strlen(bad[i].text)));
        assert_null(seqref_read(&err, arena, path));
        assert_int_equal(err.kind, ERR_USER);
        if (!strstr(err.text, bad[i].message))
            fail_msg("expected '%s', found '%s'", bad[i].message, err.text);
    }
    unlink(path);
}

static void tables_without_values(void **state)
{
    (void)state;
    SeqData *d = small(0, 45);
    SeqRef *r = seqref_make(arena, d, split_make(arena, arena, d), "");
    assert_true(*seqref_get(r, "rows.all", 1) == 45);
    assert_non_null(seqref_get(r, "kmer6.all", 4096));
    assert_null(seqref_get(r, "measured.mean", 1));
}

/* ---- the yeast data ---- */
static void yeast(void **state)
{
    (void)state;
    const char *root = getenv("DAV_TEST_DATA"), *path = temporary("yeast.json");
    if (!root) {
        print_message("SKIPPED: DAV_TEST_DATA is not set\n");
        skip();
    }
    Err err = {0};
    SeqData *d = seqdata_read(&err, arena, arena_printf(arena, "%s/yeast_promoters.txt.gz", root));
    if (!d)
        fail_msg("%s", err.text);
    Split *s = split_make(arena, arena, d);
    SeqData *train = split_fold(arena, d, s, 1u << FOLD_REWARD | 1u << FOLD_HELDOUT, false);
    SeqData *validation = split_fold(arena, d, s, 1u << FOLD_VALIDATION, false);
    Markov *m = markov_fit_best(arena, train, validation, 5);
    assert_near(m->strength, 2000, 0);
    assert_near(markov_nats_per_base(m, validation), 1.3415, .0005);
    assert_near(markov_nats_per_base(m, validation), 1.341271315, 1e-9);

    SeqRef *made = seqref_make(arena, d, s, "yeast_promoters.txt.gz");
    assert_true(seqref_write(&err, path, made));
    SeqRef *r = seqref_read(&err, arena, path);
    assert_non_null(r);
    assert_near(*seqref_get(r, "rows.all", 1), 62897, 0);
    assert_near(*seqref_get(r, "rows.top", 1), 62, 0);
    assert_near(*seqref_get(r, "rows.test", 1), 6569, 0);
    assert_near(*seqref_get(r, "measured.mean", 1), 6.758163278, 1e-8);
    assert_near(*seqref_get(r, "measured.sd", 1), 4.395685938, 1e-8);
    assert_near(seqref_get(r, "measured.all", SEQREF_QUANTILES)[500], 5.64079368, 1e-7);
    assert_near(seqref_get(r, "measured.all", SEQREF_QUANTILES)[999], 17.76990782, 1e-7);
    const double *test = seqref_get(r, "measured.test", SEQREF_QUANTILES);
    assert_near(test[100], 1.87831293, 1e-7);
    assert_near(test[500], 5.40387245, 1e-7);
    assert_near(test[900], 13.48326844, 1e-7);
    assert_near(stats_pearson(seqref_get(r, "kmer3.top", 64), seqref_get(r, "kmer3.all", 64), 64), 0.852570751114, 1e-11);
    SeqData *all = split_fold(arena, d, s, 15, false);
    double *gc = arena_array(arena, double, all->n);
    seq_gc_each(all, gc);
    assert_near(stats_mean(gc, all->n), 0.375642121246, 1e-11);
    assert_near(seq_run_share(all, 10), 0.0419574860486, 1e-12);
    unlink(path);
}

#define unit(f) cmocka_unit_test_setup_teardown(f, arena_set_up, arena_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        unit(kmers),
        unit(composition),
        unit(distances_equal_edlib),
        unit(pair_distances),
        unit(many_rows_are_sampled),
        unit(nearest_rows),
        unit(markov_chain),
        unit(reference_table_round_trip),
        unit(bad_reference_tables),
        unit(tables_without_values),
        unit(yeast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
