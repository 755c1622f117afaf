#include "ir/config.h"
#include <jansson.h>
#include <math.h>
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

static Entry *find(const DavConfig *c, const char *name)
{
    for (int i = 0; i < c->n; i++)
        if (strcmp(c->entry[i].name, name) == 0)
            return &c->entry[i];
    return NULL;
}

const char *config_expects(const DavKey *k, char out[256])
{
    static const char *const noun[] = {
        [DAV_KEY_INT] = "an integer", [DAV_KEY_FLOAT] = "a number", [DAV_KEY_BOOL] = "true or false",
        [DAV_KEY_STRING] = "a string", [DAV_KEY_INTS] = "a list of integers",
    };
    char range[80] = "", lo[32], hi[32];
    bool ranged = k->min < k->max && (k->type == DAV_KEY_INT || k->type == DAV_KEY_FLOAT || k->type == DAV_KEY_INTS);
    text_f64(lo, k->min);
    text_f64(hi, k->max);
    if (fabs(k->min) >= 1000 && fabs(k->min) < 1e15)
        snprintf(lo, sizeof lo, "%.15g", k->min);
    if (fabs(k->max) >= 1000 && fabs(k->max) < 1e15)
        snprintf(hi, sizeof hi, "%.15g", k->max);
    if (ranged && isinf(k->max))
        snprintf(range, sizeof range, " not below %s", lo);
    else if (ranged && isinf(k->min))
        snprintf(range, sizeof range, " not above %s", hi);
    else if (ranged)
        snprintf(range, sizeof range, " from %s to %s", lo, hi);
    if (k->type == DAV_KEY_STRING && k->choices)
        snprintf(out, 256, "one of %s", k->choices);
    else
        snprintf(out, 256, "%s%s", noun[k->type], range);
    return out;
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

static const char *ints_text(Arena *a, const int64_t *v, int n)
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

static bool is_accepted(const DavConfig *c, const char *name)
{
    for (int l = 0; l < c->accepted_lists; l++)
        for (int i = 0; i < c->n_accepted[l]; i++) {
            const char *a = c->accepted[l][i];
            size_t len = strlen(a);
            bool below = len > 2 && strcmp(a + len - 2, ".*") == 0;
            if (below ? strncmp(a, name, len - 2) == 0 && (name[len - 2] == '.' || !name[len - 2]) : strcmp(a, name) == 0)
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
        if (is_accepted(c, key))
            return true;
        const char *near = err->kind ? NULL : config_nearest(c, key); /* only the first error is told: the rest stays cheap */
        return err_user(err, "%s: %.100s: unknown key%s%s%s", place, key, near ? ", did you mean " : "", near ? near : "",
                        near ? "?" : "");
    }
    if (value.form == CONFIG_NULL && e->key->fallback)
        value = (ConfigText){CONFIG_PLAIN, e->key->fallback};
    Entry fresh = {.key = e->key, .name = e->name};
    if (!form_fits(e->key, value.form) || !parse_value(c, &fresh, value.text))
        return refuse(c, err, place, e, value);
    bool list = e->key->type == DAV_KEY_INTS;
    fresh.text = list ? ints_text(c->arena, fresh.ints, fresh.n_ints) : arena_str(c->arena, value.text);
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

/* ---- JSON ---- */

typedef struct JsonRead {
    DavConfig *c;
    Err *err;
    const char *file;
    const json_t *root;
} JsonRead;

static ConfigText json_list(DavConfig *c, const json_t *list)
{
    int n = (int)json_array_size(list); /* CONFIG_MAX_BYTES bounds it */
    int64_t *v = arena_array(c->arena, int64_t, n);
    for (int i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, (size_t)i);
        if (!json_is_integer(item))
            return (ConfigText){CONFIG_OTHER, arena_printf(c->arena, "a list whose item %d is no integer", i)};
        v[i] = json_integer_value(item);
    }
    return (ConfigText){CONFIG_LIST, ints_text(c->arena, v, n)};
}

static ConfigText json_text(DavConfig *c, const json_t *v)
{
    char number[32];
    switch (json_typeof(v)) {
    case JSON_STRING:
        return (ConfigText){CONFIG_STRING, json_string_value(v)};
    case JSON_INTEGER:
        return (ConfigText){CONFIG_NUMBER, arena_printf(c->arena, "%lld", (long long)json_integer_value(v))};
    case JSON_REAL:
        text_f64(number, json_real_value(v));
        return (ConfigText){CONFIG_NUMBER, arena_printf(c->arena, "%s%s", number, strpbrk(number, ".e") ? "" : ".0")};
    case JSON_TRUE:
        return (ConfigText){CONFIG_BOOL, "true"};
    case JSON_FALSE:
        return (ConfigText){CONFIG_BOOL, "false"};
    case JSON_NULL:
        return (ConfigText){CONFIG_NULL, ""};
    case JSON_ARRAY:
        return json_list(c, v);
    default:
        return (ConfigText){CONFIG_OTHER, "an object"};
    }
}

static bool read_object(JsonRead *r, const json_t *object, const char *prefix, int depth)
{
    const char *key;
    json_t *v;
    bool ok = true;
    if (depth > CONFIG_MAX_DEPTH)
        return err_user(r->err, "%s: %.100s: objects nested deeper than %d", r->file, prefix, CONFIG_MAX_DEPTH);
    json_object_foreach((json_t *)(uintptr_t)object, key, v) {
        if (strlen(prefix) + strlen(key) >= CONFIG_MAX_NAME)
            return err_user(r->err, "%s: %.60s...: name longer than %d characters", r->file, key, CONFIG_MAX_NAME);
        const char *name = arena_printf(r->c->arena, "%s%s", prefix, key);
        if (json_is_object(v) && !find(r->c, name) && !is_accepted(r->c, name))
            ok = read_object(r, v, arena_printf(r->c->arena, "%s.", name), depth + 1) && ok;
        else
            ok = config_set(r->c, r->err, r->file, name, json_text(r->c, v)) && ok;
    }
    return ok;
}

static bool read_root(void *arg)
{
    JsonRead *r = arg;
    return read_object(r, r->root, "", 0);
}

bool config_read_json(DavConfig *c, Err *err, const char *file, const char *text, size_t len)
{
    if (len > CONFIG_MAX_BYTES)
        return err_user(err, "%s: %zu bytes, expected at most %d", file, len, CONFIG_MAX_BYTES);
    json_error_t why;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return err_user(err, "%s:%d: expected JSON, found: %s", file, why.line, why.text);
    JsonRead r = {c, err, file, root};
    bool ok = json_is_object(root) ? mem_protect(err, read_root, &r)
                                   : err_user(err, "%s: expected a JSON object at the top", file);
    json_decref(root);
    return ok;
}

bool config_read_json_file(DavConfig *c, Err *err, const char *path)
{
    char *text;
    size_t len;
    if (!file_read(err, path, CONFIG_MAX_BYTES, &text, &len))
        return false;
    bool ok = config_read_json(c, err, path, text, len);
    mem_free(text);
    return ok && config_finish(c, err, path);
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

/* ---- describing ---- */

/* '|' would end a cell of a Markdown table. */
static void cell(Buf *out, const char *s, ConfigStyle style)
{
    for (; *s; s++) {
        if (*s == '|' && style == CONFIG_AS_MARKDOWN)
            buf_str(out, "\\");
        buf_add(out, s, 1);
    }
}

void config_describe(Buf *out, const char *prefix, const DavKey *table, int n, ConfigStyle style)
{
    int name_w = 0, fallback_w = 0, expects_w = 0;
    char expected[256];
#define WIDEN(w, s) ((w) = (int)strlen(s) > (w) ? (int)strlen(s) : (w))
    for (int i = 0; i < n; i++) {
        WIDEN(name_w, table[i].name);
        WIDEN(fallback_w, table[i].fallback ? table[i].fallback : "required");
        WIDEN(expects_w, config_expects(&table[i], expected));
    }
#undef WIDEN
    name_w += (int)strlen(prefix);
    if (expects_w > 40)
        expects_w = 40;
    if (style == CONFIG_AS_MARKDOWN)
        buf_str(out, "| key | default | expected | meaning |\n|---|---|---|---|\n");
    for (int i = 0; i < n; i++) {
        const char *fallback = table[i].fallback ? table[i].fallback : "required";
        config_expects(&table[i], expected);
        if (style == CONFIG_AS_TEXT) {
            buf_printf(out, "  %s%-*s  %-*s  %-*s  %s\n", prefix, name_w - (int)strlen(prefix), table[i].name, fallback_w,
                       fallback, expects_w, expected, table[i].meaning);
            continue;
        }
        buf_printf(out, "| `%s%s` | %s | ", prefix, table[i].name, *fallback ? fallback : "(empty)");
        cell(out, expected, style);
        buf_str(out, " | ");
        cell(out, table[i].meaning, style);
        buf_str(out, " |\n");
    }
}
