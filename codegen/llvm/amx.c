/* AMX: bf16 tile products.  Registers 0..3 hold C (rows of 16 f32), 4 holds a block of A (16 pairs of k a row), 5 a block of a
 * packed panel of B, whose layout [K/2][nr][2] is the tile product's own.  A's rows are staged in memory, so that rows outside
 * of it are zeros here as they are for vector registers; what is left of k is done by tile.c.
 *
 * Emulated, the four instructions that touch tiles become vector code on memory and all else is the same. */
#include "codegen/llvm/tile.h"

enum { TILES = 6, A_TILE = 4, B_TILE = 5, TILE_ROWS = 16, BLOCK_PAIRS = 16 };

typedef struct Amx {
    const Fn *f;
    LLVMValueRef reg; /* emulated: the registers */
    LLVMTypeRef words; /* one row of a tile */
    int rows;
} Amx;

bool amx_takes(const Panel *p)
{
    return p->f->target->amx && p->c.b_packed && p->c.a_k_stride == 1 && p->t->lanes == 16 && p->t->vecs <= A_TILE &&
           p->rows <= TILE_ROWS;
}

/* ---- the instructions ---- */
static LLVMValueRef i8_c(const Amx *x, int v)
{
    return LLVMConstInt(LLVMInt8TypeInContext(x->f->cx), (unsigned)v, false);
}

static LLVMValueRef row_of(const Amx *x, int tile, LLVMValueRef row)
{
    return element_ptr(x->f, x->words, x->reg, LLVMBuildAdd(x->f->b, row, ll_i64(x->f, tile * TILE_ROWS), ""));
}

static LLVMValueRef load_words(const Amx *x, LLVMTypeRef t, LLVMValueRef at)
{
    return load_masked(x->f, t, at, NULL, 2);
}

static void copy_rows(const Amx *x, int tile, LLVMValueRef memory, LLVMValueRef stride, int rows, bool to_memory)
{
    const Fn *f = x->f;
    Loop l = ll_loop(f, ll_i64(f, 0), ll_i64(f, rows), 1);
    LLVMValueRef outside = element_ptr(f, f->i8, memory, LLVMBuildMul(f->b, l.iv, stride, "")), inside = row_of(x, tile, l.iv);
    LLVMValueRef row = load_words(x, x->words, to_memory ? inside : outside);
    LLVMSetAlignment(LLVMBuildStore(f->b, row, to_memory ? outside : inside), 2);
    ll_loop_end(f, &l);
}

static void tile_zero(const Amx *x, int tile)
{
    if (!x->reg) {
        ll_intrinsic(x->f, "llvm.x86.tilezero", NULL, 0, (LLVMValueRef[]){i8_c(x, tile)}, 1);
        return;
    }
    for (int r = 0; r < x->rows; r++)
        LLVMBuildStore(x->f->b, LLVMConstNull(x->words), row_of(x, tile, ll_i64(x->f, r)));
}

static void tile_load(const Amx *x, int tile, LLVMValueRef from, LLVMValueRef stride, int rows)
{
    if (x->reg)
        copy_rows(x, tile, from, stride, rows, false);
    else
        ll_intrinsic(x->f, "llvm.x86.tileloadd64", NULL, 0, (LLVMValueRef[]){i8_c(x, tile), from, stride}, 3);
}

static void tile_store(const Amx *x, int tile, LLVMValueRef to, LLVMValueRef stride)
{
    if (x->reg)
        copy_rows(x, tile, to, stride, x->rows, true);
    else
        ll_intrinsic(x->f, "llvm.x86.tilestored64", NULL, 0, (LLVMValueRef[]){i8_c(x, tile), to, stride}, 3);
}

static LLVMValueRef half_of(const Amx *x, LLVMValueRef words, int half)
{
    const Fn *f = x->f;
    LLVMTypeRef t = LLVMTypeOf(words);
    words = half ? LLVMBuildAnd(f->b, words, ll_int(t, -0x10000), "") : LLVMBuildShl(f->b, words, ll_int(t, 16), "");
    return LLVMBuildBitCast(f->b, words, ll_like(f, f->f32, words), "");
}

static void tile_product(const Amx *x, int c)
{
    const Fn *f = x->f;
    if (!x->reg) {
        ll_intrinsic(f, "llvm.x86.tdpbf16ps", NULL, 0, (LLVMValueRef[]){i8_c(x, c), i8_c(x, A_TILE), i8_c(x, B_TILE)}, 3);
        return;
    }
    LLVMTypeRef floats = LLVMVectorType(f->f32, TILE_ROWS);
    Loop m = ll_loop(f, ll_i64(f, 0), ll_i64(f, x->rows), 1), k = ll_loop(f, ll_i64(f, 0), ll_i64(f, BLOCK_PAIRS), 1);
    LLVMValueRef at = row_of(x, c, m.iv), sum = load_words(x, floats, at), b = load_words(x, x->words, row_of(x, B_TILE, k.iv));
    LLVMValueRef a = load_words(x, f->i32, element_ptr(f, f->i32, row_of(x, A_TILE, m.iv), k.iv));
    for (int half = 0; half < 2; half++)
        sum = ll_fma(f, ll_splat(f, half_of(x, a, half), TILE_ROWS), half_of(x, b, half), sum);
    LLVMBuildStore(f->b, sum, at);
    ll_loop_end(f, &k);
    ll_loop_end(f, &m);
}

