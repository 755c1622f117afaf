/* Memory of our own.  mem_alloc never returns NULL: when memory runs out it unwinds to the innermost
 * mem_protect of the thread (as lua_pcall does), which records an environment error.  So code between
 * two API boundaries needs no check, on one condition: whatever it allocates must belong to something
 * that the caller of mem_protect can free (an arena, a handle made before).  Code that runs in an
 * OpenMP region does not allocate.  Tests make the n-th allocation fail with mem_fail_at. */
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t bytes);                    /* zeroed */
void *mem_realloc(void *p, size_t bytes);         /* new part not zeroed */
void *mem_alloc_aligned(size_t bytes, size_t align); /* zeroed; align a power of two; free with mem_free */
void mem_free(void *p);
size_t mem_mul(size_t a, size_t b);               /* a*b; unwinds as out of memory when it overflows */

/* Runs fn(arg).  Returns what fn returns; false with an ERR_ENV in err when memory ran out. */
bool mem_protect(Err *err, bool (*fn)(void *), void *arg);

void mem_fail_at(int64_t n); /* tests: the n-th allocation from now on of this thread fails (1 = the next); 0: none */
int64_t mem_live(void);      /* tests: allocations not yet freed, all threads */

/* ---- arena: many allocations, one free ---- */
typedef struct Arena Arena;
Arena *arena_new(void);
void arena_free(Arena *a); /* NULL is fine */
void *arena_alloc(Arena *a, size_t bytes); /* zeroed, aligned to 16 */
char *arena_str(Arena *a, const char *s);  /* copy; NULL gives NULL */
char *arena_strn(Arena *a, const char *s, size_t n);
char *arena_printf(Arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void *arena_copy(Arena *a, const void *p, size_t bytes);
size_t arena_bytes(const Arena *a);
#define arena_array(a, T, n) ((T *)arena_alloc((a), mem_mul((size_t)(n), sizeof(T))))

/* ---- growing array in malloc'd memory:  T *v = NULL; vec_push(v, x); vec_len(v); vec_free(v) ---- */
typedef struct { size_t len, cap; } VecHead;
#define vec_head(v) ((VecHead *)(void *)(v) - 1)
#define vec_len(v) ((v) ? vec_head(v)->len : (size_t)0)
#define vec_push(v, x) ((v) = vec_grow_((v), sizeof *(v)), (v)[vec_head(v)->len++] = (x))
#define vec_pop(v) ((v)[--vec_head(v)->len])
#define vec_clear(v) ((void)((v) ? vec_head(v)->len = 0 : 0))
#define vec_free(v) (vec_free_(v), (v) = NULL)
void *vec_grow_(void *v, size_t elem);
void vec_free_(void *v);
