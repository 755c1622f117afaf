#include "runtime/aligner.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static bool load_network(Arena *arena, Err *err, const Registry *r, const DavConfig *c, const char *key, ModelDir *dir)
{
    return modeldir_open(arena, err, r, dav_config_string(c, key), dir);
}

/* ---- the reward ---- */
static bool score_by_plugin(void *ctx, Err *err, int64_t n, int64_t length, const int64_t *letters, double *values)
{
    const DavHostReward *h = ctx;
    const char *why = h->score(n, length, letters, values);
    return !why || err_env(err, "%.300s", why);
}

static bool open_reward(Aligner *a, Err *err, const Registry *r)
{
    const DavConfig *c = a->config;
    const char *model = dav_config_string(c, "reward.model"), *command = dav_config_string(c, "reward.command"),
               *function = dav_config_string(c, "reward.function");
    int given = !!*model + !!*command + !!*function;
    if (given > 1)
        return err_user(err, "settings: %s and %s are both given, expected one", *model ? "reward.model" : "reward.command",
                        *function ? "reward.function" : "reward.command");
    if (!given)
        return !a->spec.search || err_user(err, "settings: search.method %s needs a reward: reward.model, reward.command or reward.function",
                                           dav_config_string(c, "search.method"));
    if (*function) {
        const DavHostReward *h = registry_reward(r, err, "reward.function", function);
        a->host = h ? reward_from_function(h->name, score_by_plugin, (void *)(uintptr_t)h, NULL) : NULL;
        return a->host != NULL;
    }
    if (*command) {
        RewardFormat format = strcmp(dav_config_string(c, "reward.format"), "raw") == 0 ? REWARD_RAW : REWARD_FASTA;
        a->host = reward_from_command(err, command, format, dav_config_float(c, "reward.timeout"));
        return a->host != NULL;
    }
    ModelDir dir;
    if (!load_network(a->arena, err, r, c, "reward.model", &dir))
        return false;
    if (dir.model->kind != DAV_REWARD)
        return err_user(err, "reward.model: %s is a %s, which gives no reward of sequences", dir.path, dir.model->name);
    a->spec.reward = (Network){dir.model, dir.config};
    a->spec.reward_output = (int)dav_config_int(c, "reward.output");
    a->phi = masked_reward_params(err, &a->spec, 0);
    return a->phi && params_load(a->phi, err, dir.weights, a->phi->value);
}

static bool open_heldout(Aligner *a, Err *err, const Registry *r)
{
    ModelDir dir;
    if (!*dav_config_string(a->config, "heldout.model"))
        return true;
    if (!load_network(a->arena, err, r, a->config, "heldout.model", &dir))
        return false;
    MaskedSpec spec = a->spec;
    spec.reward = (Network){dir.model, dir.config};
    spec.reward_output = (int)dav_config_int(a->config, "heldout.output");
    a->heldout.net = spec.reward;
    a->heldout.params = regress_params(err, &spec, 0);
    if (!a->heldout.params || !params_load(a->heldout.params, err, dir.weights, a->heldout.params->value))
        return false;
    BuildOptions o = a->sampling;
    o.compile.precision = DAV_F32;
    a->heldout.predict = regress_predictor(err, &spec, &o, a->heldout.params);
    return a->heldout.predict != NULL;
}

/* ---- the denoiser and its programs ---- */
static bool open_denoiser(Aligner *a, Err *err, const Registry *r)
{
    if (!load_network(a->arena, err, r, a->config, "pretrained.model", &a->model))
        return false;
    a->spec.denoiser = (Network){a->model.model, a->model.config};
    const char *train_time = dav_config_string(a->config, "train.time_conditioning");
    a->spec.time_input = dav_config_bool(a->config, "sample.time_conditioning");
    a->spec.train_time_input = strcmp(train_time, "sample") == 0 ? a->spec.time_input : strcmp(train_time, "sigma") == 0;
    if (!masked_spec_shape(err, &a->spec))
        return err_prefix(err, "pretrained.model");
    a->theta = masked_denoiser_params(err, &a->spec, 0);
    a->pretrained = masked_denoiser_params(err, &a->spec, 0);
    if (!a->theta || !a->pretrained || !params_load(a->theta, err, a->model.weights, a->theta->value))
        return false;
    memcpy(a->pretrained->value, a->theta->value, (size_t)a->theta->size * sizeof(float));
    flat_wrote(a->pretrained->value);
    return true;
}

