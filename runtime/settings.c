#include "runtime/settings.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef struct Setting {
    const char *name, *place;
    ConfigText value;
} Setting;

struct Settings {
    Arena *arena;
    Setting *item;
    int n, room;
};

Settings *settings_new(Arena *a)
{
    Settings *s = arena_alloc(a, sizeof *s);
    s->arena = a;
    return s;
}

static void add(Settings *s, const char *name, ConfigText value, const char *place)
{
    if (s->n == s->room) {
        s->room = s->room ? 2 * s->room : 32;
        Setting *wide = arena_array(s->arena, Setting, s->room);
        if (s->n)
            memcpy(wide, s->item, (size_t)s->n * sizeof *wide);
        s->item = wide;
    }
    s->item[s->n++] = (Setting){name, place, value};
}

static bool is_utf8(const char *s)
{
    for (const unsigned char *p = (const unsigned char *)s; *p;) {
        int more = *p < 0x80                 ? 0
                   : *p >= 0xc2 && *p < 0xe0 ? 1
                   : *p >= 0xe0 && *p < 0xf0 ? 2
                   : *p >= 0xf0 && *p < 0xf5 ? 3
                                             : -1;
        if (more < 0)
            return false;
        for (p++; more > 0; more--, p++)
            if ((*p & 0xc0) != 0x80)
                return false;
    }
    return true;
}

bool settings_set_for(Settings *s, Err *err, const char *option, const char *assignment)
{
    if (!is_utf8(assignment))
        return err_user(err, "%s: expected UTF-8, found other bytes in %.100s", option, assignment);
    const char *eq = strchr(assignment, '=');
    if (!eq || eq == assignment || eq - assignment >= CONFIG_MAX_NAME)
        return err_user(err, "%s: expected NAME=VALUE, found %.100s", option, assignment);
    add(s, arena_strn(s->arena, assignment, (size_t)(eq - assignment)),
        (ConfigText){CONFIG_PLAIN, arena_str(s->arena, eq + 1)}, arena_str(s->arena, option));
    return true;
}

bool settings_set_device(Settings *s, Err *err, const char *device)
{
    return !device || settings_set_for(s, err, "--device", arena_printf(s->arena, "device=%s", device));
}

bool settings_set(Settings *s, Err *err, const char *assignment)
{
    return settings_set_for(s, err, "--set", assignment);
}

const char *settings_get(const Settings *s, const char *name)
{
    for (int i = s->n - 1; i >= 0; i--)
        if (strcmp(s->item[i].name, name) == 0)
            return s->item[i].value.text;
    return NULL;
}

int settings_count(const Settings *s)
{
    return s->n;
}

const char *settings_item(const Settings *s, int i, const char **text, const char **place)
{
    must(i >= 0 && i < s->n);
    *text = s->item[i].value.text;
    *place = s->item[i].place;
    return s->item[i].name;
}

bool settings_apply(const Settings *s, Err *err, DavConfig *c)
{
    bool ok = true;
    for (int i = 0; i < s->n; i++)
        ok = config_set(c, err, s->item[i].place, s->item[i].name, s->item[i].value) && ok;
    return ok;
}

/* ---- reading YAML ---- */

typedef struct Chain {
    const struct Chain *outer; /* the file that named this one as its base */
    const char *real_path;
} Chain;

typedef struct Yaml {
    Settings *settings; /* of this file alone */
    Err *err;
    const char *file;
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
    Map seen; /* dotted name -> line */
    const char *base;
    int base_line;
} Yaml;

static int line_of(const Yaml *y)
{
    return (int)y->event.start_mark.line + 1;
}

