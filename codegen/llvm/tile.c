/* Register tiles.  The accumulators are variables that mem2reg turns into phis, through every loop around them; in a step of k
 * each row's element of A is broadcast and used in all columns before the next row's, the order that keeps it all in
 * registers. */
#include "codegen/llvm/emit.h"

/* Zeros that a row outside of A reads instead of a row; longer reaches step by 0 there. */
enum { MAX_ZERO_ROW = 1 << 14 };

typedef struct Panel {
    Emit *e;
    const Fn *f;
    const Tile *t;
    TileContract c;
    DavDtype a_type, b_type;
    int rows;
    LLVMValueRef row[MAX_TILE_ROWS];  /* where row r starts; only row[0] is set when all are a constant apart */
    LLVMValueRef step[MAX_TILE_ROWS]; /* all ones, or 0 for a row that stays at its zero; NULL: not needed */
    bool apart;                       /* rows are a constant apart */
    LLVMValueRef b;
    LLVMValueRef col_on[MAX_TILE_VECS]; /* columns to read; NULL: all */
} Panel;

void emit_tile(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    Tile *t = e->tile[v];
    if (!t) {
        t = e->tile[v] = arena_alloc(e->arena, sizeof *t);
        t->mr = (int)attr_i(n, A_MR);
        t->nr = (int)attr_i(n, A_NR);
        t->lanes = e->f.target->vector_bytes / 4;
        while (t->nr % t->lanes)
            t->lanes /= 2;
        t->vecs = t->nr / t->lanes;
        if (t->mr < 1 || t->mr > MAX_TILE_ROWS || t->vecs > MAX_TILE_VECS || t->lanes < 4)
            die("kernel %s: tile %dx%d", e->k->name, t->mr, t->nr);
        for (int r = 0; r < t->mr; r++)
            for (int c = 0; c < t->vecs; c++)
                t->acc[r][c] = emit_variable(e, LLVMVectorType(e->f.f32, (unsigned)t->lanes), "tile");
    }
    LLVMTypeRef vec = LLVMVectorType(e->f.f32, (unsigned)t->lanes);
    for (int r = 0; r < t->mr; r++)
        for (int c = 0; c < t->vecs; c++)
            LLVMBuildStore(e->f.b, LLVMConstNull(vec), t->acc[r][c]);
}

void emit_tile_get(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    const Tile *t = e->tile[n->arg[0]];
    LLVMValueRef row = as_scalar(e, n->arg[1]);
    if (!LLVMIsAConstantInt(row) || n->arg[2] != e->vector_loop || e->chunk < 0)
        die("kernel %s: tile_get outside of a row loop and a vector loop from 0", e->k->name);
    int64_t r = LLVMConstIntGetSExtValue(row);
    must(r >= 0 && r < t->mr);
    LLVMTypeRef vec = LLVMVectorType(e->f.f32, (unsigned)t->lanes);
    e->val[v] = (Lane){.v = LLVMBuildLoad2(e->f.b, vec, t->acc[r][e->chunk], ""), .varying = true};
}

/* ---- one step of k ---- */
static LLVMTypeRef lanes_of_type(const Panel *p, LLVMTypeRef elem, int times)
{
    return LLVMVectorType(elem, (unsigned)(p->t->lanes * times));
}

static LLVMValueRef a_ptr(const Panel *p, int r, LLVMValueRef k)
{
    const Fn *f = p->f;
    LLVMTypeRef elem = memory_type(f, p->a_type);
    LLVMValueRef off = LLVMBuildMul(f->b, k, ll_i64(f, p->c.a_k_stride), "");
    if (p->apart) {
        LLVMValueRef at = element_ptr(f, elem, p->row[0], off);
        return element_ptr(f, elem, at, ll_i64(f, r * p->c.a_row_step * p->c.a_row_stride));
    }
    if (p->step[r])
        off = LLVMBuildAnd(f->b, off, p->step[r], "");
    return element_ptr(f, elem, p->row[r], off);
}

static LLVMValueRef a_element(const Panel *p, int r, LLVMValueRef k)
{
    unsigned align = (unsigned)dav_dtype_size(p->a_type);
    LLVMValueRef x = load_masked(p->f, memory_type(p->f, p->a_type), a_ptr(p, r, k), NULL, align);
    return ll_splat(p->f, widen_memory(p->f, p->a_type, x), p->t->lanes);
}

