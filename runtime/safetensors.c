#include "runtime/safetensors.h"
#include "ir/dtype.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The headers of the largest networks have a few hundred KiB, adapters with a training log up to a few MiB.  jansson
 * takes up to 80 times the text and a second for 4 MiB of hostile header. */
enum { MAX_HEADER = 4 << 20, HEADER_DEPTH = 3 };

struct SafeStore {
    Arena *arena;
    Map by_name;
    void *mapped;
    size_t mapped_bytes;
};

/* What the format knows; the types we compute with first. */
static const struct { const char *name; size_t size; DavDtype dtype; } file_dtypes[] = {
    {"F64", 8, DAV_F64},           {"F32", 4, DAV_F32},           {"BF16", 2, DAV_BF16},
    {"F16", 2, DAV_F16},           {"I64", 8, DAV_I64},           {"I32", 4, DAV_I32},
    {"U32", 4, DAV_U32},           {"BOOL", 1, DAV_BOOL},         {"U8", 1, DAV_DTYPE_COUNT},
    {"I8", 1, DAV_DTYPE_COUNT},    {"I16", 2, DAV_DTYPE_COUNT},   {"U16", 2, DAV_DTYPE_COUNT},
    {"U64", 8, DAV_DTYPE_COUNT},   {"C64", 8, DAV_DTYPE_COUNT},   {"F8_E4M3", 1, DAV_DTYPE_COUNT},
    {"F8_E5M2", 1, DAV_DTYPE_COUNT}, {"F8_E8M0", 1, DAV_DTYPE_COUNT},
};
enum { N_FILE_DTYPES = sizeof file_dtypes / sizeof *file_dtypes };

static int file_dtype_index(const char *name)
{
    for (int i = 0; i < N_FILE_DTYPES; i++)
        if (strcmp(file_dtypes[i].name, name) == 0)
            return i;
    return -1;
}

static bool unknown_dtype(Err *err, const char *path, const char *tensor, const char *name)
{
    const char *known[N_FILE_DTYPES];
    for (int i = 0; i < N_FILE_DTYPES; i++)
        known[i] = file_dtypes[i].name;
    const char *near = err_nearest(name, known, N_FILE_DTYPES);
    return err_user(err, "%s: tensor '%.200s': unknown dtype '%.40s'%s%s%s", path, tensor, name, near ? ", did you mean " : "",
                    near ? near : "", near ? "?" : "");
}

/* ---- reading ---- */
typedef struct Reader {
    Err *err;
    const char *path;
    const unsigned char *file; /* the whole file */
    size_t file_bytes;
    const unsigned char *data; /* what follows the header */
    size_t data_bytes;
    json_t *header;
    SafeTensors *out;
} Reader;

/* Deeper nesting than the format has is refused before jansson builds it in memory. */
static bool check_depth(Reader *r, const char *text, size_t n)
{
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        if (quoted && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
        else if (!quoted && (text[i] == '{' || text[i] == '['))
            depth++;
        else if (!quoted && (text[i] == '}' || text[i] == ']'))
            depth--;
        if (depth > HEADER_DEPTH)
            return err_user(r->err, "%s: header byte %zu: nested deeper than a safetensors header", r->path, i);
    }
    return true;
}

static bool read_header(Reader *r)
{
    uint64_t len = 0;
    if (r->file_bytes < 8)
        return err_user(r->err, "%s: not a safetensors file: %zu bytes, expected at least 8", r->path, r->file_bytes);
    for (int i = 7; i >= 0; i--)
        len = len << 8 | r->file[i];
    if (len > r->file_bytes - 8)
        return err_user(r->err, "%s: not a safetensors file, or cut short: its header says %llu bytes, %zu follow", r->path,
                        (unsigned long long)len, r->file_bytes - 8);
    if (len > MAX_HEADER)
        return err_user(r->err, "%s: header of %llu bytes, expected at most %d", r->path, (unsigned long long)len, MAX_HEADER);
    const char *text = (const char *)r->file + 8;
    if (len < 2 || text[0] != '{')
        return err_user(r->err, "%s: not a safetensors file: its header does not begin with '{'", r->path);
    if (!check_depth(r, text, (size_t)len))
        return false;
    json_error_t why;
    r->header = json_loadb(text, (size_t)len, JSON_REJECT_DUPLICATES, &why);
    if (!r->header)
        return json_error_code(&why) == json_error_out_of_memory
                   ? err_env(r->err, "%s: out of memory", r->path)
                   : err_user(r->err, "%s: header byte %d: %s", r->path, why.position, why.text);
    r->data = r->file + 8 + len;
    r->data_bytes = r->file_bytes - 8 - (size_t)len;
    return true;
}

