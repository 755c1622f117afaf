#include "runtime/seqref.h"
#include "runtime/seqmetrics.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char FORMAT[] = "dav reference table 1";
enum { MAX_FILE = 2 << 20, MAX_NAMES = 1000, TOP_OF = 1000 };

SeqRef *seqref_new(Arena *a, const char *source)
{
    SeqRef *r = arena_alloc(a, sizeof *r);
    r->arena = a;
    r->source = arena_str(a, source);
    return r;
}

static SeqRefEntry *entry_named(const SeqRef *r, const char *name)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->entry[i].name, name) == 0)
            return &r->entry[i];
    return NULL;
}

static SeqRefEntry *entry_for(SeqRef *r, const char *name)
{
    SeqRefEntry *e = entry_named(r, name);
    if (e)
        return e;
    if (r->n == r->room) {
        size_t room = r->room ? 2 * r->room : 32;
        SeqRefEntry *wider = arena_array(r->arena, SeqRefEntry, room);
        if (r->n)
            memcpy(wider, r->entry, r->n * sizeof *wider);
        r->entry = wider;
        r->room = room;
    }
    e = &r->entry[r->n++];
    e->name = arena_str(r->arena, name);
    return e;
}

void seqref_set(SeqRef *r, const char *name, const double *number, size_t n)
{
    SeqRefEntry *e = entry_for(r, name);
    e->number = arena_copy(r->arena, number, mem_mul(n, sizeof *number));
    e->n = n;
}

void seqref_set_quantiles(SeqRef *r, const char *name, const double *value, size_t n)
{
    double *sorted = arena_copy(r->arena, value, mem_mul(n, sizeof *value)), q[SEQREF_QUANTILES];
    stats_sort(sorted, n);
    for (int i = 0; i < SEQREF_QUANTILES; i++)
        q[i] = stats_quantile(sorted, n, (double)i / (SEQREF_QUANTILES - 1));
    seqref_set(r, name, q, SEQREF_QUANTILES);
}

const double *seqref_get(const SeqRef *r, const char *name, size_t n)
{
    const SeqRefEntry *e = entry_named(r, name);
    return e && e->n == n ? e->number : NULL;
}

/* ---- making ---- */
typedef struct Active { double value; size_t row; } Active;

