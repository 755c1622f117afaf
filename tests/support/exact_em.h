/* EM on masked diffusions small enough to enumerate, in f64 and plain C: nothing here uses the library.
 *
 * A state is a sequence of letters 0..V-1 and masks V, numbered in base V + 1, position 0 first; a word is a state
 * without masks, numbered in base V.  The model is TinyDenoiser at time 0: one hidden layer of tanh over the one-hot.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { EXACT_STATES = 27, EXACT_LENGTH = 3, EXACT_LETTERS = 8, EXACT_WORDS = 8, EXACT_STEPS = 4, EXACT_THETA = 2048 };

typedef double ExactTable[EXACT_STATES][EXACT_LENGTH][EXACT_LETTERS]; /* a number for each state, position, letter */

typedef struct ExactEm {
    int length, letters, steps, hidden;
    int states, words; /* filled by exact_open */
    double alpha, gamma;
    bool reversed; /* a mistake to be told apart: gamma^(T-t) in place of gamma^(t-1) */
    double lambda; /* of the KL to the pretrained model */
    double reward[EXACT_WORDS];
    int symbol[EXACT_STATES][EXACT_LENGTH];
} ExactEm;

void exact_open(ExactEm *e);

/* Parameters, flat: first.weight [hidden, L (V+1)], first.bias, time.weight, time.bias,
 * second.weight [L (V+1), hidden], second.bias.  exact_theta_part: offset and size of one of them. */
int exact_theta_part(const ExactEm *e, const char *name, int *size);
int exact_theta_size(const ExactEm *e);

/* log p(letter at the position | state) */
void exact_table(const ExactEm *e, const double *theta, ExactTable logp);
/* The law of plain samples. */
void exact_law(const ExactEm *e, ExactTable logp, double law[EXACT_WORDS]);
double exact_mean_reward(const ExactEm *e, const double law[EXACT_WORDS]);
double exact_distance(const double *a, const double *b, int n); /* total variation */

/* What the M-step sees of the E-step's trajectories, per trajectory. */
typedef struct ExactReplay {
    ExactTable filled;             /* times that the letter was filled in at the position from the state */
    double occupied[EXACT_STATES]; /* times that a step began there, each by the share (m_t - m_s) / m_t of its step */
    double transitions;            /* steps that filled at least one position */
} ExactReplay;

/* Of eta*(x'|x) ~ p(x'|x) exp(gamma^(t-1) r(x0hat(x')) / alpha): expected, and of n trajectories drawn from it. */
void exact_replay(const ExactEm *e, ExactTable logp, ExactReplay *out);
void exact_draw_replay(const ExactEm *e, ExactTable logp, int n, uint64_t *rng, ExactReplay *out);

/* The minimiser of L_DAV over all tables, log: what an M-step with any network can at best reach. */
void exact_tabular_step(const ExactEm *e, const ExactReplay *r, ExactTable logp);

typedef struct ExactAdam {
    double lr, beta1, beta2, eps, clip, m[EXACT_THETA], v[EXACT_THETA];
    int step;
} ExactAdam;
/* `updates` of AdamW on the mean loss of the transitions that filled something (with lambda: of all transitions). */
void exact_mstep(const ExactEm *e, const ExactReplay *r, ExactTable logp0, int updates, ExactAdam *a, double *theta);
