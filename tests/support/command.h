/* The program itself, run as a user runs it, in a scratch folder of the test program. */
#pragma once
#include "base/text.h"

/* Group set-up and tear-down: the folder is made and removed. */
int scratch_open(void **state);
int scratch_close(void **state);
/* A path in the folder; the eighth call after it uses its memory again. */
char *in_scratch(const char *name);
char *text_of(const char *file); /* a file's contents; mem_free */

/* Runs dav; gives its exit status.  What it prints stands in the files "out" (stdout) and "said" (stderr). */
int dav(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Fails with what dav said when the status is another. */
void assert_status(int status, int expected);
void assert_printed(const char *words);  /* on stdout */
void assert_said(const char *words);     /* on stderr */
/* The status, and one line on stderr that holds the words; lines of progress ("memory ...", "round ...", "step ...") may stand
 * before it. */
void assert_mistake(int status, int expected, const char *words);