static bool read_meta(Reader *r, const json_t *meta)
{
    if (!json_is_object(meta))
        return err_user(r->err, "%s: __metadata__: expected an object of strings", r->path);
    Arena *a = r->out->store->arena;
    r->out->meta = arena_array(a, SafeMeta, json_object_size(meta));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)meta, key, value) {
        if (!json_is_string(value))
            return err_user(r->err, "%s: __metadata__ '%.200s': expected a string", r->path, key);
        r->out->meta[r->out->n_meta++] = (SafeMeta){arena_str(a, key), arena_str(a, json_string_value(value))};
    }
    return true;
}

/* A list of non-negative integers, at most max of them; its length, or -1 with an error. */
static int read_ints(Reader *r, const char *tensor, const json_t *list, const char *what, int max, int64_t *out)
{
    size_t n = json_array_size(list); /* 0 when it is no array */
    if (!json_is_array(list) || n > (size_t)max) {
        err_user(r->err, "%s: tensor '%.200s': %s: expected a list of at most %d integers%s", r->path, tensor, what, max,
                 list ? "" : ", found none");
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0) {
            err_user(r->err, "%s: tensor '%.200s': %s[%zu]: expected an integer >= 0", r->path, tensor, what, i);
            return -1;
        }
        out[i] = json_integer_value(v);
    }
    return (int)n;
}

/* Bytes of the shape; false when that does not fit.  Sizes of 0 do not hide an overflow of the others. */
static bool shape_bytes(const int64_t *dim, int rank, size_t elem, size_t *bytes)
{
    size_t n = elem;
    bool empty = false;
    for (int i = 0; i < rank; i++) {
        empty |= dim[i] == 0;
        if (dim[i] != 0 && __builtin_mul_overflow(n, (size_t)dim[i], &n))
            return false;
    }
    *bytes = empty ? 0 : n;
    return n <= PTRDIFF_MAX;
}

static bool read_tensor(Reader *r, const char *name, const json_t *entry, SafeTensor *t)
{
    const json_t *dtype = json_object_get(entry, "dtype");
    if (!json_is_object(entry) || json_object_size(entry) != 3 || !json_is_string(dtype))
        return err_user(r->err, "%s: tensor '%.200s': expected exactly dtype (a string), shape and data_offsets", r->path, name);
    int type = file_dtype_index(json_string_value(dtype));
    if (type < 0)
        return unknown_dtype(r->err, r->path, name, json_string_value(dtype));
    *t = (SafeTensor){.file_dtype = file_dtypes[type].name, .dtype = file_dtypes[type].dtype};
    t->rank = read_ints(r, name, json_object_get(entry, "shape"), "shape", SAFETENSOR_MAX_RANK, t->dim);
    if (t->rank < 0)
        return false;
    if (!shape_bytes(t->dim, t->rank, file_dtypes[type].size, &t->bytes))
        return err_user(r->err, "%s: tensor '%.200s': its shape is too large for any file", r->path, name);
    int64_t at[2];
    int n = read_ints(r, name, json_object_get(entry, "data_offsets"), "data_offsets", 2, at);
    if (n < 0)
        return false;
    if (n != 2 || at[0] > at[1] || (uint64_t)at[1] > r->data_bytes)
        return err_user(r->err, "%s: tensor '%.200s': data_offsets: expected begin <= end <= %zu (the data's bytes)%s", r->path,
                        name, r->data_bytes, n == 2 && at[0] <= at[1] ? "; is the file cut short?" : "");
    if ((size_t)(at[1] - at[0]) != t->bytes)
        return err_user(r->err, "%s: tensor '%.200s': its shape and dtype need %zu bytes, data_offsets give %lld", r->path, name,
                        t->bytes, (long long)(at[1] - at[0]));
    t->name = arena_str(r->out->store->arena, name);
    t->data = r->data + at[0];
    return true;
}

static int by_data(const void *a, const void *b)
{
    const SafeTensor *x = a, *y = b;
    if (x->data != y->data)
        return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    if ((x->bytes == 0) != (y->bytes == 0)) /* empty tensors stand before the one that begins at the same place */
        return x->bytes == 0 ? -1 : 1;
    return strcmp(x->name, y->name);
}

static bool check_cover(Reader *r)
{
    const unsigned char *end = r->data;
    for (size_t i = 0; i < r->out->n; i++) {
        const SafeTensor *t = &r->out->tensor[i];
        const unsigned char *at = t->data;
        if (at != end)
            return err_user(r->err, "%s: tensor '%.200s': its data begins at byte %td, expected %td (%s)", r->path, t->name,
                            at - r->data, end - r->data, at < end ? "overlap" : "hole");
        end = at + t->bytes;
    }
    if (end != r->data + r->data_bytes)
        return err_user(r->err, "%s: %td bytes after the last tensor", r->path, r->data + r->data_bytes - end);
    return true;
}