static bool next(Yaml *y)
{
    if (y->has_event)
        yaml_event_delete(&y->event);
    y->has_event = yaml_parser_parse(&y->parser, &y->event) != 0;
    if (!y->has_event)
        return err_user_at(y->err, y->file, (int)y->parser.problem_mark.line + 1, "expected YAML, found: %s%s%s",
                           y->parser.context ? y->parser.context : "", y->parser.context ? " " : "",
                           y->parser.problem ? y->parser.problem : "unreadable text");
    const yaml_event_t *e = &y->event;
    bool is_scalar = e->type == YAML_SCALAR_EVENT, is_list = e->type == YAML_SEQUENCE_START_EVENT;
    bool is_map = e->type == YAML_MAPPING_START_EVENT;
    const void *anchor = is_scalar ? e->data.scalar.anchor : is_list ? e->data.sequence_start.anchor
                       : is_map ? e->data.mapping_start.anchor : NULL;
    const void *tag = is_scalar ? e->data.scalar.tag : is_list ? e->data.sequence_start.tag
                    : is_map ? e->data.mapping_start.tag : NULL;
    if (anchor || tag || e->type == YAML_ALIAS_EVENT)
        return err_user_at(y->err, y->file, line_of(y), "expected plain settings, found %s",
                           tag ? "a tag" : anchor ? "an anchor" : "an alias");
    return true;
}

/* The text of a scalar event; NULL after an error. */
static const char *scalar(Yaml *y, const char *name)
{
    size_t len = y->event.data.scalar.length;
    const char *text = arena_strn(y->settings->arena, (const char *)y->event.data.scalar.value, len);
    if (strlen(text) == len)
        return text;
    err_user_at(y->err, y->file, line_of(y), "%s: expected text, found a zero byte in it", name);
    return NULL;
}

