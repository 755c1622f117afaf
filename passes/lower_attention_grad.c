/* Attention, backward: the scores are computed again, block by block, from the queries, the keys and the logarithm of the sum
 * that the forward direction left (Dao et al., "FlashAttention", 2022, algorithm 4).
 *
 * One iteration of the parallel loop is one batch entry.  Keys are columns, in groups of a few panels; queries pass in blocks:
 *     s[q, j]  = q . k_j - lse_q       p = exp(s)
 *     dp[q, j] = dout_q . v_j          ds = p (dp - delta_q) scale
 *     dv[e, j] += sum_q dout_qe p_qj   dk[d, j] += sum_q q_qd ds_qj     dq[q, d] += sum_j ds_qj k_jd
 * Each of the three sums is taken in one order: groups of keys, blocks of queries ascending. */
#include "passes/lower_attention.h"

enum { PANELS = 4, QUERY_BLOCK = 132, SPREAD = 16 /* rows apart: not all in one set of the cache */ };

typedef struct Backward {
    Val lse, delta, dout;        /* buffers */
    Val key_panel, value_panel;  /* [panels][width / value][nr] */
    Val p, ds;                   /* [queries][stride] */
    Val p_words, ds_words;       /* bf16: pairs of queries, [panels][queries / 2][nr] */
    Val ds_rows, key_rows;       /* bf16: words of two keys, [queries][row]; the keys themselves, packed for dq */
    Val words[2];                /* bf16: keys and values as words; 0: odd widths */
    int64_t row;                 /* words of ds_rows from one query to the next */
    double scale;                /* of the products of q and key_panel */
    Val dk, dv;                  /* [panels][width / value][nr] */
    int64_t stride, group, panels; /* keys of a group, now */
    int64_t block;               /* queries of a block, now */
    int panel;
    Val j0, q0;
    int64_t col0;                /* of dq */
    int mr, nr;                  /* dq's tile */
} Backward;

static Val offset(Attention *a, int64_t per_batch, Val row, int64_t width)
{
    return k_addmul(a->k, k_addmul(a->k, a->l->zero, a->b, per_batch), row, width);
}

static void store_rows(Attention *a, Backward *w, Val to, Val tile, Val first, int rows)
{
    Graph *k = a->k;
    TileLoop t = tile_loop(k, rows, a->nr);
    Val at = k_addmul(k, k_int(k, w->panel * a->nr), k_op(k, OP_ADD, first, t.row, 0), w->stride);
    k_store(k, to, k_op(k, OP_ADD, at, t.col, 0), k_tile_get(k, tile, t.row, t.col), 0);
    tile_loop_end(k, t);
}

static void score_tile(Attention *a, void *arg, Val first, int rows)
{
    Backward *w = arg;
    Product s = {a->q, offset(a, a->queries * a->width, w->q0, a->width), w->key_panel,
                 k_int(a->k, w->panel * panel_size(a, a->width)), a->width, 1, 0, a->width, 0};
    store_rows(a, w, w->p, attention_product(a, &s, first, rows, a->nr), first, rows);
    Product d = {w->dout, offset(a, a->queries * a->value, w->q0, a->value), w->value_panel,
                 k_int(a->k, w->panel * panel_size(a, a->value)), a->value, 1, 0, a->value, 0};
    store_rows(a, w, w->ds, attention_product(a, &d, first, rows, a->nr), first, rows);
}

