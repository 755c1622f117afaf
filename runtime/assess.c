#include "runtime/assess.h"
#include <math.h>

typedef struct Opened {
    Arena *arena;
    ModelDir dir;
    MaskedSpec spec;
    ParamSet *theta;
    RowProgram *program;
} Opened;

static bool open_network(Err *err, const Registry *r, const char *path, Opened *o)
{
    const BuildOptions build = {.compile = {.precision = DAV_F32}, .device = "cpu", .rows = 64};
    if (!modeldir_open(o->arena, err, r, path, &o->dir))
        return false;
    Network net = {o->dir.model, o->dir.config};
    if (o->dir.model->kind == DAV_REWARD) {
        o->spec.reward = net;
        if (model_sequence(err, net.model, net.config, &o->spec.length, &o->spec.letters))
            o->theta = regress_params(err, &o->spec, 0);
    } else {
        o->spec.denoiser = net;
        o->theta = masked_spec_shape(err, &o->spec) ? masked_denoiser_params(err, &o->spec, 0) : NULL;
    }
    if (!o->theta || !params_load(o->theta, err, o->dir.weights, o->theta->value))
        return false;
    params_touch(o->theta);
    o->program = o->dir.model->kind == DAV_REWARD ? regress_predictor(err, &o->spec, &build, o->theta)
                                                  : masked_scorer(err, &o->spec, &build, o->theta);
    return o->program != NULL;
}

static void close_network(Opened *o)
{
    rows_free(o->program);
    params_free(o->theta);
    arena_free(o->arena);
}

static bool against_values(Err *err, Opened *o, const SeqData *d, Assessment *out)
{
    double *y = arena_array(o->arena, double, d->n), square = 0;
    if (!predict_sequences(o->program, err, d, y))
        return false;
    for (size_t i = 0; i < d->n; i++)
        square += (y[i] - d->value[i]) * (y[i] - d->value[i]);
    out->pearson = stats_pearson(y, d->value, d->n);
    out->rmse = sqrt(square / (double)d->n);
    return true;
}

static bool against_chain(Err *err, Opened *o, const char *data, const SeqData *d, int masks, Assessment *out)
{
    enum { ORDER = 5 };
    const SeqData *train = fold_of_file(err, o->arena, data, "folds", "reward+heldout", false);
    const SeqData *validation = train ? fold_of_file(err, o->arena, data, "folds", "validation", false) : NULL;
    double *nats = arena_array(o->arena, double, d->n), *gain = arena_array(o->arena, double, d->n);
    if (!validation || !score_sequences(o->program, err, false, d, o->spec.letters, masks, 0, nats))
        return false;
    const Markov *m = markov_fit_best(o->arena, train, validation, ORDER);
    out->markov_validation = markov_nats_per_base(m, validation);
    for (size_t i = 0; i < d->n; i++) {
        double chain = markov_nats(m, seq_at(d, i), seq_len(d, i)) / (double)seq_len(d, i);
        out->markov_nats += chain / (double)d->n;
        gain[i] = chain - nats[i];
    }
    out->nats = stats_mean(nats, d->n);
    out->gain = stats_clustered_mean(o->arena, gain, d->component, d->n);
    return true;
}

bool assess_network(Err *err, const Registry *r, const char *model_dir, const char *data, const char *fold, int masks, Assessment *out)
{
    Opened o = {.arena = arena_new()};
    *out = (Assessment){0};
    bool ok = open_network(err, r, model_dir, &o);
    out->regression = ok && o.dir.model->kind == DAV_REWARD;
    const SeqData *d = ok ? fold_of_file(err, o.arena, data, "--fold", fold, out->regression) : NULL;
    ok = d && (seqdata_length(d) == (size_t)o.spec.length ||
               err_user(err, "%s: expected sequences of %lld letters", data, (long long)o.spec.length));
    if (ok) {
        out->n = d->n;
        ok = out->regression ? against_values(err, &o, d, out) : against_chain(err, &o, data, d, masks, out);
    }
    close_network(&o);
    return ok;
}

bool assess_predict(Err *err, const Registry *r, const char *model_dir, const SeqData *d, double *y)
{
    Opened o = {.arena = arena_new()};
    bool ok = open_network(err, r, model_dir, &o);
    if (ok && o.dir.model->kind != DAV_REWARD)
        ok = err_user(err, "%s: %s predicts no numbers", model_dir, o.dir.model->name);
    ok = ok && predict_sequences(o.program, err, d, y);
    close_network(&o);
    return ok;
}
