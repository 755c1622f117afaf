#include "runtime/markov.h"
#include <math.h>

static size_t contexts(int length)
{
    return (size_t)1 << 2 * length;
}

/* count[c][context][letter] for every context length up to the order. */
static void count_letters(double *const *count, int order, const SeqData *d)
{
    for (size_t row = 0; row < d->n; row++) {
        const uint8_t *seq = seq_at(d, row);
        size_t past = 0; /* all letters so far; its low digits are the contexts */
        for (size_t p = 0; p < seq_len(d, row); p++) {
            for (int c = 0; c <= order && (size_t)c <= p; c++)
                count[c][4 * (past & (contexts(c) - 1)) + seq[p]]++;
            past = past << 2 | seq[p];
        }
    }
}

/* From counts to log-probabilities in place, the shorter context first: its probabilities are the prior. */
static void smooth(double *const *count, double **log_p, int order, double strength)
{
    for (int c = 0; c <= order; c++)
        for (size_t x = 0; x < contexts(c); x++) {
            const double *n = count[c] + 4 * x;
            double sum = n[0] + n[1] + n[2] + n[3];
            for (int letter = 0; letter < 4; letter++) {
                double prior = c ? exp(log_p[c - 1][4 * (x & (contexts(c - 1) - 1)) + (size_t)letter]) : 0.25;
                log_p[c][4 * x + (size_t)letter] = log((n[letter] + strength * prior) / (sum + strength));
            }
        }
}

static Markov *new_chain(Arena *a, int order)
{
    must(order >= 0 && order <= MARKOV_MAX_ORDER);
    Markov *m = arena_alloc(a, sizeof *m);
    m->order = order;
    for (int c = 0; c <= order; c++)
        m->log_p[c] = arena_array(a, double, 4 * contexts(c));
    return m;
}

Markov *markov_fit(Arena *a, const SeqData *train, int order, double strength)
{
    must(strength > 0);
    Markov *m = new_chain(a, order), *counts = new_chain(a, order);
    count_letters(counts->log_p, order, train);
    smooth(counts->log_p, m->log_p, order, strength);
    m->strength = strength;
    return m;
}

Markov *markov_fit_best(Arena *a, const SeqData *train, const SeqData *validation, int order)
{
    static const double strength[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000};
    Markov *m = new_chain(a, order), *counts = new_chain(a, order);
    double best = INFINITY;
    m->strength = strength[0];
    count_letters(counts->log_p, order, train);
    for (size_t i = 0; i < sizeof strength / sizeof *strength; i++) {
        smooth(counts->log_p, m->log_p, order, strength[i]);
        double nats = markov_nats_per_base(m, validation);
        if (nats < best) {
            best = nats;
            m->strength = strength[i];
        }
    }
    smooth(counts->log_p, m->log_p, order, m->strength);
    return m;
}

double markov_nats(const Markov *m, const uint8_t *seq, size_t length)
{
    double sum = 0;
    size_t past = 0;
    for (size_t p = 0; p < length; p++) {
        int c = p < (size_t)m->order ? (int)p : m->order;
        sum -= m->log_p[c][4 * (past & (contexts(c) - 1)) + seq[p]];
        past = past << 2 | seq[p];
    }
    return sum;
}

double markov_nats_per_base(const Markov *m, const SeqData *d)
{
    double sum = 0;
    for (size_t i = 0; i < d->n; i++)
        sum += markov_nats(m, seq_at(d, i), seq_len(d, i));
    return d->n ? sum / (double)d->start[d->n] : NAN;
}
