/* AMX: bf16 tile products.  A tile whose products all fit lives in memory and is in registers 0..5 (16 rows of 16 f32) only while
 * one product runs; 6 holds a block of A (16 pairs of k a row), 7 a block of a packed panel of B, whose layout [K/2][nr][2] is the
 * tile product's own.  The registers keep one shape for the whole kernel, since another one takes longer than a product: what is
 * smaller than a block is staged in memory among zeros, and so are rows that are not a constant apart, or lie along k.
 *
 * Emulated, the four instructions that touch tiles become vector code on memory and all else is the same. */
#include "codegen/llvm/tile.h"

enum { TILES = 8, A_TILE = 6, B_TILE = 7, TILE_ROWS = TILE_REGISTER_ROWS, BLOCK_PAIRS = 16 };

typedef struct Amx {
    const Panel *p;
    const Fn *f;
    LLVMTypeRef row;      /* of a tile, as words */
    LLVMValueRef reg;     /* emulated: the registers */
    LLVMValueRef stage_a; /* NULL until needed */
    bool along;           /* rows of A lie along k: blocks are transposed */
} Amx;

/* ---- which tiles ---- */
static bool fits(const Emit *e, const TileContract *c)
{
    DavDtype a = (DavDtype)node_of(e->k, c->a)->dtype, b = (DavDtype)node_of(e->k, c->b)->dtype;
    int64_t k, rows;
    if ((a != DAV_BF16 && a != DAV_U32) || (b != DAV_U32 && b != a) || !c->b_packed)
        return false;
    if (!kernel_const_i64(e->k, c->k, &k) || k < 2 * BLOCK_PAIRS)
        return false;
    bool along = a == DAV_BF16 && c->a_row_step * c->a_row_stride == 1 && c->a_ext == 0 && c->a_div == 1 &&
                 kernel_const_i64(e->k, c->rows, &rows);
    return c->a_k_stride == 1 || along;
}

bool amx_takes(const Emit *e, Val tile, const Tile *t)
{
    bool some = false;
    if (!e->f.target->amx || t->lanes != 16 || t->mr > TILE_ROWS)
        return false;
    for (Val v = tile + 1; v < e->k->n; v++) {
        if (node_of(e->k, v)->op != OP_TILE_CONTRACT || node_of(e->k, v)->arg[0] != tile)
            continue;
        TileContract c = k_tile_contract_of(e->k, v);
        if (!fits(e, &c) || (t->vecs > A_TILE && !amx_stored(e, v)))
            return false;
        some = true;
    }
    return some;
}

Val amx_first(const Emit *e, Val tile)
{
    for (Val v = tile + 1; v < e->k->n; v++) {
        const Node *n = node_of(e->k, v);
        if (n->op == OP_FOR || n->op == OP_IF || n->op == OP_END)
            return 0;
        if (n->op != OP_TILE_CONTRACT || n->arg[0] != tile)
            continue;
        TileContract c = k_tile_contract_of(e->k, v);
        int64_t rows;
        return c.a_ext == 0 && c.a_div == 1 && kernel_const_i64(e->k, c.rows, &rows) && rows > 0 ? v : 0;
    }
    return 0;
}

/* ---- the registers ---- */
static LLVMValueRef i8_c(const Fn *f, int v)
{
    return LLVMConstInt(f->i8, (unsigned)v, false);
}

/* Palette 1; bytes a row from byte 16 on (16 bits each), rows from byte 48 on. */
static LLVMValueRef shapes(const Fn *f)
{
    LLVMValueRef byte[64];
    for (int i = 0; i < 64; i++) {
        int tile = i < 48 ? (i - 16) / 2 : i - 48, v = i == 0;
        if (i >= 16 && tile < TILES)
            v = i >= 48 ? TILE_ROWS : i % 2 ? 0 : 64;
        byte[i] = i8_c(f, v);
    }
    LLVMTypeRef t = LLVMArrayType2(f->i8, 64);
    LLVMValueRef g = LLVMAddGlobal(f->mod, t, "tile_shapes");
    LLVMSetInitializer(g, LLVMConstArray2(f->i8, byte, 64));
    LLVMSetGlobalConstant(g, true);
    LLVMSetLinkage(g, LLVMInternalLinkage);
    LLVMSetAlignment(g, 64);
    return g;
}

static void open_registers(Emit *e)
{
    if (e->registers)
        return;
    LLVMTypeRef row = LLVMVectorType(e->f.i32, TILE_ROWS);
    e->registers = e->f.target->amx_emulated ? emit_variable(e, LLVMArrayType2(row, TILES * TILE_ROWS), "tiles") : shapes(&e->f);
}

