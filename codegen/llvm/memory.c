/* Loads and stores: one element, contiguous lanes, or a gather; and the forms that types take in memory. */
#include "codegen/llvm/emit.h"

LLVMTypeRef memory_type(const Fn *f, DavDtype t)
{
    switch (t) {
    case DAV_F64:
        return f->f64;
    case DAV_F32:
        return f->f32;
    case DAV_BF16:
    case DAV_F16:
        return f->i16;
    case DAV_I64:
        return f->i64;
    case DAV_BOOL:
        return f->i8;
    default:
        return f->i32;
    }
}

/* ---- 16-bit floats; the same arithmetic as ir/dtype.h, on lanes ---- */
static LLVMValueRef bits_of(const Fn *f, LLVMValueRef x)
{
    return LLVMBuildBitCast(f->b, x, ll_like(f, f->i32, x), "");
}

static LLVMValueRef float_of(const Fn *f, LLVMValueRef bits)
{
    return LLVMBuildBitCast(f->b, bits, ll_like(f, f->f32, bits), "");
}

static LLVMValueRef and_c(const Fn *f, LLVMValueRef x, int64_t c)
{
    return LLVMBuildAnd(f->b, x, ll_int(LLVMTypeOf(x), c), "");
}

static LLVMValueRef f16_to_lanes(const Fn *f, LLVMValueRef h)
{
    LLVMBuilderRef b = f->b;
    LLVMValueRef u = LLVMBuildZExt(b, h, ll_like(f, f->i32, h), "");
    LLVMTypeRef t = LLVMTypeOf(u);
    LLVMValueRef sign = LLVMBuildShl(b, and_c(f, u, 0x8000), ll_int(t, 16), ""), mag = and_c(f, u, 0x7fff);
    LLVMValueRef shifted = LLVMBuildShl(b, mag, ll_int(t, 13), "");
    LLVMValueRef normal = LLVMBuildAdd(b, shifted, ll_int(t, 0x38000000), "");
    LLVMValueRef quiet = ll_select(f, LLVMBuildICmp(b, LLVMIntUGT, mag, ll_int(t, 0x7c00), ""), ll_int(t, 0x7fc00000),
                                 ll_int(t, 0x7f800000));
    LLVMValueRef huge = LLVMBuildOr(b, LLVMBuildAnd(b, shifted, ll_int(t, 0x7fe000), ""), quiet, "");
    LLVMValueRef tiny = LLVMBuildSIToFP(b, mag, ll_like(f, f->f32, mag), "");
    tiny = bits_of(f, LLVMBuildFMul(b, tiny, ll_num(LLVMTypeOf(tiny), 0x1p-24), ""));
    LLVMValueRef r = ll_select(f, LLVMBuildICmp(b, LLVMIntUGE, mag, ll_int(t, 0x400), ""), normal, tiny);
    r = ll_select(f, LLVMBuildICmp(b, LLVMIntUGE, mag, ll_int(t, 0x7c00), ""), huge, r);
    return float_of(f, LLVMBuildOr(b, sign, r, ""));
}

static LLVMValueRef f16_from_lanes(const Fn *f, LLVMValueRef x)
{
    LLVMBuilderRef b = f->b;
    LLVMValueRef u = bits_of(f, x);
    LLVMTypeRef t = LLVMTypeOf(u);
    LLVMValueRef mag = and_c(f, u, 0x7fffffff), sign = and_c(f, LLVMBuildLShr(b, u, ll_int(t, 16), ""), 0x8000);
    LLVMValueRef odd = and_c(f, LLVMBuildLShr(b, mag, ll_int(t, 13), ""), 1);
    LLVMValueRef normal = LLVMBuildAdd(b, LLVMBuildAdd(b, mag, ll_int(t, 0xfff - 0x38000000), ""), odd, "");
    normal = LLVMBuildLShr(b, normal, ll_int(t, 13), "");
    LLVMValueRef small = float_of(f, mag);
    small = LLVMBuildFAdd(b, small, ll_num(LLVMTypeOf(small), 0.5), "");
    LLVMValueRef tiny = LLVMBuildSub(b, bits_of(f, small), ll_int(t, 0x3f000000), "");
    LLVMValueRef nan = LLVMBuildOr(b, and_c(f, LLVMBuildLShr(b, mag, ll_int(t, 13), ""), 0x3ff), ll_int(t, 0x7e00), "");
    LLVMValueRef r = ll_select(f, LLVMBuildICmp(b, LLVMIntULT, mag, ll_int(t, 0x38800000), ""), tiny, normal);
    r = ll_select(f, LLVMBuildICmp(b, LLVMIntUGE, mag, ll_int(t, 0x477ff000), ""), ll_int(t, 0x7c00), r);
    r = ll_select(f, LLVMBuildICmp(b, LLVMIntUGT, mag, ll_int(t, 0x7f800000), ""), nan, r);
    return LLVMBuildTrunc(b, LLVMBuildOr(b, sign, r, ""), ll_like(f, f->i16, x), "");
}

