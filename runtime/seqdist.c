#include "runtime/seqdist.h"
#include "runtime/stats.h"
#include <math.h>
#include <omp.h>
#include <string.h>

static size_t words_of(size_t length)
{
    return (length + 63) / 64;
}

/* work: a word of each letter's positions in `a` (4 rows), then the vertical differences +1 and -1 of the column. */
size_t seq_distance_words(size_t length)
{
    return 6 * words_of(length);
}

void seq_distance_prepare(uint64_t *work, const uint8_t *a, size_t length)
{
    size_t words = words_of(length);
    memset(work, 0, 4 * words * sizeof *work);
    for (size_t i = 0; i < length; i++)
        work[a[i] * words + i / 64] |= UINT64_C(1) << i % 64;
}

/* One column of the table after another; inlined for few words so that they stay in registers. */
static inline __attribute__((always_inline)) int32_t run_columns(const uint64_t *where, uint64_t *plus, uint64_t *minus, size_t words,
                                                                 size_t length, const uint8_t *b, size_t b_length)
{
    uint64_t last = UINT64_C(1) << (length - 1) % 64;
    int32_t score = (int32_t)length;
    for (size_t w = 0; w < words; w++) {
        plus[w] = ~UINT64_C(0);
        minus[w] = 0;
    }
    for (size_t j = 0; j < b_length; j++) {
        uint64_t in_plus = 1, in_minus = 0; /* the first row counts 0, 1, 2, ... */
        for (size_t w = 0; w < words; w++) {
            uint64_t eq = where[b[j] * words + w], vertical = eq | minus[w];
            eq |= in_minus;
            uint64_t zero = (((eq & plus[w]) + plus[w]) ^ plus[w]) | eq;
            uint64_t right_plus = minus[w] | ~(zero | plus[w]), right_minus = plus[w] & zero;
            if (w + 1 == words)
                score += (right_plus & last) != 0, score -= (right_minus & last) != 0;
            uint64_t out_plus = right_plus >> 63, out_minus = right_minus >> 63;
            right_plus = right_plus << 1 | in_plus;
            right_minus = right_minus << 1 | in_minus;
            plus[w] = right_minus | ~(vertical | right_plus);
            minus[w] = right_plus & vertical;
            in_plus = out_plus;
            in_minus = out_minus;
        }
    }
    return score;
}

int32_t seq_distance_to(uint64_t *work, size_t length, const uint8_t *b, size_t b_length)
{
    size_t words = words_of(length);
    uint64_t column[4];
    switch (words) {
    case 0:
        return (int32_t)b_length;
    case 1:
        return run_columns(work, column, column + 2, 1, length, b, b_length);
    case 2:
        return run_columns(work, column, column + 2, 2, length, b, b_length);
    default:
        return run_columns(work, work + 4 * words, work + 5 * words, words, length, b, b_length);
    }
}

/* ---- sets ---- */
static size_t longest(const SeqData *d)
{
    size_t most = 0;
    for (size_t i = 0; i < d->n; i++)
        most = seq_len(d, i) > most ? seq_len(d, i) : most;
    return most;
}

/* One work area a thread, apart by a cache line. */
typedef struct Work { uint64_t *at; size_t stride; } Work;

static Work make_work(Arena *scratch, const SeqData *d)
{
    size_t stride = seq_distance_words(longest(d)) + 8;
    return (Work){arena_array(scratch, uint64_t, mem_mul((size_t)omp_get_max_threads(), stride)), stride};
}

static uint64_t *work_of_thread(Work w)
{
    return w.at + (size_t)omp_get_thread_num() * w.stride;
}

static size_t *shuffled_rows(Arena *scratch, size_t n)
{
    size_t *row = arena_array(scratch, size_t, n);
    uint64_t seed = n;
    for (size_t i = 0; i < n; i++) {
        size_t j = splitmix64_below(&seed, i + 1);
        row[i] = row[j];
        row[j] = i;
    }
    return row;
}

PairDistance seq_pair_distance(Arena *scratch, const SeqData *d)
{
    size_t n = d->n;
    if (n < 2)
        return (PairDistance){NAN, NAN, 0};
    bool all = n * (n - 1) / 2 <= SEQ_MAX_PAIRS;
    size_t near = all ? 0 : SEQ_MAX_PAIRS / n ? SEQ_MAX_PAIRS / n : 1;
    size_t *row = shuffled_rows(scratch, n), each = all ? n - 1 : 2 * near; /* partners of a row */
    double *mean = arena_array(scratch, double, n);
    Work work = make_work(scratch, d);
#pragma omp parallel for schedule(dynamic, 8)
    for (size_t i = 0; i < n; i++) {
        uint64_t *w = work_of_thread(work);
        int64_t sum = 0;
        size_t a = row[i];
        seq_distance_prepare(w, seq_at(d, a), seq_len(d, a));
        for (size_t k = 0; k < each; k++) {
            size_t b = row[(all || k < near ? i + 1 + k : i + n - 1 - (k - near)) % n];
            sum += seq_distance_to(w, seq_len(d, a), seq_at(d, b), seq_len(d, b));
        }
        mean[i] = (double)sum / (double)each;
    }
    return (PairDistance){stats_mean(mean, n), 2 * stats_sd(mean, n) / sqrt((double)n), n * each / 2};
}

void seq_nearest(Arena *scratch, const SeqData *d, const SeqData *set, int32_t *distance, size_t *nearest_row)
{
    Work work = make_work(scratch, d);
#pragma omp parallel for schedule(dynamic, 4)
    for (size_t i = 0; i < d->n; i++) {
        uint64_t *w = work_of_thread(work);
        int32_t best = INT32_MAX;
        size_t row = 0, n = seq_len(d, i);
        seq_distance_prepare(w, seq_at(d, i), n);
        for (size_t j = 0; j < set->n && best > 0; j++) {
            size_t m = seq_len(set, j), apart = n > m ? n - m : m - n;
            if (apart >= (size_t)best)
                continue;
            int32_t x = seq_distance_to(w, n, seq_at(set, j), m);
            if (x < best) {
                best = x;
                row = j;
            }
        }
        distance[i] = best;
        if (nearest_row)
            nearest_row[i] = row;
    }
}
