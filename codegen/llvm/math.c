/* Elementary functions on float lanes, f32 within 2 ulp, f64 within a few, for every argument:
 *   exp, expm1   x = n ln 2 + r, |r| <= ln 2 / 2; a polynomial in r, scaled by 2^n in two steps (so that subnormals round once)
 *   exp2         x = n + r, 0 <= r < 1; a polynomial in r as long as the precision asked for needs it
 *   log, log1p   x = 2^e m, m in [sqrt 1/2, sqrt 2); a polynomial in m - 1; log1p carries what 1 + x lost in rounding
 *   sin, cos     reduced by pi/2 in f64 (three parts of 33 bits: exact products to |x| = 1.6e6; beyond, with an FMA unit, an
 *                absolute error near 1e-16 |x|; nothing better is promised there), polynomials in f32 or f64
 *   atan         turned by 0, pi/4 or pi/2 so that an odd polynomial on |t| <= tan(pi/8) remains
 *   tanh         odd polynomial below 0.6, 1 - 2 / (exp 2x + 1) above
 *   erf          odd polynomial below 1, 1 - exp(-(x^2 + g(x))) above
 * No table, no branch, no library call; the same code for every width and level. */
#include "codegen/llvm/emit.h"
#include "codegen/llvm/math_coef.h"

typedef struct Poly { const double *c; int n; } Poly;
#define POLY(a) {a, (int)(sizeof(a) / sizeof *(a))}

typedef struct Precision {
    int mantissa, bias;
    double magic;       /* 1.5 * 2^mantissa: adding it rounds to an integer, found in the low bits */
    double ln2_hi, ln2_lo;
    double exp_lo, exp_hi, expm1_lo; /* beyond these the result is 0, infinite, -1 */
    double tiny;        /* expm1(x) = x below */
    double tanh_top, erf_top; /* the result is 1 above */
    double smallest;    /* normal number */
    double quarter_lo;  /* pi/4 is its nearest float plus this */
    Poly exp, log, sin, cos, atan, tanh, erf, erfc;
} Precision;

static const Precision f32_precision = {23, 127, 0x1.8p23, 0x1.63p-1, -2.12194440054690582e-4, -104, 89, -18, 0x1p-25, 10, 4,
                                        0x1p-126, -0x1.777a5cf7p-26, POLY(exp_f32), POLY(log_f32), POLY(sin_f32),
                                        POLY(cos_f32), POLY(atan_f32), POLY(tanh_f32), POLY(erf_f32), POLY(erfc_f32)};
static const Precision f64_precision = {52, 1023, 0x1.8p52, 0x1.62e42feep-1, 1.90821492927058770002e-10, -746, 710, -38, 0x1p-54, 20, 6,
                                        0x1p-1022, 0x1.1a62633145c07p-55, POLY(exp_f64), POLY(log_f64), POLY(sin_f64),
                                        POLY(cos_f64), POLY(atan_f64), POLY(tanh_f64), POLY(erf_f64), POLY(erfc_f64)};

typedef LLVMValueRef V;

static LLVMTypeRef elem(V x)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? LLVMGetElementType(t) : t;
}

static const Precision *precision(const Fn *f, V x)
{
    return elem(x) == f->f64 ? &f64_precision : &f32_precision;
}

/* ---- short names: lanes of the same shape as x ---- */
static V num(V x, double c) { return ll_num(LLVMTypeOf(x), c); }
static V add(const Fn *f, V x, V y) { return LLVMBuildFAdd(f->b, x, y, ""); }
static V sub(const Fn *f, V x, V y) { return LLVMBuildFSub(f->b, x, y, ""); }
static V mul(const Fn *f, V x, V y) { return LLVMBuildFMul(f->b, x, y, ""); }
static V lt(const Fn *f, V x, double c) { return LLVMBuildFCmp(f->b, LLVMRealOLT, x, num(x, c), ""); }
static V gt(const Fn *f, V x, double c) { return LLVMBuildFCmp(f->b, LLVMRealOGT, x, num(x, c), ""); }
static V absolute(const Fn *f, V x) { return ll_call1(f, "llvm.fabs", x); }
static V with_sign(const Fn *f, V x, V sign) { return ll_call2(f, "llvm.copysign", x, sign); }

