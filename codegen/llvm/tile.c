/* Register tiles.  The accumulators are variables that mem2reg turns into phis, through every loop around them; in a step of k
 * each row's element of A is broadcast and used in all columns before the next row's, the order that keeps it all in
 * registers. */
#include "codegen/llvm/tile.h"

/* Zeros that a row outside of A reads instead of a row; longer reaches step by 0 there. */
enum { MAX_ZERO_ROW = 1 << 14, MAX_PREFETCH = 1024 /* bytes of a row */, PREFETCH_STEPS = 16 };

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
        LLVMTypeRef vec = LLVMVectorType(e->f.f32, (unsigned)t->lanes);
        if (amx_takes(e, v, t)) { /* whole registers, whatever mr */
            t->memory = emit_variable(e, LLVMArrayType2(vec, (uint64_t)(16 * t->vecs)), "tile");
            t->first = amx_first(e, v);
        } else {
            for (int r = 0; r < t->mr; r++)
                for (int c = 0; c < t->vecs; c++)
                    t->acc[r][c] = emit_variable(e, vec, "tile");
        }
    }
    for (int r = 0; r < t->mr && !t->first; r++)
        for (int c = 0; c < t->vecs; c++)
            LLVMBuildStore(e->f.b, LLVMConstNull(LLVMVectorType(e->f.f32, (unsigned)t->lanes)), tile_slot(&e->f, t, r, c));
}

LLVMValueRef tile_slot(const Fn *f, const Tile *t, int r, int c)
{
    LLVMTypeRef vec = LLVMVectorType(f->f32, (unsigned)t->lanes);
    return t->memory ? element_ptr(f, vec, t->memory, ll_i64(f, r * t->vecs + c)) : t->acc[r][c];
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
    e->val[v] = (Lane){.v = LLVMBuildLoad2(e->f.b, vec, tile_slot(&e->f, t, (int)r, e->chunk), ""), .varying = true};
}

/* ---- one step of k ---- */
static LLVMTypeRef lanes_of_type(const Panel *p, LLVMTypeRef elem, int times)
{
    return LLVMVectorType(elem, (unsigned)(p->t->lanes * times));
}

LLVMValueRef panel_a(const Panel *p, int r, LLVMValueRef k)
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

/* Words that are pairs of bf16: their k is the pair's. */
static bool words(const Panel *p)
{
    return p->a_type == DAV_U32;
}

/* Half of such words widened to f32. */
static LLVMValueRef half_of(const Fn *f, LLVMValueRef w, int half)
{
    LLVMTypeRef t = LLVMTypeOf(w);
    w = half ? LLVMBuildAnd(f->b, w, ll_int(t, -0x10000), "") : LLVMBuildShl(f->b, w, ll_int(t, 16), "");
    return LLVMBuildBitCast(f->b, w, ll_like(f, f->f32, w), "");
}

static LLVMValueRef a_element(const Panel *p, int r, LLVMValueRef k)
{
    unsigned align = (unsigned)dav_dtype_size(p->a_type);
    LLVMValueRef x = load_masked(p->f, memory_type(p->f, p->a_type), panel_a(p, r, k), NULL, align);
    return ll_splat(p->f, widen_memory(p->f, p->a_type, x), p->t->lanes);
}

static void prefetch(const Fn *f, LLVMValueRef at, int locality)
{
    LLVMValueRef arg[4] = {at, LLVMConstInt(f->i32, 0, false), LLVMConstInt(f->i32, (unsigned)locality, false),
                           LLVMConstInt(f->i32, 1, false)};
    ll_intrinsic(f, "llvm.prefetch", (LLVMTypeRef[]){f->ptr}, 1, arg, 4);
}

static LLVMValueRef b_ptr(const Panel *p, int c, LLVMValueRef k)
{
    const Fn *f = p->f;
    LLVMTypeRef elem = memory_type(f, p->b_type);
    LLVMValueRef off = LLVMBuildMul(f->b, k, ll_i64(f, p->c.b_packed ? p->t->nr : p->c.b_k_stride), "");
    return element_ptr(f, elem, element_ptr(f, elem, p->b, off), ll_i64(f, (int64_t)c * p->t->lanes));
}

