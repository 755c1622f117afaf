/* Attention, forward, for targets of many processors (lower_attention_rows.c: for others): a panel of queries passes over all keys
 * in blocks; the scores of a block never leave the processor.
 *
 * Queries are columns (lanes), keys and values are rows, so that nothing is summed across lanes and no width is wasted:
 *     score[j, q] = k_j . q          A = keys,              B = the panel of queries
 *     out[e, q]   = sum_j v_je p_jq  A = values, transposed  B = p
 * The largest score and the sum so far are corrected from block to block (Milakov and Gimelshein, "Online normalizer
 * calculation for softmax", 2018; Dao et al., "FlashAttention", 2022).  An element's bits depend on its own query and on
 * the keys alone. */
#include "passes/lower_attention.h"

enum { SPREAD_TILE = 64, SPREAD_GAP = 8 /* columns between rows: not all in the same banks */, FRAGMENT = 16, TEAM = 128,
       WIDE = 96 /* values from which on half as many queries leave room for a second block beside a processor */ };

Attention attention_of(Lower *l, const Node *n)
{
    const Node *q = node_of(l->body, n->arg[0]), *k = node_of(l->body, n->arg[1]), *v = node_of(l->body, n->arg[2]);
    const CompileOptions *o = l->cx->options;
    Attention a = {.l = l, .k = l->k, .batch = q->dim[0], .queries = q->dim[1], .width = q->dim[2], .keys = k->dim[1], .value = v->dim[2],
                   .causal = attr_i(n, A_CAUSAL) != 0, .scale = attr_f(n, A_SCALE), .half = q->dtype == DAV_BF16};
    a.spread = o && o->processors > 0;
    a.mr = a.spread ? SPREAD_TILE : o && o->tile_rows ? o->tile_rows : 6;
    a.nr = a.spread ? SPREAD_TILE : o && o->tile_columns ? o->tile_columns : 16;
    a.pair_rows = o ? o->pair_rows : 0;
    a.pairs = a.half && !a.spread;
    a.pitch = a.spread ? a.nr + SPREAD_GAP : a.nr;
    a.q = l->buf[n->arg[0]];
    a.key = l->buf[n->arg[1]];
    a.v = l->buf[n->arg[2]];
    int at = n->op == OP_ATTENTION ? 3 : 6;
    if (n->narg > at) {
        a.bias = l->buf[n->arg[at]];
        a.bias_step = node_of(l->body, n->arg[at])->dim[0] == 1 ? 0 : a.queries * a.keys;
    }
    return a;
}

void attention_narrow(Attention *a)
{
    int gap = a->pitch - a->nr;
    a->nr /= 2;
    a->pitch = a->nr + gap;
}

int64_t panel_rows(const Attention *a, int64_t depth)
{
    return a->spread ? (depth + FRAGMENT - 1) / FRAGMENT * FRAGMENT : depth;
}

int64_t panel_size(const Attention *a, int64_t depth)
{
    return (a->pairs ? (depth + 1) / 2 : panel_rows(a, depth)) * a->pitch;
}

Val attention_scratch(Attention *a, int64_t elements, bool panel)
{
    return lower_scratch(a->l, panel && a->pairs ? DAV_U32 : panel && a->half ? DAV_BF16 : DAV_F32, elements);
}

static Val bf16_bits(Graph *k, Val x)
{
    return k_bitcast(k, k_cast(k, k_cast(k, x, DAV_BF16), DAV_F32), DAV_U32);
}

Val bf16_join(Graph *k, Val low, Val high)
{
    return k_op(k, OP_OR, k_op(k, OP_SHR, low, k_num(k, DAV_U32, 16), 0), high, 0);
}

Val bf16_word(Graph *k, Val low, Val high)
{
    return bf16_join(k, bf16_bits(k, low), bf16_bits(k, high));
}

static Val scaled(Graph *k, Val src, Val off, Val mask, double scale)
{
    Val x = k_cast(k, k_load(k, src, off, mask), DAV_F32);
    return scale == 1 ? x : k_op(k, OP_MUL, x, k_num(k, DAV_F32, scale), 0);
}

