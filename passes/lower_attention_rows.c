/* Attention, forward, for processors whose tiles are small: queries are rows of a tile, keys its columns, both as they
 * lie in memory, and a chunk of queries shares what is packed of a block of keys.
 *     score[q, j] = q . k_j            A = queries,                B = keys, transposed
 *     out[q, e]   = sum_j p_qj v_je    A = p,                      B = values
 * bf16: words of p hold keys 16 apart, so that two vectors become one of words without a shuffle; the values' words do
 * the same, and p takes the place of the scores.  Queries go in blocks of one height: the last one starts earlier
 * rather than be smaller, and does some rows twice.  An element's bits depend on its own query and on the keys alone.
 */
#include "passes/lower_attention_rows.h"

/* CHUNK_LEAST: of fewer queries packing what they share is the most of the work.  NEAR: bytes that stay in the nearest
 * cache. */
enum { LANES = ATTENTION_LANES, QUERY_ROWS = 64, KEY_BLOCK = 512, CHUNK_MOST = 1024, CHUNKS = 16 };
enum { TILE_QUERY_ROWS = 128, TILE_KEY_BLOCK = 256, CHUNK_LEAST = 256, TILE_DEPTH = 32, MOST_DEPTH = 256, NEAR = 24 << 10 };

Val rows_of_batch(Attention *a, int64_t rows, Val row, int64_t width)
{
    return k_addmul(a->k, k_addmul(a->k, a->l->zero, a->b, rows * width), row, width);
}

/* ---- packing ---- */
static void pack_keys(Attention *a, Rows *f)
{
    for (int p = 0; p < f->panels; p++) {
        Val first = sum_of(a->k, f->j0, k_int(a->k, (int64_t)p * f->nr));
        int64_t left = f->block - (int64_t)p * f->nr;
        if (f->key_words)
            attention_pack_pairs(a, f->key_words, rows_of_batch(a, a->keys, first, a->width / 2), a->width / 2, f->keys,
                                 p * panel_size(a, f->depth), left);
        else
            attention_pack(a, a->key, rows_of_batch(a, a->keys, first, a->width), a->width,
                           a->pairs ? 1 : a->scale * LOG2E, f->keys, p * panel_size(a, f->depth), left, 0);
    }
}

static void open_queries(Attention *a, Rows *f, Val c0, Val i)
{
    Graph *k = a->k;
    f->state = k_op(k, OP_MUL, i, k_int(k, f->rows), 0);
    f->q0 = k_op(k, OP_MIN, sum_of(k, c0, f->state), k_int(k, a->queries - f->rows), 0);
}

/* Queries with zeros up to the depth that tile registers take. */
static void pad_queries(Attention *a, Rows *f, Val c0, Val blocks)
{
    Graph *k = a->k;
    Val i = k_for_dyn(k, LOOP_SERIAL, a->l->zero, blocks, 1);
    open_queries(a, f, c0, i);
    Val r = k_for(k, LOOP_SERIAL, 0, f->rows, 1), c = k_for(k, LOOP_VECTOR, 0, f->depth, 1);
    Val inside = k_op(k, OP_LT, c, k_int(k, a->width), 0);
    Val x = k_load(k, a->q, sum_of(k, rows_of_batch(a, a->queries, sum_of(k, f->q0, r), a->width), c), inside);
    k_store(k, f->padded, k_addmul(k, c, sum_of(k, f->state, r), f->depth), x, 0);
    k_end(k, c);
    k_end(k, r);
    k_end(k, i);
}

