/* The program itself, run as a user runs it, in a scratch folder of the test program. */
#pragma once
#include "base/text.h"

/* Group set-up and tear-down: the folder is made and removed. */
int scratch_open(void **state);
int scratch_close(void **state);
/* A path in the folder; its memory is used again 32 calls later. */
char *in_scratch(const char *name);
char *text_of(const char *file); /* a file's contents; mem_free */
void assert_same_file(const char *a, const char *b);

/* Runs dav; gives its exit status.  What it prints stands in the files "out" (stdout) and "said" (stderr). */
int dav(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Fails with what dav said when the status is another. */
void assert_status(int status, int expected);
void assert_printed(const char *words);  /* on stdout */
void assert_said(const char *words);     /* on stderr */
/* The status, and one line on stderr that holds the words; lines of progress ("memory ...", "round ...", "step ...") may stand
 * before it. */
void assert_mistake(int status, int expected, const char *words);