/* p and ds of query i (in the block), column c of the panel; from the raw products in their places. */
static void weigh(Attention *a, Backward *w, Val i, Val c, Val *p, Val *ds)
{
    Graph *k = a->k;
    int64_t valid = w->group - w->panel * a->nr;
    Val at = k_op(k, OP_ADD, k_addmul(k, k_int(k, w->panel * a->nr), i, w->stride), c, 0);
    Val query = k_op(k, OP_ADD, w->q0, i, 0), row = k_addmul(k, query, a->b, a->queries);
    Val key = k_op(k, OP_ADD, k_op(k, OP_ADD, w->j0, k_int(k, w->panel * a->nr), 0), c, 0);
    Val x = k_load(k, w->p, at, 0), inside = valid < a->nr ? k_op(k, OP_LT, c, k_int(k, valid), 0) : 0;
    bool raw = !a->bias && !a->causal; /* else scores are scaled before something is added or chosen */
    double base = raw ? w->scale * LOG2E : LOG2E;
    if (!raw && w->scale != 1)
        x = k_op(k, OP_MUL, x, k_num(k, DAV_F32, w->scale), 0);
    if (a->bias) {
        Val from = k_op(k, OP_ADD, k_addmul(k, key, query, a->keys), k_op(k, OP_MUL, a->b, k_int(k, a->bias_step), 0), 0);
        x = k_op(k, OP_MAX, k_op(k, OP_ADD, x, k_load(k, a->bias, from, inside), 0), k_num(k, DAV_F32, ATTENTION_LEAST), 0);
    }
    if (a->causal)
        x = k_op(k, OP_SELECT, k_op(k, OP_GE, query, key, 0), x, k_num(k, DAV_F32, ATTENTION_NEVER));
    if (a->pairs && inside) /* zeros meet zeros in the words' last block */
        x = k_op(k, OP_SELECT, inside, x, k_num(k, DAV_F32, base > 0 ? -1e38 : 1e38));
    Val lse = k_op(k, OP_MUL, k_load(k, w->lse, row, 0), k_num(k, DAV_F32, -LOG2E), 0);
    Val power = k_op(k, OP_FMA, x, k_num(k, DAV_F32, base), lse);
    if (!raw) /* a weight is at most 1, however the two products of a masked row are rounded */
        power = k_op(k, OP_MIN, power, k_num(k, DAV_F32, 0), 0);
    *p = k_exp2(k, power, a->half ? DAV_BF16 : DAV_F32);
    Val d = k_op(k, OP_SUB, k_load(k, w->ds, at, 0), k_load(k, w->delta, row, 0), 0);
    *ds = k_op(k, OP_MUL, k_op(k, OP_MUL, *p, d, 0), k_num(k, DAV_F32, a->scale), 0);
}

static void weigh_panel(Attention *a, Backward *w)
{
    Graph *k = a->k;
    Val i = k_for(k, LOOP_SERIAL, 0, w->block, 1), c = k_for(k, LOOP_VECTOR, 0, a->nr, 1), p, ds;
    weigh(a, w, i, c, &p, &ds);
    Val at = k_op(k, OP_ADD, k_addmul(k, k_int(k, w->panel * a->nr), i, w->stride), c, 0);
    k_store(k, w->p, at, p, 0);
    k_store(k, w->ds, at, ds, 0);
    k_end(k, c);
    k_end(k, i);
}

/* Two queries and two times LANES keys at once: words of two queries for dk and dv, of two keys for dq. */
static void weigh_words(Attention *a, Backward *w, Val pair, Val i, Val lane, bool odd)
{
    enum { LANES = ATTENTION_LANES };
    Graph *k = a->k;
    Val p[2][2], ds[2][2], q = k_op(k, OP_MUL, pair, k_int(k, 2), 0);
    int64_t first = w->panel * panel_size(a, w->block);
    for (int half = 0; half < 2; half++) {
        Val c = k_op(k, OP_ADD, k_addmul(k, k_int(k, half * LANES), i, 2 * LANES), lane, 0);
        Val at = k_op(k, OP_ADD, k_addmul(k, k_int(k, first), pair, a->nr), c, 0);
        for (int second = 0; second < 2; second++) {
            p[second][half] = ds[second][half] = k_num(k, DAV_F32, 0);
            if (!second || !odd)
                weigh(a, w, second ? k_op(k, OP_ADD, q, k_int(k, 1), 0) : q, c, &p[second][half], &ds[second][half]);
        }
        k_store(k, w->p_words, at, attention_word(k, p[0][half], p[1][half]), 0);
        k_store(k, w->ds_words, at, attention_word(k, ds[0][half], ds[1][half]), 0);
    }
    for (int second = 0; second < 2 - odd; second++) {
        Val row = k_addmul(k, k_int(k, second * w->row + w->panel * a->nr / 2), q, w->row);
        k_store(k, w->ds_rows, k_op(k, OP_ADD, k_addmul(k, row, i, LANES), lane, 0), attention_word(k, ds[second][0], ds[second][1]), 0);
    }
}

