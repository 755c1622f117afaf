/* Sequence files, folds, statistics.  Expected values of the yeast table: tests/reference/yeast_split.py. */
#include "runtime/split.h"
#include "runtime/stats.h"
#include "support/fixture.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <cmocka.h>

#define YEAST "seq\tisNative\tEL.originalHQ\tEL.rep1\tEL.rep2\tEL.combined\n"
#define FLANK5 "AACTGCATTTTTTTCACATC"
#define FLANK3 "GGTTACGGCTGTTTCTTAAT"
#define TEN "ACGTTGCAAC"
#define EIGHTY TEN TEN TEN TEN TEN TEN TEN TEN

static char folder[64];

static SeqData *parse(const char *text)
{
    Err err = {0};
    SeqData *d = seqdata_parse(&err, arena, "file", text, strlen(text));
    if (!d)
        fail_msg("%s", err.text);
    return d;
}

static void refused(const char *text, const char *message)
{
    Err err = {0};
    if (seqdata_parse(&err, arena, "file", text, strlen(text)))
        fail_msg("accepted: %s", text);
    assert_int_equal(err.kind, ERR_USER);
    assert_string_equal(err.text, message);
}

static const char *letters_of(const SeqData *d, size_t row)
{
    char *s = arena_alloc(arena, seq_len(d, row) + 1);
    for (size_t i = 0; i < seq_len(d, row); i++)
        s[i] = "ACGT"[seq_at(d, row)[i]];
    return s;
}

static const char *in_folder(const char *name)
{
    return arena_printf(arena, "%s/%s", folder, name);
}

/* ---- formats ---- */
static void reads_plain_lines(void **state)
{
    (void)state;
    SeqData *d = parse("\n\r\nACGT\n\nttgca\r\nG");
    assert_int_equal(d->n, 3);
    assert_string_equal(letters_of(d, 0), "ACGT");
    assert_string_equal(letters_of(d, 1), "TTGCA");
    assert_string_equal(letters_of(d, 2), "G");
    assert_null(d->name);
    assert_null(d->value);
    assert_int_equal(seqdata_length(d), 0);
    assert_int_equal(seqdata_length(parse("AC\nGT\n")), 2);
}

static void reads_fasta(void **state)
{
    (void)state;
    SeqData *d = parse(">one first\nAC\ngt\n\n>two\r\nTT\r\n>\nA");
    assert_int_equal(d->n, 3);
    assert_string_equal(d->name[0], "one first");
    assert_string_equal(letters_of(d, 0), "ACGT");
    assert_string_equal(d->name[1], "two");
    assert_string_equal(letters_of(d, 1), "TT");
    assert_string_equal(d->name[2], "");
    assert_null(d->value);
}

static void reads_the_yeast_table(void **state)
{
    (void)state;
    SeqData *d = parse(YEAST FLANK5 EIGHTY FLANK3 "\tTRUE\t1\t2\t3\t-4.25\n" FLANK5 EIGHTY FLANK3 "\tFALSE\tNA\tNA\tNA\tNA\n");
    assert_int_equal(d->n, 2);
    assert_string_equal(letters_of(d, 0), EIGHTY);
    assert_true(d->value[0] == -4.25 && isnan(d->value[1]));
    assert_true(d->native[0] && !d->native[1]);
    assert_null(d->component);
    assert_null(d->name);
}

static void reads_other_tables(void **state)
{
    (void)state;
    SeqData *d = parse("name\tsplit\tsequence\tcomponent\tvalue\nx\ttrain\tACG\t7\t1e3\ny\ttest\tT\t0\tNA\n");
    assert_string_equal(d->name[1], "y");
    assert_int_equal(d->component[0], 7);
    assert_true(d->value[0] == 1000 && isnan(d->value[1]));
    assert_string_equal(letters_of(d, 0), "ACG");
    d = parse("sequence\tactivity\nA\t-.5\n");
    assert_true(d->value[0] == -.5);
    assert_null(d->component);
}

