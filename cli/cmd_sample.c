/* dav sample: sequences of a model, plainly or by the search. */
#include "cli/cli.h"
#include "runtime/aligner.h"
#include "runtime/runlog.h"
#include <inttypes.h>
#include <stdio.h>

typedef struct Sample {
    int argc;
    char **argv;
    Err *err;
    Arena *arena;
    Registry *registry;
    const char **set, **plugins, *model, *config, *out, *device;
    int64_t n, seed;
    bool search;
} Sample;

/* The settings: those of --config; or of the run that the model folder is, with that model instead of the pretrained one. */
static bool read_settings(Sample *s, Settings *settings)
{
    char path[4096];
    if (s->config && !settings_read_yaml(settings, s->err, s->config))
        return false;
    if (s->model) {
        if (!runlog_path(s->err, path, s->model, "config.yaml"))
            return false;
        Settings *of_run = settings_new(s->arena);
        if (!s->config && file_exists(path)) {
            if (!settings_read_yaml(of_run, s->err, path))
                return false;
            if (settings_get(of_run, "pretrained.model") && !settings_read_yaml(settings, s->err, path))
                return false;
        }
        if (!settings_set_for(settings, s->err, "--model", arena_printf(s->arena, "pretrained.model=%s", s->model)))
            return false;
    }
    if (!s->search && !settings_set(settings, s->err, "search.method=none"))
        return false;
    for (size_t i = 0; i < vec_len(s->set); i++)
        if (!settings_set(settings, s->err, s->set[i]))
            return false;
    if (!settings_set_device(settings, s->err, s->device))
        return false;
    return s->seed < 0 || settings_set_for(settings, s->err, "--seed", arena_printf(s->arena, "seed=%" PRId64, s->seed));
}

static bool draw(Sample *s, Aligner *a)
{
    Trajectories *t = aligner_sample(a, s->err, "sample", 0, 0, s->n, s->search);
    if (!t)
        return false;
    bool ok = seqdata_write_fasta(s->err, s->out, trajectories_sequences(s->arena, t));
    if (ok && aligner_has_reward(a)) {
        double *r = arena_array(s->arena, double, t->n);
        for (int64_t i = 0; i < t->n; i++)
            r[i] = t->reward[i];
        stats_sort(r, (size_t)t->n);
        Interval m = stats_median_interval(r, (size_t)t->n, 0.95);
        printf("reward: median %.3f (%.3f..%.3f) of %" PRId64 " samples\n", m.at, m.low, m.high, t->n);
    }
    trajectories_free(t);
    Counters c = aligner_count(a);
    if (ok)
        printf("%s: %" PRId64 " sequences; %" PRId64 " forwards, %" PRId64 " VJPs, %" PRId64 " reward forwards, %" PRId64 " reward VJPs\n",
               s->out, s->n, c.forwards, c.vjps, c.reward_forwards, c.reward_vjps);
    return ok;
}

static bool sample_command(void *arg)
{
    Sample *s = arg;
    s->n = 640;
    s->seed = -1;
    int n;
    const CliOption options[] = {
        {"model", CLI_TEXT, &s->model, "DIR", "model folder, or the folder of an aligned run"},
        {"config", CLI_TEXT, &s->config, "FILE", "settings as of dav align"},
        {"n", CLI_INT, &s->n, "N", "sequences, default 640"},
        {"seed", CLI_INT, &s->seed, "N", "of all random numbers; default: the settings'"},
        {"search", CLI_FLAG, &s->search, "", "by the E-step's search (DAV Posterior)"},
        {"set", CLI_LIST, &s->set, "KEY=VALUE", "one setting more; may be given again"},
        {"device", CLI_TEXT, &s->device, "DEVICE", "cpu, cuda or cuda:N: the setting device"},
        {"out", CLI_TEXT, &s->out, "FILE", "FASTA file to write"},
        {"plugin", CLI_LIST, &s->plugins, "FILE.so", "a plugin to load first; may be given again"},
    };
    const CliUse use = {.synopsis = "sample --model DIR | --config FILE --n N --out FILE [--search] [--set KEY=VALUE]",
                        CLI_OPTIONS(options), .doc = "Draws sequences; each depends on the seed and its own number alone."};
    if (!cli_parse(s->err, &use, s->argc, s->argv, NULL, &n))
        return false;
    if (!s->out || (!s->model && !s->config))
        return err_user(s->err, "--%s is missing; usage: dav %s", s->out ? "model or --config" : "out", use.synopsis);
    if (s->n < 1 || s->n > 10000000)
        return err_user(s->err, "--n: expected 1 to 10000000, found %" PRId64, s->n);
    if (s->seed < -1 || s->seed > UINT32_MAX)
        return err_user(s->err, "--seed: expected 0 to 4294967295, found %" PRId64, s->seed);
    Settings *settings = settings_new(s->arena);
    if (!registry_load_all(s->registry, s->err, s->plugins, (int)vec_len(s->plugins)) || !read_settings(s, settings))
        return false;
    DavConfig *c = options_read_align(s->err, s->arena, s->registry, settings);
    Aligner *a = c ? aligner_open(s->err, s->registry, c) : NULL;
    bool ok = a && draw(s, a);
    aligner_close(a);
    return ok;
}

int cmd_sample(int argc, char **argv)
{
    Err err = {0};
    Sample s = {.argc = argc, .argv = argv, .err = &err, .arena = arena_new(), .registry = registry_new()};
    mem_protect(&err, sample_command, &s);
    arena_free(s.arena);
    registry_free(s.registry);
    vec_free(s.set);
    vec_free(s.plugins);
    return cli_end(&err);
}
