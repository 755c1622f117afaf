/* Folds of related sequences.  Rows that share a 20-mer, read on either strand, form a component (transitively), and a
 * component lies in one fold, so that no sequence of one fold overlaps one of another.
 *
 * Rule: key of a component = its smallest sequence (A < C < G < T); h = 64-bit FNV-1a of the key's ASCII letters, then
 * splitmix64's finaliser; u = h / 2^64; u < 0.38 reward, < 0.80 held-out, < 0.88 validation, else test; the largest
 * component (the first of equals) goes to reward.  Rows that are known not to be native are left out.  A sequence
 * shorter than 20 is related to the equal one and its reverse complement only. */
#pragma once
#include "runtime/seqdata.h"

typedef enum { FOLD_REWARD, FOLD_HELDOUT, FOLD_VALIDATION, FOLD_TEST, FOLD_COUNT } Fold;

typedef struct Split {
    size_t n;
    int8_t *fold;       /* [n] a Fold, -1: row left out */
    int32_t *component; /* [n] 0, 1, ... in order of first appearance; -1: row left out */
    size_t components, largest; /* number of them; rows of the largest */
} Split;

typedef struct SplitSummary {
    size_t rows, left_out; /* rows in the source, and those that are in no fold */
    size_t components, largest;
    size_t fold_rows[FOLD_COUNT], fold_measured[FOLD_COUNT]; /* measured: with a value */
} SplitSummary;

const char *fold_name(Fold f); /* "reward", "heldout", "validation", "test" */
/* In `a`; `scratch` (a few dozen bytes a letter) may be freed afterwards, and may be `a`. */
Split *split_make(Arena *a, Arena *scratch, const SeqData *d);
/* Rows of one fold in their order; measured_only leaves out those without a value.  Their components are kept. */
SeqData *split_fold(Arena *a, const SeqData *d, const Split *s, unsigned folds /* bits 1 << Fold */, bool measured_only);
SplitSummary split_summary(const SeqData *d, const Split *s);
/* Reads `data`, writes reward.tsv, heldout.tsv, validation.tsv and test.tsv (sequence, value, component) into out_dir,
 * which is made when missing, and reference.json, the table of runtime/seqref.h. */
bool split_write(Err *err, const char *data, const char *out_dir, SplitSummary *summary);