void attention_pack(Attention *a, Val src, Val base, int64_t depth, double scale, Val panel, int64_t at, int64_t columns, Val valid)
{
    Graph *k = a->k;
    int64_t full = a->pairs ? depth / 2 : depth, step = a->pairs ? 2 : 1;
    for (int tail = 0; tail < 2; tail++) {
        if (tail ? full * step == depth : full == 0)
            continue;
        Val r = tail ? k_int(k, full) : k_for(k, LOOP_SERIAL, 0, full, 1), c = k_for(k, LOOP_VECTOR, 0, a->nr, 1);
        Val mask = valid ? k_op(k, OP_LT, c, valid, 0) : columns && columns < a->nr ? k_op(k, OP_LT, c, k_int(k, columns), 0) : 0;
        Val off = k_addmul(k, k_addmul(k, base, c, depth), r, step), x = scaled(k, src, off, mask, scale);
        if (a->pairs) {
            Val next = tail ? k_num(k, DAV_F32, 0) : scaled(k, src, k_op(k, OP_ADD, off, k_int(k, 1), 0), mask, scale);
            x = scale == 1 ? bf16_join(k, k_bitcast(k, x, DAV_U32), k_bitcast(k, next, DAV_U32)) : bf16_word(k, x, next);
        } else if (a->half) {
            x = k_cast(k, x, DAV_BF16);
        }
        k_store(k, panel, k_op(k, OP_ADD, k_addmul(k, k_int(k, at), r, a->pitch), c, 0), x, 0);
        k_end(k, c);
        if (!tail)
            k_end(k, r);
    }
    if (panel_rows(a, depth) == depth)
        return;
    Val r = k_for(k, LOOP_SERIAL, depth, panel_rows(a, depth), 1), c = k_for(k, LOOP_VECTOR, 0, a->nr, 1);
    k_store(k, panel, k_op(k, OP_ADD, k_addmul(k, k_int(k, at), r, a->pitch), c, 0), k_num(k, a->half ? DAV_BF16 : DAV_F32, 0), 0);
    k_end(k, c);
    k_end(k, r);
}

void attention_tiles(Attention *a, int64_t rows, int most, TileFn fn, void *arg)
{
    Graph *k = a->k;
    int64_t tiles = (rows + most - 1) / most, height = (rows + tiles - 1) / tiles;
    if (a->spread) /* whole fragments of matrix units */
        height = panel_rows(a, height) < rows ? panel_rows(a, height) : rows;
    int64_t full = rows / height;
    Val t = k_for(k, LOOP_SERIAL, 0, full, 1);
    fn(a, arg, k_op(k, OP_MUL, t, k_int(k, height), 0), (int)height);
    k_end(k, t);
    if (rows % height)
        fn(a, arg, k_int(k, full * height), (int)(rows % height));
}

Val attention_product(Attention *a, const Product *p, Val first, int rows, int nr)
{
    Graph *k = a->k;
    Val tile = k_tile(k, rows, nr), zero = a->l->zero;
    TileContract c = {.tile = tile, .a = p->a, .b = p->b, .a_off = k_addmul(k, p->a_off, first, p->row_stride), .row0 = zero,
                      .b_off = p->b_off, .rows = k_int(k, rows), .k = k_int(k, p->depth), .a_row_step = 1, .a_div = 1,
                      .a_row_stride = p->row_stride, .a_k_stride = p->k_stride, .b_k_stride = p->b_stride, .b_col_stride = 1,
                      .b_packed = p->b_stride == 0};
    if (p->columns && p->columns < nr)
        c.cols = k_int(k, p->columns);
    k_tile_contract(k, &c);
    return tile;
}

TileLoop tile_loop(Graph *k, int rows, int64_t columns)
{
    Val row = k_for(k, LOOP_ROW, 0, rows, 1);
    return (TileLoop){row, k_for(k, LOOP_VECTOR, 0, columns, 1)};
}

void tile_loop_end(Graph *k, TileLoop t)
{
    k_end(k, t.col);
    k_end(k, t.row);
}

/* ---- one block of keys ---- */
typedef struct Forward {
    Val q0, columns;           /* first query of the panel; valid ones, 0: all */
    Val panel, score, weight;  /* weight: exponentials in the form that the second product reads (f32: score itself) */
    Val sum, most, total, keep; /* sums of values; largest score, sum of weights, factor of what was before */
    Val part;                  /* of a column, from each part of the keys */
    Val j0;                    /* first key of the block */
    int64_t block;             /* keys in it */
    bool only;                 /* there is one block */
} Forward;

