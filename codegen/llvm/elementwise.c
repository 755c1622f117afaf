/* Elementwise ops, casts and Philox on lanes. */
#include "codegen/llvm/emit.h"
#include "ir/build.h"

typedef struct Ew {
    const Fn *f;
    LLVMValueRef x, y, z;
    LLVMTypeRef t; /* of x */
    bool unsig;
} Ew;
typedef LLVMValueRef (*EwFn)(const Ew *);

/* ---- floats ---- */
static LLVMValueRef f_neg(const Ew *o) { return LLVMBuildFNeg(o->f->b, o->x, ""); }
static LLVMValueRef f_abs(const Ew *o) { return ll_call1(o->f, "llvm.fabs", o->x); }
static LLVMValueRef f_floor(const Ew *o) { return math_floor(o->f, o->x); }
static LLVMValueRef f_ceil(const Ew *o) { return math_ceil(o->f, o->x); }
static LLVMValueRef f_round(const Ew *o) { return math_round(o->f, o->x); }
static LLVMValueRef f_sqrt(const Ew *o) { return ll_call1(o->f, "llvm.sqrt", o->x); }
static LLVMValueRef f_exp(const Ew *o) { return math_exp(o->f, o->x); }
static LLVMValueRef f_expm1(const Ew *o) { return math_expm1(o->f, o->x); }
static LLVMValueRef f_log(const Ew *o) { return math_log(o->f, o->x); }
static LLVMValueRef f_log1p(const Ew *o) { return math_log1p(o->f, o->x); }
static LLVMValueRef f_sin(const Ew *o) { return math_sin(o->f, o->x); }
static LLVMValueRef f_cos(const Ew *o) { return math_cos(o->f, o->x); }
static LLVMValueRef f_atan(const Ew *o) { return math_atan(o->f, o->x); }
static LLVMValueRef f_tanh(const Ew *o) { return math_tanh(o->f, o->x); }
static LLVMValueRef f_erf(const Ew *o) { return math_erf(o->f, o->x); }
static LLVMValueRef same(const Ew *o) { return o->x; }
static LLVMValueRef f_add(const Ew *o) { return LLVMBuildFAdd(o->f->b, o->x, o->y, ""); }
static LLVMValueRef f_sub(const Ew *o) { return LLVMBuildFSub(o->f->b, o->x, o->y, ""); }
static LLVMValueRef f_mul(const Ew *o) { return LLVMBuildFMul(o->f->b, o->x, o->y, ""); }
static LLVMValueRef f_div(const Ew *o) { return LLVMBuildFDiv(o->f->b, o->x, o->y, ""); }
static LLVMValueRef num_max_(const Ew *o) { return num_max(o->f, o->x, o->y, o->unsig); }
static LLVMValueRef num_min_(const Ew *o) { return num_min(o->f, o->x, o->y, o->unsig); }
static LLVMValueRef choose(const Ew *o) { return ll_select(o->f, o->x, o->y, o->z); }

static LLVMValueRef f_rsqrt(const Ew *o)
{
    return LLVMBuildFDiv(o->f->b, ll_num(o->t, 1), f_sqrt(o), "");
}

static LLVMValueRef f_sign(const Ew *o)
{
    LLVMValueRef zero = ll_num(o->t, 0);
    LLVMValueRef neg = ll_select(o->f, LLVMBuildFCmp(o->f->b, LLVMRealOLT, o->x, zero, ""), ll_num(o->t, -1), o->x);
    return ll_select(o->f, LLVMBuildFCmp(o->f->b, LLVMRealOGT, o->x, zero, ""), ll_num(o->t, 1), neg);
}

/* Without an FMA unit f32 goes through f64, where the product is exact; f64 is not fused there. */
static LLVMValueRef f_fma(const Ew *o)
{
    const Fn *f = o->f;
    LLVMTypeRef wide = ll_like(f, f->f64, o->x);
    if (f->target->fma || o->t == wide)
        return ll_fma(f, o->x, o->y, o->z);
    LLVMValueRef p = LLVMBuildFMul(f->b, LLVMBuildFPExt(f->b, o->x, wide, ""), LLVMBuildFPExt(f->b, o->y, wide, ""), "");
    LLVMValueRef s = LLVMBuildFAdd(f->b, p, LLVMBuildFPExt(f->b, o->z, wide, ""), "");
    return LLVMBuildFPTrunc(f->b, s, o->t, "");
}