static LLVMValueRef bf16_round(const Fn *f, LLVMValueRef x)
{
    LLVMBuilderRef b = f->b;
    LLVMValueRef u = bits_of(f, x);
    LLVMTypeRef t = LLVMTypeOf(u);
    LLVMValueRef odd = and_c(f, LLVMBuildLShr(b, u, ll_int(t, 16), ""), 1);
    LLVMValueRef r = LLVMBuildAdd(b, LLVMBuildAdd(b, u, ll_int(t, 0x7fff), ""), odd, "");
    r = ll_select(f, LLVMBuildFCmp(b, LLVMRealUNO, x, x, ""), LLVMBuildOr(b, u, ll_int(t, 0x400000), ""), r);
    return float_of(f, and_c(f, r, -0x10000));
}

LLVMValueRef round_to(const Fn *f, DavDtype t, LLVMValueRef x)
{
    if (t == DAV_BF16)
        return bf16_round(f, x);
    return t == DAV_F16 ? f16_to_lanes(f, f16_from_lanes(f, x)) : x;
}

LLVMValueRef widen_memory(const Fn *f, DavDtype t, LLVMValueRef v)
{
    if (t == DAV_BOOL)
        return LLVMBuildICmp(f->b, LLVMIntNE, v, ll_int(LLVMTypeOf(v), 0), "");
    if (t == DAV_F16)
        return f16_to_lanes(f, v);
    if (t != DAV_BF16)
        return v;
    LLVMValueRef u = LLVMBuildZExt(f->b, v, ll_like(f, f->i32, v), "");
    return float_of(f, LLVMBuildShl(f->b, u, ll_int(LLVMTypeOf(u), 16), ""));
}

LLVMValueRef narrow_memory(const Fn *f, DavDtype t, LLVMValueRef v)
{
    if (t == DAV_BOOL)
        return LLVMBuildZExt(f->b, v, ll_like(f, f->i8, v), "");
    if (t == DAV_F16)
        return f16_from_lanes(f, v);
    if (t != DAV_BF16)
        return v;
    LLVMValueRef u = bits_of(f, v);
    return LLVMBuildTrunc(f->b, LLVMBuildLShr(f->b, u, ll_int(LLVMTypeOf(u), 16), ""), ll_like(f, f->i16, v), "");
}

/* ---- access ---- */
LLVMValueRef element_ptr(const Fn *f, LLVMTypeRef elem, LLVMValueRef base, LLVMValueRef off)
{
    return LLVMBuildInBoundsGEP2(f->b, elem, base, &off, 1, "");
}

static void set_align(const Fn *f, LLVMValueRef call, unsigned arg, unsigned align)
{
    unsigned kind = LLVMGetEnumAttributeKindForName("align", 5);
    LLVMAddCallSiteAttribute(call, arg, LLVMCreateEnumAttribute(f->cx, kind, align));
}

static LLVMValueRef ones(const Fn *f)
{
    return LLVMConstAllOnes(LLVMVectorType(f->i1, (unsigned)f->width));
}

LLVMValueRef load_masked(const Fn *f, LLVMTypeRef t, LLVMValueRef p, LLVMValueRef mask, unsigned align)
{
    if (!mask) {
        LLVMValueRef v = LLVMBuildLoad2(f->b, t, p, "");
        LLVMSetAlignment(v, align);
        return v;
    }
    LLVMTypeRef over[2] = {t, f->ptr};
    LLVMValueRef call = ll_intrinsic(f, "llvm.masked.load", over, 2, (LLVMValueRef[]){p, mask, LLVMConstNull(t)}, 3);
    set_align(f, call, 1, align);
    return call;
}

static void store_masked(const Fn *f, LLVMValueRef v, LLVMValueRef p, LLVMValueRef mask, unsigned align)
{
    if (!mask) {
        LLVMSetAlignment(LLVMBuildStore(f->b, v, p), align);
        return;
    }
    LLVMTypeRef over[2] = {LLVMTypeOf(v), f->ptr};
    set_align(f, ll_intrinsic(f, "llvm.masked.store", over, 2, (LLVMValueRef[]){v, p, mask}, 3), 2, align);
}

