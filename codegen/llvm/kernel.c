/* A kernel's walk: loops, conditions, and every instruction handed to its emitter. */
#include "codegen/llvm/emit.h"
#include "ir/build.h"
#include <string.h>

static LoopKind kind_of(const Emit *e, Val loop)
{
    return (LoopKind)attr_i(node_of(e->k, loop), A_KIND);
}

typedef struct Bounds { LLVMValueRef lo, hi; bool fixed; int64_t from, to, step; } Bounds;

static Bounds bounds_of(Emit *e, Val loop)
{
    const Node *n = node_of(e->k, loop);
    const int64_t *nums = attr_ints(n, A_NUMS, NULL);
    Bounds b = {.step = nums[2], .from = nums[0], .to = nums[1], .fixed = true};
    if (n->narg) {
        b.lo = as_scalar(e, n->arg[0]);
        b.hi = as_scalar(e, n->arg[1]);
        b.fixed = kernel_const_i64(e->k, n->arg[0], &b.from) && kernel_const_i64(e->k, n->arg[1], &b.to);
    } else {
        b.lo = ll_i64(&e->f, b.from);
        b.hi = ll_i64(&e->f, b.to);
    }
    return b;
}

static void body_at(Emit *e, Val loop, LLVMValueRef iv, int64_t stride)
{
    e->val[loop] = (Lane){.v = iv, .stride = stride};
    emit_range(e, loop + 1, e->end[loop]);
}

/* ---- serial, unroll, row ---- */
static void emit_serial(Emit *e, Val loop, Bounds b)
{
    if (b.fixed && b.from >= b.to)
        return;
    if (b.fixed && b.from + b.step >= b.to) {
        body_at(e, loop, b.lo, 0);
        return;
    }
    Loop l = ll_loop(&e->f, b.lo, b.hi, b.step);
    body_at(e, loop, l.iv, 0);
    ll_loop_end(&e->f, &l);
}

/* The tile that a row or vector loop walks: arg 1 (row) or 2 (column) of a tile_get is its variable. */
static const Tile *walked_tile(const Emit *e, Val loop, int arg)
{
    for (Val v = loop + 1; v < e->end[loop]; v++) {
        const Node *n = node_of(e->k, v);
        if (n->op == OP_TILE_GET && n->arg[arg] == loop)
            return e->tile[n->arg[0]];
    }
    return NULL;
}

static void body_if(Emit *e, Val loop, int64_t i, LLVMValueRef cond)
{
    LLVMBasicBlockRef next = ll_if(&e->f, cond);
    body_at(e, loop, ll_i64(&e->f, i), 0);
    ll_endif(&e->f, next);
}

static void emit_unrolled(Emit *e, Val loop, Bounds b)
{
    const Tile *t = kind_of(e, loop) == LOOP_ROW ? walked_tile(e, loop, 1) : NULL;
    if (!b.fixed && !t) {
        emit_serial(e, loop, b);
        return;
    }
    int64_t from = b.fixed ? b.from : 0, to = b.fixed ? b.to : t->mr;
    for (int64_t i = from; i < to; i += b.step) {
        if (b.fixed) {
            body_at(e, loop, ll_i64(&e->f, i), 0);
            continue;
        }
        LLVMValueRef iv = ll_i64(&e->f, i);
        LLVMValueRef in = LLVMBuildICmp(e->f.b, LLVMIntSLT, iv, b.hi, "");
        LLVMValueRef after = LLVMBuildICmp(e->f.b, LLVMIntSGE, iv, b.lo, "");
        body_if(e, loop, i, LLVMBuildAnd(e->f.b, in, after, ""));
    }
}

/* ---- vector ---- */
typedef struct Vector {
    Val loop;
    Val *joined; /* accumulators from outside that the body updates */
    int njoined, parts;
} Vector;

