/* Masked diffusion over sequences of letters: what one denoiser and one reward need to be searched and trained.
 *
 * Letters are 0..V-1, the mask is V.  Time runs from 1 (all masked) to 0; sample.num_steps reverse steps go along the grid
 * t_i = 1 + (1e-5 - 1) i / T.  m(t) = 1 - exp(-sigma(t)) is the chance that a position is masked at t (log-linear noise). */
#pragma once
#include "runtime/reward.h"
#include "runtime/rows.h"

enum { MASKED_MAX_LENGTH = 1 << 16 };

/* Network evaluations, as methods.md counts them. */
typedef struct Counters { int64_t forwards, vjps, reward_forwards, reward_vjps, p0_forwards; } Counters;

typedef struct Masked {
    int64_t length, letters; /* L, V */
    int steps;               /* T */
    int children;            /* M, of propose and choose */
    bool guides;             /* the proposal takes the reward's gradient */
    bool weighs;             /* children are chosen by weights; else the first one goes on */
    bool time_input;         /* the network sees sigma(t); else a state's evaluation holds for every t */
    ParamSet *theta;         /* the denoiser */
    ParamSet *phi;           /* the reward network's; NULL: the reward is not in the graph */
    /* Programs; inputs and outputs are listed with their builders in runtime/masked_programs.h.  Where there is `whole`, those of single
     * steps are made when they are first wanted. */
    struct MaskedMaking *making;
    RowProgram *denoise;  /* x -> logp, x0 */
    RowProgram *value;    /* x0 -> r: the reward in the graph; NULL without one */
    RowProgram *guide;    /* x -> g; NULL when the proposal takes no gradient */
    RowProgram *propose;  /* x, logp[, g] -> children, lp, lq */
    RowProgram *choose;   /* r, lp, lq -> choice, lognorm, ess */
    RowProgram *whole;    /* all steps of a trajectory (runtime/masked_whole.c); NULL: step by step */
    Reward *reward;       /* host reward, NULL: in the graph or none */
    Counters count;
} Masked;

/* Make the programs of single steps, and of the reward, where they are not there yet (runtime/masked_programs.c). */
bool masked_need_steps(Masked *k, Err *err);
bool masked_need_value(Masked *k, Err *err);

double masked_time(const Masked *k, int i);      /* t_i, i = 0..T */
double masked_share(double t);                   /* m(t) */
double masked_sigma(double t);                   /* sigma(t) */

/* Evaluated states: what the network said about them. */
typedef struct States {
    int64_t n;
    int64_t *x;  /* [n, L] */
    float *logp; /* [n, L, V] */
    int64_t *x0; /* [n, L] argmax fill */
    float *r;    /* [n] reward of x0 */
} States;
States states_new(const Masked *k, int64_t n);
void states_free(States *s);
/* Fills logp and x0 for s->x[0..n) at time t. */
bool states_denoise(Masked *k, Err *err, States *s, double t);
/* The same, and r of x0.  A reward of the host's scores what has come from a device while that evaluates the next states. */
bool states_evaluate(Masked *k, Err *err, States *s, double t);
/* Rewards of n finished sequences [n, L], by the network in the graph or by the host. */
bool masked_score(Masked *k, Err *err, int64_t n, const int64_t *x0, float *r);
