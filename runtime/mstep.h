/* The M-step: the sampled transitions of the E-step fitted by forward KL, optionally held near the pretrained model. */
#pragma once
#include "runtime/estep.h"
#include "runtime/masked_programs.h"

typedef struct MStepSettings {
    OptimSettings optim;
    int epochs;         /* passes over the replayed states */
    int64_t batch;      /* states of one update */
    int skip_steps;     /* reverse steps left out, from the start */
    double kl;          /* lambda; 0: the pretrained model is not asked */
    bool every_state;   /* states without a newly filled letter too (losses that look at all masked positions) */
    int discarded_parts; /* an update's states are cut into this many equal parts and one more, the last of which is used */
    bool time_input;     /* of the training programs (MaskedSpec.train_time_input) */
    uint32_t seed, round;
} MStepSettings;

typedef struct MStepReport {
    int64_t states, updates;
    double loss, kl, grad_norm; /* means over the updates */
} MStepReport;

typedef struct MStep {
    RowProgram *distil; /* of masked_distil */
    RowProgram *prior;  /* of masked_prior, bound to the pretrained model; NULL without KL */
} MStep;

/* Updates theta on the transitions of t.  k gives shapes and times and counts p0's forwards. */
bool mstep_run(MStep *s, Err *err, Masked *k, const Trajectories *t, const MStepSettings *set, ParamSet *theta, Optim *optim,
               MStepReport *report);

/* order[0..n) shuffled; depends on (seed, stream, a, b) alone. */
void shuffle(int64_t *order, int64_t n, uint32_t seed, const char *stream, uint32_t a, uint32_t b);
