#include "support/command.h"
#include "support/fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static char scratch[64];

int scratch_open(void **state)
{
    (void)state;
    folder_make(scratch);
    return 0;
}

int scratch_close(void **state)
{
    (void)state;
    folder_remove(scratch);
    return 0;
}

char *in_scratch(const char *name)
{
    static char text[32][200];
    static int turn;
    char *p = text[turn++ % 32];
    snprintf(p, sizeof text[0], "%s/%s", scratch, name);
    return p;
}

static char *contents(const char *file, size_t *len)
{
    Err err = {0};
    char *text;
    if (!file_read(&err, file, 1 << 26, &text, len))
        fail_msg("%s", err.text);
    return text;
}

char *text_of(const char *file)
{
    size_t len;
    return contents(file, &len);
}

void assert_same_file(const char *a, const char *b)
{
    size_t n, m;
    char *p = contents(a, &n), *q = contents(b, &m);
    if (n != m || memcmp(p, q, n) != 0)
        fail_msg("%s and %s differ", a, b);
    mem_free(p);
    mem_free(q);
}

int dav(const char *fmt, ...)
{
    char arguments[3000], command[5000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(arguments, sizeof arguments, fmt, ap);
    va_end(ap);
    snprintf(command, sizeof command, "DAV_INCLUDE_DIR='%s/include' '%s' %s >%s/out 2>%s/said", DAV_SOURCE_DIR, DAV_BINARY,
             arguments, scratch, scratch);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void assert_holds(const char *stream, const char *words)
{
    char *text = text_of(in_scratch(stream));
    if (!strstr(text, words))
        fail_msg("expected '%s', found: %s", words, text);
    mem_free(text);
}

void assert_status(int status, int expected)
{
    if (status != expected)
        fail_msg("expected status %d, found %d: %s", expected, status, text_of(in_scratch("said")));
}

void assert_printed(const char *words)
{
    assert_holds("out", words);
}

void assert_said(const char *words)
{
    assert_holds("said", words);
}

void assert_mistake(int status, int expected, const char *words)
{
    static const char *const progress[] = {"memory ", "round ", "step "};
    char *whole = text_of(in_scratch("said")), *line = whole, *end;
    for (int i = 0; (end = strchr(line, '\n')) && i < 3; i++)
        if (strncmp(line, progress[i], strlen(progress[i])) == 0) {
            line = end + 1;
            i = -1;
        }
    if (status != expected || !end || end[1] || !strstr(line, words))
        fail_msg("expected status %d and one line with '%s', found %d and: %s", expected, words, status, whole);
    mem_free(whole);
}
