/* dav split: folds of related sequences, written as tables. */
#include "cli/cli.h"
#include "runtime/split.h"
#include <stdio.h>

typedef struct SplitCommand { int argc; char **argv; Err *err; } SplitCommand;

static void print_summary(const SplitSummary *s)
{
    printf("%zu rows, %zu of them left out (not native), %zu components, the largest of %zu\n", s->rows, s->left_out,
           s->components, s->largest);
    for (int f = 0; f < FOLD_COUNT; f++)
        printf("%-11s %7zu rows, %7zu measured\n", fold_name((Fold)f), s->fold_rows[f], s->fold_measured[f]);
}

static bool split_command(void *arg)
{
    SplitCommand *s = arg;
    const char *data = NULL, *out = NULL;
    int n;
    const CliOption options[] = {
        {"data", CLI_TEXT, &data, "FILE", "sequences: the yeast table, a table with `sequence`, FASTA or plain lines"},
        {"out", CLI_TEXT, &out, "DIR", "folder for reward.tsv, heldout.tsv, validation.tsv, test.tsv"},
    };
    const CliUse use = {.synopsis = "split --data FILE --out DIR", CLI_OPTIONS(options),
                        .doc = "Splits sequences so that no two folds share a 20-mer on either strand."};
    if (!cli_parse(s->err, &use, s->argc, s->argv, NULL, &n))
        return false;
    if (!data || !out)
        return err_user(s->err, "--%s is missing; usage: dav %s", data ? "out" : "data", use.synopsis);
    SplitSummary summary;
    if (!split_write(s->err, data, out, &summary))
        return false;
    print_summary(&summary);
    return true;
}

int cmd_split(int argc, char **argv)
{
    Err err = {0};
    SplitCommand s = {argc, argv, &err};
    mem_protect(&err, split_command, &s);
    return cli_end(&err);
}
