#include "runtime/pretrainer.h"
#include "runtime/mstep.h"
#include "runtime/stats.h"
#include <Random123/philox.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- data ---- */
bool folds_of(Err *err, const char *place, const char *text, unsigned *bits)
{
    const char *names[FOLD_COUNT + 1];
    for (int f = 0; f < FOLD_COUNT; f++)
        names[f] = fold_name((Fold)f);
    names[FOLD_COUNT] = "all";
    *bits = 0;
    for (const char *p = text; *p; p += *p == '+') {
        char one[32] = "";
        size_t n = strcspn(p, "+");
        memcpy(one, p, n < sizeof one ? n : sizeof one - 1);
        int f = 0;
        while (f <= FOLD_COUNT && strcmp(names[f], one) != 0)
            f++;
        if (f > FOLD_COUNT)
            return err_user(err, "%s: no fold is called '%s' (nearest: '%s')", place, one, err_nearest(one, names, FOLD_COUNT + 1) ? err_nearest(one, names, FOLD_COUNT + 1) : "all");
        *bits |= f == FOLD_COUNT ? ~0u : 1u << f;
        p += n;
    }
    return *bits ? true : err_user(err, "%s: expected the name of a fold, found nothing", place);
}

const SeqData *fold_of_file(Err *err, Arena *a, const char *path, const char *place, const char *folds, bool measured)
{
    unsigned bits;
    if (!folds_of(err, place, folds, &bits))
        return NULL;
    SeqData *d = seqdata_read(err, a, path);
    if (!d)
        return NULL;
    if (bits == ~0u && !measured)
        return d;
    if (measured && !d->value)
        return err_user(err, "%s: no measured values, which a regression needs", path), NULL;
    Arena *scratch = arena_new();
    Split *s = split_make(a, scratch, d);
    arena_free(scratch);
    SeqData *fold = split_fold(a, d, s, bits, measured);
    return fold->n ? fold : (err_user(err, "%s: fold %s is empty", path, folds), NULL);
}

static bool check_length(Err *err, const char *path, const SeqData *d, int64_t length)
{
    if (seqdata_length(d) == (size_t)length)
        return true;
    return err_user(err, "%s: expected sequences of %" PRId64 " letters (the model's length), found %s%zu", path, length,
                    seqdata_length(d) ? "" : "several lengths, the first ", seqdata_length(d) ? seqdata_length(d) : seq_len(d, 0));
}

/* ---- opening ---- */
static bool open_programs(Pretrainer *p, Err *err)
{
    const DavConfig *c = p->config;
    BuildOptions o = options_build(c, "train.micro_batch");
    uint32_t seed = (uint32_t)dav_config_int(c, "seed");
    p->theta = p->regression ? regress_params(err, &p->spec, seed) : masked_denoiser_params(err, &p->spec, seed);
    p->optim = p->theta ? optim_new(err, p->theta, &o.compile, o.device) : NULL;
    if (!p->optim)
        return false;
    p->learner = p->regression ? regress_learner(err, &p->spec, &o, p->theta, p->optim)
                               : masked_pretrain(err, &p->spec, &o, p->theta, p->optim);
    p->judge = p->regression ? regress_predictor(err, &p->spec, &o, p->theta) : masked_scorer(err, &p->spec, &o, p->theta);
    if (!p->learner || !p->judge)
        return false;
    rows_bind_params(p->judge, p->theta, "theta.", p->optim->ema);
    return true;
}

static bool open_data(Pretrainer *p, Err *err, const char *data)
{
    const DavConfig *c = p->config;
    p->train = fold_of_file(err, p->arena, data, "data.folds", dav_config_string(c, "data.folds"), p->regression);
    if (!p->train)
        return false;
    p->validation = fold_of_file(err, p->arena, data, "data.validation", dav_config_string(c, "data.validation"), p->regression);
    return p->validation && check_length(err, data, p->train, p->spec.length) && check_length(err, data, p->validation, p->spec.length);
}

static bool open_spec(Pretrainer *p, Err *err, const DavModel *model)
{
    p->regression = model->kind == DAV_REWARD;
    if (!p->regression) {
        p->spec.denoiser = (Network){model, p->model_config};
        p->spec.time_input = dav_config_bool(p->config, "train.time_conditioning");
        return masked_spec_shape(err, &p->spec);
    }
    p->spec.reward = (Network){model, p->model_config};
    return model_sequence(err, model, p->model_config, &p->spec.length, &p->spec.letters);
}

static void open_batch(Pretrainer *p)
{
    size_t n = (size_t)dav_config_int(p->config, "train.batch_size"), floats = n * sizeof(float);
    p->x0 = mem_alloc(mem_mul(n, (size_t)p->spec.length * sizeof(int64_t)));
    p->share = mem_alloc(floats);
    p->t = mem_alloc(floats);
    p->y = mem_alloc(floats);
    p->weight = mem_alloc(floats);
    p->loss = mem_alloc(floats);
    p->counter = mem_alloc(n * 3 * sizeof(uint32_t));
    p->order = mem_alloc(mem_mul(p->train->n, sizeof(int64_t)));
    p->order_epoch = -1;
}