static LLVMValueRef b_load(const Panel *p, int c, LLVMValueRef k, int vectors)
{
    const Fn *f = p->f;
    LLVMTypeRef elem = memory_type(f, p->b_type);
    LLVMValueRef at = b_ptr(p, c, k);
    return load_masked(f, lanes_of_type(p, elem, vectors), at, p->col_on[c], (unsigned)dav_dtype_size(p->b_type));
}

/* Columns of a packed bf16 panel by pairs of k, as words: k even in the low half. */
static LLVMValueRef b_pair(const Panel *p, int c, LLVMValueRef pair)
{
    const Fn *f = p->f;
    if (words(p))
        return b_load(p, c, pair, 1);
    LLVMValueRef off = LLVMBuildMul(f->b, pair, ll_i64(f, p->t->nr), "");
    LLVMValueRef at = element_ptr(f, f->i32, element_ptr(f, f->i32, p->b, off), ll_i64(f, (int64_t)c * p->t->lanes));
    return load_masked(f, lanes_of_type(p, f->i32, 1), at, NULL, 2);
}

static bool pairs_packed(const Panel *p)
{
    return words(p) || (p->b_type == DAV_BF16 && p->c.b_packed);
}

static void accumulate(const Panel *p, int r, int c, LLVMValueRef a, LLVMValueRef b)
{
    const Fn *f = p->f;
    LLVMValueRef old = LLVMBuildLoad2(f->b, lanes_of_type(p, f->f32, 1), p->t->acc[r][c], "");
    LLVMBuildStore(f->b, ll_fma(f, a, b, old), p->t->acc[r][c]);
}

static void step_rows(const Panel *p, LLVMValueRef k, const LLVMValueRef *b, int half)
{
    for (int r = 0; r < p->rows; r++) {
        LLVMValueRef a = a_element(p, r, k);
        if (words(p))
            a = half_of(p->f, a, half);
        for (int c = 0; c < p->t->vecs; c++)
            accumulate(p, r, c, a, b[c]);
    }
}

static void step_one(const Panel *p, LLVMValueRef k)
{
    LLVMValueRef b[MAX_TILE_VECS];
    for (int c = 0; c < p->t->vecs; c++)
        b[c] = widen_memory(p->f, p->b_type, b_load(p, c, k, 1));
    step_rows(p, k, b, 0);
}

/* Half of a packed pair widened to f32. */
static void step_half(const Panel *p, LLVMValueRef pair, int half)
{
    const Fn *f = p->f;
    LLVMValueRef b[MAX_TILE_VECS];
    for (int c = 0; c < p->t->vecs; c++)
        b[c] = half_of(f, b_pair(p, c, pair), half);
    LLVMValueRef k = LLVMBuildAdd(f->b, LLVMBuildMul(f->b, pair, ll_i64(f, 2), ""), ll_i64(f, half), "");
    step_rows(p, words(p) ? pair : k, b, half);
}

/* ---- AVX512-BF16: pairs of k in one instruction ---- */
static LLVMValueRef a_word(const Panel *p, int r, LLVMValueRef k, bool last)
{
    const Fn *f = p->f;
    LLVMValueRef w;
    if (p->c.a_k_stride == 1 && !last) {
        w = load_masked(f, f->i32, panel_a(p, r, k), NULL, 2);
    } else {
        w = LLVMBuildZExt(f->b, load_masked(f, f->i16, panel_a(p, r, k), NULL, 2), f->i32, "");
        if (!last) {
            LLVMValueRef next = panel_a(p, r, LLVMBuildAdd(f->b, k, ll_i64(f, 1), ""));
            next = LLVMBuildZExt(f->b, load_masked(f, f->i16, next, NULL, 2), f->i32, "");
            w = LLVMBuildOr(f->b, w, LLVMBuildShl(f->b, next, LLVMConstInt(f->i32, 16, false), ""), "");
        }
    }
    return ll_splat(f, w, p->t->lanes);
}

/* Words of x[i], y[i] in turn, for n of them from `from` on. */
static LLVMValueRef interleave(const Panel *p, LLVMValueRef even, LLVMValueRef odd, int from, int n)
{
    int index[128], count = ll_lanes(even);
    for (int i = 0; i < n; i++) {
        index[2 * i] = from + i;
        index[2 * i + 1] = count + from + i;
    }
    return ll_shuffle(p->f, even, odd, index, 2 * n);
}