static void refuses_bad_files(void **state)
{
    (void)state;
    refused("", "file: expected at least one sequence, found none");
    refused("\n\n", "file: expected at least one sequence, found none");
    refused(YEAST, "file: expected at least one sequence, found none");
    refused("\nACGT\nACNT\n", "file:3: column 3: expected A, C, G or T, found 'N'");
    refused("ACGT \n", "file:1: column 5: expected A, C, G or T, found byte 0x20");
    refused(">a\n>b\nAC\n", "file:2: expected a sequence, found an empty one");
    refused(">a\nAC\n>b\n", "file:3: expected a sequence, found an empty one");
    refused("AC\n>b\nAC\n", "file:2: column 1: expected A, C, G or T, found '>'");
    refused(YEAST "ACGT\tTRUE\t1\t2\t3\t4\n", "file:2: seq: expected 120 letters, found 4");
    refused(YEAST FLANK5 "N" EIGHTY FLANK3 "\tTRUE\t1\t2\t3\t4\n", "file:2: seq: expected 120 letters, found 121");
    refused(YEAST FLANK5 EIGHTY FLANK3 "\tyes\t1\t2\t3\t4\n", "file:2: isNative: expected TRUE or FALSE, found 'yes'");
    refused(YEAST FLANK5 EIGHTY FLANK3 "\tTRUE\t1\t2\t3\tinf\n", "file:2: value: expected a number or NA, found 'inf'");
    refused(YEAST FLANK5 EIGHTY FLANK3 "\tTRUE\t1\t2\t3\n", "file:2: expected 6 columns as in the header, found fewer");
    refused(YEAST FLANK5 EIGHTY FLANK3 "\tTRUE\t1\t2\t3\t4\t5\n", "file:2: expected 6 columns as in the header, found more");
    refused("sequence\tvalue\nACX\t1\n", "file:2: column 3: expected A, C, G or T, found 'X'");
    refused("value\tsequence\n1\tACX\n", "file:2: column 5: expected A, C, G or T, found 'X'");
    refused("sequence\tvalue\n\t1\n", "file:2: expected a sequence, found an empty one");
    refused("sequence\tcomponent\nA\t1.5\n", "file:2: component: expected an integer from 0 to 2147483647, found '1.5'");
    refused("sequence\tcomponent\nA\tNA\n", "file:2: component: expected an integer from 0 to 2147483647, found 'NA'");
    refused("sequence\tvalue\tactivity\nA\t1\t1\n", "file:1: two columns with the same meaning, the second is 'activity'");
    refused("dna\tvalue\nA\t1\n", "file:1: expected the header of the yeast table (seq isNative EL.originalHQ EL.rep1 EL.rep2 "
                                  "EL.combined) or at most 64 columns with one called sequence, found 'dna value'");
    Err err = {0};
    assert_null(seqdata_parse(&err, arena, "file", "AC\0GT\n", 6));
    assert_string_equal(err.text, "file: expected text, found a zero byte");
    err_clear(&err);
    assert_null(seqdata_read(&err, arena, in_folder("none.txt")));
    assert_int_equal(err.kind, ERR_USER);
}

static void every_truncation_is_read_or_refused(void **state)
{
    (void)state;
    const char *texts[] = {">a\nACGT\nAC\n>b\r\nTT\n", YEAST FLANK5 EIGHTY FLANK3 "\tTRUE\t1\t2\t3\t4\n",
                           "sequence\tname\tvalue\tcomponent\nACGT\tx\t1.5\t3\nTT\ty\tNA\t4\n"};
    for (size_t k = 0; k < 3; k++)
        for (size_t n = 0; n <= strlen(texts[k]); n++) {
            char *part = malloc(n ? n : 1); /* its own block: a sanitizer sees a read past its end */
            memcpy(part, texts[k], n);
            Err err = {0};
            SeqData *d = seqdata_parse(&err, arena, "cut", part, n);
            assert_true((d != NULL) == (err.kind == ERR_NONE));
            free(part);
        }
}

static void reads_gzip_and_refuses_cut_gzip(void **state)
{
    (void)state;
    const char *path = in_folder("x.gz");
    gzFile f = gzopen(path, "wb");
    for (int i = 0; i < 2000; i++)
        gzprintf(f, "ACGTACGT%s\n", i % 3 ? "A" : "CC");
    gzclose(f);
    Err err = {0};
    SeqData *d = seqdata_read(&err, arena, path);
    assert_non_null(d);
    assert_int_equal(d->n, 2000);
    assert_string_equal(letters_of(d, 1998), "ACGTACGTCC");
    assert_int_equal(truncate(path, 60), 0);
    assert_null(seqdata_read(&err, arena, path));
    assert_int_equal(err.kind, ERR_USER);
    assert_non_null(strstr(err.text, "x.gz"));
}

