#include "ir/config.h"
#include <jansson.h>
#include <string.h>

typedef struct JsonRead {
    DavConfig *c;
    Arena *arena;
    Err *err;
    const char *file;
    const json_t *root;
} JsonRead;

static ConfigText json_list(Arena *arena, const json_t *list)
{
    int n = (int)json_array_size(list); /* CONFIG_MAX_BYTES bounds it */
    int64_t *v = arena_array(arena, int64_t, n);
    for (int i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, (size_t)i);
        if (!json_is_integer(item))
            return (ConfigText){CONFIG_OTHER, arena_printf(arena, "a list whose item %d is no integer", i)};
        v[i] = json_integer_value(item);
    }
    return (ConfigText){CONFIG_LIST, config_ints_text(arena, v, n)};
}

static ConfigText json_text(Arena *arena, const json_t *v)
{
    char number[32];
    switch (json_typeof(v)) {
    case JSON_STRING:
        return (ConfigText){CONFIG_STRING, json_string_value(v)};
    case JSON_INTEGER:
        return (ConfigText){CONFIG_NUMBER, arena_printf(arena, "%lld", (long long)json_integer_value(v))};
    case JSON_REAL:
        text_f64(number, json_real_value(v));
        return (ConfigText){CONFIG_NUMBER, arena_printf(arena, "%s%s", number, strpbrk(number, ".e") ? "" : ".0")};
    case JSON_TRUE:
        return (ConfigText){CONFIG_BOOL, "true"};
    case JSON_FALSE:
        return (ConfigText){CONFIG_BOOL, "false"};
    case JSON_NULL:
        return (ConfigText){CONFIG_NULL, ""};
    case JSON_ARRAY:
        return json_list(arena, v);
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
        const char *name = arena_printf(r->arena, "%s%s", prefix, key);
        if (json_is_object(v) && !config_has(r->c, name) && !config_accepts(r->c, name))
            ok = read_object(r, v, arena_printf(r->arena, "%s.", name), depth + 1) && ok;
        else
            ok = config_set(r->c, r->err, r->file, name, json_text(r->arena, v)) && ok;
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
    JsonRead r = {c, config_arena(c), err, file, root};
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