void amx_begin(Emit *e)
{
    if (e->registers && !e->f.target->amx_emulated)
        ll_intrinsic(&e->f, "llvm.x86.ldtilecfg", NULL, 0, &e->registers, 1);
}

void amx_end(Emit *e)
{
    if (e->registers && !e->f.target->amx_emulated)
        ll_intrinsic(&e->f, "llvm.x86.tilerelease", NULL, 0, NULL, 0);
}

/* ---- the instructions ---- */
static LLVMValueRef row_of(const Amx *x, int tile, LLVMValueRef row)
{
    return element_ptr(x->f, x->row, x->reg, LLVMBuildAdd(x->f->b, row, ll_i64(x->f, tile * TILE_ROWS), ""));
}

static void copy_rows(const Amx *x, int tile, LLVMValueRef memory, LLVMValueRef stride, bool to_memory)
{
    const Fn *f = x->f;
    Loop l = ll_loop(f, ll_i64(f, 0), ll_i64(f, TILE_ROWS), 1);
    LLVMValueRef outside = element_ptr(f, f->i8, memory, LLVMBuildMul(f->b, l.iv, stride, "")), inside = row_of(x, tile, l.iv);
    LLVMValueRef row = load_masked(f, x->row, to_memory ? inside : outside, NULL, 2);
    LLVMSetAlignment(LLVMBuildStore(f->b, row, to_memory ? outside : inside), 2);
    ll_loop_end(f, &l);
}

static void tile_zero(const Amx *x, int tile)
{
    const Fn *f = x->f;
    if (!x->reg) {
        ll_intrinsic(f, "llvm.x86.tilezero", NULL, 0, (LLVMValueRef[]){i8_c(f, tile)}, 1);
        return;
    }
    for (int r = 0; r < TILE_ROWS; r++)
        LLVMBuildStore(f->b, LLVMConstNull(x->row), row_of(x, tile, ll_i64(f, r)));
}

static void tile_move(const Amx *x, int tile, LLVMValueRef memory, LLVMValueRef stride, bool to_memory)
{
    if (x->reg)
        copy_rows(x, tile, memory, stride, to_memory);
    else
        ll_intrinsic(x->f, to_memory ? "llvm.x86.tilestored64" : "llvm.x86.tileloadd64", NULL, 0,
                     (LLVMValueRef[]){i8_c(x->f, tile), memory, stride}, 3);
}

static LLVMValueRef half_of(const Amx *x, LLVMValueRef words, int half)
{
    const Fn *f = x->f;
    LLVMTypeRef t = LLVMTypeOf(words);
    words = half ? LLVMBuildAnd(f->b, words, ll_int(t, -0x10000), "") : LLVMBuildShl(f->b, words, ll_int(t, 16), "");
    return LLVMBuildBitCast(f->b, words, ll_like(f, f->f32, words), "");
}

static void tile_product(const Amx *x, int c, int a_tile, int b_tile)
{
    const Fn *f = x->f;
    if (!x->reg) {
        ll_intrinsic(f, "llvm.x86.tdpbf16ps", NULL, 0, (LLVMValueRef[]){i8_c(f, c), i8_c(f, a_tile), i8_c(f, b_tile)}, 3);
        return;
    }
    LLVMTypeRef floats = LLVMVectorType(f->f32, TILE_ROWS);
    Loop m = ll_loop(f, ll_i64(f, 0), ll_i64(f, TILE_ROWS), 1), k = ll_loop(f, ll_i64(f, 0), ll_i64(f, BLOCK_PAIRS), 1);
    LLVMValueRef at = row_of(x, c, m.iv), sum = load_masked(f, floats, at, NULL, 2);
    LLVMValueRef b = load_masked(f, x->row, row_of(x, b_tile, k.iv), NULL, 2);
    LLVMValueRef a = load_masked(f, f->i32, element_ptr(f, f->i32, row_of(x, a_tile, m.iv), k.iv), NULL, 2);
    for (int half = 0; half < 2; half++)
        sum = ll_fma(f, ll_splat(f, half_of(x, a, half), TILE_ROWS), half_of(x, b, half), sum);
    LLVMBuildStore(f->b, sum, at);
    ll_loop_end(f, &k);
    ll_loop_end(f, &m);
}