static void find_joined(Emit *e, Vector *w)
{
    w->joined = arena_array(e->arena, Val, e->end[w->loop] - w->loop);
    for (Val v = w->loop + 1; v < e->end[w->loop]; v++) {
        const Node *n = node_of(e->k, v);
        if (n->op != OP_ACC_UPDATE || n->arg[0] > w->loop)
            continue;
        bool seen = false;
        for (int i = 0; i < w->njoined; i++)
            seen |= w->joined[i] == n->arg[0];
        if (!seen)
            w->joined[w->njoined++] = n->arg[0];
    }
}

/* More independent partial sums where the body is short enough for an addition's latency to show. */
static int choose_parts(const Emit *e, const Vector *w, const Bounds *b)
{
    int size = e->end[w->loop] - w->loop;
    int64_t trips = b->fixed ? (b->to - b->from) / e->f.width : INT64_MAX;
    if (!w->njoined)
        return 1;
    for (Val v = w->loop + 1; v < e->end[w->loop]; v++)
        if (node_of(e->k, v)->op == OP_FOR)
            return 1;
    int parts = size <= 24 ? 4 : size <= 48 ? 2 : 1;
    while (parts > 1 && parts > trips)
        parts /= 2;
    return parts;
}

static void vector_body(Emit *e, const Vector *w, LLVMValueRef iv, int parts)
{
    for (int i = 0; i < parts; i++) {
        e->part = i;
        body_at(e, w->loop, i ? LLVMBuildAdd(e->f.b, iv, ll_i64(&e->f, i * e->f.width), "") : iv, 1);
    }
    e->part = 0;
}

static void vector_steps(Emit *e, const Vector *w, LLVMValueRef lo, LLVMValueRef hi, int parts)
{
    Loop l = ll_loop(&e->f, lo, hi, (int64_t)parts * e->f.width);
    vector_body(e, w, l.iv, parts);
    ll_loop_end(&e->f, &l);
}

static void vector_tail(Emit *e, const Vector *w, LLVMValueRef iv, LLVMValueRef count)
{
    const Fn *f = &e->f;
    LLVMValueRef n = ll_splat(f, LLVMBuildTrunc(f->b, count, f->i32, ""), f->width);
    e->mask = LLVMBuildICmp(f->b, LLVMIntSLT, ll_lane_ids(f, f->i32, 1), n, "");
    vector_body(e, w, iv, 1);
    e->mask = NULL;
}

static void vector_fixed(Emit *e, const Vector *w, const Bounds *b)
{
    int64_t width = e->f.width, at = b->from, n = b->to > b->from ? b->to - b->from : 0;
    for (int parts = w->parts; parts >= 1; parts /= 2) {
        int64_t span = parts * width, trips = (b->to - at) / span;
        if (n <= 0 || trips <= 0)
            continue;
        if (trips == 1)
            vector_body(e, w, ll_i64(&e->f, at), parts);
        else
            vector_steps(e, w, ll_i64(&e->f, at), ll_i64(&e->f, at + trips * span), parts);
        at += trips * span;
    }
    if (at < b->to)
        vector_tail(e, w, ll_i64(&e->f, at), ll_i64(&e->f, b->to - at));
}

static void vector_dynamic(Emit *e, const Vector *w, const Bounds *b)
{
    const Fn *f = &e->f;
    LLVMValueRef at = b->lo;
    for (int parts = w->parts; parts >= 1; parts /= parts > 1 ? parts : 2) { /* all parts, then one at a time */
        int64_t span = (int64_t)parts * f->width;
        LLVMValueRef n = LLVMBuildSub(f->b, b->hi, at, "");
        n = ll_call2(f, "llvm.smax", n, ll_i64(f, 0));
        n = LLVMBuildAnd(f->b, n, ll_i64(f, -span), "");
        LLVMValueRef stop = LLVMBuildAdd(f->b, at, n, "");
        vector_steps(e, w, at, stop, parts);
        at = stop;
    }
    LLVMBasicBlockRef done = ll_if(f, LLVMBuildICmp(f->b, LLVMIntSLT, at, b->hi, ""));
    vector_tail(e, w, at, LLVMBuildSub(f->b, b->hi, at, ""));
    ll_endif(f, done);
}

