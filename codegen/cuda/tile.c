/* Tiles: contractions that a whole block works at (tiles.cu), and the loops that read the finished tile. */
#include "codegen/cuda/emit.h"
#include "codegen/cuda/tile.h"
#include <stdio.h>
#include <string.h>

enum { MOST_DIRECT = 4096, CALL_WEIGHT = 16 };

/* The first contraction into a tile; tiles are made for one. */
static Val contract_of(const Graph *k, Val tile)
{
    Val v = tile + 1;
    while (v < k->n && !(node_of(k, v)->op == OP_TILE_CONTRACT && node_of(k, v)->arg[0] == tile))
        v++;
    return v < k->n ? v : 0;
}

/* ---- the form of a tile ---- */
/* The most that the sum is long. */
static int64_t depth_of(const Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    for (int i = 0; i < 2 && n->op == OP_MIN; i++)
        if (node_of(e->k, n->arg[i])->op == OP_CONST)
            n = node_of(e->k, n->arg[i]);
    return n->op == OP_CONST ? (int64_t)attr_f(n, A_VALUE) : INT64_MAX;
}

static bool is_near(const Emit *e, Val buf)
{
    return e->shared_scratch && attr_i(node_of(e->k, buf), A_ROLE) == BUF_SCRATCH;
}

/* Elements from row to row of a B that tiles can take straight from scratch in shared memory; 0: they cannot. */
static int near_pitch(const Emit *e, const TileContract *c)
{
    DavDtype t = operand_dtype(e, c->b);
    int64_t line = 16 / (int64_t)dav_dtype_size(t);
    bool fits = is_near(e, c->b) && !c->b_packed && !c->cols && (t == DAV_F32 || (t == DAV_BF16 && e->target->sm >= 80));
    return fits && c->b_k_stride % line == 0 && index_unit(e->k, c->b_off) % line == 0 ? (int)c->b_k_stride : 0;
}

static int near_of(const Emit *e, Val tile)
{
    int pitch = -1;
    for (Val v = tile + 1; v < e->k->n; v++) {
        if (node_of(e->k, v)->op != OP_TILE_CONTRACT || node_of(e->k, v)->arg[0] != tile)
            continue;
        TileContract c = k_tile_contract_of(e->k, v);
        int p = near_pitch(e, &c);
        pitch = pitch < 0 || pitch == p ? p : 0;
    }
    return pitch > 0 ? pitch : 0;
}

static TileForm form_of(const Emit *e, Val tile)
{
    const Node *n = node_of(e->k, tile);
    Val v = contract_of(e->k, tile);
    TileContract c = v ? k_tile_contract_of(e->k, v) : (TileContract){0};
    return tile_form(e->target, v && operand_dtype(e, c.a) != DAV_F32, (int)attr_i(n, A_MR), (int)attr_i(n, A_NR),
                     v ? depth_of(e, c.k) : INT64_MAX, e->threads, near_of(e, tile), e->shared_scratch ? (int)e->scratch : 0);
}

/* Can lines of the buffer, at multiples of their length from `off`, be copied?  From device memory alone, and only where the buffer
 * starts at a multiple of 16 bytes also when it is one of many that lie behind each other. */
static bool has_lines(const Emit *e, Val buf, Val off, int64_t line)
{
    return !is_near(e, buf) && node_count(e->k, buf) * (int64_t)dav_dtype_size(operand_dtype(e, buf)) % 16 == 0 && index_unit(e->k, off) % line == 0;
}

/* Elements of an operand, or pairs of them, in 16 bytes. */
static int64_t line_of(const Emit *e, const TileForm *f, Val buf)
{
    return operand_dtype(e, buf) == DAV_U32 ? 4 : 16 / f->element;
}

static bool a_has_lines(const Emit *e, const TileContract *c, const TileForm *f)
{
    int64_t line = line_of(e, f, c->a), per = e->threads / (f->kc / line), near = c->a_row_step * c->a_row_stride;
    if (!f->lines || !has_lines(e, c->a, c->a_off, line))
        return false;
    if (c->a_k_stride == 1 && operand_dtype(e, c->a) != DAV_U32)
        return c->a_row_stride % line == 0 && per * c->a_row_step % c->a_div == 0 && index_unit(e->k, c->k) % line == 0;
    return near == 1 && c->a_div == 1 && c->a_ext == 0 && c->a_k_stride % line == 0 && index_unit(e->k, c->row0) % line == 0;
}

