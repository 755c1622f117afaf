/* The graphs of masked diffusion: a denoiser, a reward and the objective's vocabulary (dav/objective.h) put together.
 *
 *   denoise  x i64[B,L] (, t f32[1])                          -> logp f32[B,L,V], x0 i64[B,L]
 *   value    x0 i64[B,L]                                      -> r f32[B]
 *   guide    x (, t)                                          -> g f32[B,L,V]: d r(soft x0hat(x)) / d one-hot x
 *   propose  x, logp, shares f32[2], key u32[2], counter u32[B*M,3], scale f32[1] (, g) -> children i64[B,M,L], lp, lq f32[B,M]
 *   choose   r, lp, lq f32[B,M], scale, key, counter u32[B,3] -> choice i32[B], lognorm f32[B], ess f32[B]
 *   whole    all steps of that, a loop (runtime/masked_whole.c)
 *   prior    x (, t f32[B])                                   -> logp f32[B,L,V]
 *   distil   x, next, x0, share, left (, t f32[B])(, logp0, kl_weight) -> loss f32[B](, kl f32[B]) and gradients
 *   pretrain x0, share, key, counter u32[B,3] (, t f32[B])    -> loss f32[B]: cross-entropy over masked positions, gradients
 *   score    x, x0 (, t f32[B])                               -> nll f32[B]: the same for given masks
 *   regress  x0, y f32[B]                                     -> loss f32[B], gradients */
#pragma once
#include "runtime/learn.h"
#include "runtime/masked.h"

/* When a trajectory is one program: on CUDA devices where the reward is in the graph, never, always. */
typedef enum { WHOLE_AUTO, WHOLE_NEVER, WHOLE_ALWAYS } WholeTrajectory;

typedef struct MaskedSpec {
    Network denoiser, reward; /* reward.model NULL: none in the graph */
    int reward_output;        /* which number, of a reward that gives several */
    int64_t length, letters;
    bool time_input, train_time_input; /* the network sees sigma(t) in the search; in the M-step (distil, prior) */
    int children;             /* M */
    int steps;                /* T, of masked_writer("whole") */
    bool gradient;            /* the proposal is guided by the reward's gradient */
    bool distil_kl;           /* distil has the KL term */
    bool greedy;              /* the child of the largest weight goes on (docs/departures.md) */
    bool mean_logp;           /* the weights see log p and log q divided by the length */
    const DavSearch *search;  /* weights; NULL: no choice */
    const DavConfig *search_config, *loss_config;
    const DavLoss *loss;
    WholeTrajectory whole;
} MaskedSpec;

/* The writer of a task by name, with a MaskedSpec as its context: forward, step, choose, whole, learn, pretrain, score, prior, value, guide
 * of a denoiser; forward, learn, value of a regression; NULL: no such task.  learn and pretrain are for build_learner. */
GraphWriter masked_writer(const char *task, bool regression);

/* Length and letters of a denoiser by its configuration; a user's error when it is none. */
bool masked_spec_shape(Err *err, MaskedSpec *s);

ParamSet *masked_denoiser_params(Err *err, const MaskedSpec *s, uint32_t seed);
ParamSet *masked_reward_params(Err *err, const MaskedSpec *s, uint32_t seed);

/* Programs of the search; theta (and phi) are bound and stay the caller's.  For plain sampling give a spec without search. */
Masked *masked_new(Err *err, const MaskedSpec *s, const BuildOptions *o, int steps, ParamSet *theta, ParamSet *phi, Reward *host);
void masked_free(Masked *k); /* NULL is fine */
void masked_bind(Masked *k, float *theta); /* other values of the denoiser, same layout (average, pretrained) */

RowProgram *masked_distil(Err *err, const MaskedSpec *s, const BuildOptions *o, const ParamSet *theta, Optim *optim);
RowProgram *masked_pretrain(Err *err, const MaskedSpec *s, const BuildOptions *o, const ParamSet *theta, Optim *optim);
RowProgram *masked_scorer(Err *err, const MaskedSpec *s, const BuildOptions *o, const ParamSet *theta);
/* x (, t f32[B]) -> logp: the pretrained model of the KL term. */
RowProgram *masked_prior(Err *err, const MaskedSpec *s, const BuildOptions *o, const ParamSet *theta);
/* A reward network alone: theta holds its parameters. */
RowProgram *regress_learner(Err *err, const MaskedSpec *s, const BuildOptions *o, const ParamSet *theta, Optim *optim);
RowProgram *regress_predictor(Err *err, const MaskedSpec *s, const BuildOptions *o, const ParamSet *theta);
ParamSet *regress_params(Err *err, const MaskedSpec *s, uint32_t seed);
