/* Attention, forward, for processors whose tiles are small: queries are rows of a tile, keys its columns, both as they lie in
 * memory, and a chunk of queries shares what is packed of a block of keys.
 *     score[q, j] = q . k_j            A = queries,                B = keys, transposed
 *     out[q, e]   = sum_j p_qj v_je    A = p,                      B = values
 * bf16: words of p hold keys 16 apart, so that two vectors become one of words without a shuffle; the values' words do the
 * same.  Queries go in blocks of one height: the last one starts earlier rather than be smaller, and does some rows twice.  An
 * element's bits depend on its own query and on the keys alone. */
#include "passes/lower_attention.h"

enum { LANES = ATTENTION_LANES, QUERY_ROWS = 48, TILE_QUERY_ROWS = 128 /* with tile registers */, KEY_BLOCK = 512, CHUNK_MOST = 1024,
       CHUNKS = 16, TILE_DEPTH = 32, STEP = 4 };

typedef struct Rows {
    int64_t rows, chunk, block;   /* queries of a block and of a chunk; keys of a block, now */
    int nr, vr;                   /* columns of a panel of keys, of values */
    int area;                     /* of a tile at most */
    int64_t panels, stride;       /* panels of keys in the block; a row of scores */
    int64_t depth;                /* width, with AMX whole blocks of it */
    bool raw;                     /* scores are stored as they come */
    double base;                  /* a score times this is the power of 2 that it stands for */
    Val padded;                   /* the chunk's queries of that depth; 0: as they are */
    Val key_words;                /* the keys as words of two; 0: their width is odd */
    Val keys, values;             /* packed: [panels][width][nr], [panels][block][vr] (f32: not packed) */
    Val score;                    /* then the exponentials in their place; bf16: bits, then words of two of them */
    Val sum, most, total;         /* of the chunk's queries: sums of values; largest score; sums of weights, LANES of them */
    Val row_most, row_total, keep; /* of a block of queries; keep: factor of what was before, of the result at last */
    Val j0, q0, state;            /* first key, first query, the query block's first place in most, total, sum */
    int64_t col0;                 /* first column of values, now */
    int panel;
    bool only;                    /* there is one block of keys */
} Rows;

/* Exponentials are powers of 2. */
#define LOG2E 1.44269504088896340736
#define LN2 0.69314718055994530942

static int64_t words_of(int64_t keys)
{
    return attention_row_words(keys);
}

static Val sum_of(Graph *k, Val x, Val y)
{
    return k_op(k, OP_ADD, x, y, 0);
}

