#include "runtime/options.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INT(name, fallback, lo, hi, meaning) {name, DAV_KEY_INT, fallback, lo, hi, NULL, meaning}
#define FLT(name, fallback, lo, hi, meaning) {name, DAV_KEY_FLOAT, fallback, lo, hi, NULL, meaning}
#define FLAG(name, fallback, meaning) {name, DAV_KEY_BOOL, fallback, 0, 0, NULL, meaning}
#define TEXT(name, fallback, choices, meaning) {name, DAV_KEY_STRING, fallback, 0, 0, choices, meaning}

#define COMMON_KEYS                                                                                                    \
    INT("seed", "0", 0, 4294967295.0, "of all random numbers"),                                                        \
    TEXT("precision", "f32", "f32|bf16|tf32", "of the networks' products and activations; masters are f32; tf32: f32 whose products round their operands on CUDA devices"),                \
    TEXT("device", "cpu", NULL, "where programs run: cpu, cuda, cuda:N (the N-th) or interp"),                               \
    INT("threads", "0", 0, 4096, "0: all processors; results do not depend on it"),                                    \
    TEXT("memory_budget", "0", NULL, "bytes for one program's values, such as 2GiB; 0: no bound"),                     \
    FLT("train.learning_rate", "0.0003", 0, 10, "of AdamW"),                                                           \
    FLT("train.adam_beta1", "0.9", 0, 1, "decay of the first moment"),                                                 \
    FLT("train.adam_beta2", "0.999", 0, 1, "decay of the second moment"),                                              \
    FLT("train.adam_epsilon", "1e-8", 0, 1, "added to the root of the second moment"),                                 \
    FLT("train.adam_weight_decay", "0", 0, 10, "decoupled weight decay"),                                              \
    FLT("train.max_grad_norm", "1", 0, 1e9, "gradients are clipped to this norm; 0: not at all"),                      \
    INT("train.batch_size", "128", 1, 1e6, "rows (sequences, states) of one update"),                                  \
    INT("train.micro_batch", "32", 1, 65536, "rows of one run of the training program")

static const DavKey align_keys[] = {
    COMMON_KEYS,
    TEXT("pretrained.model", NULL, NULL, "folder of the denoiser to align"),
    TEXT("reward.model", "", NULL, "folder of the reward network; empty: reward.command or reward.function"),
    INT("reward.output", "0", 0, 4096, "which number, of a network that gives several"),
    TEXT("reward.command", "", NULL, "a process that scores sequences from its standard input, one number a line"),
    TEXT("reward.format", "fasta", "fasta|raw", "how the process gets them (docs/rewards.md)"),
    FLT("reward.timeout", "60", 0.1, 86400, "seconds that a batch may take the process"),
    TEXT("reward.function", "", NULL, "a reward in C, of a plugin (dav list rewards)"),
    TEXT("heldout.model", "", NULL, "folder of the network that judges and is never trained or searched with"),
    INT("heldout.output", "0", 0, 4096, "which number, of a network that gives several"),
    TEXT("reference", "", NULL, "table of the real sequences' statistics (dav reference)"),
    INT("num_epochs", "6", 0, 100000, "rounds of EM"),
    INT("sample.num_steps", "32", 1, 65535, "reverse steps"),
    INT("sample.trajectories", "64", 1, 1e6, "trajectories of one E-step"),
    INT("sample.batch_size", "64", 1, 65536, "rows of one run of a sampling program; results do not depend on it"),
    FLAG("sample.time_conditioning", "false", "the network sees sigma(t); else 0, as it was trained"),
    TEXT("sample.whole_trajectory", "auto", "auto|never|always",
         "all steps as one program, which waits for nothing and evaluates equal states again; auto: on CUDA devices, reward in the graph"),
    TEXT("search.method", "dav", NULL, "how a child is chosen: none (plain sampling) or a search of dav list searches"),
    INT("search.duplicate", "10", 1, 65535, "children of a step, M"),
    FLT("search.search_kl", "2", 1e-9, 1e9, "temperature alpha, in units of the reward"),
    FLT("search.gamma", "0.97", 1e-6, 1, "discount"),
    FLAG("search.value_gradient", "false", "the proposal follows the reward's gradient"),
    FLAG("search.greedy", "false", "the child of the largest weight goes on, instead of one drawn by the weights"),
    FLAG("search.mean_logp", "false", "the weights see log p and log q averaged over positions"),
    INT("search.gamma_offset", "0", 0, 1, "added to the exponent t-1 of the discount"),
    FLT("search.guidance_divisor", "1", 1e-9, 1e9, "divides the reward's gradient in the proposal"),
    TEXT("train.loss", "dav", NULL, "what is fitted: a loss of dav list losses"),
    FLT("train.train_kl", "0", 0, 1e9, "lambda of the KL to the pretrained model (DAV-KL)"),
    INT("train.improve_steps", "2", 1, 1000, "passes over the states of a round"),
    INT("train.skip_steps", "0", 0, 65535, "reverse steps that the M-step leaves out, from the start"),
    INT("train.discarded_parts", "0", 0, 1000, "parts of an update's states without effect: k of k + 1 equal ones"),
    TEXT("train.time_conditioning", "sample", "sample|sigma|zero", "what the M-step's network sees; sample: as sampling"),
    INT("eval.samples", "640", 2, 1e6, "plain samples that a round is judged by"),
    INT("eval.elbo", "0", 0, 1e6, "fresh trajectories for the bound before and after each round; 0: those of the E-step"),
    INT("eval.posterior", "640", 0, 1e6, "samples of the search on the tuned model, at the end"),
};