/* ---- staging ---- */
static LLVMValueRef zeroed(const Amx *x, int rows, const char *name)
{
    const Fn *f = x->f;
    LLVMTypeRef t = LLVMArrayType2(x->row, (uint64_t)rows);
    LLVMValueRef v = emit_variable(x->p->e, t, name);
    LLVMBasicBlockRef at = LLVMGetInsertBlock(f->b);
    LLVMPositionBuilderAtEnd(f->b, x->p->e->entry);
    for (int r = 0; r < rows; r++)
        LLVMBuildStore(f->b, LLVMConstNull(x->row), element_ptr(f, x->row, v, ll_i64(f, r)));
    LLVMPositionBuilderAtEnd(f->b, at);
    return v;
}

static bool words(const Amx *x)
{
    return x->p->a_type == DAV_U32;
}

static LLVMValueRef first_k(const Amx *x, LLVMValueRef pair)
{
    return words(x) ? pair : LLVMBuildMul(x->f->b, pair, ll_i64(x->f, 2), "");
}

/* The first n of 16 or 32 numbers of 16 bits. */
static LLVMValueRef load_some(const Amx *x, int lanes, LLVMValueRef at, int64_t n)
{
    const Fn *f = x->f;
    LLVMValueRef on[2 * TILE_ROWS];
    for (int i = 0; i < lanes; i++)
        on[i] = LLVMConstInt(f->i1, i < n, false);
    LLVMTypeRef t = LLVMVectorType(f->i16, (unsigned)lanes);
    return load_masked(f, t, at, n < lanes ? LLVMConstVector(on, (unsigned)lanes) : NULL, 2);
}

/* Words of k even and odd of all rows, for each pair; of rows that lie next to each other. */
static void rows_along(const Amx *x, LLVMValueRef pair, int64_t valid, LLVMValueRef *row)
{
    const Panel *p = x->p;
    const Fn *f = x->f;
    int index[2 * TILE_ROWS];
    for (int i = 0; i < TILE_ROWS; i++)
        index[2 * i] = i, index[2 * i + 1] = TILE_ROWS + i;
    for (int i = 0; i < BLOCK_PAIRS; i++) {
        LLVMValueRef half[2];
        for (int odd = 0; odd < 2; odd++) {
            LLVMValueRef k = LLVMBuildAdd(f->b, first_k(x, pair), ll_i64(f, 2 * i + odd), "");
            half[odd] = 2 * i + odd < valid ? load_some(x, TILE_ROWS, panel_a(p, 0, k), p->rows)
                                            : LLVMConstNull(LLVMVectorType(f->i16, TILE_ROWS));
        }
        row[i] = LLVMBuildBitCast(f->b, ll_shuffle(f, half[0], half[1], index, 2 * TILE_ROWS), x->row, "");
    }
    ll_transpose(f, row);
}

/* A's rows, `valid` numbers of each. */
static void stage_a(Amx *x, LLVMValueRef pair, int64_t valid)
{
    const Panel *p = x->p;
    const Fn *f = x->f;
    LLVMValueRef row[TILE_ROWS];
    if (!x->stage_a)
        x->stage_a = zeroed(x, TILE_ROWS, "stage_a");
    if (x->along)
        rows_along(x, pair, valid, row);
    for (int r = 0; r < p->rows; r++) {
        if (!x->along)
            row[r] = load_some(x, 2 * TILE_ROWS, panel_a(p, r, first_k(x, pair)), valid);
        LLVMBuildStore(f->b, row[r], element_ptr(f, x->row, x->stage_a, ll_i64(f, r)));
    }
    tile_move(x, A_TILE, x->stage_a, ll_i64(f, 64), false);
}

static LLVMValueRef panel_row(const Amx *x, LLVMValueRef pair, int c)
{
    const Fn *f = x->f;
    LLVMValueRef row = element_ptr(f, f->i32, x->p->b, LLVMBuildMul(f->b, pair, ll_i64(f, x->p->t->nr), ""));
    return element_ptr(f, f->i32, row, ll_i64(f, c * TILE_ROWS));
}

/* ---- the product ---- */
static void block(Amx *x, LLVMValueRef pair)
{
    const Panel *p = x->p;
    const Fn *f = x->f;
    if (!x->along && p->apart && p->rows == TILE_ROWS) {
        int64_t stride = p->c.a_row_step * p->c.a_row_stride * (int64_t)dav_dtype_size(p->a_type);
        tile_move(x, A_TILE, panel_a(p, 0, first_k(x, pair)), ll_i64(f, stride), false);
    } else {
        stage_a(x, pair, 2 * BLOCK_PAIRS);
    }
    for (int c = 0; c < p->t->vecs; c++) {
        tile_move(x, B_TILE, panel_row(x, pair, c), ll_i64(f, 4 * p->t->nr), false);
        tile_product(x, c, A_TILE, B_TILE);
    }
}