static V at_most(const Fn *f, V x, double c) /* a NaN becomes c */
{
    return ll_select(f, lt(f, x, c), x, num(x, c));
}

static V at_least(const Fn *f, V x, double c)
{
    return ll_select(f, gt(f, x, c), x, num(x, c));
}

static V keep_nan(const Fn *f, V x, V r)
{
    return ll_select(f, LLVMBuildFCmp(f->b, LLVMRealUNO, x, x, ""), x, r);
}

static LLVMTypeRef bits_type(const Fn *f, V x)
{
    return ll_like(f, elem(x) == f->f64 ? f->i64 : f->i32, x);
}

static V to_bits(const Fn *f, V x) { return LLVMBuildBitCast(f->b, x, bits_type(f, x), ""); }

static V horner(const Fn *f, V x, Poly p)
{
    V r = num(x, p.c[p.n - 1]);
    for (int i = p.n - 2; i >= 0; i--)
        r = ll_fma(f, r, x, num(x, p.c[i]));
    return r;
}

/* Nearest integer, as a float and as bits. */
static V nearest(const Fn *f, V x, V *as_int)
{
    const Precision *p = precision(f, x);
    V shifted = add(f, x, num(x, p->magic));
    *as_int = LLVMBuildSub(f->b, to_bits(f, shifted), to_bits(f, num(x, p->magic)), "");
    return sub(f, shifted, num(x, p->magic));
}

static V int_to_float(const Fn *f, V n, V shape)
{
    const Precision *p = precision(f, shape);
    V bits = LLVMBuildAdd(f->b, n, to_bits(f, num(shape, p->magic)), "");
    return sub(f, LLVMBuildBitCast(f->b, bits, LLVMTypeOf(shape), ""), num(shape, p->magic));
}

static V power_of_two(const Fn *f, V n, V shape) /* n within the normal exponents */
{
    const Precision *p = precision(f, shape);
    LLVMTypeRef t = LLVMTypeOf(n);
    V bits = LLVMBuildShl(f->b, LLVMBuildAdd(f->b, n, ll_int(t, p->bias), ""), ll_int(t, p->mantissa), "");
    return LLVMBuildBitCast(f->b, bits, LLVMTypeOf(shape), "");
}

/* ---- exponentials ---- */
/* r and n of x = n ln 2 + r. */
static V exp_rest(const Fn *f, V x, V *n)
{
    const Precision *p = precision(f, x);
    V k = nearest(f, mul(f, x, num(x, 1.44269504088896340736)), n);
    V minus = LLVMBuildFNeg(f->b, k, "");
    V r = ll_fma(f, minus, num(x, p->ln2_hi), x);
    return ll_fma(f, minus, num(x, p->ln2_lo), r);
}

/* e^r - 1 and n of x = n ln 2 + r. */
static V exp_reduced(const Fn *f, V x, V *n)
{
    V r = exp_rest(f, x, n);
    return ll_fma(f, mul(f, r, r), horner(f, r, precision(f, x)->exp), r);
}

/* AVX-512 has x 2^n as one instruction (n rounded down), right for subnormals as well; 0 where not on (NULL: all). */
static bool has_scale(const Fn *f, V x)
{
    return f->target->avx512 && elem(x) == f->f32 && ll_lanes(x) == 16;
}

static V scaled(const Fn *f, V x, V n, V on)
{
    LLVMTypeRef bits = LLVMInt16TypeInContext(f->cx);
    on = on ? LLVMBuildBitCast(f->b, on, bits, "") : LLVMConstAllOnes(bits);
    V arg[] = {x, n, num(x, 0), on, LLVMConstInt(f->i32, 4 /* the current rounding */, false)};
    return ll_intrinsic(f, "llvm.x86.avx512.mask.scalef.ps.512", NULL, 0, arg, 5);
}

static V exp_in_range(const Fn *f, V x, V on)
{
    V n, r = exp_rest(f, x, &n), one = num(x, 1);
    V q = ll_fma(f, ll_fma(f, horner(f, r, precision(f, x)->exp), r, one), r, one);
    if (has_scale(f, x)) /* the same float that exp_rest took off */
        return scaled(f, q, nearest(f, mul(f, x, num(x, 1.44269504088896340736)), &n), on);
    V half = LLVMBuildAShr(f->b, n, ll_int(LLVMTypeOf(n), 1), "");
    V rest = LLVMBuildSub(f->b, n, half, "");
    return mul(f, mul(f, q, power_of_two(f, half, x)), power_of_two(f, rest, x));
}

