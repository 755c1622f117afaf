/* EM alignment of a masked denoiser: everything that a configuration names, opened once; one round after the other. */
#pragma once
#include "runtime/mstep.h"
#include "runtime/options.h"
#include "runtime/pretrainer.h"
#include "runtime/seqmetrics.h"
#include "runtime/seqdist.h"
#include "runtime/seqref.h"
#include "runtime/modeldir.h"

typedef struct Oracle { Network net; ParamSet *params; RowProgram *predict; } Oracle; /* predict NULL: none */

typedef struct Aligner {
    Arena *arena;
    const DavConfig *config;
    MaskedSpec spec;
    BuildOptions sampling, training;
    ModelDir model;
    ParamSet *theta, *pretrained, *phi;
    Oracle heldout;
    Reward *host;
    Masked *search; /* weighs; NULL for search: none */
    Masked *plain;
    Optim *optim;
    MStep mstep;
    SeqRef *reference; /* NULL: none */
    int64_t rounds_done;
    Counters count;   /* of both, since the run began */
} Aligner;

bool aligner_has_reward(const Aligner *a);
/* Opens models, rewards and programs.  NULL with err set. */
Aligner *aligner_open(Err *err, const Registry *r, const DavConfig *c);
void aligner_close(Aligner *a); /* NULL is fine */

/* The two bounds of runtime/estep.h over a set of trajectories, with their standard errors, and the mean ESS of its steps. */
typedef struct Bound { double elbo, elbo_se, undiscounted, undiscounted_se, ess; } Bound;

typedef struct RoundReport {
    int64_t round;
    Bound bound; /* of the model before the round, on the E-step's trajectories */
    MStepReport mstep;
    double seconds;
} RoundReport;
/* E-step, M-step. */
bool aligner_round(Aligner *a, Err *err, RoundReport *report);
/* The bounds on n fresh trajectories of the current model (stream "elbo"). */
bool aligner_bound(Aligner *a, Err *err, int64_t n, Bound *bound);

/* n plain samples of the current model, or of the search on it; stream and round choose the random numbers. */
Trajectories *aligner_sample(Aligner *a, Err *err, const char *stream, uint32_t round, int64_t first, int64_t n, bool searched);

/* What a set of sequences looks like. */
typedef struct Judgement {
    size_t n;
    double *reward, *heldout; /* [n], in the arena given; NULL where there is no oracle */
    Interval reward_median, heldout_median;
    double reward_mean, heldout_mean, heldout_sd;
    PairDistance levenshtein;
    Interval kmer3_top, kmer3_all; /* NAN without a reference table */
    double kmer6_all, gc, unique, runs10;
    double log_likelihood, log_likelihood_se; /* approximate, a sequence, under the pretrained model; NAN: not asked for */
    Interval train_distance;                  /* median Levenshtein distance to the nearest one; NAN: not asked for */
} Judgement;
bool aligner_judge(Aligner *a, Err *err, Arena *arena, const SeqData *d, Judgement *out);
/* Fill in what is dear: -L times the bound in nats per base (sum over steps of (m_t - m_s)/m_t log p_0(x_0|x_t) on masked
 * positions, in expectation); distances from training sequences. */
bool aligner_judge_likelihood(Aligner *a, Err *err, const SeqData *d, int masks, Judgement *j);
void judge_distance(Arena *arena, const SeqData *d, const SeqData *train, Judgement *j);
SeqData *trajectories_sequences(Arena *arena, const Trajectories *t);
/* The programs that a round runs; returns how many. */
enum { ALIGNER_PROGRAMS = 9 };
int aligner_programs(const Aligner *a, const RowProgram *list[ALIGNER_PROGRAMS]);
Counters aligner_count(const Aligner *a);
