/* DNA sequences with what is known of each, read from the formats people have:
 *   the yeast promoter table as GEO GSE104878 publishes it (gzip or plain), of which the designed insert is kept;
 *   a tab-separated table whose header has the column `sequence` and maybe `name`, `value` (or `activity`), `component`;
 *   FASTA (sequences over several lines); plain lines, one sequence each.
 * The format is found from the content; gzip is unpacked.  Lower case is accepted; any letter but A C G T, and any row
 * that does not fit its header, is an error with file and line.  Files are bounded to 256 MiB unpacked. */
#pragma once
#include "base/text.h"

typedef struct SeqData {
    size_t n;
    uint8_t *letter;      /* all sequences one after the other: 0..3 = A C G T */
    size_t *start;        /* [n + 1]: where each begins in `letter` */
    const char **name;    /* [n]; these four are NULL where the source has no such column */
    double *value;        /* [n], NAN where missing */
    int32_t *component;   /* [n]: rows of equal number are related and stay in one fold (runtime/split.h) */
    bool *native;         /* [n]: occurs in the genome (yeast table) */
} SeqData;

static inline const uint8_t *seq_at(const SeqData *d, size_t row)
{
    return d->letter + d->start[row];
}

static inline size_t seq_len(const SeqData *d, size_t row)
{
    return d->start[row + 1] - d->start[row];
}

/* All of these place what they make in `a`. */
SeqData *seqdata_read(Err *err, Arena *a, const char *path); /* NULL with an error; a file without sequences is one */
SeqData *seqdata_parse(Err *err, Arena *a, const char *label, const char *text, size_t n);
SeqData *seqdata_from_letters(Arena *a, const uint8_t *letter, size_t n, size_t length); /* n sequences of one length */
SeqData *seqdata_select(Arena *a, const SeqData *d, const size_t *row, size_t n);
size_t seqdata_length(const SeqData *d); /* the common length; 0 when lengths differ */
/* The letters of n rows from `first` on, one row after the other, as networks take them. */
void seqdata_ids(const SeqData *d, size_t first, size_t n, int64_t *ids);

/* Write whole or not at all.  Rows without a name are called sequence_1, sequence_2, ... in FASTA. */
bool seqdata_write_fasta(Err *err, const char *path, const SeqData *d);
bool seqdata_write_table(Err *err, const char *path, const SeqData *d); /* columns: those it has; missing values are NA */