static LLVMValueRef b_load(const Panel *p, int c, LLVMValueRef k)
{
    const Fn *f = p->f;
    LLVMTypeRef elem = memory_type(f, p->b_type);
    LLVMValueRef off = LLVMBuildMul(f->b, k, ll_i64(f, p->c.b_packed ? p->t->nr : p->c.b_k_stride), "");
    LLVMValueRef at = element_ptr(f, elem, p->b, off);
    at = element_ptr(f, elem, at, ll_i64(f, (int64_t)c * p->t->lanes));
    return load_masked(f, lanes_of_type(p, elem, 1), at, p->col_on[c], (unsigned)dav_dtype_size(p->b_type));
}

/* Columns of a packed bf16 panel by pairs of k, as words: k even in the low half. */
static LLVMValueRef b_pair(const Panel *p, int c, LLVMValueRef pair)
{
    const Fn *f = p->f;
    LLVMValueRef off = LLVMBuildMul(f->b, pair, ll_i64(f, p->t->nr), "");
    LLVMValueRef at = element_ptr(f, f->i32, element_ptr(f, f->i32, p->b, off), ll_i64(f, (int64_t)c * p->t->lanes));
    return load_masked(f, lanes_of_type(p, f->i32, 1), at, NULL, 2);
}

static bool pairs_packed(const Panel *p)
{
    return p->b_type == DAV_BF16 && p->c.b_packed;
}

static void accumulate(const Panel *p, int r, int c, LLVMValueRef a, LLVMValueRef b)
{
    const Fn *f = p->f;
    LLVMValueRef old = LLVMBuildLoad2(f->b, lanes_of_type(p, f->f32, 1), p->t->acc[r][c], "");
    LLVMBuildStore(f->b, ll_fma(f, a, b, old), p->t->acc[r][c]);
}

static void step_rows(const Panel *p, LLVMValueRef k, const LLVMValueRef *b)
{
    for (int r = 0; r < p->rows; r++) {
        LLVMValueRef a = a_element(p, r, k);
        for (int c = 0; c < p->t->vecs; c++)
            accumulate(p, r, c, a, b[c]);
    }
}

static void step_one(const Panel *p, LLVMValueRef k)
{
    LLVMValueRef b[MAX_TILE_VECS];
    for (int c = 0; c < p->t->vecs; c++)
        b[c] = widen_memory(p->f, p->b_type, b_load(p, c, k));
    step_rows(p, k, b);
}

/* Half of a packed pair widened to f32. */
static void step_half(const Panel *p, LLVMValueRef pair, int half)
{
    const Fn *f = p->f;
    LLVMValueRef b[MAX_TILE_VECS];
    for (int c = 0; c < p->t->vecs; c++) {
        LLVMValueRef w = b_pair(p, c, pair);
        LLVMTypeRef t = LLVMTypeOf(w);
        w = half ? LLVMBuildAnd(f->b, w, ll_int(t, -0x10000), "") : LLVMBuildShl(f->b, w, ll_int(t, 16), "");
        b[c] = LLVMBuildBitCast(f->b, w, lanes_of_type(p, f->f32, 1), "");
    }
    LLVMValueRef k = LLVMBuildAdd(f->b, LLVMBuildMul(f->b, pair, ll_i64(f, 2), ""), ll_i64(f, half), "");
    step_rows(p, k, b);
}

/* ---- AVX512-BF16: pairs of k in one instruction ---- */
static LLVMValueRef a_word(const Panel *p, int r, LLVMValueRef k, bool last)
{
    const Fn *f = p->f;
    LLVMValueRef w;
    if (p->c.a_k_stride == 1 && !last) {
        w = load_masked(f, f->i32, a_ptr(p, r, k), NULL, 2);
    } else {
        w = LLVMBuildZExt(f->b, load_masked(f, f->i16, a_ptr(p, r, k), NULL, 2), f->i32, "");
        if (!last) {
            LLVMValueRef next = a_ptr(p, r, LLVMBuildAdd(f->b, k, ll_i64(f, 1), ""));
            next = LLVMBuildZExt(f->b, load_masked(f, f->i16, next, NULL, 2), f->i32, "");
            w = LLVMBuildOr(f->b, w, LLVMBuildShl(f->b, next, LLVMConstInt(f->i32, 16, false), ""), "");
        }
    }
    return ll_splat(f, w, p->t->lanes);
}