static bool b_has_lines(const Emit *e, const TileContract *c, const TileForm *f)
{
    int64_t line = line_of(e, f, c->b), nr = attr_i(node_of(e->k, c->tile), A_NR);
    return f->lines && has_lines(e, c->b, c->b_off, line) && (c->b_packed ? nr : c->b_k_stride) % line == 0;
}

/* ---- what reads a tile: loops over its rows, and in each one over its columns ---- */
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

/* Instructions of the loops' body, roughly; what depends on the row or the column alone is shared by several elements. */
static int weight_of(const Emit *e, Val row, Val vector, Val end)
{
    enum { ROW = 1, COLUMN = 2, BOTH = 3, SHARED_BY = 8 };
    char *needs = mem_alloc((size_t)e->k->n);
    int weight = 0;
    needs[row] = ROW;
    needs[vector] = COLUMN;
    for (Val v = row + 1; v < end; v++) {
        const Node *n = node_of(e->k, v);
        bool call = n->op == OP_EXP || n->op == OP_EXP2 || n->op == OP_EXPM1 || n->op == OP_LOG || n->op == OP_LOG1P || n->op == OP_TANH || n->op == OP_ERF ||
                    n->op == OP_SIN || n->op == OP_COS || n->op == OP_ATAN || n->op == OP_DIV || n->op == OP_REM || n->op == OP_PHILOX;
        for (int i = 0; i < n->narg && v != vector; i++)
            needs[v] |= needs[n->arg[i]];
        weight += n->op == OP_CONST ? 0 : (call ? CALL_WEIGHT * SHARED_BY : SHARED_BY) / (needs[v] == BOTH ? 1 : SHARED_BY);
    }
    mem_free(needs);
    return weight / SHARED_BY;
}

static bool reads_another(const Emit *e, Val tile, Val loop, Val end)
{
    for (Val v = loop + 1; v < end; v++)
        if (node_of(e->k, v)->op == OP_TILE_GET && node_of(e->k, v)->arg[0] != tile)
            return true;
    return false;
}

/* May each thread run the loops for the elements that it owns, straight from its registers?  It must where there are two tiles (of one
 * form): there is room for one. */
static bool is_direct(const Emit *e, Val tile, Val loop, Val vector, Val end)
{
    return vector && (reads_another(e, tile, loop, end) || form_of(e, tile).count * weight_of(e, loop, vector, end) <= MOST_DIRECT);
}

/* Does some loop read the tile from shared memory? */
static bool is_spread(const Emit *e, Val tile)
{
    for (Val v = tile + 1; v < e->k->n; v++) {
        const Node *n = node_of(e->k, v);
        Val end;
        if (n->op == OP_FOR && attr_i(n, A_KIND) == LOOP_ROW && tile_read_in(e, v, &end) == tile &&
            !is_direct(e, tile, v, only_vector_loop(e, v, end), end))
            return true;
    }
    return false;
}

void put_tile(Emit *e, Val v)
{
    put_line(e, "tile%d t%d;", v, v);
    put_line(e, "t%d.zero();", v);
    if (!form_of(e, v).near)
        put_line(e, "dav_pipe<tile%d> pipe%d;", v, v);
    put_line(e, "const float *s%d = 0;", v);
}

/* ---- contracting: around a contraction there may be loops that do nothing else, and its copies run on through all of them ---- */
static bool does_nothing_else(const Emit *e, Val loop, Val contract)
{
    for (Val v = loop + 1, end = index_end(e->k, loop); v < end; v++) {
        const Node *n = node_of(e->k, v);
        bool plain = n->op == OP_CONST || n->op == OP_IF || n->op == OP_END || n->op == OP_FOR || (op_info[n->op].flags & OPF_ELEMENTWISE);
        if (v != contract && !plain)
            return false;
    }
    return true;
}