/* ---- integers ---- */
static LLVMValueRef icmp(const Ew *o, LLVMIntPredicate p, int64_t c)
{
    return LLVMBuildICmp(o->f->b, p, o->x, ll_int(o->t, c), "");
}
static LLVMValueRef i_neg(const Ew *o) { return LLVMBuildNeg(o->f->b, o->x, ""); }
static LLVMValueRef i_not(const Ew *o) { return LLVMBuildNot(o->f->b, o->x, ""); }
static LLVMValueRef i_add(const Ew *o) { return LLVMBuildAdd(o->f->b, o->x, o->y, ""); }
static LLVMValueRef i_sub(const Ew *o) { return LLVMBuildSub(o->f->b, o->x, o->y, ""); }
static LLVMValueRef i_mul(const Ew *o) { return LLVMBuildMul(o->f->b, o->x, o->y, ""); }
static LLVMValueRef i_and(const Ew *o) { return LLVMBuildAnd(o->f->b, o->x, o->y, ""); }
static LLVMValueRef i_or(const Ew *o) { return LLVMBuildOr(o->f->b, o->x, o->y, ""); }
static LLVMValueRef i_xor(const Ew *o) { return LLVMBuildXor(o->f->b, o->x, o->y, ""); }

static LLVMValueRef i_abs(const Ew *o)
{
    return o->unsig ? o->x : ll_select(o->f, icmp(o, LLVMIntSLT, 0), i_neg(o), o->x);
}

static LLVMValueRef i_sign(const Ew *o)
{
    LLVMValueRef one = ll_int(o->t, 1), neg = o->unsig ? one : ll_int(o->t, -1);
    return ll_select(o->f, icmp(o, o->unsig ? LLVMIntUGT : LLVMIntSGT, 0), one,
                   ll_select(o->f, icmp(o, LLVMIntEQ, 0), ll_int(o->t, 0), neg));
}

/* The machine traps on division by 0 and on the smallest number by -1; both get their meaning by hand. */
static LLVMValueRef divide(const Ew *o, bool want_rem)
{
    LLVMBuilderRef b = o->f->b;
    LLVMValueRef zero = ll_int(o->t, 0), one = ll_int(o->t, 1);
    LLVMValueRef by0 = LLVMBuildICmp(b, LLVMIntEQ, o->y, zero, "");
    LLVMValueRef bym1 = LLVMBuildICmp(b, LLVMIntEQ, o->y, ll_int(o->t, -1), "");
    LLVMValueRef odd = o->unsig ? by0 : LLVMBuildOr(b, by0, bym1, "");
    LLVMValueRef y = ll_select(o->f, odd, one, o->y), r;
    if (want_rem) {
        r = o->unsig ? LLVMBuildURem(b, o->x, y, "") : LLVMBuildSRem(b, o->x, y, "");
        return ll_select(o->f, odd, zero, r);
    }
    r = o->unsig ? LLVMBuildUDiv(b, o->x, y, "") : LLVMBuildSDiv(b, o->x, y, "");
    if (!o->unsig)
        r = ll_select(o->f, bym1, i_neg(o), r);
    return ll_select(o->f, by0, zero, r);
}
static LLVMValueRef i_div(const Ew *o) { return divide(o, false); }
static LLVMValueRef i_rem(const Ew *o) { return divide(o, true); }

static LLVMValueRef shift(const Ew *o, bool left)
{
    LLVMBuilderRef b = o->f->b;
    LLVMTypeRef e = ll_lanes(o->x) > 1 ? LLVMGetElementType(o->t) : o->t;
    int64_t width = LLVMGetIntTypeWidth(e);
    LLVMValueRef in = LLVMBuildICmp(b, LLVMIntULT, o->y, ll_int(o->t, width), "");
    LLVMValueRef y = ll_select(o->f, in, o->y, ll_int(o->t, 0)), zero = ll_int(o->t, 0);
    if (left)
        return ll_select(o->f, in, LLVMBuildShl(b, o->x, y, ""), zero);
    if (o->unsig)
        return ll_select(o->f, in, LLVMBuildLShr(b, o->x, y, ""), zero);
    return LLVMBuildAShr(b, o->x, ll_select(o->f, in, o->y, ll_int(o->t, width - 1)), "");
}
static LLVMValueRef i_shl(const Ew *o) { return shift(o, true); }
static LLVMValueRef i_shr(const Ew *o) { return shift(o, false); }