static void written_files_read_back(void **state)
{
    (void)state;
    SeqData *d = parse("sequence\tvalue\tcomponent\tname\nACGTT\t0.1\t3\ta\nG\tNA\t4\tb c\n");
    Err err = {0};
    const char *table = in_folder("out.tsv"), *fasta = in_folder("out.fasta");
    assert_true(seqdata_write_table(&err, table, d));
    assert_true(seqdata_write_fasta(&err, fasta, d));
    SeqData *t = seqdata_read(&err, arena, table), *f = seqdata_read(&err, arena, fasta);
    assert_true(t->n == 2 && f->n == 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(letters_of(t, i), letters_of(d, i));
        assert_string_equal(letters_of(f, i), letters_of(d, i));
        assert_string_equal(t->name[i], d->name[i]);
        assert_string_equal(f->name[i], d->name[i]);
        assert_int_equal(t->component[i], d->component[i]);
    }
    assert_true(t->value[0] == 0.1 && isnan(t->value[1]));
    const uint8_t letters[] = {0, 1, 2, 3, 3, 3};
    assert_true(seqdata_write_fasta(&err, fasta, seqdata_from_letters(arena, letters, 2, 3)));
    f = seqdata_read(&err, arena, fasta);
    assert_string_equal(f->name[1], "sequence_2");
    assert_string_equal(letters_of(f, 1), "TTT");
    assert_int_equal(seqdata_length(f), 3);
    assert_false(seqdata_write_fasta(&err, in_folder("no/such/folder.fasta"), d));
    assert_int_equal(err.kind, ERR_ENV);
}

static void rows_are_selected(void **state)
{
    (void)state;
    SeqData *d = parse("sequence\tvalue\nA\t1\nCC\t2\nGGG\t3\n");
    const size_t rows[] = {2, 0, 2};
    SeqData *s = seqdata_select(arena, d, rows, 3);
    assert_int_equal(s->n, 3);
    assert_string_equal(letters_of(s, 0), "GGG");
    assert_string_equal(letters_of(s, 1), "A");
    assert_true(s->value[2] == 3);
    assert_int_equal(seqdata_select(arena, d, NULL, 0)->n, 0);
}

/* ---- folds ---- */
static void related_rows_stay_together(void **state)
{
    (void)state;
    /* 0 and 2 share a 20-mer; 3 is the reverse complement of such a one of 2; 1 stands alone; 4 and 5 are short and
     * reverse complements of each other; 6 is short and differs */
    SeqData *d = parse("ACGTTGCAACGGTACCATTGCA\n"
                       "TTTTTTTTTTTTTTTTTTTTTTTTC\n"
                       "GGGTTGCAACGGTACCATTGCAGGCATTCAGACTTTAGC\n"
                       "GCTAAAGTCTGAATGCCTGCA\n"
                       "AACCG\nCGGTT\nAACC\n");
    Split *s = split_make(arena, arena, d);
    const int expected[] = {0, 1, 0, 0, 2, 2, 3};
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(s->component[i], expected[i]);
    assert_int_equal(s->components, 4);
    assert_int_equal(s->largest, 3);
    assert_int_equal(s->fold[0], FOLD_REWARD);
}

static void rows_that_are_not_native_are_left_out(void **state)
{
    (void)state;
    SeqData *d = parse(YEAST FLANK5 EIGHTY FLANK3 "\tFALSE\t1\t2\t3\t4\n" FLANK5 EIGHTY FLANK3 "\tTRUE\t1\t2\t3\tNA\n");
    Split *s = split_make(arena, arena, d);
    assert_int_equal(s->fold[0], -1);
    assert_int_equal(s->component[0], -1);
    assert_int_equal(s->component[1], 0);
    SplitSummary sum = split_summary(d, s);
    assert_int_equal(sum.left_out, 1);
    assert_int_equal(sum.fold_rows[FOLD_REWARD], 1);
    assert_int_equal(sum.fold_measured[FOLD_REWARD], 0);
    assert_int_equal(split_fold(arena, d, s, 1u << FOLD_REWARD, true)->n, 0);
    assert_int_equal(split_fold(arena, d, s, 1u << FOLD_REWARD, false)->n, 1);
}

static const char *yeast_path(void)
{
    const char *root = getenv("DAV_TEST_DATA");
    if (!root) {
        print_message("SKIPPED: DAV_TEST_DATA is not set\n");
        skip();
    }
    return arena_printf(arena, "%s/yeast_promoters.txt.gz", root);
}