/* The outermost of those loops, or of the conditions around it; the contraction itself when there is none. */
static Val stretch_of(const Emit *e, Val contract)
{
    for (Val v = k_tile_contract_of(e->k, contract).tile + 1; v < contract; v++) {
        const Node *n = node_of(e->k, v);
        if ((n->op == OP_FOR || n->op == OP_IF) && index_end(e->k, v) > contract && does_nothing_else(e, v, contract))
            return v;
    }
    return contract;
}

static void put_finish(Emit *e, Val contract)
{
    Val tile = k_tile_contract_of(e->k, contract).tile;
    if (!form_of(e, tile).near)
        put_line(e, "dav_finish<panels%d>(t%d, pipe%d, room);", contract, tile, tile);
}

void put_finish_after(Emit *e, Val closed)
{
    for (Val v = closed + 1, end = index_end(e->k, closed); v < end; v++)
        if (node_of(e->k, v)->op == OP_TILE_CONTRACT && stretch_of(e, v) == closed)
            put_finish(e, v);
}

/* The type of the panels of each contraction. */
static void put_panels(Emit *e)
{
    for (Val v = 1; v < e->k->n; v++) {
        if (node_of(e->k, v)->op != OP_TILE_CONTRACT)
            continue;
        TileContract c = k_tile_contract_of(e->k, v);
        TileForm f = form_of(e, c.tile);
        int nr = (int)attr_i(node_of(e->k, c.tile), A_NR), mr = (int)attr_i(node_of(e->k, c.tile), A_MR);
        int64_t rows_unit = index_unit(e->k, c.rows), mr_unit = mr & -mr;
        bool plain = c.b_packed && operand_dtype(e, c.b) == DAV_F32; /* no pairs: a panel like any other */
        put_line(e, "typedef dav_panels<%s, %lld, %lld, %lldll, %lldll, %lldll, %lldll, %s, %s, %s, %lld, %lld, %lld> panels%d;",
                 cuda_memory_type(operand_dtype(e, c.a)), (long long)c.a_row_step, (long long)c.a_div, (long long)c.a_ext,
                 (long long)c.a_row_stride, (long long)c.a_k_stride, (long long)(plain ? nr : c.b_k_stride),
                 c.b_packed && !plain ? "true" : "false", a_has_lines(e, &c, &f) ? "true" : "false",
                 b_has_lines(e, &c, &f) ? "true" : "false", (long long)index_unit(e->k, c.k),
                 (long long)(rows_unit < mr_unit ? rows_unit : mr_unit), (long long)(c.cols ? index_unit(e->k, c.cols) : nr & -nr), v);
    }
}

int room_bytes(const Emit *e)
{
    int room = 64;
    for (Val v = 1; v < e->k->n; v++)
        if (node_of(e->k, v)->op == OP_TILE) {
            TileForm f = form_of(e, v);
            int mr = (int)attr_i(node_of(e->k, v), A_MR), nr = (int)attr_i(node_of(e->k, v), A_NR), all = is_spread(e, v) ? mr * nr * 4 : 0;
            room = f.room > room ? f.room : room;
            room = all > room ? all : room;
        }
    return room;
}

void put_tile_types(Emit *e)
{
    for (Val v = 1; v < e->k->n; v++)
        if (node_of(e->k, v)->op == OP_TILE) {
            TileForm f = form_of(e, v);
            put_line(e, "typedef %s<%d, %d, %d, %d, %d, %d, %d> tile%d;", f.kind, (int)attr_i(node_of(e->k, v), A_MR),
                     (int)attr_i(node_of(e->k, v), A_NR), f.down, f.across, f.kc, f.stages, f.near, v);
            put_line(e, "static_assert(tile%d::STAGES * tile%d::STAGE == %d, \"room\");", v, v, f.room);
        }
    put_panels(e);
}