static bool read_scalar(Yaml *y, const char *name, ConfigText *out)
{
    const char *text = scalar(y, name);
    if (!text)
        return false;
    if (y->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        *out = (ConfigText){CONFIG_STRING, text};
    else if (!*text)
        *out = (ConfigText){CONFIG_OTHER, "nothing"};
    else if (strcmp(text, "null") == 0 || strcmp(text, "~") == 0)
        *out = (ConfigText){CONFIG_NULL, text};
    else
        *out = (ConfigText){CONFIG_PLAIN, text};
    return true;
}

static bool read_list(Yaml *y, const char *name, ConfigText *out)
{
    Arena *a = y->settings->arena;
    const char **items = arena_array(a, const char *, CONFIG_MAX_LIST);
    size_t bytes = 3;
    int n = 0;
    for (;;) {
        if (!next(y))
            return false;
        if (y->event.type == YAML_SEQUENCE_END_EVENT)
            break;
        if (y->event.type != YAML_SCALAR_EVENT)
            return err_user_at(y->err, y->file, line_of(y), "%s: expected a list of values, found a %s in it", name,
                               y->event.type == YAML_SEQUENCE_START_EVENT ? "list" : "map");
        if (n == CONFIG_MAX_LIST)
            return err_user_at(y->err, y->file, line_of(y), "%s: expected at most %d values", name, CONFIG_MAX_LIST);
        if (!(items[n] = scalar(y, name)))
            return false;
        bytes += strlen(items[n++]) + 2;
    }
    char *text = arena_alloc(a, bytes), *p = text;
    *p++ = '[';
    for (int i = 0; i < n; i++)
        p += sprintf(p, "%s%s", i ? ", " : "", items[i]);
    memcpy(p, "]", 2);
    *out = (ConfigText){CONFIG_LIST, text};
    return true;
}

static bool read_map(Yaml *y, const char *prefix, int depth);

/* What stands after a key, the current event being its first. */
static bool read_value(Yaml *y, const char *name, int line, int depth)
{
    ConfigText value;
    int64_t earlier;
    if (y->event.type == YAML_MAPPING_START_EVENT)
        return read_map(y, arena_printf(y->settings->arena, "%s.", name), depth + 1);
    if (y->event.type == YAML_SCALAR_EVENT ? !read_scalar(y, name, &value) : !read_list(y, name, &value))
        return false;
    if (map_get(&y->seen, name, &earlier))
        return err_user_at(y->err, y->file, line, "%s: set twice, first in line %lld", name, (long long)earlier);
    map_put(&y->seen, name, line);
    if (strcmp(name, "base") == 0) {
        y->base = value.text;
        y->base_line = line;
        return value.form == CONFIG_PLAIN || value.form == CONFIG_STRING ||
               err_user_at(y->err, y->file, line, "base: expected the name of a file, found %s", value.text);
    }
    add(y->settings, name, value, arena_printf(y->settings->arena, "%s:%d", y->file, line));
    return true;
}

static bool read_map(Yaml *y, const char *prefix, int depth)
{
    if (depth > CONFIG_MAX_DEPTH)
        return err_user_at(y->err, y->file, line_of(y), "maps nested deeper than %d", CONFIG_MAX_DEPTH);
    for (int n = 0;; n++) {
        if (!next(y))
            return false;
        if (y->event.type == YAML_MAPPING_END_EVENT)
            return n > 0 ||
                   err_user_at(y->err, y->file, line_of(y), "%s expected settings, found an empty map", prefix);
        if (y->event.type != YAML_SCALAR_EVENT || y->event.data.scalar.length == 0)
            return err_user_at(y->err, y->file, line_of(y), "expected the name of a setting");
        if (strlen(prefix) + y->event.data.scalar.length >= CONFIG_MAX_NAME)
            return err_user_at(y->err, y->file, line_of(y), "name longer than %d characters", CONFIG_MAX_NAME);
        int line = line_of(y);
        const char *key = scalar(y, "name");
        if (!key)
            return false;
        const char *name = arena_printf(y->settings->arena, "%s%s", prefix, key);
        if (!next(y) || !read_value(y, name, line, depth))
            return false;
    }
}

static bool read_document(void *arg)
{
    Yaml *y = arg;
    if (!next(y) || !next(y)) /* the stream starts, the document starts */
        return false;
    if (y->event.type != YAML_DOCUMENT_START_EVENT)
        return err_user(y->err, "%s: expected a map of settings, found nothing", y->file);
    if (!next(y))
        return false;
    if (y->event.type != YAML_MAPPING_START_EVENT)
        return err_user_at(y->err, y->file, line_of(y), "expected a map of settings (name: value)");
    if (!read_map(y, "", 1) || !next(y) || !next(y))
        return false;
    return y->event.type == YAML_STREAM_END_EVENT ||
           err_user_at(y->err, y->file, line_of(y), "expected the end, found a second document");
}

static bool read_file(Settings *s, Err *err, const char *path, const Chain *outer);

static bool read_base(Settings *s, const Yaml *y, const Chain *chain)
{
    const char *slash = strrchr(y->file, '/');
    int folder = slash && y->base[0] != '/' ? (int)(slash - y->file) + 1 : 0;
    Err inner = {.kind = ERR_NONE};
    if (read_file(s, &inner, arena_printf(s->arena, "%.*s%s", folder, y->file, y->base), chain))
        return true;
    return (inner.kind == ERR_USER ? err_user : err_env)(y->err, "%s (base of %s:%d)", inner.text, y->file,
                                                         y->base_line);
}

static bool parse(Settings *s, Err *err, const char *file, const char *text, size_t len, const Chain *chain)
{
    if (len > CONFIG_MAX_BYTES)
        return err_user(err, "%s: %zu bytes, expected at most %d", file, len, CONFIG_MAX_BYTES);
    Yaml y = {.settings = settings_new(s->arena), .err = err, .file = arena_str(s->arena, file)};
    if (!yaml_parser_initialize(&y.parser))
        return err_env(err, "%s: out of memory", file);
    yaml_parser_set_input_string(&y.parser, (const unsigned char *)text, len);
    bool ok = mem_protect(err, read_document, &y);
    if (y.has_event)
        yaml_event_delete(&y.event);
    yaml_parser_delete(&y.parser);
    map_free(&y.seen);
    if (!ok || (y.base && !read_base(s, &y, chain)))
        return false;
    for (int i = 0; i < y.settings->n; i++)
        add(s, y.settings->item[i].name, y.settings->item[i].value, y.settings->item[i].place);
    return true;
}

bool settings_parse_yaml(Settings *s, Err *err, const char *file, const char *text, size_t len)
{
    return parse(s, err, file, text, len, NULL);
}

typedef struct Kept { Arena *arena; char *text; size_t len; } Kept;

static bool keep(void *arg)
{
    Kept *k = arg;
    char *copy = arena_strn(k->arena, k->text, k->len);
    mem_free(k->text);
    k->text = copy;
    return true;
}

/* Reads a file into the arena, so that nothing is lost when memory runs out later. */
static bool read_kept(Err *err, const char *path, Kept *k)
{
    if (!file_read(err, path, CONFIG_MAX_BYTES, &k->text, &k->len))
        return false;
    char *text = k->text;
    if (mem_protect(err, keep, k))
        return true;
    mem_free(text);
    return false;
}

static bool read_file(Settings *s, Err *err, const char *path, const Chain *outer)
{
    char *real = realpath(path, NULL);
    Chain link = {outer, arena_str(s->arena, real ? real : path)};
    free(real);
    int depth = 0;
    for (const Chain *c = outer; c; c = c->outer, depth++)
        if (strcmp(c->real_path, link.real_path) == 0)
            return err_user(err, "%s: rests upon itself", path);
    if (depth > SETTINGS_MAX_BASES)
        return err_user(err, "%s: more than %d files rest one upon the other", path, SETTINGS_MAX_BASES);
    Kept k = {.arena = s->arena};
    return read_kept(err, path, &k) && parse(s, err, path, k.text, k.len, &link);
}

bool settings_read_yaml(Settings *s, Err *err, const char *path)
{
    return read_file(s, err, path, NULL);
}

/* ---- writing YAML ---- */

static bool needs_quotes(const char *s)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
    double number;
    if (!*s || text_to_f64(s, &number) || !strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/_", *s))
        return true;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(s, words[i]) == 0)
            return true;
    return s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_.-+")] != 0;
}