/* ---- a block of keys and a block of queries ---- */
static void score_tile(Attention *a, void *arg, Val first, int rows)
{
    Rows *f = arg;
    Graph *k = a->k;
    Product p = {.a = a->q, .a_off = rows_of_batch(a, a->queries, f->q0, a->width), .row_stride = a->width, .k_stride = 1,
                 .b = f->keys, .b_off = k_int(k, f->panel * panel_size(a, f->depth)), .depth = a->width};
    if (f->padded)
        p.a = f->padded, p.a_off = k_op(k, OP_MUL, f->state, k_int(k, f->depth), 0), p.row_stride = p.depth = f->depth;
    Val tile = attention_product(a, &p, first, rows, f->nr);
    TileLoop t = tile_loop(k, rows, f->nr);
    int64_t left = f->block - (int64_t)f->panel * f->nr;
    Val row = sum_of(k, first, t.row), col = sum_of(k, t.col, k_int(k, (int64_t)f->panel * f->nr));
    Val x = k_tile_get(k, tile, t.row, t.col), key = sum_of(k, f->j0, col), query = sum_of(k, f->q0, row);
    Val inside = left < f->nr && !f->raw ? k_op(k, OP_LT, t.col, k_int(k, left), 0) : 0;
    if (a->pairs && !f->raw)
        x = k_op(k, OP_MUL, x, k_num(k, DAV_F32, a->scale * LOG2E), 0);
    if (a->bias) {
        Val at = sum_of(k, k_addmul(k, key, query, a->keys), k_op(k, OP_MUL, a->b, k_int(k, a->bias_step), 0));
        x = k_op(k, OP_FMA, k_load(k, a->bias, at, inside), k_num(k, DAV_F32, LOG2E), x);
        x = k_op(k, OP_MAX, x, k_num(k, DAV_F32, ATTENTION_LEAST), 0);
    }
    if (a->causal)
        x = k_op(k, OP_SELECT, k_op(k, OP_GE, query, key, 0), x, k_num(k, DAV_F32, ATTENTION_NEVER * LOG2E));
    if (inside)
        x = k_op(k, OP_SELECT, inside, x, k_num(k, DAV_F32, -3e38));
    k_store(k, f->score, k_addmul(k, col, row, f->stride), a->pairs ? k_bitcast(k, x, DAV_U32) : x, 0);
    tile_loop_end(k, t);
}

/* From one query's sums to the next one's: whole vectors. */
static int64_t sums_of(const Attention *a, const Rows *f)
{
    return (a->value + f->vr - 1) / f->vr * f->vr;
}

static void value_tile(Attention *a, void *arg, Val first, int rows)
{
    Rows *f = arg;
    Graph *k = a->k;
    int64_t left = a->value - f->col0, columns = left < f->vr ? left : f->vr,
            words = attention_row_words(f->panels * f->nr);
    Product p = {.a = f->score, .a_off = a->l->zero, .row_stride = f->stride, .k_stride = 1, .b = a->v, .b_stride = a->value,
                 .depth = f->block, .columns = columns};
    p.b_off = sum_of(k, rows_of_batch(a, a->keys, f->j0, a->value), k_int(k, f->col0));
    if (a->pairs) {
        p.b = f->values;
        p.b_off = k_int(k, f->col0 * words);
        p.b_stride = p.columns = 0;
        p.depth = 2 * words;
    }
    Val tile = attention_product(a, &p, first, rows, f->vr);
    /* sums have room for all of a tile, which holds zeros there */
    TileLoop t = tile_loop(k, rows, f->only || !a->pairs ? columns : f->vr);
    Val row = sum_of(k, first, t.row), x = k_tile_get(k, tile, t.row, t.col), keep = k_load(k, f->keep, row, 0);
    Val col = sum_of(k, t.col, k_int(k, f->col0));
    if (f->only) {
        Val at = rows_of_batch(a, a->queries, sum_of(k, f->q0, row), a->value);
        k_store(k, a->l->out[0], sum_of(k, at, col), k_op(k, OP_MUL, x, keep, 0), 0);
    } else {
        Val at = k_addmul(k, col, sum_of(k, f->state, row), sums_of(a, f));
        k_store(k, f->sum, at, k_op(k, OP_FMA, k_load(k, f->sum, at, 0), keep, x), 0);
    }
    tile_loop_end(k, t);
}

static Val larger_index(Graph *k, Val x, Val y)
{
    return k_op(k, OP_MAX, x, y, 0);
}

static int tile_rows(const Attention *a, const Rows *f, int columns)
{
    return a->pairs && a->pair_rows ? a->pair_rows : f->area > columns ? f->area / columns : 1;
}

static void query_block(Attention *a, Rows *f, Val c0, Val i)
{
    open_queries(a, f, c0, i);
    for (f->panel = 0; f->panel < f->panels; f->panel++)
        attention_tiles(a, f->rows, tile_rows(a, f, f->nr), score_tile, f);
    rows_softmax(a, f);
    for (f->col0 = 0; f->col0 < a->value; f->col0 += f->vr)
        attention_tiles(a, f->rows, tile_rows(a, f, f->vr), value_tile, f);
}