static const DavKey pretrain_keys[] = {
    COMMON_KEYS,
    TEXT("model.name", NULL, NULL, "a model of dav list models; its own keys stand below model."),
    TEXT("data.folds", "reward+heldout", NULL, "folds to train on, joined by '+'; all: no split"),
    TEXT("data.validation", "validation", NULL, "fold that is measured; never trained on"),
    INT("train.steps", "2000", 1, 1e9, "updates"),
    INT("train.warmup", "100", 0, 1e9, "updates in which the learning rate rises from 0"),
    FLAG("train.time_conditioning", "false", "the denoiser sees sigma(t); else 0"),
    TEXT("train.schedule", "cosine", "constant|cosine", "of the learning rate after the warm-up, to 0"),
    FLT("train.ema", "0.999", 0, 1, "decay of the parameters' average, which is what is saved"),
    INT("eval.every", "500", 1, 1e9, "updates between measurements on the validation fold"),
    INT("eval.masks", "4", 1, 4096, "masks of each validation sequence"),
    INT("checkpoint.every", "500", 1, 1e9, "updates between checkpoints"),
};

const DavKey *options_table(OptionsTable t, int *n)
{
    static const struct { const DavKey *keys; int n; } table[OPTIONS_COUNT] = {
        [OPTIONS_ALIGN] = {align_keys, sizeof align_keys / sizeof *align_keys},
        [OPTIONS_PRETRAIN] = {pretrain_keys, sizeof pretrain_keys / sizeof *pretrain_keys},
    };
    *n = table[t].n;
    return table[t].keys;
}

/* Settings that name files or folders. */
static const char *const path_keys[] = {"pretrained.model", "reward.model", "heldout.model", "reference"};

static bool make_absolute(Arena *a, Err *err, DavConfig *c, const char *key)
{
    const char *path = config_has(c, key) ? config_text(c, key) : "", *place = config_place(c, key);
    if (!*path || *path == '/')
        return true;
    const char *slash = place && strcmp(place, "--set") != 0 && strcmp(place, "default") != 0 ? strrchr(place, '/') : NULL;
    const char *joined = slash ? arena_printf(a, "%.*s/%s", (int)(slash - place), place, path) : path;
    char *real = realpath(joined, NULL);
    if (!real)
        return err_user(err, "%s: %s: no such file or folder: %s", place ? place : "--set", key, joined);
    ConfigText text = {CONFIG_STRING, arena_str(a, real)};
    free(real);
    return config_set(c, err, arena_str(a, place), key, text);
}

static bool check_budget(Err *err, const DavConfig *c)
{
    int64_t bytes;
    const char *text = dav_config_string(c, "memory_budget");
    return text_to_bytes(text, &bytes) ||
           err_user(err, "%s: memory_budget: expected bytes such as 800MB or 2GiB (0: no bound), found '%.40s'",
                    config_place(c, "memory_budget"), text);
}

static bool check_device(Err *err, const DavConfig *c)
{
    const char *text = dav_config_string(c, "device");
    return program_device_known(text) ||
           err_user(err, "%s: device: expected cpu, cuda, cuda:N or interp, found '%.40s'", config_place(c, "device"), text);
}