static bool open_objective(Aligner *a, Err *err, const Registry *r)
{
    const DavConfig *c = a->config;
    const char *method = dav_config_string(c, "search.method"), *whole = dav_config_string(c, "sample.whole_trajectory");
    a->spec.whole = strcmp(whole, "always") == 0 ? WHOLE_ALWAYS : strcmp(whole, "never") == 0 ? WHOLE_NEVER : WHOLE_AUTO;
    a->spec.loss = registry_loss(r, err, "train.loss", dav_config_string(c, "train.loss"));
    if (!a->spec.loss)
        return false;
    a->spec.loss_config = options_part(err, a->arena, c, options_of_loss(a->arena, a->spec.loss));
    a->spec.distil_kl = dav_config_float(c, "train.train_kl") > 0;
    if (strcmp(method, "none") == 0)
        return true;
    a->spec.search = registry_search(r, err, "search.method", method);
    a->spec.children = (int)dav_config_int(c, "search.duplicate");
    a->spec.gradient = dav_config_bool(c, "search.value_gradient");
    a->spec.greedy = dav_config_bool(c, "search.greedy");
    a->spec.mean_logp = dav_config_bool(c, "search.mean_logp");
    a->spec.search_config = a->spec.search ? options_part(err, a->arena, c, options_of_search(a->arena, a->spec.search)) : NULL;
    return a->spec.loss_config && a->spec.search_config;
}

static bool open_search(Aligner *a, Err *err)
{
    int steps = (int)dav_config_int(a->config, "sample.num_steps");
    MaskedSpec plain = a->spec;
    plain.search = NULL;
    plain.gradient = false;
    plain.children = 1;
    a->plain = masked_new(err, &plain, &a->sampling, steps, a->theta, a->phi, a->host);
    if (a->plain && a->spec.search)
        a->search = masked_new(err, &a->spec, &a->sampling, steps, a->theta, a->phi, a->host);
    return a->plain && (a->search || !a->spec.search);
}

static bool open_training(Aligner *a, Err *err)
{
    a->optim = optim_new(err, a->theta, &a->training.compile, a->training.device);
    if (!a->optim)
        return false;
    a->mstep.distil = masked_distil(err, &a->spec, &a->training, a->theta, a->optim);
    if (a->mstep.distil && a->spec.distil_kl)
        a->mstep.prior = masked_prior(err, &a->spec, &a->sampling, a->pretrained);
    return a->mstep.distil && (a->mstep.prior || !a->spec.distil_kl);
}

static bool open_reference(Aligner *a, Err *err)
{
    const char *path = dav_config_string(a->config, "reference");
    if (!*path)
        return true;
    a->reference = seqref_read(err, a->arena, path);
    return a->reference != NULL;
}

Aligner *aligner_open(Err *err, const Registry *r, const DavConfig *c)
{
    Aligner *a = mem_alloc(sizeof *a);
    *a = (Aligner){.arena = arena_new(), .config = c};
    a->sampling = options_build(c, "sample.batch_size");
    a->training = options_build(c, "train.micro_batch");
    if (open_denoiser(a, err, r) && open_objective(a, err, r) && open_reward(a, err, r) && open_reference(a, err) &&
        open_heldout(a, err, r) && open_search(a, err) && open_training(a, err))
        return a;
    aligner_close(a);
    return NULL;
}

void aligner_close(Aligner *a)
{
    if (!a)
        return;
    masked_free(a->search);
    masked_free(a->plain);
    rows_free(a->mstep.distil);
    rows_free(a->mstep.prior);
    rows_free(a->heldout.predict);
    optim_free(a->optim);
    params_free(a->theta);
    params_free(a->pretrained);
    params_free(a->phi);
    params_free(a->heldout.params);
    reward_free(a->host);
    arena_free(a->arena);
    mem_free(a);
}

int aligner_programs(const Aligner *a, const RowProgram *list[ALIGNER_PROGRAMS])
{
    const Masked *k = a->search ? a->search : a->plain; /* plain sampling's programs are the same with one child */
    const RowProgram *all[] = {k->denoise, k->value, k->guide, k->propose, k->choose, k->whole, a->mstep.distil, a->mstep.prior,
                               a->heldout.predict};
    int n = 0;
    for (int i = 0; i < ALIGNER_PROGRAMS; i++)
        if (all[i])
            list[n++] = all[i];
    return n;
}

Counters aligner_count(const Aligner *a)
{
    Counters c = a->count;
    const Masked *both[] = {a->plain, a->search};
    for (int i = 0; i < 2; i++)
        if (both[i]) {
            c.forwards += both[i]->count.forwards;
            c.vjps += both[i]->count.vjps;
            c.reward_forwards += both[i]->count.reward_forwards;
            c.reward_vjps += both[i]->count.reward_vjps;
            c.p0_forwards += both[i]->count.p0_forwards;
        }
    return c;
}

