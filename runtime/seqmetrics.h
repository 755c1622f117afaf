/* What sets of DNA sequences look like: k-mer statistics, composition, repeats, duplicates. */
#pragma once
#include "runtime/seqdata.h"
#include "runtime/stats.h"

enum { SEQ_MAX_K = 10 };

/* count[4^k], index = the k letters as digits of base 4, the first the most significant; overlapping, given strand only.
 * Counts are added to what is there; 1 <= k <= SEQ_MAX_K; sequences shorter than k have none. */
void seq_add_kmers(double *count, int k, const uint8_t *seq, size_t length);
double *seq_kmer_counts(Arena *a, const SeqData *d, int k);
/* Pearson correlation of the k-mer counts of d with `reference` counts, with its bootstrap interval over the rows of d. */
Interval seq_kmer_correlation(Arena *scratch, const SeqData *d, int k, const double *reference, int replicates, double confidence);

double seq_gc(const uint8_t *seq, size_t length);                /* share of G and C */
size_t seq_longest_run(const uint8_t *seq, size_t length);       /* of equal letters */
void seq_gc_each(const SeqData *d, double *gc);                  /* [n] */
double seq_run_share(const SeqData *d, size_t run);              /* share of sequences with a run of `run` or more */
double seq_unique_share(Arena *scratch, const SeqData *d);       /* different sequences / sequences */
