#include "runtime/page.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/page_chart.h"
#include "runtime/page_data.h"
#include "runtime/page_seq.h"
#include "runtime/page_style.h"
#include "runtime/runlog.h"

enum { BEST_SEQUENCES = 24, MAX_TABLE_ROUNDS = 200 };

/* ---- figures of groups ---- */

static int by_size(const void *a, const void *b)
{
    double u = *(const double *)a, v = *(const double *)b;
    return u < v ? -1 : u > v;
}

/* Values of a group: its eval row's, or a reference table's quantiles of the test fold, which stand for them. */
static double *values_of(Page *p, const json_t *row, const char *name, int *n)
{
    double *v = page_numbers(p, row, name, n);
    return *n ? v : page_numbers(p, row, arena_printf(p->arena, "%s.test", name), n);
}

static double median_of(Page *p, const json_t *row, const char *values, const char *median)
{
    int n;
    if (isfinite(page_number(row, median)))
        return page_number(row, median);
    double *v = values_of(p, row, values, &n);
    qsort(v, (size_t)n, sizeof *v, by_size);
    return n ? (v[(n - 1) / 2] + v[n / 2]) / 2 : (double)NAN;
}

static double first_finite(const PageRows *r, const char *name, bool from_end)
{
    for (int i = 0; i < r->n; i++) {
        double v = page_number(r->row[from_end ? r->n - 1 - i : i], name);
        if (isfinite(v))
            return v;
    }
    return (double)NAN;
}

/* ---- head: title and tiles ---- */

static void tile(Page *p, const char *name, double from, double to, int digits)
{
    char a[32], b[32];
    if (!isfinite(to))
        return;
    buf_str(&p->out, "<div class=\"tile\"><b>");
    if (isfinite(from))
        buf_printf(&p->out, "<small>%s \xe2\x86\x92 </small>", page_short(a, from, digits));
    buf_printf(&p->out, "%s</b><span>%s</span></div>", page_short(b, to, digits), name);
}

/* A gain is read in hundredths of a standard deviation: the pretrained model's is 0.00, not 0.00063. */
static double hundredths(double v) { return round(v * 100) / 100; }

static double change_from(const Page *p, const char *name)
{
    double v = page_number(p->group[PAGE_BEFORE].row, name);
    return isfinite(v) ? v : p->rounds.n > 1 ? first_finite(&p->rounds, name, false) : (double)NAN;
}

static double change_to(const Page *p, const char *name)
{
    double v = page_number(p->group[PAGE_AFTER].row, name);
    return isfinite(v) ? v : first_finite(&p->rounds, name, true);
}

static void write_head(Page *p)
{
    char path[4096], text[48];
    snprintf(path, sizeof path, "%s", p->dir);
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
        path[n - 1] = 0;
    const char *slash = strrchr(path, '/'), *name = slash && slash[1] ? slash + 1 : path;
    const json_t *real = p->group[PAGE_REAL].row;
    buf_str(&p->out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
                     "content=\"width=device-width,initial-scale=1\"><title>");
    page_text(&p->out, name);
    buf_printf(&p->out, " \xc2\xb7 dav</title><style>\n%s</style></head>\n<body><main>\n<h1>", page_style);
    page_text(&p->out, name);
    buf_str(&p->out, "</h1><p class=\"lead\">");
    if (p->rounds.n)
        buf_printf(&p->out, "Alignment, %d round%s", p->rounds.n, p->rounds.n == 1 ? "" : "s");
    else if (p->steps.n)
        buf_printf(&p->out, "Training, %s steps", page_count(text, page_number(p->steps.row[p->steps.n - 1], "step")));
    else
        buf_str(&p->out, "No rounds and no steps were logged yet");
    if (!runlog_is_finished(p->dir))
        buf_str(&p->out, ", not finished");
    buf_str(&p->out, "</p>\n<div class=\"tiles\">");
    tile(p, "held-out oracle, median", change_from(p, "heldout_median"), change_to(p, "heldout_median"), 3);
    tile(p, "reward oracle, median", change_from(p, "reward_median"), change_to(p, "reward_median"), 3);
    if (!isfinite(change_to(p, "gain")))
        tile(p, "real examples, held-out median", (double)NAN, median_of(p, real, "heldout", "heldout_median"), 3);
    tile(p, "gain over real, in sd of the data", hundredths(change_from(p, "gain")),
         hundredths(change_to(p, "gain")), 3);
    tile(p, "ELBO", change_from(p, "elbo"), change_to(p, "elbo"), 3);
    tile(p, "diversity (Levenshtein)", change_from(p, "levenshtein"), change_to(p, "levenshtein"), 3);
    tile(p, "3-mers, most active real", change_from(p, "kmer3_top"), change_to(p, "kmer3_top"), 3);
    tile(p, "validation, nats a letter", p->steps.n > 1 ? first_finite(&p->steps, "val_nats", false) : (double)NAN,
         first_finite(&p->steps, "val_nats", true), 5);
    tile(p, "validation, Pearson", p->steps.n > 1 ? first_finite(&p->steps, "val_pearson", false) : (double)NAN,
         first_finite(&p->steps, "val_pearson", true), 3);
    tile(p, "training loss", p->steps.n > 1 ? first_finite(&p->steps, "loss", false) : (double)NAN,
         first_finite(&p->steps, "loss", true), 4);
    buf_str(&p->out, "</div>\n");
}