LLVMValueRef math_exp(const Fn *f, LLVMValueRef x)
{
    const Precision *p = precision(f, x);
    V low = ll_select(f, gt(f, x, p->exp_hi), num(x, p->exp_hi), x); /* a NaN stays */
    if (has_scale(f, x)) /* what becomes 0 is left out: its last step would take some processors hundreds of cycles */
        return exp_in_range(f, low, LLVMBuildFCmp(f->b, LLVMRealUGE, x, num(x, p->exp_lo), ""));
    return exp_in_range(f, ll_select(f, lt(f, low, p->exp_lo), num(x, p->exp_lo), low), NULL);
}

/* The rest of x above the integer below it: one instruction with AVX-512. */
static V above_floor(const Fn *f, V x)
{
    enum { DOWN = 1, QUIET = 8 };
    V arg[] = {x, LLVMConstInt(f->i32, DOWN | QUIET, false), num(x, 0), LLVMConstAllOnes(LLVMInt16TypeInContext(f->cx)),
               LLVMConstInt(f->i32, 4 /* no other rounding */, false)};
    return ll_intrinsic(f, "llvm.x86.avx512.mask.reduce.ps.512", NULL, 0, arg, 5);
}

LLVMValueRef math_exp2(const Fn *f, LLVMValueRef x, DavDtype to)
{
    static const Poly half = POLY(exp2_bf16), whole = POLY(exp2_f32);
    Poly p = to == DAV_BF16 ? half : whole;
    V on = LLVMBuildFCmp(f->b, LLVMRealUGE, x, num(x, -100), ""), one = num(x, 1);
    if (has_scale(f, x)) {
        V r = above_floor(f, x);
        return scaled(f, ll_fma(f, horner(f, r, p), r, one), x, on);
    }
    V in = at_least(f, at_most(f, x, 128), -100), n = math_floor(f, in), r = sub(f, in, n);
    V bits = to_bits(f, ll_fma(f, horner(f, r, p), r, one)); /* 2^128: the bits of infinity */
    V up = LLVMBuildShl(f->b, LLVMBuildFPToSI(f->b, n, LLVMTypeOf(bits), ""), ll_int(LLVMTypeOf(bits), 23), "");
    V y = LLVMBuildBitCast(f->b, LLVMBuildAdd(f->b, bits, up, ""), LLVMTypeOf(x), "");
    return keep_nan(f, x, ll_select(f, on, y, num(x, 0)));
}

/* 2^n (e^r - 1) + 2^n - 1, at half its size until the end so that 2^n does not overflow before the result does. */
LLVMValueRef math_expm1(const Fn *f, LLVMValueRef x)
{
    const Precision *p = precision(f, x);
    V n, q = exp_reduced(f, at_least(f, at_most(f, x, p->exp_hi), p->expm1_lo), &n);
    V t = power_of_two(f, LLVMBuildSub(f->b, n, ll_int(LLVMTypeOf(n), 1), ""), x);
    V r = mul(f, ll_fma(f, t, q, sub(f, t, num(x, 0.5))), num(x, 2));
    r = ll_select(f, lt(f, absolute(f, x), p->tiny), x, r);
    return keep_nan(f, x, r);
}

/* ---- logarithms ---- */
/* log of u + lost, u positive and normal; lost (NULL: none) is far below u. */
static V log_normal(const Fn *f, V u, V lost, V extra_exponent)
{
    const Precision *p = precision(f, u);
    V bits = to_bits(f, u);
    LLVMTypeRef t = LLVMTypeOf(bits);
    V root = to_bits(f, num(u, 0.70710678118654752440));
    V e = LLVMBuildAShr(f->b, LLVMBuildSub(f->b, bits, root, ""), ll_int(t, p->mantissa), "");
    bits = LLVMBuildSub(f->b, bits, LLVMBuildShl(f->b, e, ll_int(t, p->mantissa), ""), "");
    V d = sub(f, LLVMBuildBitCast(f->b, bits, LLVMTypeOf(u), ""), num(u, 1));
    if (lost) { /* at the largest exponent it is nothing */
        V down = ll_call2(f, "llvm.smax", LLVMBuildNeg(f->b, e, ""), ll_int(t, 1 - p->bias));
        d = add(f, d, mul(f, lost, power_of_two(f, down, u)));
    }
    if (extra_exponent)
        e = LLVMBuildAdd(f->b, e, extra_exponent, "");
    V k = int_to_float(f, e, u), z = mul(f, d, d);
    V y = ll_fma(f, k, num(u, p->ln2_lo), mul(f, mul(f, d, z), horner(f, d, p->log)));
    y = ll_fma(f, num(u, -0.5), z, y);
    return ll_fma(f, k, num(u, p->ln2_hi), add(f, d, y));
}