static Val of_batch(Attention *a, int64_t rows, Val row, int64_t width)
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
            attention_pack_pairs(a, f->key_words, of_batch(a, a->keys, first, a->width / 2), a->width / 2, f->keys,
                                 p * panel_size(a, f->depth), left);
        else
            attention_pack(a, a->key, of_batch(a, a->keys, first, a->width), a->width, a->pairs ? 1 : a->scale * LOG2E, f->keys,
                           p * panel_size(a, f->depth), left, 0);
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
    Val r = k_for(k, LOOP_SERIAL, 0, f->rows, 1), c = k_for(k, LOOP_VECTOR, 0, f->depth, 1), inside = k_op(k, OP_LT, c, k_int(k, a->width), 0);
    Val x = k_load(k, a->q, sum_of(k, of_batch(a, a->queries, sum_of(k, f->q0, r), a->width), c), inside);
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
    Product p = {a->q, of_batch(a, a->queries, f->q0, a->width), f->keys, k_int(k, f->panel * panel_size(a, f->depth)),
                 a->width, 1, 0, a->width, 0};
    if (f->padded)
        p.a = f->padded, p.a_off = k_op(k, OP_MUL, f->state, k_int(k, f->depth), 0), p.row_stride = p.depth = f->depth;
    Val tile = attention_product(a, &p, first, rows, f->nr);
    TileLoop t = tile_loop(k, rows, f->nr);
    int64_t left = f->block - (int64_t)f->panel * f->nr;
    Val row = sum_of(k, first, t.row), col = sum_of(k, t.col, k_int(k, (int64_t)f->panel * f->nr)), x = k_tile_get(k, tile, t.row, t.col);
    Val key = sum_of(k, f->j0, col), query = sum_of(k, f->q0, row), inside = left < f->nr && !f->raw ? k_op(k, OP_LT, t.col, k_int(k, left), 0) : 0;
    if (a->pairs && !f->raw)
        x = k_op(k, OP_MUL, x, k_num(k, DAV_F32, a->scale * LOG2E), 0);
    if (a->bias) {
        Val at = sum_of(k, k_addmul(k, key, query, a->keys), k_op(k, OP_MUL, a->b, k_int(k, a->bias_step), 0));
        x = k_op(k, OP_FMA, k_load(k, a->bias, at, inside), k_num(k, DAV_F32, LOG2E), x);
    }
    if (a->causal)
        x = k_op(k, OP_SELECT, k_op(k, OP_GE, query, key, 0), x, k_num(k, DAV_F32, ATTENTION_NEVER * LOG2E));
    if (inside)
        x = k_op(k, OP_SELECT, inside, x, k_num(k, DAV_F32, -3e38));
    k_store(k, f->score, k_addmul(k, col, row, f->stride), a->pairs ? k_bitcast(k, x, DAV_U32) : x, 0);
    tile_loop_end(k, t);
}

/* What was stored beyond the last key becomes as small as nothing else. */
static void hide_rest(Attention *a, Rows *f)
{
    Graph *k = a->k;
    if (!f->raw || f->block == f->panels * f->nr)
        return;
    Val row = k_for(k, LOOP_SERIAL, 0, f->rows, 1), lane = k_for(k, LOOP_VECTOR, 0, f->panels * f->nr - f->block, 1);
    Val at = k_addmul(k, sum_of(k, lane, k_int(k, f->block)), row, f->stride);
    k_store(k, f->score, at, k_bitcast(k, k_num(k, DAV_F32, -3e38), DAV_U32), 0);
    k_end(k, lane);
    k_end(k, row);
}

/* y where it is larger: a NaN is left to the exponential. */
static Val larger(Graph *k, Val x, Val y)
{
    return k_op(k, OP_SELECT, k_op(k, OP_GT, y, x, 0), y, x);
}

static Val score_at(Attention *a, Rows *f, Val row, Val at, int64_t i, Val lane)
{
    Graph *k = a->k;
    Val x = k_load(k, f->score, sum_of(k, sum_of(k, k_addmul(k, at, row, f->stride), k_int(k, i * LANES)), lane), 0);
    return a->pairs ? k_bitcast(k, x, DAV_F32) : x;
}

/* fn for every `step` vectors of a row (the last ones: fewer), from vector `at` / LANES on */
typedef void (*VectorsFn)(Attention *a, Rows *f, Val row, Val at, int count, Val lane, Val acc);
static void for_vectors(Attention *a, Rows *f, Val row, int step, Val lane, Val acc, VectorsFn fn)
{
    Graph *k = a->k;
    int64_t vectors = f->panels * f->nr / LANES, full = vectors / step;
    if (full) {
        Val i = k_for(k, LOOP_SERIAL, 0, full, 1);
        fn(a, f, row, k_op(k, OP_MUL, i, k_int(k, (int64_t)step * LANES), 0), step, lane, acc);
        k_end(k, i);
    }
    if (vectors % step)
        fn(a, f, row, k_int(k, full * step * LANES), (int)(vectors % step), lane, acc);
}

/* In pairs, so that one waits for another log2 times. */
static Val joined(Graph *k, Val *x, int n, Val (*fn)(Graph *, Val, Val))
{
    for (; n > 1; n = (n + 1) / 2)
        for (int i = 0; i < n; i += 2)
            x[i / 2] = i + 1 < n ? fn(k, x[i], x[i + 1]) : x[i];
    return x[0];
}