/* Line breaks to YAML, which it would fold: written by name. */
#define LINE_SEPARATOR "\u2028"
#define PARAGRAPH_SEPARATOR "\u2029"

static void write_string(Buf *out, const char *s)
{
    if (!needs_quotes(s)) {
        buf_str(out, s);
        return;
    }
    buf_str(out, "\"");
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            buf_printf(out, "\\%c", *s);
        else if ((unsigned char)*s < 0x20 || *s == 0x7f)
            buf_printf(out, "\\x%02x", *s);
        else if ((unsigned char)*s == 0xc2 && (unsigned char)s[1] < 0xa0) /* U+0080..U+009F, which YAML refuses */
            buf_printf(out, "\\x%02x", (unsigned char)*++s);
        else if (strncmp(s, LINE_SEPARATOR, 3) == 0)
            buf_str(out, "\\L"), s += 2;
        else if (strncmp(s, PARAGRAPH_SEPARATOR, 3) == 0)
            buf_str(out, "\\P"), s += 2;
        else
            buf_add(out, s, 1);
    }
    buf_str(out, "\"");
}

static void write_entry(Buf *out, const DavConfig *c, const DavKey *k, const char *name, const char *shown, int depth)
{
    buf_printf(out, "%*s%s: ", 2 * depth, "", shown);
    if (k->type == DAV_KEY_STRING)
        write_string(out, config_text(c, name));
    else
        buf_str(out, config_text(c, name));
    buf_str(out, "  # ");
    for (const char *p = config_place(c, name); *p; p++)
        buf_add(out, (unsigned char)*p < 0x20 || *p == 0x7f ? "?" : p, 1);
    buf_str(out, "\n");
}

static bool starts_with(const char *s, const char *prefix, size_t len)
{
    return strncmp(s, prefix, len) == 0;
}

/* All keys that start with the first `len` characters of `prefix`, the next part of their names being map or key. */
static void write_group(Buf *out, const DavConfig *c, const char *prefix, size_t len, int depth)
{
    for (int i = 0; i < config_count(c); i++) {
        const char *name, *before;
        const DavKey *k = config_key(c, i, &name);
        if (!starts_with(name, prefix, len))
            continue;
        size_t part = strcspn(name + len, ".");
        bool leaf = name[len + part] == 0, first = true, is_key_too = false;
        for (int j = 0; j < config_count(c) && !leaf; j++) {
            config_key(c, j, &before);
            bool same = starts_with(before, name, len + part);
            first = first && !(j < i && same && before[len + part] == '.');
            is_key_too = is_key_too || (same && before[len + part] == 0);
        }
        if (leaf || is_key_too) { /* `search` beside `search.gamma`: no map can hold both, so the name stays dotted */
            write_entry(out, c, k, name, name + len, depth);
        } else if (first) {
            buf_printf(out, "%*s%.*s:\n", 2 * depth, "", (int)part, name + len);
            write_group(out, c, name, len + part + 1, depth + 1);
        }
    }
}

void settings_write_yaml(Buf *out, const DavConfig *c)
{
    write_group(out, c, "", 0, 0);
}