/* Columns of a register tile: unrolled, since registers have no index. */
static void vector_tile(Emit *e, const Vector *w, const Bounds *b, const Tile *t)
{
    const Fn *f = &e->f;
    for (int c = 0; c < t->vecs; c++) {
        int64_t at = (int64_t)c * t->lanes;
        e->chunk = c;
        if (b->fixed && at >= b->to)
            break;
        LLVMValueRef iv = ll_i64(f, at);
        if (b->fixed && at + t->lanes <= b->to)
            vector_body(e, w, iv, 1);
        else
            vector_tail(e, w, iv, LLVMBuildSub(f->b, b->hi, iv, ""));
    }
    e->chunk = -1;
}

static void emit_vector(Emit *e, Val loop, Bounds b)
{
    int width = e->f.width;
    const Tile *t = walked_tile(e, loop, 2);
    Vector w = {.loop = loop};
    e->vector_loop = loop;
    e->f.width = t ? t->lanes : e->f.target->vector_bytes / 4;
    find_joined(e, &w);
    w.parts = t ? 1 : choose_parts(e, &w, &b);
    for (int i = 0; i < w.njoined; i++)
        acc_parts_open(e, w.joined[i], w.parts);
    if (t)
        vector_tile(e, &w, &b, t);
    else if (b.fixed)
        vector_fixed(e, &w, &b);
    else
        vector_dynamic(e, &w, &b);
    for (int i = 0; i < w.njoined; i++)
        acc_parts_close(e, w.joined[i], w.parts);
    e->f.width = width;
    e->vector_loop = 0;
}

/* ---- all of them ---- */
static void emit_for(Emit *e, Val loop)
{
    Bounds b = bounds_of(e, loop);
    switch (kind_of(e, loop)) {
    case LOOP_PARALLEL:
    case LOOP_SERIAL:
        if (!emit_transposed(e, loop))
            emit_serial(e, loop, b);
        break;
    case LOOP_UNROLL:
        emit_unrolled(e, loop, b);
        break;
    case LOOP_ROW:
        if (!amx_store(e, loop))
            emit_unrolled(e, loop, b);
        break;
    case LOOP_VECTOR:
        emit_vector(e, loop, b);
        break;
    }
}

static void emit_if(Emit *e, Val v)
{
    LLVMBasicBlockRef done = ll_if(&e->f, as_scalar(e, node_of(e->k, v)->arg[0]));
    emit_range(e, v + 1, e->end[v]);
    ll_endif(&e->f, done);
}

static void emit_const(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    DavDtype t = (DavDtype)n->dtype;
    double x = attr_f(n, A_VALUE);
    LLVMTypeRef type = elem_type(e, v);
    LLVMValueRef c = dav_dtype_is_float(t) ? LLVMConstReal(type, float_round(t, x)) : ll_int(type, int_wrap(t, (int64_t)x));
    if (t == DAV_U32)
        c = ll_int(type, (int32_t)(uint32_t)int_wrap(t, (int64_t)x));
    e->val[v] = (Lane){.v = c};
}

typedef void (*Emitter)(Emit *, Val);
static const Emitter emitter[OP_COUNT] = {
    [OP_CONST] = emit_const, [OP_CAST] = emit_cast,   [OP_BITCAST] = emit_bitcast,
    [OP_LOAD] = emit_load,   [OP_STORE] = emit_store, [OP_ACC] = emit_acc,
    [OP_ACC_UPDATE] = emit_acc_update, [OP_ACC_GET] = emit_acc_get, [OP_PHILOX] = emit_philox,
    [OP_EXP2] = emit_exp2,
    [OP_TILE] = emit_tile,   [OP_TILE_CONTRACT] = emit_tile_contract, [OP_TILE_GET] = emit_tile_get,
};