static LLVMValueRef both_masks(Emit *e, Val mask)
{
    LLVMValueRef own = mask ? as_lanes(e, mask) : NULL;
    if (!own || !e->mask)
        return own ? own : e->mask;
    return LLVMBuildAnd(e->f.b, own, e->mask, "");
}

/* Where a scalar that may not be read is read instead. */
static LLVMValueRef zero_word(const Fn *f)
{
    LLVMValueRef g = LLVMGetNamedGlobal(f->mod, "zero_word");
    if (!g) {
        g = LLVMAddGlobal(f->mod, f->i64, "zero_word");
        LLVMSetInitializer(g, LLVMConstNull(f->i64));
        LLVMSetGlobalConstant(g, true);
        LLVMSetLinkage(g, LLVMInternalLinkage);
    }
    return g;
}

static bool one_for_all(Emit *e, Val off, Val mask)
{
    return !e->vector_loop || (is_uniform(e, off) && (!mask || is_uniform(e, mask)));
}

void emit_load(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    const Fn *f = &e->f;
    DavDtype t = (DavDtype)n->dtype;
    LLVMTypeRef elem = memory_type(f, t);
    unsigned align = (unsigned)dav_dtype_size(t);
    Val off = n->arg[1], mask = n->narg > 2 ? n->arg[2] : 0;
    LLVMValueRef base = e->buf[n->arg[0]];
    if (one_for_all(e, off, mask)) {
        LLVMValueRef p = element_ptr(f, elem, base, as_scalar(e, off));
        if (mask)
            p = ll_select(f, as_scalar(e, mask), p, zero_word(f));
        e->val[v] = (Lane){.v = widen_memory(f, t, load_masked(f, elem, p, NULL, align))};
        return;
    }
    LLVMTypeRef vec = LLVMVectorType(elem, (unsigned)f->width);
    LLVMValueRef lanes = both_masks(e, mask), r;
    if (e->val[off].stride == 1) {
        r = load_masked(f, vec, element_ptr(f, elem, base, e->val[off].v), lanes, align);
    } else {
        LLVMValueRef p = element_ptr(f, elem, base, as_lanes(e, off));
        LLVMTypeRef over[2] = {vec, LLVMTypeOf(p)};
        r = ll_intrinsic(f, "llvm.masked.gather", over, 2,
                      (LLVMValueRef[]){p, lanes ? lanes : ones(f), LLVMConstNull(vec)}, 3);
        set_align(f, r, 1, align);
    }
    r = widen_memory(f, t, r);
    if (t == DAV_I64 && fits_i32(e, v))
        r = LLVMBuildTrunc(f->b, r, LLVMVectorType(f->i32, (unsigned)f->width), "");
    e->val[v] = (Lane){.v = r, .varying = true};
}

static void store_one(Emit *e, LLVMValueRef v, LLVMValueRef p, LLVMValueRef cond, unsigned align)
{
    const Fn *f = &e->f;
    LLVMBasicBlockRef done = cond ? ll_if(f, cond) : NULL;
    store_masked(f, v, p, NULL, align);
    if (done)
        ll_endif(f, done);
}

void emit_store(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    const Fn *f = &e->f;
    DavDtype t = (DavDtype)node_of(e->k, n->arg[0])->dtype;
    LLVMTypeRef elem = memory_type(f, t);
    unsigned align = (unsigned)dav_dtype_size(t);
    Val off = n->arg[1], what = n->arg[2], mask = n->narg > 3 ? n->arg[3] : 0;
    LLVMValueRef base = e->buf[n->arg[0]];
    if (one_for_all(e, off, mask) && (!e->vector_loop || is_uniform(e, what))) {
        LLVMValueRef value = narrow_memory(f, t, as_scalar(e, what));
        store_one(e, value, element_ptr(f, elem, base, as_scalar(e, off)), mask ? as_scalar(e, mask) : NULL, align);
        return;
    }
    LLVMValueRef lanes = both_masks(e, mask);
    LLVMValueRef value = narrow_memory(f, t, t == DAV_I64 ? as_index(e, what, false) : as_lanes(e, what));
    if (e->val[off].stride == 1) {
        store_masked(f, value, element_ptr(f, elem, base, e->val[off].v), lanes, align);
        return;
    }
    LLVMValueRef p = element_ptr(f, elem, base, as_lanes(e, off));
    LLVMTypeRef over[2] = {LLVMTypeOf(value), LLVMTypeOf(p)};
    set_align(f, ll_intrinsic(f, "llvm.masked.scatter", over, 2, (LLVMValueRef[]){value, p, lanes ? lanes : ones(f)}, 3), 2, align);
}
