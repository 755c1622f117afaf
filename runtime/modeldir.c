#include "runtime/modeldir.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* ---- config.json ---- */
static const char *const known_names[] = {"_class_name",          "_diffusers_version", "architectures", "model_type",
                                          "transformers_version", "torch_dtype",        "dtype"};

/* The model's name, copied; NULL with an error. */
static const char *class_name(Arena *a, Err *err, const char *file, const json_t *root, bool *transformers)
{
    const json_t *diffusers = json_object_get(root, "_class_name"), *list = json_object_get(root, "architectures");
    const json_t *name = diffusers ? diffusers : json_array_get(list, 0);
    *transformers = !diffusers;
    if (json_is_string(name))
        return arena_str(a, json_string_value(name));
    err_user(err, "%s: expected the model's name as the string \"_class_name\" or the first of \"architectures\"",
             file);
    return NULL;
}

static bool read_config(Arena *a, Err *err, const Registry *r, const char *file, const char *text, size_t len,
                        ModelDir *out)
{
    json_error_t why;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!root || !json_is_object(root)) {
        json_decref(root);
        return root ? err_user(err, "%s: expected a JSON object", file)
                    : err_user(err, "%s:%d:%d: broken JSON: %s", file, why.line, why.column, why.text);
    }
    bool transformers;
    const char *name = class_name(a, err, file, root, &transformers);
    json_decref(root);
    out->model = name ? registry_model(r, err, file, name) : NULL;
    if (!out->model)
        return false;
    const char *weights = out->model->weights ? out->model->weights
                          : transformers      ? "model.safetensors"
                                              : "diffusion_pytorch_model.safetensors";
    out->weights = arena_printf(a, "%s/%s", out->path, weights);
    out->config = config_new(a);
    config_add_table(out->config, "", out->model->keys, out->model->n_keys);
    config_accept(out->config, known_names, (int)(sizeof known_names / sizeof *known_names));
    config_accept(out->config, out->model->ignored, out->model->n_ignored);
    return config_read_json(out->config, err, file, text, len) && config_finish(out->config, err, file);
}

bool modeldir_open(Arena *a, Err *err, const Registry *r, const char *path, ModelDir *out)
{
    *out = (ModelDir){.path = arena_str(a, path)};
    const char *file = arena_printf(a, "%s/config.json", path);
    if (!file_is_dir(path))
        return err_user(err, "%s: expected a model folder (config.json and weights), found %s", path,
                        file_exists(path) ? "a file" : "nothing of that name");
    char *text;
    size_t len;
    if (!file_read(err, file, CONFIG_MAX_BYTES, &text, &len))
        return false;
    bool ok = read_config(a, err, r, file, text, len, out);
    mem_free(text);
    return ok;
}

static json_t *config_value(const DavConfig *c, const DavKey *k)
{
    switch (k->type) {
    case DAV_KEY_INT:
        return json_integer(dav_config_int(c, k->name));
    case DAV_KEY_FLOAT:
        return json_real(dav_config_float(c, k->name));
    case DAV_KEY_BOOL:
        return json_boolean(dav_config_bool(c, k->name));
    case DAV_KEY_STRING:
        return json_string(dav_config_string(c, k->name));
    case DAV_KEY_INTS: {
        int n;
        const int64_t *v = dav_config_ints(c, k->name, &n);
        json_t *list = json_array();
        for (int i = 0; i < n; i++)
            json_array_append_new(list, json_integer(v[i]));
        return list;
    }
    }
    return NULL;
}

bool modeldir_write_config(Err *err, const char *path, const DavModel *model, const DavConfig *config)
{
    json_t *root = json_object();
    json_object_set_new(root, "_class_name", json_string(model->name));
    for (int i = 0; i < model->n_keys; i++)
        json_object_set_new(root, model->keys[i].name, config_value(config, &model->keys[i]));
    char *text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    json_decref(root);
    if (!text)
        return err_env(err, "%s/config.json: out of memory", path);
    char file[4200];
    snprintf(file, sizeof file, "%.4096s/config.json", path);
    bool ok = file_write(err, file, text, strlen(text));
    free(text);
    return ok;
}

/* ---- ports ---- */
static bool config_has_int(const DavConfig *c, const char *key)
{
    for (int i = 0; i < config_count(c); i++) {
        const char *name;
        if (config_key(c, i, &name)->type == DAV_KEY_INT && strcmp(name, key) == 0)
            return true;
    }
    return false;
}

/* The word is a number, or a key of the config: its value; else -1. */
static int64_t word_value(const DavConfig *c, const char *word)
{
    int64_t v;
    if (text_to_i64(word, &v))
        return v;
    return config_has_int(c, word) ? dav_config_int(c, word) : -1;
}

/* One alternative, "f32[B,L,alphabet_size]", as words; size -1 where the word is a letter. */
typedef struct PortType {
    char dtype[8];
    int rank;
    char word[SAFETENSOR_MAX_RANK][64];
    int64_t size[SAFETENSOR_MAX_RANK];
} PortType;