static const struct { EwFn flt, num; bool exact; } ew[OP_COUNT] = {
    [OP_NEG] = {f_neg, i_neg, true},      [OP_ABS] = {f_abs, i_abs, true},     [OP_SIGN] = {f_sign, i_sign, true},
    [OP_FLOOR] = {f_floor, NULL, true},   [OP_CEIL] = {f_ceil, NULL, true},    [OP_ROUND] = {f_round, NULL, true},
    [OP_SQRT] = {f_sqrt, NULL, false},    [OP_RSQRT] = {f_rsqrt, NULL, false}, [OP_EXP] = {f_exp, NULL, false},
    [OP_EXPM1] = {f_expm1, NULL, false},  [OP_LOG] = {f_log, NULL, false},     [OP_LOG1P] = {f_log1p, NULL, false},
    [OP_SIN] = {f_sin, NULL, false},      [OP_COS] = {f_cos, NULL, false},     [OP_ATAN] = {f_atan, NULL, false},
    [OP_TANH] = {f_tanh, NULL, false},    [OP_ERF] = {f_erf, NULL, false},     [OP_NOT] = {NULL, i_not, true},
    [OP_STOP] = {same, same, true},
    [OP_ADD] = {f_add, i_add, false},     [OP_SUB] = {f_sub, i_sub, false},    [OP_MUL] = {f_mul, i_mul, false},
    [OP_DIV] = {f_div, i_div, false},     [OP_REM] = {NULL, i_rem, true},      [OP_MAX] = {num_max_, num_max_, true},
    [OP_MIN] = {num_min_, num_min_, true}, [OP_AND] = {NULL, i_and, true},     [OP_OR] = {NULL, i_or, true},
    [OP_XOR] = {NULL, i_xor, true},       [OP_SHL] = {NULL, i_shl, true},      [OP_SHR] = {NULL, i_shr, true},
    [OP_SELECT] = {choose, choose, true}, [OP_FMA] = {f_fma, NULL, false},
};

static const struct { LLVMRealPredicate flt; LLVMIntPredicate sig, unsig; bool is; } compare[OP_COUNT] = {
    [OP_EQ] = {LLVMRealOEQ, LLVMIntEQ, LLVMIntEQ, true},   [OP_NE] = {LLVMRealUNE, LLVMIntNE, LLVMIntNE, true},
    [OP_LT] = {LLVMRealOLT, LLVMIntSLT, LLVMIntULT, true}, [OP_LE] = {LLVMRealOLE, LLVMIntSLE, LLVMIntULE, true},
    [OP_GT] = {LLVMRealOGT, LLVMIntSGT, LLVMIntUGT, true}, [OP_GE] = {LLVMRealOGE, LLVMIntSGE, LLVMIntUGE, true},
};

/* Sums of indices stay a scalar and a stride, so that loads and stores find them contiguous. */
static bool emit_linear(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    if (n->dtype != DAV_I64 || n->narg > 2 || (n->op != OP_ADD && n->op != OP_SUB && n->op != OP_MUL && n->op != OP_NEG))
        return false;
    Lane x = e->val[n->arg[0]], y = n->narg > 1 ? e->val[n->arg[1]] : (Lane){0};
    if (x.varying || y.varying || (!x.stride && !y.stride))
        return false;
    LLVMBuilderRef b = e->f.b;
    int64_t cx = 0, cy = 0;
    Lane *r = &e->val[v];
    switch ((Op)n->op) {
    case OP_NEG:
        *r = (Lane){.v = LLVMBuildNeg(b, x.v, ""), .stride = -x.stride};
        return true;
    case OP_ADD:
        *r = (Lane){.v = LLVMBuildAdd(b, x.v, y.v, ""), .stride = x.stride + y.stride};
        return true;
    case OP_SUB:
        *r = (Lane){.v = LLVMBuildSub(b, x.v, y.v, ""), .stride = x.stride - y.stride};
        return true;
    default:
        if (x.stride ? !kernel_const_i64(e->k, n->arg[1], &cy) : !kernel_const_i64(e->k, n->arg[0], &cx))
            return false;
        *r = (Lane){.v = LLVMBuildMul(b, x.v, y.v, ""), .stride = x.stride ? x.stride * cy : y.stride * cx};
        return true;
    }
}

/* i64 lanes are computed as i32 where every operand and the result fit. */
static bool narrow_index(const Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    for (int i = 0; i < n->narg; i++)
        if (node_of(e->k, n->arg[i])->dtype == DAV_I64 && !fits_i32(e, n->arg[i]))
            return false;
    return n->dtype != DAV_I64 || fits_i32(e, v);
}

