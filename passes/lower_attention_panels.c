/* Attention, backward, for a target with many processors: an iteration of the parallel loop is one panel of keys, for their dk and
 * dv, or one panel of queries, for their dq.  What the panel belongs to are the columns of all tiles and stay; what it meets (queries
 * for a panel of keys, keys for one of queries) passes in blocks of rows:
 *     s = rows . columns      d = (dout rows . value columns or the reverse)      p = exp(s scale - lse)      ds = p (d - delta) scale
 *     of keys: dk += q^T ds, dv += dout^T p      of queries: dq += k^T ds
 * The sums stay in their tiles from the first block to the last one, each is taken in one order, and no two iterations share a
 * result.  Scores are computed twice for that, and nothing waits for anybody. */
#include "passes/lower_attention.h"

enum { HALF_ROOM = 256, ROOM = 192 }; /* widths of both sums of which all columns of a panel fit into registers, bf16 and f32 */

typedef struct Side {
    bool keys;              /* the panel's columns are keys */
    Val row[2], column[2];  /* of scores (q, key) and of their gradients (dout, v): what passes, what stays */
    int64_t rows, columns;  /* how many there are of a batch entry */
    Val to[2];              /* results: of ds and of p; 0: none */
} Side;

typedef struct Panels {
    Attention *a;
    Side side;
    Val lse, delta;
    Val panel[2], p, ds;    /* scratch: the columns, as [width][pitch]; [block][pitch] */
    int64_t width[2];       /* of scores, of values */
    int64_t block;
    Val first, valid;       /* column; how many of the panel's there are, 0: all */
    Val row0, here;         /* first row of the block; how many of the block's there are */
    bool rest;              /* here may be less than block */
    Val *sum[2];            /* of ds with the rows of scores, of p with those of values */
} Panels;

static Val batch_offset(const Attention *a, int64_t per_batch)
{
    return k_op(a->k, OP_MUL, a->b, k_int(a->k, per_batch), 0);
}

/* ---- sums: as many tiles as the width takes ---- */
static int tile_height(const Panels *w, int which, int i)
{
    int64_t left = w->width[which] - (int64_t)i * w->a->mr;
    return (int)(left < w->a->mr ? left : w->a->mr);
}

static int tile_count(const Panels *w, int which)
{
    return (int)((w->width[which] + w->a->mr - 1) / w->a->mr);
}

static void start_sums(Panels *w)
{
    for (int which = 0; which < 2; which++) {
        w->sum[which] = arena_array(w->a->l->cx->arena, Val, tile_count(w, which));
        for (int i = 0; w->side.to[which] && i < tile_count(w, which); i++)
            w->sum[which][i] = k_tile(w->a->k, tile_height(w, which, i), w->a->nr);
    }
}

/* sum[width, c] += sum over the block's rows of rows[r, width] weights[r, c] */
static void add_to_sums(Panels *w, int which, Val weights)
{
    Attention *a = w->a;
    Graph *k = a->k;
    int64_t width = w->width[which];
    Val from = k_addmul(k, batch_offset(a, w->side.rows * width), w->row0, width);
    for (int i = 0; i < tile_count(w, which); i++)
        k_tile_contract(k, &(TileContract){.tile = w->sum[which][i], .a = w->side.row[which], .b = weights,
                                           .a_off = k_op(k, OP_ADD, from, k_int(k, (int64_t)i * a->mr), 0), .row0 = a->l->zero,
                                           .b_off = a->l->zero, .rows = k_int(k, tile_height(w, which, i)), .k = w->here, .a_row_step = 1,
                                           .a_div = 1, .a_row_stride = 1, .a_k_stride = width, .b_k_stride = a->pitch, .b_col_stride = 1});
}

