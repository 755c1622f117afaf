/* Three kinds of failure.  A user's mistake and a failure of the environment are recorded in an Err
 * (the first one wins, later ones are only counted) and travel back as `false`; a bug of ours dies. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

typedef enum { ERR_NONE, ERR_USER, ERR_ENV } ErrKind;

typedef struct Err {
    ErrKind kind;
    int count;       /* how many were recorded, the first one included */
    char text[2000]; /* one line, no newline at the end */
} Err;

/* All return false, so that `return err_user(...)` reads well. */
bool err_user(Err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool err_env(Err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A mistake at a place of the user's source: "file:line: text". */
bool err_user_at(Err *e, const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
bool err_prefix(Err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* puts "prefix: " before the text */
void err_clear(Err *e);
int err_exit_status(const Err *e); /* 0 none, 2 user, 1 environment */

/* A bug of ours: prints place and text, runs the dump hook (the pass runner sets it to print the IR), aborts. */
_Noreturn void die_at(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
#define die(...) die_at(__FILE__, __LINE__, __VA_ARGS__)
#define must(cond) ((cond) ? (void)0 : die_at(__FILE__, __LINE__, "broken invariant: %s", #cond))
typedef void (*DieHook)(void *arg);
void die_set_hook(DieHook hook, void *arg); /* of this thread */

/* The candidate nearest to `name` by edit distance, NULL when none is near: for "did you mean". */
const char *err_nearest(const char *name, const char *const *candidates, int n);