static Val at2(Graph *k, Val row, int64_t width, Val col)
{
    return k_addmul(k, col, row, width);
}

static void score_tile(Attention *a, void *arg, Val first, int rows)
{
    Forward *f = arg;
    Graph *k = a->k;
    Val off = k_addmul(k, a->l->zero, a->b, a->keys * a->width);
    Product p = {a->key, k_addmul(k, off, f->j0, a->width), f->panel, a->l->zero, a->width, 1, a->pitch, a->width, 0};
    Val tile = attention_product(a, &p, first, rows, a->nr);
    TileLoop t = tile_loop(k, rows, a->nr);
    Val j = k_op(k, OP_ADD, first, t.row, 0), x = k_tile_get(k, tile, t.row, t.col);
    Val key = k_op(k, OP_ADD, f->j0, j, 0), query = k_op(k, OP_ADD, f->q0, t.col, 0);
    if (a->bias) {
        Val mask = f->columns ? k_op(k, OP_LT, t.col, f->columns, 0) : 0;
        Val at = k_op(k, OP_ADD, k_addmul(k, key, query, a->keys), k_op(k, OP_MUL, a->b, k_int(k, a->bias_step), 0), 0);
        x = k_op(k, OP_MAX, k_op(k, OP_ADD, x, k_load(k, a->bias, at, mask), 0), k_num(k, DAV_F32, ATTENTION_LEAST), 0);
    }
    if (a->causal)
        x = k_op(k, OP_SELECT, k_op(k, OP_GE, query, key, 0), x, k_num(k, DAV_F32, ATTENTION_NEVER));
    k_store(k, f->score, at2(k, j, a->pitch, t.col), x, 0);
    tile_loop_end(k, t);
}

/* ---- softmax by a team: several lanes a column, each with its share of the keys ---- */
typedef struct Share { Val lane, c, from; } Share;

static int parts_of(const Attention *a)
{
    return TEAM / a->nr;
}

static int64_t share_of(const Attention *a, const Forward *f)
{
    return panel_rows(a, f->block) / parts_of(a);
}

static Share open_shares(Attention *a, const Forward *f)
{
    Graph *k = a->k;
    Share s = {.lane = k_for(k, LOOP_VECTOR, 0, parts_of(a) * a->nr, 1)};
    s.c = k_op(k, OP_REM, s.lane, k_int(k, a->nr), 0);
    s.from = k_op(k, OP_MUL, k_op(k, OP_DIV, s.lane, k_int(k, a->nr), 0), k_int(k, share_of(a, f)), 0);
    return s;
}

/* Key i of the share, and whether there is one. */
static Val key_of(Attention *a, const Forward *f, const Share *s, Val i, Val *exists)
{
    Val j = k_op(a->k, OP_ADD, s->from, i, 0);
    *exists = panel_rows(a, f->block) != f->block ? k_op(a->k, OP_LT, j, k_int(a->k, f->block), 0) : 0;
    return j;
}

static Val joined(Attention *a, const Forward *f, Op op, Val c, Val x)
{
    Graph *k = a->k;
    for (int i = 0; i < parts_of(a); i++)
        x = k_op(k, op, x, k_load(k, f->part, k_op(k, OP_ADD, c, k_int(k, i * a->nr), 0), 0), 0);
    return x;
}

static void share_largest(Attention *a, Forward *f)
{
    Graph *k = a->k;
    Share s = open_shares(a, f);
    Val most = k_acc(k, DAV_F32, ACC_MAX, -3e38), exists;
    Val i = k_for(k, LOOP_SERIAL, 0, share_of(a, f), 1), j = key_of(a, f, &s, i, &exists);
    Val x = k_load(k, f->score, at2(k, j, a->pitch, s.c), exists);
    k_acc_update(k, most, exists ? k_op(k, OP_SELECT, exists, x, k_num(k, DAV_F32, -3e38)) : x);
    k_end(k, i);
    k_store(k, f->part, s.lane, k_acc_get(k, most), 0);
    k_end(k, s.lane);
    Val c = k_for(k, LOOP_VECTOR, 0, a->nr, 1), before = k_load(k, f->most, c, 0), now = joined(a, f, OP_MAX, c, before);
    k_store(k, f->keep, c, k_op(k, OP_EXP, k_op(k, OP_SUB, before, now, 0), 0, 0), 0);
    k_store(k, f->most, c, now, 0);
    k_end(k, c);
}