static void weigh_pairs(Attention *a, Backward *w)
{
    Graph *k = a->k;
    for (int odd = 0; odd < 2; odd++) {
        if (odd ? w->block % 2 == 0 : w->block < 2)
            continue;
        Val pair = odd ? k_int(k, w->block / 2) : k_for(k, LOOP_SERIAL, 0, w->block / 2, 1);
        Val i = k_for(k, LOOP_SERIAL, 0, a->nr / (2 * ATTENTION_LANES), 1), lane = k_for(k, LOOP_VECTOR, 0, ATTENTION_LANES, 1);
        weigh_words(a, w, pair, i, lane, odd);
        k_end(k, lane);
        k_end(k, i);
        if (!odd)
            k_end(k, pair);
    }
}

/* ---- sums over queries ---- */
static void add_columns(Attention *a, const Product *p, Val to, int64_t at, Val first, int rows)
{
    Graph *k = a->k;
    Val tile = attention_product(a, p, first, rows, a->nr);
    TileLoop t = tile_loop(k, rows, a->nr);
    Val off = k_op(k, OP_ADD, k_addmul(k, k_int(k, at), k_op(k, OP_ADD, first, t.row, 0), a->nr), t.col, 0);
    k_store(k, to, off, k_op(k, OP_ADD, k_load(k, to, off, 0), k_tile_get(k, tile, t.row, t.col), 0), 0);
    tile_loop_end(k, t);
}

static Product sum_over_queries(Attention *a, Backward *w, Val of, int64_t width, Val weights, Val words)
{
    int64_t at = a->pairs ? w->panel * panel_size(a, w->block) : (int64_t)w->panel * a->nr;
    return (Product){of, offset(a, a->queries * width, w->q0, width), a->pairs ? words : weights, k_int(a->k, at), 1, width,
                     a->pairs ? 0 : w->stride, w->block, 0};
}

static void dv_tile(Attention *a, void *arg, Val first, int rows)
{
    Backward *w = arg;
    Product p = sum_over_queries(a, w, w->dout, a->value, w->p, w->p_words);
    add_columns(a, &p, w->dv, w->panel * a->value * a->nr, first, rows);
}

static void dk_tile(Attention *a, void *arg, Val first, int rows)
{
    Backward *w = arg;
    Product p = sum_over_queries(a, w, a->q, a->width, w->ds, w->ds_words);
    add_columns(a, &p, w->dk, w->panel * a->width * a->nr, first, rows);
}

static void dq_tile(Attention *a, void *arg, Val first, int rows)
{
    Backward *w = arg;
    Graph *k = a->k;
    int64_t left = a->width - w->col0, columns = left < w->nr ? left : w->nr;
    Val b_off = k_op(k, OP_ADD, offset(a, a->keys * a->width, w->j0, a->width), k_int(k, w->col0), 0);
    Product p = {w->ds, a->l->zero, a->key, b_off, w->stride, 1, a->width, w->group, columns};
    int64_t words = attention_row_words(w->group);
    if (a->pairs)
        p = (Product){w->ds_rows, a->l->zero, w->key_rows, k_int(k, w->col0 * words), w->row, 1, 0, 2 * words, 0};
    Val tile = attention_product(a, &p, first, rows, w->nr);
    TileLoop t = tile_loop(k, rows, columns);
    Val row = k_op(k, OP_ADD, k_op(k, OP_ADD, w->q0, first, 0), t.row, 0);
    Val off = k_op(k, OP_ADD, k_op(k, OP_ADD, offset(a, a->queries * a->width, row, a->width), k_int(k, w->col0), 0), t.col, 0);
    Val to = a->l->out[0];
    k_store(k, to, off, k_op(k, OP_ADD, k_load(k, to, off, 0), k_tile_get(k, tile, t.row, t.col), 0), 0);
    tile_loop_end(k, t);
}

