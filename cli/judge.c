#include "cli/judge.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

/* Every number of a judgement, once: for the log, for JSON. */
typedef struct Field { const char *name; double value; } Field;
enum { FIELDS = 20 };

static int fields_of(const Judgement *j, Field f[FIELDS])
{
    const Field all[FIELDS] = {
        {"reward_median", j->reward_median.at}, {"reward_median_low", j->reward_median.low},
        {"reward_median_high", j->reward_median.high}, {"reward_mean", j->reward_mean},
        {"heldout_median", j->heldout_median.at}, {"heldout_median_low", j->heldout_median.low},
        {"heldout_median_high", j->heldout_median.high}, {"heldout_mean", j->heldout_mean}, {"heldout_sd", j->heldout_sd},
        {"levenshtein", j->levenshtein.mean}, {"levenshtein_se", j->levenshtein.se}, {"kmer3_top", j->kmer3_top.at},
        {"kmer3_top_low", j->kmer3_top.low}, {"kmer3_top_high", j->kmer3_top.high}, {"kmer3_all", j->kmer3_all.at},
        {"kmer6_all", j->kmer6_all}, {"gc", j->gc}, {"unique", j->unique}, {"runs10", j->runs10}, {"n", (double)j->n}};
    int n = 0;
    for (int i = 0; i < FIELDS; i++)
        if (isfinite(all[i].value))
            f[n++] = all[i];
    return n;
}

static double real_heldout_median(const Aligner *a)
{
    const double *q = a->reference ? seqref_get(a->reference, "heldout.test", SEQREF_QUANTILES) : NULL;
    return q ? q[SEQREF_QUANTILES / 2] : NAN;
}

double judge_gain(const Aligner *a, const Judgement *j)
{
    const double *sd = a->reference ? seqref_get(a->reference, "measured.sd", 1) : NULL;
    return sd ? (j->heldout_median.at - real_heldout_median(a)) / *sd : NAN;
}

void judge_log(RunLog *log, const Judgement *j)
{
    Field f[FIELDS];
    int n = fields_of(j, f);
    for (int i = 0; i < n; i++)
        runlog_number(log, f[i].name, f[i].value);
}

void judge_header(Buf *out)
{
    buf_printf(out, "%-12s %6s %22s %22s %6s %13s %6s %6s %6s %5s %6s %6s\n", "samples", "n", "reward median (95%)",
               "held-out median (95%)", "gain", "levenshtein", "3-mer", "top", "6-mer", "GC", "unique", "run10");
}

static void number(Buf *out, const char *fmt, int width, double v)
{
    if (isfinite(v))
        buf_printf(out, fmt, width, v);
    else
        buf_printf(out, " %*s", width, "-");
}

static void interval(Buf *out, Interval i)
{
    char text[64] = "-";
    if (isfinite(i.at))
        snprintf(text, sizeof text, "%.2f (%.2f..%.2f)", i.at, i.low, i.high);
    buf_printf(out, " %22s", text);
}

void judge_row(Buf *out, const char *name, const Aligner *a, const Judgement *j)
{
    buf_printf(out, "%-12s %6zu", name, j->n);
    interval(out, j->reward_median);
    interval(out, j->heldout_median);
    number(out, " %*.2f", 6, judge_gain(a, j));
    buf_printf(out, " %6.1f +- %3.1f", j->levenshtein.mean, j->levenshtein.se);
    number(out, " %*.3f", 6, j->kmer3_all.at);
    number(out, " %*.3f", 6, j->kmer3_top.at);
    number(out, " %*.3f", 6, j->kmer6_all);
    buf_printf(out, " %5.3f %6.3f %6.3f\n", j->gc, j->unique, j->runs10);
}

void judge_json(Buf *out, const char *name, const Aligner *a, const Judgement *j)
{
    Field f[FIELDS];
    int n = fields_of(j, f);
    json_t *o = json_pack("{s:s}", "name", name);
    for (int i = 0; i < n; i++)
        json_object_set_new(o, f[i].name, json_real(f[i].value));
    if (isfinite(judge_gain(a, j)))
        json_object_set_new(o, "gain", json_real(judge_gain(a, j)));
    char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(8));
    buf_printf(out, "%s\n", text ? text : "{}");
    free(text);
    json_decref(o);
}

void judge_real(Buf *out, const Aligner *a)
{
    if (!a->reference)
        return;
    const double *r = seqref_get(a->reference, "reward.test", SEQREF_QUANTILES), *gc = seqref_get(a->reference, "gc.all", SEQREF_QUANTILES);
    if (r && gc && isfinite(real_heldout_median(a)))
        buf_printf(out, "%-12s %6s %22.2f %22.2f %6.2f %13s %6s %6s %6s %5.3f   (test promoters; GC: median of all)\n", "real", "",
                   r[SEQREF_QUANTILES / 2], real_heldout_median(a), 0.0, "", "", "", "", gc[SEQREF_QUANTILES / 2]);
}