/* ---- comparison ---- */

static const struct { const char *field, *values, *title, *note; int digits; bool hundredths; } compared[] = {
    {"heldout_median", "heldout", "Held-out oracle, median", "never seen by training or search", 3},
    {"heldout_mean", NULL, "Held-out oracle, mean", "", 3},
    {"gain", NULL, "Gain", "held-out median over that of real examples, in sd of the data", 3, true},
    {"reward_median", "reward", "Reward oracle, median", "what was optimised", 3},
    {"reward_mean", NULL, "Reward oracle, mean", "", 3},
    {"levenshtein", NULL, "Diversity", "mean pairwise Levenshtein distance", 3},
    {"unique", NULL, "Unique", "share of different sequences", 3},
    {"kmer3_top", NULL, "3-mers, most active real", "correlation of counts", 3},
    {"kmer3_all", NULL, "3-mers, all real", "correlation of counts", 3},
    {"kmer6_all", NULL, "6-mers, all real", "correlation of counts", 3},
    {"gc", "gc.all", "GC", "share of G and C", 3},
    {"runs10", NULL, "Homopolymers", "share with a run of 10 equal letters", 2},
    {"log_likelihood", NULL, "Log-likelihood", "approximate, under the pretrained model", 4},
    {"train_distance", NULL, "Novelty", "distance to the nearest training sequence", 3},
};
enum { N_COMPARED = sizeof compared / sizeof *compared };

/* The 95 % interval that a row may hold beside a value. */
static void write_interval(Page *p, const json_t *row, const char *field, int digits)
{
    char low[32], high[32];
    double a = page_number(row, arena_printf(p->arena, "%s_low", field));
    double b = page_number(row, arena_printf(p->arena, "%s_high", field));
    if (isfinite(a) && isfinite(b))
        buf_printf(&p->out, "<br><small>%s\xe2\x80\x93%s</small>", page_short(low, a, digits),
                   page_short(high, b, digits));
}

static void write_comparison(Page *p)
{
    double v[N_COMPARED][PAGE_GROUPS];
    bool row_has[N_COMPARED] = {false}, group_has[PAGE_GROUPS] = {false}, any = false;
    char text[32];
    for (int i = 0; i < N_COMPARED; i++)
        for (int g = 0; g < PAGE_GROUPS; g++) {
            const json_t *row = p->group[g].row;
            v[i][g] = compared[i].values ? median_of(p, row, compared[i].values, compared[i].field)
                                         : page_number(row, compared[i].field);
            if (compared[i].hundredths)
                v[i][g] = hundredths(v[i][g]);
            row_has[i] = row_has[i] || isfinite(v[i][g]);
            group_has[g] = group_has[g] || isfinite(v[i][g]);
            any = any || isfinite(v[i][g]);
        }
    if (!any)
        return;
    buf_str(&p->out, "<h2>Comparison</h2><div class=\"card\"><table class=\"top\"><thead><tr><th></th>");
    for (int g = 0; g < PAGE_GROUPS; g++)
        if (group_has[g])
            buf_printf(&p->out, "<th>%s</th>", p->group[g].title);
    buf_str(&p->out, "</tr></thead><tbody>\n");
    for (int i = 0; i < N_COMPARED; i++) {
        if (!row_has[i])
            continue;
        buf_printf(&p->out, "<tr><td>%s <small>%s</small></td>", compared[i].title, compared[i].note);
        for (int g = 0; g < PAGE_GROUPS; g++)
            if (group_has[g]) {
                buf_printf(&p->out, "<td>%s", page_short(text, v[i][g], compared[i].digits));
                write_interval(p, p->group[g].row, compared[i].field, compared[i].digits);
                buf_str(&p->out, "</td>");
            }
        buf_str(&p->out, "</tr>\n");
    }
    buf_str(&p->out, "</tbody></table></div>\n");
}

