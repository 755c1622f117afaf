#include "runtime/masked_graphs.h"
#include <string.h>

static DavVal state_input(DavNet *n, const MaskedSpec *s, const char *name, int64_t rows)
{
    return dav_input(n, name, DAV_I64, rows, s->length);
}

static DavVal time_input(DavNet *n, const MaskedSpec *s)
{
    return s->time_input ? dav_input(n, "t", DAV_F32, 1) : dav_const(n, DAV_F32, 0, 1);
}

/* Training sees states of different times. */
static DavVal time_of_rows(DavNet *n, bool time_input, int64_t rows)
{
    return time_input ? dav_input(n, "t", DAV_F32, rows) : dav_const(n, DAV_F32, 0, 1);
}

/* Logits [B,L,V+1]; x as ids or relaxed. */
static DavVal logits_at(DavNet *n, const MaskedSpec *s, DavVal x, DavVal t)
{
    return network_apply(n, "theta", s->denoiser, x, t);
}

/* The reward [B] of relaxed letters [B,L,V]. */
static DavVal reward_of(DavNet *n, const MaskedSpec *s, DavVal letters)
{
    DavVal r = network_apply(n, "phi", s->reward, letters, (DavVal){0});
    return dav_rank(r) == 2 ? dav_squeeze(dav_slice(r, 1, s->reward_output, s->reward_output + 1), 1) : r;
}

/* ---- the search ---- */
Evaluation masked_evaluation(DavNet *n, const MaskedSpec *s, DavVal x, DavVal t)
{
    DavVal logp = dav_masked_logp(logits_at(n, s, x, t));
    return (Evaluation){logp, dav_masked_argmax_fill(logp, x)};
}

DavVal masked_reward(DavNet *n, const MaskedSpec *s, DavVal x0)
{
    return reward_of(n, s, dav_one_hot(x0, s->letters, DAV_F32));
}

DavVal masked_guide(DavNet *n, const MaskedSpec *s, DavVal x, DavVal t)
{
    DavVal relaxed = dav_one_hot(x, s->letters + 1, DAV_F32);
    DavVal soft = dav_masked_soft_x0(relaxed, logits_at(n, s, relaxed, t));
    return dav_slice(dav_grad(dav_sum(reward_of(n, s, soft)), relaxed), -1, 0, s->letters);
}

DavChoice masked_choice(DavNet *n, const MaskedSpec *s, DavStep step, DavVal key, DavVal counter)
{
    if (s->mean_logp) {
        step.logp = dav_div(step.logp, (double)s->length);
        step.logq = dav_div(step.logq, (double)s->length);
    }
    DavVal logw = s->search->weights(n, s->search_config, &step);
    return s->greedy ? dav_choose_best_child(logw) : dav_choose_child(logw, key, counter);
}

static void write_denoise(DavNet *n, const void *context, int64_t rows)
{
    const MaskedSpec *s = context;
    Evaluation e = masked_evaluation(n, s, state_input(n, s, "x", rows), time_input(n, s));
    dav_output(n, "logp", e.logp);
    dav_output(n, "x0", e.x0);
}

static void write_value(DavNet *n, const void *context, int64_t rows)
{
    const MaskedSpec *s = context;
    dav_output(n, "r", masked_reward(n, s, state_input(n, s, "x0", rows)));
}

static void write_guide(DavNet *n, const void *context, int64_t rows)
{
    const MaskedSpec *s = context;
    DavVal x = state_input(n, s, "x", rows);
    dav_output(n, "g", masked_guide(n, s, x, time_input(n, s)));
}

static void write_propose(DavNet *n, const void *context, int64_t rows)
{
    const MaskedSpec *s = context;
    DavVal x = state_input(n, s, "x", rows), logp = dav_input(n, "logp", DAV_F32, rows, s->length, s->letters);
    DavVal shares = dav_input(n, "shares", DAV_F32, 2), key = dav_input(n, "key", DAV_U32, 2);
    DavVal counter = dav_input(n, "counter", DAV_U32, rows * s->children, 3), scale = dav_input(n, "scale", DAV_F32, 1);
    DavVal logq = logp;
    if (s->gradient)
        logq = dav_masked_guided(logp, dav_input(n, "g", DAV_F32, rows, s->length, s->letters), scale);
    DavChildren c = dav_masked_children(x, logp, logq, shares, key, counter, s->children);
    dav_output(n, "children", c.x);
    dav_output(n, "lp", c.logp);
    dav_output(n, "lq", c.logq);
}

