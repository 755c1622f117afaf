#include "base/mem.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Guard { struct Guard *outer; jmp_buf at; size_t wanted; } Guard;
static _Thread_local Guard *guard;
static _Thread_local int64_t fail_countdown;
static atomic_llong live;

static _Noreturn void out_of_memory(size_t bytes)
{
    if (!guard)
        die("out of memory (%zu bytes) outside of any protected call", bytes);
    guard->wanted = bytes;
    longjmp(guard->at, 1);
}

static bool told_to_fail(void)
{
    return fail_countdown > 0 && --fail_countdown == 0;
}

void *mem_alloc(size_t bytes)
{
    void *p = told_to_fail() ? NULL : calloc(1, bytes ? bytes : 1);
    if (!p)
        out_of_memory(bytes);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return p;
}

void *mem_realloc(void *p, size_t bytes)
{
    void *q = told_to_fail() ? NULL : realloc(p, bytes ? bytes : 1);
    if (!q)
        out_of_memory(bytes);
    if (!p)
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return q;
}

void *mem_alloc_aligned(size_t bytes, size_t align)
{
    void *p = NULL;
    if (told_to_fail() || posix_memalign(&p, align, bytes ? bytes : 1) != 0)
        out_of_memory(bytes);
    memset(p, 0, bytes);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return p;
}

void mem_free(void *p)
{
    if (p)
        atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    free(p);
}

size_t mem_mul(size_t a, size_t b)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        out_of_memory(SIZE_MAX);
    return r;
}

bool mem_protect(Err *err, bool (*fn)(void *), void *arg)
{
    Guard g = {.outer = guard};
    if (setjmp(g.at)) {
        guard = g.outer;
        return err_env(err, "out of memory (%zu bytes wanted)", g.wanted);
    }
    guard = &g;
    bool ok = fn(arg);
    guard = g.outer;
    return ok;
}

void mem_fail_at(int64_t n)
{
    fail_countdown = n;
}

int64_t mem_live(void)
{
    return atomic_load(&live);
}

/* ---- arena: chunks in a list, bump allocation ---- */
enum { CHUNK = 64 << 10 };
typedef struct Chunk { struct Chunk *next; size_t used, size; } Chunk;
struct Arena { Chunk *chunk; size_t bytes; };

Arena *arena_new(void)
{
    return mem_alloc(sizeof(Arena));
}

void arena_free(Arena *a)
{
    if (!a)
        return;
    for (Chunk *c = a->chunk, *next; c; c = next) {
        next = c->next;
        mem_free(c);
    }
    mem_free(a);
}

static size_t round16(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

void *arena_alloc(Arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        out_of_memory(bytes);
    bytes = round16(bytes ? bytes : 1);
    size_t head = round16(sizeof(Chunk));
    if (!a->chunk || a->chunk->size - a->chunk->used < bytes) {
        size_t size = head + (bytes > CHUNK / 4 ? bytes : (size_t)CHUNK);
        Chunk *c = mem_alloc(size);
        c->size = size;
        c->used = head;
        bool big = bytes > CHUNK / 4 && a->chunk; /* keep filling the open chunk */
        c->next = big ? a->chunk->next : a->chunk;
        if (big)
            a->chunk->next = c;
        else
            a->chunk = c;
        c->used += bytes;
        a->bytes += bytes;
        return (char *)c + head;
    }
    void *p = (char *)a->chunk + a->chunk->used;
    a->chunk->used += bytes;
    a->bytes += bytes;
    return p;
}

size_t arena_bytes(const Arena *a)
{
    return a->bytes;
}

void *arena_copy(Arena *a, const void *p, size_t bytes)
{
    void *q = arena_alloc(a, bytes);
    if (bytes)
        memcpy(q, p, bytes);
    return q;
}

char *arena_strn(Arena *a, const char *s, size_t n)
{
    char *q = arena_alloc(a, n + 1);
    memcpy(q, s, n);
    return q;
}

char *arena_str(Arena *a, const char *s)
{
    return s ? arena_strn(a, s, strlen(s)) : NULL;
}

char *arena_printf(Arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *q = arena_alloc(a, (size_t)(n < 0 ? 0 : n) + 1);
    vsnprintf(q, (size_t)(n < 0 ? 0 : n) + 1, fmt, again);
    va_end(again);
    return q;
}

void *vec_grow_(void *v, size_t elem)
{
    if (v && vec_head(v)->len < vec_head(v)->cap)
        return v;
    size_t cap = v ? mem_mul(vec_head(v)->cap, 2) : 8;
    size_t bytes = mem_mul(cap, elem) + sizeof(VecHead);
    VecHead *h = mem_realloc(v ? vec_head(v) : NULL, bytes);
    if (!v)
        h->len = 0;
    h->cap = cap;
    return h + 1;
}

void vec_free_(void *v)
{
    if (v)
        mem_free(vec_head(v));
}
