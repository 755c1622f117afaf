#include "runtime/seqdata.h"
#include <math.h>
#include <string.h>

enum { MAX_BYTES = 256 << 20, MAX_ROWS = 16 << 20, MAX_COLUMNS = 64, INSERT_BEGIN = 20, INSERT_END = 100, YEAST_LENGTH = 120 };
static const char YEAST_HEADER[] = "seq\tisNative\tEL.originalHQ\tEL.rep1\tEL.rep2\tEL.combined";

typedef struct Text { const char *at; size_t n; } Text;

typedef struct Parser {
    Err *err;
    Arena *arena;
    const char *path;
    const char *at, *end; /* what is still to be read */
    int line;
    SeqData *d;
} Parser;

/* The next line without its end; false at the end of the text. */
static bool next_line(Parser *p, Text *line)
{
    if (p->at == p->end)
        return false;
    const char *nl = memchr(p->at, '\n', (size_t)(p->end - p->at));
    const char *stop = nl ? nl : p->end;
    *line = (Text){p->at, (size_t)(stop - p->at)};
    if (line->n && line->at[line->n - 1] == '\r')
        line->n--;
    p->at = nl ? nl + 1 : p->end;
    p->line++;
    return true;
}

/* Appends letters to the sequence being read; `column` is where the first of them stands in its line, from 1. */
static bool add_letters(Parser *p, Text t, size_t column)
{
    static const uint8_t code[256] = {['A'] = 1, ['C'] = 2, ['G'] = 3, ['T'] = 4, ['a'] = 1, ['c'] = 2, ['g'] = 3, ['t'] = 4};
    uint8_t *out = p->d->letter + p->d->start[p->d->n];
    out += p->d->start[p->d->n + 1] - p->d->start[p->d->n];
    for (size_t i = 0; i < t.n; i++) {
        unsigned char c = (unsigned char)t.at[i];
        if (!code[c]) {
            return err_user(p->err, c > 0x20 && c < 0x7f ? "%s:%d: column %zu: expected A, C, G or T, found '%c'"
                                                         : "%s:%d: column %zu: expected A, C, G or T, found byte 0x%02x",
                            p->path, p->line, column + i, c);
        }
        out[i] = (uint8_t)(code[c] - 1);
    }
    p->d->start[p->d->n + 1] += t.n;
    return true;
}

static bool end_row(Parser *p)
{
    SeqData *d = p->d;
    if (d->start[d->n + 1] == d->start[d->n])
        return err_user(p->err, "%s:%d: expected a sequence, found an empty one", p->path, p->line);
    d->n++;
    d->start[d->n + 1] = d->start[d->n];
    return true;
}

/* ---- plain lines and FASTA ---- */
static bool parse_lines(Parser *p)
{
    Text line;
    while (next_line(p, &line))
        if (line.n && (!add_letters(p, line, 1) || !end_row(p)))
            return false;
    return true;
}

static bool parse_fasta(Parser *p)
{
    Text line;
    bool open = false;
    while (next_line(p, &line)) {
        if (line.n && line.at[0] == '>') {
            if (open && !end_row(p))
                return false;
            p->d->name[p->d->n] = arena_strn(p->arena, line.at + 1, line.n - 1);
            open = true;
        } else if (!add_letters(p, line, 1))
            return false;
    }
    return !open || end_row(p);
}

/* ---- tables ---- */
typedef enum { IGNORED, INSERT, SEQUENCE, NAME, VALUE, COMPONENT, NATIVE } Role;
static const struct { const char *name; Role role; } columns[] = {
    {"seq", INSERT},      {"isNative", NATIVE},  {"EL.combined", VALUE}, {"sequence", SEQUENCE},
    {"name", NAME},       {"value", VALUE},      {"activity", VALUE},    {"component", COMPONENT},
};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

static bool text_is(Text t, const char *s)
{
    return t.n == strlen(s) && memcmp(t.at, s, t.n) == 0;
}

/* Fields of a line; more than `max` count as max + 1. */
static int split_fields(Text line, Text *field, int max)
{
    int n = 0;
    for (const char *at = line.at, *end = line.at + line.n;; n++) {
        if (n == max)
            return max + 1;
        const char *tab = memchr(at, '\t', (size_t)(end - at));
        field[n] = (Text){at, (size_t)((tab ? tab : end) - at)};
        if (!tab)
            return n + 1;
        at = tab + 1;
    }
}

