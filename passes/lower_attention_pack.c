/* How attention's operands are packed for processors with small tiles: bf16 as words of two, along the width or along the rows. */
#include "passes/lower_attention.h"

enum { LANES = ATTENTION_LANES };

Val attention_words(Attention *a, Val buf)
{
    Type t = type_of(a->k, buf);
    if (t.dtype != DAV_BF16 || t.dim[t.rank - 1] % 2)
        return 0;
    t.dtype = DAV_U32;
    t.dim[t.rank - 1] /= 2;
    return k_buf(a->k, "words", BUF_IN, (int)attr_i(node_of(a->k, buf), A_INDEX), t);
}

void attention_pack_pairs(Attention *a, Val words, Val base, int64_t depth, Val panel, int64_t at, int64_t columns)
{
    Graph *k = a->k;
    Val r = k_for(k, LOOP_SERIAL, 0, depth, 1), c = k_for(k, LOOP_VECTOR, 0, a->nr, 1);
    Val mask = columns < a->nr ? k_op(k, OP_LT, c, k_int(k, columns), 0) : 0;
    Val x = k_load(k, words, k_op(k, OP_ADD, k_addmul(k, base, c, depth), r, 0), mask);
    k_store(k, panel, k_op(k, OP_ADD, k_addmul(k, k_int(k, at), r, a->nr), c, 0), x, 0);
    k_end(k, c);
    k_end(k, r);
}

int64_t attention_row_words(int64_t n)
{
    return (n + 2 * LANES - 1) / (2 * LANES) * LANES;
}

typedef struct RowPack {
    Val src, base, col;
    int64_t rows, width, col0;
    Val inside; /* columns of the panel that src has; 0: all */
    bool tail;  /* rows may be beyond the last one */
} RowPack;

static Val bits_at(Attention *a, const RowPack *p, Val row)
{
    Graph *k = a->k;
    Val mask = p->inside, valid = p->tail ? k_op(k, OP_LT, row, k_int(k, p->rows), 0) : 0;
    if (valid)
        mask = mask ? k_op(k, OP_AND, mask, valid, 0) : valid;
    Val at = k_op(k, OP_ADD, k_op(k, OP_ADD, k_addmul(k, p->base, row, p->width), k_int(k, p->col0), 0), p->col, 0);
    return k_bitcast(k, k_cast(k, k_load(k, p->src, at, mask), DAV_F32), DAV_U32);
}

void attention_pack_rows(Attention *a, Val src, Val base, int64_t rows, int64_t width, int columns, Val panel)
{
    Graph *k = a->k;
    int64_t words = attention_row_words(rows), full = rows / (2 * LANES);
    RowPack p = {.src = src, .base = base, .rows = rows, .width = width};
    for (; p.col0 < width; p.col0 += columns)
        for (int tail = 0; tail < 2; tail++) {
            Val i = k_for(k, LOOP_SERIAL, tail ? full : 0, tail ? words / LANES : full, 1), r = k_for(k, LOOP_SERIAL, 0, LANES, 1);
            p.col = k_for(k, LOOP_VECTOR, 0, columns, 1);
            p.inside = width - p.col0 < columns ? k_op(k, OP_LT, p.col, k_int(k, width - p.col0), 0) : 0;
            p.tail = tail;
            Val row = k_addmul(k, r, i, 2 * LANES), low = bits_at(a, &p, row);
            Val word = bf16_join(k, low, bits_at(a, &p, k_op(k, OP_ADD, row, k_int(k, LANES), 0)));
            Val at = k_addmul(k, k_int(k, p.col0 * words), k_addmul(k, r, i, LANES), columns);
            k_store(k, panel, k_op(k, OP_ADD, at, p.col, 0), word, 0);
            k_end(k, p.col);
            k_end(k, r);
            k_end(k, i);
        }
}

static Val rounded(Graph *k, Val x)
{
    return k_op(k, OP_ADD, k_bitcast(k, x, DAV_U32), k_num(k, DAV_U32, 0x8000), 0);
}

Val attention_word(Graph *k, Val low, Val high)
{
    return bf16_join(k, rounded(k, low), k_op(k, OP_AND, rounded(k, high), k_num(k, DAV_U32, 0xffff0000), 0));
}

int attention_columns(int64_t n, int most, int unit)
{
    int best = most;
    for (int w = most; w >= unit; w -= unit)
        if ((n + w - 1) / w * w < (n + best - 1) / best * best)
            best = w;
    return best;
}