void emit_range(Emit *e, Val from, Val to)
{
    for (Val v = from; v < to; v++) {
        const Node *n = node_of(e->k, v);
        if (n->op == OP_FOR || n->op == OP_IF) {
            n->op == OP_FOR ? emit_for(e, v) : emit_if(e, v);
            v = e->end[v];
        } else if (emitter[n->op]) {
            emitter[n->op](e, v);
        } else if (op_info[n->op].flags & OPF_ELEMENTWISE) {
            emit_elementwise(e, v);
        } else if (n->op != OP_BUF) {
            die("kernel %s: %s is not an instruction of kernels", e->k->name, op_info[n->op].text);
        }
    }
}

/* ---- functions ---- */
static void find_ends(Emit *e)
{
    for (Val v = 1; v < e->k->n; v++)
        if (node_of(e->k, v)->op == OP_END)
            e->end[node_of(e->k, v)->arg[0]] = v;
}

static void fn_attribute(const Fn *f, LLVMValueRef fn, const char *key, const char *value)
{
    LLVMAttributeRef a = LLVMCreateStringAttribute(f->cx, key, (unsigned)strlen(key), value, (unsigned)strlen(value));
    LLVMAddAttributeAtIndex(fn, (LLVMAttributeIndex)LLVMAttributeFunctionIndex, a);
}

static void enum_attribute(const Fn *f, LLVMValueRef fn, unsigned at, const char *name)
{
    unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
    LLVMAddAttributeAtIndex(fn, at, LLVMCreateEnumAttribute(f->cx, kind, 0));
}

static LLVMValueRef add_function(const Fn *f, const char *name, LLVMTypeRef *param, int n, LLVMTypeRef *type)
{
    *type = LLVMFunctionType(LLVMVoidTypeInContext(f->cx), param, (unsigned)n, false);
    LLVMValueRef fn = LLVMAddFunction(f->mod, name, *type);
    enum_attribute(f, fn, (unsigned)LLVMAttributeFunctionIndex, "nounwind");
    fn_attribute(f, fn, "no-builtins", "");
    if (f->target->avx512) { /* some CPUs' tuning would split vectors of 512 bits */
        fn_attribute(f, fn, "prefer-vector-width", "512");
        fn_attribute(f, fn, "min-legal-vector-width", "512");
    }
    return fn;
}

/* The body takes each buffer as a parameter of its own, so that LLVM may believe that outputs are nobody else's memory. */
static void emit_body(Emit *e, LLVMValueRef body, const Val *buf, int nbuf)
{
    Fn *f = &e->f;
    f->fn = body;
    for (int i = 0; i < nbuf; i++) {
        e->buf[buf[i]] = LLVMGetParam(body, (unsigned)i + 2);
        if (attr_i(node_of(e->k, buf[i]), A_ROLE) != BUF_IN)
            enum_attribute(f, body, (unsigned)i + 3, "noalias"); /* attribute index 0 is the result */
    }
    e->entry = ll_block(f, "entry");
    LLVMBasicBlockRef start = ll_block(f, "start");
    ll_enter(f, start);
    for (Val v = 1; v < e->k->n; v++) {
        const Node *n = node_of(e->k, v);
        if (n->op != OP_FOR || kind_of(e, v) != LOOP_PARALLEL) {
            if (n->op == OP_CONST)
                emit_const(e, v);
            else if (n->op != OP_BUF)
                emit_elementwise(e, v);
            continue;
        }
        const int64_t *nums = attr_ints(n, A_NUMS, NULL);
        Loop l = ll_loop(f, LLVMGetParam(body, 0), LLVMGetParam(body, 1), 1);
        LLVMValueRef iv = LLVMBuildMul(f->b, l.iv, ll_i64(f, nums[2]), "");
        body_at(e, v, LLVMBuildAdd(f->b, iv, ll_i64(f, nums[0]), ""), 0);
        ll_loop_end(f, &l);
        v = e->end[v];
    }
    amx_end(e);
    LLVMBuildRetVoid(f->b);
    ll_enter(f, e->entry);
    amx_begin(e);
    LLVMBuildBr(f->b, start);
}