/* Results have the columns next to each other (dk, dv), or the width (dq). */
static void store_sums(Panels *w, int which)
{
    Attention *a = w->a;
    Graph *k = a->k;
    int64_t width = w->width[which], of_width = w->side.keys ? w->side.columns : 1, of_column = w->side.keys ? 1 : width;
    Val to = batch_offset(a, w->side.columns * width);
    for (int i = 0; i < tile_count(w, which); i++) {
        Val row = k_for(k, LOOP_ROW, 0, tile_height(w, which, i), 1);
        Val c = w->valid ? k_for_dyn(k, LOOP_VECTOR, a->l->zero, w->valid, 1) : k_for(k, LOOP_VECTOR, 0, a->nr, 1);
        Val r = k_op(k, OP_ADD, row, k_int(k, (int64_t)i * a->mr), 0);
        Val at = k_addmul(k, k_addmul(k, to, r, of_width), k_op(k, OP_ADD, w->first, c, 0), of_column);
        k_store(k, w->side.to[which], at, k_tile_get(k, w->sum[which][i], row, c), 0);
        k_end(k, c);
        k_end(k, row);
    }
}

/* ---- scores ---- */
static Val block_product(Panels *w, int which)
{
    Attention *a = w->a;
    Graph *k = a->k;
    int64_t width = w->width[which];
    Val tile = k_tile(k, (int)w->block, a->nr), from = k_addmul(k, batch_offset(a, w->side.rows * width), w->row0, width);
    k_tile_contract(k, &(TileContract){.tile = tile, .a = w->side.row[which], .b = w->panel[which], .a_off = from, .row0 = a->l->zero,
                                       .b_off = a->l->zero, .rows = w->here, .k = k_int(k, width), .a_row_step = 1, .a_div = 1,
                                       .a_row_stride = width, .a_k_stride = 1, .b_k_stride = a->pitch, .b_col_stride = 1});
    return tile;
}

static Val score(Panels *w, Val product, Val query, Val key, Val exists)
{
    Attention *a = w->a;
    Graph *k = a->k;
    Val x = k_op(k, OP_MUL, product, k_num(k, DAV_F32, a->scale), 0);
    if (a->bias) {
        Val at = k_op(k, OP_ADD, k_addmul(k, key, query, a->keys), batch_offset(a, a->bias_step), 0);
        x = k_op(k, OP_MAX, k_op(k, OP_ADD, x, k_load(k, a->bias, at, exists), 0), k_num(k, DAV_F32, ATTENTION_LEAST), 0);
    }
    return a->causal ? k_op(k, OP_SELECT, k_op(k, OP_GE, query, key, 0), x, k_num(k, DAV_F32, ATTENTION_NEVER)) : x;
}

/* Rows that do not exist weigh nothing. */
static void keep(Panels *w, Val to, Val at, Val x, Val row_exists)
{
    Graph *k = w->a->k;
    Val kept = row_exists ? k_op(k, OP_SELECT, row_exists, x, k_num(k, DAV_F32, 0)) : x;
    k_store(k, to, at, w->a->half ? k_cast(k, kept, DAV_BF16) : kept, 0);
}

static void weigh(Panels *w, Val scores, Val gradients)
{
    Attention *a = w->a;
    Graph *k = a->k;
    bool keys = w->side.keys;
    TileLoop t = tile_loop(k, (int)w->block, a->nr);
    Val row_exists = w->rest ? k_op(k, OP_LT, t.row, w->here, 0) : 0, column_exists = w->valid ? k_op(k, OP_LT, t.col, w->valid, 0) : 0;
    Val row = k_op(k, OP_ADD, w->row0, t.row, 0), column = k_op(k, OP_ADD, w->first, t.col, 0);
    Val query = keys ? row : column, of_query = k_addmul(k, query, a->b, a->queries), has_query = keys ? row_exists : column_exists;
    Val x = score(w, k_tile_get(k, scores, t.row, t.col), query, keys ? column : row, k_both(k, row_exists, column_exists));
    Val p = k_op(k, OP_EXP, k_op(k, OP_SUB, x, k_load(k, w->lse, of_query, has_query), 0), 0, 0);
    Val d = k_op(k, OP_SUB, k_tile_get(k, gradients, t.row, t.col), k_load(k, w->delta, of_query, has_query), 0);
    Val at = k_addmul(k, t.col, t.row, a->pitch);
    if (w->side.to[1])
        keep(w, w->p, at, p, row_exists);
    keep(w, w->ds, at, k_op(k, OP_MUL, k_op(k, OP_MUL, p, d, 0), k_num(k, DAV_F32, a->scale), 0), row_exists);
    tile_loop_end(k, t);
}

