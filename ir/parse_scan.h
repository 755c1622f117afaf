/* Characters, words, numbers and errors of the parser; for ir/parse.c alone. */
#pragma once
#include "ir/graph.h"

enum { SCAN_WORD = 64 };

/* At all times `at` stands on the next character that is no blank; scan_line_end and scan_skip pass line ends and comments. */
typedef struct Scan {
    Err *err;
    const char *file, *at, *end, *line_start;
    int line;
} Scan;

void scan_init(Scan *s, Err *err, const char *file, const char *text, size_t len);
int scan_col(const Scan *s);
char scan_peek(const Scan *s); /* 0 at the end */
void scan_skip(Scan *s);       /* blanks, comments, line ends */

/* Each returns false; those that begin with scan_need, and int, float, string, name, line_end, record what was expected. */
bool scan_take(Scan *s, char c);
bool scan_need(Scan *s, char c);
bool scan_word(Scan *s, char word[SCAN_WORD]); /* letters, digits, _ . ; empty when there is none: then false, nothing recorded */
bool scan_int(Scan *s, int64_t *v);
bool scan_float(Scan *s, double *v); /* nan, inf, -inf too */
bool scan_string(Scan *s, Arena *a, char **text);
bool scan_name(Scan *s, Arena *a, char **text); /* a word or a string */
bool scan_line_end(Scan *s);
/* The comment "# file:line" that gives a node's place; anything else stands for none. */
void scan_place(Scan *s, Arena *a, const char **file, int *line);

/* Errors: "file:line:col: ...". */
bool scan_fail(Scan *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool scan_fail_at(Scan *s, int col, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool scan_expected(Scan *s, const char *what);
bool scan_expected_at_word(Scan *s, const char *word, const char *what);