static void key_block(Attention *a, Rows *f, Val j0, int64_t block, Val c0, Val blocks)
{
    Graph *k = a->k;
    f->j0 = j0;
    f->block = block;
    f->panels = (block + f->nr - 1) / f->nr;
    f->stride = rows_stride(a, f);
    pack_keys(a, f);
    if (a->pairs)
        attention_pack_rows(a, a->v, rows_of_batch(a, a->keys, j0, a->value), block, a->value, f->vr, f->values);
    Val from = a->l->zero; /* queries before the block's first key have nothing of it when causal */
    if (a->causal)
        from = larger_index(k, from, k_op(k, OP_DIV, k_op(k, OP_SUB, j0, c0, 0), k_int(k, f->rows), 0));
    Val i = k_for_dyn(k, LOOP_SERIAL, from, blocks, 1);
    query_block(a, f, c0, i);
    k_end(k, i);
}

/* ---- the kernel ---- */
static void start(Attention *a, Rows *f)
{
    Graph *k = a->k;
    if (f->padded) {
        Val c = k_for(k, LOOP_VECTOR, 0, f->panels * panel_size(a, f->depth), 1);
        k_store(k, f->keys, c, k_num(k, DAV_U32, 0), 0);
        k_end(k, c);
    }
    if (f->only)
        return;
    Val c = k_for(k, LOOP_VECTOR, 0, f->chunk, 1);
    k_store(k, f->most, c, k_num(k, DAV_F32, -3e38), 0);
    k_end(k, c);
    c = k_for(k, LOOP_VECTOR, 0, f->chunk * LANES, 1);
    k_store(k, f->total, c, k_num(k, DAV_F32, 0), 0);
    k_end(k, c);
    c = k_for(k, LOOP_VECTOR, 0, f->chunk * sums_of(a, f), 1);
    k_store(k, f->sum, c, k_num(k, DAV_F32, 0), 0);
    k_end(k, c);
}

static void finish(Attention *a, Rows *f, Val c0, Val blocks)
{
    Graph *k = a->k;
    Val i = k_for_dyn(k, LOOP_SERIAL, a->l->zero, blocks, 1);
    open_queries(a, f, c0, i);
    rows_totals(a, f);
    Val row = k_for(k, LOOP_SERIAL, 0, f->rows, 1), c = k_for(k, LOOP_VECTOR, 0, a->value, 1);
    Val x = k_load(k, f->sum, k_addmul(k, c, sum_of(k, f->state, row), sums_of(a, f)), 0);
    Val at = sum_of(k, rows_of_batch(a, a->queries, sum_of(k, f->q0, row), a->value), c);
    k_store(k, a->l->out[0], at, k_op(k, OP_MUL, x, k_load(k, f->keep, row, 0), 0), 0);
    k_end(k, c);
    k_end(k, row);
    k_end(k, i);
}