/* Reads the alternative at *p and steps behind it; false at the end, or where the author's text is no type. */
static bool next_type(const char **p, const DavConfig *c, PortType *t)
{
    memset(t, 0, sizeof *t);
    *p += strspn(*p, " |");
    size_t n = strcspn(*p, "[");
    if (!**p || n >= sizeof t->dtype || !(*p)[n])
        return false;
    memcpy(t->dtype, *p, n);
    *p += n + 1;
    while (**p && **p != ']') {
        n = strcspn(*p, ",]");
        if (t->rank == SAFETENSOR_MAX_RANK || n >= sizeof t->word[0] || n == 0)
            return false;
        memcpy(t->word[t->rank], *p, n);
        t->size[t->rank] = word_value(c, t->word[t->rank]);
        t->rank++;
        *p += n;
        *p += **p == ',';
    }
    *p += **p == ']';
    return true;
}

bool model_sequence(Err *err, const DavModel *m, const DavConfig *c, int64_t *length, int64_t *letters)
{
    PortType t;
    for (const char *p = m->input[0].types; p && next_type(&p, c, &t);)
        if (t.rank == 3 && strcmp(t.dtype, "f32") == 0 && t.size[1] > 0 && t.size[2] > 0) {
            *length = t.size[1];
            *letters = t.size[2];
            return true;
        }
    return err_user(err, "model %s: expected a first input of type f32[B,length,letters], sizes as numbers or integer keys; found %s",
                    m->name, m->input[0].types ? m->input[0].types : "none");
}

void port_types_text(Buf *out, const DavPort *port, const DavConfig *c)
{
    PortType t;
    bool first = true;
    for (const char *p = port->types; next_type(&p, c, &t); first = false) {
        buf_printf(out, "%s%s[", first ? "" : " | ", t.dtype);
        for (int i = 0; i < t.rank; i++)
            if (t.size[i] >= 0)
                buf_printf(out, "%s%lld", i ? "," : "", (long long)t.size[i]);
            else
                buf_printf(out, "%s%s", i ? "," : "", t.word[i]);
        buf_str(out, "]");
    }
}

static bool matches(const PortType *p, const SafeTensor *t, PortSizes *sizes)
{
    PortSizes learnt = *sizes;
    DavDtype dtype;
    if (!dav_dtype_from_name(p->dtype, &dtype) || t->dtype != dtype || t->rank != p->rank)
        return false;
    for (int i = 0; i < t->rank; i++) {
        int letter = p->word[i][0] - 'A';
        bool is_letter = p->size[i] < 0 && letter >= 0 && letter < 26;
        int64_t *size = is_letter ? &learnt.size[letter] : NULL;
        if (size && !*size)
            *size = t->dim[i];
        if (t->dim[i] < 1 || (size ? *size : p->size[i]) != t->dim[i])
            return false;
    }
    *sizes = learnt;
    return true;
}

static bool refuse(Err *err, const char *file, const DavPort *port, const DavConfig *c, const SafeTensor *t,
                   const PortSizes *sizes)
{
    Buf want = {0}, have = {0};
    port_types_text(&want, port, c);
    for (int i = 0; i < 26; i++)
        if (sizes->size[i])
            buf_printf(&want, "%s%c = %lld", strstr(want.at, " with ") ? ", " : " with ", 'A' + i,
                       (long long)sizes->size[i]);
    for (int i = 0; i < t->rank; i++)
        buf_printf(&have, "%s%lld", i ? "," : "", (long long)t->dim[i]);
    err_user(err, "%s: tensor '%s' is %s[%s], expected %s", file, t->name, t->file_dtype, have.len ? have.at : "",
             want.at);
    buf_free(&want);
    buf_free(&have);
    return false;
}

static bool in_limit(Err *err, const char *file, const DavPort *port, const DavConfig *c, const SafeTensor *t)
{
    int64_t limit = port->limit ? word_value(c, port->limit) : -1, count = safetensor_count(t);
    if (limit < 0 || (t->dtype != DAV_I64 && t->dtype != DAV_I32))
        return true;
    for (int64_t i = 0; i < count; i++) {
        int64_t v = t->dtype == DAV_I64 ? ((const int64_t *)t->data)[i] : ((const int32_t *)t->data)[i];
        if (v < 0 || v >= limit)
            return err_user(err, "%s: tensor '%s': element %lld is %lld, expected 0 to %lld", file, t->name,
                            (long long)i, (long long)v, (long long)limit - 1);
    }
    return true;
}

bool port_accepts(Err *err, const char *file, const DavPort *port, const DavConfig *c, const SafeTensor *t,
                  PortSizes *sizes)
{
    PortType type;
    for (const char *p = port->types; next_type(&p, c, &type);)
        if (matches(&type, t, sizes))
            return in_limit(err, file, port, c, t);
    return refuse(err, file, port, c, t, sizes);
}