/* Palette 1; bytes a row from byte 16 on (16 bits each), rows from byte 48 on. */
static void configure(const Amx *x)
{
    const Fn *f = x->f;
    LLVMValueRef byte[64];
    for (int i = 0; i < 64; i++) {
        int tile = i < 48 ? (i - 16) / 2 : i - 48, v = 0;
        if (i == 0)
            v = 1;
        else if (i >= 16 && tile < TILES)
            v = i >= 48 ? (tile == B_TILE ? BLOCK_PAIRS : x->rows) : i % 2 ? 0 : 64;
        byte[i] = i8_c(x, v);
    }
    LLVMTypeRef t = LLVMArrayType2(f->i8, 64);
    LLVMValueRef g = LLVMAddGlobal(f->mod, t, "tile_shapes");
    LLVMSetInitializer(g, LLVMConstArray2(f->i8, byte, 64));
    LLVMSetGlobalConstant(g, true);
    LLVMSetLinkage(g, LLVMInternalLinkage);
    LLVMSetAlignment(g, 64);
    if (!x->reg)
        ll_intrinsic(f, "llvm.x86.ldtilecfg", NULL, 0, &g, 1);
}

/* ---- the product ---- */
static void one_block(const Panel *p, const Amx *x, LLVMValueRef pair, LLVMValueRef stage)
{
    const Fn *f = p->f;
    LLVMValueRef k = LLVMBuildMul(f->b, pair, ll_i64(f, 2), "");
    for (int r = 0; r < p->rows; r++) {
        LLVMValueRef row = load_words(x, x->words, panel_a(p, r, k));
        LLVMBuildStore(f->b, row, element_ptr(f, x->words, stage, ll_i64(f, r)));
    }
    tile_load(x, A_TILE, stage, ll_i64(f, 64), x->rows);
    LLVMValueRef panel = element_ptr(f, f->i32, p->b, LLVMBuildMul(f->b, pair, ll_i64(f, p->t->nr), ""));
    for (int c = 0; c < p->t->vecs; c++) {
        tile_load(x, B_TILE, element_ptr(f, f->i32, panel, ll_i64(f, c * TILE_ROWS)), ll_i64(f, 4 * p->t->nr), BLOCK_PAIRS);
        tile_product(x, c);
    }
}

LLVMValueRef amx_blocks(const Panel *p, LLVMValueRef pairs)
{
    const Fn *f = p->f;
    Amx x = {.f = f, .words = LLVMVectorType(f->i32, TILE_ROWS), .rows = p->rows};
    LLVMTypeRef tile = LLVMArrayType2(x.words, TILE_ROWS), floats = LLVMVectorType(f->f32, TILE_ROWS);
    LLVMValueRef stage = emit_variable(p->e, tile, "stage");
    if (f->target->amx_emulated)
        x.reg = emit_variable(p->e, LLVMArrayType2(x.words, TILES * TILE_ROWS), "tiles");
    LLVMValueRef end = LLVMBuildAnd(f->b, pairs, ll_i64(f, -BLOCK_PAIRS), "");
    LLVMBasicBlockRef done = ll_if(f, LLVMBuildICmp(f->b, LLVMIntSGT, end, ll_i64(f, 0), ""));
    configure(&x);
    for (int c = 0; c < p->t->vecs; c++)
        tile_zero(&x, c);
    Loop l = ll_loop(f, ll_i64(f, 0), end, BLOCK_PAIRS);
    one_block(p, &x, l.iv, stage);
    ll_loop_end(f, &l);
    for (int c = 0; c < p->t->vecs; c++) {
        tile_store(&x, c, stage, ll_i64(f, 64));
        for (int r = 0; r < p->rows; r++) {
            LLVMValueRef more = load_words(&x, floats, element_ptr(f, x.words, stage, ll_i64(f, r)));
            LLVMValueRef old = LLVMBuildLoad2(f->b, floats, p->t->acc[r][c], "");
            LLVMBuildStore(f->b, LLVMBuildFAdd(f->b, old, more, ""), p->t->acc[r][c]);
        }
    }
    if (!x.reg)
        ll_intrinsic(f, "llvm.x86.tilerelease", NULL, 0, NULL, 0);
    ll_endif(f, done);
    return end;
}