static LLVMValueRef interleave(const Panel *p, LLVMValueRef even, LLVMValueRef odd)
{
    int index[128], n = p->t->lanes;
    for (int i = 0; i < n; i++)
        index[2 * i] = i, index[2 * i + 1] = n + i;
    return ll_shuffle(p->f, even, odd, index, 2 * n);
}

static void step_dot(const Panel *p, LLVMValueRef pair, bool last)
{
    const Fn *f = p->f;
    LLVMTypeRef halves = lanes_of_type(p, LLVMBFloatTypeInContext(f->cx), 2);
    LLVMValueRef b[MAX_TILE_VECS], k = LLVMBuildMul(f->b, pair, ll_i64(f, 2), "");
    for (int c = 0; c < p->t->vecs; c++) {
        if (p->c.b_packed) {
            b[c] = b_pair(p, c, pair);
        } else {
            LLVMValueRef even = b_load(p, c, k);
            LLVMValueRef odd = last ? LLVMConstNull(LLVMTypeOf(even)) : b_load(p, c, LLVMBuildAdd(f->b, k, ll_i64(f, 1), ""));
            b[c] = interleave(p, even, odd);
        }
        b[c] = LLVMBuildBitCast(f->b, b[c], halves, "");
    }
    const char *name = p->t->lanes == 16 ? "llvm.x86.avx512bf16.dpbf16ps.512"
                       : p->t->lanes == 8 ? "llvm.x86.avx512bf16.dpbf16ps.256" : "llvm.x86.avx512bf16.dpbf16ps.128";
    for (int r = 0; r < p->rows; r++) {
        LLVMValueRef a = LLVMBuildBitCast(f->b, a_word(p, r, k, last), halves, "");
        for (int c = 0; c < p->t->vecs; c++) {
            LLVMValueRef old = LLVMBuildLoad2(f->b, lanes_of_type(p, f->f32, 1), p->t->acc[r][c], "");
            LLVMBuildStore(f->b, ll_intrinsic(f, name, NULL, 0, (LLVMValueRef[]){old, a, b[c]}, 3), p->t->acc[r][c]);
        }
    }
}

/* ---- the loop over k ---- */
static void step_pair(const Panel *p, LLVMValueRef pair, bool dot)
{
    if (dot) {
        step_dot(p, pair, false);
        return;
    }
    step_half(p, pair, 0);
    step_half(p, pair, 1);
}

static void last_half(const Panel *p, LLVMValueRef pair, bool dot)
{
    if (dot)
        step_dot(p, pair, true);
    else
        step_half(p, pair, 0);
}

static void loop_pairs(const Panel *p, LLVMValueRef k, bool dot)
{
    const Fn *f = p->f;
    LLVMValueRef pairs = LLVMBuildLShr(f->b, k, ll_i64(f, 1), ""), odd = LLVMBuildAnd(f->b, k, ll_i64(f, 1), "");
    Loop l = ll_loop(f, ll_i64(f, 0), pairs, 1);
    step_pair(p, l.iv, dot);
    ll_loop_end(f, &l);
    if (LLVMIsAConstantInt(odd)) {
        if (LLVMConstIntGetZExtValue(odd))
            last_half(p, pairs, dot);
        return;
    }
    LLVMBasicBlockRef then = ll_block(f, "odd"), done = ll_block(f, "even");
    LLVMBuildCondBr(f->b, LLVMBuildICmp(f->b, LLVMIntNE, odd, ll_i64(f, 0), ""), then, done);
    ll_enter(f, then);
    last_half(p, pairs, dot);
    LLVMBuildBr(f->b, done);
    ll_enter(f, done);
}

