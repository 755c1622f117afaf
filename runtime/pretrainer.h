/* Pretraining: a denoiser by its masked-diffusion bound, or a sequence-to-number network by regression. */
#pragma once
#include "runtime/masked_programs.h"
#include "runtime/modeldir.h"
#include "runtime/options.h"
#include "runtime/split.h"

typedef struct Pretrainer {
    Arena *arena;
    const DavConfig *config, *model_config;
    MaskedSpec spec;
    bool regression;
    const SeqData *train, *validation; /* of one length */
    ParamSet *theta;
    Optim *optim;
    RowProgram *learner, *judge; /* judge: score or predict, bound to the average */
    int64_t step;                /* updates done */
    Counters count;
    int64_t *order;              /* rows of this epoch, shuffled */
    int64_t order_epoch;
    int64_t *x0;                 /* one batch */
    float *share, *t, *y, *weight, *loss;
    uint32_t *counter;
} Pretrainer;

/* model: registered; model_config: its own keys.  data: a file of runtime/seqdata.h. */
Pretrainer *pretrainer_open(Err *err, const DavModel *model, const DavConfig *model_config, const DavConfig *c, const char *data);
void pretrainer_close(Pretrainer *p);

typedef struct StepReport { double loss, grad_norm, lr; } StepReport; /* loss in nats per base, or mean squared error */
bool pretrainer_step(Pretrainer *p, Err *err, StepReport *r);
/* On the validation fold, by the average of the parameters: nats per base, or Pearson's correlation. */
bool pretrainer_validate(Pretrainer *p, Err *err, double *value);

/* ---- judging networks on given sequences; used by dav eval too ---- */
/* Nats per base of each row [n]: exactly k positions masked, k uniform over 1..L and spread evenly over `masks` draws, mean
 * cross-entropy of the masked ones.  Its expectation is the bound's; the noise is a tenth of that of the 1/t-weighted form. */
bool score_sequences(RowProgram *scorer, Err *err, bool time_input, const SeqData *d, int64_t letters, int masks, uint32_t seed,
                     double *nats);
bool predict_sequences(RowProgram *predictor, Err *err, const SeqData *d, double *y);
/* Folds by name: "reward+heldout", "all". */
bool folds_of(Err *err, const char *place, const char *text, unsigned *bits);
const SeqData *fold_of_file(Err *err, Arena *a, const char *path, const char *place, const char *folds, bool measured);