/* ---- curves ---- */

typedef struct Curve { const char *field, *label; int colour; const char *spread; bool quiet; } Curve;
typedef struct CurveChart {
    const char *title, *note;
    Curve curve[2];
    const char *level; /* a field of the real examples that is drawn as a level */
} CurveChart;

static const CurveChart round_charts[] = {
    {"Reward by round",
     "median of plain samples",
     {{"reward_median", "reward", 0}, {"heldout_median", "held-out", 1}},
     "heldout"},
    {"ELBO",
     "with its standard error; undiscounted: a lower bound of log E exp(r / \xce\xb1)",
     {{"elbo", "discounted", 0, "elbo_se"}, {"elbo_undiscounted", "no discount", 1, "elbo_undiscounted_se"}},
     NULL},
    {"Diversity", "mean pairwise Levenshtein distance", {{"levenshtein", "distance", 0}}, NULL},
    {"3-mer correlation", "with real sequences", {{"kmer3_top", "most active", 0}, {"kmer3_all", "all", 1}}, NULL},
    {"GC", "share of G and C", {{"gc", "samples", 0}}, "gc.all"},
    {"Loss", "of the M-step", {{"loss", "loss", 0}}, NULL},
    {"KL to the pretrained model", "exact, per step", {{"kl", "KL", 0}}, NULL},
    {"Effective sample size", "of the importance weights", {{"ess", "ESS", 0}}, NULL},
};
static const CurveChart step_charts[] = {
    {"Training loss", "", {{"loss", "loss", 0, NULL, true}}, NULL},
    {"Validation", "nats a letter", {{"val_nats", "validation", 1}}, NULL},
    {"Validation", "Pearson correlation", {{"val_pearson", "validation", 1}}, NULL},
    {"Learning rate", "", {{"lr", "rate", 5}}, NULL},
    {"Gradient norm", "before clipping", {{"grad_norm", "norm", 5, NULL, true}}, NULL},
};

/* The curve of a field; the evaluation before the first round is round 0. */
static ChartLine line_of(Page *p, const PageRows *r, const char *key, const Curve *c)
{
    double *x = arena_array(p->arena, double, r->n + 1), *y = arena_array(p->arena, double, r->n + 1);
    double *spread = c->spread ? arena_array(p->arena, double, r->n + 1) : NULL;
    const json_t *before = p->group[PAGE_BEFORE].row;
    int n = 0;
    if (r == &p->rounds && page_number(r->row[0], "round") >= 1 && isfinite(page_number(before, c->field))) {
        y[n] = page_number(before, c->field);
        if (spread)
            spread[n] = page_number(before, c->spread);
        n++;
    }
    for (int i = 0; i < r->n; i++) {
        double v = page_number(r->row[i], c->field);
        if (!isfinite(v) && !(i + 1 == r->n && n == 0)) /* fields that stand in some rows only make no gaps */
            continue;
        x[n] = page_number(r->row[i], key);
        y[n] = v;
        if (spread)
            spread[n] = page_number(r->row[i], c->spread);
        n++;
    }
    return (ChartLine){c->label, c->colour, x, y, spread, n, c->quiet};
}

/* The running mean over a fortieth of the line: what a noisy one does. */
static ChartLine smoothed(Page *p, ChartLine l)
{
    double *y = arena_array(p->arena, double, l.n), sum = 0;
    int window = 1 + l.n / 40;
    for (int i = 0; i < l.n; i++) {
        sum += l.y[i] - (i >= window ? l.y[i - window] : 0);
        y[i] = sum / (i < window ? i + 1 : window);
    }
    l.y = y;
    l.quiet = false;
    return l;
}