static void largest(Attention *a, Rows *f, Val row, Val at, int count, Val lane, Val acc)
{
    Val x[STEP];
    for (int i = 0; i < count; i++)
        x[i] = score_at(a, f, row, at, i, lane);
    k_acc_update(a->k, acc, larger(a->k, k_acc_get(a->k, acc), joined(a->k, x, count, larger)));
}

static Val weigh(Attention *a, Rows *f, Val row, Val at, int i, Val lane)
{
    Graph *k = a->k;
    Val x = score_at(a, f, row, at, i, lane), most = k_load(k, f->most, sum_of(k, f->state, row), 0);
    x = f->base == 1 ? k_op(k, OP_SUB, x, most, 0) : k_op(k, OP_FMA, x, k_num(k, DAV_F32, f->base), k_op(k, OP_NEG, most, 0, 0));
    return k_exp2(k, x, a->half ? DAV_BF16 : DAV_F32);
}

static void weights(Attention *a, Rows *f, Val row, Val at, int count, Val lane, Val acc)
{
    Graph *k = a->k;
    Val e[STEP];
    for (int i = 0; i < count; i++)
        e[i] = weigh(a, f, row, at, i, lane);
    for (int i = 0; i < count; i += a->pairs ? 2 : 1) {
        if (!a->pairs) {
            k_store(k, f->score, sum_of(k, sum_of(k, k_addmul(k, at, row, f->stride), k_int(k, (int64_t)i * LANES)), lane), e[i], 0);
            continue;
        }
        Val word = attention_word(k, e[i], i + 1 < count ? e[i + 1] : k_num(k, DAV_F32, 0));
        Val to = k_addmul(k, k_addmul(k, k_int(k, (int64_t)i / 2 * LANES), k_op(k, OP_DIV, at, k_int(k, 2), 0), 1), row, f->stride);
        k_store(k, f->score, sum_of(k, to, lane), word, 0);
    }
    k_acc_update(k, acc, joined(k, e, count, sum_of));
}

/* A float's bits as an integer in the same order, and back: lanes are joined faster than as floats, where NaNs count. */
static Val ordered(Graph *k, Val bits)
{
    Val negative = k_op(k, OP_SHR, bits, k_num(k, DAV_I32, 31), 0);
    return k_op(k, OP_XOR, bits, k_op(k, OP_AND, negative, k_num(k, DAV_I32, INT32_MAX), 0), 0);
}

/* The largest score of each row, as its ordered bits. */
static void row_most(Attention *a, Rows *f)
{
    Graph *k = a->k;
    Val row = k_for(k, LOOP_SERIAL, 0, f->rows, 1), most = k_acc(k, DAV_I32, ACC_MAX, INT32_MIN);
    Val lane = k_for(k, LOOP_VECTOR, 0, LANES, 1), part = k_acc(k, DAV_F32, ACC_SET, -3e38);
    for_vectors(a, f, row, STEP, lane, part, largest);
    k_acc_update(k, most, ordered(k, k_bitcast(k, k_acc_get(k, part), DAV_I32)));
    k_end(k, lane);
    k_store(k, f->row_most, row, k_acc_get(k, most), 0);
    k_end(k, row);
}

/* The chunk's largest scores, as powers of 2, and what is kept of sums from before. */
static void merge(Attention *a, Rows *f)
{
    Graph *k = a->k;
    Val row = k_for(k, LOOP_VECTOR, 0, f->rows, 1), at = sum_of(k, f->state, row);
    Val most = k_bitcast(k, ordered(k, k_load(k, f->row_most, row, 0)), DAV_F32);
    if (f->base != 1)
        most = k_op(k, OP_MUL, most, k_num(k, DAV_F32, f->base), 0);
    if (!f->only) {
        Val before = k_load(k, f->most, at, 0);
        most = larger(k, most, before);
        k_store(k, f->keep, row, k_exp2(k, k_op(k, OP_SUB, before, most, 0), DAV_F32), 0);
    }
    k_store(k, f->most, at, most, 0);
    k_end(k, row);
}

