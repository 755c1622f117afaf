#include "runtime/safetensors.h"
#include <endian.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char META[] = "__metadata__";

static const char *const type_names[DAV_DTYPE_COUNT] = {
    [DAV_F64] = "F64", [DAV_F32] = "F32", [DAV_BF16] = "BF16", [DAV_F16] = "F16",
    [DAV_I64] = "I64", [DAV_I32] = "I32", [DAV_U32] = "U32",   [DAV_BOOL] = "BOOL",
};

static int by_width_then_name(const void *a, const void *b)
{
    const SafeTensor *x = *(const SafeTensor *const *)a, *y = *(const SafeTensor *const *)b;
    size_t wx = dav_dtype_size(x->dtype), wy = dav_dtype_size(y->dtype);
    return wx != wy ? (wx > wy ? -1 : 1) : strcmp(x->name, y->name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const SafeMeta *)a)->key, ((const SafeMeta *)b)->key);
}

static size_t data_bytes(const SafeTensor *t)
{
    size_t n = dav_dtype_size(t->dtype);
    for (int i = 0; i < t->rank; i++)
        n = mem_mul(n, (size_t)t->dim[i]);
    return n;
}

/* jansson refuses a NULL value and text that is not UTF-8. */
static bool put(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

static bool add_meta(json_t *header, const SafeMeta *meta, size_t n)
{
    json_t *object = json_object();
    for (size_t i = 0; i < n; i++)
        if (!put(object, meta[i].key, json_string(meta[i].value))) {
            json_decref(object);
            return false;
        }
    return put(header, META, object);
}

static bool add_tensor(json_t *header, const SafeTensor *t, size_t begin)
{
    json_t *shape = json_array();
    for (int i = 0; i < t->rank; i++)
        json_array_append_new(shape, json_integer(t->dim[i]));
    size_t end = begin + data_bytes(t);
    return put(header, t->name, json_pack("{s:s, s:o, s:[I, I]}", "dtype", type_names[t->dtype], "shape", shape, "data_offsets",
                                          (json_int_t)begin, (json_int_t)end));
}

/* The header's text (json's malloc), padded with blanks to a multiple of 8 as the format asks; NULL when a name is bad. */
static char *header_text(const SafeTensor *const *order, size_t n, const SafeMeta *meta, size_t n_meta, size_t *len)
{
    json_t *header = json_object();
    size_t begin = 0;
    bool ok = n_meta == 0 || add_meta(header, meta, n_meta);
    for (size_t i = 0; ok && i < n; i++) {
        ok = strcmp(order[i]->name, META) != 0 && !json_object_get(header, order[i]->name) && add_tensor(header, order[i], begin);
        begin += data_bytes(order[i]);
    }
    char *text = ok ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    if (!text)
        return NULL;
    size_t bare = strlen(text);
    *len = (bare + 7) & ~(size_t)7;
    char *padded = realloc(text, *len + 1);
    if (!padded) {
        free(text);
        return NULL;
    }
    memset(padded + bare, ' ', *len - bare);
    return padded;
}

static bool put_all(Err *err, FileWriter *w, const SafeTensor *const *order, size_t n, const char *text, size_t len)
{
    uint64_t size = htole64(len);
    if (!file_writer_put(err, w, &size, sizeof size) || !file_writer_put(err, w, text, len))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!file_writer_put(err, w, order[i]->data, data_bytes(order[i])))
            return false;
    return true;
}

typedef struct Job {
    Err *err;
    const char *path;
    const SafeTensor *tensor;
    size_t n;
    const SafeMeta *meta;
    size_t n_meta;
    Arena *arena;
    char *text; /* of the header */
} Job;

static bool write_job(void *arg)
{
    Job *j = arg;
    j->arena = arena_new();
    const SafeTensor **order = arena_array(j->arena, const SafeTensor *, j->n);
    SafeMeta *meta = arena_copy(j->arena, j->meta, j->n_meta * sizeof *meta);
    for (size_t i = 0; i < j->n; i++)
        order[i] = &j->tensor[i];
    qsort(order, j->n, sizeof *order, by_width_then_name);
    qsort(meta, j->n_meta, sizeof *meta, by_key);
    size_t len = 0;
    j->text = header_text(order, j->n, meta, j->n_meta, &len);
    if (!j->text)
        return err_user(j->err, "%s: not written: a name of a tensor or of metadata is not UTF-8, or a tensor's occurs twice",
                        j->path);
    FileWriter w = {0};
    if (!file_writer_open(j->err, &w, j->path))
        return false;
    if (put_all(j->err, &w, order, j->n, j->text, len))
        return file_writer_commit(j->err, &w);
    file_writer_abandon(&w);
    return false;
}

bool safetensors_write(Err *err, const char *path, const SafeTensor *tensor, size_t n, const SafeMeta *meta, size_t n_meta)
{
    Job j = {.err = err, .path = path, .tensor = tensor, .n = n, .meta = meta, .n_meta = n_meta};
    bool ok = mem_protect(err, write_job, &j);
    free(j.text);
    arena_free(j.arena);
    return ok;
}