static void rest(Amx *x, int64_t pair, int64_t valid)
{
    const Panel *p = x->p;
    const Fn *f = x->f;
    LLVMValueRef stage = zeroed(x, p->t->vecs * BLOCK_PAIRS, "stage_b");
    stage_a(x, ll_i64(f, pair), valid);
    for (int c = 0; c < p->t->vecs; c++) {
        for (int r = 0; 2 * r < valid; r++) {
            LLVMValueRef row = load_masked(f, x->row, panel_row(x, ll_i64(f, pair + r), c), NULL, 2);
            LLVMBuildStore(f->b, row, element_ptr(f, x->row, stage, ll_i64(f, c * BLOCK_PAIRS + r)));
        }
        tile_move(x, B_TILE, element_ptr(f, x->row, stage, ll_i64(f, c * BLOCK_PAIRS)), ll_i64(f, 64), false);
        tile_product(x, c, A_TILE, B_TILE);
    }
}

/* Columns one after the other, for a tile that goes to its place at once: a column is stored when the products of two more have
 * begun, so that nothing waits for its end. */
static void product_stored(const Amx *x)
{
    enum { SUMS = 3, LATE = 2, B_FIRST = 3, A_FIRST = 5, HELD = 3 };
    const Panel *p = x->p;
    const Fn *f = x->f;
    const Place *to = &p->e->place;
    int64_t k = 0, a_stride = p->c.a_row_step * p->c.a_row_stride * (int64_t)dav_dtype_size(p->a_type);
    must(kernel_const_i64(p->e->k, p->c.k, &k));
    int blocks = (int)(k / (2 * BLOCK_PAIRS));
    for (int c = 0; c < p->t->vecs + LATE; c++) {
        for (int i = 0; i < blocks && c < p->t->vecs; i++) {
            LLVMValueRef pair = ll_i64(f, i * BLOCK_PAIRS);
            if (i == 0)
                tile_zero(x, c % SUMS);
            if (c == 0 || blocks > HELD)
                tile_move(x, A_FIRST + i % HELD, panel_a(p, 0, first_k(x, pair)), ll_i64(f, a_stride), false);
            tile_move(x, B_FIRST + i % 2, panel_row(x, pair, c), ll_i64(f, 4 * p->t->nr), false);
            tile_product(x, c % SUMS, A_FIRST + i % HELD, B_FIRST + i % 2);
        }
        if (c >= LATE)
            tile_move(x, (c - LATE) % SUMS, element_ptr(f, x->row, to->at, ll_i64(f, c - LATE)), ll_i64(f, to->stride), true);
    }
}

void amx_product(const Panel *p, bool fresh)
{
    const Fn *f = p->f;
    const Tile *t = p->t;
    int64_t k = 0;
    open_registers(p->e);
    Amx x = {.p = p, .f = f, .row = LLVMVectorType(f->i32, TILE_ROWS), .along = p->c.a_k_stride != 1,
             .reg = f->target->amx_emulated ? p->e->registers : NULL};
    must(kernel_const_i64(p->e->k, p->c.k, &k));
    if (amx_stored(p->e, p->contract)) {
        if (p->e->place.at) /* else the row loop is yet to say where */
            product_stored(&x);
        return;
    }
    int64_t blocks = k / (2 * BLOCK_PAIRS), valid = k % (2 * BLOCK_PAIRS);
    for (int c = 0; c < t->vecs; c++)
        if (fresh)
            tile_zero(&x, c);
        else
            tile_move(&x, c, tile_slot(f, t, 0, c), ll_i64(f, 4 * t->nr), false);
    if (blocks == 1) {
        block(&x, ll_i64(f, 0));
    } else {
        Loop l = ll_loop(f, ll_i64(f, 0), ll_i64(f, blocks * BLOCK_PAIRS), BLOCK_PAIRS);
        block(&x, l.iv);
        ll_loop_end(f, &l);
    }
    if (valid)
        rest(&x, blocks * BLOCK_PAIRS, valid);
    for (int c = 0; c < t->vecs; c++)
        tile_move(&x, c, tile_slot(f, t, 0, c), ll_i64(f, 4 * t->nr), true);
}
