#include "base/err.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool record(Err *e, ErrKind kind, const char *place, const char *fmt, va_list ap)
{
    e->count++;
    if (e->kind != ERR_NONE)
        return false;
    e->kind = kind;
    size_t n = 0;
    if (place) {
        int k = snprintf(e->text, sizeof e->text, "%s: ", place);
        n = k > 0 ? (size_t)k : 0;
    }
    if (n < sizeof e->text)
        vsnprintf(e->text + n, sizeof e->text - n, fmt, ap);
    for (char *p = e->text; *p; p++) /* one line, whatever a hostile file put into a name */
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    return false;
}

bool err_user(Err *e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    record(e, ERR_USER, NULL, fmt, ap);
    va_end(ap);
    return false;
}

bool err_env(Err *e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    record(e, ERR_ENV, NULL, fmt, ap);
    va_end(ap);
    return false;
}

bool err_user_at(Err *e, const char *file, int line, const char *fmt, ...)
{
    char place[300];
    snprintf(place, sizeof place, "%s:%d", file ? file : "?", line);
    va_list ap;
    va_start(ap, fmt);
    record(e, ERR_USER, place, fmt, ap);
    va_end(ap);
    return false;
}

bool err_prefix(Err *e, const char *fmt, ...)
{
    char old[sizeof e->text];
    memcpy(old, e->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int k = vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    size_t n = k < 0 ? 0 : (size_t)k < sizeof e->text ? (size_t)k : sizeof e->text - 1;
    if (snprintf(e->text + n, sizeof e->text - n, ": %s", old) < 0)
        e->text[n] = 0;
    return false;
}

void err_clear(Err *e)
{
    *e = (Err){.kind = ERR_NONE};
}

int err_exit_status(const Err *e)
{
    return e->kind == ERR_NONE ? 0 : e->kind == ERR_USER ? 2 : 1;
}

static _Thread_local DieHook die_hook;
static _Thread_local void *die_arg;

void die_set_hook(DieHook hook, void *arg)
{
    die_hook = hook;
    die_arg = arg;
}

_Noreturn void die_at(const char *file, int line, const char *fmt, ...)
{
    fprintf(stderr, "dav: internal error at %s:%d: ", file, line);
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    DieHook hook = die_hook;
    die_hook = NULL; /* a failure inside the hook must not come back here */
    if (hook)
        hook(die_arg);
    abort();
}

/* Optimal string alignment distance over the first 63 characters: enough for names. */
static int edit_distance(const char *a, const char *b)
{
    size_t na = strnlen(a, 63), nb = strnlen(b, 63);
    int d[64][64];
    for (size_t i = 0; i <= na; i++)
        d[i][0] = (int)i;
    for (size_t j = 0; j <= nb; j++)
        d[0][j] = (int)j;
    for (size_t i = 1; i <= na; i++)
        for (size_t j = 1; j <= nb; j++) {
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[na][nb];
}

const char *err_nearest(const char *name, const char *const *candidates, int n)
{
    const char *best = NULL;
    int best_d = (int)strnlen(name, 63) / 2 + 2;
    for (int i = 0; i < n; i++) {
        int dist = edit_distance(name, candidates[i]);
        if (dist < best_d) {
            best_d = dist;
            best = candidates[i];
        }
    }
    return best;
}
