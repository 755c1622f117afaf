/* Attention, forward, with queries as rows of tiles: what lower_attention_rows.c and its softmax share. */
#pragma once
#include "passes/lower_attention.h"

typedef struct Rows {
    int64_t rows, chunk, block; /* queries of a block and of a chunk; keys of a block, now */
    int nr, vr;                 /* columns of a panel of keys, of values */
    int area;                   /* of a tile at most */
    int64_t panels, stride;     /* panels of keys in the block; a row of scores */
    int64_t depth;              /* width, with AMX whole blocks of it */
    bool raw;                   /* scores are stored as they come */
    double base;                /* a score times this is the power of 2 that it stands for */
    Val padded;                 /* the chunk's queries of that depth; 0: as they are */
    Val key_words;              /* the keys as words of two; 0: their width is odd */
    Val keys, values;           /* packed: [panels][width][nr], [panels][block][vr] (f32: not packed) */
    Val score;                  /* then the exponentials in their place; bf16: bits, then words of two of them */
    Val sum, most, total; /* of the chunk's queries: sums of values; largest score; sums of weights, LANES of them */
    Val row_most, row_total, keep; /* of a block of queries; keep: factor of what was before, of the result at last */
    Val j0, q0, state;             /* first key, first query, the query block's first place in most, total, sum */
    int64_t col0;                  /* first column of values, now */
    int panel;
    bool only; /* there is one block of keys */
} Rows;

static inline Val sum_of(Graph *k, Val x, Val y)
{
    return k_op(k, OP_ADD, x, y, 0);
}

/* Where `row` of the batch entry starts in rows of `width`. */
Val rows_of_batch(Attention *a, int64_t rows, Val row, int64_t width);
/* From one row of scores to the next. */
int64_t rows_stride(const Attention *a, const Rows *f);
/* Of a block of queries: scores become exponentials from the largest one so far, what is known of the rows is brought
 * up to date. */
void rows_softmax(Attention *a, Rows *f);
/* keep becomes the factors of the result; the logarithms of the sums are stored. */
void rows_totals(Attention *a, Rows *f);
