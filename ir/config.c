#include "ir/config.h"
#include <stdio.h>
#include <string.h>

typedef struct Entry {
    const DavKey *key;
    const char *name; /* with the table's prefix */
    const char *text, *place;
    union {
        int64_t i;
        double f;
        bool b;
        int64_t *ints;
    };
    int n_ints;
} Entry;

struct DavConfig {
    Arena *arena;
    Entry *entry;
    int n, room;
    const char *const **accepted;
    int *n_accepted, accepted_lists;
};

static const char *const type_names[] = {
    [DAV_KEY_INT] = "int", [DAV_KEY_FLOAT] = "float", [DAV_KEY_BOOL] = "bool",
    [DAV_KEY_STRING] = "string", [DAV_KEY_INTS] = "ints",
};

DavConfig *config_new(Arena *a)
{
    DavConfig *c = arena_alloc(a, sizeof *c);
    c->arena = a;
    return c;
}

Arena *config_arena(const DavConfig *c)
{
    return c->arena;
}

static Entry *find(const DavConfig *c, const char *name)
{
    for (int i = 0; i < c->n; i++)
        if (strcmp(c->entry[i].name, name) == 0)
            return &c->entry[i];
    return NULL;
}

/* ---- one value, from text to its type ---- */

static bool in_range(const DavKey *k, double v)
{
    return !(k->min < k->max) || (v >= k->min && v <= k->max);
}

/* The choice that equals s[0..n), or with nearest the one closest to it; NULL when there is none. */
static const char *choice_of(Arena *a, const DavKey *k, const char *s, bool nearest)
{
    const char *one[64];
    int n = 0;
    for (const char *p = k->choices; *p && n < 64;) {
        size_t len = strcspn(p, "|");
        one[n++] = arena_strn(a, p, len);
        p += len + (p[len] == '|');
    }
    if (nearest)
        return err_nearest(s, one, n);
    for (int i = 0; i < n; i++)
        if (strcmp(s, one[i]) == 0)
            return one[i];
    return NULL;
}

/* "[1, 2]" or "1,2" -> numbers; their text is normalised. */
static bool parse_ints(DavConfig *c, Entry *e, const char *text)
{
    size_t len = strlen(text);
    bool bracket = len >= 2 && text[0] == '[' && text[len - 1] == ']';
    const char *p = text + bracket, *end = text + len - bracket;
    int64_t *v = arena_array(c->arena, int64_t, CONFIG_MAX_LIST < len ? CONFIG_MAX_LIST : len + 1);
    int n = 0;
    char word[32];
    p += strspn(p, " ");
    while (p < end) {
        size_t k = strcspn(p, ", ]");
        if (n == CONFIG_MAX_LIST || k >= sizeof word)
            return false;
        memcpy(word, p, k);
        word[k] = 0;
        if (!text_to_i64(word, &v[n]) || !in_range(e->key, (double)v[n]))
            return false;
        n++;
        p += k;
        p += strspn(p, " ");
        if (p >= end)
            break;
        if (*p != ',')
            return false;
        p++;
        p += strspn(p, " ");
        if (p >= end)
            return false; /* a comma at the end */
    }
    e->ints = v;
    e->n_ints = n;
    return bracket || n > 0;
}

const char *config_ints_text(Arena *a, const int64_t *v, int n)
{
    char *text = arena_alloc(a, (size_t)n * 24 + 3), *p = text;
    *p++ = '[';
    for (int i = 0; i < n; i++)
        p += sprintf(p, "%s%lld", i ? ", " : "", (long long)v[i]);
    memcpy(p, "]", 2);
    return text;
}

static bool form_fits(const DavKey *k, ConfigForm form)
{
    static const ConfigForm own[] = {
        [DAV_KEY_INT] = CONFIG_NUMBER, [DAV_KEY_FLOAT] = CONFIG_NUMBER, [DAV_KEY_BOOL] = CONFIG_BOOL,
        [DAV_KEY_STRING] = CONFIG_STRING, [DAV_KEY_INTS] = CONFIG_LIST,
    };
    return form == CONFIG_PLAIN || form == own[k->type];
}

