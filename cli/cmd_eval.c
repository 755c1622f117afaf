/* dav eval: sequences judged by oracles and statistics; or a network held against data. */
#include "cli/judge.h"
#include "cli/cli.h"
#include "runtime/assess.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct Eval {
    int argc;
    char **argv;
    Err *err;
    Arena *arena;
    Registry *registry;
    const char **samples, **set, **plugins, *config, *model, *data, *fold, *device;
    int64_t masks;
    bool json;
} Eval;

static void print_assessment(const Eval *e, const Assessment *a)
{
    if (a->regression) {
        printf(e->json ? "{\"model\":\"%s\",\"fold\":\"%s\",\"n\":%zu,\"pearson\":%.6f,\"rmse\":%.6f}\n"
                       : "%s on %s: %zu sequences, Pearson %.4f, root mean square error %.3f\n",
               e->model, e->fold, a->n, a->pearson, a->rmse);
        return;
    }
    const double bits = 1 / 0.6931471805599453;
    printf(e->json ? "{\"model\":\"%s\",\"fold\":\"%s\",\"n\":%zu,\"nats\":%.6f,\"bits\":%.6f,\"markov5_nats\":%.6f,\"gain\":%.6f,"
                     "\"gain_se\":%.6f,\"clusters\":%zu,\"markov5_validation_nats\":%.6f}\n"
                   : "%s on %s: %zu sequences, %.5f nats (%.5f bits) a base; order-5 Markov chain %.5f; the network is ahead by "
                     "%.5f +- %.5f nats (%zu components); chain on validation %.5f\n",
           e->model, e->fold, a->n, a->nats, a->nats * bits, a->markov_nats, a->gain.mean, a->gain.se, a->gain.clusters,
           a->markov_validation);
}

static bool judge_files(Eval *e, Aligner *a)
{
    Buf out = {0};
    const SeqData *train = e->data ? fold_of_file(e->err, e->arena, e->data, "folds", "reward+heldout", false) : NULL;
    bool ok = train || !e->data;
    if (ok && !e->json)
        judge_header(&out);
    for (size_t i = 0; ok && i < vec_len(e->samples); i++) {
        const SeqData *d = seqdata_read(e->err, e->arena, e->samples[i]);
        Judgement j;
        ok = d && ((aligner_judge(a, e->err, e->arena, d, &j) && aligner_judge_likelihood(a, e->err, d, (int)e->masks, &j)) ||
                   err_prefix(e->err, "%s", e->samples[i]));
        if (!ok)
            break;
        if (train)
            judge_distance(e->arena, d, train, &j);
        const char *slash = strrchr(e->samples[i], '/'), *name = slash ? slash + 1 : e->samples[i];
        (e->json ? judge_json : judge_row)(&out, name, a, &j);
        if (!e->json)
            judge_more(&out, &j);
    }
    if (ok && !e->json)
        judge_real(&out, a);
    if (ok)
        fputs(out.at ? out.at : "", stdout);
    buf_free(&out);
    return ok;
}

static bool judge_command(Eval *e)
{
    Settings *s = settings_new(e->arena);
    if (!settings_read_yaml(s, e->err, e->config))
        return false;
    for (size_t i = 0; i < vec_len(e->set); i++)
        if (!settings_set(s, e->err, e->set[i]))
            return false;
    if (!settings_set_device(s, e->err, e->device) || !settings_set(s, e->err, "search.method=none"))
        return false;
    DavConfig *c = options_read_align(e->err, e->arena, e->registry, s);
    Aligner *a = c ? aligner_open(e->err, e->registry, c) : NULL;
    bool ok = a && judge_files(e, a);
    aligner_close(a);
    return ok;
}

static bool eval_command(void *arg)
{
    Eval *e = arg;
    e->fold = "validation";
    e->masks = 8;
    int n;
    const CliOption options[] = {
        {"samples", CLI_LIST, &e->samples, "FILE", "sequences to judge; may be given again"},
        {"config", CLI_TEXT, &e->config, "FILE", "settings as of dav align: oracles, reference, pretrained model"},
        {"set", CLI_LIST, &e->set, "KEY=VALUE", "one setting more; may be given again"},
        {"device", CLI_TEXT, &e->device, "DEVICE", "cpu, cuda or cuda:N: the setting device; with --config"},
        {"model", CLI_TEXT, &e->model, "DIR", "a network to hold against --data instead"},
        {"data", CLI_TEXT, &e->data, "FILE", "training data: for distances, or to judge --model on"},
        {"fold", CLI_TEXT, &e->fold, "NAME", "the fold that --model is judged on, default validation"},
        {"masks", CLI_INT, &e->masks, "N", "masks a sequence for likelihoods, default 8"},
        {"json", CLI_FLAG, &e->json, "", "one line of JSON for each"},
        {"plugin", CLI_LIST, &e->plugins, "FILE.so", "a plugin to load first; may be given again"},
    };
    const CliUse use = {.synopsis = "eval --samples FILE --config FILE   or   eval --model DIR --data FILE --fold NAME",
                        CLI_OPTIONS(options), .doc = "Judges sequences by both oracles, diversity and k-mers; or a network by data."};
    if (!cli_parse(e->err, &use, e->argc, e->argv, NULL, &n))
        return false;
    if (e->masks < 1 || e->masks > 4096)
        return err_user(e->err, "--masks: expected 1 to 4096, found %" PRId64, e->masks);
    if (!registry_load_all(e->registry, e->err, e->plugins, (int)vec_len(e->plugins)))
        return false;
    if (e->model && e->data) {
        Assessment a;
        bool ok = assess_network(e->err, e->registry, e->model, e->data, e->fold, (int)e->masks, &a);
        if (ok)
            print_assessment(e, &a);
        return ok;
    }
    if (!vec_len(e->samples) || !e->config)
        return err_user(e->err, "--%s is missing; usage: dav %s", e->model ? "data" : e->config ? "samples" : "config", use.synopsis);
    return judge_command(e);
}

int cmd_eval(int argc, char **argv)
{
    Err err = {0};
    Eval e = {.argc = argc, .argv = argv, .err = &err, .arena = arena_new(), .registry = registry_new()};
    mem_protect(&err, eval_command, &e);
    arena_free(e.arena);
    registry_free(e.registry);
    vec_free(e.samples);
    vec_free(e.set);
    vec_free(e.plugins);
    return cli_end(&err);
}
