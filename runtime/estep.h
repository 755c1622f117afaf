/* The E-step: a search over reverse trajectories (methods.md 1).  In every step each trajectory draws M children from the
 * proposal, weighs them by reward and importance, and goes on with one of them. */
#pragma once
#include "runtime/masked.h"

struct Trajectories;
typedef struct SearchSettings {
    int children;         /* M; 1 with weigh false is plain sampling */
    bool weigh;           /* choose by the weights; false: the first child */
    bool gradient;        /* guided proposal */
    double alpha, gamma;
    int gamma_offset;     /* added to the exponent t-1 of gamma in the weights and the guide; 0: the paper's */
    double guide_divisor; /* of the reward's gradient in the proposal; 0, as 1: the paper's */
    uint32_t seed;
    const char *stream;   /* which random stream: training, evaluation, ... never share one */
    uint32_t round;
    /* NULL, or as many trajectories of as many steps: each step starts from their state instead of the one chosen here, so that two
     * devices or precisions can be compared choice by choice. */
    const struct Trajectories *teacher;
} SearchSettings;

/* Trajectories: states before every step and after the last, as letters; [n, T + 1, L]. */
typedef struct Trajectories {
    int64_t n, length;
    int steps;
    uint8_t *state;
    uint8_t *x0;   /* [n, T, L] argmax fill of the state after each step (of its evaluation) */
    int64_t *final; /* [n, L] finished sequences */
    float *reward;  /* [n] of the finished sequences; NaN when no reward was asked for */
    /* [n] each trajectory's term of the two bounds; log wbar, q, p_k are those of the chosen child, of which M were drawn.
     * elbo: the discounted one of methods.md 1, gamma^{T-1} r(x_0) / alpha - sum_t gamma^{T-t} (log(M wbar) + log q - log p_k).
     * elbo_undiscounted: r(x_0) / alpha - sum_t (log(M wbar) + log q - log p_k).  The sum is log(dQ / dP) over all children
     * and choices, Q the search and P the law that draws one child of each step from p_k (at a uniform place) and the others
     * from q; so by Jensen its mean is at most log E_p exp(r(x_0) / alpha), whatever law the search chooses by (the best child
     * surely: wbar is 1): its weights may hold gamma, r of Tweedie's estimate or anything else. */
    double *elbo, *elbo_undiscounted;
    double ess;     /* mean over steps and trajectories of 1 / sum of squared weights */
} Trajectories;

/* Samples first .. first + n - 1 of the stream; each depends on its own number alone.  with_reward: score the end even when
 * the weights do not need it. */
Trajectories *search_run(Masked *k, Err *err, const SearchSettings *s, int64_t first, int64_t n, bool with_reward);
void trajectories_free(Trajectories *t);