static LLVMValueRef next_k(const Panel *p, LLVMValueRef k)
{
    return LLVMBuildAdd(p->f->b, k, ll_i64(p->f, 1), "");
}

/* An unpacked panel's two rows of k, interleaved; two vectors at a time where none is cut off, which costs one shuffle each. */
static void b_dot(const Panel *p, LLVMValueRef k, bool last, LLVMValueRef *b)
{
    const Fn *f = p->f;
    int n = p->t->lanes;
    for (int c = 0; c < p->t->vecs;) {
        int wide = c + 1 < p->t->vecs && !p->col_on[c] && n == 16 ? 2 : 1;
        LLVMTypeRef t = lanes_of_type(p, f->i16, wide);
        LLVMValueRef x[2];
        for (int odd = 0; odd < 2; odd++)
            x[odd] = odd && last ? LLVMConstNull(t) : b_load(p, c, odd ? next_k(p, k) : k, wide);
        for (int i = 0; i < wide; i++)
            b[c++] = interleave(p, x[0], x[1], i * n, n);
    }
}

/* Rows that lie next to each other: both steps of k are read as vectors, interleaved and put into a ring in memory, from where
 * each row's pair is broadcast some turns later: at once would wait for the store to leave the core. */
enum { RING = 8, RING_AHEAD = 4 };

static bool rows_touch(const Panel *p)
{
    return p->apart && !words(p) && p->c.a_k_stride != 1 && p->c.a_row_step * p->c.a_row_stride == 1 && p->t->lanes == 16 && p->rows <= 16 &&
           p->rows >= 4;
}

static LLVMValueRef ring_slot(const Panel *p, LLVMValueRef pair)
{
    const Fn *f = p->f;
    return element_ptr(f, LLVMVectorType(f->i16, 32), p->ring, LLVMBuildAnd(f->b, pair, ll_i64(f, RING - 1), ""));
}

static void ring_put(const Panel *p, LLVMValueRef pair, LLVMValueRef slot, bool last)
{
    const Fn *f = p->f;
    LLVMTypeRef t = LLVMVectorType(f->i16, 16);
    LLVMValueRef x[2], on[16], k = LLVMBuildMul(f->b, pair, ll_i64(f, 2), "");
    for (int r = 0; r < 16; r++)
        on[r] = LLVMConstInt(f->i1, r < p->rows, false);
    for (int odd = 0; odd < 2; odd++)
        x[odd] = odd && last ? LLVMConstNull(t) : load_masked(f, t, panel_a(p, 0, odd ? next_k(p, k) : k), LLVMConstVector(on, 16), 2);
    LLVMBuildStore(f->b, interleave(p, x[0], x[1], 0, 16), ring_slot(p, slot));
}

/* Puts the pair that is needed `ahead` turns from now, or again the last one. */
static void ring_fill(const Panel *p, LLVMValueRef pair, int ahead, LLVMValueRef pairs)
{
    const Fn *f = p->f;
    LLVMValueRef slot = LLVMBuildAdd(f->b, pair, ll_i64(f, ahead), "");
    LLVMValueRef from = ll_call2(f, "llvm.smin", slot, LLVMBuildSub(f->b, pairs, ll_i64(f, 1), ""));
    ring_put(p, from, slot, false);
}