static LLVMValueRef operand(Emit *e, Val v, bool uniform, bool narrow)
{
    if (uniform)
        return as_scalar(e, v);
    return node_of(e->k, v)->dtype == DAV_I64 ? as_index(e, v, narrow) : as_lanes(e, v);
}

static void give(Emit *e, Val v, LLVMValueRef r, bool uniform)
{
    if (!uniform && node_of(e->k, v)->dtype == DAV_I64) { /* in the width that as_lanes promises */
        LLVMTypeRef want = LLVMVectorType(fits_i32(e, v) ? e->f.i32 : e->f.i64, (unsigned)e->f.width);
        if (LLVMTypeOf(r) != want)
            r = fits_i32(e, v) ? LLVMBuildTrunc(e->f.b, r, want, "") : LLVMBuildSExt(e->f.b, r, want, "");
    }
    e->val[v] = (Lane){.v = r, .varying = !uniform};
}

static bool all_uniform(const Emit *e, const Node *n)
{
    for (int i = 0; i < n->narg; i++)
        if (!is_uniform(e, n->arg[i]))
            return false;
    return true;
}

void emit_elementwise(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    if (emit_linear(e, v))
        return;
    bool uniform = all_uniform(e, n), narrow = !uniform && narrow_index(e, v);
    Ew o = {.f = &e->f, .x = operand(e, n->arg[0], uniform, narrow)};
    o.y = n->narg > 1 ? operand(e, n->arg[1], uniform, narrow) : NULL;
    o.z = n->narg > 2 ? operand(e, n->arg[2], uniform, narrow) : NULL;
    o.t = LLVMTypeOf(o.x);
    DavDtype t = (DavDtype)node_of(e->k, n->arg[n->op == OP_SELECT])->dtype;
    o.unsig = t == DAV_U32 || t == DAV_BOOL;
    bool flt = dav_dtype_is_float(t);
    LLVMValueRef r;
    if (compare[n->op].is) {
        r = flt ? LLVMBuildFCmp(e->f.b, compare[n->op].flt, o.x, o.y, "")
                : LLVMBuildICmp(e->f.b, o.unsig ? compare[n->op].unsig : compare[n->op].sig, o.x, o.y, "");
    } else {
        EwFn fn = flt ? ew[n->op].flt : ew[n->op].num;
        if (!fn)
            die("kernel %s: %s is not defined on %s", e->k->name, op_info[n->op].text, dav_dtype_name(t));
        r = fn(&o);
        if (flt && !ew[n->op].exact)
            r = round_to(&e->f, t, r);
    }
    give(e, v, r, uniform);
}

/* ---- casts ---- */
static LLVMValueRef to_bool(const Fn *f, DavDtype from, LLVMValueRef x)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    return dav_dtype_is_float(from) ? LLVMBuildFCmp(f->b, LLVMRealUNE, x, ll_num(t, 0), "")
                                    : LLVMBuildICmp(f->b, LLVMIntNE, x, ll_int(t, 0), "");
}

static LLVMValueRef float_to_int(const Fn *f, DavDtype to, LLVMValueRef x)
{
    LLVMTypeRef over[2] = {ll_like(f, to == DAV_I64 ? f->i64 : f->i32, x), LLVMTypeOf(x)};
    return ll_intrinsic(f, to == DAV_U32 ? "llvm.fptoui.sat" : "llvm.fptosi.sat", over, 2, &x, 1);
}

/* i64 to f32: the two steps through f64 that the interpreter takes would round twice; one rounding is nearer. */
static LLVMValueRef int_to_float(const Fn *f, DavDtype from, DavDtype to, LLVMValueRef x)
{
    LLVMTypeRef t = ll_like(f, to == DAV_F64 ? f->f64 : f->f32, x);
    LLVMValueRef r = from == DAV_U32 || from == DAV_BOOL ? LLVMBuildUIToFP(f->b, x, t, "") : LLVMBuildSIToFP(f->b, x, t, "");
    return round_to(f, to, r);
}

static LLVMValueRef float_to_float(const Fn *f, DavDtype to, LLVMValueRef x)
{
    LLVMTypeRef wide = ll_like(f, f->f64, x), have = LLVMTypeOf(x);
    if (to == DAV_F64)
        return have == wide ? x : LLVMBuildFPExt(f->b, x, wide, "");
    if (have == wide)
        x = LLVMBuildFPTrunc(f->b, x, ll_like(f, f->f32, x), "");
    return round_to(f, to, x);
}