/* Columns of a tile of dq: the fewest tiles whose accumulators fit, in whole vectors. */
static int dq_columns(const Attention *a)
{
    int unit = a->nr < 16 ? a->nr : 16, most = 3 * a->nr > 96 ? 96 : 3 * a->nr;
    int64_t tiles = (a->width + most - 1) / most, columns = (a->width + tiles - 1) / tiles;
    return (int)((columns + unit - 1) / unit) * unit;
}

static void query_block(Attention *a, Backward *w, Val q0, int64_t block)
{
    w->q0 = q0;
    w->block = block;
    for (w->panel = 0; w->panel < w->panels; w->panel++) {
        attention_tiles(a, block, a->mr, score_tile, w);
        if (a->pairs)
            weigh_pairs(a, w);
        else
            weigh_panel(a, w);
        attention_tiles(a, a->value, a->mr, dv_tile, w);
        attention_tiles(a, a->width, a->mr, dk_tile, w);
    }
    for (w->col0 = 0; w->col0 < a->width; w->col0 += w->nr)
        attention_tiles(a, block, w->mr, dq_tile, w);
}

/* ---- a group of keys ---- */
static void clear(Attention *a, Val to, Val from, int64_t rows, int64_t width)
{
    Graph *k = a->k;
    Val r = k_for(k, LOOP_SERIAL, 0, rows, 1), c = k_for(k, LOOP_VECTOR, 0, width, 1);
    k_store(k, to, k_op(k, OP_ADD, from, k_addmul(k, c, r, width), 0), k_num(k, DAV_F32, 0), 0);
    k_end(k, c);
    k_end(k, r);
}

static void store_group(Attention *a, Backward *w, Val from, Val to, int64_t width)
{
    Graph *k = a->k;
    for (int panel = 0; panel < w->panels; panel++) {
        int64_t left = w->group - panel * a->nr, columns = left < a->nr ? left : a->nr;
        Val r = k_for(k, LOOP_SERIAL, 0, width, 1), c = k_for(k, LOOP_VECTOR, 0, columns, 1);
        Val x = k_load(k, from, k_op(k, OP_ADD, k_addmul(k, k_int(k, panel * width * a->nr), r, a->nr), c, 0), 0);
        Val at = k_op(k, OP_ADD, offset(a, width * a->keys, r, a->keys), k_op(k, OP_ADD, w->j0, k_int(k, panel * a->nr), 0), 0);
        k_store(k, to, k_op(k, OP_ADD, at, c, 0), x, 0);
        k_end(k, c);
        k_end(k, r);
    }
}

/* Rows [first, first + columns) as columns of a panel. */
static void pack_panel(Attention *a, Val words, Val src, Val first, int64_t width, double scale, Val to, int panel, int64_t columns)
{
    int64_t at = panel * panel_size(a, width);
    if (words)
        attention_pack_pairs(a, words, offset(a, a->keys * width / 2, first, width / 2), width / 2, to, at, columns);
    else
        attention_pack(a, src, offset(a, a->keys * width, first, width), width, scale, to, at, columns, 0);
}

static void key_group(Attention *a, Backward *w, Val j0, int64_t group, int64_t query_rows)
{
    Graph *k = a->k;
    w->j0 = j0;
    w->group = group;
    w->panels = (group + a->nr - 1) / a->nr;
    for (int panel = 0; panel < w->panels; panel++) {
        int64_t columns = group - panel * a->nr;
        Val first = k_op(k, OP_ADD, j0, k_int(k, panel * a->nr), 0);
        pack_panel(a, w->words[0], a->key, first, a->width, w->scale == 1 ? a->scale : 1, w->key_panel, panel, columns);
        pack_panel(a, w->words[1], a->v, first, a->value, 1, w->value_panel, panel, columns);
    }
    if (a->pairs)
        attention_pack_rows(a, a->key, offset(a, a->keys * a->width, j0, a->width), group, a->width, w->nr, w->key_rows);
    clear(a, w->dk, a->l->zero, w->panels * a->width, a->nr);
    clear(a, w->dv, a->l->zero, w->panels * a->value, a->nr);
    int64_t full = a->queries / query_rows, rest = a->queries % query_rows;
    /* queries before the group's first key count for nothing when causal */
    Val from = a->causal ? k_op(k, OP_MIN, k_op(k, OP_DIV, j0, k_int(k, query_rows), 0), k_int(k, full), 0) : a->l->zero;
    if (full) {
        Val i = k_for_dyn(k, LOOP_SERIAL, from, k_int(k, full), 1);
        query_block(a, w, k_op(k, OP_MUL, i, k_int(k, query_rows), 0), query_rows);
        k_end(k, i);
    }
    if (rest)
        query_block(a, w, k_int(k, full * query_rows), rest);
    store_group(a, w, w->dk, a->l->out[1], a->width);
    store_group(a, w, w->dv, a->l->out[2], a->value);
}

