/* Reference table: what samples are compared with, made once from real data and kept as a small JSON file, so that the
 * comparison needs no data (`dav split` writes it; configs/data/yeast-reference.json is that of the yeast table, to which
 * the oracles' quantiles were added): {"format": "dav reference table 1", "source": text, "numbers": {name: [numbers], ...}}.
 *
 * Names that seqref_make gives, of the rows in some fold ("all"; "top": the most active 0.1 % of the measured ones, at
 * least one; "test": the test fold's measured ones):
 *   rows.all rows.top rows.test           how many
 *   kmer3.all kmer6.all kmer3.top kmer6.top   counts [4^k], indexed as in runtime/seqmetrics.h
 *   gc.all gc.top                         quantiles of the sequences' GC share
 *   measured.all measured.test            quantiles of the measured values
 *   measured.mean measured.sd             of all measured rows
 * Quantiles are SEQREF_QUANTILES numbers at p = 0, 0.001, ..., 1.  Without values in the data only all but the measured
 * and top ones.  Others (an oracle's quantiles on the test fold) are added by seqref_set under names of their own. */
#pragma once
#include "runtime/split.h"

enum { SEQREF_QUANTILES = 1001 };

typedef struct SeqRefEntry { const char *name; double *number; size_t n; } SeqRefEntry;

typedef struct SeqRef {
    Arena *arena; /* that everything below lies in */
    const char *source;
    SeqRefEntry *entry; /* in order of insertion */
    size_t n, room;
} SeqRef;

SeqRef *seqref_new(Arena *a, const char *source);
SeqRef *seqref_make(Arena *a, const SeqData *d, const Split *s, const char *source);
void seqref_set(SeqRef *r, const char *name, const double *number, size_t n); /* copies; replaces one of that name */
void seqref_set_quantiles(SeqRef *r, const char *name, const double *value, size_t n); /* n >= 1, any order */
const double *seqref_get(const SeqRef *r, const char *name, size_t n); /* NULL: none of that name and length */
SeqRef *seqref_read(Err *err, Arena *a, const char *path);
bool seqref_write(Err *err, const char *path, const SeqRef *r); /* whole or not at all */