static void loop_k(const Panel *p)
{
    const Fn *f = p->f;
    LLVMValueRef k = as_scalar(p->e, p->c.k);
    bool dot = f->target->avx512_bf16 && p->a_type == DAV_BF16 && p->b_type == DAV_BF16;
    if (dot || pairs_packed(p)) {
        loop_pairs(p, k, dot);
        return;
    }
    Loop l = ll_loop(f, ll_i64(f, 0), k, 1);
    step_one(p, l.iv);
    ll_loop_end(f, &l);
}

/* ---- where rows start ---- */
static LLVMValueRef zero_row(const Fn *f, int64_t elements)
{
    LLVMTypeRef t = LLVMArrayType2(f->i32, (uint64_t)elements);
    LLVMValueRef g = LLVMAddGlobal(f->mod, t, "zero_row");
    LLVMSetInitializer(g, LLVMConstNull(t));
    LLVMSetLinkage(g, LLVMInternalLinkage);
    LLVMSetAlignment(g, 64);
    return g;
}

/* i_r, and whether row r lies in A. */
static LLVMValueRef row_index(const Panel *p, int r, LLVMValueRef *inside)
{
    const Fn *f = p->f;
    LLVMValueRef num = LLVMBuildAdd(f->b, as_scalar(p->e, p->c.row0), ll_i64(f, r * p->c.a_row_step), "");
    LLVMValueRef i = num, on = NULL;
    if (p->c.a_div > 1) {
        i = LLVMBuildSDiv(f->b, num, ll_i64(f, p->c.a_div), "");
        LLVMValueRef back = LLVMBuildMul(f->b, i, ll_i64(f, p->c.a_div), "");
        on = LLVMBuildICmp(f->b, LLVMIntEQ, back, num, "");
    }
    if (p->c.a_ext > 0) { /* unsigned: below 0 is above, too */
        LLVMValueRef in = LLVMBuildICmp(f->b, LLVMIntULT, i, ll_i64(f, p->c.a_ext), "");
        on = on ? LLVMBuildAnd(f->b, on, in, "") : in;
    }
    *inside = on;
    return i;
}

static LLVMValueRef row_start(const Panel *p, LLVMValueRef i)
{
    const Fn *f = p->f;
    LLVMValueRef off = LLVMBuildAdd(f->b, as_scalar(p->e, p->c.a_off), LLVMBuildMul(f->b, i, ll_i64(f, p->c.a_row_stride), ""), "");
    return element_ptr(f, memory_type(f, p->a_type), p->e->buf[p->c.a], off);
}

static void rows_apart(Panel *p)
{
    LLVMValueRef on;
    p->apart = true;
    p->row[0] = row_start(p, row_index(p, 0, &on));
}

/* Rows that are not to be used read the last one that is. */
static void rows_clamped(Panel *p, LLVMValueRef rows)
{
    const Fn *f = p->f;
    LLVMValueRef on, first = row_start(p, row_index(p, 0, &on)), last = LLVMBuildSub(f->b, rows, ll_i64(f, 1), "");
    p->apart = false;
    for (int r = 0; r < p->rows; r++) {
        LLVMValueRef i = ll_call2(f, "llvm.smin", ll_i64(f, r), last);
        i = LLVMBuildMul(f->b, i, ll_i64(f, p->c.a_row_step * p->c.a_row_stride), "");
        p->row[r] = element_ptr(f, memory_type(f, p->a_type), first, i);
    }
}

/* Rows outside of A read zeros. Returns whether any is inside. */
static LLVMValueRef rows_checked(Panel *p, LLVMValueRef rows)
{
    const Fn *f = p->f;
    int64_t k, reach = -1;
    if (emit_const_i64(p->e->k, p->c.k, &k) && k < MAX_ZERO_ROW)
        reach = (k - 1) * p->c.a_k_stride + 1;
    bool long_zero = reach > 0 && reach <= MAX_ZERO_ROW;
    LLVMValueRef zero = zero_row(f, long_zero ? reach + 1 : 1), any = LLVMConstInt(f->i1, 0, false);
    p->apart = false;
    for (int r = 0; r < p->rows; r++) {
        LLVMValueRef on, start = row_start(p, row_index(p, r, &on));
        if (!LLVMIsAConstantInt(rows))
            on = LLVMBuildAnd(f->b, on, LLVMBuildICmp(f->b, LLVMIntSGT, rows, ll_i64(f, r), ""), "");
        p->row[r] = ll_select(f, on, start, zero);
        p->step[r] = long_zero ? NULL : LLVMBuildSExt(f->b, on, f->i64, "");
        any = LLVMBuildOr(f->b, any, on, "");
    }
    return any;
}