/* The tile for a processor's registers: keys fill it, two vectors of them for words; with AMX it has all rows. */
static void fit_tile(Attention *a)
{
    int area = a->mr * a->nr, unit = a->pairs ? 2 * ATTENTION_LANES : ATTENTION_LANES;
    if (a->nr >= 4 * ATTENTION_LANES)
        a->nr = attention_columns(a->keys, 6 * ATTENTION_LANES - (a->pairs ? 0 : ATTENTION_LANES), unit);
    else if (a->pairs)
        a->nr = unit;
    a->pitch = a->nr;
    a->mr = a->pairs && a->pair_rows ? a->pair_rows : area / a->nr > 1 ? area / a->nr : 1;
}

void lower_attention_grad(Lower *l, const Node *n)
{
    Attention a = attention_of(l, n);
    Graph *k = l->k;
    if (a.spread) {
        lower_attention_grad_panels(&a, n);
        return;
    }
    int nr = dq_columns(&a), mr = a.pairs && a.pair_rows ? a.pair_rows : a.mr * a.nr > nr ? a.mr * a.nr / nr : 1;
    fit_tile(&a);
    int64_t panels = (a.keys + a.nr - 1) / a.nr, rows = QUERY_BLOCK / a.mr * a.mr;
    panels = panels < PANELS ? panels : PANELS;
    rows = a.queries < rows ? a.queries : rows + rows % 2 * a.mr;
    int64_t group = panels * a.nr < a.keys ? panels * a.nr : a.keys;
    Backward w = {.lse = l->buf[n->arg[3]], .delta = l->buf[n->arg[4]], .dout = l->buf[n->arg[5]],
                  .stride = panels * a.nr + SPREAD, .mr = mr, .nr = nr, .scale = a.pairs && a.width % 2 == 0 ? a.scale : 1};
    w.key_panel = attention_scratch(&a, panels * panel_size(&a, a.width), true);
    w.value_panel = attention_scratch(&a, panels * panel_size(&a, a.value), true);
    w.p = attention_scratch(&a, rows * w.stride, false);
    w.ds = attention_scratch(&a, rows * w.stride, false);
    if (a.pairs) {
        w.p_words = attention_scratch(&a, panels * panel_size(&a, rows), true);
        w.ds_words = attention_scratch(&a, panels * panel_size(&a, rows), true);
        w.row = panels * a.nr / 2 + SPREAD;
        w.ds_rows = attention_scratch(&a, rows * w.row, true);
        w.key_rows = attention_scratch(&a, attention_row_words(group) * ((a.width + w.nr - 1) / w.nr * w.nr), true);
        w.words[0] = attention_words(&a, a.key);
        w.words[1] = attention_words(&a, a.v);
    }
    w.dk = attention_scratch(&a, panels * a.width * a.nr, false);
    w.dv = attention_scratch(&a, panels * a.value * a.nr, false);
    a.b = k_for(k, LOOP_PARALLEL, 0, a.batch, 1);
    clear(&a, l->out[0], offset(&a, a.queries * a.width, l->zero, 0), a.queries, a.width);
    int64_t full = a.keys / group, rest = a.keys % group;
    Val i = k_for(k, LOOP_SERIAL, 0, full, 1);
    key_group(&a, &w, k_op(k, OP_MUL, i, k_int(k, group), 0), group, rows);
    k_end(k, i);
    if (rest)
        key_group(&a, &w, k_int(k, full * group), rest, rows);
    k_end(k, a.b);
}