static void splits_the_yeast_table(void **state)
{
    (void)state;
    const char *path = yeast_path();
    Err err = {0};
    SplitSummary sum;
    SeqData *d = seqdata_read(&err, arena, path);
    assert_int_equal(d->n, 70924);
    assert_int_equal(seqdata_length(d), 80);
    Split *s = split_make(arena, arena, d);
    int64_t folds = 0, components = 0, k = 0;
    for (size_t i = 0; i < d->n; i++)
        if (s->fold[i] >= 0) {
            folds += s->fold[i] * (k % 1009 + 1);
            components += s->component[i] * (k++ % 1009 + 1);
        }
    assert_int_equal(folds, 25552451);
    assert_int_equal(components, 42146016468);
    assert_true(split_write(&err, path, in_folder("split"), &sum));
    const size_t rows[] = {29790, 21918, 4479, 6710}, measured[] = {28851, 21415, 4401, 6569};
    assert_int_equal(sum.components, 3435);
    assert_int_equal(sum.largest, 11058);
    assert_int_equal(sum.left_out, 70924 - 62897);
    for (Fold f = 0; f < FOLD_COUNT; f++) {
        const char *file = arena_printf(arena, "%s/split/%s.tsv", folder, fold_name(f));
        SeqData *part = seqdata_read(&err, arena, file);
        assert_non_null(part);
        assert_int_equal(sum.fold_rows[f], rows[f]);
        assert_int_equal(sum.fold_measured[f], measured[f]);
        assert_int_equal(part->n, rows[f]);
        assert_non_null(part->component);
        unlink(file);
    }
    assert_int_equal(unlink(in_folder("split/reference.json")), 0);
    rmdir(in_folder("split"));
}

static void reads_other_published_files(void **state)
{
    (void)state;
    yeast_path();
    Err err = {0};
    SeqData *d = seqdata_read(&err, arena, arena_printf(arena, "%s/human_mpra.tsv.gz", getenv("DAV_TEST_DATA")));
    if (!d)
        fail_msg("%s", err.text);
    assert_int_equal(d->n, 2940);
    assert_int_equal(seqdata_length(d), 200);
    assert_non_null(d->value);
}

/* ---- statistics: expected values from NumPy and SciPy ---- */
static const double X[11] = {3.5, -1, 2.25, 8, 0, 0.5, 7, -2.5, 4, 1, 6.5}, Y[11] = {1, 0, 2, 5, -1, 3, 4, -2, 2, 2, 7};
#define assert_close(a, b) \
    do { \
        if (!(fabs((a) - (b)) <= 1e-12 * (1 + fabs(b)))) \
            fail_msg("line %d: expected %.17g, found %.17g", __LINE__, (double)(b), (double)(a)); \
    } while (0)

static void moments_and_quantiles(void **state)
{
    (void)state;
    assert_close(stats_mean(X, 11), 2.659090909090909);
    assert_close(stats_sd(X, 11), 3.453752899515119);
    assert_close(stats_pearson(X, Y, 11), 0.8475454007878878);
    const double flat[11] = {0};
    assert_true(isnan(stats_pearson(X, flat, 11)));
    double s[12];
    memcpy(s, X, sizeof X);
    s[11] = s[3];
    s[3] = NAN;
    stats_sort(s, 12);
    assert_true(isnan(s[11]));
    const double p[] = {0, .1, .25, .5, .77, 1}, q[] = {-2.5, -1, .25, 2.25, 5.75, 8};
    for (int i = 0; i < 6; i++)
        assert_close(stats_quantile(s, 11, p[i]), q[i]);
    assert_close(stats_quantile(s, 1, .3), -2.5);
}

static void intervals(void **state)
{
    (void)state;
    assert_close(stats_normal_quantile(.975), 1.959963984540054);
    assert_close(stats_normal_quantile(.01), -2.3263478740408408);
    assert_close(stats_mean_interval(X, 11, .95).low, 0.6180908797131375);
    double rank[640];
    for (int i = 0; i < 640; i++)
        rank[i] = i + 1;
    /* the l-th smallest and largest, l from SciPy's binomial law */
    const struct { size_t n; double low; } known[] = {{5, 1}, {6, 1}, {11, 2}, {100, 40}, {640, 295}};
    for (int i = 0; i < 5; i++) {
        Interval m = stats_median_interval(rank, known[i].n, .95);
        assert_close(m.at, ((double)known[i].n + 1) / 2);
        assert_close(m.low, known[i].low);
        assert_close(m.high, (double)known[i].n + 1 - known[i].low);
    }
}