/* ---- a round ---- */
static SearchSettings search_settings(const Aligner *a, const char *stream, uint32_t round, bool searched)
{
    const DavConfig *c = a->config;
    return (SearchSettings){.children = searched ? a->spec.children : 1, .weigh = searched,
                            .gradient = searched && a->spec.gradient, .alpha = dav_config_float(c, "search.search_kl"),
                            .gamma = dav_config_float(c, "search.gamma"),
                            .gamma_offset = (int)dav_config_int(c, "search.gamma_offset"),
                            .guide_divisor = dav_config_float(c, "search.guidance_divisor"), .seed = (uint32_t)dav_config_int(c, "seed"),
                            .stream = stream, .round = round};
}

Trajectories *aligner_sample(Aligner *a, Err *err, const char *stream, uint32_t round, int64_t first, int64_t n, bool searched)
{
    bool search = searched && a->search;
    SearchSettings s = search_settings(a, stream, round, search);
    return search_run(search ? a->search : a->plain, err, &s, first, n, aligner_has_reward(a));
}

static Bound bound_of(const Trajectories *t)
{
    size_t n = (size_t)t->n;
    double root = sqrt((double)n);
    return (Bound){.elbo = stats_mean(t->elbo, n), .elbo_se = stats_sd(t->elbo, n) / root,
                   .undiscounted = stats_mean(t->elbo_undiscounted, n),
                   .undiscounted_se = stats_sd(t->elbo_undiscounted, n) / root, .ess = t->ess};
}

bool aligner_bound(Aligner *a, Err *err, int64_t n, Bound *bound)
{
    Trajectories *t = aligner_sample(a, err, "elbo", (uint32_t)a->rounds_done, 0, n, true);
    if (!t)
        return false;
    *bound = bound_of(t);
    trajectories_free(t);
    return true;
}