/* Writers need not align; we promise it, so what is not aligned is copied. */
static void align_data(SafeTensors *s)
{
    for (size_t i = 0; i < s->n; i++) {
        SafeTensor *t = &s->tensor[i];
        size_t size = file_dtypes[file_dtype_index(t->file_dtype)].size;
        if ((uintptr_t)t->data % size != 0)
            t->data = arena_copy(s->store->arena, t->data, t->bytes);
    }
}

static bool read_all(void *arg)
{
    Reader *r = arg;
    SafeTensors *s = r->out;
    s->store->arena = arena_new();
    s->path = r->path = arena_str(s->store->arena, r->path);
    if (!read_header(r))
        return false;
    s->tensor = arena_array(s->store->arena, SafeTensor, json_object_size(r->header));
    const char *name;
    json_t *entry;
    json_object_foreach(r->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0 ? !read_meta(r, entry) : !read_tensor(r, name, entry, &s->tensor[s->n]))
            return false;
        s->n += strcmp(name, "__metadata__") != 0;
    }
    qsort(s->tensor, s->n, sizeof *s->tensor, by_data);
    if (!check_cover(r))
        return false;
    align_data(s);
    for (size_t i = 0; i < s->n; i++)
        map_put(&s->store->by_name, s->tensor[i].name, (int64_t)i);
    return true;
}

static bool make_shell(void *arg)
{
    SafeTensors **s = arg;
    *s = mem_alloc(sizeof **s + sizeof(struct SafeStore));
    (*s)->store = (struct SafeStore *)(*s + 1);
    return true;
}

SafeTensors *safetensors_from_memory(Err *err, const char *label, const void *bytes, size_t n)
{
    Reader r = {.err = err, .path = label, .file = bytes, .file_bytes = n};
    if (!mem_protect(err, make_shell, &r.out))
        return NULL;
    bool ok = mem_protect(err, read_all, &r);
    json_decref(r.header);
    if (ok)
        return r.out;
    safetensors_close(r.out);
    return NULL;
}

SafeTensors *safetensors_open(Err *err, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would block */
    if (fd < 0 || fstat(fd, &st) != 0) {
        int why = errno;
        if (fd >= 0)
            close(fd);
        if (why == ENOENT || why == ENOTDIR)
            err_user(err, "%s: no such file", path);
        else
            err_env(err, "%s: %s", path, strerror(why));
        return NULL;
    }
    if (!S_ISREG(st.st_mode) || st.st_size < 8) {
        close(fd);
        err_user(err, "%s: not a safetensors file: expected a regular file of at least 8 bytes", path);
        return NULL;
    }
    size_t n = (size_t)st.st_size;
    void *p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
    int why = errno;
    close(fd);
    if (p == MAP_FAILED) {
        err_env(err, "%s: cannot be mapped: %s", path, strerror(why));
        return NULL;
    }
    SafeTensors *s = safetensors_from_memory(err, path, p, n);
    if (!s) {
        munmap(p, n);
        return NULL;
    }
    s->store->mapped = p;
    s->store->mapped_bytes = n;
    return s;
}

void safetensors_close(SafeTensors *s)
{
    if (!s)
        return;
    if (s->store->mapped)
        munmap(s->store->mapped, s->store->mapped_bytes);
    map_free(&s->store->by_name);
    arena_free(s->store->arena);
    mem_free(s);
}

const SafeTensor *safetensors_find(const SafeTensors *s, const char *name)
{
    int64_t i;
    return map_get(&s->store->by_name, name, &i) ? &s->tensor[i] : NULL;
}

const char *safetensors_meta(const SafeTensors *s, const char *key)
{
    for (size_t i = 0; i < s->n_meta; i++)
        if (strcmp(s->meta[i].key, key) == 0)
            return s->meta[i].value;
    return NULL;
}

int64_t safetensor_count(const SafeTensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

bool safetensor_to_f32(Err *err, const SafeTensors *s, const SafeTensor *t, float *out)
{
    size_t n = (size_t)safetensor_count(t);
    const uint16_t *half = t->data;
    const double *wide = t->data;
    switch (t->dtype) {
    case DAV_F32:
        if (n)
            memcpy(out, t->data, n * sizeof *out);
        return true;
    case DAV_F64:
        for (size_t i = 0; i < n; i++)
            out[i] = (float)wide[i];
        return true;
    case DAV_BF16:
        for (size_t i = 0; i < n; i++)
            out[i] = bf16_to_f32(half[i]);
        return true;
    case DAV_F16:
        for (size_t i = 0; i < n; i++)
            out[i] = f16_to_f32(half[i]);
        return true;
    default:
        return err_user(err, "%s: tensor '%.200s': expected floating-point numbers, found %s", s->path, t->name, t->file_dtype);
    }
}