/* ---- one panel ---- */
/* Blocks of rows that count: when causal, queries from the panel's first key on, keys to its last query. */
static Val open_blocks(Panels *w)
{
    Attention *a = w->a;
    Graph *k = a->k;
    Val blocks = k_int(k, (w->side.rows + w->block - 1) / w->block), from = a->l->zero, to = blocks, size = k_int(k, w->block);
    if (a->causal && w->side.keys)
        from = k_op(k, OP_DIV, w->first, size, 0);
    else if (a->causal)
        to = k_op(k, OP_MIN, blocks, k_op(k, OP_ADD, k_op(k, OP_DIV, k_op(k, OP_ADD, w->first, k_int(k, a->nr - 1), 0), size, 0), k_int(k, 1), 0), 0);
    return k_for_dyn(k, LOOP_SERIAL, from, to, 1);
}

static void panel(Panels *w, Val number)
{
    Attention *a = w->a;
    Graph *k = a->k;
    w->first = k_op(k, OP_MUL, number, k_int(k, a->nr), 0);
    w->valid = w->side.columns % a->nr ? k_op(k, OP_MIN, k_op(k, OP_SUB, k_int(k, w->side.columns), w->first, 0), k_int(k, a->nr), 0) : 0;
    for (int which = 0; which < 2; which++) {
        int64_t width = w->width[which];
        Val from = k_addmul(k, batch_offset(a, w->side.columns * width), w->first, width);
        attention_pack(a, w->side.column[which], from, width, 1, w->panel[which], 0, 0, w->valid);
    }
    start_sums(w);
    Val i = open_blocks(w);
    w->row0 = k_op(k, OP_MUL, i, k_int(k, w->block), 0);
    w->rest = w->side.rows % w->block != 0;
    w->here = k_int(k, w->block);
    if (w->rest)
        w->here = k_op(k, OP_MIN, k_op(k, OP_SUB, k_int(k, w->side.rows), w->row0, 0), w->here, 0);
    Val scores = block_product(w, 0), gradients = block_product(w, 1);
    weigh(w, scores, gradients);
    add_to_sums(w, 0, w->ds);
    if (w->side.to[1])
        add_to_sums(w, 1, w->p);
    k_end(k, i);
    store_sums(w, 0);
    if (w->side.to[1])
        store_sums(w, 1);
}

void lower_attention_grad_panels(Attention *a, const Node *n)
{
    for (int64_t room = a->half ? HALF_ROOM : ROOM; room < a->width + a->value && a->nr > 16; room *= 2)
        attention_narrow(a);
    Lower *l = a->l;
    Graph *k = l->k;
    Val dout = l->buf[n->arg[5]];
    Panels w = {.a = a, .lse = l->buf[n->arg[3]], .delta = l->buf[n->arg[4]], .width = {a->width, a->value}, .block = a->mr};
    for (int which = 0; which < 2; which++)
        w.panel[which] = attention_scratch(a, panel_size(a, w.width[which]), true);
    w.p = attention_scratch(a, w.block * a->pitch, true);
    w.ds = attention_scratch(a, w.block * a->pitch, true);
    int64_t key_panels = (a->keys + a->nr - 1) / a->nr, panels = key_panels + (a->queries + a->nr - 1) / a->nr;
    Val task = k_for(k, LOOP_PARALLEL, 0, a->batch * panels, 1), number = k_op(k, OP_REM, task, k_int(k, panels), 0);
    a->b = k_op(k, OP_DIV, task, k_int(k, panels), 0);
    Val of_keys = k_if(k, k_op(k, OP_LT, number, k_int(k, key_panels), 0));
    w.side = (Side){true, {a->q, dout}, {a->key, a->v}, a->queries, a->keys, {l->out[1], l->out[2]}};
    panel(&w, number);
    k_end(k, of_keys);
    Val of_queries = k_if(k, k_op(k, OP_GE, number, k_int(k, key_panels), 0));
    w.side = (Side){false, {a->key, a->v}, {a->q, dout}, a->keys, a->queries, {l->out[0], 0}};
    panel(&w, k_op(k, OP_SUB, number, k_int(k, key_panels), 0));
    k_end(k, of_queries);
    k_end(k, task);
}
