/* Markov chain of order k over DNA letters: the baseline that a denoiser has to beat.
 *
 * The letter at position p is predicted from the min(p, k) letters before it in the same sequence, with a table for each
 * length of context; the table of context length c counts all positions >= c of the training rows.  Smoothing is
 * interpolated (each context's letters are added `strength` pseudo-counts, shared out as the context without its first
 * letter predicts; without context: evenly).  With additive smoothing instead, the yeast validation fold differs by 2e-4. */
#pragma once
#include "runtime/seqdata.h"

enum { MARKOV_MAX_ORDER = 10 };

typedef struct Markov {
    int order;
    double strength;
    double *log_p[MARKOV_MAX_ORDER + 1]; /* [c]: natural logarithms [4^c][4] */
} Markov;

Markov *markov_fit(Arena *a, const SeqData *train, int order, double strength);
/* The strength that gives `validation` the highest likelihood, of 1, 2, 5, 10, 20, ... 5000. */
Markov *markov_fit_best(Arena *a, const SeqData *train, const SeqData *validation, int order);
double markov_nats(const Markov *m, const uint8_t *seq, size_t length); /* - log p of the sequence */
double markov_nats_per_base(const Markov *m, const SeqData *d);         /* over all letters of d */
