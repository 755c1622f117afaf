#include "ir/parse_scan.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static void skip_blanks(Scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\r'))
        s->at++;
}

void scan_init(Scan *s, Err *err, const char *file, const char *text, size_t len)
{
    *s = (Scan){.err = err, .file = file, .at = text, .end = text + len, .line_start = text, .line = 1};
}

int scan_col(const Scan *s)
{
    ptrdiff_t col = s->at - s->line_start + 1;
    return col > 1000000 ? 1000000 : (int)col;
}

char scan_peek(const Scan *s)
{
    return s->at < s->end ? *s->at : 0;
}

void scan_skip(Scan *s)
{
    for (skip_blanks(s); scan_peek(s) == '#' || scan_peek(s) == '\n'; skip_blanks(s)) {
        while (s->at < s->end && *s->at != '\n')
            s->at++;
        if (s->at == s->end)
            return;
        s->line_start = ++s->at;
        s->line++;
    }
}

/* ---- errors ---- */
static bool fail_at(Scan *s, int col, const char *fmt, va_list ap)
{
    char text[1200];
    vsnprintf(text, sizeof text, fmt, ap);
    return err_user(s->err, "%s:%d:%d: %s", s->file, s->line, col, text);
}

bool scan_fail(Scan *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fail_at(s, scan_col(s), fmt, ap);
    va_end(ap);
    return false;
}

bool scan_fail_at(Scan *s, int col, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fail_at(s, col, fmt, ap);
    va_end(ap);
    return false;
}

bool scan_expected(Scan *s, const char *what)
{
    int n = 0;
    while (n < 20 && s->at + n < s->end && s->at[n] != '\n' && s->at[n] != 0)
        n++;
    if (s->at == s->end)
        return scan_fail(s, "expected %s, found the end of the file", what);
    if (n == 0)
        return scan_fail(s, "expected %s, found %s", what, *s->at ? "the end of the line" : "a NUL byte");
    return scan_fail(s, "expected %s, found '%.*s'", what, n, s->at);
}

bool scan_expected_at_word(Scan *s, const char *word, const char *what)
{
    return *word ? scan_fail(s, "expected %s, found '%s'", what, word) : scan_expected(s, what);
}

/* ---- pieces ---- */
bool scan_take(Scan *s, char c)
{
    if (scan_peek(s) != c || s->at == s->end)
        return false;
    s->at++;
    skip_blanks(s);
    return true;
}

bool scan_need(Scan *s, char c)
{
    return scan_take(s, c) || scan_expected(s, (char[]){'\'', c, '\'', 0});
}

static bool is_in(char c, const char *extra)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr(extra, c));
}

static bool take_run(Scan *s, const char *extra, char word[SCAN_WORD])
{
    size_t n = 0;
    while (s->at + n < s->end && is_in(s->at[n], extra) && n < SCAN_WORD - 1)
        n++;
    memcpy(word, s->at, n);
    word[n] = 0;
    if (n == SCAN_WORD - 1) {
        scan_expected(s, "a word of at most 62 characters");
        word[0] = 0;
        return false;
    }
    s->at += n;
    skip_blanks(s);
    return n > 0;
}

bool scan_word(Scan *s, char word[SCAN_WORD])
{
    return take_run(s, "_.", word);
}

bool scan_int(Scan *s, int64_t *v)
{
    char word[SCAN_WORD];
    const char *from = s->at;
    if (take_run(s, "-+.", word) && text_to_i64(word, v))
        return true;
    s->at = from;
    return scan_expected(s, "an integer");
}

bool scan_float(Scan *s, double *v)
{
    char word[SCAN_WORD];
    const char *from = s->at;
    if (take_run(s, "-+.", word)) {
        const char *digits = word[0] == '-' ? word + 1 : word;
        *v = strcmp(digits, "nan") == 0 ? (double)NAN : (double)INFINITY;
        if (digits != word)
            *v = -*v;
        if (strcmp(digits, "nan") == 0 || strcmp(digits, "inf") == 0 || text_to_f64(word, v))
            return true;
    }
    s->at = from;
    return scan_expected(s, "a number");
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The character behind a backslash; 0: none such. */
static char take_escape(Scan *s)
{
    char c = scan_peek(s);
    s->at += s->at < s->end;
    if (c == '"' || c == '\\')
        return c;
    if (c == 'n')
        return '\n';
    if (c != 'x' || s->end - s->at < 2)
        return 0;
    int hi = hex_digit(s->at[0]), lo = hex_digit(s->at[1]);
    s->at += 2;
    return hi < 0 || lo < 0 ? 0 : (char)(hi * 16 + lo);
}

bool scan_string(Scan *s, Arena *a, char **text)
{
    if (scan_peek(s) != '"')
        return scan_expected(s, "a string in quotes");
    const char *from = ++s->at;
    while (s->at < s->end && *s->at != '"' && *s->at != '\n')
        s->at += *s->at == '\\' && s->at + 1 < s->end ? 2 : 1;
    if (s->at >= s->end || *s->at != '"') {
        s->at = from - 1;
        return scan_expected(s, "a string that ends on its line");
    }
    const char *close = s->at;
    char *out = *text = arena_alloc(a, (size_t)(close - from) + 1);
    for (s->at = from; s->at < close;) {
        char c = *s->at++;
        if (c == '\\')
            c = take_escape(s);
        if (!c)
            return scan_fail(s, "expected one of \\\" \\\\ \\n \\xHH (not 0) in a string");
        *out++ = c;
    }
    s->at = close + 1;
    skip_blanks(s);
    return true;
}

bool scan_name(Scan *s, Arena *a, char **text)
{
    if (scan_peek(s) == '"')
        return scan_string(s, a, text);
    const char *from = s->at;
    while (s->at < s->end && is_in(*s->at, "_."))
        s->at++;
    if (s->at == from)
        return scan_expected(s, "a name");
    *text = arena_strn(a, from, (size_t)(s->at - from));
    skip_blanks(s);
    return true;
}

bool scan_line_end(Scan *s)
{
    if (s->at < s->end && *s->at != '\n' && *s->at != '#')
        return scan_expected(s, "the end of the line");
    scan_skip(s);
    return true;
}

void scan_place(Scan *s, Arena *a, const char **file, int *line)
{
    *file = NULL;
    *line = 0;
    if (scan_peek(s) != '#')
        return;
    const char *stop = memchr(s->at, '\n', (size_t)(s->end - s->at));
    Err ignored = {0};
    Scan in = {.err = &ignored, .file = "", .at = s->at + 1, .end = stop ? stop : s->end, .line_start = s->at, .line = 1};
    skip_blanks(&in);
    char *name = NULL;
    int64_t number;
    if (scan_peek(&in) == '"') {
        if (!scan_string(&in, a, &name))
            return;
    } else {
        const char *from = in.at, *colon = NULL;
        for (; in.at < in.end && (unsigned char)*in.at > ' ' && *in.at != '"' && *in.at != 0x7f; in.at++)
            colon = *in.at == ':' ? in.at : colon;
        if (!colon || colon == from)
            return;
        name = arena_strn(a, from, (size_t)(colon - from));
        in.at = colon;
    }
    if (!scan_take(&in, ':') || !scan_int(&in, &number) || in.at != in.end || number < INT32_MIN || number > INT32_MAX)
        return;
    *file = name;
    *line = (int)number;
}
