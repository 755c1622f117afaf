/* dav reference: the table that samples are compared with, made from the real sequences. */
#include "cli/cli.h"
#include "runtime/assess.h"
#include "runtime/seqref.h"
#include <stdio.h>
#include <string.h>

typedef struct Reference {
    int argc;
    char **argv;
    Err *err;
    Arena *arena;
    Registry *registry;
} Reference;

/* An oracle's quantiles on the real test promoters, under a name of its own. */
static bool add_oracle(Reference *r, SeqRef *ref, const char *name, const char *model, const SeqData *test)
{
    double *y = arena_array(r->arena, double, test->n);
    if (!assess_predict(r->err, r->registry, model, test, y))
        return false;
    seqref_set_quantiles(ref, name, y, test->n);
    return true;
}

static bool reference_command(void *arg)
{
    Reference *r = arg;
    const char *data = NULL, *reward = NULL, *heldout = NULL, *out = NULL;
    int n;
    const CliOption options[] = {
        {"data", CLI_TEXT, &data, "FILE", "the real sequences with their measured values"},
        {"reward", CLI_TEXT, &reward, "DIR", "the oracle that is the reward"},
        {"heldout", CLI_TEXT, &heldout, "DIR", "the oracle that judges"},
        {"out", CLI_TEXT, &out, "FILE", "JSON file to write"},
    };
    const CliUse use = {.synopsis = "reference --data FILE --reward DIR --heldout DIR --out FILE", CLI_OPTIONS(options),
                        .doc = "Makes the table of real sequences: k-mers, GC, quantiles of measured and predicted values."};
    if (!cli_parse(r->err, &use, r->argc, r->argv, NULL, &n))
        return false;
    if (!data || !out)
        return err_user(r->err, "--%s is missing; usage: dav %s", data ? "out" : "data", use.synopsis);
    const SeqData *all = seqdata_read(r->err, r->arena, data);
    if (!all)
        return false;
    Split *s = split_make(r->arena, r->arena, all);
    const char *slash = strrchr(data, '/');
    SeqRef *ref = seqref_make(r->arena, all, s, slash ? slash + 1 : data);
    const SeqData *test = split_fold(r->arena, all, s, 1u << FOLD_TEST, true);
    if (test->n == 0 && (reward || heldout))
        return err_user(r->err, "%s: no measured sequence lies in the test fold", data);
    return (!reward || add_oracle(r, ref, "reward.test", reward, test)) &&
           (!heldout || add_oracle(r, ref, "heldout.test", heldout, test)) && seqref_write(r->err, out, ref);
}

int cmd_reference(int argc, char **argv)
{
    Err err = {0};
    Reference r = {argc, argv, &err, arena_new(), registry_new()};
    mem_protect(&err, reference_command, &r);
    arena_free(r.arena);
    registry_free(r.registry);
    return cli_end(&err);
}