/* -inf at 0, NaN below, infinity at infinity, NaN at NaN. */
static V log_ends(const Fn *f, V x, V r)
{
    V zero = num(x, 0);
    r = ll_select(f, LLVMBuildFCmp(f->b, LLVMRealOEQ, x, zero, ""), num(x, -__builtin_inf()), r);
    r = ll_select(f, lt(f, x, 0), num(x, __builtin_nan("")), r);
    V end = LLVMBuildFCmp(f->b, LLVMRealUEQ, x, num(x, __builtin_inf()), "");
    return ll_select(f, end, x, r);
}

LLVMValueRef math_log(const Fn *f, LLVMValueRef x)
{
    const Precision *p = precision(f, x);
    LLVMTypeRef t = bits_type(f, x);
    V small = lt(f, x, p->smallest);
    V u = ll_select(f, small, mul(f, x, num(x, (double)(1ull << p->mantissa))), x);
    V extra = ll_select(f, small, ll_int(t, -p->mantissa), ll_int(t, 0));
    return log_ends(f, x, log_normal(f, u, NULL, extra));
}

LLVMValueRef math_log1p(const Fn *f, LLVMValueRef x)
{
    V one = num(x, 1), u = add(f, one, x), back = sub(f, u, one);
    V lost = add(f, sub(f, one, sub(f, u, back)), sub(f, x, back));
    V r = log_ends(f, u, log_normal(f, u, lost, NULL));
    return ll_select(f, LLVMBuildFCmp(f->b, LLVMRealOEQ, x, num(x, 0), ""), x, r); /* -0 stays */
}

/* ---- sine and cosine ---- */
static V sin_cos(const Fn *f, V x, int quarter)
{
    const Precision *p = precision(f, x);
    LLVMTypeRef wide = ll_like(f, f->f64, x);
    V big = elem(x) == f->f64 ? x : LLVMBuildFPExt(f->b, x, wide, ""), q;
    V k = LLVMBuildFNeg(f->b, nearest(f, mul(f, big, num(big, 0.63661977236758134308)), &q), "");
    V r = ll_fma(f, k, num(big, 0x1.921fb544p+0), big); /* pi/2 in parts */
    r = ll_fma(f, k, num(big, 0x1.0b4611a6p-34), r);
    r = ll_fma(f, k, num(big, 0x1.3198a2e037073p-69), r);
    if (elem(x) != f->f64) {
        r = LLVMBuildFPTrunc(f->b, r, LLVMTypeOf(x), "");
        q = LLVMBuildTrunc(f->b, q, ll_like(f, f->i32, x), "");
    }
    LLVMTypeRef t = LLVMTypeOf(q);
    q = LLVMBuildAdd(f->b, q, ll_int(t, quarter), "");
    V z = mul(f, r, r);
    V s = ll_fma(f, mul(f, r, z), horner(f, z, p->sin), r);
    V c = add(f, ll_fma(f, mul(f, z, z), horner(f, z, p->cos), mul(f, z, num(x, -0.5))), num(x, 1));
    V zero = ll_int(t, 0);
    V odd = LLVMBuildICmp(f->b, LLVMIntNE, LLVMBuildAnd(f->b, q, ll_int(t, 1), ""), zero, "");
    V minus = LLVMBuildICmp(f->b, LLVMIntNE, LLVMBuildAnd(f->b, q, ll_int(t, 2), ""), zero, "");
    V v = ll_select(f, odd, c, s);
    return ll_select(f, minus, LLVMBuildFNeg(f->b, v, ""), v);
}

LLVMValueRef math_sin(const Fn *f, LLVMValueRef x)
{
    V r = sin_cos(f, x, 0);
    return ll_select(f, LLVMBuildFCmp(f->b, LLVMRealOEQ, x, num(x, 0), ""), x, r); /* -0 stays */
}