Pretrainer *pretrainer_open(Err *err, const DavModel *model, const DavConfig *model_config, const DavConfig *c, const char *data)
{
    Pretrainer *p = mem_alloc(sizeof *p);
    *p = (Pretrainer){.arena = arena_new(), .config = c, .model_config = model_config};
    if (open_spec(p, err, model) && open_data(p, err, data) && open_programs(p, err)) {
        open_batch(p);
        return p;
    }
    pretrainer_close(p);
    return NULL;
}

void pretrainer_close(Pretrainer *p)
{
    if (!p)
        return;
    rows_free(p->learner);
    rows_free(p->judge);
    optim_free(p->optim);
    params_free(p->theta);
    void *all[] = {p->order, p->x0, p->share, p->t, p->y, p->weight, p->loss, p->counter};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
    arena_free(p->arena);
    mem_free(p);
}

/* ---- one update ---- */
static double unit(uint32_t seed, const char *stream, uint32_t a, uint32_t b)
{
    philox4x32_key_t key = {{seed, hash_name32(stream)}};
    philox4x32_ctr_t c = {{0, a, b, 0}}, r = philox4x32(c, key);
    return ((r.v[0] >> 9) + 0.5) * 0x1p-23;
}

/* Row i of update `step`, by position in a sequence of shuffled epochs: nothing but the step decides. */
static size_t row_of(Pretrainer *p, int64_t i)
{
    int64_t at = p->step * dav_config_int(p->config, "train.batch_size") + i, n = (int64_t)p->train->n;
    if (at / n != p->order_epoch) {
        p->order_epoch = at / n;
        for (int64_t j = 0; j < n; j++)
            p->order[j] = j;
        shuffle(p->order, n, (uint32_t)dav_config_int(p->config, "seed"), "pretrain.order", (uint32_t)p->order_epoch, 0);
    }
    return (size_t)p->order[at % n];
}

/* Times spread evenly over (0, 1] by one common shift (the reference's antithetic sampling); weight 1/t makes the bound. */
static void fill_masked(Pretrainer *p, int64_t n)
{
    const double least = 1e-3;
    uint32_t seed = (uint32_t)dav_config_int(p->config, "seed");
    double shift = unit(seed, "pretrain.time", (uint32_t)p->step, 0);
    for (int64_t i = 0; i < n; i++) {
        double t = fmod(shift + (double)i / (double)n, 1.0) * (1 - least) + least;
        p->share[i] = (float)masked_share(t);
        p->t[i] = (float)masked_sigma(t);
        p->weight[i] = (float)(1 / (t * (double)p->spec.length * (double)n));
        uint32_t *c = p->counter + 3 * i;
        c[0] = (uint32_t)p->step, c[1] = (uint32_t)i, c[2] = 0;
    }
}

static bool learn_masked(Pretrainer *p, Err *err, int64_t n)
{
    fill_masked(p, n);
    uint32_t key[2] = {(uint32_t)dav_config_int(p->config, "seed"), hash_name32("pretrain.mask")};
    RowArg in[] = {{"x0", p->x0, ROW_EACH}, {"share", p->share, ROW_EACH}, {"key", key, ROW_SHARED},
                   {"counter", p->counter, ROW_EACH}, {"t", p->t, ROW_EACH}};
    RowArg out = {"loss", p->loss, ROW_EACH};
    return learn_rows(p->learner, err, n, in, p->spec.time_input ? 5 : 4, p->weight, &out, 1);
}

static bool learn_regression(Pretrainer *p, Err *err, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        p->weight[i] = 1 / (float)n;
    RowArg in[] = {{"x0", p->x0, ROW_EACH}, {"y", p->y, ROW_EACH}}, out = {"loss", p->loss, ROW_EACH};
    return learn_rows(p->learner, err, n, in, 2, p->weight, &out, 1);
}

static double learning_rate(const Pretrainer *p)
{
    const DavConfig *c = p->config;
    double lr = dav_config_float(c, "train.learning_rate"), done = (double)p->step, warm = (double)dav_config_int(c, "train.warmup");
    if (done < warm)
        return lr * (done + 1) / warm;
    if (strcmp(dav_config_string(c, "train.schedule"), "constant") == 0)
        return lr;
    double left = (done - warm) / ((double)dav_config_int(c, "train.steps") - warm);
    return lr * 0.5 * (1 + cos(M_PI * (left < 1 ? left : 1)));
}

