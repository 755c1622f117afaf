/* A tile that is stored as it is goes from the tile registers to its place, without a stay in memory of its own: the
 * row loop after its only product stores every element of it, a row a constant apart from the next one. */
#include "codegen/llvm/tile.h"

enum { DEPTH = 32, MOST_BLOCKS = 8 };

typedef struct Whole {
    Val tile, column, to, offset;
    int64_t stride;
} Whole;

static int64_t length_of(const Emit *e, Val loop) /* of one from 0 to a constant; else -1 */
{
    const Node *n = node_of(e->k, loop);
    const int64_t *nums = attr_ints(n, A_NUMS, NULL);
    return n->narg || nums[0] ? -1 : nums[1];
}

static bool is_loop(const Emit *e, Val v, LoopKind kind)
{
    const Node *n = node_of(e->k, v);
    return n->op == OP_FOR && (LoopKind)attr_i(n, A_KIND) == kind;
}

static bool is_index(const Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    return n->dtype == DAV_I64 && (n->op == OP_CONST || (op_info[n->op].flags & OPF_ELEMENTWISE));
}

/* Reads a row loop that stores a whole tile and does nothing else. */
static bool whole_store(const Emit *e, Val loop, Whole *w)
{
    Val element = 0;
    int64_t across;
    for (Val v = loop + 1; v < e->end[loop]; v++) {
        const Node *n = node_of(e->k, v);
        if (is_loop(e, v, LOOP_VECTOR) && !w->column) {
            w->column = v;
        } else if (n->op == OP_TILE_GET && !element && n->arg[1] == loop && n->arg[2] == w->column) {
            w->tile = n->arg[0];
            element = v;
        } else if (n->op == OP_BITCAST && element && n->arg[0] == element) {
            element = v;
        } else if (n->op == OP_STORE && n->narg == 3 && !w->to && element && n->arg[2] == element) {
            w->to = n->arg[0];
            w->offset = n->arg[1];
        } else if (n->op != OP_END && !is_index(e, v)) {
            return false;
        }
    }
    return w->to && dav_dtype_size((DavDtype)node_of(e->k, w->to)->dtype) == 4 &&
           index_slope(e->k, w->offset, w->column, &across) && across == 1 &&
           index_slope(e->k, w->offset, loop, &w->stride);
}

static int uses_of(const Emit *e, Val tile)
{
    int n = 0;
    for (Val v = tile + 1; v < e->k->n; v++)
        for (int i = 0; i < node_of(e->k, v)->narg; i++)
            n += node_of(e->k, v)->arg[i] == tile;
    return n;
}

static bool is_product_of(const Emit *e, Val contract)
{
    TileContract c = k_tile_contract_of(e->k, contract);
    int64_t k, rows;
    return c.a_ext == 0 && c.a_div == 1 && c.a_k_stride == 1 && c.b_packed && kernel_const_i64(e->k, c.rows, &rows) &&
           rows == TILE_REGISTER_ROWS && kernel_const_i64(e->k, c.k, &k) &&
           k % DEPTH == 0 && k <= MOST_BLOCKS * DEPTH;
}

Val amx_stored(const Emit *e, Val contract)
{
    Val tile = node_of(e->k, contract)->arg[0], v = contract + 1;
    const Node *n = node_of(e->k, tile);
    Whole w = {0};
    while (v < e->k->n && is_index(e, v))
        v++;
    if (!is_product_of(e, contract) || attr_i(n, A_MR) != TILE_REGISTER_ROWS || uses_of(e, tile) != 2 || v == e->k->n ||
        !is_loop(e, v, LOOP_ROW))
        return 0;
    bool whole = whole_store(e, v, &w) && w.tile == tile && length_of(e, v) == attr_i(n, A_MR) &&
                 length_of(e, w.column) == attr_i(n, A_NR);
    return whole ? v : 0;
}

static Val product_of(const Emit *e, Val tile)
{
    for (Val v = tile + 1; v < e->k->n; v++)
        if (node_of(e->k, v)->op == OP_TILE_CONTRACT && node_of(e->k, v)->arg[0] == tile)
            return v;
    return 0;
}

bool amx_store(Emit *e, Val loop)
{
    Whole w = {0};
    if (!whole_store(e, loop, &w) || !e->tile[w.tile]->memory || amx_stored(e, product_of(e, w.tile)) != loop)
        return false;
    e->val[loop] = e->val[w.column] = (Lane){.v = ll_i64(&e->f, 0)};
    for (Val v = loop + 1; v < e->end[loop]; v++)
        if (is_index(e, v) && !is_loop(e, v, LOOP_VECTOR))
            emit_range(e, v, v + 1);
    e->place = (Place){element_ptr(&e->f, e->f.i32, e->buf[w.to], as_scalar(e, w.offset)), 4 * w.stride};
    emit_tile_contract(e, product_of(e, w.tile));
    e->place = (Place){0};
    return true;
}