static void step_dot(const Panel *p, LLVMValueRef pair, bool last)
{
    const Fn *f = p->f;
    LLVMTypeRef halves = lanes_of_type(p, LLVMBFloatTypeInContext(f->cx), 2);
    LLVMValueRef b[MAX_TILE_VECS], k = LLVMBuildMul(f->b, pair, ll_i64(f, 2), "");
    LLVMValueRef rows = NULL;
    if (p->ring) {
        if (last)
            ring_put(p, pair, pair, true);
        rows = ring_slot(p, pair);
    }
    if (pairs_packed(p))
        for (int c = 0; c < p->t->vecs; c++)
            b[c] = b_pair(p, c, pair);
    else
        b_dot(p, k, last, b);
    for (int c = 0; c < p->t->vecs; c++)
        b[c] = LLVMBuildBitCast(f->b, b[c], halves, "");
    const char *name = p->t->lanes == 16 ? "llvm.x86.avx512bf16.dpbf16ps.512"
                       : p->t->lanes == 8 ? "llvm.x86.avx512bf16.dpbf16ps.256" : "llvm.x86.avx512bf16.dpbf16ps.128";
    for (int r = 0; r < p->rows; r++) {
        LLVMValueRef a = rows ? ll_splat(f, load_masked(f, f->i32, element_ptr(f, f->i32, rows, ll_i64(f, r)), NULL, 4), p->t->lanes)
                    : words(p) ? a_element(p, r, pair) : a_word(p, r, k, last);
        a = LLVMBuildBitCast(f->b, a, halves, "");
        for (int c = 0; c < p->t->vecs; c++) {
            LLVMValueRef old = LLVMBuildLoad2(f->b, lanes_of_type(p, f->f32, 1), p->t->acc[r][c], "");
            LLVMBuildStore(f->b, ll_intrinsic(f, name, NULL, 0, (LLVMValueRef[]){old, a, b[c]}, 3), p->t->acc[r][c]);
        }
    }
}

/* ---- the loop over k ---- */
/* Where a step of k goes to another line, the lines of later steps start to travel; a prefetch cannot fault. */
static void prefetch_steps(const Panel *p, LLVMValueRef k)
{
    const Fn *f = p->f;
    int64_t a_step = p->c.a_k_stride * (int64_t)dav_dtype_size(p->a_type), b_size = (int64_t)dav_dtype_size(p->b_type);
    LLVMValueRef later = LLVMBuildAdd(f->b, k, ll_i64(f, PREFETCH_STEPS), "");
    if (p->apart && a_step >= 128) { /* rows that lie next to each other may share two lines */
        prefetch(f, panel_a(p, 0, later), 3);
        prefetch(f, panel_a(p, p->rows - 1, later), 3);
    }
    if (!p->c.b_packed && p->c.b_k_stride * b_size >= 128 && p->c.b_k_stride > p->t->nr) /* else the rows are one stream */
        for (int64_t at = 0; at < p->t->nr * b_size; at += 64)
            prefetch(f, element_ptr(f, f->i8, b_ptr(p, 0, later), ll_i64(f, at)), 3);
}

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

static void loop_pairs(Panel *p, LLVMValueRef k, bool dot)
{
    const Fn *f = p->f;
    LLVMValueRef pairs = LLVMBuildLShr(f->b, k, ll_i64(f, 1), ""), odd = LLVMBuildAnd(f->b, k, ll_i64(f, 1), "");
    p->ring = dot && rows_touch(p) ? emit_variable(p->e, LLVMArrayType2(LLVMVectorType(f->i16, 32), RING), "ring") : NULL;
    LLVMBasicBlockRef done = ll_if(f, LLVMBuildICmp(f->b, LLVMIntSGT, pairs, ll_i64(f, 0), ""));
    for (int i = 0; p->ring && i < RING_AHEAD; i++)
        ring_fill(p, ll_i64(f, 0), i, pairs);
    Loop l = ll_loop(f, ll_i64(f, 0), pairs, 1);
    if (p->ring)
        ring_fill(p, l.iv, RING_AHEAD, pairs);
    LLVMValueRef first = words(p) ? l.iv : LLVMBuildMul(f->b, l.iv, ll_i64(f, 2), "");
    prefetch_steps(p, first);
    if (!words(p))
        prefetch_steps(p, next_k(p, first));
    step_pair(p, l.iv, dot);
    ll_loop_end(f, &l);
    ll_endif(f, done);
    if (words(p))
        return;
    done = ll_if(f, LLVMBuildICmp(f->b, LLVMIntNE, odd, ll_i64(f, 0), ""));
    last_half(p, pairs, dot);
    ll_endif(f, done);
}

