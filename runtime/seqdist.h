/* Levenshtein distance between DNA sequences: of all pairs of a set (diversity), to the nearest of another (novelty).
 * By Myers' bit-parallel algorithm in Hyyro's form for several words (J. ACM 46:395, 1999; Nordic J. Comput. 10:29, 2003),
 * with the query's tables made once for all targets: checked against edlib in the tests. */
#pragma once
#include "runtime/seqdata.h"

enum { SEQ_MAX_PAIRS = 500000 };

typedef struct PairDistance {
    double mean, se; /* se: of the mean over the law the sequences were drawn from; 2 sd of each row's own mean / sqrt(n) */
    size_t pairs;
} PairDistance;

/* Mean over all pairs of different rows where there are at most SEQ_MAX_PAIRS of them (n <= 1000).  For more, over the
 * pairs at most SEQ_MAX_PAIRS / n (at least 1) apart on a circle of all rows in an order shuffled once for ever: every
 * row in equally many pairs, no pair twice, the same pairs for the same n.  NAN for n < 2. */
PairDistance seq_pair_distance(Arena *scratch, const SeqData *d);

/* For each row of d the distance to the nearest row of set (exact) and the first such row; nearest_row may be NULL.
 * The set has at least one row. */
void seq_nearest(Arena *scratch, const SeqData *d, const SeqData *set, int32_t *distance, size_t *nearest_row);

/* One distance; `work` holds seq_distance_words(length of a) words.  seq_distance_prepare, then any number of targets. */
size_t seq_distance_words(size_t length);
void seq_distance_prepare(uint64_t *work, const uint8_t *a, size_t length);
int32_t seq_distance_to(uint64_t *work, size_t length, const uint8_t *b, size_t b_length);
