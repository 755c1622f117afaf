#include "runtime/split.h"
#include "runtime/stats.h"
#include <math.h>
#include <string.h>

enum { WORD = 20 };
static const double FOLD_BELOW[FOLD_COUNT] = {0.38, 0.80, 0.88, 2};

const char *fold_name(Fold f)
{
    static const char *const name[FOLD_COUNT] = {"reward", "heldout", "validation", "test"};
    return name[f];
}

/* ---- union of rows; the smallest row is the root ---- */
static size_t root_of(size_t *parent, size_t i)
{
    while (parent[i] != i)
        i = parent[i] = parent[parent[i]];
    return i;
}

static void join(size_t *parent, size_t i, size_t j)
{
    i = root_of(parent, i);
    j = root_of(parent, j);
    if (i < j)
        parent[j] = i;
    else
        parent[i] = j;
}

/* ---- first row of each word: open addressing ---- */
typedef struct WordSlot { uint64_t word; size_t row_plus_1; } WordSlot;
typedef struct WordTable { WordSlot *slot; size_t mask; } WordTable;

static void meet_word(WordTable *t, uint64_t word, size_t row, size_t *parent)
{
    size_t i = (size_t)splitmix64_mix(word) & t->mask;
    while (t->slot[i].row_plus_1 && t->slot[i].word != word)
        i = (i + 1) & t->mask;
    if (t->slot[i].row_plus_1)
        join(parent, t->slot[i].row_plus_1 - 1, row);
    else
        t->slot[i] = (WordSlot){word, row + 1};
}

/* Every word of a row as the smaller of itself and its reverse complement; a shorter row is one word, marked by its length. */
static void meet_row(WordTable *t, const uint8_t *seq, size_t len, size_t row, size_t *parent)
{
    size_t k = len < WORD ? len : WORD;
    uint64_t mask = (UINT64_C(1) << 2 * k) - 1, mark = k < WORD ? (uint64_t)(k + 1) << 2 * WORD : 0, forward = 0, reverse = 0;
    for (size_t i = 0; i < len; i++) {
        forward = (forward << 2 | seq[i]) & mask;
        reverse = reverse >> 2 | (uint64_t)(3 - seq[i]) << 2 * (k - 1);
        if (i + 1 >= k)
            meet_word(t, mark | (forward < reverse ? forward : reverse), row, parent);
    }
}

static bool is_used(const SeqData *d, size_t row)
{
    return !d->native || d->native[row];
}

static void relate(const SeqData *d, Arena *scratch, size_t *parent)
{
    size_t words = 0, cap = 1024;
    for (size_t i = 0; i < d->n; i++) {
        parent[i] = i;
        words += seq_len(d, i) < WORD ? 1 : seq_len(d, i) - WORD + 1;
    }
    while (cap < words + words / 2)
        cap = mem_mul(cap, 2);
    WordTable t = {arena_array(scratch, WordSlot, cap), cap - 1};
    for (size_t i = 0; i < d->n; i++)
        if (is_used(d, i))
            meet_row(&t, seq_at(d, i), seq_len(d, i), i, parent);
}

/* ---- folds ---- */
static bool seq_less(const SeqData *d, size_t a, size_t b)
{
    size_t n = seq_len(d, a), m = seq_len(d, b);
    int c = memcmp(seq_at(d, a), seq_at(d, b), n < m ? n : m);
    return c < 0 || (c == 0 && n < m);
}

static Fold fold_of_key(const uint8_t *seq, size_t len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)"ACGT"[seq[i]]) * UINT64_C(0x100000001b3);
    double u = (double)splitmix64_mix(h) * 0x1p-64;
    Fold f = FOLD_REWARD;
    while (u >= FOLD_BELOW[f])
        f++;
    return f;
}

typedef struct Component { size_t rows, key; } Component;

static void number_components(Split *s, const SeqData *d, size_t *parent, Component *c)
{
    for (size_t i = 0; i < d->n; i++) {
        s->fold[i] = -1;
        s->component[i] = -1;
        if (!is_used(d, i))
            continue;
        size_t root = root_of(parent, i); /* <= i, so already numbered unless it is i */
        if (root == i) {
            s->component[i] = (int32_t)s->components++;
            c[s->component[i]].key = i;
        }
        int32_t id = s->component[i] = s->component[root];
        c[id].rows++;
        if (seq_less(d, i, c[id].key))
            c[id].key = i;
    }
}

Split *split_make(Arena *a, Arena *scratch, const SeqData *d)
{
    Split *s = arena_alloc(a, sizeof *s);
    s->n = d->n;
    s->fold = arena_array(a, int8_t, d->n);
    s->component = arena_array(a, int32_t, d->n);
    size_t *parent = arena_array(scratch, size_t, d->n);
    Component *c = arena_array(scratch, Component, d->n);
    relate(d, scratch, parent);
    number_components(s, d, parent, c);
    size_t big = 0;
    for (size_t k = 1; k < s->components; k++)
        if (c[k].rows > c[big].rows)
            big = k;
    s->largest = s->components ? c[big].rows : 0;
    for (size_t i = 0; i < d->n; i++)
        if (s->component[i] >= 0) {
            size_t id = (size_t)s->component[i], key = c[id].key;
            s->fold[i] = (int8_t)(id == big ? FOLD_REWARD : fold_of_key(seq_at(d, key), seq_len(d, key)));
        }
    return s;
}

static bool is_measured(const SeqData *d, size_t row)
{
    return d->value && !isnan(d->value[row]);
}

SeqData *split_fold(Arena *a, const SeqData *d, const Split *s, unsigned folds, bool measured_only)
{
    size_t *row = arena_array(a, size_t, d->n), n = 0;
    for (size_t i = 0; i < d->n; i++)
        if (s->fold[i] >= 0 && folds >> s->fold[i] & 1 && (!measured_only || is_measured(d, i)))
            row[n++] = i;
    SeqData *part = seqdata_select(a, d, row, n);
    part->component = arena_array(a, int32_t, n);
    for (size_t i = 0; i < n; i++)
        part->component[i] = s->component[row[i]];
    return part;
}

SplitSummary split_summary(const SeqData *d, const Split *s)
{
    SplitSummary sum = {.rows = d->n, .components = s->components, .largest = s->largest};
    for (size_t i = 0; i < d->n; i++)
        if (s->fold[i] < 0)
            sum.left_out++;
        else {
            sum.fold_rows[s->fold[i]]++;
            sum.fold_measured[s->fold[i]] += is_measured(d, i);
        }
    return sum;
}