static void loop_k(Panel *p)
{
    const Fn *f = p->f;
    if (p->t->memory) {
        amx_product(p, p->t->first == p->contract);
        return;
    }
    LLVMValueRef k = as_scalar(p->e, p->c.k);
    bool dot = f->target->avx512_bf16 && p->a_type == p->b_type && (words(p) || p->a_type == DAV_BF16);
    if (dot || pairs_packed(p)) {
        loop_pairs(p, k, dot);
        return;
    }
    Loop l = ll_loop(f, ll_i64(f, 0), k, 1);
    prefetch_steps(p, l.iv);
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
    if (kernel_const_i64(p->e->k, p->c.k, &k) && k < MAX_ZERO_ROW)
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

/* Rows of the tile that is likely to come next start to travel while this one is multiplied; a prefetch cannot fault. */
static void prefetch_rows(const Panel *p)
{
    const Fn *f = p->f;
    int64_t k, size = (int64_t)dav_dtype_size(p->a_type);
    if (p->t->memory || p->c.a_k_stride != 1 || p->c.a_div != 1 || !kernel_const_i64(p->e->k, p->c.k, &k) || k * size > MAX_PREFETCH)
        return;
    LLVMValueRef on, first = row_start(p, row_index(p, 0, &on));
    for (int64_t at = 0; at < k * size; at += 64)
        for (int r = 0; r < p->rows; r++) {
            int64_t ahead = (p->rows + r) * p->c.a_row_step * p->c.a_row_stride * size + at;
            prefetch(f, element_ptr(f, f->i8, first, ll_i64(f, ahead)), 2);
        }
}

static void contract_unchecked(Panel *p, LLVMValueRef rows)
{
    const Fn *f = p->f;
    if (LLVMIsAConstantInt(rows)) {
        rows_apart(p);
        prefetch_rows(p);
        loop_k(p);
        return;
    }
    LLVMBasicBlockRef done = ll_if(f, LLVMBuildICmp(f->b, LLVMIntSGE, rows, ll_i64(f, p->rows), ""));
    rows_apart(p);
    loop_k(p);
    ll_endif(f, done);
    LLVMValueRef some = LLVMBuildICmp(f->b, LLVMIntSGT, rows, ll_i64(f, 0), "");
    LLVMValueRef fewer = LLVMBuildICmp(f->b, LLVMIntSLT, rows, ll_i64(f, p->rows), "");
    done = ll_if(f, LLVMBuildAnd(f->b, some, fewer, ""));
    rows_clamped(p, rows);
    loop_k(p);
    ll_endif(f, done);
}

static void contract_checked(Panel *p, LLVMValueRef rows)
{
    LLVMBasicBlockRef done = ll_if(p->f, rows_checked(p, rows));
    prefetch_rows(p);
    loop_k(p);
    ll_endif(p->f, done);
}

static void find_columns(Panel *p)
{
    const Fn *f = p->f;
    int64_t known;
    if (!p->c.cols || p->c.b_packed || (kernel_const_i64(p->e->k, p->c.cols, &known) && known >= p->t->nr))
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
    Panel p = {.e = e, .f = f, .contract = v, .c = k_tile_contract_of(e->k, v)};
    p.t = e->tile[p.c.tile];
    p.a_type = (DavDtype)node_of(e->k, p.c.a)->dtype;
    p.b_type = (DavDtype)node_of(e->k, p.c.b)->dtype;
    if (p.a_type == DAV_BF16 && p.b_type == DAV_U32 && p.c.b_packed)
        p.b_type = DAV_BF16;
    p.rows = p.t->mr;
    LLVMValueRef rows = as_scalar(e, p.c.rows);
    if (LLVMIsAConstantInt(rows)) {
        int64_t n = LLVMConstIntGetSExtValue(rows);
        p.rows = n < p.t->mr ? (int)n : p.t->mr;
    }
    if (p.rows <= 0)
        return;
    if (e->vector_loop || p.c.b_col_stride != 1 || p.c.a_div < 1 || words(&p) != (p.b_type == DAV_U32))
        die("kernel %s: tile_contract %%%d breaks the rules of ir/kernel.h", e->k->name, v);
    bool as_words = p.b_type != (DavDtype)node_of(e->k, p.c.b)->dtype; /* the offset counts them */
    LLVMTypeRef panel = as_words ? f->i32 : p.c.b_packed && p.b_type == DAV_BF16 ? f->i16 : memory_type(f, p.b_type);
    p.b = element_ptr(f, panel, e->buf[p.c.b], as_scalar(e, p.c.b_off));
    find_columns(&p);
    if (p.c.a_ext > 0 || p.c.a_div > 1)
        contract_checked(&p, rows);
    else
        contract_unchecked(&p, rows);
}