static int most_active_first(const void *a, const void *b)
{
    const Active *x = a, *y = b;
    if (x->value != y->value)
        return x->value > y->value ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* Of rows that all have values. */
static SeqData *most_active(Arena *a, const SeqData *d)
{
    Active *order = arena_array(a, Active, d->n);
    size_t n = (d->n + TOP_OF - 1) / TOP_OF, *row = arena_array(a, size_t, n);
    for (size_t i = 0; i < d->n; i++)
        order[i] = (Active){d->value[i], i};
    qsort(order, d->n, sizeof *order, most_active_first);
    for (size_t i = 0; i < n; i++)
        row[i] = order[i].row;
    return seqdata_select(a, d, row, n);
}

static void set_composition(SeqRef *r, const SeqData *d, const char *of)
{
    double rows = (double)d->n, *gc = arena_array(r->arena, double, d->n);
    seqref_set(r, arena_printf(r->arena, "rows.%s", of), &rows, 1);
    seqref_set(r, arena_printf(r->arena, "kmer3.%s", of), seq_kmer_counts(r->arena, d, 3), 64);
    seqref_set(r, arena_printf(r->arena, "kmer6.%s", of), seq_kmer_counts(r->arena, d, 6), 4096);
    seq_gc_each(d, gc);
    seqref_set_quantiles(r, arena_printf(r->arena, "gc.%s", of), gc, d->n);
}

SeqRef *seqref_make(Arena *a, const SeqData *d, const Split *s, const char *source)
{
    SeqRef *r = seqref_new(a, source);
    unsigned any = (1u << FOLD_COUNT) - 1;
    const SeqData *all = split_fold(a, d, s, any, false), *measured = split_fold(a, d, s, any, true);
    const SeqData *test = split_fold(a, d, s, 1u << FOLD_TEST, true);
    if (all->n)
        set_composition(r, all, "all");
    if (!measured->n)
        return r;
    double mean = stats_mean(measured->value, measured->n), sd = stats_sd(measured->value, measured->n), rows = (double)test->n;
    set_composition(r, most_active(a, measured), "top");
    seqref_set(r, "measured.mean", &mean, 1);
    seqref_set(r, "measured.sd", &sd, 1);
    seqref_set_quantiles(r, "measured.all", measured->value, measured->n);
    seqref_set(r, "rows.test", &rows, 1);
    if (test->n)
        seqref_set_quantiles(r, "measured.test", test->value, test->n);
    return r;
}

/* ---- the file ---- */
typedef struct Job {
    Err *err;
    const char *path;
    SeqRef *r;
    Arena *arena; /* reading */
    char *text;
    size_t n;
    json_t *root;
    Buf out; /* writing */
    char *quoted;
} Job;

static bool read_numbers(Job *j, const char *name, const json_t *list)
{
    size_t n = json_array_size(list);
    double *number = arena_array(j->arena, double, n);
    bool ok = json_is_array(list);
    for (size_t i = 0; ok && i < n; i++) {
        const json_t *v = json_array_get(list, i);
        ok = json_is_number(v);
        number[i] = json_number_value(v);
    }
    if (!ok)
        return err_user(j->err, "%s: '%.100s': expected a list of numbers", j->path, name);
    seqref_set(j->r, name, number, n);
    return true;
}

static bool read_job(void *arg)
{
    Job *j = arg;
    json_error_t why;
    if (!file_read(j->err, j->path, MAX_FILE, &j->text, &j->n))
        return false;
    j->root = json_loadb(j->text, j->n, JSON_REJECT_DUPLICATES, &why);
    if (!j->root)
        return err_user(j->err, "%s:%d: %s", j->path, why.line, why.text);
    const char *format = json_string_value(json_object_get(j->root, "format"));
    if (!format || strcmp(format, FORMAT) != 0)
        return err_user(j->err, "%s: expected \"format\": \"%s\", found '%.60s'", j->path, FORMAT, format ? format : "none");
    const char *source = json_string_value(json_object_get(j->root, "source")), *name;
    json_t *numbers = json_object_get(j->root, "numbers"), *list;
    if (!json_is_object(numbers))
        return err_user(j->err, "%s: expected an object called \"numbers\"", j->path);
    if (json_object_size(numbers) > MAX_NAMES)
        return err_user(j->err, "%s: %zu names, expected at most %d", j->path, json_object_size(numbers), MAX_NAMES);
    j->r = seqref_new(j->arena, source ? source : "");
    json_object_foreach(numbers, name, list)
        if (!read_numbers(j, name, list))
            return false;
    return true;
}

SeqRef *seqref_read(Err *err, Arena *a, const char *path)
{
    Job j = {.err = err, .arena = a, .path = path};
    bool ok = mem_protect(err, read_job, &j);
    json_decref(j.root);
    mem_free(j.text);
    return ok ? j.r : NULL;
}

static void add_string(Job *j, const char *s)
{
    json_t *value = json_string(s);
    free(j->quoted);
    j->quoted = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    json_decref(value);
    buf_str(&j->out, j->quoted ? j->quoted : "\"\"");
}

/* A line a name: a diff of two tables says what changed. */
static bool write_job(void *arg)
{
    Job *j = arg;
    Buf *b = &j->out;
    const SeqRef *r = j->r;
    buf_printf(b, "{\n\"format\": \"%s\",\n\"source\": ", FORMAT);
    add_string(j, r->source);
    buf_str(b, ",\n\"numbers\": {");
    for (size_t i = 0; i < r->n; i++) {
        buf_str(b, i ? ",\n" : "\n");
        add_string(j, r->entry[i].name);
        buf_str(b, ": [");
        for (size_t k = 0; k < r->entry[i].n; k++) {
            char number[32];
            double v = r->entry[i].number[k];
            if (v == floor(v) && fabs(v) < 1e15)
                snprintf(number, sizeof number, "%.0f", v); /* counts; text_f64 may choose 9.3e+04 */
            else
                text_f64(number, v);
            buf_printf(b, "%s%s", k ? "," : "", number);
        }
        buf_str(b, "]");
    }
    buf_str(b, "\n}\n}\n");
    return file_write(j->err, j->path, b->at, b->len);
}

bool seqref_write(Err *err, const char *path, const SeqRef *r)
{
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < r->entry[i].n; k++)
            if (!isfinite(r->entry[i].number[k]))
                return err_user(err, "%s: not written: '%s' holds a number that is not finite", path, r->entry[i].name);
    SeqRef copy = *r;
    Job j = {.err = err, .path = path, .r = &copy};
    bool ok = mem_protect(err, write_job, &j);
    buf_free(&j.out);
    free(j.quoted);
    return ok;
}