static bool parse_number(Parser *p, Text t, const char *what, double *out)
{
    char s[64];
    if (t.n == 0 || text_is(t, "NA")) {
        *out = NAN;
        return true;
    }
    if (t.n < sizeof s) {
        memcpy(s, t.at, t.n);
        s[t.n] = 0;
        if (text_to_f64(s, out))
            return true;
    }
    return err_user(p->err, "%s:%d: %s: expected a number or NA, found '%.*s'", p->path, p->line, what, t.n < 40 ? (int)t.n : 40, t.at);
}

static bool parse_insert(Parser *p, Text t, size_t column)
{
    if (t.n != YEAST_LENGTH)
        return err_user(p->err, "%s:%d: seq: expected %d letters, found %zu", p->path, p->line, YEAST_LENGTH, t.n);
    return add_letters(p, (Text){t.at + INSERT_BEGIN, INSERT_END - INSERT_BEGIN}, column + INSERT_BEGIN);
}

static bool parse_component(Parser *p, Text t, int32_t *out)
{
    double v;
    if (!parse_number(p, t, "component", &v))
        return false;
    if (!(v >= 0 && v <= INT32_MAX && v == floor(v)))
        return err_user(p->err, "%s:%d: component: expected an integer from 0 to %d, found '%.*s'", p->path, p->line, INT32_MAX,
                        t.n < 40 ? (int)t.n : 40, t.at);
    *out = (int32_t)v;
    return true;
}

static bool parse_field(Parser *p, Role role, Text t, size_t column)
{
    SeqData *d = p->d;
    switch (role) {
    case INSERT:
        return parse_insert(p, t, column);
    case SEQUENCE:
        return add_letters(p, t, column);
    case NAME:
        d->name[d->n] = arena_strn(p->arena, t.at, t.n);
        return true;
    case VALUE:
        return parse_number(p, t, "value", &d->value[d->n]);
    case COMPONENT:
        return parse_component(p, t, &d->component[d->n]);
    case NATIVE:
        d->native[d->n] = text_is(t, "TRUE");
        return d->native[d->n] || text_is(t, "FALSE") ||
               err_user(p->err, "%s:%d: isNative: expected TRUE or FALSE, found '%.*s'", p->path, p->line, t.n < 40 ? (int)t.n : 40, t.at);
    case IGNORED:
        break;
    }
    return true;
}

/* Which column holds what; false when there is no sequence or a column occurs twice. */
static bool read_table_header(Parser *p, Text line, Role *role, int *n)
{
    Text field[MAX_COLUMNS];
    unsigned seen = 0;
    *n = split_fields(line, field, MAX_COLUMNS);
    for (int i = 0; i < *n && i < MAX_COLUMNS; i++) {
        role[i] = IGNORED;
        for (int k = 0; k < N_COLUMNS; k++)
            if (text_is(field[i], columns[k].name))
                role[i] = columns[k].role;
        if (role[i] != IGNORED && seen & 1u << role[i])
            return err_user(p->err, "%s:1: two columns with the same meaning, the second is '%.*s'", p->path, (int)field[i].n, field[i].at);
        seen |= 1u << role[i];
    }
    bool yeast = seen & 1u << INSERT;
    bool known = yeast ? text_is(line, YEAST_HEADER) : *n <= MAX_COLUMNS && seen & 1u << SEQUENCE;
    if (!known)
        return err_user(p->err, "%s:1: expected the header of the yeast table (seq isNative EL.originalHQ EL.rep1 EL.rep2 EL.combined) "
                                "or at most %d columns with one called sequence, found '%.*s'",
                        p->path, MAX_COLUMNS, line.n < 100 ? (int)line.n : 100, line.at);
    SeqData *d = p->d;
    d->name = seen & 1u << NAME ? d->name : NULL;
    d->value = seen & 1u << VALUE ? d->value : NULL;
    d->component = seen & 1u << COMPONENT ? d->component : NULL;
    d->native = seen & 1u << NATIVE ? d->native : NULL;
    return true;
}

static bool parse_table(Parser *p)
{
    Text line, field[MAX_COLUMNS];
    Role role[MAX_COLUMNS];
    int n;
    if (!next_line(p, &line) || !read_table_header(p, line, role, &n))
        return false;
    while (next_line(p, &line)) {
        if (line.n == 0)
            continue;
        int found = split_fields(line, field, n);
        if (found != n)
            return err_user(p->err, "%s:%d: expected %d columns as in the header, found %s", p->path, p->line, n, found < n ? "fewer" : "more");
        for (int i = 0; i < n; i++)
            if (!parse_field(p, role[i], field[i], (size_t)(field[i].at - line.at) + 1))
                return false;
        if (!end_row(p))
            return false;
    }
    return true;
}