static void share_weights(Attention *a, Forward *f)
{
    Graph *k = a->k;
    Share s = open_shares(a, f);
    Val total = k_acc(k, DAV_F32, ACC_ADD, 0), most = k_load(k, f->most, s.c, 0), exists;
    Val i = k_for(k, LOOP_SERIAL, 0, share_of(a, f), 1), j = key_of(a, f, &s, i, &exists);
    Val x = k_load(k, f->score, at2(k, j, a->pitch, s.c), exists), e = k_op(k, OP_EXP, k_op(k, OP_SUB, x, most, 0), 0, 0);
    if (exists)
        e = k_op(k, OP_SELECT, exists, e, k_num(k, DAV_F32, 0));
    k_acc_update(k, total, e);
    k_store(k, f->weight, at2(k, j, a->pitch, s.c), a->half ? k_cast(k, e, DAV_BF16) : e, 0);
    k_end(k, i);
    k_store(k, f->part, s.lane, k_acc_get(k, total), 0);
    k_end(k, s.lane);
    Val c = k_for(k, LOOP_VECTOR, 0, a->nr, 1);
    Val before = k_op(k, OP_MUL, k_load(k, f->total, c, 0), k_load(k, f->keep, c, 0), 0);
    k_store(k, f->total, c, joined(a, f, OP_ADD, c, before), 0);
    k_end(k, c);
}

static void value_tile(Attention *a, void *arg, Val first, int rows)
{
    Forward *f = arg;
    Graph *k = a->k;
    Val off = k_addmul(k, k_addmul(k, a->l->zero, a->b, a->keys * a->value), f->j0, a->value);
    Product p = {a->v, off, f->weight, a->l->zero, 1, a->value, a->pitch, f->block, 0};
    Val tile = attention_product(a, &p, first, rows, a->nr);
    TileLoop t = tile_loop(k, rows, a->nr);
    Val at = at2(k, k_op(k, OP_ADD, first, t.row, 0), a->nr, t.col), x = k_tile_get(k, tile, t.row, t.col);
    if (!f->only)
        x = k_op(k, OP_ADD, k_op(k, OP_MUL, k_load(k, f->sum, at, 0), k_load(k, f->keep, t.col, 0), 0), x, 0);
    k_store(k, f->sum, at, x, 0);
    tile_loop_end(k, t);
}

static void key_block(Attention *a, Forward *f, Val j0, int64_t block)
{
    f->j0 = j0;
    f->block = block;
    attention_tiles(a, block, a->mr, score_tile, f);
    share_largest(a, f);
    share_weights(a, f);
    attention_tiles(a, a->value, a->mr, value_tile, f);
}

/* ---- the kernel ---- */
static void start(Attention *a, Forward *f)
{
    Graph *k = a->k;
    Val c = k_for(k, LOOP_VECTOR, 0, a->nr, 1);
    k_store(k, f->most, c, k_num(k, DAV_F32, -3e38), 0);
    k_store(k, f->total, c, k_num(k, DAV_F32, 0), 0);
    k_end(k, c);
    if (f->only)
        return;
    Val r = k_for(k, LOOP_SERIAL, 0, a->value, 1);
    c = k_for(k, LOOP_VECTOR, 0, a->nr, 1);
    k_store(k, f->sum, at2(k, r, a->nr, c), k_num(k, DAV_F32, 0), 0);
    k_end(k, c);
    k_end(k, r);
}

static Val columns_loop(Attention *a, const Forward *f)
{
    return f->columns ? k_for_dyn(a->k, LOOP_VECTOR, a->l->zero, f->columns, 1) : k_for(a->k, LOOP_VECTOR, 0, a->nr, 1);
}