BuildOptions options_build(const DavConfig *c, const char *rows_key)
{
    BuildOptions o = {.compile = {.precision = strcmp(dav_config_string(c, "precision"), "bf16") == 0 ? DAV_BF16 : DAV_F32,
                                  .tf32 = strcmp(dav_config_string(c, "precision"), "tf32") == 0,
                                  .threads = (int)dav_config_int(c, "threads")},
                      .device = dav_config_string(c, "device"),
                      .rows = dav_config_int(c, rows_key)};
    must(text_to_bytes(dav_config_string(c, "memory_budget"), &o.compile.memory_budget));
    return o;
}

static DavConfig *read_into(Err *err, Arena *a, DavConfig *c, OptionsTable t, const OptionsExtra *extra, int n_extra, const Settings *s)
{
    int n;
    const DavKey *table = options_table(t, &n);
    config_add_table(c, "", table, n);
    for (int i = 0; i < n_extra; i++)
        config_add_table(c, extra[i].prefix, extra[i].keys, extra[i].n);
    if (!settings_apply(s, err, c) || !config_finish(c, err, "settings") || !check_budget(err, c) || !check_device(err, c))
        return NULL;
    for (size_t i = 0; i < sizeof path_keys / sizeof *path_keys; i++)
        if (config_has(c, path_keys[i]) && !make_absolute(a, err, c, path_keys[i]))
            return NULL;
    return c;
}

DavConfig *options_read(Err *err, Arena *a, OptionsTable t, const OptionsExtra *extra, int n_extra, const Settings *s)
{
    return read_into(err, a, config_new(a), t, extra, n_extra, s);
}

OptionsExtra options_of_search(Arena *a, const DavSearch *s)
{
    return (OptionsExtra){arena_printf(a, "search.%s.", s->name), s->keys, s->n_keys};
}

OptionsExtra options_of_loss(Arena *a, const DavLoss *l)
{
    return (OptionsExtra){arena_printf(a, "train.%s.", l->name), l->keys, l->n_keys};
}

/* The text of a setting that decides which other settings there are. */
static const char *chosen(const Settings *s, const char *name)
{
    const char *text = settings_get(s, name);
    for (size_t i = 0; !text && i < sizeof align_keys / sizeof *align_keys; i++)
        if (strcmp(align_keys[i].name, name) == 0)
            text = align_keys[i].fallback;
    return text;
}

DavConfig *options_read_align(Err *err, Arena *a, const Registry *r, const Settings *s)
{
    const char *method = chosen(s, "search.method");
    const DavSearch *search = strcmp(method, "none") == 0 ? NULL : registry_search(r, err, "search.method", method), *other_search;
    const DavLoss *loss = registry_loss(r, err, "train.loss", chosen(s, "train.loss")), *other_loss;
    if (err->kind != ERR_NONE)
        return NULL;
    OptionsExtra extra[2] = {options_of_loss(a, loss)};
    int n = 1;
    if (search)
        extra[n++] = options_of_search(a, search);
    const char **unused = NULL; /* vec; its names in the arena */
    for (int i = 0; (other_search = registry_search_at(r, i)); i++)
        if (other_search != search)
            vec_push(unused, arena_printf(a, "%s*", options_of_search(a, other_search).prefix));
    for (int i = 0; (other_loss = registry_loss_at(r, i)); i++)
        if (other_loss != loss)
            vec_push(unused, arena_printf(a, "%s*", options_of_loss(a, other_loss).prefix));
    int others = (int)vec_len(unused);
    const char **kept = arena_copy(a, unused, (size_t)others * sizeof *kept);
    vec_free(unused);
    DavConfig *c = config_new(a);
    config_accept(c, kept, others);
    return read_into(err, a, c, OPTIONS_ALIGN, extra, n, s);
}

const DavConfig *options_part(Err *err, Arena *a, const DavConfig *c, OptionsExtra extra)
{
    DavConfig *part = config_new(a);
    config_add_table(part, "", extra.keys, extra.n);
    for (int i = 0; i < extra.n; i++) {
        const char *key = arena_printf(a, "%s%s", extra.prefix, extra.keys[i].name), *text = config_text(c, key);
        if (text && !config_set(part, err, config_place(c, key), extra.keys[i].name, (ConfigText){CONFIG_PLAIN, text}))
            return NULL;
    }
    return config_finish(part, err, "settings") ? part : NULL;
}