static double mean_of_rows(void *arg, const size_t *row, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((const double *)arg)[row[i]];
    return sum / (double)n;
}

static void the_bootstrap_agrees_with_theory(void **state)
{
    (void)state;
    double x[400];
    uint64_t seed = 1;
    for (int i = 0; i < 400; i++)
        x[i] = (double)splitmix64_below(&seed, 1000);
    Interval b = stats_bootstrap(arena, 400, mean_of_rows, x, 4000, .95, 7), t = stats_mean_interval(x, 400, .95);
    double half = t.high - t.at;
    assert_close(b.at, t.at);
    assert_true(fabs(b.low - t.low) < .08 * half && fabs(b.high - t.high) < .08 * half);
    Interval again = stats_bootstrap(arena, 400, mean_of_rows, x, 4000, .95, 7);
    assert_true(again.low == b.low && again.high == b.high);
}

static void clustered_errors(void **state)
{
    (void)state;
    const int32_t cluster[11] = {0, 0, 1, 1, 1, 4, 2, 2, 7, 7, 0};
    double d[11];
    for (int i = 0; i < 11; i++)
        d[i] = X[i] - Y[i];
    ClusteredMean m = stats_clustered_mean(arena, d, cluster, 11);
    assert_int_equal(m.clusters, 5);
    assert_close(m.mean, 0.5681818181818182);
    assert_close(m.se, 0.4344128028733971);
    int32_t own[11];
    for (int i = 0; i < 11; i++)
        own[i] = i; /* every row its own cluster: the ordinary standard error */
    assert_close(stats_clustered_mean(arena, d, own, 11).se, stats_sd(d, 11) / sqrt(11));
}

static void splitmix_is_splitmix(void **state)
{
    (void)state;
    uint64_t seed = 1234567; /* published test vector of the generator */
    assert_true(splitmix64(&seed) == UINT64_C(6457827717110365317));
    assert_true(splitmix64(&seed) == UINT64_C(3203168211198807973));
}

static void running_out_of_memory_is_an_error(void **state)
{
    (void)state;
    const char *in = in_folder("memory.tsv"), *out = in_folder("memory");
    Err err = {0};
    assert_true(seqdata_write_table(&err, in, parse("ACGT\nTTT\n")));
    SplitSummary sum;
    int64_t before = mem_live();
    bool done = false;
    for (int64_t i = 1; !done; i++) {
        err_clear(&err);
        mem_fail_at(i);
        done = split_write(&err, in, out, &sum);
        mem_fail_at(0);
        assert_true(done || err.kind == ERR_ENV);
        if (done)
            assert_int_equal(mem_live(), before);
    }
    for (Fold f = 0; f < FOLD_COUNT; f++)
        unlink(arena_printf(arena, "%s/memory/%s.tsv", folder, fold_name(f)));
    unlink(arena_printf(arena, "%s/memory/reference.json", folder));
    rmdir(out);
    unlink(in);
}

#define unit(f) cmocka_unit_test_setup_teardown(f, arena_set_up, arena_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        unit(reads_plain_lines),
        unit(reads_fasta),
        unit(reads_the_yeast_table),
        unit(reads_other_tables),
        unit(refuses_bad_files),
        unit(every_truncation_is_read_or_refused),
        unit(reads_gzip_and_refuses_cut_gzip),
        unit(written_files_read_back),
        unit(rows_are_selected),
        unit(related_rows_stay_together),
        unit(rows_that_are_not_native_are_left_out),
        unit(splits_the_yeast_table),
        unit(reads_other_published_files),
        unit(moments_and_quantiles),
        unit(intervals),
        unit(the_bootstrap_agrees_with_theory),
        unit(clustered_errors),
        unit(splitmix_is_splitmix),
        unit(running_out_of_memory_is_an_error),
    };
    snprintf(folder, sizeof folder, "/tmp/dav-test-data-%ld", (long)getpid());
    Err err = {0};
    if (!file_mkdirs(&err, folder))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    const char *left[] = {"x.gz", "out.tsv", "out.fasta"};
    char path[128];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, left[i]);
        unlink(path);
    }
    rmdir(folder);
    return failed;
}