static void write_choose(DavNet *n, const void *context, int64_t rows)
{
    const MaskedSpec *s = context;
    DavStep step = {dav_input(n, "r", DAV_F32, rows, s->children), dav_input(n, "lp", DAV_F32, rows, s->children),
                    dav_input(n, "lq", DAV_F32, rows, s->children), dav_input(n, "scale", DAV_F32, 1)};
    DavVal key = dav_input(n, "key", DAV_U32, 2), counter = dav_input(n, "counter", DAV_U32, rows, 3);
    DavChoice c = masked_choice(n, s, step, key, counter);
    dav_output(n, "choice", c.index);
    dav_output(n, "lognorm", c.lognorm);
    dav_output(n, "ess", c.ess);
}

/* ---- training ---- */
static void write_distil(DavNet *n, const void *context, int64_t rows)
{
    const MaskedSpec *s = context;
    DavVal x = state_input(n, s, "x", rows);
    DavVal logp = dav_masked_logp(logits_at(n, s, x, time_of_rows(n, s->train_time_input, rows)));
    DavTransition t = {logp, x, state_input(n, s, "next", rows), state_input(n, s, "x0", rows),
                       dav_input(n, "share", DAV_F32, rows), dav_input(n, "left", DAV_F32, rows)};
    DavVal loss = s->loss->loss(n, s->loss_config, &t);
    if (s->distil_kl) {
        DavVal logp0 = dav_input(n, "logp0", DAV_F32, rows, s->length, s->letters);
        DavVal kl = dav_masked_kl(logp, logp0, x, t.share);
        loss = dav_add(loss, dav_mul(dav_input(n, "kl_weight", DAV_F32, 1), kl));
        dav_output(n, "kl", kl);
    }
    dav_output(n, "loss", loss);
}

static void write_pretrain(DavNet *n, const void *context, int64_t rows)
{
    const MaskedSpec *s = context;
    DavVal x0 = state_input(n, s, "x0", rows), share = dav_input(n, "share", DAV_F32, rows);
    DavVal u = dav_uniform(dav_input(n, "key", DAV_U32, 2), dav_input(n, "counter", DAV_U32, rows, 3), rows, s->length);
    DavVal x = dav_masked_noise(x0, share, u, s->letters);
    DavVal logp = dav_masked_logp(logits_at(n, s, x, time_of_rows(n, s->time_input, rows)));
    dav_output(n, "loss", dav_masked_cross_entropy(logp, x, x0));
}

static void write_score(DavNet *n, const void *context, int64_t rows)
{
    const MaskedSpec *s = context;
    DavVal x = state_input(n, s, "x", rows), x0 = state_input(n, s, "x0", rows);
    dav_output(n, "nll", dav_masked_cross_entropy(dav_masked_logp(logits_at(n, s, x, time_of_rows(n, s->time_input, rows))), x, x0));
}

/* The denoiser for states of different times: the pretrained model of the KL term. */
static void write_prior(DavNet *n, const void *context, int64_t rows)
{
    const MaskedSpec *s = context;
    DavVal x = state_input(n, s, "x", rows);
    dav_output(n, "logp", dav_masked_logp(logits_at(n, s, x, time_of_rows(n, s->train_time_input, rows))));
}

/* A reward network by itself, its parameters being the trained ones. */
static DavVal predicted(DavNet *n, const MaskedSpec *s, int64_t rows)
{
    DavVal x0 = state_input(n, s, "x0", rows);
    DavVal y = network_apply(n, "theta", s->reward, dav_one_hot(x0, s->letters, DAV_F32), (DavVal){0});
    return dav_rank(y) == 2 ? dav_squeeze(dav_slice(y, 1, s->reward_output, s->reward_output + 1), 1) : y;
}

static void write_predict(DavNet *n, const void *context, int64_t rows)
{
    dav_output(n, "y", predicted(n, context, rows));
}

