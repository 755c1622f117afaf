/* Attention on its way to one kernel: what its two directions share. */
#pragma once
#include "passes/lower.h"

/* One product of the kernel: tile[r, j] = sum over k of A[a_off + r*row_stride + k*k_stride] * B(k, j). */
typedef struct Product {
    Val a, a_off, b, b_off;
    int64_t row_stride, k_stride;
    int64_t b_stride; /* from one k to the next; 0: a packed panel */
    int64_t depth, columns; /* columns: valid ones, 0: all */
} Product;

typedef struct Attention {
    Lower *l;
    Graph *k;
    int64_t batch, queries, keys, width, value; /* width: of a query and a key, value: of a value */
    int64_t bias_step; /* from one batch entry's bias to the next, 0: all have the same */
    bool causal, half, pairs; /* half: operands are bf16; pairs: their panels are words of two */
    double scale;
    bool spread;        /* over many processors (CompileOptions.processors): whole teams work at a panel */
    int mr, nr;         /* tile */
    int pair_rows;      /* rows of a tile of pairs, 0: as mr */
    int pitch;          /* from one row of a panel to the next, in its elements */
    Val q, key, v, bias; /* buffers; bias 0: none */
    Val b;               /* batch entry */
} Attention;

/* What an impossible place counts as before the exponential. */
#define ATTENTION_NEVER (-1e9)
/* Scores with a bias are not below: what is hidden (-3e38) must stay below them, and times log2 e nothing may overflow. A row whose keys
 * are all masked by -inf or the least f32 is then a plain average. */
#define ATTENTION_LEAST (-1e38)

/* Exponentials are powers of 2. */
#define LOG2E 1.44269504088896340736
#define LN2 0.69314718055994530942

Attention attention_of(Lower *l, const Node *n);
void attention_narrow(Attention *a); /* to half the columns */
/* Rows that a panel of depth rows has: some more, of zeros, where matrix units read it in place. */
int64_t panel_rows(const Attention *a, int64_t depth);
/* Elements that a panel of `depth` rows takes. */
int64_t panel_size(const Attention *a, int64_t depth);
Val attention_scratch(Attention *a, int64_t elements, bool panel);
/* panel[at] (r, c) = scale * src[base + c*depth + r] for c < columns (0: all): rows of src become columns. */
void attention_pack(Attention *a, Val src, Val base, int64_t depth, double scale, Val panel, int64_t at, int64_t columns, Val valid);
/* The words of two numbers in bf16, the first one in the lower half. */
Val bf16_word(Graph *k, Val low, Val high);
/* The same of the bits of floats that are bf16: the lower halves of both are 0. */
Val bf16_join(Graph *k, Val low, Val high);
/* For every tile of `rows` rows in all: fn gets the tile's first row and how many rows it has. */
typedef void (*TileFn)(Attention *a, void *arg, Val first, int rows);
void attention_tiles(Attention *a, int64_t rows, int most, TileFn fn, void *arg);
/* A tile of `rows` rows holding the product; then open and close the loops over its elements. */
Val attention_product(Attention *a, const Product *p, Val first, int rows, int nr);
typedef struct TileLoop { Val row, col; } TileLoop;
TileLoop tile_loop(Graph *k, int rows, int64_t columns);
void tile_loop_end(Graph *k, TileLoop t);

/* ---- passes/lower_attention_pack.c: for processors with small tiles ---- */
enum { ATTENTION_LANES = 16 };
/* A buffer of bf16 with rows of even width, read as words of two; 0: the width is odd. */
Val attention_words(Attention *a, Val buf);
/* panel[at] (r, c) = words[base + c*depth + r] for c < columns, 0 beyond them. */
void attention_pack_pairs(Attention *a, Val words, Val base, int64_t depth, Val panel, int64_t at, int64_t columns);
/* Words of a row of n numbers, the low and the high half LANES apart: two vectors become one of words without a shuffle. */
int64_t attention_row_words(int64_t n);
/* The rows src[base + r*width], r < rows, as a packed panel [attention_row_words(rows)][columns] for each `columns` of width. */
void attention_pack_rows(Attention *a, Val src, Val base, int64_t rows, int64_t width, int columns, Val panel);
/* A word of two floats rounded to the nearest bf16.  The NaNs of operands in bf16 have no low bits, and stay NaN. */
Val attention_word(Graph *k, Val low, Val high);
/* Columns of a tile for n: what wastes the fewest, in whole units; wide tiles before narrow ones. */
int attention_columns(int64_t n, int most, int unit);

void lower_attention(Lower *l, const Node *n);
void lower_attention_rows(Attention *a);
void lower_attention_grad(Lower *l, const Node *n);
/* The same for a target of many processors (a->spread). */
void lower_attention_grad_panels(Attention *a, const Node *n);