static bool parse_value(DavConfig *c, Entry *e, const char *text)
{
    const DavKey *k = e->key;
    switch (k->type) {
    case DAV_KEY_INT:
        return text_to_i64(text, &e->i) && in_range(k, (double)e->i);
    case DAV_KEY_FLOAT:
        return text_to_f64(text, &e->f) && in_range(k, e->f);
    case DAV_KEY_BOOL:
        e->b = strcmp(text, "true") == 0;
        return e->b || strcmp(text, "false") == 0;
    case DAV_KEY_STRING:
        return !k->choices || choice_of(c->arena, k, text, false);
    case DAV_KEY_INTS:
        return parse_ints(c, e, text);
    }
    return false;
}

/* How an error shows what a source wrote. */
static const char *found_text(DavConfig *c, ConfigText v)
{
    switch (v.form) {
    case CONFIG_OTHER:
        return v.text;
    case CONFIG_NULL:
        return "null";
    case CONFIG_STRING:
        return arena_printf(c->arena, "the string \"%.80s\"", v.text);
    case CONFIG_PLAIN:
        return *v.text ? arena_printf(c->arena, "%.80s", v.text) : "nothing";
    default:
        return arena_printf(c->arena, "%.80s", v.text);
    }
}

static bool refuse(DavConfig *c, Err *err, const char *place, const Entry *e, ConfigText v)
{
    char expected[256];
    const char *near = NULL;
    if (err->kind)
        return err_user(err, "%s: %s", place, e->name); /* counted, not told */
    if (e->key->type == DAV_KEY_STRING && e->key->choices && (v.form == CONFIG_PLAIN || v.form == CONFIG_STRING))
        near = choice_of(c->arena, e->key, v.text, true);
    return err_user(err, "%s: %s: expected %s, found %s%s%s%s", place, e->name, config_expects(e->key, expected),
                    found_text(c, v), near ? ", did you mean " : "", near ? near : "", near ? "?" : "");
}

/* ---- tables ---- */

void config_add_table(DavConfig *c, const char *prefix, const DavKey *table, int n)
{
    Entry *wide = arena_array(c->arena, Entry, c->n + n);
    if (c->n)
        memcpy(wide, c->entry, (size_t)c->n * sizeof *wide);
    c->entry = wide;
    for (int i = 0; i < n; i++) {
        const char *name = *prefix ? arena_printf(c->arena, "%s%s", prefix, table[i].name) : table[i].name;
        if (find(c, name))
            die("key %s stands in two tables", name);
        Entry probe = {.key = &table[i], .name = name};
        if (table[i].fallback && !parse_value(c, &probe, table[i].fallback))
            die("key %s: its default \"%s\" breaks its own row", name, table[i].fallback);
        c->entry[c->n++] = (Entry){.key = &table[i], .name = name};
    }
}

void config_accept(DavConfig *c, const char *const *names, int n)
{
    int k = c->accepted_lists;
    const char *const **lists = arena_array(c->arena, const char *const *, k + 1);
    int *sizes = arena_array(c->arena, int, k + 1);
    for (int i = 0; i < k; i++) {
        lists[i] = c->accepted[i];
        sizes[i] = c->n_accepted[i];
    }
    lists[k] = names;
    sizes[k] = n;
    c->accepted = lists;
    c->n_accepted = sizes;
    c->accepted_lists = k + 1;
}

bool config_accepts(const DavConfig *c, const char *name)
{
    for (int l = 0; l < c->accepted_lists; l++)
        for (int i = 0; i < c->n_accepted[l]; i++) {
            const char *a = c->accepted[l][i];
            size_t len = strlen(a);
            bool below = len > 2 && strcmp(a + len - 2, ".*") == 0 && strncmp(a, name, len - 2) == 0;
            if (strcmp(a, name) == 0 || (below && (name[len - 2] == '.' || !name[len - 2])))
                return true;
        }
    return false;
}