static MStepSettings mstep_settings(const Aligner *a)
{
    const DavConfig *c = a->config;
    return (MStepSettings){
        .optim = {.lr = dav_config_float(c, "train.learning_rate"), .beta1 = dav_config_float(c, "train.adam_beta1"),
                  .beta2 = dav_config_float(c, "train.adam_beta2"), .eps = dav_config_float(c, "train.adam_epsilon"),
                  .weight_decay = dav_config_float(c, "train.adam_weight_decay"), .clip = dav_config_float(c, "train.max_grad_norm")},
        .epochs = (int)dav_config_int(c, "train.improve_steps"),
        .batch = dav_config_int(c, "train.batch_size"),
        .skip_steps = (int)dav_config_int(c, "train.skip_steps"),
        .discarded_parts = (int)dav_config_int(c, "train.discarded_parts"),
        .time_input = a->spec.train_time_input,
        .kl = dav_config_float(c, "train.train_kl"),
        .every_state = a->spec.distil_kl || a->spec.loss != &dav_loss_dav,
        .seed = (uint32_t)dav_config_int(c, "seed"),
        .round = (uint32_t)a->rounds_done};
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool aligner_round(Aligner *a, Err *err, RoundReport *report)
{
    double start = now();
    *report = (RoundReport){.round = a->rounds_done + 1};
    int64_t n = dav_config_int(a->config, "sample.trajectories");
    Trajectories *t = aligner_sample(a, err, "estep", (uint32_t)a->rounds_done, 0, n, true);
    if (!t)
        return false;
    report->bound = bound_of(t);
    MStepSettings set = mstep_settings(a);
    bool ok = mstep_run(&a->mstep, err, a->plain, t, &set, a->theta, a->optim, &report->mstep);
    trajectories_free(t);
    if (!ok)
        return err_prefix(err, "round %lld", (long long)a->rounds_done + 1);
    a->rounds_done++;
    report->seconds = now() - start;
    return true;
}

/* ---- judgement ---- */
SeqData *trajectories_sequences(Arena *arena, const Trajectories *t)
{
    uint8_t *letters = arena_alloc(arena, mem_mul((size_t)t->n, (size_t)t->length));
    for (int64_t i = 0; i < t->n * t->length; i++)
        letters[i] = (uint8_t)t->final[i];
    return seqdata_from_letters(arena, letters, (size_t)t->n, (size_t)t->length);
}

static double *to_double(Arena *arena, const float *v, size_t n)
{
    double *d = arena_array(arena, double, n);
    for (size_t i = 0; i < n; i++)
        d[i] = v[i];
    return d;
}

static Interval median_of(Arena *arena, const double *v, size_t n)
{
    double *sorted = arena_copy(arena, v, n * sizeof *v);
    stats_sort(sorted, n);
    return stats_median_interval(sorted, n, 0.95);
}

bool aligner_has_reward(const Aligner *a)
{
    return a->phi || a->host;
}

static bool judge_by_reward(Aligner *a, Err *err, Arena *arena, const SeqData *d, Judgement *j)
{
    int64_t *ids = arena_array(arena, int64_t, d->start[d->n]);
    seqdata_ids(d, 0, d->n, ids);
    float *v = arena_array(arena, float, d->n);
    Counters before = a->plain->count; /* judging is not part of the method's cost */
    bool ok = masked_score(a->plain, err, (int64_t)d->n, ids, v);
    a->plain->count = before;
    if (!ok)
        return false;
    j->reward = to_double(arena, v, d->n);
    j->reward_median = median_of(arena, j->reward, d->n);
    j->reward_mean = stats_mean(j->reward, d->n);
    return true;
}

static bool judge_by_heldout(Aligner *a, Err *err, Arena *arena, const SeqData *d, Judgement *j)
{
    j->heldout = arena_array(arena, double, d->n);
    if (!predict_sequences(a->heldout.predict, err, d, j->heldout))
        return false;
    j->heldout_median = median_of(arena, j->heldout, d->n);
    j->heldout_mean = stats_mean(j->heldout, d->n);
    j->heldout_sd = stats_sd(j->heldout, d->n);
    return true;
}

static double mean_gc(Arena *arena, const SeqData *d)
{
    double *gc = arena_array(arena, double, d->n);
    seq_gc_each(d, gc);
    return stats_mean(gc, d->n);
}

bool aligner_judge_likelihood(Aligner *a, Err *err, const SeqData *d, int masks, Judgement *j)
{
    RowProgram *p = masked_scorer(err, &a->spec, &a->sampling, a->pretrained);
    double *nats = p ? mem_alloc(mem_mul(d->n, sizeof *nats)) : NULL, l = (double)a->spec.length;
    bool ok = p && score_sequences(p, err, a->spec.time_input, d, a->spec.letters, masks, 0, nats);
    if (ok) {
        j->log_likelihood = -stats_mean(nats, d->n) * l;
        j->log_likelihood_se = d->n > 1 ? stats_sd(nats, d->n) * l / sqrt((double)d->n) : NAN;
    }
    mem_free(nats);
    rows_free(p);
    return ok;
}

void judge_distance(Arena *arena, const SeqData *d, const SeqData *train, Judgement *j)
{
    int32_t *distance = arena_array(arena, int32_t, d->n);
    double *each = arena_array(arena, double, d->n);
    seq_nearest(arena, d, train, distance, NULL);
    for (size_t i = 0; i < d->n; i++)
        each[i] = distance[i];
    j->train_distance = median_of(arena, each, d->n);
}

static bool wrong_length(Err *err, const SeqData *d, size_t length)
{
    size_t i = 0;
    while (i + 1 < d->n && seq_len(d, i) == length)
        i++;
    return err_user(err, "sequence %zu: expected %zu letters, found %zu", i + 1, length, d->n ? seq_len(d, i) : 0);
}

bool aligner_judge(Aligner *a, Err *err, Arena *arena, const SeqData *d, Judgement *j)
{
    const Interval unknown = {NAN, NAN, NAN};
    enum { REPLICATES = 200 };
    *j = (Judgement){.n = d->n, .reward_median = unknown, .heldout_median = unknown, .reward_mean = NAN, .kmer3_top = unknown, .kmer3_all = unknown,
                     .kmer6_all = NAN, .heldout_mean = NAN, .heldout_sd = NAN, .log_likelihood = NAN, .log_likelihood_se = NAN,
                     .train_distance = unknown};
    if (seqdata_length(d) != (size_t)a->spec.length)
        return wrong_length(err, d, (size_t)a->spec.length);
    if ((aligner_has_reward(a) && !judge_by_reward(a, err, arena, d, j)) ||
        (a->heldout.predict && !judge_by_heldout(a, err, arena, d, j)))
        return false;
    j->levenshtein = seq_pair_distance(arena, d);
    j->gc = mean_gc(arena, d);
    j->unique = seq_unique_share(arena, d);
    j->runs10 = seq_run_share(d, 10);
    if (!a->reference)
        return true;
    const double *top3 = seqref_get(a->reference, "kmer3.top", 64), *all3 = seqref_get(a->reference, "kmer3.all", 64),
                 *all6 = seqref_get(a->reference, "kmer6.all", 4096);
    if (top3)
        j->kmer3_top = seq_kmer_correlation(arena, d, 3, top3, REPLICATES, 0.95);
    if (all3)
        j->kmer3_all = seq_kmer_correlation(arena, d, 3, all3, REPLICATES, 0.95);
    if (all6)
        j->kmer6_all = stats_pearson(seq_kmer_counts(arena, d, 6), all6, 4096);
    return true;
}