static void when(const Panel *p, LLVMValueRef cond, LLVMBasicBlockRef *then, LLVMBasicBlockRef *other)
{
    *then = ll_block(p->f, "then");
    *other = ll_block(p->f, "else");
    LLVMBuildCondBr(p->f->b, cond, *then, *other);
    ll_enter(p->f, *then);
}

static void contract_unchecked(Panel *p, LLVMValueRef rows)
{
    const Fn *f = p->f;
    if (LLVMIsAConstantInt(rows)) {
        rows_apart(p);
        loop_k(p);
        return;
    }
    LLVMBasicBlockRef then, other, some, done = ll_block(f, "contracted");
    when(p, LLVMBuildICmp(f->b, LLVMIntSGE, rows, ll_i64(f, p->rows), ""), &then, &other);
    rows_apart(p);
    loop_k(p);
    LLVMBuildBr(f->b, done);
    ll_enter(f, other);
    some = ll_block(f, "some");
    LLVMBuildCondBr(f->b, LLVMBuildICmp(f->b, LLVMIntSGT, rows, ll_i64(f, 0), ""), some, done);
    ll_enter(f, some);
    rows_clamped(p, rows);
    loop_k(p);
    LLVMBuildBr(f->b, done);
    ll_enter(f, done);
}

static void contract_checked(Panel *p, LLVMValueRef rows)
{
    LLVMBasicBlockRef then, done;
    when(p, rows_checked(p, rows), &then, &done);
    loop_k(p);
    LLVMBuildBr(p->f->b, done);
    ll_enter(p->f, done);
}

static void find_columns(Panel *p)
{
    const Fn *f = p->f;
    int64_t known;
    if (!p->c.cols || p->c.b_packed || (emit_const_i64(p->e->k, p->c.cols, &known) && known >= p->t->nr))
        return;
    LLVMValueRef id[64], cols = LLVMBuildTrunc(f->b, as_scalar(p->e, p->c.cols), f->i32, "");
    for (int c = 0; c < p->t->vecs; c++) {
        for (int i = 0; i < p->t->lanes; i++)
            id[i] = LLVMConstInt(f->i32, (unsigned)(c * p->t->lanes + i), false);
        LLVMValueRef lane = LLVMConstVector(id, (unsigned)p->t->lanes);
        p->col_on[c] = LLVMBuildICmp(f->b, LLVMIntSLT, lane, ll_splat(f, cols, p->t->lanes), "");
    }
}

void emit_tile_contract(Emit *e, Val v)
{
    const Fn *f = &e->f;
    Panel p = {.e = e, .f = f, .c = k_tile_contract_of(e->k, v)};
    p.t = e->tile[p.c.tile];
    p.a_type = (DavDtype)node_of(e->k, p.c.a)->dtype;
    p.b_type = (DavDtype)node_of(e->k, p.c.b)->dtype;
    p.rows = p.t->mr;
    LLVMValueRef rows = as_scalar(e, p.c.rows);
    if (LLVMIsAConstantInt(rows)) {
        int64_t n = LLVMConstIntGetSExtValue(rows);
        p.rows = n < p.t->mr ? (int)n : p.t->mr;
    }
    if (p.rows <= 0)
        return;
    if (e->vector_loop || p.c.b_col_stride != 1 || p.c.a_div < 1)
        die("kernel %s: tile_contract %%%d breaks the rules of ir/kernel.h", e->k->name, v);
    LLVMTypeRef panel = pairs_packed(&p) ? f->i16 : memory_type(f, p.b_type);
    p.b = element_ptr(f, panel, e->buf[p.c.b], as_scalar(e, p.c.b_off));
    find_columns(&p);
    if (p.c.a_ext > 0 || p.c.a_div > 1)
        contract_checked(&p, rows);
    else
        contract_unchecked(&p, rows);
}