static void write_curves(Page *p, const char *heading, const PageRows *r, const char *key, const CurveChart *charts,
                         int n)
{
    if (r->n == 0)
        return;
    buf_printf(&p->out, "<h2>%s</h2><div class=\"grid2\">\n", heading);
    for (int i = 0; i < n; i++) {
        ChartLine line[2];
        ChartMark mark[1];
        int n_lines = 0, n_marks = 0;
        for (int k = 0; k < 2 && charts[i].curve[k].field; k++) {
            line[n_lines] = line_of(p, r, key, &charts[i].curve[k]);
            n_lines += line[n_lines].n > 0;
        }
        if (n_lines == 1 && line[0].quiet)
            line[n_lines++] = smoothed(p, line[0]);
        double level = charts[i].level
                           ? median_of(p, p->group[PAGE_REAL].row, charts[i].level, charts[i].curve[0].field)
                           : (double)NAN;
        if (charts[i].level && strcmp(charts[i].level, "heldout") == 0)
            level = median_of(p, p->group[PAGE_REAL].row, "heldout", "heldout_median");
        if (isfinite(level))
            mark[n_marks++] = (ChartMark){"real", level, 4};
        chart_lines(&p->out, &(Chart){charts[i].title, charts[i].note, key, line, n_lines, mark, n_marks});
    }
    buf_str(&p->out, "</div>\n");
}

/* ---- distributions ---- */

static void write_distribution(Page *p, const char *field, const char *title)
{
    static const int colours[PAGE_GROUPS] = {2, 0, 3, 4};
    static const int order[PAGE_GROUPS] = {PAGE_BEFORE, PAGE_REAL, PAGE_AFTER, PAGE_POSTERIOR};
    ChartValues rows[PAGE_GROUPS];
    for (int i = 0; i < PAGE_GROUPS; i++) {
        const PageGroup *g = &p->group[order[i]];
        rows[i] = (ChartValues){.label = g->title, .colour = colours[order[i]]};
        rows[i].v = values_of(p, g->row, field, &rows[i].n);
    }
    chart_histograms(&p->out, title, "median, quartiles, 5\xe2\x80\x93" "95 %", rows, PAGE_GROUPS);
}

static void write_distributions(Page *p)
{
    size_t before = p->out.len;
    buf_str(&p->out, "<h2>Rewards, before and after</h2><div class=\"grid2\">\n");
    size_t opened = p->out.len;
    write_distribution(p, "heldout", "Held-out oracle");
    write_distribution(p, "reward", "Reward oracle");
    if (p->out.len == opened)
        p->out.at[p->out.len = before] = 0;
    else
        buf_str(&p->out, "</div>\n");
}

static void write_sequences(Page *p)
{
    const PageGroup *shown = NULL;
    for (int g = PAGE_BEFORE; g <= PAGE_POSTERIOR; g++) /* the latest but the search's: what the model itself makes */
        if (p->group[g].n_samples && (g != PAGE_POSTERIOR || !shown))
            shown = &p->group[g];
    if (!shown)
        return;
    buf_str(&p->out, "<h2>Sequences</h2>");
    page_sequences(p, shown, BEST_SEQUENCES);
    page_logos(p);
}

/* ---- compute and settings ---- */

/* Counts are logged since the run began: a round's are what they grew by. */
static void write_compute(Page *p)
{
    static const struct { const char *field, *title;
    } cost[] = {
        {"forwards", "forwards"},
        {"vjps", "VJPs"},
        {"reward_forwards", "reward forwards"},
        {"reward_vjps", "reward VJPs"},
        {"p0_forwards", "p\xe2\x82\x80 forwards"},
        {"seconds", "seconds"},
    };
    enum { N = sizeof cost / sizeof *cost, SECONDS = N - 1 };
    bool has[N] = {false}, any = false;
    char text[48];
    int n = p->rounds.n, first = n > MAX_TABLE_ROUNDS ? n - MAX_TABLE_ROUNDS : 0;
    double seconds = 0, before[N] = {0};
    for (int i = 0; i < n; i++)
        for (int k = 0; k < N; k++)
            if (isfinite(page_number(p->rounds.row[i], cost[k].field)))
                has[k] = any = true;
    if (!any)
        return;
    buf_str(&p->out, "<h2>Compute</h2><div class=\"card\"><table class=\"even\"><thead><tr><th>round</th>");
    for (int k = 0; k < N; k++)
        if (has[k])
            buf_printf(&p->out, "<th>%s</th>", cost[k].title);
    buf_str(&p->out, "</tr></thead><tbody>\n");
    for (int i = 0; i <= n; i++) {
        bool total = i == n, shown = i >= first;
        if (total)
            buf_str(&p->out, "<tr class=\"sum\"><td>all</td>");
        else if (shown)
            buf_printf(&p->out, "<tr><td>%s</td>", page_count(text, page_number(p->rounds.row[i], "round")));
        for (int k = 0; k < N; k++) {
            double now = total ? before[k] : page_number(p->rounds.row[i], cost[k].field);
            double v = k == SECONDS ? (total ? seconds : now) : total ? now : now - before[k];
            if (isfinite(now))
                before[k] = now;
            seconds += k == SECONDS && !total && isfinite(now) ? now : 0;
            if (has[k] && shown)
                buf_printf(&p->out, "<td>%s</td>",
                           k == SECONDS && v < 1000 ? page_short(text, v, 3) : page_count(text, v));
        }
        if (shown)
            buf_str(&p->out, "</tr>\n");
    }
    buf_str(&p->out, "</tbody></table></div>\n");
}

