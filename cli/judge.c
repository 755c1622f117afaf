#include "cli/judge.h"
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Every number of a judgement but n, once: for the log, for JSON, for reading them again. */
#define AT(name, member) {name, offsetof(Judgement, member)}
#define INTERVAL(name, member) AT(name, member.at), AT(name "_low", member.low), AT(name "_high", member.high)
static const struct { const char *name; size_t at; } fields[] = {
    INTERVAL("reward_median", reward_median), AT("reward_mean", reward_mean),
    INTERVAL("heldout_median", heldout_median), AT("heldout_mean", heldout_mean), AT("heldout_sd", heldout_sd),
    AT("levenshtein", levenshtein.mean), AT("levenshtein_se", levenshtein.se),
    INTERVAL("kmer3_top", kmer3_top), AT("kmer3_all", kmer3_all.at), AT("kmer6_all", kmer6_all),
    AT("gc", gc), AT("unique", unique), AT("runs10", runs10),
    AT("log_likelihood", log_likelihood), AT("log_likelihood_se", log_likelihood_se),
    INTERVAL("train_distance", train_distance),
};
enum { FIELDS = sizeof fields / sizeof *fields };

static double value_of(const Judgement *j, int i)
{
    return *(const double *)((const char *)j + fields[i].at);
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
    for (int i = 0; i < FIELDS; i++)
        if (isfinite(value_of(j, i)))
            runlog_number(log, fields[i].name, value_of(j, i));
    runlog_int(log, "n", (int64_t)j->n);
}

static bool is_row(const json_t *row, const char *name)
{
    const char *event = json_string_value(json_object_get(row, "event")), *own = json_string_value(json_object_get(row, "name"));
    return event && own && strcmp(event, "eval") == 0 && strcmp(own, name) == 0;
}

bool judge_read(Err *err, const char *run_dir, const char *name, Judgement *j, bool *found)
{
    char path[4096], *text;
    size_t len;
    *found = false;
    if (!runlog_path(err, path, run_dir, "metrics.jsonl") || !file_read(err, path, 256 << 20, &text, &len))
        return false;
    for (char *line = text, *end; !*found && line < text + len; line = end + 1) {
        end = line + strcspn(line, "\n");
        json_t *row = json_loadb(line, (size_t)(end - line), 0, NULL);
        *found = is_row(row, name);
        for (int i = 0; *found && i < FIELDS; i++) {
            const json_t *v = json_object_get(row, fields[i].name);
            *(double *)((char *)j + fields[i].at) = json_is_number(v) ? json_number_value(v) : NAN;
        }
        j->n = (size_t)json_integer_value(json_object_get(row, "n"));
        json_decref(row);
    }
    mem_free(text);
    return true;
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
    if (isfinite(j->levenshtein.mean))
        buf_printf(out, " %6.1f +- %3.1f", j->levenshtein.mean, j->levenshtein.se);
    else
        buf_printf(out, " %13s", "-"); /* of one sequence there is no pair */
    number(out, " %*.3f", 6, j->kmer3_all.at);
    number(out, " %*.3f", 6, j->kmer3_top.at);
    number(out, " %*.3f", 6, j->kmer6_all);
    buf_printf(out, " %5.3f %6.3f %6.3f\n", j->gc, j->unique, j->runs10);
}

void judge_more(Buf *out, const Judgement *j)
{
    buf_printf(out, "%-12s log-likelihood under the pretrained model %.2f", "", j->log_likelihood);
    if (isfinite(j->log_likelihood_se))
        buf_printf(out, " +- %.2f", j->log_likelihood_se);
    buf_str(out, " a sequence");
    if (isfinite(j->train_distance.at))
        buf_printf(out, ", distance to the nearest training sequence %.1f (%.1f..%.1f)", j->train_distance.at, j->train_distance.low,
                   j->train_distance.high);
    buf_str(out, "\n");
}

void judge_json(Buf *out, const char *name, const Aligner *a, const Judgement *j)
{
    json_t *o = json_pack("{s:s, s:I}", "name", name, "n", (json_int_t)j->n);
    for (int i = 0; i < FIELDS; i++)
        if (isfinite(value_of(j, i)))
            json_object_set_new(o, fields[i].name, json_real(value_of(j, i)));
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