static int64_t smaller(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

/* With tile registers, panels of which one stays in the nearest cache while the chunk's queries pass. */
static void plan_tiles(Attention *a, Rows *f)
{
    f->depth = (a->width + TILE_DEPTH - 1) / TILE_DEPTH * TILE_DEPTH;
    bool rolled = f->raw && f->rows % a->pair_rows == 0 && f->depth <= MOST_DEPTH; /* a tile of any width, see amx.c */
    int64_t near = smaller(8 * LANES, NEAR / (2 * f->depth) / LANES * LANES);
    f->nr = attention_columns(f->block, rolled ? (int)near : 5 * LANES, LANES);
    int most = 2 * f->block * 5 * LANES <= NEAR ? 5 * LANES : 3 * LANES;
    f->vr = attention_columns(a->value, most, LANES);
    if (f->vr == LANES && a->value > LANES) /* products would wait for each other */
        f->vr = most;
}

static int most_rows(const Attention *a)
{
    return (int)smaller(TILE_QUERY_ROWS, a->queries / LANES * LANES);
}

static Rows plan(Attention *a)
{
    bool wide = a->nr >= 4 * LANES; /* registers for one vector more than the tile of products has */
    bool tiles = a->pairs && a->pair_rows;
    Rows f = {.area = a->mr * a->nr + (wide ? LANES : 0),
              .raw = a->pairs && a->scale > 0 && !a->bias && !a->causal,
              .depth = a->width};
    int64_t most = tiles ? TILE_KEY_BLOCK : KEY_BLOCK, blocks = (a->keys + most - 1) / most;
    f.block = (a->keys + blocks - 1) / blocks;
    f.only = blocks == 1;
    if (!tiles)
        f.rows = smaller(a->queries, QUERY_ROWS);
    else /* whole tiles, with little done twice */
        f.rows = a->queries < LANES ? a->queries : attention_columns(a->queries, most_rows(a), LANES);
    f.nr = wide ? attention_columns(f.block, 5 * LANES, LANES) : LANES;
    f.vr = attention_columns(a->value, wide ? 5 * LANES : 3 * LANES, LANES);
    if (tiles)
        plan_tiles(a, &f);
    a->nr = a->pitch = f.nr;
    f.panels = (f.block + f.nr - 1) / f.nr;
    f.block = f.panels * f.nr;
    f.base = f.raw ? a->scale * LOG2E : 1;
    int64_t chunk = smaller(a->batch * a->queries / CHUNKS, CHUNK_MOST);
    int64_t least = smaller(a->queries, tiles ? CHUNK_LEAST : f.rows);
    f.chunk = ((chunk < least ? least : chunk) + f.rows - 1) / f.rows * f.rows;
    return f;
}

void lower_attention_rows(Attention *a)
{
    Graph *k = a->k;
    const Lower *l = a->l;
    Rows f = plan(a);
    int64_t block = f.block, full = a->keys / block, rest = a->keys % block,
            chunks = (a->queries + f.chunk - 1) / f.chunk;
    if (f.depth != a->width)
        f.padded = lower_scratch(a->l, DAV_BF16, f.chunk * f.depth);
    if (a->pairs && a->width % 2 == 0)
        f.key_words = attention_words(a, a->key);
    f.keys = attention_scratch(a, f.panels * panel_size(a, f.depth), true);
    if (a->pairs)
        f.values = attention_scratch(a, attention_row_words(f.block) * sums_of(a, &f), true);
    f.score = attention_scratch(a, f.rows * rows_stride(a, &f), a->pairs);
    if (!f.only)
        f.sum = attention_scratch(a, f.chunk * sums_of(a, &f), false);
    f.most = attention_scratch(a, f.chunk, false);
    f.total = attention_scratch(a, f.chunk * LANES, false);
    f.row_most = lower_scratch(a->l, DAV_I32, f.rows);
    f.row_total = attention_scratch(a, f.rows, false);
    f.keep = attention_scratch(a, f.rows, false);
    Val p = k_for(k, LOOP_PARALLEL, 0, a->batch * chunks, 1);
    a->b = k_op(k, OP_DIV, p, k_int(k, chunks), 0);
    Val c0 = k_op(k, OP_MUL, k_op(k, OP_REM, p, k_int(k, chunks), 0), k_int(k, f.chunk), 0);
    Val queries = k_op(k, OP_MIN, k_op(k, OP_SUB, k_int(k, a->queries), c0, 0), k_int(k, f.chunk), 0);
    Val blocks = k_op(k, OP_DIV, sum_of(k, queries, k_int(k, f.rows - 1)), k_int(k, f.rows), 0);
    Val last = sum_of(k, sum_of(k, c0, queries), k_int(k, -1)),
        end = k_int(k, full); /* keys after it count for nothing when causal */
    start(a, &f);
    if (f.padded)
        pad_queries(a, &f, c0, blocks);
    if (a->causal)
        end = k_op(k, OP_MIN, end, sum_of(k, k_op(k, OP_DIV, last, k_int(k, block), 0), k_int(k, 1)), 0);
    if (full) {
        Val i = k_for_dyn(k, LOOP_SERIAL, l->zero, end, 1);
        key_block(a, &f, k_op(k, OP_MUL, i, k_int(k, block), 0), block, c0, blocks);
        k_end(k, i);
    }
    if (rest) {
        Val needed = a->causal && full ? k_if(k, k_op(k, OP_GE, last, k_int(k, full * block), 0)) : 0;
        key_block(a, &f, k_int(k, full * block), rest, c0, blocks);
        if (needed)
            k_end(k, needed);
    }
    if (!f.only)
        finish(a, &f, c0, blocks);
    k_end(k, p);
}