/* The comment that settings_write_yaml put behind the value in a line of config.yaml: where the value came from. */
static const char *origin_of(Page *p, const char *place)
{
    const char *colon = strrchr(place, ':'), *line = p->config_text;
    int64_t n;
    if (!colon || !text_to_i64(colon + 1, &n))
        return "";
    for (; n > 1 && line; n--)
        line = (line = strchr(line, '\n')) ? line + 1 : NULL;
    if (!line)
        return "";
    const char *at = NULL, *stop = line + strcspn(line, "\n");
    for (const char *q = line; (q = strstr(q, "  # ")) && q < stop; q++)
        at = q + 4;
    return at ? arena_strn(p->arena, at, (size_t)(stop - at)) : "";
}

static void write_settings(Page *p)
{
    if (!p->settings || settings_count(p->settings) == 0)
        return;
    buf_str(&p->out, "<h2>Settings</h2><div class=\"card settings\">\n");
    for (int i = 0; i < settings_count(p->settings); i++) {
        const char *text, *place, *name = settings_item(p->settings, i, &text, &place), *from = origin_of(p, place);
        bool same = strcmp(from, "default") == 0;
        buf_printf(&p->out, "<div%s><code>", same ? " class=\"same\"" : "");
        page_text(&p->out, name);
        buf_str(&p->out, "</code><b>");
        page_text(&p->out, *text ? text : "\xe2\x80\x93");
        buf_str(&p->out, "</b>");
        if (*from && !same) {
            const char *slash = strrchr(from, '/');
            buf_str(&p->out, "<small title=\"");
            page_text(&p->out, from);
            buf_str(&p->out, "\">");
            page_text(&p->out, slash ? slash + 1 : from);
            buf_str(&p->out, "</small>");
        }
        buf_str(&p->out, "</div>\n");
    }
    buf_str(&p->out, "</div>\n");
}

typedef struct Filling { Page *page; const char *reference; } Filling;

static bool fill(void *arg)
{
    Filling *a = arg;
    Page *p = a->page;
    p->arena = arena_new();
    page_load(p, a->reference);
    write_head(p);
    write_comparison(p);
    write_distributions(p);
    write_curves(p, "Rounds", &p->rounds, "round", round_charts, sizeof round_charts / sizeof *round_charts);
    write_curves(p, "Training", &p->steps, "step", step_charts, sizeof step_charts / sizeof *step_charts);
    write_sequences(p);
    write_compute(p);
    write_settings(p);
    buf_str(&p->out, "<footer>Made by dav from metrics.jsonl, config.yaml and samples/ in this folder.");
    if (p->bad_lines)
        buf_printf(&p->out, " %d unreadable line%s of the logs were left out.", p->bad_lines,
                   p->bad_lines == 1 ? "" : "s");
    buf_str(&p->out, "</footer>\n</main></body></html>\n");
    return true;
}

bool page_write(Err *err, const char *run_dir, const char *reference_path)
{
    char path[4096];
    Page p = {.dir = run_dir, .metrics = json_array(), .times = json_array()};
    Filling arg = {&p, reference_path};
    bool ok = runlog_path(err, path, run_dir, "index.html") && mem_protect(err, fill, &arg) &&
              file_write(err, path, p.out.at, p.out.len);
    json_decref(p.metrics);
    json_decref(p.times);
    json_decref(p.reference);
    arena_free(p.arena);
    buf_free(&p.out);
    return ok;
}