/* The exponentials of each row from its largest score; their sum stays spread over the lanes. */
static void row_weights(Attention *a, Rows *f)
{
    Graph *k = a->k;
    Val row = k_for(k, LOOP_SERIAL, 0, f->rows, 1), lane = k_for(k, LOOP_VECTOR, 0, LANES, 1), part = k_acc(k, DAV_F32, ACC_ADD, 0);
    for_vectors(a, f, row, STEP, lane, part, weights);
    Val at = k_addmul(k, lane, sum_of(k, f->state, row), LANES), total = k_acc_get(k, part);
    if (!f->only)
        total = k_op(k, OP_FMA, k_load(k, f->total, at, 0), k_load(k, f->keep, row, 0), total);
    k_store(k, f->total, at, total, 0);
    k_end(k, lane);
    k_end(k, row);
}

/* keep: the factors of the result. */
static void row_totals(Attention *a, Rows *f)
{
    Graph *k = a->k;
    Val row = k_for(k, LOOP_SERIAL, 0, f->rows, 1), total = k_acc(k, DAV_F32, ACC_ADD, 0);
    Val lane = k_for(k, LOOP_VECTOR, 0, LANES, 1);
    k_acc_update(k, total, k_load(k, f->total, k_addmul(k, lane, sum_of(k, f->state, row), LANES), 0));
    k_end(k, lane);
    k_store(k, f->row_total, row, k_acc_get(k, total), 0);
    k_end(k, row);
    row = k_for(k, LOOP_VECTOR, 0, f->rows, 1);
    k_store(k, f->keep, row, k_op(k, OP_DIV, k_num(k, DAV_F32, 1), k_load(k, f->row_total, row, 0), 0), 0);
    Val lse = k_op(k, OP_FMA, k_load(k, f->most, sum_of(k, f->state, row), 0), k_num(k, DAV_F32, LN2),
                   k_op(k, OP_LOG, k_load(k, f->row_total, row, 0), 0, 0));
    k_store(k, a->l->out[1], of_batch(a, a->queries, sum_of(k, f->q0, row), 1), lse, 0);
    k_end(k, row);
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
    int64_t left = a->value - f->col0, columns = left < f->vr ? left : f->vr, words = words_of(f->panels * f->nr);
    Product p = {f->score, a->l->zero, a->v, sum_of(k, of_batch(a, a->keys, f->j0, a->value), k_int(k, f->col0)), f->stride, 1, a->value,
                 f->block, columns};
    if (a->pairs)
        p = (Product){f->score, a->l->zero, f->values, k_int(k, f->col0 / f->vr * words * f->vr), f->stride, 1, 0, 2 * words, 0};
    Val tile = attention_product(a, &p, first, rows, f->vr);
    TileLoop t = tile_loop(k, rows, f->only || !a->pairs ? columns : f->vr); /* sums have room for all of a tile, where it holds zeros */
    Val row = sum_of(k, first, t.row), x = k_tile_get(k, tile, t.row, t.col), keep = k_load(k, f->keep, row, 0);
    Val col = sum_of(k, t.col, k_int(k, f->col0));
    if (f->only) {
        Val at = of_batch(a, a->queries, sum_of(k, f->q0, row), a->value);
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
    hide_rest(a, f);
    row_most(a, f);
    merge(a, f);
    row_weights(a, f);
    if (f->only)
        row_totals(a, f);
    for (f->col0 = 0; f->col0 < a->value; f->col0 += f->vr)
        attention_tiles(a, f->rows, tile_rows(a, f, f->vr), value_tile, f);
}

/* Rows of words a power of 2 apart would meet in the same lines of the nearest cache. */
static int64_t stride_of(const Attention *a, const Rows *f)
{
    return f->panels * f->nr + (a->pairs ? LANES : 0);
}

static void key_block(Attention *a, Rows *f, Val j0, int64_t block, Val c0, Val blocks)
{
    Graph *k = a->k;
    f->j0 = j0;
    f->block = block;
    f->panels = (block + f->nr - 1) / f->nr;
    f->stride = stride_of(a, f);
    pack_keys(a, f);
    if (a->pairs)
        attention_pack_rows(a, a->v, of_batch(a, a->keys, j0, a->value), block, a->value, f->vr, f->values);
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
    row_totals(a, f);
    Val row = k_for(k, LOOP_SERIAL, 0, f->rows, 1), c = k_for(k, LOOP_VECTOR, 0, a->value, 1);
    Val x = k_load(k, f->sum, k_addmul(k, c, sum_of(k, f->state, row), sums_of(a, f)), 0);
    Val at = sum_of(k, of_batch(a, a->queries, sum_of(k, f->q0, row), a->value), c);
    k_store(k, a->l->out[0], at, k_op(k, OP_MUL, x, k_load(k, f->keep, row, 0), 0), 0);
    k_end(k, c);
    k_end(k, row);
    k_end(k, i);
}

static Rows plan(Attention *a)
{
    bool wide = a->nr >= 4 * LANES; /* registers for one vector more than the tile of products has */
    Rows f = {.area = a->mr * a->nr + (wide ? LANES : 0)};
    int64_t blocks = (a->keys + KEY_BLOCK - 1) / KEY_BLOCK, block = (a->keys + blocks - 1) / blocks;
    f.raw = a->pairs && a->scale > 0 && !a->bias && !a->causal;
    int64_t rows = a->pairs && a->pair_rows ? TILE_QUERY_ROWS : QUERY_ROWS;
    f.rows = a->queries < rows ? a->queries : rows;
    bool rolled = f.raw && a->pair_rows && f.rows % a->pair_rows == 0; /* columns of a tile come one after the other, see amx.c */
    f.nr = rolled ? attention_columns(block, 8 * LANES, LANES) : wide ? attention_columns(block, 5 * LANES, LANES) : LANES;
    f.vr = attention_columns(a->value, wide ? 5 * LANES : 3 * LANES, LANES);
    a->nr = a->pitch = f.nr;
    f.block = (block + f.nr - 1) / f.nr * f.nr;
    f.only = blocks == 1;
    int64_t chunk = a->batch * a->queries / CHUNKS;
    chunk = chunk > CHUNK_MOST ? CHUNK_MOST : chunk;
    f.chunk = chunk < f.rows ? f.rows : (chunk + f.rows - 1) / f.rows * f.rows;
    return f;
}

void lower_attention_rows(Attention *a)
{
    Graph *k = a->k;
    const Lower *l = a->l;
    Rows f = plan(a);
    int64_t block = f.block, full = a->keys / block, rest = a->keys % block, chunks = (a->queries + f.chunk - 1) / f.chunk;
    int64_t panels = (block + f.nr - 1) / f.nr, words = words_of(panels * f.nr);
    f.panels = panels;
    f.depth = a->width;
    f.base = f.raw ? a->scale * LOG2E : 1;
    if (a->pairs && a->pair_rows && a->width % TILE_DEPTH) {
        f.depth = (a->width + TILE_DEPTH - 1) / TILE_DEPTH * TILE_DEPTH;
        f.padded = lower_scratch(a->l, DAV_BF16, f.chunk * f.depth);
    }
    if (a->pairs && a->width % 2 == 0)
        f.key_words = attention_words(a, a->key);
    f.keys = attention_scratch(a, panels * panel_size(a, f.depth), true);
    if (a->pairs)
        f.values = attention_scratch(a, words * ((a->value + f.vr - 1) / f.vr * f.vr), true);
    f.score = attention_scratch(a, f.rows * stride_of(a, &f), a->pairs);
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
    Val last = sum_of(k, sum_of(k, c0, queries), k_int(k, -1)), end = k_int(k, full); /* keys after it count for nothing when causal */
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
