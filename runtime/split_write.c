#include "runtime/seqref.h"
#include "runtime/split.h"
#include <string.h>

typedef struct Job { Err *err; Arena *arena; const char *data, *out_dir; SplitSummary *summary; } Job;

static bool write_job(void *arg)
{
    Job *j = arg;
    j->arena = arena_new();
    SeqData *d = seqdata_read(j->err, j->arena, j->data);
    if (!d || !file_mkdirs(j->err, j->out_dir))
        return false;
    Split *s = split_make(j->arena, j->arena, d);
    for (Fold f = 0; f < FOLD_COUNT; f++) {
        const char *path = arena_printf(j->arena, "%s/%s.tsv", j->out_dir, fold_name(f));
        if (!seqdata_write_table(j->err, path, split_fold(j->arena, d, s, 1u << f, false)))
            return false;
    }
    *j->summary = split_summary(d, s);
    const char *slash = strrchr(j->data, '/');
    SeqRef *table = seqref_make(j->arena, d, s, slash ? slash + 1 : j->data);
    return seqref_write(j->err, arena_printf(j->arena, "%s/reference.json", j->out_dir), table);
}

bool split_write(Err *err, const char *data, const char *out_dir, SplitSummary *summary)
{
    Job j = {.err = err, .data = data, .out_dir = out_dir, .summary = summary};
    bool ok = mem_protect(err, write_job, &j);
    arena_free(j.arena);
    return ok;
}