bool pretrainer_step(Pretrainer *p, Err *err, StepReport *r)
{
    const DavConfig *c = p->config;
    int64_t n = dav_config_int(c, "train.batch_size");
    for (int64_t i = 0; i < n; i++) {
        size_t row = row_of(p, i);
        seqdata_ids(p->train, row, 1, p->x0 + i * p->spec.length);
        p->y[i] = p->regression ? (float)p->train->value[row] : 0;
    }
    /* the average follows closely at first: (1 + k) / (10 + k), at most the decay asked for */
    double ema = dav_config_float(c, "train.ema"), early = (1.0 + (double)p->step) / (10.0 + (double)p->step);
    OptimSettings o = {.lr = learning_rate(p), .beta1 = dav_config_float(c, "train.adam_beta1"),
                       .beta2 = dav_config_float(c, "train.adam_beta2"), .eps = dav_config_float(c, "train.adam_epsilon"),
                       .weight_decay = dav_config_float(c, "train.adam_weight_decay"),
                       .clip = dav_config_float(c, "train.max_grad_norm"), .ema = ema < early ? ema : early};
    p->count.forwards += n;
    p->count.vjps += n;
    *r = (StepReport){.lr = o.lr};
    if (!(p->regression ? learn_regression(p, err, n) : learn_masked(p, err, n)))
        return false;
    for (int64_t i = 0; i < n; i++)
        r->loss += (double)p->weight[i] * p->loss[i];
    if (!isfinite(r->loss))
        return err_user(err, "update %" PRId64 ": the loss is not finite (learning rate %g; try a smaller one)", p->step + 1, o.lr);
    if (!optim_update(p->optim, err, p->theta, &o, &r->grad_norm))
        return false;
    p->step++;
    return true;
}

/* ---- judging ---- */
/* Masks k positions of row x0: the k smallest of L random numbers. */
static void mask_exactly(int64_t *x, int64_t l, int64_t k, int64_t mask, uint32_t seed, uint32_t row, uint32_t draw)
{
    int64_t order[4096];
    for (int64_t j = 0; j < l; j++)
        order[j] = j;
    shuffle(order, l, seed, "score.mask", row, draw);
    for (int64_t j = 0; j < k; j++)
        x[order[j]] = mask;
}

bool score_sequences(RowProgram *scorer, Err *err, bool time_input, const SeqData *d, int64_t letters, int masks, uint32_t seed,
                     double *nats)
{
    int64_t n = (int64_t)d->n, l = (int64_t)seqdata_length(d);
    if (l < 1 || l > 4096)
        return err_user(err, "scoring: expected sequences of one length up to 4096, found %" PRId64, l);
    size_t ids = mem_mul((size_t)(n * l), sizeof(int64_t));
    int64_t *x = mem_alloc(ids), *x0 = mem_alloc(ids), *count = mem_alloc((size_t)n * sizeof *count);
    float *nll = mem_alloc((size_t)n * sizeof *nll), *t = mem_alloc((size_t)n * sizeof *t);
    bool ok = true;
    memset(nats, 0, (size_t)n * sizeof *nats);
    seqdata_ids(d, 0, d->n, x0);
    for (int draw = 0; draw < masks && ok; draw++) {
        memcpy(x, x0, ids);
        for (int64_t i = 0; i < n; i++) {
            /* strata: the draws of one row cover 1..L evenly */
            double u = (draw + unit(seed, "score.count", (uint32_t)i, (uint32_t)draw)) / masks;
            count[i] = 1 + (int64_t)(u * (double)l);
            mask_exactly(x + i * l, l, count[i], letters, seed, (uint32_t)i, (uint32_t)draw);
            t[i] = (float)masked_sigma((double)count[i] / (double)l);
        }
        RowArg in[] = {{"x", x, ROW_EACH}, {"x0", x0, ROW_EACH}, {"t", t, ROW_EACH}}, out = {"nll", nll, ROW_EACH};
        ok = rows_run(scorer, err, n, in, time_input ? 3 : 2, &out, 1);
        for (int64_t i = 0; i < n; i++)
            nats[i] += (double)nll[i] / (double)count[i] / masks;
    }
    mem_free(x), mem_free(x0), mem_free(count), mem_free(nll), mem_free(t);
    return ok;
}

bool predict_sequences(RowProgram *predictor, Err *err, const SeqData *d, double *y)
{
    int64_t *x0 = mem_alloc(mem_mul(d->start[d->n], sizeof *x0));
    float *v = mem_alloc(mem_mul(d->n, sizeof *v));
    seqdata_ids(d, 0, d->n, x0);
    RowArg in = {"x0", x0, ROW_EACH}, out = {"y", v, ROW_EACH};
    bool ok = rows_run(predictor, err, (int64_t)d->n, &in, 1, &out, 1);
    for (size_t i = 0; i < d->n; i++)
        y[i] = v[i];
    mem_free(x0), mem_free(v);
    return ok;
}

bool pretrainer_validate(Pretrainer *p, Err *err, double *value)
{
    const SeqData *d = p->validation;
    double *v = mem_alloc(mem_mul(d->n, sizeof *v));
    params_touch(p->theta); /* the average has moved with every update */
    bool ok = p->regression ? predict_sequences(p->judge, err, d, v)
                            : score_sequences(p->judge, err, p->spec.time_input, d, p->spec.letters,
                                              (int)dav_config_int(p->config, "eval.masks"), 0, v);
    *value = !ok ? NAN : p->regression ? stats_pearson(v, d->value, d->n) : stats_mean(v, d->n);
    mem_free(v);
    return ok;
}
