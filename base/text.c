#include "base/text.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static void buf_room(Buf *b, size_t n)
{
    if (b->len + n + 1 <= b->cap)
        return;
    size_t cap = b->cap ? b->cap : 256;
    while (cap < b->len + n + 1)
        cap = mem_mul(cap, 2);
    b->at = mem_realloc(b->at, cap);
    b->cap = cap;
}

void buf_add(Buf *b, const void *bytes, size_t n)
{
    buf_room(b, n);
    if (n)
        memcpy(b->at + b->len, bytes, n);
    b->len += n;
    b->at[b->len] = 0;
}

void buf_str(Buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_printf(Buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n > 0) {
        buf_room(b, (size_t)n);
        vsnprintf(b->at + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void buf_free(Buf *b)
{
    mem_free(b->at);
    *b = (Buf){0};
}

/* ---- open addressing, linear probing ---- */
struct MapSlot { char *key; int64_t value; };

static struct MapSlot *map_slot(const Map *m, const char *key)
{
    size_t i = (size_t)hash_str(key) & (m->cap - 1);
    while (m->slot[i].key && strcmp(m->slot[i].key, key) != 0)
        i = (i + 1) & (m->cap - 1);
    return &m->slot[i];
}

bool map_get(const Map *m, const char *key, int64_t *value)
{
    if (!m->cap)
        return false;
    struct MapSlot *s = map_slot(m, key);
    if (s->key && value)
        *value = s->value;
    return s->key != NULL;
}

static void map_widen(Map *m)
{
    Map wide = {.cap = m->cap ? m->cap * 2 : 16};
    wide.slot = mem_alloc(mem_mul(wide.cap, sizeof *wide.slot));
    for (size_t i = 0; i < m->cap; i++)
        if (m->slot[i].key)
            *map_slot(&wide, m->slot[i].key) = m->slot[i];
    wide.len = m->len;
    mem_free(m->slot);
    *m = wide;
}

bool map_put(Map *m, const char *key, int64_t value)
{
    if (2 * (m->len + 1) > m->cap)
        map_widen(m);
    struct MapSlot *s = map_slot(m, key);
    bool is_new = s->key == NULL;
    if (is_new) {
        size_t n = strlen(key) + 1;
        s->key = mem_alloc(n);
        memcpy(s->key, key, n);
        m->len++;
    }
    s->value = value;
    return is_new;
}

void map_free(Map *m)
{
    for (size_t i = 0; i < m->cap; i++)
        mem_free(m->slot[i].key);
    mem_free(m->slot);
    *m = (Map){0};
}

bool text_to_i64(const char *s, int64_t *out)
{
    if (!s || !*s || (*s != '-' && (*s < '0' || *s > '9')))
        return false;
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (errno || *end || end == s)
        return false;
    *out = v;
    return true;
}

bool text_to_f64(const char *s, double *out)
{
    if (!s || !*s || !strchr("+-.0123456789", *s))
        return false;
    char *end;
    double v = strtod(s, &end);
    if (*end || end == s || !isfinite(v))
        return false;
    *out = v;
    return true;
}

bool text_to_bytes(const char *s, int64_t *out)
{
    static const struct { const char *name; double size; } unit[] = {
        {"", 1}, {"B", 1}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
        {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
    char number[32];
    double v;
    size_t n = strspn(s, "0123456789.");
    if (n == 0 || n >= sizeof number)
        return false;
    memcpy(number, s, n);
    number[n] = 0;
    s += n + strspn(s + n, " ");
    for (size_t i = 0; i < sizeof unit / sizeof *unit; i++)
        if (strcmp(s, unit[i].name) == 0 && text_to_f64(number, &v) && v * unit[i].size < 0x1p62) {
            *out = (int64_t)(v * unit[i].size);
            return true;
        }
    return false;
}

void text_f64(char out[32], double v)
{
    if (isnan(v) || isinf(v)) {
        strcpy(out, isnan(v) ? "nan" : v < 0 ? "-inf" : "inf");
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, v);
        if (strtod(out, NULL) == v)
            return;
    }
}

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed)
{
    return XXH64(p, n, seed);
}

uint64_t hash_str(const char *s)
{
    return XXH64(s, strlen(s), 0);
}

uint32_t hash_name32(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 16777619u;
    return h;
}
