#define _GNU_SOURCE /* memmem */
#include "runtime/page_data.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/runlog.h"

enum { MAX_METRICS_BYTES = 256 << 20, MAX_ROWS = 1 << 20 };

/* No quantity of a run is larger, and nothing that a chart computes from it overflows. */
static bool drawable(const json_t *v)
{
    return json_is_number(v) && fabs(json_number_value(v)) < 1e150;
}

double page_number(const json_t *row, const char *name)
{
    const json_t *v = row ? json_object_get(row, name) : NULL;
    if (json_array_size(v) == 1)
        v = json_array_get(v, 0);
    return drawable(v) ? json_number_value(v) : (double)NAN;
}

double *page_numbers(Page *p, const json_t *row, const char *name, int *n)
{
    const json_t *list = row ? json_object_get(row, name) : NULL, *v;
    size_t i;
    *n = 0;
    double *out = arena_array(p->arena, double, json_array_size(list));
    json_array_foreach(list, i, v)
        if (drawable(v))
            out[(*n)++] = json_number_value(v);
    return out;
}

typedef struct Kept { Arena *arena; const char *data; size_t len; char *copy; } Kept;

static bool keep(void *arg)
{
    Kept *k = arg;
    k->copy = arena_strn(k->arena, k->data, k->len);
    return true;
}

/* A file of the run in the arena; NULL when it cannot be read. */
static const char *read_text(Page *p, const char *name, size_t max, size_t *len)
{
    char path[4096], *data;
    Err ignored = {.kind = ERR_NONE};
    if (!runlog_path(&ignored, path, p->dir, name) || !file_read(&ignored, path, max, &data, len))
        return NULL;
    Kept k = {p->arena, data, *len, NULL};
    mem_protect(&ignored, keep, &k);
    mem_free(data);
    return k.copy;
}

/* The objects of a JSON-lines file, appended to `rows`. */
static void read_rows(Page *p, const char *name, json_t *rows)
{
    size_t len;
    const char *text = read_text(p, name, MAX_METRICS_BYTES, &len);
    for (const char *end = text ? text + len : NULL; text && text < end;) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t n = (size_t)((stop ? stop : end) - text);
        json_t *row = json_loadb(text, n, 0, NULL);
        if (json_is_object(row) && json_array_size(rows) < MAX_ROWS) {
            json_array_append_new(rows, row);
        } else {
            p->bad_lines += n > 0;
            json_decref(row);
        }
        text += n + 1;
    }
}

static bool is_event(const json_t *row, const char *event)
{
    const char *s = json_string_value(json_object_get(row, "event"));
    return s && strcmp(s, event) == 0;
}

typedef struct Keyed { double key; size_t order; json_t *row; } Keyed;

static int keyed_order(const void *a, const void *b)
{
    const Keyed *x = a, *y = b;
    return x->key != y->key ? (x->key < y->key ? -1 : 1) : x->order < y->order ? -1 : 1;
}

/* The rows of an event in the order of `key`, the last one of equals. */
static PageRows rows_of(Page *p, const json_t *rows, const char *event, const char *key)
{
    Keyed *found = arena_array(p->arena, Keyed, json_array_size(rows));
    PageRows r = {.row = arena_array(p->arena, json_t *, json_array_size(rows))};
    size_t i, n = 0;
    json_t *row;
    json_array_foreach(rows, i, row)
        if (is_event(row, event) && isfinite(page_number(row, key)))
            found[n++] = (Keyed){page_number(row, key), i, row};
    qsort(found, n, sizeof *found, keyed_order);
    for (i = 0; i < n; i++)
        if (i + 1 == n || found[i].key < found[i + 1].key)
            r.row[r.n++] = found[i].row;
    return r;
}

/* The seconds of times.jsonl join their rounds; both are sorted. */
static void join_times(Page *p)
{
    PageRows t = rows_of(p, p->times, "round", "round");
    for (int i = 0, k = 0; i < p->rounds.n; i++) {
        double round = page_number(p->rounds.row[i], "round");
        while (k < t.n && page_number(t.row[k], "round") < round)
            k++;
        if (k < t.n && page_number(t.row[k], "round") <= round)
            json_object_set(p->rounds.row[i], "seconds", json_object_get(t.row[k], "seconds"));
    }
}