static void emit_wrapper(Emit *e, const char *symbol, LLVMValueRef body, LLVMTypeRef body_type, const Val *buf, int nbuf)
{
    Fn *f = &e->f;
    LLVMTypeRef type, param[4] = {f->ptr, f->i64, f->i64, f->ptr};
    f->fn = add_function(f, symbol, param, 4, &type);
    ll_enter(f, ll_block(f, "entry"));
    int64_t *offset = arena_array(e->arena, int64_t, e->k->n);
    kernel_scratch(e->k, offset);
    LLVMValueRef *arg = arena_array(e->arena, LLVMValueRef, nbuf + 2);
    arg[0] = LLVMGetParam(f->fn, 1);
    arg[1] = LLVMGetParam(f->fn, 2);
    for (int i = 0; i < nbuf; i++) {
        const Node *n = node_of(e->k, buf[i]);
        bool scratch = attr_i(n, A_ROLE) == BUF_SCRATCH;
        LLVMValueRef base = LLVMGetParam(f->fn, scratch ? 3 : 0);
        LLVMValueRef at = element_ptr(f, scratch ? f->i8 : f->ptr, base, ll_i64(f, scratch ? offset[buf[i]] : attr_i(n, A_INDEX)));
        arg[i + 2] = scratch ? at : LLVMBuildLoad2(f->b, f->ptr, at, "");
    }
    LLVMBuildCall2(f->b, body_type, body, arg, (unsigned)nbuf + 2, "");
    LLVMBuildRetVoid(f->b);
}

static Fn fn_of(LLVMBuilderRef b, const CpuTarget *target, LLVMModuleRef mod)
{
    LLVMContextRef cx = LLVMGetModuleContext(mod);
    return (Fn){.target = target, .cx = cx, .mod = mod, .b = b, .width = 1,
                .i1 = LLVMInt1TypeInContext(cx), .i8 = LLVMInt8TypeInContext(cx), .i16 = LLVMInt16TypeInContext(cx),
                .i32 = LLVMInt32TypeInContext(cx), .i64 = LLVMInt64TypeInContext(cx), .f32 = LLVMFloatTypeInContext(cx),
                .f64 = LLVMDoubleTypeInContext(cx), .ptr = LLVMPointerTypeInContext(cx, 0)};
}

void emit_kernel(Arena *arena, LLVMBuilderRef b, const CpuTarget *target, LLVMModuleRef mod, const Graph *k, const char *symbol)
{
    Emit e = {.f = fn_of(b, target, mod), .k = k, .arena = arena, .chunk = -1};
    e.val = arena_array(arena, Lane, k->n);
    e.acc = arena_array(arena, Acc *, k->n);
    e.tile = arena_array(arena, Tile *, k->n);
    e.range = arena_array(arena, Range, k->n);
    e.end = arena_array(arena, Val, k->n);
    e.buf = arena_array(arena, LLVMValueRef, k->n);
    find_ends(&e);
    kernel_ranges(k, e.range);
    Val *buf = arena_array(arena, Val, k->n);
    int nbuf = 0;
    for (Val v = 1; v < k->n; v++)
        if (node_of(k, v)->op == OP_BUF)
            buf[nbuf++] = v;
    LLVMTypeRef type, *param = arena_array(arena, LLVMTypeRef, nbuf + 2);
    for (int i = 0; i < nbuf + 2; i++)
        param[i] = i < 2 ? e.f.i64 : e.f.ptr;
    LLVMValueRef body = add_function(&e.f, "body", param, nbuf + 2, &type);
    LLVMSetLinkage(body, LLVMInternalLinkage);
    emit_body(&e, body, buf, nbuf);
    emit_wrapper(&e, symbol, body, type, buf, nbuf);
}