static void write_regress(DavNet *n, const void *context, int64_t rows)
{
    DavVal y = predicted(n, context, rows);
    dav_output(n, "loss", dav_square(dav_sub(y, dav_input(n, "y", DAV_F32, rows))));
}

GraphWriter masked_writer(const char *task, bool regression)
{
    static const struct { const char *task; bool regression; GraphWriter write; } writers[] = {
        {"forward", false, write_denoise}, {"guide", false, write_guide},       {"step", false, write_propose},
        {"choose", false, write_choose},   {"learn", false, write_distil},      {"pretrain", false, write_pretrain},
        {"score", false, write_score},     {"prior", false, write_prior},       {"whole", false, masked_whole_write},
        {"value", false, write_value},     {"value", true, write_value},        {"forward", true, write_predict},
        {"learn", true, write_regress},
    };
    for (size_t i = 0; i < sizeof writers / sizeof *writers; i++)
        if (writers[i].regression == regression && strcmp(writers[i].task, task) == 0)
            return writers[i].write;
    return NULL;
}

/* ---- parameters ---- */
ParamSet *masked_denoiser_params(Err *err, const MaskedSpec *s, uint32_t seed)
{
    return build_params(err, write_denoise, s, "theta.", seed);
}

ParamSet *masked_reward_params(Err *err, const MaskedSpec *s, uint32_t seed)
{
    return build_params(err, write_value, s, "phi.", seed);
}

ParamSet *regress_params(Err *err, const MaskedSpec *s, uint32_t seed)
{
    return build_params(err, write_predict, s, "theta.", seed);
}

static bool has_int_key(const DavModel *m, const char *key)
{
    for (int i = 0; i < m->n_keys; i++)
        if (strcmp(m->keys[i].name, key) == 0 && m->keys[i].type == DAV_KEY_INT)
            return true;
    return false;
}

bool masked_spec_shape(Err *err, MaskedSpec *s)
{
    const DavModel *m = s->denoiser.model;
    if (m->kind != DAV_DENOISER)
        return err_user(err, "model %s is not a denoiser of symbols", m->name);
    if (!has_int_key(m, "alphabet_size") || !has_int_key(m, "length"))
        return err_user(err, "model %s: a denoiser's configuration needs the integers 'alphabet_size' and 'length'", m->name);
    s->letters = dav_config_int(s->denoiser.config, "alphabet_size") - 1;
    s->length = dav_config_int(s->denoiser.config, "length");
    return true;
}

/* ---- assembly ---- */
/* Into *p, unless it is there. */
static bool open_program(Err *err, RowProgram **p, const char *name, const MaskedSpec *s, const BuildOptions *o, GraphWriter write,
                         const ParamSet *theta, const ParamSet *phi)
{
    if (*p)
        return true;
    *p = build_program(err, name, o, write, s);
    if (*p && theta)
        rows_bind_params(*p, theta, "theta.", theta->value);
    if (*p && phi)
        rows_bind_params(*p, phi, "phi.", phi->value);
    return *p != NULL;
}

/* A trajectory is one program where that is asked for, or spares the waits between a device's programs. */
static bool open_whole(Err *err, Masked *k, const MaskedSpec *s, const BuildOptions *o)
{
    bool able = s->reward.model || !s->search, cuda = o->device && strncmp(o->device, "cuda", 4) == 0;
    if (s->whole == WHOLE_NEVER || (s->whole == WHOLE_AUTO && !(cuda && able)))
        return true;
    if (!able)
        return err_user(err, "sample.whole_trajectory: the reward is not in the graph, so the host is needed in every step");
    k->whole = masked_whole(err, s, o, k->steps);
    return k->whole != NULL;
}

static void bind_whole(Masked *k, ParamSet *phi, float *theta)
{
    masked_whole_bind(k->whole, k->theta, "theta.", theta);
    if (phi)
        masked_whole_bind(k->whole, phi, "phi.", phi->value);
}

/* What programs are made from; what the specification and the options point at is the caller's. */
typedef struct MaskedMaking {
    MaskedSpec spec;
    BuildOptions options;
    float *theta; /* bound last */
} MaskedMaking;