static double header_number(const char *header, size_t len, const char *name)
{
    char word[32];
    double v;
    const char *at = memmem(header, len, name, strlen(name));
    if (!at)
        return (double)NAN;
    at += strlen(name);
    size_t n = strspn(at, "+-.0123456789eE");
    if (n >= sizeof word)
        return (double)NAN;
    memcpy(word, at, n);
    word[n] = 0;
    return text_to_f64(word, &v) ? v : (double)NAN;
}

/* FASTA of one sequence after each header; lines of a sequence are joined. */
static void read_samples(Page *p, PageGroup *g)
{
    char name[64];
    size_t len;
    snprintf(name, sizeof name, "samples/%s.fasta", g->name);
    const char *text = read_text(p, name, 64 << 20, &len);
    if (!text)
        return;
    g->samples = arena_array(p->arena, PageSample, PAGE_MAX_SAMPLES);
    for (const char *at = strchr(text, '>'); at && g->n_samples < PAGE_MAX_SAMPLES;) {
        size_t head = strcspn(at, "\n"), n = 0;
        PageSample *s = &g->samples[g->n_samples];
        s->reward = header_number(at, head, "reward=");
        s->heldout = header_number(at, head, "heldout=");
        const char *body = at + head;
        at = strchr(body, '>');
        const char *end = at ? at : body + strlen(body);
        char *letters = arena_alloc(p->arena, (size_t)(end - body) + 1);
        for (; body < end && n < PAGE_MAX_LENGTH; body++)
            if ((*body >= 'A' && *body <= 'Z') || (*body >= 'a' && *body <= 'z'))
                letters[n++] = (char)(*body & ~0x20);
        s->letters = letters;
        g->n_samples += n > 0;
    }
}

static void read_config(Page *p)
{
    size_t len;
    Err ignored = {.kind = ERR_NONE};
    p->config_text = read_text(p, "config.yaml", CONFIG_MAX_BYTES, &len);
    Settings *s = settings_new(p->arena);
    if (p->config_text && settings_parse_yaml(s, &ignored, "config.yaml", p->config_text, len))
        p->settings = s;
}

/* An eval row, alone or under "real", or a reference table (runtime/seqref.h), whose quantiles stand for the values. */
static void read_reference(Page *p, const char *path)
{
    if (!path || !file_exists(path) || file_is_dir(path))
        return;
    p->reference = json_load_file(path, 0, NULL);
    const json_t *choice[] = {json_object_get(p->reference, "numbers"), json_object_get(p->reference, "real"),
                              p->reference};
    for (int i = 0; i < 3 && !p->group[PAGE_REAL].row; i++)
        p->group[PAGE_REAL].row = json_is_object(choice[i]) ? choice[i] : NULL;
}

/* Samples whose headers tell no values get those of the eval row, which are in the same order. */
static void join_values(Page *p, PageGroup *g)
{
    int n_reward, n_heldout;
    const double *reward = page_numbers(p, g->row, "reward", &n_reward);
    const double *heldout = page_numbers(p, g->row, "heldout", &n_heldout);
    for (int i = 0; i < g->n_samples; i++) {
        if (isnan(g->samples[i].reward) && n_reward >= g->n_samples)
            g->samples[i].reward = reward[i];
        if (isnan(g->samples[i].heldout) && n_heldout >= g->n_samples)
            g->samples[i].heldout = heldout[i];
    }
}

void page_load(Page *p, const char *reference_path)
{
    static const char *const names[] = {"before", "after", "posterior", "real"};
    static const char *const titles[] = {"before", "after", "after + search", "real"};
    size_t i;
    json_t *row;
    for (int g = 0; g < PAGE_GROUPS; g++)
        p->group[g] = (PageGroup){.name = names[g], .title = titles[g]};
    read_reference(p, reference_path);
    read_rows(p, "metrics.jsonl", p->metrics);
    read_rows(p, "times.jsonl", p->times);
    p->rounds = rows_of(p, p->metrics, "round", "round");
    p->steps = rows_of(p, p->metrics, "step", "step");
    join_times(p);
    json_array_foreach(p->metrics, i, row) {
        const char *name = json_string_value(json_object_get(row, "name"));
        for (int g = 0; g < PAGE_GROUPS && name; g++)
            if (is_event(row, "eval") && strcmp(name, p->group[g].name) == 0)
                p->group[g].row = row;
    }
    for (int g = 0; g < PAGE_GROUPS; g++) {
        read_samples(p, &p->group[g]);
        join_values(p, &p->group[g]);
    }
    read_config(p);
}