void put_contract(Emit *e, Val v)
{
    TileContract c = k_tile_contract_of(e->k, v);
    int nr = (int)attr_i(node_of(e->k, c.tile), A_NR), mr = (int)attr_i(node_of(e->k, c.tile), A_MR);
    char cols[40];
    snprintf(cols, sizeof cols, c.cols ? "(int)v%d" : "%d", c.cols ? c.cols : nr);
    put_line(e, "const panels%d c%d = {p%d + v%d, (const %s *)(p%d + v%d), v%d, (int)(v%d < %d ? v%d : %d), %s, (int)v%d};", v, v, c.a, c.a_off,
             cuda_memory_type(operand_dtype(e, c.a)), c.b, c.b_off, c.row0, c.rows, mr, c.rows, mr, cols, c.k);
    if (form_of(e, c.tile).near)
        put_line(e, "dav_contract_near(t%d, c%d, room);", c.tile, v);
    else
        put_line(e, "dav_contract(t%d, pipe%d, c%d, room);", c.tile, c.tile, v);
    if (stretch_of(e, v) == v)
        put_finish(e, v);
}

/* ---- reading ---- */
/* Columns beyond the tile's last one hold nothing that may be stored. */
static void skip_columns(Emit *e, Val vector)
{
    const Node *n = node_of(e->k, vector);
    if (n->narg)
        put_line(e, "if (v%d >= v%d) continue;", vector, n->arg[1]);
    else
        put_line(e, "if (v%d >= %lldll) continue;", vector, (long long)attr_ints(n, A_NUMS, NULL)[1]);
}

static void open_direct(Emit *e, Val loop, Val vector, Val tile)
{
    const Node *n = node_of(e->k, vector);
    long long rows = (long long)attr_ints(node_of(e->k, loop), A_NUMS, NULL)[1];
    buf_str(e->out, "#pragma unroll\n");
    put_line(e, "for (int e%d = 0; e%d < tile%d::COUNT; e%d++) {", loop, loop, tile, loop);
    e->depth++;
    put_line(e, "const %s v%d = tile%d::row(e%d);", type_of_value(e, loop), loop, tile, loop);
    put_line(e, "const %s v%d = tile%d::col(e%d);", type_of_value(e, vector), vector, tile, loop);
    put_line(e, "if (tile%d::ROWS > %lld && v%d >= %lldll) continue;", tile, rows, loop, rows);
    if (n->narg)
        put_line(e, "if (v%d >= v%d) continue;", vector, n->arg[1]);
    else
        put_line(e, "if (tile%d::COLS > %lld && v%d >= %lldll) continue;", tile, (long long)attr_ints(n, A_NUMS, NULL)[1], vector,
                 (long long)attr_ints(n, A_NUMS, NULL)[1]);
}

bool put_tile_loop(Emit *e, Val loop)
{
    const Node *n = node_of(e->k, loop);
    Val end, tile;
    if (e->flat && loop == e->vector) {
        if (!e->direct)
            skip_columns(e, loop);
        return true;
    }
    if (attr_i(n, A_KIND) != LOOP_ROW || !(tile = tile_read_in(e, loop, &end)))
        return false;
    int mr = (int)attr_i(node_of(e->k, tile), A_MR), nr = (int)attr_i(node_of(e->k, tile), A_NR);
    Val vector = only_vector_loop(e, loop, end);
    e->direct = is_direct(e, tile, loop, vector, end);
    e->vector = vector;
    e->flat = vector ? loop : 0;
    if (e->direct) {
        put_meeting(e, loop);
        open_direct(e, loop, vector, tile);
        return true;
    }
    put_line(e, "s%d = dav_spread<%d, %d>(t%d, room);", tile, mr, nr, tile);
    if (!vector)
        return false;
    put_line(e, "for (int e%d = lane; e%d < %lld; e%d += %d) {", loop, loop, (long long)attr_ints(n, A_NUMS, NULL)[1] * nr, loop, e->threads);
    e->depth++;
    put_line(e, "const %s v%d = e%d / %d;", type_of_value(e, loop), loop, loop, nr);
    put_line(e, "const %s v%d = e%d %% %d;", type_of_value(e, vector), vector, loop, nr);
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
    e->depth--;
    put_line(e, "}");
    if (e->direct)
        put_meeting(e, loop);
    e->flat = 0;
    e->direct = false;
    return true;
}

void put_tile_get(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    if (e->direct)
        put_line(e, "float v%d = t%d.get(e%d);", v, n->arg[0], e->flat);
    else
        put_line(e, "float v%d = s%d[v%d * %d + v%d];", v, n->arg[0], n->arg[1], (int)attr_i(node_of(e->k, n->arg[0]), A_NR), n->arg[2]);
}