static void bind_steps(Masked *k, float *theta)
{
    if (k->denoise)
        rows_bind_params(k->denoise, k->theta, "theta.", theta);
    if (k->guide)
        rows_bind_params(k->guide, k->theta, "theta.", theta);
}

bool masked_need_value(Masked *k, Err *err)
{
    const MaskedMaking *m = k->making;
    return k->value || !m->spec.reward.model || open_program(err, &k->value, "value", &m->spec, &m->options, write_value, NULL, k->phi);
}

bool masked_need_steps(Masked *k, Err *err)
{
    const MaskedMaking *m = k->making;
    if (k->denoise)
        return true;
    bool ok = (!m->spec.gradient || open_program(err, &k->guide, "guide", &m->spec, &m->options, write_guide, k->theta, k->phi)) &&
              (!m->spec.search || open_program(err, &k->choose, "choose", &m->spec, &m->options, write_choose, NULL, NULL)) &&
              open_program(err, &k->propose, "propose", &m->spec, &m->options, write_propose, NULL, NULL) &&
              open_program(err, &k->denoise, "denoise", &m->spec, &m->options, write_denoise, k->theta, NULL);
    if (ok)
        bind_steps(k, m->theta);
    return ok;
}

Masked *masked_new(Err *err, const MaskedSpec *s, const BuildOptions *o, int steps, ParamSet *theta, ParamSet *phi, Reward *host)
{
    Masked *k = mem_alloc(sizeof *k);
    *k = (Masked){.length = s->length, .letters = s->letters, .steps = steps, .children = s->children, .weighs = s->search != NULL, .guides = s->gradient,
                  .time_input = s->time_input, .theta = theta, .phi = phi, .reward = host, .making = mem_alloc(sizeof *k->making)};
    *k->making = (MaskedMaking){*s, *o, theta->value};
    bool ok = !s->gradient || s->reward.model ||
              err_user(err, "search.value_gradient: the reward has no gradient (it is not in the graph)");
    ok = ok && open_whole(err, k, s, o);
    if (ok && k->whole)
        bind_whole(k, phi, theta->value);
    if (ok && (k->whole || (masked_need_steps(k, err) && masked_need_value(k, err))))
        return k;
    masked_free(k);
    return NULL;
}

void masked_free(Masked *k)
{
    if (!k)
        return;
    rows_free(k->denoise);
    rows_free(k->value);
    rows_free(k->guide);
    rows_free(k->propose);
    rows_free(k->choose);
    rows_free(k->whole);
    mem_free(k->making);
    mem_free(k);
}

void masked_bind(Masked *k, float *theta)
{
    k->making->theta = theta;
    params_touch(k->theta);
    bind_steps(k, theta);
    if (k->whole)
        masked_whole_bind(k->whole, k->theta, "theta.", theta);
}

RowProgram *masked_distil(Err *err, const MaskedSpec *s, const BuildOptions *o, const ParamSet *theta, Optim *optim)
{
    return build_learner(err, "distil", o, write_distil, s, theta, optim);
}

RowProgram *masked_pretrain(Err *err, const MaskedSpec *s, const BuildOptions *o, const ParamSet *theta, Optim *optim)
{
    return build_learner(err, "pretrain", o, write_pretrain, s, theta, optim);
}

RowProgram *masked_scorer(Err *err, const MaskedSpec *s, const BuildOptions *o, const ParamSet *theta)
{
    RowProgram *p = NULL;
    open_program(err, &p, "score", s, o, write_score, theta, NULL);
    return p;
}

RowProgram *masked_prior(Err *err, const MaskedSpec *s, const BuildOptions *o, const ParamSet *theta)
{
    RowProgram *p = NULL;
    open_program(err, &p, "prior", s, o, write_prior, theta, NULL);
    return p;
}

RowProgram *regress_learner(Err *err, const MaskedSpec *s, const BuildOptions *o, const ParamSet *theta, Optim *optim)
{
    return build_learner(err, "regress", o, write_regress, s, theta, optim);
}

RowProgram *regress_predictor(Err *err, const MaskedSpec *s, const BuildOptions *o, const ParamSet *theta)
{
    RowProgram *p = NULL;
    open_program(err, &p, "predict", s, o, write_predict, theta, NULL);
    return p;
}
