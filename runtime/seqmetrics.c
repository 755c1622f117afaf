#include "runtime/seqmetrics.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t power_of_4(int k)
{
    must(k >= 1 && k <= SEQ_MAX_K);
    return (size_t)1 << 2 * k;
}

void seq_add_kmers(double *count, int k, const uint8_t *seq, size_t length)
{
    size_t mask = power_of_4(k) - 1, word = 0;
    for (size_t i = 0; i < length; i++) {
        word = (word << 2 | seq[i]) & mask;
        if (i + 1 >= (size_t)k)
            count[word]++;
    }
}

double *seq_kmer_counts(Arena *a, const SeqData *d, int k)
{
    double *count = arena_array(a, double, power_of_4(k));
    for (size_t i = 0; i < d->n; i++)
        seq_add_kmers(count, k, seq_at(d, i), seq_len(d, i));
    return count;
}

typedef struct KmerStatistic { const SeqData *d; const double *reference; double *count; int k; } KmerStatistic;

static double kmer_correlation(void *arg, const size_t *row, size_t n)
{
    const KmerStatistic *s = arg;
    size_t words = power_of_4(s->k);
    memset(s->count, 0, words * sizeof *s->count);
    for (size_t i = 0; i < n; i++)
        seq_add_kmers(s->count, s->k, seq_at(s->d, row[i]), seq_len(s->d, row[i]));
    return stats_pearson(s->count, s->reference, words);
}

Interval seq_kmer_correlation(Arena *scratch, const SeqData *d, int k, const double *reference, int replicates, double confidence)
{
    KmerStatistic s = {d, reference, arena_array(scratch, double, power_of_4(k)), k};
    return stats_bootstrap(scratch, d->n, kmer_correlation, &s, replicates, confidence, (uint64_t)k);
}

double seq_gc(const uint8_t *seq, size_t length)
{
    size_t gc = 0;
    for (size_t i = 0; i < length; i++)
        gc += seq[i] == 1 || seq[i] == 2;
    return length ? (double)gc / (double)length : NAN;
}

size_t seq_longest_run(const uint8_t *seq, size_t length)
{
    size_t most = 0, run = 0;
    for (size_t i = 0; i < length; i++) {
        run = i && seq[i] == seq[i - 1] ? run + 1 : 1;
        most = run > most ? run : most;
    }
    return most;
}

void seq_gc_each(const SeqData *d, double *gc)
{
    for (size_t i = 0; i < d->n; i++)
        gc[i] = seq_gc(seq_at(d, i), seq_len(d, i));
}

double seq_run_share(const SeqData *d, size_t run)
{
    size_t with = 0;
    for (size_t i = 0; i < d->n; i++)
        with += seq_longest_run(seq_at(d, i), seq_len(d, i)) >= run;
    return d->n ? (double)with / (double)d->n : NAN;
}

typedef struct Row { const uint8_t *seq; size_t length; } Row;

static int by_letters(const void *a, const void *b)
{
    const Row *x = a, *y = b;
    if (x->length != y->length)
        return x->length < y->length ? -1 : 1;
    return memcmp(x->seq, y->seq, x->length);
}

double seq_unique_share(Arena *scratch, const SeqData *d)
{
    Row *row = arena_array(scratch, Row, d->n);
    size_t different = d->n > 0;
    for (size_t i = 0; i < d->n; i++)
        row[i] = (Row){seq_at(d, i), seq_len(d, i)};
    qsort(row, d->n, sizeof *row, by_letters);
    for (size_t i = 1; i < d->n; i++)
        different += by_letters(&row[i - 1], &row[i]) != 0;
    return d->n ? (double)different / (double)d->n : NAN;
}
