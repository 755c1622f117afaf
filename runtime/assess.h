/* A network held against data: a denoiser against the Markov chain, an oracle against measured values. */
#pragma once
#include "runtime/markov.h"
#include "runtime/pretrainer.h"
#include "runtime/stats.h"

typedef struct Assessment {
    bool regression;
    size_t n;
    double nats, markov_nats;        /* per base, means over the fold */
    double markov_validation;        /* the chain on the validation fold, where its smoothing was chosen */
    ClusteredMean gain;              /* chain minus network, paired by sequence; clusters are components */
    double pearson, rmse;
} Assessment;

/* data: one file with all folds; fold: the one to be judged on; masks: draws a sequence. */
bool assess_network(Err *err, const Registry *r, const char *model_dir, const char *data, const char *fold, int masks, Assessment *out);
/* Predictions of an oracle for sequences [n]. */
bool assess_predict(Err *err, const Registry *r, const char *model_dir, const SeqData *d, double *y);