const char *config_nearest(const DavConfig *c, const char *name)
{
    const char **names = arena_array(c->arena, const char *, c->n + 1);
    for (int i = 0; i < c->n; i++)
        names[i] = c->entry[i].name;
    return err_nearest(name, names, c->n);
}

bool config_set(DavConfig *c, Err *err, const char *place, const char *key, ConfigText value)
{
    Entry *e = find(c, key);
    if (!e) {
        if (config_accepts(c, key))
            return true;
        const char *near =
            err->kind ? NULL : config_nearest(c, key); /* only the first error is told: others stay cheap */
        return err_user(err, "%s: %.100s: unknown key%s%s%s", place, key, near ? ", did you mean " : "",
                        near ? near : "", near ? "?" : "");
    }
    if (value.form == CONFIG_NULL && e->key->fallback)
        value = (ConfigText){CONFIG_PLAIN, e->key->fallback};
    Entry fresh = {.key = e->key, .name = e->name};
    if (!form_fits(e->key, value.form) || !parse_value(c, &fresh, value.text))
        return refuse(c, err, place, e, value);
    bool list = e->key->type == DAV_KEY_INTS;
    fresh.text = list ? config_ints_text(c->arena, fresh.ints, fresh.n_ints) : arena_str(c->arena, value.text);
    fresh.place = arena_str(c->arena, place);
    *e = fresh;
    return true;
}

bool config_finish(DavConfig *c, Err *err, const char *place)
{
    bool ok = true;
    char expected[256];
    for (int i = 0; i < c->n; i++) {
        Entry *e = &c->entry[i];
        if (e->place)
            continue;
        if (e->key->fallback)
            ok = config_set(c, err, "default", e->name, (ConfigText){CONFIG_PLAIN, e->key->fallback}) && ok;
        else
            ok = err_user(err, "%s: %s: missing, expected %s", place, e->name, config_expects(e->key, expected));
    }
    return ok;
}

/* ---- asking ---- */

bool config_has(const DavConfig *c, const char *key)
{
    return find(c, key) != NULL;
}

const char *config_place(const DavConfig *c, const char *key)
{
    const Entry *e = find(c, key);
    return e ? e->place : NULL;
}

const char *config_text(const DavConfig *c, const char *key)
{
    const Entry *e = find(c, key);
    return e ? e->text : NULL;
}

int config_count(const DavConfig *c)
{
    return c->n;
}

const DavKey *config_key(const DavConfig *c, int i, const char **full_name)
{
    must(i >= 0 && i < c->n);
    *full_name = c->entry[i].name;
    return c->entry[i].key;
}

static const Entry *get(const DavConfig *c, const char *key, DavKeyType type)
{
    const Entry *e = find(c, key);
    if (!e)
        die("key %s is in no table", key);
    if (e->key->type != type)
        die("key %s is of type %s, asked for as %s", key, type_names[e->key->type], type_names[type]);
    if (!e->place)
        die("key %s asked for before the config was finished", key);
    return e;
}

int64_t dav_config_int(const DavConfig *c, const char *key)
{
    return get(c, key, DAV_KEY_INT)->i;
}

double dav_config_float(const DavConfig *c, const char *key)
{
    return get(c, key, DAV_KEY_FLOAT)->f;
}

bool dav_config_bool(const DavConfig *c, const char *key)
{
    return get(c, key, DAV_KEY_BOOL)->b;
}

const char *dav_config_string(const DavConfig *c, const char *key)
{
    return get(c, key, DAV_KEY_STRING)->text;
}

const int64_t *dav_config_ints(const DavConfig *c, const char *key, int *n)
{
    const Entry *e = get(c, key, DAV_KEY_INTS);
    *n = e->n_ints;
    return e->ints;
}
