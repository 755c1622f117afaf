/* Tiles: contractions that a whole block works at (prelude.cu), and the loops that read the finished tile. */
#include "codegen/cuda/emit.h"
#include <stdio.h>
#include <string.h>

/* The first contraction into a tile; tiles are made for one. */
static Val contract_of(const Graph *k, Val tile)
{
    Val v = tile + 1;
    while (v < k->n && !(node_of(k, v)->op == OP_TILE_CONTRACT && node_of(k, v)->arg[0] == tile))
        v++;
    return v < k->n ? v : 0;
}

/* dav_mma_tile<...> for 16-bit operands where the device has the instruction, else dav_fma_tile<...>. */
static const char *tile_type(const Emit *e, Val tile, char out[80])
{
    const Node *n = node_of(e->k, tile);
    Val c = contract_of(e->k, tile);
    bool half = c && operand_dtype(e, k_tile_contract_of(e->k, c).a) != DAV_F32, tensor = e->target->sm >= 80;
    const char *kind = half && tensor ? "dav_mma_tile" : !half && tensor && e->target->tf32 ? "dav_tf32_tile" : "dav_fma_tile";
    snprintf(out, 80, "%s<%d, %d, %d>", kind, (int)attr_i(n, A_MR),
             (int)attr_i(n, A_NR), e->threads);
    return out;
}

void put_room(Emit *e)
{
    char type[80];
    bool any = false;
    buf_str(e->out, "    enum { ROOM = dav_most<64");
    for (Val v = 1; v < e->k->n; v++)
        if (node_of(e->k, v)->op == OP_TILE) {
            buf_printf(e->out, ", %s::ROOM", tile_type(e, v, type));
            any = true;
        }
    buf_printf(e->out, "%s>::value };\n    DAV_SHARED(room, ROOM);\n", any ? "" : ", 0");
}

void put_tile(Emit *e, Val v)
{
    char type[80];
    put_line(e, "%s t%d;", tile_type(e, v, type), v);
    put_line(e, "t%d.zero();", v);
    put_line(e, "const float *s%d = 0;", v);
}

void put_contract(Emit *e, Val v)
{
    TileContract c = k_tile_contract_of(e->k, v);
    int nr = (int)attr_i(node_of(e->k, c.tile), A_NR), mr = (int)attr_i(node_of(e->k, c.tile), A_MR);
    DavDtype t = operand_dtype(e, c.a);
    char cols[40];
    snprintf(cols, sizeof cols, c.cols ? "(int)v%d" : "%d", c.cols ? c.cols : nr);
    put_line(e, "{");
    put_line(e, "    dav_panels<%s, %lld, %lld, %lldll, %lldll, %lldll, %lldll, %s> panels = {", cuda_memory_type(t),
              (long long)c.a_row_step, (long long)c.a_div, (long long)c.a_ext, (long long)c.a_row_stride, (long long)c.a_k_stride,
              (long long)c.b_k_stride, c.b_packed ? "true" : "false");
    put_line(e, "        p%d + v%d, (const %s *)(p%d + v%d), v%d, (int)(v%d < %d ? v%d : %d), %s, (int)v%d};", c.a, c.a_off,
              cuda_memory_type(t), c.b, c.b_off, c.row0, c.rows, mr, c.rows, mr, cols, c.k);
    put_line(e, "    t%d.contract(panels, room);", c.tile);
    put_line(e, "}");
}

/* ---- reading: the tile is laid out in shared memory, and its elements are spread over the block anew ---- */
static Val tile_read_in(const Emit *e, Val loop, Val *end)
{
    Val tile = 0;
    Val v = loop + 1;
    for (; v < e->k->n; v++) {
        const Node *n = node_of(e->k, v);
        if (n->op == OP_END && n->arg[0] == loop)
            break;
        if (n->op == OP_TILE_GET)
            tile = n->arg[0];
    }
    *end = v;
    return tile;
}

/* The vector loop that is all of the row loop's body and takes in nothing from outside; 0: there is more to it. */
static Val only_vector_loop(const Emit *e, Val row, Val end)
{
    Val vector = 0, closed = 0;
    for (Val v = row + 1; v < end; v++) {
        const Node *n = node_of(e->k, v);
        if (n->op == OP_FOR && attr_i(n, A_KIND) == LOOP_VECTOR) {
            if (vector)
                return 0;
            vector = v;
        }
        if (n->op == OP_END && n->arg[0] == vector)
            closed = v;
        if (n->op == OP_ACC_UPDATE && n->arg[0] < row)
            return 0;
        if (n->op == OP_TILE_GET && (n->arg[1] != row || n->arg[2] != vector))
            return 0;
        if ((closed && v > closed) || (!vector && n->op != OP_CONST && !(op_info[n->op].flags & OPF_ELEMENTWISE)))
            return 0;
    }
    return vector && !node_of(e->k, row)->narg && attr_ints(node_of(e->k, row), A_NUMS, NULL)[0] == 0 ? vector : 0;
}

/* Columns beyond the tile's last one hold nothing that may be stored. */
static void skip_columns(Emit *e, Val vector)
{
    const Node *n = node_of(e->k, vector);
    if (n->narg)
        put_line(e, "if (v%d >= v%d) continue;", vector, n->arg[1]);
    else
        put_line(e, "if (v%d >= %lldll) continue;", vector, (long long)attr_ints(n, A_NUMS, NULL)[1]);
}

bool put_tile_loop(Emit *e, Val loop)
{
    const Node *n = node_of(e->k, loop);
    Val end, tile;
    if (e->flat && loop == e->vector) {
        skip_columns(e, loop);
        return true;
    }
    if (attr_i(n, A_KIND) != LOOP_ROW || !(tile = tile_read_in(e, loop, &end)))
        return false;
    int mr = (int)attr_i(node_of(e->k, tile), A_MR), nr = (int)attr_i(node_of(e->k, tile), A_NR);
    put_line(e, "s%d = dav_spread<%d, %d, %d>(t%d, room);", tile, mr, nr, e->threads, tile);
    Val vector = only_vector_loop(e, loop, end);
    if (!vector)
        return false;
    put_line(e, "for (int e%d = lane; e%d < %lld; e%d += %d) {", loop, loop, (long long)attr_ints(n, A_NUMS, NULL)[1] * nr, loop, e->threads);
    e->depth++;
    put_line(e, "const %s v%d = e%d / %d;", type_of_value(e, loop), loop, loop, nr);
    put_line(e, "const %s v%d = e%d %% %d;", type_of_value(e, vector), vector, loop, nr);
    e->flat = loop;
    e->vector = vector;
    return true;
}

bool put_tile_end(Emit *e, Val loop)
{
    if (!e->flat)
        return false;
    if (loop == e->vector) {
        e->vector = 0;
        return true;
    }
    if (loop != e->flat)
        return false;
    e->flat = 0;
    e->depth--;
    put_line(e, "}");
    return true;
}

void put_tile_get(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    put_line(e, "float v%d = s%d[v%d * %d + v%d];", v, n->arg[0], n->arg[1], (int)attr_i(node_of(e->k, n->arg[0]), A_NR), n->arg[2]);
}