static void finish(Attention *a, Forward *f)
{
    Graph *k = a->k;
    const Lower *l = a->l;
    Val c = columns_loop(a, f), total = k_load(k, f->total, c, 0);
    Val row = k_addmul(k, k_op(k, OP_ADD, f->q0, c, 0), a->b, a->queries);
    k_store(k, l->out[1], row, k_op(k, OP_ADD, k_load(k, f->most, c, 0), k_op(k, OP_LOG, total, 0, 0), 0), 0);
    k_store(k, f->keep, c, k_op(k, OP_DIV, k_num(k, DAV_F32, 1), total, 0), 0);
    k_end(k, c);
    Val r = k_for(k, LOOP_SERIAL, 0, a->value, 1);
    c = columns_loop(a, f);
    Val x = k_op(k, OP_MUL, k_load(k, f->sum, at2(k, r, a->nr, c), 0), k_load(k, f->keep, c, 0), 0);
    Val at = k_addmul(k, k_addmul(k, k_op(k, OP_ADD, f->q0, c, 0), r, a->queries), a->b, a->queries * a->value);
    k_store(k, l->out[0], at, x, 0);
    k_end(k, c);
    k_end(k, r);
}

/* Keys in a block: equal blocks, whole tiles, an even number. */
static int64_t block_of(const Attention *a)
{
    int64_t blocks = (a->keys + a->mr - 1) / a->mr, block = (a->keys + blocks - 1) / blocks;
    block = (block + a->mr - 1) / a->mr * a->mr;
    return block % 2 ? block + a->mr : block;
}

void lower_attention(Lower *l, const Node *n)
{
    Attention a = attention_of(l, n);
    Graph *k = l->k;
    if (node_attr(n, A_ROWS)) {
        lower_attention_rows(&a);
        return;
    }
    must(a.spread);
    if (a.value > WIDE)
        attention_narrow(&a);
    int64_t block = block_of(&a), panels = (a.queries + a.nr - 1) / a.nr, full = a.keys / block, rest = a.keys % block;
    Forward f = {.only = full + (rest > 0) == 1};
    if (f.only) /* score and weights for no more keys than there are */
        block = a.keys;
    f.panel = attention_scratch(&a, panel_size(&a, a.width), true);
    f.score = attention_scratch(&a, panel_rows(&a, block) * a.pitch, false);
    f.weight = a.half ? attention_scratch(&a, panel_size(&a, block), true) : f.score;
    f.sum = attention_scratch(&a, a.value * a.nr, false);
    f.part = attention_scratch(&a, parts_of(&a) * a.nr, false);
    f.most = attention_scratch(&a, a.nr, false);
    f.total = attention_scratch(&a, a.nr, false);
    f.keep = attention_scratch(&a, a.nr, false);
    Val p = k_for(k, LOOP_PARALLEL, 0, a.batch * panels, 1);
    a.b = k_op(k, OP_DIV, p, k_int(k, panels), 0);
    f.q0 = k_op(k, OP_MUL, k_op(k, OP_REM, p, k_int(k, panels), 0), k_int(k, a.nr), 0);
    if (a.queries % a.nr)
        f.columns = k_op(k, OP_MIN, k_op(k, OP_SUB, k_int(k, a.queries), f.q0, 0), k_int(k, a.nr), 0);
    Val base = k_addmul(k, k_addmul(k, l->zero, a.b, a.queries * a.width), f.q0, a.width);
    attention_pack(&a, a.q, base, a.width, a.scale, f.panel, 0, 0, f.columns);
    start(&a, &f);
    if (f.only) {
        key_block(&a, &f, l->zero, a.keys);
    } else {
        Val last = k_op(k, OP_ADD, f.q0, k_int(k, a.nr - 1), 0); /* keys after it count for nothing when causal */
        Val end = a.causal ? k_op(k, OP_MIN, k_int(k, full), k_op(k, OP_ADD, k_op(k, OP_DIV, last, k_int(k, block), 0), k_int(k, 1), 0), 0)
                           : k_int(k, full);
        Val i = k_for_dyn(k, LOOP_SERIAL, l->zero, end, 1);
        key_block(&a, &f, k_op(k, OP_MUL, i, k_int(k, block), 0), block);
        k_end(k, i);
        Val needed = rest && a.causal ? k_if(k, k_op(k, OP_GE, last, k_int(k, full * block), 0)) : 0;
        if (rest)
            key_block(&a, &f, k_int(k, full * block), rest);
        if (needed)
            k_end(k, needed);
    }
    finish(&a, &f);
    k_end(k, p);
}