static LLVMValueRef int_to_int(const Fn *f, DavDtype from, DavDtype to, LLVMValueRef x)
{
    LLVMTypeRef t = ll_like(f, to == DAV_I64 ? f->i64 : f->i32, x), have = LLVMTypeOf(x);
    if (from == DAV_BOOL || (from == DAV_U32 && to == DAV_I64))
        return LLVMBuildZExt(f->b, x, t, "");
    if (have == t)
        return x;
    return to == DAV_I64 ? LLVMBuildSExt(f->b, x, t, "") : LLVMBuildTrunc(f->b, x, t, "");
}

void emit_cast(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    const Fn *f = &e->f;
    DavDtype from = (DavDtype)node_of(e->k, n->arg[0])->dtype, to = (DavDtype)n->dtype;
    Lane x = e->val[n->arg[0]];
    bool uniform = is_uniform(e, n->arg[0]);
    if (from == to) {
        e->val[v] = x;
        return;
    }
    LLVMValueRef r = uniform ? x.v : as_lanes(e, n->arg[0]);
    bool from_float = dav_dtype_is_float(from), to_float = dav_dtype_is_float(to);
    if (to == DAV_BOOL)
        r = to_bool(f, from, r);
    else if (from_float)
        r = to_float ? float_to_float(f, to, r) : float_to_int(f, to, r);
    else
        r = to_float ? int_to_float(f, from, to, r) : int_to_int(f, from, to, r);
    give(e, v, r, uniform);
}

void emit_bitcast(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    DavDtype from = (DavDtype)node_of(e->k, n->arg[0])->dtype, to = (DavDtype)n->dtype;
    bool uniform = is_uniform(e, n->arg[0]);
    LLVMValueRef x = uniform ? as_scalar(e, n->arg[0])
                             : from == DAV_I64 ? as_index(e, n->arg[0], false) : as_lanes(e, n->arg[0]);
    x = narrow_memory(&e->f, from, x);
    x = LLVMBuildBitCast(e->f.b, x, ll_like(&e->f, memory_type(&e->f, to), x), "");
    give(e, v, widen_memory(&e->f, to, x), uniform);
}

void emit_exp2(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    bool uniform = is_uniform(e, n->arg[0]);
    give(e, v, math_exp2(&e->f, operand(e, n->arg[0], uniform, false), (DavDtype)attr_i(n, A_TO)), uniform);
}

/* ---- Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) ---- */
static void multiply_wide(const Fn *f, LLVMValueRef x, uint32_t by, LLVMValueRef *hi, LLVMValueRef *lo)
{
    LLVMTypeRef t = LLVMTypeOf(x), wide = ll_like(f, f->i64, x);
    LLVMValueRef p = LLVMBuildMul(f->b, LLVMBuildZExt(f->b, x, wide, ""), ll_int(wide, (int64_t)by), "");
    *lo = LLVMBuildTrunc(f->b, p, t, "");
    *hi = LLVMBuildTrunc(f->b, LLVMBuildLShr(f->b, p, ll_int(wide, 32), ""), t, "");
}

void emit_philox(Emit *e, Val v)
{
    const Node *n = node_of(e->k, v);
    const Fn *f = &e->f;
    bool uniform = all_uniform(e, n);
    LLVMValueRef w[6];
    for (int i = 0; i < 6; i++)
        w[i] = operand(e, n->arg[i], uniform, false);
    LLVMValueRef *key = w, *c = w + 2;
    LLVMTypeRef t = LLVMTypeOf(w[0]);
    for (int round = 0; round < 10; round++) {
        LLVMValueRef hi0, lo0, hi1, lo1;
        multiply_wide(f, c[0], 0xD2511F53u, &hi0, &lo0);
        multiply_wide(f, c[2], 0xCD9E8D57u, &hi1, &lo1);
        c[0] = LLVMBuildXor(f->b, LLVMBuildXor(f->b, hi1, c[1], ""), key[0], "");
        c[1] = lo1;
        c[2] = LLVMBuildXor(f->b, LLVMBuildXor(f->b, hi0, c[3], ""), key[1], "");
        c[3] = lo0;
        key[0] = LLVMBuildAdd(f->b, key[0], ll_int(t, (int32_t)0x9E3779B9u), "");
        key[1] = LLVMBuildAdd(f->b, key[1], ll_int(t, (int32_t)0xBB67AE85u), "");
    }
    give(e, v, c[attr_i(n, A_INDEX)], uniform);
}