LLVMValueRef math_cos(const Fn *f, LLVMValueRef x)
{
    return sin_cos(f, x, 1);
}

/* ---- atan, tanh, erf ---- */
/* atan |x| = turns pi/4 + atan t: t = a below tan(pi/8), (a - 1) / (a + 1) below tan(3 pi/8), -1 / a beyond. */
LLVMValueRef math_atan(const Fn *f, LLVMValueRef x)
{
    const Precision *p = precision(f, x);
    V a = absolute(f, x), one = num(x, 1);
    V first = gt(f, a, 0.41421356237309504880), second = gt(f, a, 2.41421356237309504880);
    V above = ll_select(f, second, num(x, -1), ll_select(f, first, sub(f, a, one), a));
    V below = ll_select(f, second, a, ll_select(f, first, add(f, a, one), one));
    V turns = ll_select(f, second, num(x, 2), ll_select(f, first, one, num(x, 0)));
    V t = LLVMBuildFDiv(f->b, above, below, ""), z = mul(f, t, t);
    V small = ll_fma(f, mul(f, t, z), horner(f, z, p->atan), mul(f, turns, num(x, p->quarter_lo)));
    V r = add(f, mul(f, turns, num(x, elem(x) == f->f64 ? 0x1.921fb54442d18p-1 : 0x1.921fb6p-1)), add(f, t, small));
    return with_sign(f, r, x);
}

LLVMValueRef math_tanh(const Fn *f, LLVMValueRef x)
{
    const Precision *p = precision(f, x);
    V a = absolute(f, x), z = mul(f, x, x);
    V e = exp_in_range(f, mul(f, at_most(f, a, p->tanh_top), num(x, 2)), NULL);
    V far = sub(f, num(x, 1), LLVMBuildFDiv(f->b, num(x, 2), add(f, e, num(x, 1)), ""));
    V near = ll_fma(f, mul(f, x, z), horner(f, z, p->tanh), x);
    V r = ll_select(f, lt(f, a, 0.6), near, with_sign(f, far, x));
    return keep_nan(f, x, r);
}

LLVMValueRef math_erf(const Fn *f, LLVMValueRef x)
{
    const Precision *p = precision(f, x);
    V a = absolute(f, x);
    V t = at_least(f, at_most(f, a, p->erf_top), 1);
    V g = ll_fma(f, t, t, horner(f, sub(f, t, num(x, 3)), p->erfc));
    V far = sub(f, num(x, 1), exp_in_range(f, LLVMBuildFNeg(f->b, g, ""), NULL));
    V z = mul(f, at_most(f, a, 1), at_most(f, a, 1));
    V near = ll_fma(f, x, horner(f, z, p->erf), x);
    V r = ll_select(f, lt(f, a, 1), near, with_sign(f, far, x));
    return keep_nan(f, x, r);
}

/* ---- rounding: one instruction, but for baseline x86-64, which has none ---- */
static bool has_rounding(const Fn *f)
{
    return f->target->vector_bytes > 16 || f->target->fma;
}

LLVMValueRef math_round(const Fn *f, LLVMValueRef x)
{
    if (has_rounding(f))
        return ll_call1(f, "llvm.roundeven", x);
    double whole = elem(x) == f->f64 ? 0x1p52 : 0x1p23; /* every float from here on is an integer */
    V a = absolute(f, x), r = sub(f, add(f, a, num(x, whole)), num(x, whole));
    return ll_select(f, lt(f, a, whole), with_sign(f, r, x), x);
}

LLVMValueRef math_floor(const Fn *f, LLVMValueRef x)
{
    if (has_rounding(f))
        return ll_call1(f, "llvm.floor", x);
    V r = math_round(f, x);
    return ll_select(f, LLVMBuildFCmp(f->b, LLVMRealOGT, r, x, ""), sub(f, r, num(x, 1)), r);
}

LLVMValueRef math_ceil(const Fn *f, LLVMValueRef x)
{
    if (has_rounding(f))
        return ll_call1(f, "llvm.ceil", x);
    V r = math_round(f, x);
    V up = ll_select(f, LLVMBuildFCmp(f->b, LLVMRealOLT, r, x, ""), add(f, r, num(x, 1)), r);
    return with_sign(f, up, x);
}