/* ---- any format ---- */
static size_t count_lines(const char *text, size_t n)
{
    size_t lines = 1;
    for (const char *at = text, *end = text + n; (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++)
        lines++;
    return lines;
}

static SeqData *new_data(Arena *a, size_t rows, size_t letters)
{
    SeqData *d = arena_alloc(a, sizeof *d);
    d->letter = arena_array(a, uint8_t, letters);
    d->start = arena_array(a, size_t, rows + 2);
    return d;
}

SeqData *seqdata_parse(Err *err, Arena *a, const char *label, const char *text, size_t n)
{
    Parser p = {.err = err, .arena = a, .path = label, .at = text, .end = text + n};
    if (n && memchr(text, 0, n)) {
        err_user(err, "%s: expected text, found a zero byte", label);
        return NULL;
    }
    while (p.at < p.end && (*p.at == '\n' || *p.at == '\r')) { /* the first line that says something tells the format */
        p.line += *p.at == '\n';
        p.at++;
    }
    size_t left = (size_t)(p.end - p.at), rows = left ? count_lines(p.at, left) : 0;
    if (rows > MAX_ROWS) {
        err_user(err, "%s: %zu lines, expected at most %d", label, rows, MAX_ROWS);
        return NULL;
    }
    const char *first_end = left ? memchr(p.at, '\n', left) : NULL;
    size_t first = first_end ? (size_t)(first_end - p.at) : left;
    bool fasta = left && *p.at == '>', table = !fasta && left && memchr(p.at, '\t', first) != NULL;
    p.d = new_data(a, rows, left);
    if (fasta || table)
        p.d->name = arena_array(a, const char *, rows);
    if (table) {
        p.d->value = arena_array(a, double, rows);
        p.d->component = arena_array(a, int32_t, rows);
        p.d->native = arena_array(a, bool, rows);
    }
    if (!(fasta ? parse_fasta(&p) : table ? parse_table(&p) : parse_lines(&p)))
        return NULL;
    if (p.d->n == 0)
        err_user(err, "%s: expected at least one sequence, found none", label);
    return p.d->n ? p.d : NULL;
}

typedef struct Job { Err *err; Arena *a; const char *path; char *text; size_t n; SeqData *d; } Job;

static bool read_job(void *arg)
{
    Job *j = arg;
    if (!file_read_gz(j->err, j->path, MAX_BYTES, &j->text, &j->n))
        return false;
    j->d = seqdata_parse(j->err, j->a, j->path, j->text, j->n);
    return j->d != NULL;
}

SeqData *seqdata_read(Err *err, Arena *a, const char *path)
{
    Job j = {.err = err, .a = a, .path = path};
    bool ok = mem_protect(err, read_job, &j);
    mem_free(j.text);
    return ok ? j.d : NULL;
}

SeqData *seqdata_from_letters(Arena *a, const uint8_t *letter, size_t n, size_t length)
{
    SeqData *d = new_data(a, n, mem_mul(n, length));
    d->n = n;
    if (n && length)
        memcpy(d->letter, letter, n * length);
    for (size_t i = 0; i <= n; i++)
        d->start[i] = i * length;
    return d;
}

void seqdata_ids(const SeqData *d, size_t first, size_t n, int64_t *ids)
{
    must(first <= d->n && n <= d->n - first);
    const uint8_t *from = d->letter + d->start[first], *end = d->letter + d->start[first + n];
    while (from < end)
        *ids++ = *from++;
}

SeqData *seqdata_select(Arena *a, const SeqData *d, const size_t *row, size_t n)
{
    size_t letters = 0;
    for (size_t i = 0; i < n; i++)
        letters += seq_len(d, row[i]);
    SeqData *s = new_data(a, n, letters);
    s->n = n;
    s->name = d->name ? arena_array(a, const char *, n) : NULL;
    s->value = d->value ? arena_array(a, double, n) : NULL;
    s->component = d->component ? arena_array(a, int32_t, n) : NULL;
    s->native = d->native ? arena_array(a, bool, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        memcpy(s->letter + s->start[i], seq_at(d, row[i]), seq_len(d, row[i]));
        s->start[i + 1] = s->start[i] + seq_len(d, row[i]);
        if (s->name)
            s->name[i] = arena_str(a, d->name[row[i]]);
        if (s->value)
            s->value[i] = d->value[row[i]];
        if (s->component)
            s->component[i] = d->component[row[i]];
        if (s->native)
            s->native[i] = d->native[row[i]];
    }
    return s;
}

size_t seqdata_length(const SeqData *d)
{
    for (size_t i = 1; i < d->n; i++)
        if (seq_len(d, i) != seq_len(d, 0))
            return 0;
    return d->n ? seq_len(d, 0) : 0;
}
